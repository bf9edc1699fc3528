//! Tests of the wrappers that need no server: EUnit for Erlang, busted for Lua.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::tally::Tally;
use crate::{paths, run, stage};

/// Runs them over a stage.
pub fn run(stage: &Path) -> Tally {
    let mut tally = Tally::default();
    for (name, outcome) in [("eunit", eunit(stage)), ("busted", busted(stage))] {
        tally += outcome.unwrap_or_else(|error| {
            println!("shells: {name}: FAILED: {error:#}");
            Tally::one(false)
        });
    }
    tally
}

/// Each test prints a line, so that they can be counted.
fn eunit(stage: &Path) -> Result<Tally> {
    let ebin = paths::target().join("eunit-ebin");
    std::fs::create_dir_all(&ebin)?;
    stage::compile_erlang("test", &ebin, &[], None)?;
    let libs = format!("{}:{}", stage.join("erlang").display(), stage::multiarch(None)?.display());
    let mut erl = Command::new("erl");
    erl.env("ERL_LIBS", libs).arg("-noshell").arg("-pa").arg(&ebin).args([
        "-eval",
        "case eunit:test([mod_dmuc_tests, mod_dmuc_primary_tests, mod_dmuc_form_tests], [verbose]) of \
         ok -> halt(0); _ -> halt(1) end.",
    ]);
    let (succeeded, lines) = run::tee(&mut erl)?;
    let count = |end: &str| lines.iter().filter(|line| line.trim_end().ends_with(end)).count();
    // "...ok" and "...[0.012 s] ok" against "...*failed*".
    let failed = count("*failed*").max(usize::from(!succeeded));
    Ok(Tally { passed: count("ok") as u64, failed: failed as u64 })
}

fn busted(stage: &Path) -> Result<Tally> {
    let mut busted = Command::new("busted");
    busted
        .env(
            "LUA_CPATH",
            format!("/usr/lib/prosody/?.so;{}/?.so;;", stage.join("lua/5.4").display()),
        )
        .args(["--lua=/usr/bin/lua5.4", "--lpath=/usr/lib/prosody/?.lua", "--output=TAP", "spec"])
        .current_dir(paths::root().join("lua"));
    let (succeeded, lines) = run::tee(&mut busted)?;
    let count = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
    let failed = count("not ok ").max(usize::from(!succeeded));
    Ok(Tally { passed: count("ok ") as u64, failed: failed as u64 })
}
