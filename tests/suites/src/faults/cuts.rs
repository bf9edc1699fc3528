//! `cargo xtask cuts`: the same cuts of a link on plain MUC and on dmuc, in one table.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use dmuc_testkit::Fault;
use futures::future::try_join_all;

use super::oracle::Findings;
use super::town::{Setup, Town};
use crate::scene::{Pairing, pairings};

/// What `cargo xtask cuts` takes.
#[derive(Args)]
pub struct Arguments {
    /// Cuts of 0.1 to 5 s
    #[arg(long, value_name = "N", default_value_t = 200)]
    cuts: u64,
    /// Cuts of 20 to 60 s
    #[arg(long, value_name = "N", default_value_t = 10)]
    long: u64,
    /// Only this pairing of primary and replica, as in ejabberd-prosody; else all at once
    #[arg(long)]
    pairing: Option<Pairing>,
    /// Which cuts; else always the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The servers' stock settings of reconnection, and dmuc's defaults
    #[arg(long)]
    stock: bool,
    /// Only plain MUC
    #[arg(long, conflicts_with = "dmuc")]
    plain: bool,
    /// Only dmuc
    #[arg(long)]
    dmuc: bool,
}

/// Short cuts between two looks at who is where.
const GROUP: u64 = 10;

/// Option `hold_time` in seconds, longer than the longest cut with what TCP needs afterwards; with
/// stock settings the default is.
const HOLD: u64 = 150;

/// One way along the link: what is under way when a connection breaks is what gets lost.
const LATENCY: Duration = Duration::from_millis(25);

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Down,
    OneWay,
    Refused,
    Reset,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Down, Self::OneWay, Self::Refused, Self::Reset];

    fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::OneWay => "one way",
            Self::Refused => "refused",
            Self::Reset => "reset",
        }
    }

    /// One of this kind, towards or from the replica.
    fn fault(self, from_primary: bool) -> Fault {
        let (a, b) = ("a".to_owned(), "b".to_owned());
        match self {
            Self::Down => Fault::Down(a, b),
            Self::OneWay if from_primary => Fault::OneWay(a, b),
            Self::OneWay => Fault::OneWay(b, a),
            Self::Refused => Fault::Refused(a, b),
            Self::Reset => Fault::Reset(a, b),
        }
    }
}

/// Some cuts of a kind.
struct Group {
    kind: Kind,
    long: bool,
    cuts: Vec<(Fault, Duration)>,
}

/// The same for the same seed. Each kind has its turn, towards either side and as long as it happens.
fn groups(arguments: &Arguments) -> Vec<Group> {
    let mut random = fastrand::Rng::with_seed(arguments.seed);
    let mut groups = Vec::new();
    let mut add = |n: usize, long: bool, count: u64| {
        // A connection that is reset is so at once.
        let kinds = if long { &Kind::ALL[..3] } else { &Kind::ALL[..] };
        let kind = kinds[n % kinds.len()];
        let cuts = (0..count).map(|_| {
            let length = if long { random.u64(20_000..=60_000) } else { random.u64(100..=5000) };
            let length = if kind == Kind::Reset { 0 } else { length };
            (kind.fault(random.bool()), Duration::from_millis(length))
        });
        groups.push(Group { kind, long, cuts: cuts.collect() });
    };
    let short = arguments.cuts.div_ceil(GROUP) as usize;
    (0..short).for_each(|n| add(n, false, GROUP.min(arguments.cuts - n as u64 * GROUP)));
    (0..arguments.long as usize).for_each(|n| add(n, true, 1));
    groups
}

/// A line of the table.
struct Row {
    pairing: Pairing,
    kind: Kind,
    long: bool,
    dmuc: bool,
    cuts: usize,
    findings: Findings,
}

/// Runs it; whether dmuc has passed.
pub async fn run(arguments: &Arguments) -> Result<bool> {
    let groups = groups(arguments);
    let sides = [false, true].into_iter().filter(|&dmuc| match dmuc {
        true => !arguments.plain,
        false => !arguments.dmuc,
    });
    let runs = pairings(arguments.pairing)
        .flat_map(|pairing| sides.clone().map(move |dmuc| (pairing, dmuc)))
        .map(|(pairing, dmuc)| side(pairing, dmuc, arguments, &groups));
    let mut rows: Vec<Row> = try_join_all(runs).await?.into_iter().flatten().collect();
    rows.sort_by_key(|row| (row.pairing.to_string(), row.long, row.kind, row.dmuc));
    show(&rows);
    let (failed, passed): (Vec<_>, Vec<_>) =
        rows.iter().filter(|row| row.dmuc).partition(|row| !row.findings.is_clean());
    for row in &failed {
        println!("\n{} {}:\n  {}", row.pairing, row.kind.name(), row.findings.details.join("\n  "));
    }
    println!("{} passed, {} failed", passed.len(), failed.len());
    Ok(failed.is_empty())
}

/// All cuts on one pair of servers.
async fn side(
    pairing: Pairing,
    dmuc: bool,
    arguments: &Arguments,
    groups: &[Group],
) -> Result<Vec<Row>> {
    let hold = (!arguments.stock).then_some(HOLD);
    let setup =
        Setup { dmuc, stock: arguments.stock, hold, record: false, forgetful: false, tree: false };
    let name = if dmuc { "cuts-dmuc" } else { "cuts-plain" };
    let lab = setup.start(name, pairing).await?;
    lab.wire("a", "b").set_latency(LATENCY);
    let outcome = async {
        let town = Town::found(&lab, arguments.seed).await?;
        town.live(play(&town, pairing, setup, groups)).await
    };
    let outcome = outcome.await.with_context(|| format!("{pairing} {name}"));
    lab.finish(outcome).await
}

async fn play(
    town: &Town<'_>,
    pairing: Pairing,
    setup: Setup,
    groups: &[Group],
) -> Result<Vec<Row>> {
    let dmuc = setup.dmuc;
    let mut rows: Vec<Row> = Vec::new();
    for (n, group) in groups.iter().enumerate() {
        for (fault, length) in &group.cuts {
            town.pass(Duration::from_millis(500 + town.chance(1000))).await;
            if dmuc && town.linked(patience(setup, group)).await.is_err() {
                println!("{pairing}: a cut without a link");
            }
            town.suffer(fault, *length).await?;
        }
        town.pass(Duration::from_secs(1)).await;
        let findings = town.quiet(patience(setup, group)).await?;
        let side = if dmuc { "dmuc" } else { "plain" };
        println!("{pairing} {side} {}/{}: {}: {findings}", n + 1, groups.len(), group.kind.name());
        let same = |row: &&mut Row| row.kind == group.kind && row.long == group.long;
        match rows.iter_mut().find(same) {
            Some(row) => {
                row.cuts += group.cuts.len();
                row.findings += findings;
            }
            None => rows.push(Row {
                pairing,
                kind: group.kind,
                long: group.long,
                dmuc,
                cuts: group.cuts.len(),
                findings,
            }),
        }
    }
    Ok(rows)
}

/// How long to wait for all to be well again: TCP tries again as late after a cut as it took. Plain
/// MUC does not get well by itself, so less has to do.
fn patience(setup: Setup, group: &Group) -> Duration {
    let seconds = match (setup.dmuc, group.long) {
        (true, false) => 60,
        (true, true) => 150,
        (false, false) => 15,
        (false, true) => 75,
    };
    // ejabberd may wait for so long with its next attempt.
    Duration::from_secs(if setup.stock { seconds + 300 } else { seconds })
}

fn show(rows: &[Row]) {
    println!(
        "\n{:17} {:8} {:>6} {:5} | {:>5} {:>9} {:>8} {:>8} {:>7} {:>7} | {:>8} {:>8} | {:>6} {:>5}",
        "primary-replica",
        "link",
        "s",
        "MUC",
        "cuts",
        "heard",
        "lost",
        "presence",
        "doubled",
        "swapped",
        "told out",
        "by error",
        "ghosts",
        "deaf"
    );
    for row in rows {
        let f = &row.findings;
        let length = match (row.kind, row.long) {
            (Kind::Reset, _) => "",
            (_, false) => "0.1-5",
            (_, true) => "20-60",
        };
        println!(
            "{:17} {:8} {length:>6} {:5} | {:>5} {:>9} {:>8} {:>8} {:>7} {:>7} | {:>8} {:>8} | {:>6} {:>5}",
            row.pairing.to_string(),
            row.kind.name(),
            if row.dmuc { "dmuc" } else { "plain" },
            row.cuts,
            f.heard,
            f.lost,
            f.lost_presences,
            f.doubled,
            f.swapped,
            f.told_out(),
            f.refused.values().sum::<u64>(),
            f.ghosts,
            f.deaf
        );
    }
    println!(
        "\nlost: messages that somebody should have heard, and presences; doubled and swapped: of \
         either; told out, by\nerror: occupants who were, and entered again; ghosts and deaf: in the \
         room's list and not there, and the reverse.\n"
    );
}
