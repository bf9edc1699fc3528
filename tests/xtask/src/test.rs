//! `cargo xtask test`: every kind of test, one sum.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, bail};
use clap::Args;

use crate::debian::{self, Places, Releases};
use crate::tally::Tally;
use crate::{fuzz, lint, namespace, package, run, setup, shells, stage, suites};

/// Which tests.
#[derive(Args)]
pub struct Arguments {
    /// Only this suite
    #[arg(long, value_name = "NAME")]
    suite: Option<String>,
    /// With servers of another Debian release, or of two: the primary's and the replica's
    #[arg(long, value_name = "RELEASE[,RELEASE]")]
    debian: Option<Releases>,
    /// Prints the names of the suites
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    random: Random,
}

/// Which scripts the suite `random` plays; without any, some that are always the same and a new one.
#[derive(Args, Default)]
struct Random {
    /// First seed of the suite random
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many seeds, from the first or a new one on
    #[arg(long, value_name = "N")]
    runs: Option<u64>,
    /// Compares plain MUC with itself, which shows what is the scripts' own fault
    #[arg(long)]
    plain_twice: bool,
}

impl Random {
    /// For the program of the suites.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        arguments.extend(self.seed.map(|seed| format!("--seed={seed}")));
        arguments.extend(self.runs.map(|runs| format!("--runs={runs}")));
        arguments.extend(self.plain_twice.then(|| "--plain-twice".to_owned()));
        arguments
    }
}

/// Suites that are not part of the integration tests' program.
const OWN: &[(&str, &str)] = &[
    ("lint", "formatting and linters"),
    ("core", "the protocol, without servers"),
    ("fuzz", "what a hostile peer may send: the kept inputs, and new ones for some seconds"),
    ("kit", "the laboratory itself, with plain servers"),
    ("shells", "the Erlang and Lua modules without servers"),
];

/// Those of them that want what is built for the integration tests.
const BUILT: &[&str] = &["kit", "shells"];

/// Debian releases that have to work besides the one that the tests run on.
const SMOKE: &[&str] = &["trixie", "forky"];

/// Runs the tests; whether all passed.
pub fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.list {
        for (name, meaning) in OWN {
            println!("{name:12} {meaning}");
        }
        for name in suites::list(&suites::build()?.suites)? {
            println!("{name}");
        }
        return Ok(true);
    }
    if arguments.suite.as_deref() != Some("random") && !arguments.random.arguments().is_empty() {
        bail!("--seed, --runs and --plain-twice are for --suite random");
    }
    let tally = match (&arguments.suite, &arguments.debian) {
        (None, None) => all()?,
        (None, Some(releases)) => servers(releases)?,
        (Some(name), releases) => one(name, releases.as_ref(), &arguments.random)?,
    };
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

fn all() -> Result<Tally> {
    setup::run()?;
    // Linking a library takes a minute of one processor, and others can be put to use meanwhile.
    let (mut tally, (staged, built)) = thread::scope(|scope| {
        let builds = scope.spawn(|| {
            let staged = counted("stage", Places::host());
            (staged, counted("suites", suites::build().map(|programs| programs.suites)))
        });
        let tally = owns(false);
        (tally, builds.join().unwrap_or((None, None)))
    });
    tally += owns(true);
    let (Some(places), Some(program)) = (staged, built) else {
        tally += Tally::one(false);
        return Ok(tally);
    };
    let foreign = SMOKE.iter().filter(|release| !debian::is_own(release));
    let jobs = suites::list(&program)?.into_iter().map(Job::Suite);
    tally += in_lanes(&program, &places, jobs.chain(foreign.map(|release| Job::Smoke(release))));
    Ok(tally)
}

/// Of the suites in [`OWN`] those that are in [`BUILT`], or the others.
fn owns(built: bool) -> Tally {
    let mut tally = Tally::default();
    for (name, _) in OWN.iter().filter(|(name, _)| BUILT.contains(name) == built) {
        tally += summed(name, own(name));
    }
    tally
}

/// What can be done beside other such things: every suite has a network of its own.
enum Job {
    /// A suite with the servers at hand.
    Suite(String),
    /// The smoke test of a release.
    Smoke(&'static str),
}

/// What proptest takes its cases from.
const SEED: &str = "PROPTEST_RNG_SEED";

/// Suites that run at the same time: a good part of their time is waiting.
const LANES: usize = 2;

/// Suites that do little but wait. They have a lane for themselves, which helps the others when they are over.
const WAITING: &[&str] = &["faults"];

fn in_lanes(program: &Path, places: &Places, jobs: impl Iterator<Item = Job>) -> Tally {
    let waits = |job: &Job| matches!(job, Job::Suite(name) if WAITING.contains(&&**name));
    let (waiting, busy): (VecDeque<_>, VecDeque<_>) = jobs.partition(waits);
    let (waiting, busy) = (Mutex::new(waiting), Mutex::new(busy));
    let pop = |jobs: &Mutex<VecDeque<Job>>| {
        jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    };
    let lane = |first: &Mutex<VecDeque<Job>>| {
        let mut tally = Tally::default();
        while let Some(job) = pop(first).or_else(|| pop(&busy)) {
            let (what, outcome) = match job {
                Job::Suite(name) => (name.clone(), integration(program, places, &name)),
                Job::Smoke(release) => (release.to_owned(), smoke(program, release)),
            };
            tally += summed(&what, outcome);
        }
        tally
    };
    thread::scope(|scope| {
        let queues = std::iter::repeat_n(&busy, LANES).chain([&waiting]);
        let lanes: Vec<_> = queues.map(|jobs| scope.spawn(move || lane(jobs))).collect();
        let mut all = Tally::default();
        for lane in lanes {
            all += lane.join().unwrap_or(Tally::one(false));
        }
        all
    })
}

/// One suite with another release's servers. A mirror need not have every release, except where
/// a change has to pass everything.
fn smoke(program: &Path, release: &str) -> Result<Tally> {
    if !required() && !debian::available(release) {
        println!("{release}: link: skipped: this machine's Debian mirror has no {release}");
        return Ok(Tally::default());
    }
    let places = release.parse().and_then(|release| Places::of(Some(&release)));
    match counted(&format!("{release}: link"), places) {
        Some(places) => integration(program, &places, "link"),
        None => Ok(Tally::one(false)),
    }
}

/// All suites that start servers, with those of other releases.
fn servers(releases: &Releases) -> Result<Tally> {
    setup::run()?;
    let places = Places::of(Some(releases))?;
    let mut tally = kit(&places)?;
    let program = suites::build()?.suites;
    let jobs = suites::list(&program)?.into_iter().map(Job::Suite);
    tally += in_lanes(&program, &places, jobs);
    Ok(tally)
}

fn one(name: &str, releases: Option<&Releases>, random: &Random) -> Result<Tally> {
    if OWN.iter().any(|(own, _)| *own == name) {
        if name != "core" {
            setup::run()?;
        }
        return match releases {
            Some(releases) if name == "kit" => kit(&Places::of(Some(releases))?),
            Some(_) => bail!("{name} starts no servers of any release"),
            None => own(name),
        };
    }
    setup::run()?;
    let program = suites::build()?.suites;
    if !suites::list(&program)?.iter().any(|known| known == name) {
        bail!("no suite {name}: see cargo xtask test --list");
    }
    run_suite(&program, &Places::of(releases)?, name, &random.arguments())
}

/// The value, or what went wrong on the screen: the rest of the tests go on.
fn counted<T>(what: &str, outcome: Result<T>) -> Option<T> {
    outcome.inspect_err(|error| println!("{what}: FAILED: {error:#}")).ok()
}

/// The same of a sum of tests: one that went wrong by itself is a failed one.
fn summed(what: &str, outcome: Result<Tally>) -> Tally {
    counted(what, outcome).unwrap_or(Tally::one(false))
}

fn own(name: &str) -> Result<Tally> {
    println!("== {name}");
    let tally = match name {
        "lint" => lint::run(),
        "core" => {
            let mut tally = unit("dev", &["--package=dmuc-core"])?;
            // Examples in documentation, which nextest does not know.
            tally += counted_tests(&["test", "--quiet", "--doc", "--package=dmuc-core"])?;
            // The law finds what it is there to find.
            let planted = ["--features", "planted-faults", "--test", "law", "planted::"];
            tally += counted_tests(
                &[&["test", "--quiet", "--package", "dmuc-core"][..], &planted].concat(),
            )?;
            tally
        }
        "fuzz" => fuzz::suite()?,
        "shells" => shells::run(&stage::run()?),
        _ => kit(&Places::host()?)?,
    };
    tally.report(name);
    Ok(tally)
}

/// Unit tests, built with a profile of cargo's.
fn unit(profile: &str, what: &[&str]) -> Result<Tally> {
    let nextest = run::cargo(&["nextest", "--version"]).output().is_ok_and(|o| o.status.success());
    let how: &[&str] = match nextest {
        true => &["nextest", "run", "--no-tests=pass", "--no-fail-fast", "--cargo-profile"],
        false => &["test", "--quiet", "--profile"],
    };
    counted_tests(&[how, &[profile], what].concat())
}

/// Properties are tried with the same cases each time: new ones are for whoever can look into them.
fn counted_tests(arguments: &[&str]) -> Result<Tally> {
    let mut cargo = run::cargo(arguments);
    if std::env::var_os(SEED).is_none() {
        cargo.env(SEED, "1");
    }
    let (succeeded, lines) = run::tee(&mut cargo)?;
    Ok(Tally::read(lines.iter().map(String::as_str), succeeded))
}

fn kit(places: &Places) -> Result<Tally> {
    // With the profiles of what is there anyway.
    let what = [&["--lib", "--bin=dmuc-suites"], suites::PACKAGES].concat();
    let mut tally = unit("suites", &what)?;
    tally += unit("dev", &["--package=xtask"])?;
    let program = suites::build()?.smoke;
    let (succeeded, lines) = run::tee(&mut suites::command(&program, places))?;
    tally += Tally::read(lines.iter().map(String::as_str), succeeded);
    Ok(tally)
}

/// What the suite of the packages has to know; nothing where it cannot run.
fn packages(places: &Places) -> Result<Option<[(&'static str, String); 2]>> {
    // The servers' own users are made by the packages, and a namespace without root's rights has
    // but one.
    if !namespace::is_root() {
        if required() {
            bail!("packages: only root can install packages");
        }
        println!("packages: skipped: only root can install packages");
        return Ok(None);
    }
    let (releases, modules) = package::for_tests(&places.names()?)?;
    Ok(Some([("DMUC_PACKAGES", releases), ("DMUC_MODULES", modules)]))
}

/// Whether a change is to be let in, so that nothing may be left out.
fn required() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty())
}

fn integration(program: &Path, places: &Places, name: &str) -> Result<Tally> {
    run_suite(program, places, name, &[])
}

fn run_suite(program: &Path, places: &Places, name: &str, more: &[String]) -> Result<Tally> {
    let label = places.label.as_ref().map(|label| format!("{label}: ")).unwrap_or_default();
    println!("== {label}{name}");
    let features: &[&str] = match name {
        "native" => &["planted-faults", "wrong-abi"],
        "planted" => &["planted-faults"],
        _ => &[],
    };
    for stage in places.stages() {
        for feature in features {
            if counted(feature, stage::variant(stage, feature)).is_none() {
                return Ok(Tally::one(false));
            }
        }
    }
    let mut command = suites::command(program, places);
    if name == "packages" {
        match packages(places)? {
            Some(env) => command.envs(env),
            None => return Ok(Tally::default()),
        };
    }
    let named = |line: &str| match line.strip_prefix("suite ") {
        Some(rest) => format!("suite {label}{rest}"),
        None if line.starts_with(&format!("{name}: ")) => format!("{label}{line}"),
        None => line.to_owned(),
    };
    let (succeeded, lines) = run::tee_as(command.args(["--suite", name]).args(more), named)?;
    let own = format!("suite {name}:");
    let last = lines.iter().rev().find(|line| line.starts_with(&own));
    Ok(Tally::read(last.map(String::as_str), succeeded))
}
