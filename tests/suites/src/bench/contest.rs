//! All sides of a pairing, up together.

use anyhow::{Context, Result};
use futures::future::{join_all, try_join_all};

use super::case::Case;
use super::fanout::Fanout;
use super::row::{Rounds, Row};
use super::setup::Setup;
use super::side::Side;
use crate::scene::Pairing;

/// A case with its size.
pub type Task = (Case, usize);

/// A pair of servers for each way to fan out, and what is to be done with them.
pub struct Contest {
    pairing: Pairing,
    setup: Setup,
    tasks: Vec<Task>,
    sides: Vec<Side>,
    /// Releases of primary and replica.
    versions: [String; 2],
    /// For each task what the sides that play it have shown.
    results: Vec<Vec<(Fanout, Rounds)>>,
}

impl Contest {
    /// Starts the servers and counts what crosses the link in every case.
    pub async fn counted(pairing: Pairing, setup: Setup, tasks: &[Task]) -> Result<Self> {
        let most = |storms: bool| {
            let sizes = tasks.iter().filter(|(case, _)| case.is_storm() || !storms);
            sizes.map(|(case, k)| k + case.guests()).max().unwrap_or(0)
        };
        // Each domain has a user, so that all links are there before anything is counted.
        let (resident, remote) = (most(true), most(false).max(setup.spread.into()));
        let whose = setup.residents.name();
        eprintln!(
            "bench: {pairing}: servers start, {resident} {whose} and {remote} remote users log in"
        );
        let sides = Fanout::all(pairing, setup)
            .into_iter()
            .filter(|fanout| tasks.iter().any(|(case, _)| fanout.plays(*case)))
            .map(|fanout| Side::start(pairing, fanout, setup, resident, remote));
        let sides = try_join_all(sides).await?;
        let tasks = tasks.to_vec();
        let (versions, results) = Default::default();
        let mut contest = Self { pairing, setup, tasks, sides, versions, results };
        match contest.count().await {
            Ok(()) => Ok(contest),
            Err(error) => contest.finish(Err(error)).await,
        }
    }

    /// Plays every case in turns, and ends it all.
    pub async fn timed(mut self, rounds: usize) -> Result<Vec<Row>> {
        let rows = self.time(rounds).await.and_then(|()| self.rows());
        self.finish(rows).await
    }

    fn rows(&self) -> Result<Vec<Row>> {
        let row = |(&(case, k), results): (&Task, &Vec<_>)| {
            Row::new(self.pairing, self.versions.clone(), self.setup, case, k, results)
        };
        self.tasks.iter().zip(&self.results).map(row).collect()
    }

    async fn count(&mut self) -> Result<()> {
        if let Some(side) = self.sides.first() {
            self.versions = side.versions().await?;
        }
        for &(case, k) in &self.tasks {
            let name = name(self.pairing, case, k);
            eprintln!("bench: {name}: counting");
            // Nobody looks at the time, so all at once.
            let rounds =
                self.sides.iter_mut().filter(|side| side.fanout().plays(case)).map(async |side| {
                    let fanout = side.fanout();
                    let counted = side.round(case, k, true).await;
                    let counted = counted.with_context(|| format!("{name}, {fanout}"))?;
                    anyhow::Ok((fanout, Rounds { counted, timed: Vec::new() }))
                });
            // All of them to their ends: what is broken off in a room disturbs the logs.
            self.results.push(join_all(rounds).await.into_iter().collect::<Result<_>>()?);
        }
        try_join_all(self.sides.iter_mut().map(Side::stop_reading)).await.map(drop)
    }

    async fn time(&mut self, rounds: usize) -> Result<()> {
        for (&(case, k), results) in self.tasks.iter().zip(&mut self.results) {
            for n in 0..rounds {
                let name = name(self.pairing, case, k);
                eprintln!("bench: {name}: round {} of {rounds}", n + 1);
                // Who comes first changes, so that what changes on the machine hits all.
                self.sides.rotate_left(1);
                for side in &mut self.sides {
                    let fanout = side.fanout();
                    let of_side = results.iter_mut().find(|(whose, _)| *whose == fanout);
                    let Some((_, result)) = of_side else { continue };
                    let round = side.round(case, k, false).await;
                    result.timed.push(round.with_context(|| format!("{name}, {fanout}"))?);
                }
            }
        }
        Ok(())
    }

    /// Ends the servers; after a failure the logs of all sides stay.
    async fn finish<T>(self, mut outcome: Result<T>) -> Result<T> {
        for lab in self.sides.into_iter().map(Side::into_lab) {
            outcome = lab.finish(outcome).await;
        }
        outcome
    }
}

fn name(pairing: Pairing, case: Case, k: usize) -> String {
    format!("{pairing}, {}, k = {k}", case.name())
}
