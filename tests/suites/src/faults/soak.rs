//! `cargo xtask soak`: links and servers fail at random while people talk, for as long as one likes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use dmuc_testkit::{Fault, Lab};
use futures::future::join_all;

use super::town::{Setup, Town};
use crate::hostile::tables::{counters, memory};
use crate::scene::{Pairing, pairings};

/// What `cargo xtask soak` takes.
#[derive(Args)]
pub struct Arguments {
    /// How long faults happen
    #[arg(long, value_name = "N", default_value_t = 10)]
    minutes: u64,
    /// Which faults
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Only this pairing of primary and replica, as in ejabberd-prosody; else all at once
    #[arg(long)]
    pairing: Option<Pairing>,
    /// The servers' stock settings of reconnection, and dmuc's defaults
    #[arg(long)]
    stock: bool,
}

/// Option `hold_time` in seconds. Some faults are longer.
const HOLD: u64 = 15;

/// How long it may take until all is well again.
const PATIENCE: Duration = Duration::from_secs(90);

/// Runs it; whether the oracle was content each time.
pub async fn run(arguments: &Arguments) -> Result<bool> {
    let runs = pairings(arguments.pairing).map(|pairing| soak(pairing, arguments));
    let (mut passed, mut failed) = (0, 0);
    for outcome in join_all(runs).await {
        match outcome {
            Ok(phases) => {
                passed += phases.passed;
                failed += phases.failed;
            }
            Err(error) => {
                println!("FAILED: {error:#}");
                failed += 1;
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// How often the oracle was content, and how often not.
#[derive(Clone, Copy, Default)]
struct Phases {
    passed: u64,
    failed: u64,
}

async fn soak(pairing: Pairing, arguments: &Arguments) -> Result<Phases> {
    let hold = (!arguments.stock).then_some(HOLD);
    let setup =
        Setup { stock: arguments.stock, hold, record: false, forgetful: true, ..Setup::QUICK };
    let lab = setup.start("soak", pairing).await?;
    let mut phases = Phases::default();
    let outcome = async {
        let town = Town::found(&lab, arguments.seed).await?;
        town.live(play(&town, pairing, arguments, &mut phases)).await
    };
    let outcome = outcome.await.with_context(|| pairing.to_string());
    // What the oracle did not like is on record, and so are the logs then.
    let done = outcome.is_ok();
    let content = match phases.failed {
        0 => outcome,
        failed => outcome.and_then(|()| bail!("the oracle was not content {failed} times")),
    };
    match lab.finish(content).await {
        Err(error) if done && phases.failed > 0 => println!("{pairing}: {error:#}"),
        finished => finished?,
    }
    Ok(phases)
}

async fn play(
    town: &Town<'_>,
    pairing: Pairing,
    arguments: &Arguments,
    phases: &mut Phases,
) -> Result<()> {
    let time = Duration::from_secs(60 * arguments.minutes);
    let begin = Instant::now();
    let mut first = None;
    for n in 1.. {
        // The memory of a server that has just been started says nothing: in the second half none is.
        let settled = begin.elapsed() >= time / 2;
        let mut names = Vec::new();
        for _ in 0..2 + town.chance(4) {
            town.pass(Duration::from_millis(500 + town.chance(5000))).await;
            let (fault, length) = fault(town, settled);
            let whole = async {
                town.linked(PATIENCE).await?;
                town.all_hear(PATIENCE).await
            };
            match whole.await {
                // What went plainly before it arrives.
                Ok(()) => town.pass(Duration::from_secs(1)).await,
                Err(_) => names.push("without a link:".to_owned()),
            }
            names.push(format!("{fault} {:.1} s", length.as_secs_f64()));
            town.suffer(&fault, length).await?;
        }
        town.pass(Duration::from_secs(2)).await;
        let findings = town.quiet(PATIENCE).await?;
        let memory = memories(town.lab).await?;
        let at = begin.elapsed().as_secs();
        println!("{pairing} {n} ({at} s): {}\n  {findings}; KiB {memory:?}", names.join(", "));
        match findings.is_clean() {
            true => phases.passed += 1,
            false => {
                phases.failed += 1;
                findings.details.iter().for_each(|detail| println!("    {detail}"));
            }
        }
        if settled {
            first.get_or_insert(memory);
        }
        if begin.elapsed() >= time {
            break;
        }
    }
    println!(
        "{pairing}: KiB without restarts: {first:?} at first, {:?} at last",
        memories(town.lab).await?
    );
    for server in ["a", "b"] {
        let counters = counters(town.lab.server(server)).await?;
        let counters: BTreeMap<_, _> = counters.into_iter().filter(|(_, n)| *n > 0).collect();
        println!("{pairing}: counters of {server}: {counters:?}");
    }
    let [whole, broken] = town.delays();
    println!(
        "{pairing}: delay at a third server (median, 99th, longest in ms): {whole:.1?}, \
         during faults {broken:.1?}"
    );
    Ok(())
}

/// Memory of the servers' processes in KiB, tidied up.
async fn memories(lab: &Lab) -> Result<[u64; 2]> {
    Ok([memory(lab.server("a")).await?, memory(lab.server("b")).await?])
}

/// What goes wrong next, and for how long.
fn fault(town: &Town<'_>, settled: bool) -> (Fault, Duration) {
    let (a, b) = ("a".to_owned(), "b".to_owned());
    let (from, to) =
        if town.chance(2) == 0 { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) };
    let fault = match town.chance(if settled { 80 } else { 100 }) {
        0..20 => Fault::Down(a, b),
        20..35 => Fault::OneWay(from, to),
        35..45 => Fault::Reset(a, b),
        45..55 => Fault::Refused(a, b),
        55..60 => Fault::Slow(a, b, Duration::from_millis(50 + town.chance(1000))),
        60..65 => Fault::Lossy(a, b, 5 + town.chance(30) as u8),
        65..73 => Fault::Frozen(from),
        73..80 => Fault::Unloaded(from),
        80..95 => Fault::Killed(b),
        _ => Fault::Killed(a),
    };
    let length = match town.chance(10) {
        _ if matches!(fault, Fault::Reset(..)) => 0,
        0..8 => 100 + town.chance(5000),
        _ => 5000 + town.chance(25_000),
    };
    (fault, Duration::from_millis(length))
}
