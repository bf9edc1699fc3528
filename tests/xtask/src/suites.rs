//! The integration suites: a program of its own, run inside the private namespace.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::debian::Places;
use crate::{namespace, paths, run};

/// Builds a program of the tests.
pub fn build(what: &[&str]) -> Result<PathBuf> {
    let arguments = [
        &["build", "--quiet", "--message-format=json-render-diagnostics", "--profile", "suites"],
        what,
    ]
    .concat();
    run::output(&mut run::cargo(&arguments))?
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
        .context("cargo has built no program")
}

/// Builds the suites.
pub fn build_suites() -> Result<PathBuf> {
    build(&["--package", "dmuc-suites"])
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
