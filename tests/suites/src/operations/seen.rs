//! Commands, the HTTP API and metrics of two servers with a link between them.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dmuc_testkit::{Client, Kind, Lab, Server, ServerSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Stage;
use crate::scene::{Pairing, SOON, join_all, log_in, names, until_async};
use crate::view::{Link, links};

pub async fn run(pairing: Pairing) -> Result<()> {
    let lab = pairing
        .lab_with("operations-seen", ServerSpec::http)
        .server(ServerSpec::new(pairing.replica, "c"))
        .wire("a", "c")
        .start()
        .await?;
    let outcome = play(&lab).await;
    lab.finish(outcome).await
}

/// Messages in the room.
const SAID: i64 = 30;

async fn play(lab: &Lab) -> Result<()> {
    let (a, b, c) = (lab.server("a"), lab.server("b"), lab.server("c"));
    let stage = Stage::new(lab).await?;
    let third = log_in(c, &names("third", 2)).await?;
    join_all(&stage.room, &third).await?;
    for n in 0..SAID {
        stage.say(&format!("message {n}")).await?;
    }
    let lone = a.room("lone");
    stage.remote[0].create(&lone, "lonely", &[]).await?;

    let settled = async || Ok(row(&links(a).await?, &stage.room, "b.test")?["unacked"] == 0);
    until_async("all is acknowledged", SOON, settled).await?;
    let rows = links(a).await?;
    primary(&rows, &stage)?;
    let far = links(b).await?;
    replica(row(&far, &stage.room, &a.muc())?)?;
    not_linked(lab, &stage, &lone).await?;

    for server in [a, b] {
        people(server, &stage.room, 4).await?;
        metrics(server).await?;
    }
    if a.kind() == Kind::Ejabberd {
        api(a, &stage).await?;
    } else {
        api(b, &stage).await?;
    }
    all_hear(&stage).await
}

fn row<'a>(rows: &'a [Link], room: &str, peer: &str) -> Result<&'a Link> {
    let found = rows.iter().find(|row| row["room"] == room && row["peer"] == peer);
    found.with_context(|| format!("no link of {room} with {peer}: {rows:?}"))
}

fn number(row: &Link, name: &str) -> Result<i64> {
    row[name].as_i64().with_context(|| format!("{name} of {row:?}"))
}

/// Four sessions and thirty messages: the figures add up.
fn primary(rows: &[Link], stage: &Stage) -> Result<()> {
    let link = row(rows, &stage.room, "b.test")?;
    ensure!(link["role"] == "primary" && link["state"] == "linked", "{link:?}");
    ensure!(link["reason"] == "linked" && link["occupants"] == 4, "{link:?}");
    ensure!(number(link, "seq")? >= SAID, "{link:?}");
    ensure!(link["waiting"] == 0 && link["waiting_bytes"] == 0, "{link:?}");
    ensure!((0..2000).contains(&number(link, "round_trip")?), "{link:?}");
    // Three copies less for each message, and the acknowledgements on top.
    ensure!((2 * SAID..5 * SAID).contains(&number(link, "saved")?), "{link:?}");
    ensure!(number(link, "saved_bytes")? > 100 * SAID, "{link:?}");
    Ok(())
}

fn replica(link: &Link) -> Result<()> {
    ensure!(link["role"] == "replica" && link["state"] == "linked", "{link:?}");
    ensure!(link["occupants"] == 4 && number(link, "seq")? >= SAID, "{link:?}");
    ensure!((2 * SAID..5 * SAID).contains(&number(link, "saved")?), "{link:?}");
    Ok(())
}

/// Why domains have no link.
async fn not_linked(lab: &Lab, stage: &Stage, lone: &str) -> Result<()> {
    let a = lab.server("a");
    let told = async |room: &str, peer: &str, words: &str| {
        let reason = format!("{room} with {peer}: {words}");
        until_async(&reason, SOON, async || {
            let rows = links(a).await?;
            let reason = row(&rows, room, peer)?["reason"].as_str().unwrap_or_default();
            Ok(reason.starts_with(words))
        })
        .await
    };
    told(lone, "b.test", "too few occupants (1 of 2)").await?;
    told(&stage.room, "c.test", "does not speak dmuc; tried again in ").await
}

/// What people get to see of a room that is linked for so many occupants.
pub async fn people(server: &Server, room: &str, occupants: usize) -> Result<()> {
    let (status, table, counters) = match server.kind() {
        Kind::Ejabberd => {
            let host = server.domain();
            (
                server.command(&["dmuc_status", &host]).await?,
                server.command(&["dmuc_table", &host, room]).await?,
                server.command(&["dmuc_counters", &host]).await?,
            )
        }
        Kind::Prosody => (
            server.shell("dmuc:status()").await?,
            server.shell(&format!("dmuc:links({room:?})")).await?,
            server.shell("dmuc:counters()").await?,
        ),
    };
    for name in ["version", "links", "waiting_bytes", "saved", "options"] {
        ensure!(status.contains(name), "no {name}: {status}");
    }
    let shown = |line: &str, words: &[&str]| words.iter().all(|word| line.contains(word));
    ensure!(
        table.lines().any(|line| shown(line, &["role", "room", "state", "round_trip"])),
        "{table}"
    );
    let occupants = format!(" {occupants} ");
    ensure!(table.lines().any(|line| shown(line, &[room, "linked", &occupants])), "{table}");
    ensure!(counters.contains("envelopes_"), "{counters}");
    // A host of which it knows nothing.
    let (told, words) = match server.kind() {
        Kind::Ejabberd => {
            let refused = server.command(&["dmuc_status", "nowhere.test"]).await;
            (format!("{refused:?}"), "mod_dmuc is not active on nowhere.test")
        }
        Kind::Prosody => {
            let refused = server.shell("dmuc:status(\"nowhere.test\")").await;
            (format!("{refused:?}"), "dmuc is not loaded on nowhere.test")
        }
    };
    ensure!(told.contains(words), "{told}");
    Ok(())
}

/// The same rows over ejabberd's HTTP API.
async fn api(server: &Server, stage: &Stage) -> Result<()> {
    let body = format!("{{\"host\":{:?},\"room\":{:?}}}", server.domain(), stage.room);
    let answer = http(server, "POST", "/api/dmuc_links", &body).await?;
    let rows: Vec<Link> = serde_json::from_str(&answer).with_context(|| answer.clone())?;
    ensure!(!rows.is_empty() && rows.iter().all(|row| row["room"] == stage.room), "{answer}");
    ensure!(rows.iter().any(|row| row["state"] == "linked" && row["occupants"] == 4), "{answer}");
    let body = format!("{{\"host\":{:?}}}", server.domain());
    let answer = http(server, "POST", "/api/dmuc_status", &body).await?;
    ensure!(answer.contains("saved_bytes"), "{answer}");
    Ok(())
}

/// What a collector of metrics gets.
async fn metrics(server: &Server) -> Result<()> {
    let metrics = Metrics::of(server).await?;
    let (links, carried) = match server.name() {
        "a" => ("links", "copies_carried_total"),
        _ => ("links_served", "copies_delivered_total"),
    };
    metrics.has(links, 1..=1)?;
    metrics.has(carried, 4 * SAID..=i64::MAX)?;
    let (prefix, text) = (metrics.prefix, &metrics.text);
    ensure!(text.contains(&format!("# HELP {prefix}waiting_bytes ")), "{text}");
    ensure!(text.contains(&format!("# TYPE {prefix}waiting_bytes gauge")), "{text}");
    Ok(())
}

/// The metrics of dmuc that a server gives out.
pub struct Metrics {
    prefix: &'static str,
    text: String,
}

impl Metrics {
    pub async fn of(server: &Server) -> Result<Self> {
        let prefix = match server.kind() {
            Kind::Ejabberd => "dmuc_",
            Kind::Prosody => "prosody_mod_dmuc__",
        };
        Ok(Metrics { prefix, text: http(server, "GET", "/metrics", "").await? })
    }

    /// That the sum of a metric over all hosts is within this range.
    pub fn has(&self, name: &str, range: RangeInclusive<i64>) -> Result<()> {
        let start = format!("{}{name}{{", self.prefix);
        let lines = self.text.lines().filter(|line| line.starts_with(&start));
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        let sum = values.sum::<f64>() as i64;
        ensure!(range.contains(&sum), "{name} is {sum}, not {range:?}: {}", self.text);
        Ok(())
    }
}

/// One request; the body of an answer that says 200.
pub async fn http(server: &Server, method: &str, path: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect((server.address(), 5280)).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        server.domain(),
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await??;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.lines().next().is_some_and(|line| line.contains(" 200")), "{path}: {answer}");
    Ok(body.to_owned())
}

async fn all_hear(stage: &Stage) -> Result<()> {
    stage.say("still here").await?;
    let out = |client: &&Client| client.received().iter().any(|r| r.attr("type") == "unavailable");
    let gone: Vec<_> = stage.local.iter().chain(&stage.remote).filter(out).collect();
    ensure!(gone.is_empty(), "{} have heard that somebody is out", gone.len());
    Ok(())
}
