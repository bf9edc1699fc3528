//! A room heard on another server, crossing the link once.

use std::time::Duration;

use anyhow::{Result, ensure};
use dmuc_testkit::{Client, Lab, ServerSpec};
use futures::future::join_all as join_all_futures;

use crate::runner::Suite;
use crate::scene::{PAIRINGS, Pairing, SOON, all_have, join_all, linked, log_in, names};
use crate::traffic;

/// Remote occupants.
const REMOTE: usize = 50;

pub fn suite() -> Suite {
    PAIRINGS.into_iter().fold(Suite::new("link"), |suite, pairing| {
        suite.case(format!("{pairing} once"), move || run(pairing))
    })
}

async fn run(pairing: Pairing) -> Result<()> {
    let lab = pairing
        .lab("link")
        .server(ServerSpec::new(pairing.replica, "c"))
        .wire("a", "c")
        .start()
        .await?;
    let outcome = play(&lab).await;
    lab.finish(outcome).await
}

async fn play(lab: &Lab) -> Result<()> {
    let (a, b, c) = (lab.server("a"), lab.server("b"), lab.server("c"));
    let (wire, other) = (lab.wire("a", "b"), lab.wire("a", "c"));
    let room = a.room("square");
    let local = log_in(a, &names("local", 3)).await?;
    let third = log_in(c, &names("third", 3)).await?;
    let remote = log_in(b, &names("remote", REMOTE)).await?;
    local[0].create(&room, "local00", &[]).await?;
    join_all(&room, &local[1..]).await?;
    join_all(&room, &third).await?;
    // Before: a message while dmuc has nothing to do yet.
    local[0].say(&room, "before")?;
    all_have(&third, "before").await?;
    join_all(&room, &remote).await?;
    linked(wire, &room, 1).await?;
    local[1].say(&room, "linked")?;
    let everybody: Vec<&Client> = remote.iter().chain(&local).chain(&third).collect();
    all_have(everybody.iter().copied(), "linked").await?;
    quiet(&everybody).await;

    messages(lab, &room, &everybody, &remote).await?;
    presence(lab, &room, &remote).await?;

    // A semi-anonymous room without a moderator over there: no real JID of anybody else crosses.
    for record in wire.records().iter().filter(|record| record.to == "b") {
        for domain in ["@a.test/", "@c.test/"] {
            ensure!(!record.xml.contains(domain), "a real JID crossed: {}", record.xml);
        }
    }
    // The third server has no dmuc and has seen none of it.
    let seen = traffic::sort(&other.records(), "c", &room);
    ensure!(seen.envelopes == 0 && seen.control == 0, "{seen:?}");
    Ok(())
}

/// Waits until nothing comes any more.
pub async fn quiet(clients: &[&Client]) {
    join_all_futures(clients.iter().map(|client| client.quiet(Duration::from_millis(300)))).await;
}

/// Twenty messages from different senders: twenty casts, and everybody has them in one order.
pub async fn messages(
    lab: &Lab,
    room: &str,
    everybody: &[&Client],
    remote: &[Client],
) -> Result<()> {
    let (wire, other) = (lab.wire("a", "b"), lab.wire("a", "c"));
    wire.reset();
    other.reset();
    for n in 0..20 {
        // Senders of all three servers in turn.
        everybody[(n * 7) % everybody.len()].say(room, &format!("message {n}"))?;
    }
    for n in 0..20 {
        all_have(everybody.iter().copied(), &format!("message {n}")).await?;
    }
    quiet(everybody).await;
    let heard = |client: &Client| {
        let mut bodies = client.bodies(room);
        bodies.retain(|(_, body)| body.starts_with("message "));
        bodies
    };
    let order = heard(everybody[remote.len()]);
    ensure!(order.len() == 20, "the room has sent {} messages", order.len());
    for client in everybody {
        let got = heard(client);
        ensure!(got == order, "{} heard {got:?}, the room said {order:?}", client.jid());
    }
    let down = traffic::sort(&wire.records(), "b", room);
    let up = traffic::sort(&wire.records(), "a", room);
    ensure!(down.casts == 20 && down.onlys == 0 && down.plain == 0, "{down:?}");
    ensure!(down.envelopes + down.control <= 22, "{down:?}");
    ensure!(up.control <= 2, "acknowledgements: {up:?}");
    let plain = traffic::sort(&other.records(), "c", room);
    ensure!(plain.plain == 60, "the third server: {plain:?}");
    Ok(())
}

/// A change of presence: one stanza, one cast for each class.
pub async fn presence(lab: &Lab, room: &str, remote: &[Client]) -> Result<()> {
    let wire = lab.wire("a", "b");
    wire.reset();
    for client in remote {
        client.mark();
    }
    remote[3].presence(&format!("{room}/remote03"), "<show>away</show>")?;
    for client in remote {
        client
            .wait_for(|r| r.child("show").is_some_and(|show| show.text() == "away"), SOON)
            .await?;
    }
    let down = traffic::sort(&wire.records(), "b", room);
    ensure!(down.envelopes == 1 && down.plain == 0, "{down:?}");
    ensure!((1..=2).contains(&down.casts) && down.onlys <= 1, "{down:?}");
    Ok(())
}
