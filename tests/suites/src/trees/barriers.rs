//! A slow direct link and a fast relay: what the room has decided comes first all the same.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dmuc_testkit::Received;

use super::wood::{Grove, Wood};
use crate::link::quiet;
use crate::scene::{SOON, all_have};

/// How much slower the direct link is, each way.
const SLOW: Duration = Duration::from_millis(1500);

pub async fn play(wood: &Wood) -> Result<()> {
    let grove = wood.grove("market").await?;
    let (server, relay) = beneath(&grove).await?;
    banned(&grove, &server, &relay).await?;
    demoted(&grove, &server).await
}

/// A server that gets casts from another replica, and which.
async fn beneath(grove: &Grove<'_>) -> Result<(String, String)> {
    let paths = grove.look("who has a parent?").await?;
    let (relay, server) =
        paths.into_keys().find(|(from, _)| from != "a").context("nobody has a parent")?;
    Ok((server, relay))
}

async fn admin(grove: &Grove<'_>, item: &str) -> Result<()> {
    let query =
        format!("<query xmlns='http://jabber.org/protocol/muc#admin'><item {item}/></query>");
    grove.local[0].iq(&grove.room, "set", &query).await?;
    Ok(())
}

async fn banned(grove: &Grove<'_>, server: &str, relay: &str) -> Result<()> {
    let lab = &grove.wood.lab;
    let [victim, other] = &grove.remote[server][..] else { anyhow::bail!("two users") };
    grove.wood.reset();
    lab.wire("a", server).set_latency(SLOW);
    admin(grove, &format!("jid='{}' affiliation='outcast'", victim.bare())).await?;
    grove.local[1].say(&grove.room, "after the ban")?;
    let rest = grove.all().filter(|client| client.jid() != victim.jid());
    all_have(rest.clone(), "after the ban").await?;
    victim.wait_for(|r| r.statuses().contains(&301), SOON).await.context("the ban")?;
    lab.wire("a", server).set_latency(Duration::ZERO);
    quiet(&grove.all().collect::<Vec<_>>()).await;
    let read = victim.bodies(&grove.room).iter().any(|(_, body)| body == "after the ban");
    ensure!(!read, "{} has read on", victim.jid());
    let early = grove.wood.records().into_iter().filter(|r| r.from == relay && r.to == server);
    let early = early.filter(|r| r.xml.contains("after the ban")).map(|r| r.at).min();
    let heard = other.received().into_iter().find(|r| r.body().as_deref() == Some("after the ban"));
    if let (Some(early), Some(heard)) = (early, heard) {
        println!("  the message was at {server} {:?} before it was read", heard.at - early);
    }
    Ok(())
}

async fn demoted(grove: &Grove<'_>, server: &str) -> Result<()> {
    let lab = &grove.wood.lab;
    let demoted = &grove.remote[server][1];
    let nick = crate::scene::nick(demoted);
    let own = |role: &'static str| {
        move |r: &Received| {
            r.statuses().contains(&110) && r.xml().contains(&format!("role='{role}'"))
        }
    };
    demoted.mark();
    admin(grove, &format!("nick='{nick}' role='moderator'")).await?;
    demoted.wait_for(own("moderator"), SOON).await.context("made a moderator")?;
    grove.local[1].presence(&presence(grove), "<status>seen</status>")?;
    let jid = format!("jid='{}'", grove.local[1].jid());
    demoted
        .wait_for(|r| r.xml().contains(&jid), SOON)
        .await
        .context("a moderator sees real JIDs")?;
    quiet(&grove.all().collect::<Vec<_>>()).await;
    demoted.mark();
    lab.wire("a", server).set_latency(SLOW);
    admin(grove, &format!("nick='{nick}' role='participant'")).await?;
    for n in 0..5 {
        grove.local[1].presence(&presence(grove), &format!("<status>unseen {n}</status>"))?;
    }
    grove.local[1].say(&grove.room, "after the demotion")?;
    let rest = grove.all().filter(|client| crate::scene::nick(client) != nick_of_banned(server));
    all_have(rest, "after the demotion").await?;
    lab.wire("a", server).set_latency(Duration::ZERO);
    quiet(&grove.all().collect::<Vec<_>>()).await;
    let heard = demoted.received();
    let from = heard.iter().rposition(own("participant")).context("the demotion")?;
    let after = &heard[from + 1..];
    let is_of = |r: &&Received| r.xml().contains("unseen");
    ensure!(after.iter().filter(is_of).count() == 5, "five presences came after the demotion");
    for stanza in after.iter().filter(is_of) {
        ensure!(!stanza.xml().contains(grove.local[1].bare()), "a real JID: {}", stanza.xml());
    }
    Ok(())
}

fn presence(grove: &Grove<'_>) -> String {
    format!("{}/{}", grove.room, crate::scene::nick(&grove.local[1]))
}

fn nick_of_banned(server: &str) -> String {
    format!("market-{server}00")
}
