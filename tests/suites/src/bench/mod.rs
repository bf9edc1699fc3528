//! `cargo xtask bench`: plain MUC and dmuc side by side on one machine, in turns.
//!
//! What crosses the link is counted by the wire, which reads it, in a round of its own, since that
//! costs time. Processor and time are from other rounds, in which TLS runs from server to server.

mod case;
mod crowd;
mod row;
mod scanner;
mod side;
mod smoke;
mod table;

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::case::Case;
use self::row::{Rounds, Row};
use self::side::Side;
pub use self::smoke::suite;
use crate::scene::{PAIRINGS, Pairing};

/// What `cargo xtask bench` takes.
#[derive(Args)]
pub struct Arguments {
    /// Small rooms and few rounds: under a minute
    #[arg(long)]
    quick: bool,
    /// Prints the rows as JSON
    #[arg(long)]
    json: bool,
    /// Only these cases
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',')]
    case: Vec<Case>,
    /// Only this pairing of primary and replica, as in ejabberd-prosody
    #[arg(long)]
    pairing: Option<String>,
    /// Remote occupants; several with commas
    #[arg(long, value_name = "N", value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(2..=4000))]
    k: Vec<u16>,
    /// Timed rounds of each case
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: Option<u16>,
}

/// Cases without `--case`.
const USUAL: &[Case] = &[Case::Message, Case::Presence, Case::Joins];

/// Files that this process and the servers may have open: a session is two.
const FILES: u64 = 65_536;

/// A case with its size.
type Task = (Case, usize);

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<()> {
    let pairings: Vec<Pairing> = PAIRINGS
        .into_iter()
        .filter(|p| arguments.pairing.as_ref().is_none_or(|name| *name == p.to_string()))
        .collect();
    if pairings.is_empty() {
        bail!("no such pairing; there are {}", PAIRINGS.map(|p| p.to_string()).join(", "));
    }
    let tasks = arguments.tasks();
    let rounds = usize::from(arguments.rounds.unwrap_or(if arguments.quick { 2 } else { 5 }));
    let mut rows = Vec::new();
    for pairing in pairings {
        rows.extend(compare(pairing, &tasks, rounds).await?);
    }
    match arguments.json {
        true => println!("{}", serde_json::to_string_pretty(&rows)?),
        false => table::show(&rows),
    }
    Ok(())
}

impl Arguments {
    fn tasks(&self) -> Vec<Task> {
        let cases = if self.case.is_empty() { USUAL } else { &self.case };
        let sizes = |case: &Case| -> Vec<usize> {
            match (&*self.k, case.is_storm(), self.quick) {
                ([], true, true) => vec![30],
                ([], true, false) => vec![500],
                ([], false, true) => vec![50],
                ([], false, false) => vec![2, 10, 100, 1000],
                (k, ..) => k.iter().map(|&k| k.into()).collect(),
            }
        };
        cases.iter().flat_map(|case| sizes(case).into_iter().map(|k| (*case, k))).collect()
    }
}

/// All cases of a pairing, with both sides up.
async fn compare(pairing: Pairing, tasks: &[Task], rounds: usize) -> Result<Vec<Row>> {
    raise_limits()?;
    let most = |storms: bool| {
        let sizes = tasks.iter().filter(|(case, _)| case.is_storm() || !storms).map(|(_, k)| *k);
        sizes.max().unwrap_or(0)
    };
    let (local, remote) = (most(true), most(false));
    eprintln!("bench: {pairing}: servers start, {local} local and {remote} remote users log in");
    let (plain, dmuc) = tokio::join!(
        Side::start(pairing, false, local, remote),
        Side::start(pairing, true, local, remote)
    );
    let mut sides = [plain?, dmuc?];
    let outcome = play(pairing, tasks, rounds, &mut sides).await;
    let [plain, dmuc] = sides.map(Side::into_lab);
    match outcome {
        Ok(rows) => {
            plain.finish(Ok(())).await?;
            dmuc.finish(Ok(rows)).await
        }
        Err(error) => {
            let error = plain.finish::<()>(Err(error)).await.err().context("it failed")?;
            dmuc.finish(Err(error)).await
        }
    }
}

async fn play(
    pairing: Pairing,
    tasks: &[Task],
    rounds: usize,
    sides: &mut [Side; 2],
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &(case, k) in tasks {
        let name = format!("{pairing}, {}, k = {k}", case.name());
        let tell = |what: &str| eprintln!("bench: {name}: {what}");
        tell("counting");
        let mut all = [Rounds::default(), Rounds::default()];
        let [plain, dmuc] = &mut *sides;
        // Nobody looks at the time, so both at once.
        let (counted_plain, counted_dmuc) =
            tokio::join!(plain.counted(case, k), dmuc.counted(case, k));
        all[0].counted = counted_plain.with_context(|| format!("{name}, plain"))?;
        all[1].counted = counted_dmuc.with_context(|| format!("{name}, dmuc"))?;
        for n in 0..rounds {
            tell(&format!("round {} of {rounds}", n + 1));
            // Who comes first changes, so that what changes on the machine hits both.
            for side in [n % 2, 1 - n % 2] {
                let what = || format!("{name}, {}", ["plain", "dmuc"][side]);
                let round = sides[side].round(case, k, false).await.with_context(what)?;
                all[side].timed.push(round);
            }
        }
        let [plain, dmuc] = &all;
        rows.push(Row::new(pairing, case, k, plain, dmuc));
    }
    Ok(rows)
}

/// As many open files as the system allows, for this process and the servers that it starts.
fn raise_limits() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.min(FILES).max(soft);
    Ok(setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?)
}
