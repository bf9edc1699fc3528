//! Who may see and say what; and stanzas that are too large for an envelope.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{script, slowly, speak};
use crate::oracle::{Script, Stage};

pub const ROLES: &[Script] = &[
    script!(moderator).alone(),
    script!(whois).alone(),
    script!(voice).settings(&[("muc#roomconfig_moderatedroom", "1")]),
];
pub const LARGE: &[Script] = &[script!(large).alone().unsteady()];

/// No real JID of the room's own server crosses to `b` but while somebody there may see it.
/// Looks at what crossed since there were `since` records.
fn secret(stage: &Stage<'_>, since: usize, yes: bool) -> Result<()> {
    let told = stage
        .wire()
        .records()
        .into_iter()
        .skip(since)
        .find(|record| record.to == "b" && record.xml.contains("@a.test/"));
    match (yes, told) {
        (true, Some(record)) => bail!("a real JID crossed: {}", record.xml),
        (false, None) => bail!("no real JID crossed"),
        _ => Ok(()),
    }
}

/// Everybody shows himself, and somebody comes.
async fn show(stage: &mut Stage<'_>, round: usize) -> Result<()> {
    for who in ["lena", "anna", "bert"] {
        stage.presence(who, who, &format!("<status>round {round}</status>")).await?;
    }
    let (near, far) = (format!("near{round}"), format!("far{round}"));
    stage.log_in("a", &near).await?;
    stage.enter(&near).await?;
    stage.log_in("b", &far).await?;
    stage.enter(&far).await?;
    stage.settle().await?;
    stage.leave(&near, &near)?;
    stage.sent(&near).await?;
    stage.leave(&far, &far)?;
    stage.sent(&far).await?;
    stage.settle().await
}

async fn moderator(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl"]).await?;
    show(stage, 0).await?;
    secret(stage, 0, true)?;
    stage.admin("host", "nick='bert' role='moderator'").await?;
    stage.settle().await?;
    show(stage, 1).await?;
    secret(stage, 0, false)?;
    stage.kick("bert", "carl").await?;
    stage.settle().await?;
    stage.admin("host", "nick='bert' role='participant'").await?;
    stage.settle().await?;
    let since = stage.wire().records().len();
    show(stage, 2).await?;
    secret(stage, since, true)?;
    // By affiliation, and another with him.
    for who in ["bert", "anna"] {
        let jid = format!("{}@b.test", stage.user(who));
        stage.admin("host", &format!("jid='{jid}' affiliation='admin'")).await?;
    }
    stage.settle().await?;
    show(stage, 3).await?;
    let jid = format!("{}@b.test", stage.user("bert"));
    stage.admin("host", &format!("jid='{jid}' affiliation='none'")).await?;
    show(stage, 4).await?;
    // Up and down while he and others act.
    slowly(stage);
    for n in 0..4 {
        let role = ["moderator", "participant"][n % 2];
        stage.admin("host", &format!("nick='bert' role='{role}'")).await?;
        stage.presence("bert", "bert", &format!("<status>{n}</status>")).await?;
        stage.presence("lena", "lena", &format!("<status>{n}</status>")).await?;
        stage.settle().await?;
    }
    Ok(())
}

async fn whois(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    show(stage, 0).await?;
    secret(stage, 0, true)?;
    for (round, whois) in [(1, "anyone"), (2, "moderators")] {
        let settings = [("muc#roomconfig_whois", whois)];
        stage.configure("host", &settings).await?;
        stage.settle().await?;
        show(stage, round).await?;
    }
    Ok(())
}

async fn voice(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    for role in ["visitor", "participant", "visitor", "moderator", "visitor"] {
        stage.say("bert", &format!("before {role}")).await?;
        stage.settle().await?;
        stage.admin("host", &format!("nick='bert' role='{role}'")).await?;
        stage.say("bert", &format!("as {role}")).await?;
        stage.settle().await?;
    }
    let jid = format!("{}@b.test", stage.user("bert"));
    for affiliation in ["member", "owner", "none"] {
        stage.admin("host", &format!("jid='{jid}' affiliation='{affiliation}'")).await?;
        stage.settle().await?;
    }
    speak(stage, "later").await
}

/// A message that no envelope can take, in the midst of others.
async fn large(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    let body = "0123456789abcdef".repeat(300_000 / 16);
    for round in 0..2 {
        for n in 0..5 {
            stage.say("anna", &format!("{round}: before {n}")).await?;
            stage.say("host", &format!("{round}: before {n}")).await?;
        }
        let sender = ["host", "anna"][round];
        stage.say(sender, &body).await?;
        for n in 0..5 {
            stage.presence("bert", "bert", &format!("<status>{round} {n}</status>")).await?;
            stage.say("anna", &format!("{round}: after {n}")).await?;
            stage.say("host", &format!("{round}: after {n}")).await?;
        }
        stage.settle().await?;
        // Time for a new link.
        for n in 0..10 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            speak(stage, &format!("{round}: {n}")).await?;
        }
    }
    Ok(())
}
