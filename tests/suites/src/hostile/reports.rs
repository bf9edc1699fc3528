//! A replica that lies to the room of another server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dmuc_testkit::minidom::Element;
use dmuc_testkit::{Client, xml};

use super::Scene;
use super::evil::Evil;
use super::tables::{counters, grown};
use crate::scene::{SOON, all_have, until, until_async};
use crate::traffic::{NS, payload};
use crate::view::links;

/// Answers to the first set-ups; the one after is in order.
const ANSWERS: [&str; 6] = [
    "<link epoch='EPOCH' max-bytes='262144' slots='0' slot-bytes='0'><refuse i='0-4294967294'/></link>",
    "<link epoch='EPOCH' max-bytes='1' slots='0' slot-bytes='0'/>",
    "<link epoch='other' max-bytes='262144' slots='0' slot-bytes='0'/>",
    "<link epoch='EPOCH' max-bytes='99999999999999999999' slots='0' slot-bytes='0'/>",
    "<link epoch='EPOCH'/>",
    "<envelope epoch='EPOCH' seq='1'><cast n='1'/></envelope>",
];

pub async fn play(scene: &Scene) -> Result<()> {
    let evil = scene.evil();
    let peer = evil.peer();
    let room = scene.b().room("hall");
    let (member, neighbour) = (&scene.member, &scene.neighbour);
    member.create(&room, "member", &[]).await?;
    neighbour.join(&room, "neighbour").await?;
    let before = counters(scene.b()).await?;

    let set_ups = Arc::new(AtomicUsize::new(0));
    let count = set_ups.clone();
    peer.set_answer(move |stanza| answer(stanza, &count));
    for user in ["u1", "u2"] {
        peer.send(&format!(
            "<presence from='{user}@evil.test/r' to='{room}/{user}'>\
             <x xmlns='http://jabber.org/protocol/muc'/></presence>"
        ))
        .await?;
    }
    until("a set-up in order", SOON, || set_ups.load(Ordering::Relaxed) > ANSWERS.len()).await?;
    // Its answer has to be there too.
    until_async("a link", SOON, async || {
        let rows = links(scene.b()).await?;
        Ok(rows.iter().any(|row| row["room"] == room.as_str() && row["state"] == "linked"))
    })
    .await?;
    say(&room, member, neighbour, "linked").await?;
    let carried =
        peer.wait_for(|r| r.xml().contains("linked") && r.xml().contains("<cast"), SOON).await?;
    let epoch = epoch_of(&carried.element).context("an epoch")?;

    let mut lies = 0;
    for body in reports(epoch) {
        let id = evil.id();
        let to = &room;
        peer.send(&format!("<message from='evil.test' to='{to}' id='{id}'>{body}</message>"))
            .await?;
        lies += 1;
    }
    let good = format!("<report xmlns='{NS}' epoch='{epoch}' ack='1'><bye/></report>");
    // From a domain without occupants, from users, and to rooms that are not there.
    for (from, to) in [
        ("conference.evil.test", room.as_str()),
        ("u1@evil.test", &room),
        ("u1@evil.test/r", &room),
        ("evil.test/r", &room),
        ("evil.test", &format!("{room}/member")),
        ("evil.test", "nothere@conference.b.test"),
        ("evil.test", "conference.b.test"),
        ("evil.test", "b.test"),
        ("evil.test", "nobody@b.test"),
    ] {
        peer.send(&format!("<message from='{from}' to='{to}' id='y'>{good}</message>")).await?;
    }
    bounces(&evil, &room, epoch).await?;
    for n in 0..1000 {
        let to = if n % 2 == 0 { room.clone() } else { format!("r{n}@conference.b.test") };
        let announce = format!("<announce xmlns='{NS}'/>");
        peer.send(&format!("<message from='evil.test' to='{to}' id='z{n}'>{announce}</message>"))
            .await?;
    }

    // After all of it: the same epoch, everybody hears everything once.
    for n in 0..5 {
        say(&room, member, neighbour, &format!("after {n}")).await?;
    }
    let carried = peer
        .wait_for(|r| r.xml().contains("after 4") && r.xml().contains("<envelope"), SOON)
        .await?;
    let now = epoch_of(&carried.element);
    ensure!(now == Some(epoch), "the link was lost: {now:?}");
    let after = counters(scene.b()).await?;
    ensure!(grown(&before, &after, "bad_reports") >= lies / 2, "{after:?} for {lies} lies");
    ensure!(grown(&before, &after, "setups_failed") == ANSWERS.len() as u64, "{after:?}");
    for client in [member, neighbour] {
        ensure!(client.bodies(&room).len() == 6, "{}: {:?}", client.jid(), client.bodies(&room));
    }
    Ok(())
}

/// That of an envelope stands in the id of its carrier.
fn epoch_of(carrier: &Element) -> Option<&str> {
    carrier.attr("id")?.split_once('.').map(|(epoch, _)| epoch)
}

async fn say(room: &str, member: &Client, neighbour: &Client, body: &str) -> Result<()> {
    member.say(room, body)?;
    all_have([member, neighbour], body).await?;
    neighbour.quiet(Duration::from_millis(100)).await;
    Ok(())
}

/// A domain that speaks dmuc and has its own view of set-ups.
fn answer(stanza: &Element, set_ups: &AtomicUsize) -> Vec<String> {
    let attr = |name| xml::escape(stanza.attr(name).unwrap_or_default());
    let (from, to, id) = (attr("from"), attr("to"), attr("id"));
    let body =
        match (stanza.name(), stanza.attr("type")) {
            ("iq", Some("get")) => format!(
                "<query xmlns='http://jabber.org/protocol/disco#info'><feature var='{NS}'/></query>"
            ),
            ("iq", Some("set")) => {
                let n = set_ups.fetch_add(1, Ordering::Relaxed);
                let epoch = payload(stanza).and_then(|link| link.attr("epoch")).unwrap_or_default();
                let link = ANSWERS
                    .get(n)
                    .copied()
                    .unwrap_or("<link epoch='EPOCH' max-bytes='262144' slots='0' slot-bytes='0'/>");
                link.replacen(" epoch='EPOCH'", &format!(" xmlns='{NS}' epoch='{epoch}'"), 1)
                    .replacen(" epoch='other'", &format!(" xmlns='{NS}' epoch='other'"), 1)
            }
            _ => return Vec::new(),
        };
    vec![format!("<iq type='result' from='{to}' to='{from}' id='{id}'>{body}</iq>")]
}

/// Reports that nobody can have reason for.
fn reports(epoch: &str) -> Vec<String> {
    let mut reports = Vec::new();
    let mut report = |epoch: &str, ack: &str, inside: &str| {
        reports.push(format!("<report xmlns='{NS}' epoch='{epoch}' ack='{ack}'>{inside}</report>"));
    };
    for ack in ["1000", "9223372036854775807", "9223372036854775808", "-1", "x", "", "01"] {
        report(epoch, ack, "");
        report(epoch, ack, "<bye/>");
    }
    for wrong in ["other", "", &"e".repeat(65), &"e".repeat(5000)] {
        report(wrong, "0", "<bye/>");
        report(wrong, "1", "<refuse i='0' seq='1'/>");
    }
    // Understood, and about nothing.
    report(epoch, "0", "<refuse i='77' seq='1'/>");
    report(epoch, "0", "<refuse i='4294967295' seq='9223372036854775807'/>");
    report(epoch, "0", &"<refuse i='78' seq='0'/>".repeat(10_000));
    report(epoch, "0", "<refuse i='4294967296' seq='1'/>");
    report(epoch, "0", "<refuse i='x' seq='1'/>");
    report(epoch, "0", "<refuse seq='1'/>");
    report(epoch, "0", "<refuse i='0'/>");
    report(epoch, "0", "<nonsense/>");
    report(epoch, "0", "<message xmlns='jabber:client' from='x@y/z'><body>stolen</body></message>");
    reports.push(format!("<report xmlns='{NS}'/>"));
    reports.push(format!("<report xmlns='{NS}' epoch='{epoch}'/>"));
    reports.push(format!("<report xmlns='{NS}' ack='1'/>"));
    reports
}

/// Errors with the ids of envelopes that were never sent, or from those who never got one.
async fn bounces(evil: &Evil<'_>, room: &str, epoch: &str) -> Result<()> {
    let error = "<error type='cancel'><service-unavailable \
                 xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    for (from, id) in [
        ("evil.test", format!("{epoch}.1000")),
        ("evil.test", format!("{epoch}.0")),
        ("evil.test", format!("{epoch}.99999999999999999999")),
        ("evil.test", format!("{epoch}.-1")),
        ("evil.test", "other.1".into()),
        ("evil.test", ".".into()),
        ("evil.test", epoch.into()),
        ("conference.evil.test", format!("{epoch}.1")),
    ] {
        evil.peer()
            .send(&format!(
                "<message type='error' from='{from}' to='{room}' id='{id}'>{error}</message>"
            ))
            .await?;
    }
    Ok(())
}
