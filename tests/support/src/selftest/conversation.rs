//! The smallest real conversation, and what a wire does to it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;

use crate::{Client, Kind, Lab, Received, ServerSpec};

const SOON: Duration = Duration::from_secs(10);

/// The smallest real conversation: three users of `b` in a room of `a`, a wire between.
pub async fn run(primary: Kind, replica: Kind) -> Result<()> {
    let begin = Instant::now();
    let lab = Lab::builder(&format!("selftest-{primary}-{replica}"))
        .server(ServerSpec::new(primary, "a"))
        .server(ServerSpec::new(replica, "b"))
        .wire("a", "b")
        .start()
        .await?;
    println!("  servers are up after {:.2} s", begin.elapsed().as_secs_f64());
    let outcome = talk(&lab).await;
    lab.finish(outcome).await
}

async fn talk(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.server("a"), lab.server("b"));
    let wire = lab.wire("a", "b");
    let room = a.room("hall");
    let users = ["u1", "u2", "u3"];
    b.register(&users).await?;
    let clients = try_join_all(users.map(|user| Client::connect(b, user, "r"))).await?;
    clients[0].create(&room, "u1", &[]).await?;
    clients[1].join(&room, "u2").await?;
    clients[2].join(&room, "u3").await?;
    for client in &clients {
        client.quiet(Duration::from_millis(200)).await;
    }

    wire.reset();
    clients[0].say(&room, "hello")?;
    for client in &clients {
        client.wait_for(|r| r.body().as_deref() == Some("hello"), SOON).await?;
    }
    let back = wire.sent_by("a");
    ensure!(back.messages == 3, "{} copies crossed, not 3", back.messages);
    ensure!(back.raw_bytes > back.stanza_bytes, "fewer bytes on the socket than of XML: {back:?}");
    ensure!(wire.sent_by("b").messages == 1, "the message itself did not cross once");
    let hello = wire.records().into_iter().filter(|r| r.xml.contains("hello")).count();
    ensure!(hello == 4, "{hello} records of the message, not 4");
    ensure!(wire.faults().is_empty(), "{:?}", wire.faults());

    // A slow wire is slow both ways; a stalled one keeps what it has.
    wire.set_latency(Duration::from_millis(100));
    let begin = Instant::now();
    clients[0].say(&room, "slow")?;
    clients[0].wait_for(|r| r.body().as_deref() == Some("slow"), SOON).await?;
    ensure!(begin.elapsed() >= Duration::from_millis(200), "a slow wire is fast");
    wire.set_latency(Duration::ZERO);
    wire.stall();
    clients[0].say(&room, "held")?;
    clients[0].quiet(Duration::from_millis(300)).await;
    let held = |r: &Received| r.body().as_deref() == Some("held");
    ensure!(!clients[0].received().iter().any(held), "a stalled wire delivers");
    wire.flow();
    clients[0].wait_for(held, SOON).await?;

    // Nothing crosses a cut wire; all is as before when it is whole again.
    wire.cut().await;
    wire.reset();
    clients[1].say(&room, "lost")?;
    clients[1].quiet(Duration::from_millis(500)).await;
    ensure!(wire.counters().stanzas() == 0, "something crossed a cut wire");
    wire.heal().await?;
    let lost = |r: &Received| r.body().as_deref() == Some("lost") && r.attr("type") == "groupchat";
    ensure!(!clients[0].received().iter().any(lost), "a message came over a cut wire");
    let begin = Instant::now();
    loop {
        // The servers may wait a moment before they try again.
        if clients[2].join(&a.room("lobby"), "u3").await.is_ok() {
            break;
        }
        ensure!(begin.elapsed() < SOON * 2, "no connection after the wire was healed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("  healed after {:.2} s", begin.elapsed().as_secs_f64());
    for client in clients {
        client.disconnect().await?;
    }
    for server in lab.servers() {
        let begin = Instant::now();
        server.stop().await.with_context(|| format!("{} cannot stop", server.name()))?;
        println!("  {} stopped in {:.2} s", server.kind(), begin.elapsed().as_secs_f64());
    }
    Ok(())
}
