//! Relays that are frozen or die while people talk.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dmuc_testkit::{Client, Record};
use tokio::time::sleep;

use super::wood::{Grove, REPLICAS, Wood, attribute, children};
use crate::scene::{SOON, all_have};

/// Between two messages.
const PACE: Duration = Duration::from_millis(100);

pub async fn play(wood: &Wood) -> Result<()> {
    let grove = wood.grove("tower").await?;
    let frozen = relay(&grove, "who is to be frozen?").await?;
    let server = wood.lab.server(frozen);
    server.freeze().await?;
    let outcome = talk(&grove, frozen, "frozen", 50).await;
    server.thaw().await?;
    outcome?;
    all_have(grove.all(), "frozen 49.").await?;
    sleep(Duration::from_secs(1)).await;
    grove.check("frozen", 50)?;
    grove.settle().await?;

    let killed = relay(&grove, "who is to be killed?").await?;
    wood.lab.server(killed).kill().await?;
    talk(&grove, killed, "killed", 50).await
}

/// A server with children.
async fn relay(grove: &Grove<'_>, text: &str) -> Result<&'static str> {
    let paths = grove.look(text).await?;
    REPLICAS.into_iter().find(|name| !children(&paths, name).is_empty()).context("nobody relays")
}

/// Somebody talks, and everybody but those of one server hears it, once and in order.
async fn talk(grove: &Grove<'_>, without: &str, what: &str, count: usize) -> Result<()> {
    let mut said = Vec::new();
    grove.wood.reset();
    for n in 0..count {
        said.push(Instant::now());
        grove.local[1].say(&grove.room, &format!("{what} {n}."))?;
        sleep(PACE).await;
    }
    let others: Vec<&Client> = grove
        .remote
        .iter()
        .filter(|(name, _)| **name != without)
        .flat_map(|(_, clients)| clients)
        .chain(&grove.local)
        .collect();
    let last = format!("{what} {}.", count - 1);
    for client in &others {
        let heard = client.wait_for(|r| r.body().as_deref() == Some(&last), SOON).await;
        heard.with_context(|| format!("the last message at {}", client.jid()))?;
    }
    grove.check_of(others.iter().copied(), what, count)?;
    let records = grove.wood.records();
    let numbers: Vec<Option<u64>> = (0..count)
        .map(|n| {
            let body = format!("{what} {n}.");
            records.iter().filter(|r| r.xml.contains(&body)).find_map(number)
        })
        .collect();
    let (mut longest, mut repaired) = (Duration::ZERO, Duration::ZERO);
    for client in &others {
        for stanza in client.received() {
            let body = stanza.body().unwrap_or_default();
            let n = body.strip_prefix(what).and_then(|rest| rest.trim().strip_suffix('.'));
            let Some(n) = n.and_then(|n| n.parse::<usize>().ok()) else { continue };
            longest = longest.max(stanza.at - said[n]);
            let asked = records
                .iter()
                .filter(|r| r.at < stanza.at)
                .filter(|r| client.jid().contains(&format!("@{}.", r.from)))
                .find(|r| numbers[n].is_some_and(|number| misses(&r.xml, number)));
            if let Some(asked) = asked {
                repaired = repaired.max(stanza.at - asked.at);
            }
        }
    }
    println!(
        "  relay {without} {what}: the longest delay for others was {longest:.1?}, \
         of it since it was asked for {repaired:.1?}"
    );
    Ok(())
}

/// The number of the cast that this is.
fn number(record: &Record) -> Option<u64> {
    record.xml.contains("<relayed").then(|| attribute(&record.xml, "n")?.parse().ok())?
}

/// Whether a server says that the cast of this number has not come.
fn misses(xml: &str, number: u64) -> bool {
    xml.split("<missing").skip(1).any(|missing| {
        let part = |name| attribute(missing, name)?.parse::<u64>().ok();
        let (Some(first), Some(last)) = (part("first"), part("last")) else { return false };
        (first..=last).contains(&number)
    })
}
