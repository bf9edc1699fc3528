//! Many who join one after the other, while the room goes on: what they hear first goes by number.

use anyhow::Result;

use super::{jid, leave, script, slowly, speak, talk, tell};
use crate::oracle::{Script, Stage};

pub const SCRIPTS: &[Script] = &[
    script!(storm),
    script!(storm_with_history),
    script!(storm_of_changes),
    script!(storm_of_moderators),
    script!(storm_on_a_slow_wire).alone(),
];

const CROWD: [&str; 8] = ["bert", "carl", "dora", "emil", "fred", "gina", "hugo", "ida"];

/// They ask one after the other, and nobody waits for an answer.
async fn storm(stage: &mut Stage<'_>) -> Result<()> {
    for who in CROWD {
        stage.log_in("b", who).await?;
    }
    for who in CROWD {
        stage.ask(who, who)?;
        stage.sent(who).await?;
    }
    stage.settle().await?;
    talk(stage, "all here").await?;
    for who in CROWD {
        leave(stage, who, who).await?;
    }
    for who in CROWD {
        stage.ask(who, &format!("{who} again"))?;
        stage.sent(who).await?;
    }
    stage.settle().await?;
    speak(stage, "back").await
}

async fn storm_with_history(stage: &mut Stage<'_>) -> Result<()> {
    tell(stage, "host", "<subject>of the day</subject>").await?;
    for n in 0..50 {
        stage.say(["host", "anna", "lena"][n % 3], &format!("number {n}")).await?;
    }
    stage.settle().await?;
    for (n, who) in CROWD.into_iter().enumerate() {
        stage.log_in("b", who).await?;
        stage.enter(who).await?;
        stage.say("host", &format!("welcome, {who}")).await?;
        if n % 3 == 2 {
            tell(stage, "host", &format!("<subject>{n} are here</subject>")).await?;
        }
    }
    stage.settle().await?;
    // Who asks for less, or for none, gets other stanzas of the same.
    for (who, asked) in [
        ("jana", "<history maxstanzas='3'/>"),
        ("kurt", "<history maxchars='0'/>"),
        ("lars", "<history seconds='100000'/>"),
    ] {
        stage.log_in("b", who).await?;
        super::enter(stage, who, who, asked).await?;
    }
    speak(stage, "all here").await
}

async fn storm_of_changes(stage: &mut Stage<'_>) -> Result<()> {
    for (n, who) in CROWD.into_iter().enumerate() {
        stage.log_in("b", who).await?;
        stage.ask(who, who)?;
        stage.sent(who).await?;
        stage.presence("anna", &format!("anna{n}"), "<show>away</show>").await?;
        stage.presence("lena", "lena", &format!("<status>{n}</status>")).await?;
        // The very presence that others have been replayed, and then another.
        stage.presence("anton", "anton", if n % 2 == 0 { "<show>xa</show>" } else { "" }).await?;
        if n % 3 == 1 {
            leave(stage, CROWD[n - 1], CROWD[n - 1]).await?;
        }
        stage.say("host", &format!("{n}")).await?;
    }
    stage.settle().await?;
    stage.kick("host", "fred").await?;
    stage.settle().await?;
    stage.enter("fred").await?;
    talk(stage, "all here").await
}

/// Some may see real JIDs, for a while.
async fn storm_of_moderators(stage: &mut Stage<'_>) -> Result<()> {
    for (n, who) in CROWD.into_iter().enumerate() {
        stage.log_in("b", who).await?;
        if n % 2 == 0 {
            let item = format!("jid='{}' affiliation='admin'", jid(stage, "b", who));
            stage.admin("host", &item).await?;
            stage.settle().await?;
        }
        stage.enter(who).await?;
        stage.presence("lena", "lena", &format!("<status>{n}</status>")).await?;
        stage.settle().await?;
    }
    for role in ["moderator", "participant", "moderator"] {
        stage.admin("host", &format!("nick='anna' role='{role}'")).await?;
        stage.settle().await?;
        stage.presence("anton", "anton", &format!("<status>{role}</status>")).await?;
        stage.settle().await?;
    }
    for who in ["bert", "dora", "fred", "hugo"] {
        leave(stage, who, who).await?;
        stage.presence("lena", "lena", "").await?;
        stage.enter(who).await?;
        stage.settle().await?;
    }
    speak(stage, "all here").await
}

/// Everything that was sent before is still on its way when the next one asks.
async fn storm_on_a_slow_wire(stage: &mut Stage<'_>) -> Result<()> {
    for who in CROWD {
        stage.log_in("b", who).await?;
    }
    slowly(stage);
    for (n, who) in CROWD.into_iter().enumerate() {
        stage.ask(who, who)?;
        stage.sent(who).await?;
        stage.presence("anna", "anna", &format!("<status>{n}</status>")).await?;
        if n % 2 == 1 {
            stage.leave(who, who)?;
            stage.sent(who).await?;
            stage.ask(who, who)?;
            stage.sent(who).await?;
        }
    }
    stage.settle().await?;
    speak(stage, "all here").await
}
