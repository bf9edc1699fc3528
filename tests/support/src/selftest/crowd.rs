//! A thousand accounts and a hundred clients are cheap.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};

use crate::{Client, Kind, Lab, Server, ServerSpec};

const ACCOUNTS: usize = 1000;
const CLIENTS: usize = 150;

/// Registers, connects and fills a room.
pub async fn run(kind: Kind) -> Result<()> {
    let lab = Lab::builder(&format!("selftest-crowd-{kind}"))
        .server(ServerSpec::new(kind, "a"))
        .start()
        .await?;
    let outcome = fill(lab.server("a")).await;
    lab.finish(outcome).await
}

async fn fill(server: &Server) -> Result<()> {
    let lap = |what: String, begin: Instant| {
        println!("  {what} in {:.2} s", begin.elapsed().as_secs_f64());
    };
    let users: Vec<String> = (0..ACCOUNTS).map(|i| format!("user{i}")).collect();
    let begin = Instant::now();
    server.register(&users).await?;
    lap(format!("{ACCOUNTS} accounts"), begin);

    let begin = Instant::now();
    let clients: Vec<Client> =
        Client::connect_all(server, users.iter().take(CLIENTS).map(String::as_str), "r").await?;
    lap(format!("{CLIENTS} logins"), begin);

    let room = server.room("hall");
    let begin = Instant::now();
    clients[0].create(&room, "user0", &[]).await?;
    stream::iter(clients.iter().zip(&users).skip(1))
        .map(|(client, nick)| client.join(&room, nick))
        .buffer_unordered(32)
        .try_collect::<()>()
        .await?;
    lap(format!("{CLIENTS} joins"), begin);

    let begin = Instant::now();
    clients[0].say(&room, "all")?;
    for client in &clients {
        client.wait_for(|r| r.body().as_deref() == Some("all"), Duration::from_secs(20)).await?;
    }
    lap(format!("one message to {CLIENTS}"), begin);
    Ok(())
}
