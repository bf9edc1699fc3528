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
    for Linked { name, version, notices, terms } in crates()? {
        write!(text, "\nFiles: crates/{name}-{version}/*\nCopyright:")?;
        for notice in notices {
            write!(text, "\n {notice}")?;
        }
        match terms {
            None => text += "\nLicense: Expat\n",
            Some((licence, terms)) => {
                writeln!(text, "\nLicense: {licence}")?;
                indent(&mut text, &terms)?;
            }
        }
    }
    let licence = fs::read_to_string(paths::root().join("LICENSE"))?;
    let (_, terms) = licence.split_once("\n\nPermission").context("a LICENSE without terms")?;
    text += "\nLicense: Expat\n";
    indent(&mut text, &format!("Permission{terms}"))?;
    Ok(fs::write(file, text)?)
}

/// A text in the form that a field of debian/copyright has.
fn indent(to: &mut String, text: &str) -> Result<()> {
    for line in text.lines() {
        writeln!(to, " {}", if line.trim().is_empty() { "." } else { line.trim_end() })?;
    }
    Ok(())
}

/// A crate that is linked into a library.
struct Linked {
    name: String,
    version: String,
    /// Whose it is.
    notices: Vec<String>,
    /// The name and the terms of its own licence, if it cannot be had under the MIT license.
    terms: Option<(&'static str, String)>,
}

fn crates() -> Result<Vec<Linked>> {
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
        let manifest = text(package, "manifest_path");
        let dir = Path::new(&manifest).parent().context("a manifest without directory")?;
        let terms = match text(package, "license") {
            licence if licence.contains("MIT") => None,
            licence if licence == "BSD-3-Clause" => {
                Some(("BSD-3-clause", terms(&dir.join("LICENSE"), "Redistribution")?))
            }
            licence if licence.contains("BSL-1.0") => {
                Some(("BSL-1.0", terms(&dir.join("LICENSE-BOOST"), "Permission")?))
            }
            other => bail!("{name} {version} can be had under {other} only"),
        };
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
        let (name, version) = (name.to_owned(), version.to_owned());
        crates.push(Linked { name, version, notices, terms });
    }
    Ok(crates)
}

/// What a licence allows, from this word on.
fn terms(file: &Path, begin: &str) -> Result<String> {
    let text = fs::read_to_string(file)?;
    let at = text.find(begin).with_context(|| format!("no terms in {}", file.display()))?;
    Ok(text[at..].trim_end().to_owned())
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
