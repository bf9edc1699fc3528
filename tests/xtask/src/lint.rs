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
            outcome.and_then(|()| stage::compile_erlang("src", &scratch, &options, None)),
        );
    }
    if run::exists("luacheck") {
        let mut luacheck = Command::new("luacheck");
        luacheck.args(["--quiet", "."]).current_dir(paths::root().join("lua"));
        check("luacheck", run::must(&mut luacheck));
    }
    check("licences", licences());
    tally
}

/// That every dependency may be part of a server under the GPL 2 or later.
fn licences() -> anyhow::Result<()> {
    let deny = if run::exists("cargo-deny") {
        "cargo-deny".into()
    } else {
        let tools = paths::target().join("tools");
        let deny = tools.join("bin/cargo-deny");
        if !deny.exists() {
            println!("lint: cargo-deny is missing; building it once, for some minutes");
            // It has a second of work to do: not worth an optimised build.
            let install = ["install", "--quiet", "--locked", "--debug", "cargo-deny", "--root"];
            let mut install = run::cargo(&install);
            // Outside of the workspace's own profiles and lock file.
            let install = install.arg(&tools).env_remove("CARGO_TARGET_DIR");
            run::must(install.env("CARGO_PROFILE_DEV_DEBUG", "false"))?;
        }
        deny
    };
    let arguments = ["--log-level", "error", "--config", ".cargo/deny.toml", "check"];
    let mut deny = Command::new(deny);
    run::must(deny.args(arguments).args(["licenses", "bans", "sources"]).current_dir(paths::root()))
}
