//! The suite: a few faults of each kind, short enough for every change.

use std::time::Duration;

use anyhow::{Result, bail};
use dmuc_testkit::Fault;
use tokio::time::sleep;

use super::oracle::Findings;
use super::town::{Setup, Town};
use crate::runner::Suite;
use crate::scene::{PAIRINGS, Pairing};

/// Option `hold_time` of the suite in seconds: longer than what its short faults take, with the time
/// that TCP needs afterwards to try again.
const HOLD: u64 = 12;

/// How long it may take until all is well again after a fault that is over.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest time for one pairing.
pub const LIMIT: Duration = Duration::from_secs(420);

pub fn suite() -> Suite {
    PAIRINGS.into_iter().fold(Suite::new("faults"), |suite, pairing| {
        suite.long_case(pairing.to_string(), LIMIT, move || run(pairing, Setup::QUICK))
    })
}

/// All of them, one after the other.
pub async fn run(pairing: Pairing, setup: Setup) -> Result<()> {
    let setup = Setup { hold: Some(HOLD), ..setup };
    let name = if setup.tree { "faults-tree" } else { "faults" };
    let lab = setup.start(name, pairing).await?;
    let outcome = async {
        let town = Town::found(&lab, 1).await?;
        town.live(play(pairing, &town)).await
    };
    let outcome = outcome.await;
    lab.finish(outcome).await
}

/// What happens in a step, and how long each fault lasts in milliseconds.
type Step = (&'static str, Vec<(Fault, u64)>);

fn steps() -> Vec<Step> {
    let (a, b) = (|| "a".to_owned(), || "b".to_owned());
    let down = |ms| (Fault::Down(a(), b()), ms);
    vec![
        ("down", vec![down(300), down(1000), down(2000), down(4000)]),
        ("closed", vec![(Fault::Reset(a(), b()), 0), (Fault::Refused(a(), b()), 1500)]),
        ("one way", vec![(Fault::OneWay(a(), b()), 3000), (Fault::OneWay(b(), a()), 3000)]),
        (
            "slow, lossy",
            vec![
                (Fault::Slow(a(), b(), Duration::from_millis(400)), 2000),
                (Fault::Lossy(a(), b(), 20), 3000),
            ],
        ),
        ("replica frozen", vec![(Fault::Frozen(b()), 3000)]),
        ("longer than the hold", vec![down(1000 * (HOLD + 6))]),
        ("replica killed", vec![(Fault::Killed(b()), 1000)]),
        ("primary killed", vec![(Fault::Killed(a()), 1000)]),
    ]
}

async fn play(pairing: Pairing, town: &Town<'_>) -> Result<()> {
    let mut wrong = Vec::new();
    let mut note = |name: &str, findings: Findings| {
        println!("  {pairing}: {name}: {findings}");
        if !findings.is_clean() {
            wrong.push(format!("{name}: {}", findings.details.join("\n    ")));
        }
    };
    town.pass(Duration::from_secs(2)).await;
    note("nothing", town.quiet(PATIENCE).await?);
    note("enters again", enter_again(town).await?);
    for (name, faults) in steps() {
        for (fault, ms) in faults {
            town.pass(Duration::from_millis(800)).await;
            town.linked(PATIENCE).await?;
            town.suffer(&fault, Duration::from_millis(ms)).await?;
        }
        town.pass(Duration::from_millis(800)).await;
        note(name, town.quiet(PATIENCE).await?);
    }
    let [whole, broken] = town.delays();
    println!(
        "  {pairing}: delay at a third server (median, 99th, longest in ms): {whole:.1?}, \
         during faults {broken:.1?}"
    );
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// Clients that have their doubts while what the room sends does not reach them.
async fn enter_again(town: &Town<'_>) -> Result<Findings> {
    town.pass(Duration::from_millis(800)).await;
    town.linked(PATIENCE).await?;
    let doubt = async {
        sleep(Duration::from_secs(2)).await;
        town.of("b").take(4).try_for_each(|member| member.enter_again())
    };
    let fault = Fault::OneWay("a".to_owned(), "b".to_owned());
    let (broken, doubt) = tokio::join!(town.suffer(&fault, Duration::from_secs(4)), doubt);
    broken.and(doubt)?;
    town.pass(Duration::from_millis(800)).await;
    town.quiet(PATIENCE).await
}
