//! That nothing grows without bound.

use anyhow::{Result, ensure};

use super::evil::{condition, envelope, link, message};
use super::tables::{counters, grown, links, memory, rows};
use super::{Limits, Scene};
use crate::scene::SOON;

/// Options of the case [`limits`].
pub const LIMITS: Limits =
    &[("max_audience", 10), ("max_links", 4), ("max_links_per_domain", 2), ("max_consents", 100)];

/// Each limit holds, and what is within it goes on.
pub async fn limits(scene: &Scene) -> Result<()> {
    let (evil, member) = (scene.evil(), scene.member.jid());
    let before = counters(scene.b()).await?;
    for n in 0..3 {
        let room = evil.room(&format!("den{n}"));
        scene.member.join(&room, "m").await?;
        let answer = evil.set_up(&room, "e1", &[member]).await?;
        let wanted = if n < 2 { None } else { Some("limit".to_owned()) };
        ensure!(condition(&answer) == wanted, "link {n}: {}", answer.xml());
    }
    ensure!(links(scene.b()).await? == 3, "the honest link and two");

    // A new epoch is no new link.
    let den = evil.room("den0");
    let answer = evil.set_up(&den, "e2", &[member]).await?;
    ensure!(answer.attr("type") == "result", "{}", answer.xml());

    // Users who do not exist, one after the other and without end.
    scene.clear().await;
    let (mut seq, mut index) = (1, 1);
    let mut refused = None;
    for _ in 0..100 {
        let enter = format!("<enter i='{index}' jid='nobody{index}@b.test/x'/>");
        let id = evil.carry(&den, &envelope("e2", seq, &enter)).await?;
        let about = |r: &dmuc_testkit::Received| {
            r.attr("id") == id
                || r.xml().contains(&format!("ack=\"{seq}\""))
                || r.xml().contains(&format!("ack='{seq}'"))
        };
        let answer = evil.peer().wait_for(about, SOON).await?;
        if answer.attr("type") == "error" {
            refused = condition(&answer);
            break;
        }
        (seq, index) = (seq + 1, index + 1);
    }
    ensure!(refused.as_deref() == Some("limit"), "{refused:?} after {index} strangers");
    // The same with each of them taken leave of: those are remembered as refused.
    for _ in 0..100 {
        let ops = format!("<enter i='{index}' jid='gone{index}@b.test/x'/><leave i='{index}'/>");
        let id = evil.carry(&den, &envelope("e2", seq, &ops)).await?;
        let answer = evil.answer(&id).await?;
        ensure!(condition(&answer).as_deref() == Some("limit"), "{}", answer.xml());
    }
    let honest = format!("<only i='0'>{}</only>", message(&format!("{den}/boss"), "honest"));
    evil.carry(&den, &envelope("e2", seq, &honest)).await?;
    scene.heard(&["honest".to_owned()]).await?;

    // A user of its own who asks to be everywhere.
    for n in 0..200 {
        scene.stranger.ask_to_join(&evil.room(&format!("many{n}")), "s")?;
    }
    scene.stranger.sync().await?;
    scene.stranger.transcript().wait_count(|n| n >= 200, SOON).await?;
    if let Some((_, consents)) = rows(scene.b()).await? {
        ensure!(consents <= 100, "{consents} consents");
    }
    let after = counters(scene.b()).await?;
    ensure!(grown(&before, &after, "limit_hit") >= 100 + 90, "{after:?}");
    Ok(())
}

/// Envelopes of one flood; there is a set-up for every fifth.
const FLOOD: u64 = 7000;
/// Floods: 100 800 stanzas in all.
const FLOODS: usize = 12;
/// By how much the process may have grown from the first flood to the last, in KiB.
const MARGIN: u64 = 24 * 1024;

/// Floods of garbage in which every id, room, epoch and user is a new one: after the first, the
/// process grows no more, and other rooms are served meanwhile.
pub async fn floods(scene: &Scene) -> Result<()> {
    let (evil, member) = (scene.evil(), scene.member.jid());
    let peer = evil.peer();
    let den = evil.room("den");
    scene.member.join(&den, "m").await?;
    evil.set_up(&den, "e1", &[member]).await?;
    scene.clear().await;
    let before = counters(scene.b()).await?;
    let mut sizes = Vec::new();
    for round in 0..FLOODS {
        peer.transcript().clear();
        peer.transcript().set_recording(false);
        let mut text = String::new();
        for n in 0..FLOOD {
            let unique = format!("{round}x{n}");
            let (room, body) = garbage(&den, &unique, n);
            text.push_str(&format!(
                "<message from='{room}' to='b.test' id='{unique}'>{body}</message>"
            ));
            if n % 5 == 0 {
                let link = link(&unique, &[&format!("nobody{unique}@b.test/x")]);
                let room = evil.room(&unique);
                text.push_str(&format!(
                    "<iq type='set' from='{room}' to='b.test' id='{unique}'>{link}</iq>"
                ));
            }
            if text.len() > 100_000 {
                peer.send_raw(&peer.muc(), "b.test", &text).await?;
                text.clear();
            }
        }
        peer.send_raw(&peer.muc(), "b.test", &text).await?;
        // While the server is busy with that, other rooms are served.
        scene.serves(&format!("during flood {round}")).await?;
        let answers = FLOOD + FLOOD / 5;
        peer.transcript().wait_count(|n| n >= answers, SOON * 2).await?;
        peer.transcript().set_recording(true);
        sizes.push(memory(scene.b()).await?);
        ensure!(links(scene.b()).await? == 2, "the honest link and one");
    }
    let honest = format!("<only i='0'>{}</only>", message(&format!("{den}/boss"), "honest"));
    scene.clear().await;
    evil.carry(&den, &envelope("e1", 1, &honest)).await?;
    scene.heard(&["honest".to_owned()]).await?;
    let after = counters(scene.b()).await?;
    let counted: u64 = ["malformed", "gaps", "unknown_epochs", "no_consent"]
        .iter()
        .map(|name| grown(&before, &after, name))
        .sum();
    let sent = FLOODS as u64 * (FLOOD + FLOOD / 5);
    ensure!(counted == sent, "{counted} of {sent} counted");
    let (first, last) = (sizes[0], sizes[FLOODS - 1]);
    println!("  {} grew by flood: {sizes:?} KiB", scene.b().kind());
    ensure!(last < first + MARGIN, "from {first} to {last} KiB: {sizes:?}");
    if let Some((owners, consents)) = rows(scene.b()).await? {
        ensure!(owners <= 2 && consents == 3, "{owners} owners, {consents} consents");
    }
    Ok(())
}

/// A room and an envelope of it that is to be refused.
fn garbage(den: &str, unique: &str, n: u64) -> (String, String) {
    let boss = format!("{den}/boss");
    let cast = format!("<cast n='1'>{}</cast>", message(&boss, "stolen"));
    let stranger = unique.to_owned() + "@" + den.rsplit('@').next().unwrap_or_default();
    match n % 4 {
        0 => (stranger, envelope(unique, 1, &cast)),
        1 => (den.to_owned(), envelope(unique, 1, &cast)),
        2 => (den.to_owned(), envelope("e1", 2 + n, &cast)),
        _ => {
            let jid = format!("nobody{unique}@b.test/x");
            (den.to_owned(), envelope("e1", 1, &format!("<enter i='9' jid='{jid}'/>{cast}")))
        }
    }
}
