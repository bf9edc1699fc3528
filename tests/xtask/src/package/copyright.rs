//! Whose work is in the native libraries: the crates in them, with their notices.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{paths, run};

/// Adds the crates of the libraries to debian/copyright, and the text of the licence.
pub fn append(file: &Path) -> Result<()> {
    let mut text = fs::read_to_string(file)?;
    for (name, version, notices) in crates()? {
        write!(text, "\nFiles: crates/{name}-{version}/*\nCopyright:")?;
        for notice in notices {
            write!(text, "\n {notice}")?;
        }
        text += "\nLicense: Expat\n";
    }
    let licence = fs::read_to_string(paths::root().join("LICENSE"))?;
    let (_, terms) = licence.split_once("\n\nPermission").context("a LICENSE without terms")?;
    text += "\nLicense: Expat\n";
    for line in format!("Permission{terms}").lines() {
        writeln!(text, " {}", if line.is_empty() { "." } else { line })?;
    }
    Ok(fs::write(file, text)?)
}

/// Name, version and copyright notices of each crate that is linked into a library.
fn crates() -> Result<Vec<(String, String, Vec<String>)>> {
    let tree = run::output(&mut run::cargo(&[
        "tree",
        "--package=dmuc-nif",
        "--package=dmuc-lua",
        "--edges=normal,no-proc-macro",
        "--prefix=none",
        "--format={p}",
    ]))?;
    let linked: BTreeSet<(&str, &str)> = tree
        .lines()
        .filter_map(|line| line.split_once(" v"))
        .map(|(name, rest)| (name, rest.split(' ').next().unwrap_or_default()))
        .filter(|(name, _)| !name.starts_with("dmuc-"))
        .collect();
    let metadata = run::output(&mut run::cargo(&["metadata", "--format-version=1"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("no packages in cargo metadata")?;
    let text = |package: &Value, key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let mut crates = Vec::new();
    for (name, version) in linked {
        let package = packages
            .iter()
            .find(|package| text(package, "name") == name && text(package, "version") == version)
            .with_context(|| format!("cargo metadata knows no {name} {version}"))?;
        if !text(package, "license").contains("MIT") {
            bail!("{name} {version} cannot be had under the MIT license");
        }
        let manifest = text(package, "manifest_path");
        let dir = Path::new(&manifest).parent().context("a manifest without directory")?;
        let mut notices = notices(dir)?;
        if notices.is_empty() {
            // Its licence says nothing of whose it is.
            let authors = package["authors"].as_array().into_iter().flatten();
            let authors: Vec<&str> = authors.filter_map(Value::as_str).collect();
            notices = match authors.is_empty() {
                true => vec![format!("the authors of {name}")],
                false => authors.into_iter().map(str::to_owned).collect(),
            };
        }
        crates.push((name.to_owned(), version.to_owned(), notices));
    }
    Ok(crates)
}

/// The lines of a crate's licence that say whose it is.
fn notices(dir: &Path) -> Result<Vec<String>> {
    let mut names: Vec<_> = fs::read_dir(dir)?.collect::<std::io::Result<Vec<_>>>()?;
    names.sort_by_key(std::fs::DirEntry::file_name);
    let mut found = Vec::new();
    for entry in names {
        let name = entry.file_name().to_string_lossy().to_uppercase();
        if !name.contains("LICEN") || name.contains("APACHE") {
            continue;
        }
        let bytes = fs::read(entry.path()).unwrap_or_default();
        for line in String::from_utf8_lossy(&bytes).lines().map(str::trim) {
            let Some(rest) = line.strip_prefix("Copyright ") else { continue };
            let owner = rest.trim_start_matches("(c) ").trim_start_matches("(C) ").to_owned();
            // Not the lines of a licence's own text that begin so.
            if owner.len() > 6 && !owner.contains('[') && !found.contains(&owner) {
                found.push(owner);
            }
        }
    }
    Ok(found)
}
