//! Scripts made up from a seed, compared as those of [`crate::oracle`] are.
//!
//! A seed alone gives a script. The room gets its actions in their order: who acts waits until the own
//! server has passed it on, and before somebody of another server acts the room has answered the one
//! before. Nothing is done whose outcome Prosody leaves to the order of a hash table: users with two
//! sessions show nothing.

mod owner;
mod play;
mod script;
mod words;
mod writer;

use std::cell::Cell;
use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};
use clap::Args;
use dmuc_testkit::{Kind, LabBuilder, ServerSpec};
use futures::future::{join, try_join};
use serde_json::json;

use self::play::Place;
use self::script::Script;
use crate::oracle::{self, same};
use crate::runner::Suite;
use crate::scene::{PAIRINGS, Pairing};

/// Seeds of every run. A new one comes with them, but not where a change is let in: what it finds is
/// for whoever can look into it. The third has found something.
const FIXED: [u64; 3] = [1, 2, 4_684_171];
/// Time for one seed, on a machine with much else to do.
const ONE: Duration = Duration::from_secs(60);
/// How long to look for a shorter script that still differs.
const SEARCH: Duration = Duration::from_secs(100);

/// Which scripts.
#[derive(Args, Clone, Debug, Default)]
pub struct Arguments {
    /// First seed of the suite `random`
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds, from the first on
    #[arg(long)]
    runs: Option<u64>,
    /// Compares plain MUC with itself, which shows what is the scripts' fault
    #[arg(long)]
    plain_twice: bool,
}

impl Arguments {
    fn seeds(&self) -> Vec<u64> {
        match (self.seed, self.runs) {
            (None, None) if is_gate() => FIXED.into(),
            (None, None) => FIXED.into_iter().chain([fresh()]).collect(),
            (first, runs) => {
                let first = first.unwrap_or_else(fresh);
                (0..runs.unwrap_or(1)).map(|n| first.wrapping_add(n)).collect()
            }
        }
    }
}

/// Whether a change is to be let in or not.
fn is_gate() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty())
}

/// A seed that nobody has tried, short enough to be typed.
fn fresh() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    fastrand::Rng::with_seed(now.as_nanos() as u64).u64(1000..10_000_000)
}

pub fn suite(arguments: &Arguments) -> Suite {
    let mut suite = Suite::new("random");
    let (seeds, twice) = (arguments.seeds(), arguments.plain_twice);
    let limit = ONE * (2 + seeds.len() as u32) + SEARCH;
    for pairing in PAIRINGS {
        let seeds = seeds.clone();
        suite = suite
            .long_case(pairing.to_string(), limit, move || compare(pairing, seeds.clone(), twice));
    }
    suite
}

/// Room on `a`, and users of all three.
fn lab(pairing: Pairing, name: &str, dmuc: bool) -> LabBuilder {
    let spec = move |spec: ServerSpec| {
        let spec = match spec.kind {
            Kind::Ejabberd => spec.option("modules", json!({ "mod_muc": { "history_size": 50 } })),
            Kind::Prosody => spec.option("muc_room_default_history_length", 50),
        };
        // That a server has no dmuc is not to be remembered for long.
        [("retry_min", 1), ("retry_max", 1), ("support_no", 1)]
            .into_iter()
            .fold(spec.dmuc(dmuc), |spec, (name, value)| spec.dmuc_option(name, value))
    };
    let other = match pairing.replica {
        Kind::Ejabberd => Kind::Prosody,
        Kind::Prosody => Kind::Ejabberd,
    };
    let third = spec(ServerSpec::new(other, "c"));
    pairing.lab_with(name, spec).server(third).wire("a", "c")
}

async fn compare(pairing: Pairing, seeds: Vec<u64>, twice: bool) -> Result<()> {
    let one = lab(pairing, "random-plain", false);
    let other = lab(pairing, if twice { "random-plain-too" } else { "random" }, !twice);
    let (one, other) = try_join(one.start(), other.start()).await?;
    let pair = Pair {
        one: Place::new(&one, false),
        other: Place::new(&other, !twice),
        attempts: Cell::new(0),
    };
    let outcome = pair.all(pairing, seeds).await;
    drop(pair);
    let outcome = other.finish(outcome).await;
    one.finish(outcome).await
}

/// Two laboratories in which everything should go the same way.
struct Pair<'a> {
    one: Place<'a>,
    other: Place<'a>,
    /// How many have been made: each has a room of its own.
    attempts: Cell<usize>,
}

impl Pair<'_> {
    async fn all(&self, pairing: Pairing, seeds: Vec<u64>) -> Result<()> {
        let mut failures = Vec::new();
        for seed in seeds {
            let begin = Instant::now();
            let script = Script::new(seed);
            let outcome = self.attempt(&script).await;
            let (took, length) = (begin.elapsed().as_secs_f64(), script.actions.len());
            let error = match outcome {
                Ok((carried, plain)) => {
                    println!(
                        "  {pairing}: seed {seed}: {length} actions, {took:.1} s; \
                         {carried} stanzas in envelopes, {plain} beside"
                    );
                    continue;
                }
                Err(error) => error,
            };
            // Servers under load race with themselves; what differs by a fault of ours does so again.
            println!("differs, trying again: seed {seed}: {error:#}");
            if let Err(error) = self.attempt(&script).await {
                // One such search is all there is time for.
                let search = if failures.is_empty() { SEARCH } else { Duration::ZERO };
                failures.push(self.shortest(script, error, search).await);
            }
        }
        ensure!(failures.is_empty(), "{}", failures.join("\n"));
        Ok(())
    }

    /// Plays it in both; how many stanzas of the other's room were in envelopes, and how many beside.
    async fn attempt(&self, script: &Script) -> Result<(usize, usize)> {
        self.attempts.set(self.attempts.get() + 1);
        let name = format!("r{}n{}", script.seed, self.attempts.get());
        let outcome = match join(self.one.play(script, &name), self.other.play(script, &name)).await
        {
            (Ok(one), Ok(other)) => {
                same(&one.heard, &other.heard).map(|()| (other.carried, other.plain))
            }
            (Err(error), _) => Err(error.context("plain")),
            (_, Err(error)) => Err(error.context("the other")),
        };
        if outcome.is_err() {
            self.save_wires(&name)?;
        }
        outcome
    }

    /// What has crossed is kept under the room's name.
    fn save_wires(&self, name: &str) -> Result<()> {
        for (lab, which) in [(self.one.lab, "plain"), (self.other.lab, "other")] {
            lab.write_wires()?;
            for wire in ["wire-a-b", "wire-a-c"] {
                let to = self.other.lab.dir().join(format!("{wire}-{name}-{which}.log"));
                std::fs::rename(lab.dir().join(format!("{wire}.log")), to)?;
            }
        }
        Ok(())
    }

    /// What to say of a script that differs: its shortest beginning that differs, too.
    async fn shortest(&self, script: Script, error: anyhow::Error, search: Duration) -> String {
        let begin = Instant::now();
        let (mut good, mut bad, mut error) = (0, script.actions.len(), error);
        while bad - good > 1 && begin.elapsed() < search {
            let middle = good + (bad - good) / 2;
            match self.attempt(&script.beginning(middle)).await {
                Ok(_) => good = middle,
                Err(shorter) => (bad, error) = (middle, shorter),
            }
        }
        let mut text = format!(
            "seed {}: differs after {bad} of {} actions (not after {good}), c {} dmuc: {error:#}\n",
            script.seed,
            script.actions.len(),
            if script.third { "with" } else { "without" },
        );
        for (n, action) in script.actions.iter().enumerate().take(bad) {
            let _ = writeln!(text, "    {n}: {action}");
        }
        text
    }
}

/// What came of a script.
struct Run {
    heard: oracle::Run,
    /// Stanzas of the room to other servers in envelopes, and beside them.
    carried: usize,
    plain: usize,
}
