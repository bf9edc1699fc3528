//! `cargo xtask package`: what an operator installs.
//!
//! ```text
//! target/packages/bookworm/ejabberd-mod-dmuc_VERSION_ARCH.deb    and prosody-mod-dmuc
//! target/packages/mod_dmuc-VERSION-contrib.tar.gz                 for ejabberdctl module_install
//! target/packages/mod_dmuc-VERSION-1.linux-ARCH.rock              for prosodyctl install
//! ```

mod contrib;
mod copyright;
mod debs;
mod rock;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::debian::{self, Built};
use crate::{paths, run, setup, stage};

/// Which packages.
#[derive(Args)]
pub struct Arguments {
    /// For this Debian release, may be repeated; without it for all that can be had
    #[arg(long, value_name = "RELEASE")]
    debian: Vec<String>,
}

/// Releases that there are packages for, and Debian's numbers of them.
pub const RELEASES: &[(&str, u32)] = &[("bookworm", 12), ("trixie", 13), ("forky", 14)];

/// The version of the module.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Builds the packages.
pub fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    let names: Vec<String> = match arguments.debian.is_empty() {
        true => RELEASES.iter().map(|(name, _)| (*name).to_owned()).collect(),
        false => arguments.debian.clone(),
    };
    for name in names {
        if arguments.debian.is_empty() && !debian::available(&name) {
            println!("{name}: no packages: this machine's Debian mirror has no {name}");
            continue;
        }
        let packages = release(&built(&name)?)?;
        debs::lint(&packages)?;
        for package in packages {
            println!("{}", package.display());
        }
    }
    for package in [contrib::build()?, rock::build()?] {
        println!("{}", package.display());
    }
    Ok(())
}

/// The Debian packages for a release; where they are.
fn release(built: &Built) -> Result<Vec<PathBuf>> {
    debs::build(built, VERSION, &home().join(&built.name))
}

/// Where nobody says for which release: this machine's, or one that there are packages for.
pub fn usual(own: &str) -> Result<String> {
    let mut names = RELEASES.iter().map(|(name, _)| *name);
    let name = match names.clone().any(|name| name == own) {
        true => Some(own),
        false => names.find(|name| debian::available(name)),
    };
    Ok(name
        .context("this machine's Debian mirror has no release that there are packages for")?
        .into())
}

/// What the suite `packages` installs, for each release: `name:root:packages:newer`, where newer are
/// the same as a later version, and `contrib:rock`, which are for all releases.
pub fn for_tests(names: &[String]) -> Result<(String, String)> {
    let mut releases = Vec::new();
    for name in names {
        let built = built(name)?;
        let (now, newer) = (home().join(name), home().join(format!("{name}-newer")));
        let mut packages = debs::build(&built, VERSION, &now)?;
        // A later version has other directories than this one.
        packages.extend(debs::build(&built, "9.9.9", &newer)?);
        debs::lint(&packages)?;
        let line = [Path::new(name), &built.root, &now, &newer];
        releases.push(line.map(|path| path.display().to_string()).join(":"));
    }
    let files = [contrib::build()?, rock::build()?].map(|path| path.display().to_string());
    Ok((releases.join(","), files.join(":")))
}

/// Where packages are.
fn home() -> PathBuf {
    paths::target().join("packages")
}

/// An empty directory in the place of what was there.
fn anew(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(fs::create_dir_all(dir)?)
}

/// Copies files or directories, which may be links, into a directory.
fn copy<P: AsRef<Path>>(from: impl IntoIterator<Item = P>, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let mut command = Command::new("cp");
    command.args(["--recursive", "--preserve=mode"]);
    for path in from {
        command.arg(path.as_ref());
    }
    run::must(command.arg(to))
}

/// A release with the module built for it. Not in the stage that tests may be running on.
fn built(name: &str) -> Result<Built> {
    debian::built(name, home().join("stage").join(name))
}

/// What is the same for all releases.
fn staged() -> Result<PathBuf> {
    let stage = home().join("stage/any");
    stage::release_libraries(&stage)?;
    Ok(stage)
}

/// The one file in a directory whose name ends so.
fn only(dir: &Path, end: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(end) {
            return Ok(path);
        }
    }
    bail!("no *{end} in {}", dir.display())
}
