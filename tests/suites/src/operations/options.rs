//! Other options for a running server, and options that are refused.

use anyhow::{Result, ensure};
use dmuc_testkit::{Client, Kind, Lab, Server, ServerSpec};
use serde_json::{Value, json};

use super::{Stage, lines};
use crate::scene::{Pairing, SOON, join_all, linked, log_in, names, until, until_async};
use crate::traffic;
use crate::view::links;

pub async fn run(pairing: Pairing) -> Result<()> {
    let lab = pairing.lab("operations-options").start().await?;
    let outcome = play(&lab).await;
    lab.finish(outcome).await
}

async fn play(lab: &Lab) -> Result<()> {
    let (a, b, wire) = (lab.server("a"), lab.server("b"), lab.wire("a", "b"));
    let stage = Stage::new(lab).await?;
    stage.say("before").await?;
    let epoch = epoch(a, &stage.room).await?;

    // The replica acknowledges each envelope from now on, on the link that is there.
    take(b, &[("ack_every", json!(1))], "ack_every 1").await?;
    wire.reset();
    for n in 0..5 {
        stage.say(&format!("one by one {n}")).await?;
    }
    until("five acknowledgements", SOON, || {
        traffic::sort(&wire.records(), "a", &stage.room).control >= 5
    })
    .await?;

    // The primary links with a single user from now on, also in a room that is there.
    let lone = a.room("lone");
    stage.local[0].create(&lone, "local00", &[]).await?;
    stage.remote[0].join(&lone, "remote00").await?;
    take(a, &[("min_occupants", json!(1))], "min_occupants 1").await?;
    linked(wire, &lone, 1).await?;

    // What is refused changes nothing: not the options, and not the links.
    for wrong in [json!(0), json!("many"), json!(-3)] {
        a.write_options(&[("min_occupants", wrong.clone())])?;
        // The server's own answer, or a line in its log.
        let answer = a.reload_config().await;
        refused(a, "min_occupants", &answer, &format!("{wrong}")).await?;
        ensure!(in_force(a).await?.contains("min_occupants 1"), "{}", in_force(a).await?);
    }
    if a.kind() == Kind::Prosody {
        // The module itself is reloaded while the file is wrong, and again when it is right.
        a.shell(&format!("module:reload(\"dmuc\", {:?})", a.muc())).await?;
        ensure!(in_force(a).await?.contains("min_occupants 1"), "{}", in_force(a).await?);
    }
    take(a, &[("hold_time", json!(60)), ("min_occupants", json!(2))], "hold_time 60000 ms").await?;

    stage.say("after").await?;
    ensure!(self::epoch(a, &stage.room).await? == epoch, "another link");
    ensure!(traffic::links(&wire.records(), &stage.room) == 0, "it was set up again");
    let mut everybody = stage.local.iter().chain(&stage.remote);
    let out = |client: &&Client| client.received().iter().any(|r| r.attr("type") == "unavailable");
    ensure!(everybody.find(out).is_none(), "somebody was dropped");
    let down: Vec<String> =
        lines(a, "info").into_iter().filter(|line| line.contains(" is down")).collect();
    ensure!(down.is_empty(), "{}", down.join("\n"));
    Ok(())
}

/// Epoch of the link of a room.
async fn epoch(server: &Server, room: &str) -> Result<Value> {
    let rows = links(server).await?;
    let row = rows.iter().find(|row| row["room"] == room && row["state"] == "linked");
    Ok(row.map(|row| row["epoch"].clone()).unwrap_or_default())
}

/// What a server says of its options.
async fn in_force(server: &Server) -> Result<String> {
    match server.kind() {
        Kind::Ejabberd => server.command(&["dmuc_status", &server.domain()]).await,
        Kind::Prosody => server.shell("dmuc:status()").await,
    }
}

/// Options that are taken at a reload of the configuration.
async fn take(server: &Server, options: &[(&str, Value)], words: &str) -> Result<()> {
    server.write_options(options)?;
    server.reload_config().await?;
    until_async(words, SOON, async || Ok(in_force(server).await?.contains(words))).await
}

/// That the server has said what is wrong.
async fn refused(server: &Server, option: &str, answer: &Result<String>, what: &str) -> Result<()> {
    match server.kind() {
        // `reload_config` fails, with ejabberd's words in its log.
        Kind::Ejabberd => {
            until(&format!("ejabberd refuses {what}: {answer:?}"), SOON, || {
                server
                    .log()
                    .contains(&format!("Invalid value of option modules->mod_dmuc->{option}"))
            })
            .await
        }
        Kind::Prosody => {
            until(&format!("Prosody refuses {what}: {answer:?}"), SOON, || {
                let told = |line: &String| {
                    line.contains("The options are refused, dmuc goes on with those that it had")
                        && line.contains(option)
                };
                lines(server, "error").iter().any(told)
            })
            .await
        }
    }
}

/// Options that are wrong from the start.
pub async fn refused_at_start(kind: Kind) -> Result<()> {
    let wrong = ServerSpec::new(kind, "b").dmuc(true).dmuc_option("ack_every", 0);
    let lab = Lab::builder(&format!("operations-refused-{kind}"))
        // It asks again soon: a module that has not seen its users enter does not announce itself.
        .server(ServerSpec::prosody("a").dmuc(true).dmuc_option("support_no", 1))
        .server(wrong)
        .wire("a", "b")
        .start()
        .await;
    match (kind, lab) {
        (Kind::Ejabberd, Ok(_)) => anyhow::bail!("ejabberd started"),
        (Kind::Ejabberd, Err(error)) => {
            let words = "Invalid value of option modules->mod_dmuc->ack_every";
            ensure!(format!("{error:#}").contains(words), "{error:#}");
            Ok(())
        }
        (Kind::Prosody, Err(error)) => Err(error),
        (Kind::Prosody, Ok(lab)) => {
            let outcome = plain(&lab).await;
            lab.finish(outcome).await
        }
    }
}

/// It runs without dmuc, says why, and takes a better value.
async fn plain(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.server("a"), lab.server("b"));
    let words = "option 'dmuc_ack_every' is 0, must be from 1 to 1000";
    ensure!(lines(b, "error").iter().any(|line| line.contains(words)), "{}", b.log());
    let told = b.shell("dmuc:status()").await?;
    ensure!(told.contains("off: ") && told.contains(words), "{told}");
    let room = a.room("square");
    let local = log_in(a, &names("local", 1)).await?;
    let remote = log_in(b, &names("remote", 2)).await?;
    local[0].create(&room, "local00", &[]).await?;
    join_all(&room, &remote).await?;
    local[0].say(&room, "plainly")?;
    crate::scene::all_have(&remote, "plainly").await?;
    ensure!(traffic::links(&lab.wire("a", "b").records(), &room) == 0, "it was linked");
    b.write_options(&[])?;
    b.shell("config:reload()").await?;
    for host in [b.domain(), b.muc()] {
        b.shell(&format!("module:reload(\"dmuc\", {host:?})")).await?;
    }
    linked(lab.wire("a", "b"), &room, 1).await
}
