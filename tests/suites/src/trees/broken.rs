//! Relays that are frozen or die while people talk.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dmuc_testkit::Client;
use tokio::time::sleep;

use super::wood::{Grove, REPLICAS, Wood, children};
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
    let (mut longest, mut repaired) = (Duration::ZERO, Duration::ZERO);
    for client in &others {
        for stanza in client.received() {
            let body = stanza.body().unwrap_or_default();
            let n = body.strip_prefix(what).and_then(|rest| rest.trim().strip_suffix('.'));
            let Some(said) = n.and_then(|n| n.parse::<usize>().ok()).map(|n| said[n]) else {
                continue;
            };
            longest = longest.max(stanza.at - said);
            let noticed = records.iter().find(|r| {
                r.at > said && client.jid().contains(&format!("@{}.", r.from)) && tells_gap(&r.xml)
            });
            if let Some(noticed) = noticed.filter(|r| r.at < stanza.at) {
                repaired = repaired.max(stanza.at - noticed.at);
            }
        }
    }
    println!(
        "  relay {without} {what}: the longest delay for others was {longest:.1?}, \
         from word of a gap to what was missing {repaired:.1?}"
    );
    Ok(())
}

/// Whether a server says that something of a stream has not come.
fn tells_gap(xml: &str) -> bool {
    xml.contains("<missing ") || xml.contains("<complaint ")
}
