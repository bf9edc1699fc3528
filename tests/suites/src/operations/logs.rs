//! One line for each turn of a link, and no more.

use anyhow::{Result, ensure};
use dmuc_testkit::Lab;

use super::{Stage, lines};
use crate::scene::{Pairing, SOON, until};

pub async fn run(pairing: Pairing) -> Result<()> {
    let lab = pairing.lab("operations-log").start().await?;
    let outcome = play(&lab).await;
    lab.finish(outcome).await
}

async fn play(lab: &Lab) -> Result<()> {
    let (a, b, wire) = (lab.server("a"), lab.server("b"), lab.wire("a", "b"));
    let stage = Stage::new(lab).await?;
    stage.say("before").await?;
    wire.cut().await;
    stage.local[0].say(&stage.room, "during")?;
    until("the split is told", SOON, || has(a, " is split: ")).await?;
    wire.heal().await?;
    stage.say("after").await?;
    until("the link is told to go on", SOON, || has(a, " is up again after ")).await?;
    b.unload_dmuc().await?;
    until("the end is told", SOON, || has(a, " is down: ")).await?;
    until("the end is told there", SOON, || has(b, " is down: ")).await?;

    let link = format!("{}: link with {} is ", stage.room, b.domain());
    let told = lines(a, "info");
    let turns = ["up: ", "split: ", "up again after ", "down: the replica has taken its leave"];
    ensure!(told.len() == turns.len(), "{} lines:\n{}", told.len(), told.join("\n"));
    for (line, turn) in told.iter().zip(turns) {
        ensure!(line.contains(&format!("{link}{turn}")), "not {turn:?}: {line}");
    }
    let link = format!("{}: link for {} is ", stage.room, b.domain());
    let told = lines(b, "info");
    let turns = ["up: ", "down: dmuc is unloaded here"];
    ensure!(told.len() == turns.len(), "{} lines:\n{}", told.len(), told.join("\n"));
    for (line, turn) in told.iter().zip(turns) {
        ensure!(line.contains(&format!("{link}{turn}")), "not {turn:?}: {line}");
    }
    for server in [a, b] {
        for level in ["warn", "error"] {
            let told = lines(server, level);
            ensure!(told.is_empty(), "{}: {}", server.name(), told.join("\n"));
        }
    }
    Ok(())
}

fn has(server: &dmuc_testkit::Server, words: &str) -> bool {
    lines(server, "info").iter().any(|line| line.contains(words))
}
