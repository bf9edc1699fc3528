//! `cargo xtask test`: every kind of test, one sum.

use std::path::Path;

use anyhow::{Result, bail};
use clap::Args;

use crate::tally::Tally;
use crate::{lint, paths, run, setup, shells, stage, suites};

/// Which tests.
#[derive(Args)]
pub struct Arguments {
    /// Only this suite
    #[arg(long, value_name = "NAME")]
    suite: Option<String>,
    /// Prints the names of the suites
    #[arg(long)]
    list: bool,
}

/// Suites that are not part of the integration tests' program.
const OWN: &[(&str, &str)] = &[
    ("lint", "formatting and linters"),
    ("core", "the protocol, without servers"),
    ("kit", "the laboratory itself, with plain servers"),
    ("shells", "the Erlang and Lua modules without servers"),
];

/// Runs the tests; whether all passed.
pub fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.list {
        for (name, meaning) in OWN {
            println!("{name:12} {meaning}");
        }
        for name in suites::list(&suites::build_suites()?)? {
            println!("{name}");
        }
        return Ok(true);
    }
    let tally = match &arguments.suite {
        None => all()?,
        Some(name) => one(name)?,
    };
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

fn all() -> Result<Tally> {
    setup::run()?;
    let mut tally = Tally::default();
    for (name, _) in OWN {
        tally += own(name)?;
    }
    let staged = counted("stage", stage::run());
    let built = counted("suites", suites::build_suites());
    let (Some(stage), Some(program)) = (staged, built) else {
        tally += Tally::one(false);
        return Ok(tally);
    };
    for name in suites::list(&program)? {
        tally += integration(&program, &stage, &name)?;
    }
    Ok(tally)
}

fn one(name: &str) -> Result<Tally> {
    if OWN.iter().any(|(own, _)| *own == name) {
        if name != "core" {
            setup::run()?;
        }
        return own(name);
    }
    setup::run()?;
    let program = suites::build_suites()?;
    if !suites::list(&program)?.iter().any(|known| known == name) {
        bail!("no suite {name}: see cargo xtask test --list");
    }
    integration(&program, &stage::run()?, name)
}

/// The value, or what went wrong on the screen: the rest of the tests go on.
fn counted<T>(what: &str, outcome: Result<T>) -> Option<T> {
    outcome.inspect_err(|error| println!("{what}: FAILED: {error:#}")).ok()
}

fn own(name: &str) -> Result<Tally> {
    println!("== {name}");
    let tally = match name {
        "lint" => lint::run(),
        "core" => unit(&["--package", "dmuc-core"])?,
        "shells" => shells::run(&stage::run()?),
        _ => kit()?,
    };
    tally.report(name);
    Ok(tally)
}

/// Unit tests, and examples in documentation (which nextest does not know).
fn unit(packages: &[&str]) -> Result<Tally> {
    let nextest = run::cargo(&["nextest", "--version"]).output().is_ok_and(|o| o.status.success());
    if !nextest {
        return counted_tests(&[&["test", "--quiet"], packages].concat());
    }
    let mut tally = counted_tests(
        &[&["nextest", "run", "--no-tests=pass", "--no-fail-fast"], packages].concat(),
    )?;
    tally += counted_tests(&[&["test", "--quiet", "--doc"], packages].concat())?;
    Ok(tally)
}

fn counted_tests(arguments: &[&str]) -> Result<Tally> {
    let (succeeded, lines) = run::tee(&mut run::cargo(arguments))?;
    Ok(Tally::read(lines.iter().map(String::as_str), succeeded))
}

fn kit() -> Result<Tally> {
    let mut tally = unit(&["--package", "dmuc-testkit", "--package", "xtask"])?;
    let program = suites::build(&["--package", "dmuc-testkit", "--example", "smoke"])?;
    let (succeeded, lines) = run::tee(&mut suites::command(&program, &paths::stage()))?;
    tally += Tally::read(lines.iter().map(String::as_str), succeeded);
    Ok(tally)
}

fn integration(program: &Path, stage: &Path, name: &str) -> Result<Tally> {
    println!("== {name}");
    if name == "native" {
        for feature in ["planted-faults", "wrong-abi"] {
            if counted(feature, stage::variant(feature)).is_none() {
                return Ok(Tally::one(false));
            }
        }
    }
    let (succeeded, lines) = run::tee(suites::command(program, stage).args(["--suite", name]))?;
    let own = format!("suite {name}:");
    let last = lines.iter().rev().find(|line| line.starts_with(&own));
    Ok(Tally::read(last.map(String::as_str), succeeded))
}
