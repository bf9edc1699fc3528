//! Later joiners of a domain cost a line each: list, history and subject go by number.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use dmuc_testkit::{Client, Lab, Record};

use crate::runner::Suite;
use crate::scene::{PAIRINGS, Pairing, SOON, join_all, linked, log_in, names, nick};
use crate::traffic;

/// Most bytes of XML towards the replica that a later joiner may cost.
const JOINER: usize = 1500;
/// Joiners that pay in full: two for the link, one for the slots, and one for what was plain to them.
const FIRST: usize = 4;

pub fn suite() -> Suite {
    PAIRINGS.into_iter().fold(Suite::new("joins"), |suite, pairing| {
        suite.case(format!("{pairing} by number"), move || run(pairing))
    })
}

async fn run(pairing: Pairing) -> Result<()> {
    let lab = pairing.lab("joins").start().await?;
    let outcome = play(&lab).await;
    lab.finish(outcome).await
}

async fn play(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.server("a"), lab.server("b"));
    let wire = lab.wire("a", "b");
    let local = log_in(a, &names("local", 40)).await?;
    let remote = log_in(b, &names("remote", 12)).await?;
    let mut costs = Vec::new();
    for size in [4, 40] {
        let room = a.room(&format!("square{size}"));
        local[0].create(&room, "local00", &[]).await?;
        join_all(&room, &local[1..size]).await?;
        for n in 0..10 {
            local[0].say(&room, &format!("number {n}"))?;
        }
        local[0].send_xml(&format!(
            "<message to='{room}' type='groupchat'><subject>of the day</subject></message>"
        ))?;
        local[0].sync().await?;
        wire.reset();
        join_all(&room, &remote[..2]).await?;
        linked(wire, &room, 1).await?;
        join_all(&room, &remote[2..FIRST]).await?;
        for (n, joiner) in remote.iter().enumerate().skip(FIRST) {
            joiner.quiet(Duration::from_millis(200)).await;
            wire.reset();
            joiner.clear();
            joiner.join(&room, nick(joiner)).await?;
            joiner.wait_for(|r| r.child("subject").is_some(), SOON).await?;
            joiner.quiet(Duration::from_millis(200)).await;
            has_everything(joiner, &room, size + n)?;
            costs.push(cost(&wire.records(), &room, size + n)?);
        }
        private(&wire.records())?;
    }
    costs.sort_unstable();
    let ends = costs.first().zip(costs.last());
    println!("  {}-{}, bytes of a joiner: {ends:?}", a.kind(), b.kind());
    Ok(())
}

/// The presences of all occupants and his own, ten messages, and the subject.
fn has_everything(joiner: &Client, room: &str, occupants: usize) -> Result<()> {
    let received = joiner.received();
    let seen: BTreeSet<&str> = received
        .iter()
        .filter(|r| r.element.name() == "presence")
        .map(|r| r.attr("from"))
        .filter(|from| from.starts_with(&format!("{room}/")))
        .collect();
    ensure!(seen.len() == occupants + 1, "{}: {} of {occupants}", joiner.jid(), seen.len());
    let history = received.iter().filter(|r| r.body().is_some_and(|b| b.starts_with("number")));
    let history: Vec<String> = history.filter_map(dmuc_testkit::Received::body).collect();
    let expected: Vec<String> = (0..10).map(|n| format!("number {n}")).collect();
    ensure!(history == expected, "{}: {history:?}", joiner.jid());
    Ok(())
}

/// Bytes that went to the replica, all of them in the link but what is for no occupant.
fn cost(records: &[Record], room: &str, occupants: usize) -> Result<usize> {
    let down: Vec<&Record> = records.iter().filter(|record| record.to == "b").collect();
    let bytes = down.iter().map(|record| record.xml.len()).sum();
    let all = || down.iter().map(|r| r.xml.as_str()).collect::<Vec<_>>().join("\n");
    ensure!(bytes <= JOINER, "{bytes} bytes with {occupants} inside:\n{}", all());
    ensure!(all().contains("<replay"), "nothing was replayed:\n{}", all());
    ensure!(traffic::links(records, room) == 0, "the link went down");
    Ok(bytes)
}

/// No real JID of anybody else crosses: nobody over there may see one.
fn private(records: &[Record]) -> Result<()> {
    for record in records.iter().filter(|record| record.to == "b") {
        ensure!(!record.xml.contains("@a.test/"), "a real JID crossed: {}", record.xml);
    }
    Ok(())
}
