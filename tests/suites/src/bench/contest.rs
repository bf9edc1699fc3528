//! Both sides of a pairing, up together.

use anyhow::{Context, Result};

use super::case::{Case, Residents};
use super::row::{Rounds, Row};
use super::side::{Round, Side};
use crate::scene::Pairing;

/// A case with its size.
pub type Task = (Case, usize);

/// The names of the sides.
const NAMES: [&str; 2] = ["plain", "dmuc"];

/// Two pairs of servers and what is to be done with them.
pub struct Contest {
    pairing: Pairing,
    residents: Residents,
    tasks: Vec<Task>,
    sides: [Side; 2],
    results: Vec<[Rounds; 2]>,
}

impl Contest {
    /// Starts the servers and counts what crosses the link in every case.
    pub async fn counted(pairing: Pairing, residents: Residents, tasks: &[Task]) -> Result<Self> {
        let most = |storms: bool| {
            let sizes = tasks.iter().filter(|(case, _)| case.is_storm() || !storms);
            sizes.map(|(_, k)| *k).max().unwrap_or(0)
        };
        let (resident, remote) = (most(true), most(false));
        let whose = residents.name();
        eprintln!(
            "bench: {pairing}: servers start, {resident} {whose} and {remote} remote users log in"
        );
        let (plain, dmuc) = tokio::join!(
            Side::start(pairing, false, residents, resident, remote),
            Side::start(pairing, true, residents, resident, remote)
        );
        let tasks = tasks.to_vec();
        let mut contest =
            Self { pairing, residents, tasks, sides: [plain?, dmuc?], results: Vec::new() };
        match contest.count().await {
            Ok(()) => Ok(contest),
            Err(error) => contest.finish(Err(error)).await,
        }
    }

    /// Plays every case in turns, and ends it all.
    pub async fn timed(mut self, rounds: usize) -> Result<Vec<Row>> {
        let outcome = self.time(rounds).await;
        let row = |(&(case, k), [plain, dmuc]): (&Task, &[Rounds; 2])| {
            Row::new(self.pairing, self.residents, case, k, plain, dmuc)
        };
        let rows = self.tasks.iter().zip(&self.results).map(row).collect();
        self.finish(outcome.map(|()| rows)).await
    }

    async fn count(&mut self) -> Result<()> {
        let [plain, dmuc] = &mut self.sides;
        for &(case, k) in &self.tasks {
            eprintln!("bench: {}: counting", name(self.pairing, case, k));
            // Nobody looks at the time, so both at once.
            let (plain, dmuc) = tokio::join!(plain.round(case, k, true), dmuc.round(case, k, true));
            let rounds = |round: Result<Round>, side| {
                let what = || format!("{}, {}", name(self.pairing, case, k), NAMES[side]);
                anyhow::Ok(Rounds { counted: round.with_context(what)?, timed: Vec::new() })
            };
            self.results.push([rounds(plain, 0)?, rounds(dmuc, 1)?]);
        }
        tokio::try_join!(plain.stop_reading(), dmuc.stop_reading()).map(drop)
    }

    async fn time(&mut self, rounds: usize) -> Result<()> {
        for (&(case, k), results) in self.tasks.iter().zip(&mut self.results) {
            for n in 0..rounds {
                let name = name(self.pairing, case, k);
                eprintln!("bench: {name}: round {} of {rounds}", n + 1);
                // Who comes first changes, so that what changes on the machine hits both.
                for side in [n % 2, 1 - n % 2] {
                    let what = || format!("{name}, {}", NAMES[side]);
                    let round = self.sides[side].round(case, k, false).await;
                    results[side].timed.push(round.with_context(what)?);
                }
            }
        }
        Ok(())
    }

    /// Ends the servers; after a failure the logs of both sides stay.
    async fn finish<T>(self, outcome: Result<T>) -> Result<T> {
        let [plain, dmuc] = self.sides.map(Side::into_lab);
        match outcome {
            Ok(value) => {
                plain.finish(Ok(())).await?;
                dmuc.finish(Ok(value)).await
            }
            Err(error) => match plain.finish(Err::<T, _>(error)).await {
                Ok(value) => Ok(value),
                Err(error) => dmuc.finish(Err(error)).await,
            },
        }
    }
}

fn name(pairing: Pairing, case: Case, k: usize) -> String {
    format!("{pairing}, {}, k = {k}", case.name())
}
