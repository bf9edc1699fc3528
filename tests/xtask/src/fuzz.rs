//! `cargo xtask fuzz`: the targets of `tests/fuzz` under libFuzzer.
//!
//! Its program is built with a compiler pass that counts which branches an input takes, in a target
//! directory of its own: flags of the compiler would build everything else anew.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::tally::Tally;
use crate::{paths, run};

/// Which targets, and for how long.
#[derive(Args)]
pub struct Arguments {
    /// Minutes for each target
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Only this target
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Prints the names of the targets
    #[arg(long)]
    list: bool,
    /// Runs this input once and shows what it finds; wants --target
    #[arg(long, value_name = "FILE", requires = "target")]
    replay: Option<PathBuf>,
    /// Makes the kept corpus anew from itself and from what was found in target/, as small as it goes
    #[arg(long)]
    minimise: bool,
}

/// What the compiler is told besides: counters and a table of branches, and comparisons for the fuzzer
/// to look at.
const FLAGS: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Seconds for each target in `cargo xtask test`.
const SHORT: u64 = 5;
/// Longest input.
const MAX_LEN: u64 = 600;

/// How long a target runs, and from where.
enum Span {
    /// From what is kept and what runs before have found, to which it adds.
    Minutes(u64),
    /// From what is kept alone, so that a failure comes from the code and not from chance.
    Short,
}

/// Runs the targets; whether nothing was found.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let known = targets()?;
    if arguments.list {
        known.iter().for_each(|target| println!("{target}"));
        return Ok(true);
    }
    let targets: Vec<String> = match &arguments.target {
        Some(target) if !known.contains(target) => {
            bail!("no target {target}: {}", known.join(", "))
        }
        Some(target) => vec![target.clone()],
        None => known,
    };
    let program = build()?;
    if let (Some(input), Some(target)) = (&arguments.replay, &arguments.target) {
        return Ok(run::must(command(&program, target).arg(input)).is_ok());
    }
    let mut tally = Tally::default();
    for target in &targets {
        tally += match arguments.minimise {
            true => Tally::one(minimise(&program, target).is_ok()),
            false => one(&program, target, &Span::Minutes(arguments.minutes))?,
        };
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

/// The suite: what is kept, without and with the fuzzer, then some seconds of new inputs that are made
/// from it, in the same order each time.
pub fn suite() -> Result<Tally> {
    let test = ["test", "--quiet", "--package", "dmuc-fuzz"];
    let (succeeded, lines) = run::tee(&mut run::cargo(&test))?;
    let mut tally = Tally::read(lines.iter().map(String::as_str), succeeded);
    let program = build()?;
    for target in targets()? {
        tally += one(&program, &target, &Span::Short)?;
    }
    Ok(tally)
}

fn corpus() -> PathBuf {
    paths::root().join("tests/fuzz/corpus")
}

/// What runs have found, and the inputs that were new to them.
fn found() -> PathBuf {
    paths::target().join("fuzz-found")
}

/// A directory of this target's for this run.
fn empty(target: &str, what: &str) -> Result<PathBuf> {
    let directory = found().join(format!("{target}.{what}"));
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// The targets: each has a directory in the corpus.
fn targets() -> Result<Vec<String>> {
    let entries = std::fs::read_dir(corpus()).context("tests/fuzz/corpus")?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Builds the fuzzer's program.
fn build() -> Result<PathBuf> {
    let version = run::output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say what it compiles for")?;
    let directory = paths::target().join("fuzz");
    println!("fuzz: building with coverage; a minute or two the first time");
    // With a target named, the flags are not for build scripts and macros.
    let mut cargo = run::cargo(&["build", "--quiet", "--profile", "fuzz", "--target", host]);
    cargo.args(["--package", "dmuc-fuzz", "--features", "libfuzzer", "--target-dir"]);
    run::must(cargo.arg(&directory).env("RUSTFLAGS", FLAGS))?;
    Ok(directory.join(host).join("fuzz/dmuc-fuzz"))
}

fn command(program: &Path, target: &str) -> Command {
    let mut command = Command::new(program);
    command.env("DMUC_FUZZ", target).env("RUST_BACKTRACE", "1").current_dir(paths::root());
    command
}

/// Runs a target.
fn one(program: &Path, target: &str, span: &Span) -> Result<Tally> {
    let (new, seconds) = match span {
        Span::Minutes(minutes) => (found().join(target), 60 * minutes),
        Span::Short => (empty(target, "short")?, SHORT),
    };
    std::fs::create_dir_all(&new)?;
    let mut fuzzer = command(program, target);
    if matches!(span, Span::Short) {
        fuzzer.arg("-seed=1");
    }
    fuzzer.args([&new, &corpus().join(target)]);
    fuzzer.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={MAX_LEN}"));
    // Long inputs from the start, five seconds and a gigabyte for any of them.
    fuzzer.args(["-len_control=10", "-timeout=5", "-rss_limit_mb=1024", "-print_final_stats=1"]);
    fuzzer.arg(format!("-artifact_prefix={}/{target}-", found().display()));
    println!("== fuzz {target}");
    let (succeeded, lines) = run::quietly(&mut fuzzer)?;
    let last = |word: &str| lines.iter().rev().find(|line| line.contains(word)).map(String::as_str);
    if succeeded {
        println!("{target}: {}", last("\tDONE ").unwrap_or("done").trim_start_matches('#'));
        return Ok(Tally::one(true));
    }
    let from = lines.iter().position(|line| line.contains("panicked at") || line.contains("ERROR"));
    lines.iter().skip(from.unwrap_or(0)).take(60).for_each(|line| println!("{line}"));
    match last("Test unit written to ").and_then(|line| line.split("written to ").nth(1)) {
        Some(input) => {
            println!("{target}: FAILED; again: cargo xtask fuzz --target {target} --replay {input}")
        }
        None => println!("{target}: FAILED without an input"),
    }
    Ok(Tally::one(false))
}

/// Keeps the fewest inputs that take all the branches that any of them takes.
fn minimise(program: &Path, target: &str) -> Result<()> {
    let (kept, new) = (corpus().join(target), found().join(target));
    let least = empty(target, "least")?;
    std::fs::create_dir_all(&new)?;
    let mut fuzzer = command(program, target);
    fuzzer
        .args(["-set_cover_merge=1", "-use_counters=0", "-timeout=5"])
        .args([&least, &kept, &new]);
    let (succeeded, lines) = run::quietly(&mut fuzzer)?;
    if !succeeded {
        lines.iter().rev().take(20).rev().for_each(|line| println!("{line}"));
        bail!("{target}: the fuzzer failed");
    }
    std::fs::remove_dir_all(&kept)?;
    std::fs::create_dir(&kept)?;
    let mut count = 0;
    for entry in std::fs::read_dir(&least)? {
        let entry = entry?;
        std::fs::copy(entry.path(), kept.join(entry.file_name()))?;
        count += 1;
    }
    println!("{target}: {count} inputs are kept");
    Ok(())
}
