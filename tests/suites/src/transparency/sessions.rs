//! Sessions that come and go.

use std::time::Duration;

use anyhow::{Result, ensure};
use dmuc_testkit::Received;
use futures::future::try_join;

use super::{script, slowly, speak, swiftly};
use crate::oracle::{Script, Stage};
use crate::scene::SOON;

pub const REJOINING: &[Script] = &[
    script!(rejoin).alone(),
    script!(rejoin_often).alone(),
    // More stays at once than a consent record holds: served plainly, and none the worse.
    script!(rejoin_too_often).alone().unsteady(),
    script!(rejoin_as_another).alone(),
    script!(leave_before_the_answer).alone(),
    script!(at_set_up).alone().unlinked(),
];
pub const SEVERAL: &[Script] =
    &[script!(one_nick).alone(), script!(two_nicks).alone(), script!(whispers).alone()];

async fn rejoin(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    slowly(stage);
    stage.leave("bert", "bert")?;
    stage.ask("bert", "bert")?;
    stage.sent("bert").await?;
    speak(stage, "at once").await?;
    stage.settle().await?;
    speak(stage, "later").await?;
    stage.leave("bert", "bert")?;
    stage.sent("bert").await?;
    speak(stage, "gone").await
}

async fn rejoin_often(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    slowly(stage);
    rejoin_at_once(stage, 5).await?;
    // With the room's answers coming in between.
    swiftly(stage);
    for n in 0..5 {
        stage.leave("bert", "bert")?;
        stage.ask("bert", "bert")?;
        stage.sent("bert").await?;
        stage.say("anna", &format!("between {n}")).await?;
    }
    stage.settle().await?;
    speak(stage, "inside").await?;
    stage.leave("bert", "bert")?;
    stage.sent("bert").await?;
    speak(stage, "gone").await
}

async fn rejoin_too_often(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    slowly(stage);
    rejoin_at_once(stage, 12).await?;
    rejoin_at_once(stage, 1).await?;
    stage.leave("bert", "bert")?;
    stage.sent("bert").await?;
    speak(stage, "gone").await
}

async fn rejoin_at_once(stage: &Stage<'_>, times: usize) -> Result<()> {
    for _ in 0..times {
        stage.leave("bert", "bert")?;
        stage.ask("bert", "bert")?;
    }
    stage.sent("bert").await?;
    speak(stage, "at once").await?;
    stage.settle().await?;
    speak(stage, "later").await?;
    stage.settle().await
}

async fn rejoin_as_another(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl"]).await?;
    slowly(stage);
    stage.leave("bert", "bert")?;
    stage.ask("bert", "bertram")?;
    stage.sent("bert").await?;
    speak(stage, "bertram").await?;
    // Another takes the nick before the room has answered.
    stage.presence("carl", "bert", "").await?;
    stage.leave("bert", "bertram")?;
    stage.ask("bert", "bert")?;
    stage.ask("bert", "carl")?;
    stage.sent("bert").await?;
    speak(stage, "carl").await?;
    stage.settle().await?;
    speak(stage, "later").await
}

async fn leave_before_the_answer(stage: &mut Stage<'_>) -> Result<()> {
    for who in ["bert", "carl", "dora"] {
        stage.log_in("b", who).await?;
    }
    slowly(stage);
    stage.ask("bert", "bert")?;
    stage.leave("bert", "bert")?;
    stage.sent("bert").await?;
    stage.say("anna", "bert was here").await?;
    stage.ask("carl", "carl")?;
    stage.leave("carl", "carl")?;
    stage.ask("carl", "carl")?;
    stage.sent("carl").await?;
    stage.say("anna", "carl is here").await?;
    // A join that fails, left, and one that succeeds.
    stage.ask("dora", "anna")?;
    stage.leave("dora", "anna")?;
    stage.ask("dora", "dora")?;
    stage.sent("dora").await?;
    stage.settle().await?;
    speak(stage, "later").await
}

/// The domain gets its link while its users come and go.
async fn at_set_up(stage: &mut Stage<'_>) -> Result<()> {
    for who in ["anna", "bert", "carl", "dora"] {
        stage.log_in("b", who).await?;
    }
    slowly(stage);
    for who in ["anna", "bert", "carl", "dora"] {
        stage.ask(who, who)?;
        stage.sent(who).await?;
        stage.say("host", &format!("{who}?")).await?;
    }
    // At least some of this falls between the question and the answer of the set-up.
    for n in 0..10 {
        stage.leave("bert", "bert")?;
        stage.ask("bert", "bert")?;
        stage.sent("bert").await?;
        stage.presence("carl", &format!("carl{n}"), "").await?;
        stage.say("anna", &format!("message {n}")).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stage.leave("dora", "dora")?;
    stage.sent("dora").await?;
    stage.settle().await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    speak(stage, "later").await
}

async fn one_nick(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert/one", "bert/two"]).await?;
    speak(stage, "two").await?;
    stage.presence("bert/two", "bert", "<show>away</show>").await?;
    stage.settle().await?;
    stage.log_in("b", "bert/three").await?;
    stage.enter("bert/three").await?;
    // When the first of them leaves, Prosody shows one of the others, by the order of a hash table.
    stage.presence("bert/three", "bert", "<show>away</show>").await?;
    stage.say("bert/one", "from one").await?;
    stage.say("bert/three", "from three").await?;
    stage.settle().await?;
    stage.leave("bert/one", "bert")?;
    stage.sent("bert/one").await?;
    speak(stage, "without one").await?;
    // The same again: were it another, what is shown would depend on whom Prosody has chosen.
    stage.presence("bert/two", "bert", "<show>away</show>").await?;
    stage.settle().await?;
    slowly(stage);
    stage.leave("bert/three", "bert")?;
    stage.ask("bert/three", "bert")?;
    stage.sent("bert/three").await?;
    speak(stage, "three is back").await?;
    stage.settle().await?;
    // The nick changes for all of them, or for the one who asked.
    stage.presence("bert/two", "bertram", "").await?;
    stage.settle().await?;
    speak(stage, "bertram").await?;
    stage.leave("bert/three", "bert")?;
    stage.sent("bert/three").await?;
    stage.settle().await?;
    speak(stage, "without three").await?;
    stage.leave("bert/two", "bertram")?;
    stage.sent("bert/two").await?;
    stage.settle().await?;
    speak(stage, "nobody").await?;
    // All of them at once, out in one go.
    for who in ["bert/one", "bert/two", "bert/three"] {
        stage.enter(who).await?;
    }
    stage.settle().await?;
    stage.kick("host", "bert").await?;
    speak(stage, "all out").await
}

async fn two_nicks(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert/one"]).await?;
    stage.log_in("b", "bert/two").await?;
    stage.ask("bert/two", "other")?;
    stage.sent("bert/two").await?;
    stage.settle().await?;
    speak(stage, "both").await?;
    stage.say("bert/one", "one").await?;
    stage.say("bert/two", "two").await?;
    stage.presence("bert/one", "bert", "<show>away</show>").await?;
    stage.presence("bert/two", "other", "<show>xa</show>").await?;
    stage.whisper("bert/one", "other", "to myself").await?;
    stage.settle().await?;
    stage.presence("bert/two", "another", "").await?;
    stage.settle().await?;
    stage.kick("host", "another").await?;
    stage.settle().await?;
    speak(stage, "one").await?;
    stage.ask("bert/two", "other")?;
    stage.sent("bert/two").await?;
    stage.settle().await?;
    slowly(stage);
    stage.leave("bert/one", "bert")?;
    stage.ask("bert/one", "bert")?;
    stage.sent("bert/one").await?;
    speak(stage, "again").await?;
    stage.settle().await?;
    stage.leave("bert/one", "bert")?;
    stage.sent("bert/one").await?;
    speak(stage, "two").await?;
    stage.settle().await?;
    for (who, own) in [("bert/one", &["bert"][..]), ("bert/two", &["other", "another"])] {
        for stanza in stage[who].received() {
            let nick = stanza.attr("from").rsplit('/').next().unwrap_or_default();
            let false_110 = stanza.statuses().contains(&110) && !own.contains(&nick);
            ensure!(!false_110, "{who} takes {} for his own", stanza.xml());
        }
    }
    Ok(())
}

async fn whispers(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert/one", "bert/two", "carl"]).await?;
    stage.whisper("host", "carl", "from over there").await?;
    stage.whisper("carl", "host", "to over there").await?;
    stage.whisper("carl", "anna", "to here").await?;
    stage.whisper("anna", "bert", "to both of you").await?;
    stage.settle().await?;
    stage.say("host", "between").await?;
    stage.whisper("bert/two", "anna", "from one of us").await?;
    stage.whisper("anna", "nobody", "to nobody").await?;
    stage.settle().await?;
    // Whether one is still inside, and whether another is (XEP-0410).
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    stage["carl"].iq(&format!("{}/carl", stage.room), "get", ping).await?;
    for (who, whom) in [("anna", "carl"), ("host", "anna"), ("anna", "host")] {
        stage[whom].mark();
        let answer = async {
            let asked = |r: &Received| r.xml().contains("urn:xmpp:ping") && r.attr("type") == "get";
            let question = stage[whom].wait_for(asked, SOON).await?;
            let (to, id) = (question.attr("from"), question.attr("id"));
            stage[whom].send_xml(&format!("<iq type='result' to='{to}' id='{id}'/>"))
        };
        let occupant = format!("{}/{whom}", stage.room);
        try_join(stage[who].iq(&occupant, "get", ping), answer).await?;
    }
    slowly(stage);
    stage.leave("carl", "carl")?;
    stage.sent("carl").await?;
    stage.whisper("anna", "carl", "to one who has left").await?;
    stage.whisper("carl", "anna", "from one who has left").await?;
    stage.settle().await?;
    stage.whisper("host", "carl", "to one who has left").await
}
