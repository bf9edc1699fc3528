//! Set-ups that must not come to anything.

use anyhow::{Result, ensure};

use super::Scene;
use super::evil::{condition, envelope, is_nothing, link, message};
use super::tables::{counters, grown, links, rows};
use crate::scene::SOON;

/// Rooms for which there is no consent.
const ROOMS: usize = 3000;

pub async fn play(scene: &Scene) -> Result<()> {
    let (evil, member) = (scene.evil(), scene.member.jid());
    let den = evil.room("den");
    scene.member.join(&den, "m").await?;
    scene.clear().await;
    let before = counters(scene.b()).await?;
    let good = link("e1", &[member]);
    let enter = |i: &str, jid: &str| format!("<enter i='{i}' jid='{jid}'/>");
    // With another value for one attribute.
    let bad = |name: &str, value: &str| {
        let from = good.find(&format!(" {name}='")).unwrap_or_default() + name.len() + 3;
        let to = from + good[from..].find('\'').unwrap_or_default();
        format!("{}{value}{}", &good[..from], &good[to..])
    };
    let around = |enters: &str| {
        let from = good.find("<enter").unwrap_or_default();
        format!("{}{enters}</link>", &good[..from])
    };
    let mut offers = vec![
        (link("e1", &["stranger@b.test/r"]), "no-consent"),
        (link("e1", &["stranger@b.test/r", "neighbour@b.test/r", "no@b.test/x"]), "no-consent"),
        (link("e1", &[]), "no-consent"),
        (bad("size", "4294967295"), "limit"),
        (bad("size", "50001"), "limit"),
    ];
    let malformed = [
        link("e1", &["host@a.test/r"]),
        link("e1", &[member, "host@a.test/r"]),
        link("e1", &[member, member]),
        link("e1", &["b.test"]),
        link("e1", &["member@b.test"]),
        link("e1", &["square@conference.b.test/r"]),
        around(&enter("1", member)),
        around(&enter("4294967295", member)),
        around(&enter("-1", member)),
        around(&enter("0", "")),
        around(&format!("{}{}", enter("0", member), enter("2", "stranger@b.test/r"))),
        around(&format!("{}<leave i='0'/>", enter("0", member))),
        around(&format!("<cast n='1'>{}</cast>", message(&format!("{den}/boss"), "stolen"))),
        bad("epoch", ""),
        bad("epoch", &"e".repeat(65)),
        bad("epoch", "../e"),
        bad("stream", &"s".repeat(5000)),
        bad("size", "-1"),
        bad("size", "4294967296"),
        bad("hold", "x"),
        bad("hold", "99999999999999999999"),
        bad("ping", ""),
        bad("max-bytes", "18446744073709551615"),
        good.replace(" size='1'", ""),
    ];
    offers.extend(malformed.map(|offer| (offer, "malformed")));
    for (offer, wanted) in &offers {
        // In the den they would tell the member that he is out.
        let room = if *wanted == "no-consent" { &evil.room("lobby") } else { &den };
        let answer = evil.offer(room, "b.test", offer).await?;
        let got =
            if is_nothing(&answer) { Some("no-consent".to_owned()) } else { condition(&answer) };
        let offer: String = offer.chars().take(300).collect();
        ensure!(got.as_deref() == Some(*wanted), "{got:?} and not {wanted} for {offer}");
    }
    ensure!(links(scene.b()).await? == 1, "only the honest link");

    // Room after room in which nobody ever asked to be.
    let peer = evil.peer();
    peer.transcript().clear();
    for n in 0..ROOMS {
        let room = evil.room(&format!("room{n}"));
        let link = link("e1", &[member, "stranger@b.test/r"]);
        peer.send(&format!("<iq type='set' from='{room}' to='b.test' id='x{n}'>{link}</iq>"))
            .await?;
    }
    peer.transcript().wait_count(|n| n >= ROOMS as u64, SOON * 2).await?;
    let taken = peer.received().iter().filter(|r| !is_nothing(r)).count();
    ensure!(taken == 0, "{taken} set-ups were taken");
    ensure!(links(scene.b()).await? == 1, "only the honest link");
    if let Some((owners, consents)) = rows(scene.b()).await? {
        ensure!(owners <= 2, "{owners} owners of links");
        ensure!(consents == 3, "{consents} consents");
    }
    let after = counters(scene.b()).await?;
    let sent = |wanted| offers.iter().filter(|offer| offer.1 == wanted).count() as u64;
    for (counter, count) in [
        ("no_consent", sent("no-consent") + ROOMS as u64),
        ("malformed", sent("malformed")),
        ("limit_hit", sent("limit")),
    ] {
        let counted = grown(&before, &after, counter);
        ensure!(counted == count, "{counter}: {counted} for {count}");
    }

    // And one in order.
    let answer = evil.offer(&den, "b.test", &good).await?;
    ensure!(answer.attr("type") == "result", "{}", answer.xml());
    let last = format!("<cast n='1'>{}</cast>", message(&format!("{den}/boss"), "honest"));
    evil.carry(&den, &envelope("e1", 1, &last)).await?;
    scene.heard(&["honest".to_owned()]).await
}
