//! `cargo xtask bench`: plain MUC, XEP-0033 and dmuc side by side on one machine, in turns.
//!
//! What crosses the link is counted by the wire, which reads it, in a round of its own, since that
//! costs time. Processor and time are from other rounds, in which TLS runs from server to server.

mod case;
mod contest;
mod day;
mod fanout;
mod play;
mod plot;
mod report;
mod row;
mod setup;
mod side;
mod smoke;
mod table;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use dmuc_testkit::Kind;
use futures::future::try_join_all;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::case::Case;
use self::contest::{Contest, Task};
use self::setup::{Collector, Setup};
pub use self::smoke::suite;
use crate::scene::{PAIRINGS, Pairing};

/// What `cargo xtask bench` takes.
#[derive(Args)]
pub struct Arguments {
    /// Small rooms, one round, and each server in each role once: under a minute
    #[arg(long)]
    quick: bool,
    /// Prints the rows as JSON
    #[arg(long)]
    json: bool,
    /// Draws the ratios of each case to DIR/CASE.svg
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// Keeps the rows in docs/benchmarks/NAME and writes that section of docs/benchmarks.md anew
    #[arg(long, value_name = "NAME")]
    docs: Option<String>,
    /// Measures nothing and writes a section of docs/benchmarks.md anew from the rows that are kept
    #[arg(long, value_name = "NAME", exclusive = true)]
    redraw: Option<String>,
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
    /// The mode of Prosody's collector; with both, pairings with a Prosody are measured twice
    #[arg(long, value_enum, value_name = "MODE", value_delimiter = ',')]
    gc: Vec<Collector>,
    #[command(flatten)]
    setup: Setup,
    /// Timed rounds of each case
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: Option<u16>,
}

/// Cases without `--case`.
const USUAL: &[Case] = &[Case::Message, Case::Presence, Case::Joins, Case::Mixed];

/// Files that this process and the servers may have open: a session is two.
const FILES: u64 = 65_536;

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<()> {
    if let Some(name) = &arguments.redraw {
        return report::rewrite(name);
    }
    let pairings = arguments.pairings();
    if pairings.is_empty() {
        bail!("no such pairing; there are {}", PAIRINGS.map(|p| p.to_string()).join(", "));
    }
    let contests = arguments.contests(&pairings);
    let rounds = usize::from(arguments.rounds.unwrap_or(if arguments.quick { 1 } else { 5 }));
    raise_limits()?;
    let mut rows = Vec::new();
    if arguments.quick {
        // Nobody looks at the time while it is counted, so all at once.
        let counted = contests
            .iter()
            .map(|(pairing, setup, tasks)| Contest::counted(*pairing, *setup, tasks));
        for contest in try_join_all(counted).await? {
            rows.extend(contest.timed(rounds).await?);
        }
    } else {
        for (pairing, setup, tasks) in contests {
            rows.extend(Contest::counted(pairing, setup, &tasks).await?.timed(rounds).await?);
        }
    }
    if let Some(directory) = &arguments.svg {
        plot::draw(&rows, directory)?;
    }
    if let Some(name) = &arguments.docs {
        report::keep(name, &rows)?;
    }
    match arguments.json {
        true => println!("{}", serde_json::to_string_pretty(&rows)?),
        false => table::show(&rows),
    }
    Ok(())
}

impl Arguments {
    fn pairings(&self) -> Vec<Pairing> {
        let chosen = |pairing: &Pairing| match &self.pairing {
            Some(name) => *name == pairing.to_string(),
            // Each server in each role once.
            None => !self.quick || pairing.primary != pairing.replica,
        };
        PAIRINGS.into_iter().filter(chosen).collect()
    }

    /// Servers are set up in one way for all tasks of a contest.
    fn contests(&self, pairings: &[Pairing]) -> Vec<(Pairing, Setup, Vec<Task>)> {
        let tasks = self.tasks();
        let mut contests = Vec::new();
        for &pairing in pairings {
            let prosody = [pairing.primary, pairing.replica].contains(&Kind::Prosody);
            let collectors = match &*self.gc {
                modes if prosody && !modes.is_empty() => modes.iter().copied().map(Some).collect(),
                _ => vec![None],
            };
            for collector in collectors {
                for stock_limits in [false, true] {
                    let own = tasks.iter().filter(|(case, _)| case.is_limited() == stock_limits);
                    let own: Vec<Task> = own.copied().collect();
                    if !own.is_empty() {
                        contests.push((
                            pairing,
                            Setup { collector, stock_limits, quick: self.quick, ..self.setup },
                            own,
                        ));
                    }
                }
            }
        }
        contests
    }

    fn tasks(&self) -> Vec<Task> {
        let cases = if self.case.is_empty() { USUAL } else { &self.case };
        let sizes = |case: &Case| -> Vec<usize> {
            match (&*self.k, case.is_storm(), self.quick) {
                ([], ..) if case.is_limited() => vec![300],
                ([], _, true) => vec![30],
                ([], true, false) => vec![500],
                ([], false, false) => vec![2, 10, 100, 1000],
                (k, ..) => k.iter().map(|&k| k.into()).collect(),
            }
        };
        cases.iter().flat_map(|case| sizes(case).into_iter().map(|k| (*case, k))).collect()
    }
}

/// As many open files as the system allows, for this process and the servers that it starts.
fn raise_limits() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.min(FILES).max(soft);
    Ok(setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?)
}
