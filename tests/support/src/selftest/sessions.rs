//! What happens to clients: broken connections, resumption, frozen and killed servers.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{Client, ClientOptions, Kind, Lab, Server, ServerSpec};

const SOON: Duration = Duration::from_secs(10);

/// All of these, on one server.
pub async fn run(kind: Kind) -> Result<()> {
    let lab = Lab::builder(&format!("selftest-sessions-{kind}"))
        .server(ServerSpec::new(kind, "a"))
        .start()
        .await?;
    let outcome = go(lab.server("a")).await;
    lab.finish(outcome).await
}

async fn go(server: &Server) -> Result<()> {
    server.register(&["one", "two"]).await?;
    let options = ClientOptions { stream_management: true, ..ClientOptions::default() };
    let mut one = Client::connect_with(server, "one", "r", options).await?;
    let two = Client::connect(server, "two", "r").await?;
    let room = server.room("hall");
    two.create(&room, "two", &[]).await?;
    one.join(&room, "one").await?;

    // What was said while the connection was broken arrives once after it is resumed.
    one.abort().await;
    ensure!(one.ended().is_some(), "an aborted client goes on");
    two.say(&room, "missed")?;
    two.sync().await?;
    one.resume().await?;
    one.wait_for(|r| r.body().as_deref() == Some("missed"), SOON).await?;
    one.quiet(Duration::from_millis(200)).await;
    let bodies = one.bodies(&room);
    ensure!(bodies == [("two".into(), "missed".into())], "after resumption: {bodies:?}");

    // A frozen server says nothing, and goes on where it was.
    server.freeze().await?;
    two.say(&room, "frozen")?;
    one.quiet(Duration::from_millis(300)).await;
    ensure!(one.bodies(&room).len() == 1, "a frozen server delivers");
    server.thaw().await?;
    one.wait_for(|r| r.body().as_deref() == Some("frozen"), SOON).await?;

    // Administration of the running server.
    match server.kind() {
        Kind::Ejabberd => {
            let value = server.eval("lists:seq(1, 3)").await?;
            ensure!(value == "[1,2,3]", "eval gave {value}");
            ensure!(server.eval("erlang:error(oops)").await.is_err(), "an error was a value");
        }
        Kind::Prosody => {
            let value = server.shell("> 6 * 7").await?;
            ensure!(value.contains("42"), "shell gave {value}");
            let begin = Instant::now();
            server.shell(&format!("module:reload(\"ping\", \"{}\")", server.domain())).await?;
            println!("  a shell command took {:.2} s", begin.elapsed().as_secs_f64());
        }
    }
    ensure!(!server.has_dmuc().await?, "dmuc is loaded and was not asked for");

    // A killed server is gone at once, and keeps its accounts.
    server.kill().await?;
    two.transcript().wait_count(|_| two.ended().is_some(), SOON).await.ok();
    ensure!(two.ended().is_some(), "a client of a killed server is still connected");
    let begin = Instant::now();
    server.start().await?;
    println!("  {} started in {:.2} s", server.kind(), begin.elapsed().as_secs_f64());
    Client::connect(server, "two", "r").await?.disconnect().await?;
    let begin = Instant::now();
    server.restart().await?;
    println!("  {} restarted in {:.2} s", server.kind(), begin.elapsed().as_secs_f64());
    Client::connect(server, "one", "r").await?.disconnect().await.map(drop)
}
