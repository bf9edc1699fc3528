//! The benchmark itself, tested: what it counts, never what it times.

use anyhow::{Context, Result, ensure};

use super::case::{Case, Residents};
use super::contest::{Contest, Task};
use super::fanout::Fanout;
use super::row::{Figures, Row};

use crate::runner::Suite;
use crate::scene::Pairing;
use dmuc_testkit::Kind;

const TASKS: &[Task] = &[(Case::Message, 6), (Case::Presence, 6), (Case::JoinsHistory, 6)];

/// Members of a row's side, by the names that scripts read.
const MEMBERS: &[&str] = &[
    "link_stanzas",
    "link_bytes",
    "link_xml_bytes",
    "delivered",
    "primary_cpu_us_per_copy",
    "replica_cpu_us_per_copy",
    "last_p50_ms",
    "last_p99_ms",
    "primary_rss_bytes",
    "replica_rss_bytes",
];

/// Each server in each role, each way to fan out, and each kind of residents.
pub fn suite() -> Suite {
    let pairing = |primary, replica| Pairing { primary, replica };
    [
        (pairing(Kind::Ejabberd, Kind::Ejabberd), Residents::Local),
        (pairing(Kind::Ejabberd, Kind::Prosody), Residents::Local),
        (pairing(Kind::Prosody, Kind::Ejabberd), Residents::Third),
    ]
    .into_iter()
    .fold(Suite::new("bench"), |suite, (pairing, residents)| {
        suite.case(format!("{pairing} rows"), move || run(pairing, residents))
    })
}

async fn run(pairing: Pairing, residents: Residents) -> Result<()> {
    let rows = Contest::counted(pairing, residents, TASKS).await?.timed(1).await?;
    ensure!(rows.len() == TASKS.len(), "{} rows", rows.len());
    for (row, &(case, k)) in rows.iter().zip(TASKS) {
        check(row, residents, case, k).with_context(|| format!("{row:?}"))?;
    }
    Ok(())
}

fn check(row: &Row, residents: Residents, case: Case, k: usize) -> Result<()> {
    let json = serde_json::to_value(row)?;
    let ejabberds = [&row.primary, &row.replica].iter().all(|kind| **kind == "ejabberd");
    let fanouts: Vec<Fanout> = row.sides().map(|(fanout, _)| fanout).collect();
    let expected = match ejabberds && !case.is_storm() {
        true => &[Fanout::Plain, Fanout::Xep0033, Fanout::Dmuc][..],
        false => &[Fanout::Plain, Fanout::Dmuc],
    };
    ensure!(fanouts == expected, "sides {fanouts:?}");
    for side in fanouts.iter().map(Fanout::to_string) {
        let side = &*side;
        for member in MEMBERS {
            let value = json[side][member].as_f64();
            ensure!(value.is_some_and(|value| value > 0.0), "{side} has no {member}");
        }
        let later = json[side]["link_bytes_per_later_joiner"].as_u64();
        ensure!(later.is_some() == case.is_storm(), "{side}: {later:?} for each later joiner");
    }
    ensure!(json["case"] == case.name() && json["k"] == k, "another row");
    ensure!(json["residents"] == residents.name(), "other residents");
    let (plain, dmuc) = (&row.plain, &row.dmuc);
    let expected = copies(row, case, k as u64);
    for (fanout, Figures { delivered, .. }) in row.sides() {
        ensure!(*delivered == expected, "{fanout}: {delivered} delivered, {expected} expected");
    }
    if let Some(Figures { link_stanzas, .. }) = row.xep0033 {
        // All of so few fit into one list.
        let expected = match case {
            Case::Message => u64::from(Case::broadcasts(k)),
            _ => expected,
        };
        ensure!(link_stanzas == expected, "{link_stanzas} stanzas with XEP-0033, not {expected}");
    }
    // What the room says, and the joins that it hears.
    ensure!(plain.link_stanzas >= expected, "{} stanzas for {expected}", plain.link_stanzas);
    ensure!(dmuc.link_stanzas < plain.link_stanzas, "no fewer stanzas than plain");
    ensure!(dmuc.link_bytes < plain.link_bytes, "no fewer bytes than plain");
    Ok(())
}

/// Stanzas for the remote users.
fn copies(row: &Row, case: Case, k: u64) -> u64 {
    if !case.is_storm() {
        return k * u64::from(Case::broadcasts(k as usize));
    }
    // To each: the owner and the residents, those before him, himself, the subject, what was said;
    // and he is shown to those before him. A room of ejabberd also tells of itself (XEP-0115).
    let before = k * (k - 1) / 2;
    let room = u64::from(row.primary == Kind::Ejabberd.to_string());
    k * (k + 1 + 1 + 1 + room + case.history() as u64) + 2 * before
}
