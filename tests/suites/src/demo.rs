//! The demonstration: the same room on the same servers without dmuc and with it, and what crossed
//! the link between them.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use dmuc_testkit::{Client, Kind, Lab, ServerSpec};
use futures::future::join_all as join_all_futures;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::scene::{PAIRINGS, Pairing, all_have, join_all, linked, log_in, names};

/// What `cargo xtask demo` takes.
#[derive(Args)]
pub struct Arguments {
    /// Remote occupants, on the replica's server
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(5..=1000))]
    users: u16,
    /// Messages said in the room
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    messages: u16,
    /// Only this pairing of primary and replica, as in ejabberd-prosody
    #[arg(long)]
    pairing: Option<String>,
    /// Prints the result as JSON
    #[arg(long)]
    json: bool,
    /// Leaves the servers of the last pairing up, with dmuc, and says how to log in
    #[arg(long)]
    keep: bool,
}

/// What crossed the link while the room was in use, both ways, and what it was for.
#[derive(Clone, Copy, Debug, Serialize)]
struct Measured {
    /// Stanzas.
    link_stanzas: u64,
    /// Bytes on the socket, TLS included.
    link_bytes: u64,
    /// Stanzas of the room that the remote users received.
    delivered: u64,
}

/// One line of the table.
#[derive(Debug, Serialize)]
struct Row {
    primary: String,
    replica: String,
    users: u16,
    messages: u16,
    plain: Measured,
    dmuc: Measured,
}

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<()> {
    let pairings: Vec<Pairing> = PAIRINGS
        .into_iter()
        .filter(|p| arguments.pairing.as_ref().is_none_or(|name| *name == p.to_string()))
        .collect();
    let Some(last) = pairings.last().copied() else {
        bail!("no such pairing; there are {}", PAIRINGS.map(|p| p.to_string()).join(", "));
    };
    let progress = Progress::new(pairings.len() as u64 * STEPS);
    let mut rows = Vec::new();
    for pairing in pairings {
        let lab = pairing
            .lab_with("demo", |spec| spec.dmuc(false))
            .server(ServerSpec::new(Kind::Prosody, "c"))
            .start()
            .await?;
        let outcome = compare(&lab, pairing, arguments, &progress).await;
        if outcome.is_ok() && arguments.keep && pairing == last {
            rows.push(outcome?);
            progress.bar.finish_and_clear();
            show(&rows, arguments.json)?;
            return keep(lab).await;
        }
        rows.push(lab.finish(outcome).await?);
    }
    progress.bar.finish_and_clear();
    show(&rows, arguments.json)
}

/// Steps that the progress display counts, for each pairing.
const STEPS: u64 = 8;

struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new(steps: u64) -> Self {
        let bar = ProgressBar::new(steps);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        Progress { bar }
    }

    fn step(&self, pairing: Pairing, what: &str) {
        self.bar.set_message(format!("{pairing}: {what}"));
        self.bar.inc(1);
        if !std::io::stderr().is_terminal() {
            eprintln!("demo: {pairing}: {what}");
        }
    }
}

async fn compare(
    lab: &Lab,
    pairing: Pairing,
    arguments: &Arguments,
    progress: &Progress,
) -> Result<Row> {
    let plain = phase(lab, pairing, arguments, progress, false).await.context("without dmuc")?;
    lab.server("a").load_dmuc().await?;
    lab.server("b").load_dmuc().await?;
    let dmuc = phase(lab, pairing, arguments, progress, true).await.context("with dmuc")?;
    Ok(Row {
        primary: pairing.primary.to_string(),
        replica: pairing.replica.to_string(),
        users: arguments.users,
        messages: arguments.messages,
        plain,
        dmuc,
    })
}

/// A room from the first join to the last leave; what crossed the link between them.
async fn phase(
    lab: &Lab,
    pairing: Pairing,
    arguments: &Arguments,
    progress: &Progress,
    dmuc: bool,
) -> Result<Measured> {
    let name = if dmuc { "dmuc" } else { "plain" };
    let (a, b, c, wire) = (lab.server("a"), lab.server("b"), lab.server("c"), lab.wire("a", "b"));
    let room = a.room(name);
    progress.step(pairing, &format!("{name}: {} users join", arguments.users));
    let local = log_in(a, &names(&format!("{name}-l"), 3)).await?;
    let third = log_in(c, &names(&format!("{name}-t"), 3)).await?;
    let remote = log_in(b, &names(&format!("{name}-r"), arguments.users.into())).await?;
    local[0].create(&room, &format!("{name}-l00"), &[]).await?;
    join_all(&room, &local[1..]).await?;
    join_all(&room, &third).await?;
    join_all(&room, &remote).await?;
    if dmuc {
        linked(wire, &room, 1).await?;
    }
    let everybody: Vec<&Client> = remote.iter().chain(&local).chain(&third).collect();
    quiet(&everybody).await;
    for client in &everybody {
        client.clear();
    }
    wire.reset();

    progress.step(pairing, &format!("{name}: {} messages", arguments.messages));
    for n in 0..usize::from(arguments.messages) {
        let body = format!("This is message number {n} of this conversation.");
        everybody[(n * 7) % everybody.len()].say(&room, &body)?;
        if n % 20 == 19 || n + 1 == usize::from(arguments.messages) {
            all_have(everybody.iter().copied(), &body).await?;
        }
    }
    progress.step(pairing, &format!("{name}: presence changes"));
    for client in remote.iter().take(10) {
        let nick = client.jid().split('@').next().unwrap_or_default();
        client.presence(&format!("{room}/{nick}"), "<show>away</show>")?;
    }
    // So that whoever leaves has seen the same in both phases.
    quiet(&everybody).await;
    progress.step(pairing, &format!("{name}: some leave"));
    let leaving = remote.len() / 5;
    for client in &remote[..leaving] {
        let nick = client.jid().split('@').next().unwrap_or_default();
        client.leave(&room, nick).await?;
    }
    quiet(&everybody).await;
    let delivered: usize = remote
        .iter()
        .map(|client| {
            client.transcript().with(|all| {
                all.iter().filter(|r| r.attr("from").split('/').next() == Some(&*room)).count()
            })
        })
        .sum();
    let counters = wire.counters();
    for client in &remote {
        let heard = client.bodies(&room).len();
        ensure!(heard == usize::from(arguments.messages), "{} heard {heard}", client.jid());
    }
    let measured = Measured {
        link_stanzas: counters.stanzas(),
        link_bytes: counters.raw_bytes,
        delivered: delivered as u64,
    };
    for client in remote.into_iter().chain(local).chain(third) {
        client.disconnect().await?;
    }
    Ok(measured)
}

async fn quiet(clients: &[&Client]) {
    join_all_futures(clients.iter().map(|client| client.quiet(Duration::from_millis(500)))).await;
}

fn show(rows: &[Row], json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(rows)?);
        return Ok(());
    }
    let factor = |plain: u64, dmuc: u64| plain as f64 / dmuc.max(1) as f64;
    println!(
        "\nWhat crossed the link between the two servers, both ways, while the room was in use\n\
         (messages, presence changes, leaves; joins are not in it), without dmuc and with it:\n"
    );
    println!(
        "{:8} {:8} {:>5} {:>8} {:>9} | {:>9} {:>9} {:>7} | {:>11} {:>11} {:>7}",
        "primary",
        "replica",
        "users",
        "messages",
        "delivered",
        "stanzas",
        "with dmuc",
        "factor",
        "bytes",
        "with dmuc",
        "factor"
    );
    for row in rows {
        let (p, d) = (row.plain, row.dmuc);
        println!(
            "{:8} {:8} {:>5} {:>8} {:>9} | {:>9} {:>9} {:>6.1}x | {:>11} {:>11} {:>6.1}x",
            row.primary,
            row.replica,
            row.users,
            row.messages,
            d.delivered,
            p.link_stanzas,
            d.link_stanzas,
            factor(p.link_stanzas, d.link_stanzas),
            p.link_bytes,
            d.link_bytes,
            factor(p.link_bytes, d.link_bytes),
        );
        if p.delivered != d.delivered {
            println!("  without dmuc the remote users received {} stanzas", p.delivered);
        }
    }
    Ok(())
}

/// Waits until the user has seen enough.
async fn keep(lab: Lab) -> Result<()> {
    // The number of this process in here is another one than out there.
    eprintln!("\nThe servers are up. They are in a network of their own; enter it with\n");
    eprintln!("  sudo nsenter --target $(pgrep -xn dmuc-suites) --net --mount\n");
    eprintln!("and point a client at one of these (no TLS between client and server):\n");
    for server in lab.servers() {
        server.register(&["guest"]).await?;
        eprintln!(
            "  guest@{} password guest, {}, host {} port {}, rooms at {}",
            server.domain(),
            server.kind(),
            server.address(),
            server.c2s().port(),
            server.muc(),
        );
    }
    eprintln!("\nLogs are below {}. Press Ctrl-C to end it.", lab.dir().display());
    tokio::signal::ctrl_c().await?;
    lab.finish(Ok(())).await
}
