//! What a server does for its own users with what others send them: it must not notice dmuc.

use std::time::Duration;

use anyhow::{Result, ensure};
use dmuc_testkit::{ClientOptions, ServerSpec};
use serde_json::json;

use super::{script, talk_on};
use crate::oracle::{Script, Stage};
use crate::scene::SOON;

pub const BLOCKING: &[Script] = &[script!(block_occupant), script!(block_room).unsteady()];
pub const IDLE: &[Script] = &[script!(client_state).alone(), script!(carbons)];
pub const RESUMING: &[Script] =
    &[script!(resume), script!(resume_often).alone(), script!(resume_late)];
pub const LEAVING: &[Script] = &[script!(log_out), script!(unavailable), script!(killed)];
pub const EXPIRING: &[Script] = &[script!(never_resumed).unsteady()];

/// Sessions that are not resumed end after three seconds.
pub fn impatient(spec: ServerSpec) -> ServerSpec {
    match spec.kind {
        dmuc_testkit::Kind::Ejabberd => {
            spec.option("modules", json!({ "mod_stream_mgmt": { "resume_timeout": 3 } }))
        }
        dmuc_testkit::Kind::Prosody => spec.option("smacks_hibernation_time", 3),
    }
}

/// Blocks or unblocks (XEP-0191).
async fn block(stage: &Stage<'_>, who: &str, verb: &str, jid: &str) -> Result<()> {
    let query = format!("<{verb} xmlns='urn:xmpp:blocking'><item jid='{jid}'/></{verb}>");
    let answer = stage[who].iq(stage[who].bare(), "set", &query).await?;
    ensure!(answer.attr("type") == "result", "{verb} {jid}: {}", answer.xml());
    Ok(())
}

async fn block_occupant(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert/one", "bert/two", "carl"]).await?;
    for jid in [format!("{}/lena", stage.room), format!("{}/anna", stage.room)] {
        block(stage, "bert/one", "block", &jid).await?;
        stage.settle().await?;
        talk_on(stage, "blocked").await?;
        stage.settle().await?;
        for who in ["lena", "anna", "carl"] {
            stage.whisper(who, "bert", "to one who may not hear it").await?;
            stage.settle().await?;
        }
        stage.whisper("bert/one", "lena", "from one who may not hear you").await?;
        stage.settle().await?;
        block(stage, "bert/one", "unblock", &jid).await?;
        stage.settle().await?;
        talk_on(stage, "open").await?;
        stage.settle().await?;
    }
    Ok(())
}

async fn block_room(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl"]).await?;
    let room = stage.room.clone();
    block(stage, "bert", "block", &room).await?;
    let deaf = ["bert"];
    stage.settle_but(&deaf).await?;
    talk_on(stage, "blocked").await?;
    stage.settle_but(&deaf).await?;
    stage.whisper("carl", "bert", "blocked").await?;
    stage.say("bert", "do you hear me?").await?;
    stage.settle_but(&deaf).await?;
    talk_on(stage, "still").await?;
    stage.settle_but(&deaf).await?;
    block(stage, "bert", "unblock", &room).await?;
    stage.settle().await?;
    talk_on(stage, "open").await?;
    stage.settle().await?;
    stage.ask("bert", "bert")?;
    stage.sent("bert").await?;
    stage.settle().await?;
    talk_on(stage, "back").await?;
    stage.settle().await?;
    // Put out without hearing of it.
    block(stage, "bert", "block", &room).await?;
    stage.settle_but(&deaf).await?;
    stage.kick("host", "bert").await.ok();
    talk_on(stage, "out").await?;
    stage.settle_but(&deaf).await?;
    block(stage, "bert", "unblock", &room).await?;
    stage.settle().await?;
    talk_on(stage, "open, but out").await?;
    stage.ask("bert", "bert")?;
    stage.sent("bert").await?;
    stage.settle().await?;
    talk_on(stage, "back").await
}

/// What is held back for an idle client, and in which order it comes (XEP-0352).
async fn client_state(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl"]).await?;
    for round in 0..2 {
        stage["bert"].send_xml("<inactive xmlns='urn:xmpp:csi:0'/>")?;
        // Whatever bert asked would wake him: nothing but time tells that he is idle.
        tokio::time::sleep(Duration::from_millis(300)).await;
        stage.presence("anna", "anna", "<show>away</show>").await?;
        stage.presence("lena", "lena", "<show>away</show>").await?;
        stage.settle_but(&["bert"]).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let count = stage["bert"].received().len();
        stage.note(format!("bert has {count} in round {round}, only presences"));
        stage.presence("anna", "anna", "<show>dnd</show>").await?;
        stage.say("lena", &format!("round {round}")).await?;
        stage.presence("anna", "anna", "<show>xa</show>").await?;
        stage.say("carl", &format!("round {round}")).await?;
        stage.leave("carl", "carl")?;
        stage.sent("carl").await?;
        stage.settle_but(&["bert"]).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let count = stage["bert"].received().len();
        stage.note(format!("bert has {count} in round {round}, messages as well"));
        stage.whisper("anna", "bert", "are you asleep?").await?;
        stage.presence("lena", "lena", "<show>chat</show>").await?;
        stage.presence("anna", &format!("anna{round}"), "").await?;
        stage.presence("anna", "anna", "").await?;
        stage.enter("carl").await?;
        stage.settle_but(&["bert"]).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let count = stage["bert"].received().len();
        stage.note(format!("bert has {count} in round {round} before he wakes"));
        stage["bert"].send_xml("<active xmlns='urn:xmpp:csi:0'/>")?;
        stage.settle().await?;
        talk_on(stage, "awake").await?;
        stage.settle().await?;
    }
    Ok(())
}

/// Another session of the same user gets nothing of what is said in the room.
async fn carbons(stage: &mut Stage<'_>) -> Result<()> {
    stage.log_in("b", "bert/phone").await?;
    stage.arrive(&["bert"]).await?;
    for who in ["bert", "bert/phone"] {
        let answer = stage[who].iq("b.test", "set", "<enable xmlns='urn:xmpp:carbons:2'/>").await;
        let bare = stage[who].bare().to_owned();
        if answer?.attr("type") != "result" {
            let enable = "<enable xmlns='urn:xmpp:carbons:2'/>";
            stage[who].iq(&bare, "set", enable).await?;
        }
    }
    talk_on(stage, "in the room").await?;
    stage.settle().await?;
    for who in ["lena", "anna"] {
        stage.whisper(who, "bert", "in private").await?;
        stage.whisper("bert", who, "in private").await?;
        stage.settle().await?;
        // As old clients do it, without a sign that it is of a room.
        let id = stage[who].fresh_id();
        stage[who].send_xml(&format!(
            "<message type='chat' to='{}/bert' id='{id}'><body>bare</body></message>",
            stage.room
        ))?;
        stage.sent(who).await?;
        stage.settle().await?;
    }
    let heard = stage["bert/phone"].received();
    let talk = heard.iter().any(|r| r.xml().contains("groupchat"));
    ensure!(!talk, "a session that is not in the room has got what was said there");
    Ok(())
}

async fn managed(stage: &mut Stage<'_>, who: &[&str]) -> Result<()> {
    let options = ClientOptions { stream_management: true, ..ClientOptions::default() };
    for who in who {
        stage.log_in_with("b", who, options.clone()).await?;
        stage.enter(who).await?;
    }
    stage.settle().await
}

async fn resume(stage: &mut Stage<'_>) -> Result<()> {
    managed(stage, &["bert", "carl"]).await?;
    talk_on(stage, "before").await?;
    // In flight, on the way and while there is no connection.
    stage["bert"].abort().await;
    talk_on(stage, "without bert").await?;
    stage.whisper("anna", "bert", "where are you?").await?;
    stage.settle().await?;
    stage.client("bert")?.resume().await?;
    stage.settle().await?;
    talk_on(stage, "with bert").await?;
    stage.leave("bert", "bert")?;
    stage.ask("bert", "bert")?;
    stage.sent("bert").await?;
    stage.settle().await?;
    talk_on(stage, "with bert again").await
}

async fn resume_often(stage: &mut Stage<'_>) -> Result<()> {
    managed(stage, &["bert", "carl"]).await?;
    stage.wire().set_latency(Duration::from_millis(20));
    for round in 0..5 {
        for n in 0..5 {
            stage.say("host", &format!("{round}.{n}")).await?;
            stage.say("anna", &format!("{round}.{n} too")).await?;
        }
        stage["bert"].abort().await;
        for n in 5..10 {
            stage.say("host", &format!("{round}.{n}")).await?;
        }
        stage.client("bert")?.resume().await?;
        for n in 10..15 {
            stage.say("lena", &format!("{round}.{n}")).await?;
        }
    }
    stage.settle().await?;
    once(stage, "bert")
}

/// A message said while nobody is there, a nick change, a kick: all known after the resumption.
async fn resume_late(stage: &mut Stage<'_>) -> Result<()> {
    managed(stage, &["bert", "carl"]).await?;
    stage["bert"].abort().await;
    stage["carl"].abort().await;
    talk_on(stage, "nobody listens").await?;
    stage.presence("anna", "hanna", "").await?;
    stage.kick("host", "carl").await?;
    stage.say("host", "carl is out").await?;
    stage.settle().await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    stage.client("bert")?.resume().await?;
    stage.client("carl")?.resume().await?;
    stage.settle().await?;
    stage.ask("carl", "carl")?;
    stage.sent("carl").await?;
    stage.settle().await?;
    talk_on(stage, "everybody listens").await
}

/// Everything from the room once.
fn once(stage: &Stage<'_>, who: &str) -> Result<()> {
    let mut bodies = stage[who].bodies(&stage.room);
    let all = bodies.len();
    bodies.sort();
    bodies.dedup();
    ensure!(bodies.len() == all, "{who} got {} messages twice", all - bodies.len());
    Ok(())
}

/// The session's end is the room's, too.
async fn never_resumed(stage: &mut Stage<'_>) -> Result<()> {
    managed(stage, &["bert"]).await?;
    stage["host"].mark();
    stage["bert"].abort().await;
    stage.say("host", "bert has gone").await?;
    stage.settle().await?;
    gone(stage, "bert").await?;
    talk_on(stage, "bert is out").await?;
    stage.settle().await?;
    stage.drop_out("bert").await?;
    stage.log_in("b", "bert").await?;
    stage.enter("bert").await?;
    stage.settle().await?;
    talk_on(stage, "bert is back").await
}

/// Waits until the room has told of somebody's end.
async fn gone(stage: &Stage<'_>, nick: &str) -> Result<()> {
    let gone = format!("{}/{nick}", stage.room);
    stage["host"].wait_for(|r| r.is("presence", "unavailable", &gone), SOON).await.map(drop)
}

async fn log_out(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl"]).await?;
    for _ in 0..2 {
        stage["host"].mark();
        talk_on(stage, "with bert").await?;
        stage.settle().await?;
        stage.log_out("bert").await?;
        gone(stage, "bert").await?;
        talk_on(stage, "without bert").await?;
        stage.log_in("b", "bert").await?;
        stage.enter("bert").await?;
        stage.settle().await?;
    }
    Ok(())
}

/// Off line for everybody, yet connected.
async fn unavailable(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl"]).await?;
    stage["bert"].send_xml("<presence type='unavailable'/>")?;
    stage.sent("bert").await?;
    stage.settle().await?;
    talk_on(stage, "without bert").await?;
    stage.ask("bert", "bert")?;
    stage.sent("bert").await?;
    stage.settle().await?;
    talk_on(stage, "with bert, who is invisible").await?;
    stage["bert"].send_xml("<presence/>")?;
    stage["bert"].send_xml("<presence type='unavailable'/>")?;
    stage.sent("bert").await?;
    stage.settle().await?;
    talk_on(stage, "without bert").await
}

async fn killed(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl"]).await?;
    for _ in 0..2 {
        stage["host"].mark();
        stage.drop_out("bert").await?;
        gone(stage, "bert").await?;
        talk_on(stage, "without bert").await?;
        stage.log_in("b", "bert").await?;
        stage.ask("bert", "bert")?;
        stage.sent("bert").await?;
        stage.settle().await?;
        talk_on(stage, "with bert").await?;
        stage.settle().await?;
    }
    Ok(())
}
