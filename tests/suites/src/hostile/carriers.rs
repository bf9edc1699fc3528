//! What is in order but comes from, or goes to, the wrong place.

use std::time::Duration;

use anyhow::{Result, ensure};
use dmuc_testkit::Client;

use super::Scene;
use super::evil::{condition, envelope, link, message};

pub async fn play(scene: &Scene) -> Result<()> {
    let (evil, member) = (scene.evil(), scene.member.jid());
    let den = evil.room("den");
    scene.member.join(&den, "m").await?;
    evil.set_up(&den, "e1", &[member]).await?;
    scene.clear().await;
    let stolen = format!("<cast n='1'>{}</cast>", message(&format!("{den}/boss"), "stolen"));
    let stolen = envelope("e1", 1, &stolen);
    let (muc, own) = (evil.peer().muc(), evil.peer().domain());
    for (from, to, kind) in [
        (format!("{den}/boss"), "b.test", "normal"),
        (muc.clone(), "b.test", "normal"),
        (format!("den@{own}"), "b.test", "normal"),
        (own.clone(), "b.test", "normal"),
        (format!("other@{muc}"), "b.test", "normal"),
        (den.clone(), "b.test/resource", "normal"),
        (den.clone(), "conference.b.test", "normal"),
        (den.clone(), "square@conference.b.test", "normal"),
        (den.clone(), "nobody@b.test", "normal"),
        (den.clone(), "b.test", "error"),
        (den.clone(), "b.test", "groupchat"),
        (den.clone(), "b.test", "headline"),
        (den.clone(), "b.test", "chat"),
    ] {
        let id = evil.id();
        let stanza =
            format!("<message type='{kind}' from='{from}' to='{to}' id='{id}'>{stolen}</message>");
        evil.peer().send(&stanza).await?;
    }
    // In an IQ and in a presence.
    for stanza in [
        format!("<iq type='set' id='i1' from='{den}' to='b.test'>{stolen}</iq>"),
        format!("<presence from='{den}' to='b.test'>{stolen}</presence>"),
    ] {
        evil.peer().send(&stanza).await?;
    }
    // The text names a room of another server than the stream's.
    let forged = format!(
        "<message from='square@conference.a.test' to='b.test' id='f'>{}</message>",
        stolen.replace(&den, "square@conference.a.test")
    );
    evil.peer().send_raw(&own, "b.test", &forged).await?;
    scene.heard(&[]).await?;

    for client in [&scene.member, &scene.stranger] {
        own_client(client, &den, &stolen).await?;
    }
    for user in scene.users() {
        user.quiet(Duration::from_millis(300)).await;
        let stolen = user.received().into_iter().find(|r| r.body().is_some());
        ensure!(stolen.is_none(), "{}: {}", user.jid(), stolen.map_or(String::new(), |r| r.xml()));
        user.clear();
    }

    // A set-up, too, must be a room's, and for the domain.
    for (from, to) in [
        (format!("{den}/boss"), "b.test"),
        (muc, "b.test"),
        (own, "b.test"),
        (den.clone(), "member@b.test"),
        (den.clone(), "conference.b.test"),
    ] {
        let answer = evil.offer(&from, to, &link("e2", &[member])).await?;
        ensure!(answer.attr("type") == "error", "{}", answer.xml());
    }
    // So the first epoch is still the one.
    let other = evil.carry(&den, &envelope("e2", 1, "")).await?;
    let answer = evil.answer(&other).await?;
    ensure!(condition(&answer).as_deref() == Some("unknown-epoch"), "{}", answer.xml());
    let last = format!("<cast n='1'>{}</cast>", message(&format!("{den}/boss"), "honest"));
    evil.carry(&den, &envelope("e1", 1, &last)).await?;
    scene.heard(&["honest".to_owned()]).await
}

/// A client of the victim's own tries the same.
async fn own_client(client: &Client, den: &str, envelope: &str) -> Result<()> {
    client.send_xml(&format!("<message to='b.test' id='own-1'>{envelope}</message>"))?;
    let answer = client.iq("b.test", "set", &link("e3", &[client.jid()])).await?;
    ensure!(answer.attr("type") == "error", "{}", answer.xml());
    let answer = client.iq("conference.b.test", "set", &link("e3", &[client.jid()])).await?;
    ensure!(answer.attr("type") == "error", "{}", answer.xml());
    client.send_xml(&format!("<message to='b.test/{den}' id='own-2'>{envelope}</message>"))?;
    client.sync().await
}
