//! The replica's server is gone: its occupants are out of the room, and the room knows.

use std::time::Duration;

use anyhow::{Result, ensure};
use dmuc_testkit::{Client, Lab};
use tokio::time::sleep;

use crate::runner::Suite;
use crate::scene::{PAIRINGS, Pairing, all_have, join_all, linked, log_in, names, until};

/// Remote occupants.
const REMOTE: usize = 20;

pub fn suite() -> Suite {
    PAIRINGS.into_iter().fold(Suite::new("ghosts"), |suite, pairing| {
        suite.case(format!("{pairing} killed"), move || run(pairing))
    })
}

async fn run(pairing: Pairing) -> Result<()> {
    let lab = pairing
        .lab_with("ghosts", |spec| spec.dmuc_option("hold_time", 2).dmuc_option("probe_after", 2))
        .start()
        .await?;
    let outcome = play(&lab).await;
    lab.finish(outcome).await
}

async fn play(lab: &Lab) -> Result<()> {
    let (a, b, wire) = (lab.server("a"), lab.server("b"), lab.wire("a", "b"));
    let room = a.room("square");
    let local = log_in(a, &names("local", 3)).await?;
    let remote = log_in(b, &names("remote", REMOTE)).await?;
    local[0].create(&room, "local00", &[]).await?;
    join_all(&room, &local[1..]).await?;
    join_all(&room, &remote).await?;
    linked(wire, &room, 1).await?;
    local[0].say(&room, "hello")?;
    all_have(local.iter().chain(&remote), "hello").await?;

    b.kill().await?;
    local[0].say(&room, "anybody there?")?;
    let gone = |client: &Client| {
        let mut nicks: Vec<String> = client
            .received()
            .iter()
            .filter(|r| r.element.name() == "presence" && r.attr("type") == "unavailable")
            .filter_map(|r| Some(r.attr("from").split_once('/')?.1.to_owned()))
            .collect();
        nicks.sort();
        nicks
    };
    for client in &local {
        until("all remote occupants are out", Duration::from_secs(60), || {
            gone(client).len() >= REMOTE
        })
        .await?;
        client.quiet(Duration::from_millis(300)).await;
        ensure!(gone(client) == names("remote", REMOTE), "each once: {:?}", gone(client));
    }
    // The room goes on, and its own list of occupants says the same.
    let list = local[1]
        .iq(&room, "get", "<query xmlns='http://jabber.org/protocol/disco#items'/>")
        .await?
        .xml();
    ensure!(!list.contains("remote"), "ghosts: {list}");

    // They can come back, and are linked again.
    b.start().await?;
    // ejabberd, having found nobody there, tries again only after up to two seconds, and bounces
    // until then what it should send.
    sleep(Duration::from_secs(3)).await;
    wire.reset();
    let back = Client::connect_all(b, names("remote", 5).iter().map(String::as_str), "r").await?;
    join_all(&room, &back).await?;
    local[0].say(&room, "welcome back")?;
    all_have(local.iter().chain(&back), "welcome back").await?;
    linked(wire, &room, 1).await
}
