//! The replica's server is gone, or cannot be reached: its occupants are out of the room, and the room
//! and they know it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dmuc_testkit::{Client, Kind, Lab, Received, ServerSpec};
use tokio::time::sleep;

use crate::runner::Suite;
use crate::scene::{
    PAIRINGS, Pairing, SOON, all_have, join_all, linked, log_in, names, until, until_async,
};

/// Remote occupants.
const REMOTE: usize = 20;

pub fn suite() -> Suite {
    let suite = PAIRINGS.into_iter().fold(Suite::new("ghosts"), |suite, pairing| {
        suite.case(format!("{pairing} killed"), move || killed(pairing))
    });
    // Prosody's rooms let nobody in who does not ask.
    let lenient = PAIRINGS.into_iter().filter(|pairing| pairing.primary == Kind::Ejabberd);
    lenient.fold(suite, |suite, pairing| {
        suite.case(format!("{pairing} unaware"), move || unaware(pairing))
    })
}

async fn killed(pairing: Pairing) -> Result<()> {
    let lab = start("ghosts-killed", pairing).await?;
    let outcome = play(&lab).await;
    lab.finish(outcome).await
}

async fn start(name: &str, pairing: Pairing) -> Result<Lab> {
    let impatient =
        |spec: ServerSpec| spec.dmuc_option("hold_time", 2).dmuc_option("probe_after", 2);
    pairing.lab_with(name, impatient).start().await
}

async fn unaware(pairing: Pairing) -> Result<()> {
    let lab = start("ghosts-unaware", pairing).await?;
    let outcome = change_of_presence(&lab).await;
    lab.finish(outcome).await
}

/// Who was put out during a cut and has not heard it changes his presence: the room would take that for a
/// join, and let him in with a gap that he knows nothing of.
async fn change_of_presence(lab: &Lab) -> Result<()> {
    let (a, b, wire) = (lab.server("a"), lab.server("b"), lab.wire("a", "b"));
    let room = a.room("square");
    let local = log_in(a, &names("local", 1)).await?;
    let remote = log_in(b, &names("remote", 3)).await?;
    local[0].create(&room, "local00", &[]).await?;
    join_all(&room, &remote).await?;
    linked(wire, &room, 1).await?;
    local[0].say(&room, "hello")?;
    all_have(local.iter().chain(&remote), "hello").await?;

    wire.cut().await;
    local[0].say(&room, "not heard")?;
    let out = |r: &Received| r.attr("type") == "unavailable" && r.attr("from").starts_with(&room);
    local[0].wait_for(|r| out(r) && r.attr("from").ends_with("/remote00"), SOON).await?;
    wire.heal().await?;
    // Until the servers have found each other again, it comes back or is lost.
    let me = format!("{room}/remote00");
    let answer = |r: &Received| {
        r.element.name() == "presence" && r.attr("from") == me && r.statuses().contains(&110)
    };
    remote[0].mark();
    until_async("an answer", SOON, async || {
        remote[0].presence(&me, "<status>here</status>")?;
        Ok(remote[0].wait_for(answer, Duration::from_secs(1)).await.is_ok())
    })
    .await?;
    let first = remote[0].received().into_iter().filter(answer).nth(1);
    let first = first.context("only the presence with which he entered")?;
    ensure!(out(&first), "let in: {}", first.xml());

    until_async("he is back", SOON, async || Ok(remote[0].join(&room, "remote00").await.is_ok()))
        .await?;
    local[0].say(&room, "welcome back")?;
    all_have(&remote[..1], "welcome back").await
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
