//! Faults that docs/operations.md describes, and what one sees of them.

use std::time::Duration;

use anyhow::Result;
use dmuc_testkit::{Lab, Received, Server, ServerSpec};

use super::{Stage, lines};
use crate::scene::{Pairing, SOON, join_all, nick, until, until_async};
use crate::view::links;

pub async fn run(pairing: Pairing) -> Result<()> {
    let spec = |kind, name| ServerSpec::new(kind, name).dmuc(true);
    let primary = spec(pairing.primary, "a")
        .dmuc_option("hold_time", 4)
        .dmuc_option("setup_timeout", 3)
        .dmuc_option("retry_min", 1)
        .dmuc_option("max_envelope_bytes", 4096)
        .dmuc_option("max_unacked_copies", 1000);
    let replica = spec(pairing.replica, "b").dmuc_option("max_links", 1);
    let lab = Lab::builder(&format!("operations-faults-{pairing}"));
    let lab = lab.server(primary).server(replica).wire("a", "b").start().await?;
    let outcome = play(&lab).await;
    lab.finish(outcome).await
}

async fn play(lab: &Lab) -> Result<()> {
    let (a, b, wire) = (lab.server("a"), lab.server("b"), lab.wire("a", "b"));
    let stage = Stage::new(lab).await?;
    stage.say("before").await?;

    // The replica has as many links as it takes.
    let second = a.room("second");
    stage.local[0].create(&second, "local00", &[]).await?;
    join_all(&second, &stage.remote[..2]).await?;
    reason(a, &second, "plain", "the replica has reached a limit of its own; tried again in ")
        .await?;
    for client in &stage.remote[..2] {
        client.leave(&second, nick(client)).await?;
    }

    // More than half an envelope.
    stage.say(&"much ".repeat(600)).await?;
    until("the link ends for a large stanza", SOON, || {
        told(a, " is down: a stanza was too large for an envelope")
    })
    .await?;
    let epoch = linked_again(a, &stage.room, "").await?;

    // More waits than may.
    wire.cut().await;
    for n in 0..260 {
        stage.local[0].say(&stage.room, &format!("waits {n}"))?;
    }
    until("the buffer is full", SOON, || told(a, " is down: the buffer of the link is full"))
        .await?;
    wire.heal().await?;
    come_back(&stage).await?;
    linked_again(a, &stage.room, &epoch).await?;

    // The stream is away for longer than the hold time.
    wire.cut().await;
    stage.local[0].say(&stage.room, "lost")?;
    reason(a, &stage.room, "split", "; held for ").await?;
    until("the link is given up", SOON, || told(a, " is down: the stream is broken; ")).await?;
    wire.heal().await?;

    // The module is away on the other side.
    b.unload_dmuc().await?;
    come_back(&stage).await?;
    let words = ["does not speak dmuc", "its server does not take links"];
    until_async("a reason why there is no link", SOON, async || {
        let rows = links(a).await?;
        let of_room = rows.iter().find(|row| row["room"] == stage.room.as_str());
        let reason = of_room.and_then(|row| row["reason"].as_str()).unwrap_or_default();
        Ok(words.iter().any(|word| reason.contains(word)) && reason.contains("; tried again in "))
    })
    .await?;
    stage.say("plainly").await
}

/// Whoever was put out comes back; clients ask again if nothing comes, as when a server has not yet
/// found the other one again.
async fn come_back(stage: &Stage) -> Result<()> {
    for client in &stage.remote {
        let inside = |r: &Received| {
            r.is("presence", "", &format!("{}/{}", stage.room, nick(client)))
                && r.statuses().contains(&110)
        };
        client.mark();
        until_async("everybody is back", SOON, async || {
            client.ask_to_join(&stage.room, nick(client))?;
            Ok(client.wait_for(inside, Duration::from_secs(3)).await.is_ok())
        })
        .await?;
    }
    Ok(())
}

/// Waits for another link of the room than this one; its epoch.
async fn linked_again(server: &Server, room: &str, before: &str) -> Result<String> {
    let epoch = async || {
        let rows = links(server).await?;
        let row = rows.iter().find(|row| row["room"] == room && row["state"] == "linked");
        anyhow::Ok(row.and_then(|row| row["epoch"].as_str()).unwrap_or_default().to_owned())
    };
    until_async("another link", SOON, async || {
        let epoch = epoch().await?;
        Ok(!epoch.is_empty() && epoch != before)
    })
    .await?;
    epoch().await
}

/// Waits until a room's only link is in this state, for a reason with these words.
async fn reason(server: &Server, room: &str, state: &str, words: &str) -> Result<()> {
    until_async(&format!("{state}: {words}"), SOON, async || {
        let rows = links(server).await?;
        let found = |row: &crate::view::Link| {
            let reason = row["reason"].as_str().unwrap_or_default();
            row["room"] == room && row["state"] == state && reason.contains(words)
        };
        Ok(rows.iter().any(found))
    })
    .await
}

fn told(server: &Server, words: &str) -> bool {
    lines(server, "info").iter().any(|line| line.contains(words))
}
