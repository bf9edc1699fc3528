//! The integration suites: a program of its own, run inside the private namespace.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::debian::Places;
use crate::{namespace, paths, run};

/// What `cargo xtask test` runs in the namespace.
pub struct Programs {
    /// The suites.
    pub suites: PathBuf,
    /// The laboratory's own tests with servers.
    pub smoke: PathBuf,
}

/// The tests' own packages are always built together: alone, each would want the dependencies of all with
/// other features.
pub const PACKAGES: &[&str] = &["--package=dmuc-suites", "--package=dmuc-testkit"];

/// Builds them.
pub fn build() -> Result<Programs> {
    let what = ["--profile=suites", "--bin=dmuc-suites", "--example=smoke"];
    let how = ["build", "--quiet", "--message-format=json-render-diagnostics"];
    let built = run::output(&mut run::cargo(&[&how[..], &what, PACKAGES].concat()))?;
    let messages: Vec<Value> =
        built.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let program = |name: &str| {
        let of = messages.iter().filter(|message| message["target"]["name"] == name);
        of.filter_map(|message| message["executable"].as_str().map(PathBuf::from))
            .next_back()
            .with_context(|| format!("cargo has built no {name}"))
    };
    Ok(Programs { suites: program("dmuc-suites")?, smoke: program("smoke")? })
}

/// A command that runs `program` in the namespace and tells it where things are.
pub fn command(program: &Path, places: &Places) -> Command {
    let mut command = namespace::enter(program);
    places.tell(&mut command).env("DMUC_RUNS", paths::runs()).current_dir(paths::root());
    command
}

/// The names of the suites in a built program.
pub fn list(program: &Path) -> Result<Vec<String>> {
    let printed = run::output(Command::new(program).arg("--list"))?;
    Ok(printed.split_whitespace().map(str::to_owned).collect())
}
