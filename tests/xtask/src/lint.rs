//! Formatting and linters; every one counts as a test.

use std::process::Command;

use crate::tally::Tally;
use crate::{paths, run, stage};

/// Runs them all.
pub fn run() -> Tally {
    let mut tally = Tally::default();
    let mut check = |name: &str, outcome: anyhow::Result<()>| {
        match &outcome {
            Ok(()) => println!("lint: {name}: ok"),
            Err(error) => println!("lint: {name}: FAILED: {error:#}"),
        }
        tally += Tally::one(outcome.is_ok());
    };
    check("format", run::must(&mut run::cargo(&["fmt", "--all", "--check"])));
    check(
        "clippy",
        run::must(&mut run::cargo(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ])),
    );
    if paths::root().join("erlang/src").is_dir() {
        let scratch = paths::target().join("lint-ebin");
        let outcome = std::fs::create_dir_all(&scratch).map_err(Into::into);
        let options = ["-Werror", "+warn_unused_vars", "+warn_export_vars", "+warn_shadow_vars"];
        check(
            "erlc",
            outcome.and_then(|()| {
                stage::compile_erlang(&paths::root().join("erlang/src"), &scratch, &options)
            }),
        );
    }
    if run::exists("luacheck") {
        let mut luacheck = Command::new("luacheck");
        luacheck.args(["--quiet", "lua"]).current_dir(paths::root());
        check("luacheck", run::must(&mut luacheck));
    }
    tally
}
