//! Names that change, and occupants who are put out or drop out.

use std::time::Duration;

use anyhow::Result;
use dmuc_testkit::Received;

use super::{script, slowly, speak};
use crate::oracle::{Script, Stage};
use crate::scene::SOON;

pub const NICKS: &[Script] =
    &[script!(nick_changes).alone(), script!(nick_swaps).alone(), script!(nick_conflicts).alone()];
pub const OUT: &[Script] = &[
    script!(kick_and_rejoin),
    script!(kick_across_presence).alone(),
    script!(ban).alone(),
    script!(drop_out),
    // The end of a session is the end of its consent: what the room still has for it goes plainly.
    script!(replaced).unsteady(),
    script!(destroyed).unsteady(),
];

async fn nick_changes(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl"]).await?;
    slowly(stage);
    for n in 0..6 {
        stage.say("anna", &format!("anna {n}")).await?;
        stage.presence("bert", &format!("bert{n}"), "").await?;
        stage.say("host", &format!("host {n}")).await?;
        stage.say("bert", &format!("bert {n}")).await?;
        stage.presence("anna", &format!("anna{n}"), "<show>chat</show>").await?;
        stage.presence("lena", &format!("lena{n}"), "").await?;
        stage.say("carl", &format!("carl {n}")).await?;
    }
    stage.settle().await?;
    // To a new nick and away, to a new nick and back.
    stage.presence("bert", "berta", "").await?;
    stage.leave("bert", "berta")?;
    stage.sent("bert").await?;
    stage.presence("carl", "carla", "").await?;
    stage.leave("carl", "carla")?;
    stage.ask("carl", "carl")?;
    stage.sent("carl").await?;
    stage.settle().await?;
    speak(stage, "later").await
}

async fn nick_swaps(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl", "dora"]).await?;
    slowly(stage);
    for (who, nick) in [
        ("bert", "free"),
        ("carl", "bert"),
        ("dora", "carl"),
        ("bert", "dora"),
        ("anna", "free"),
        ("carl", "dora"),
        ("dora", "bert"),
        ("anton", "carl"),
    ] {
        stage.presence(who, nick, "").await?;
        stage.say(who, &format!("I want to be {nick}")).await?;
    }
    stage.settle().await?;
    for who in ["bert", "carl", "dora", "anna", "anton"] {
        stage.say(who, "who am I?").await?;
    }
    Ok(())
}

async fn nick_conflicts(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    stage.log_in("b", "carl").await?;
    for nick in ["anna", "host"] {
        stage.ask("carl", nick)?;
        stage.sent("carl").await?;
        stage.presence("bert", nick, "").await?;
    }
    stage.settle().await?;
    speak(stage, "nothing new").await?;
    slowly(stage);
    stage.ask("carl", "anna")?;
    stage.ask("carl", "carl")?;
    stage.presence("carl", "anna", "").await?;
    stage.say("carl", "here").await?;
    stage.presence("bert", "carl", "").await?;
    stage.leave("bert", "bert")?;
    stage.ask("bert", "anna")?;
    stage.sent("bert").await?;
    speak(stage, "bert is out").await?;
    stage.settle().await?;
    stage.ask("bert", "bert")?;
    stage.sent("bert").await?;
    speak(stage, "bert is back").await
}

fn kicked(stanza: &Received) -> bool {
    stanza.attr("type") == "unavailable" && stanza.statuses().contains(&110)
}

async fn kick_and_rejoin(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl"]).await?;
    for _ in 0..3 {
        stage["bert"].mark();
        stage.kick("host", "bert").await?;
        stage["bert"].wait_for(kicked, SOON).await?;
        stage.ask("bert", "bert")?;
        stage.sent("bert").await?;
        speak(stage, "bert is back").await?;
        stage.settle().await?;
    }
    // Two at once, one of whom comes back.
    stage.kick("host", "bert").await?;
    stage.kick("host", "carl").await?;
    stage.say("host", "out").await?;
    stage.settle().await?;
    stage.ask("carl", "carl")?;
    stage.sent("carl").await?;
    stage.settle().await?;
    speak(stage, "carl is back").await
}

/// What bert does, the room gets when he is out already.
async fn kick_across_presence(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    for n in 0..4 {
        stage.stall().await?;
        stage.kick("host", "bert").await?;
        match n {
            0 => stage.presence("bert", "bert", "<show>away</show>").await?,
            1 => stage.say("bert", "am I here?").await?,
            2 => {
                stage.leave("bert", "bert")?;
                stage.ask("bert", "bert")?;
                stage.sent("bert").await?;
            }
            _ => {
                stage.leave("bert", "bert")?;
                stage.sent("bert").await?;
            }
        }
        stage.flow();
        stage.settle().await?;
        speak(stage, &format!("after {n}")).await?;
        stage.settle().await?;
        stage.ask("bert", "bert")?;
        stage.sent("bert").await?;
        stage.settle().await?;
        speak(stage, &format!("back after {n}")).await?;
        stage.settle().await?;
    }
    Ok(())
}

async fn ban(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert/one", "bert/two", "carl"]).await?;
    let jid = format!("{}@b.test", stage.user("bert"));
    stage.admin("host", &format!("jid='{jid}' affiliation='outcast'")).await?;
    speak(stage, "out").await?;
    stage.ask("bert/one", "bert")?;
    stage.sent("bert/one").await?;
    stage.settle().await?;
    stage.admin("host", &format!("jid='{jid}' affiliation='none'")).await?;
    stage.ask("bert/one", "bert")?;
    stage.sent("bert/one").await?;
    stage.settle().await?;
    speak(stage, "back").await?;
    slowly(stage);
    // Ban against a message, a change of presence and a join.
    stage.stall().await?;
    stage.admin("host", &format!("jid='{jid}' affiliation='outcast'")).await?;
    stage.say("bert/one", "am I here?").await?;
    stage.presence("bert/one", "bert", "<show>away</show>").await?;
    stage.ask("bert/two", "bert")?;
    stage.sent("bert/two").await?;
    stage.flow();
    stage.settle().await?;
    speak(stage, "out").await
}

async fn drop_out(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl"]).await?;
    stage["host"].mark();
    stage["host"].quiet(Duration::from_millis(100)).await;
    stage.drop_out("bert").await?;
    let gone = format!("{}/bert", stage.room);
    stage["host"].wait_for(|r| r.is("presence", "unavailable", &gone), SOON).await?;
    speak(stage, "bert is gone").await?;
    // What was on its way to the old session is not to meet the new one.
    stage.settle().await?;
    stage.log_in("b", "bert").await?;
    stage.enter("bert").await?;
    speak(stage, "bert is back").await?;
    stage.settle().await?;
    stage["host"].mark();
    stage.log_out("bert").await?;
    stage["host"].wait_for(|r| r.is("presence", "unavailable", &gone), SOON).await?;
    speak(stage, "bert is gone").await
}

/// A new connection takes the place of the old one: the room hears of the end, then of the join.
async fn replaced(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    for n in 0..2 {
        stage["host"].mark();
        stage.replace("b", "bert").await?;
        if n == 0 {
            let gone = format!("{}/bert", stage.room);
            stage["host"].wait_for(|r| r.is("presence", "unavailable", &gone), SOON).await?;
        }
        stage.ask("bert", "bert")?;
        stage.sent("bert").await?;
        stage.settle().await?;
        speak(stage, "the new one").await?;
        stage.settle().await?;
    }
    Ok(())
}

async fn destroyed(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    speak(stage, "before").await?;
    stage.settle().await?;
    let owner = "http://jabber.org/protocol/muc#owner";
    let query = format!(
        "<query xmlns='{owner}'><destroy jid='{}'><reason>enough</reason></destroy></query>",
        stage.lab().server("a").room("elsewhere")
    );
    stage["host"].iq(&stage.room.clone(), "set", &query).await?;
    // ejabberd loses what comes while the room's process ends.
    tokio::time::sleep(Duration::from_millis(500)).await;
    stage.settle().await?;
    // The same name, another room.
    stage["host"].create(&stage.room, "host", &[]).await?;
    for who in ["anna", "bert"] {
        stage.enter(who).await?;
    }
    stage.settle().await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    speak(stage, "after").await
}
