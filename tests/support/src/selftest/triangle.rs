//! Three servers, a wire between every two.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{Client, Lab, ServerSpec};

const SOON: Duration = Duration::from_secs(10);

/// One room, occupants on two other servers: each wire carries its own copies only.
pub async fn run() -> Result<()> {
    let lab = Lab::builder("selftest-triangle")
        .server(ServerSpec::ejabberd("a"))
        .server(ServerSpec::prosody("b"))
        .server(ServerSpec::ejabberd("c"))
        .wires()
        .start()
        .await?;
    let outcome = talk(&lab).await;
    lab.finish(outcome).await
}

async fn talk(lab: &Lab) -> Result<()> {
    let room = lab.server("a").room("hall");
    let mut clients = Vec::new();
    for (server, users) in [("b", &["b1", "b2"][..]), ("c", &["c1", "c2", "c3"])] {
        let server = lab.server(server);
        server.register(users).await?;
        clients.extend(Client::connect_all(server, users.iter().copied(), "r").await?);
    }
    clients[0].create(&room, "b1", &[]).await?;
    for client in &clients[1..] {
        client.join(&room, client.bare().split('@').next().unwrap_or_default()).await?;
    }
    for client in &clients {
        client.quiet(Duration::from_millis(100)).await;
    }
    lab.wires().iter().for_each(crate::Wire::reset);
    clients[0].say(&room, "hello")?;
    for client in &clients {
        client.wait_for(|r| r.body().as_deref() == Some("hello"), SOON).await?;
    }
    let copies = ["b", "c"].map(|other| lab.wire("a", other).sent_by("a").messages);
    ensure!(copies == [2, 3], "copies to b and c: {copies:?}");
    ensure!(lab.wire("b", "c").counters().stanzas() == 0, "b and c have nothing to say");
    Ok(())
}
