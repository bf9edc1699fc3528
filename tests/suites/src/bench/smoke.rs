//! The benchmark itself, tested: what it counts, never what it times.

use anyhow::{Context, Result, ensure};

use super::case::{Case, Residents};
use super::contest::{Contest, Task};
use super::fanout::Fanout;
use super::play::VOLLEY;
use super::row::{Figures, Row};
use super::setup::{Collector, Setup};

use crate::runner::Suite;
use crate::scene::Pairing;
use dmuc_testkit::Kind;

const TASKS: &[Task] =
    &[(Case::Message, 6), (Case::Presence, 6), (Case::JoinsHistory, 6), (Case::Mixed, 6)];

const LIMITED: &[Task] = &[(Case::Limits, 6)];

const SPREAD: &[Task] = &[(Case::Message, 12)];

/// So that the six need two lists.
const ADDRESSES: u16 = 4;

/// Messages to all in the day of [`Case::Mixed`].
const DAILY_MESSAGES: u64 = 60;

/// Members of a row's side, by the names that scripts read.
const MEMBERS: &[&str] = &[
    "delivered",
    "primary_cpu_us_per_copy",
    "last_p50_ms",
    "last_p99_ms",
    "primary_rss_bytes",
    "replica_rss_bytes",
];

/// The same of what crosses a link, where there is one.
const OF_A_LINK: &[&str] = &["link_stanzas", "link_bytes", "link_xml_bytes"];

/// Each server in each role, each way to fan out, each kind of residents and collector, one
/// domain and several.
pub fn suite() -> Suite {
    use Kind::{Ejabberd, Prosody};
    let usual = Setup::default();
    let lists = Setup { addresses: Some(ADDRESSES), ..usual };
    let local = Setup { local: true, ..lists };
    let incremental = Setup { collector: Some(Collector::Incremental), ..usual };
    let third = Setup {
        residents: Residents::Third,
        collector: Some(Collector::Generational),
        local: true,
        ..usual
    };
    let limited = Setup { stock_limits: true, ..usual };
    let spread = Setup { spread: 3, ..usual };
    [
        ("rows", Ejabberd, Ejabberd, local, TASKS),
        ("rows", Ejabberd, Prosody, incremental, TASKS),
        ("rows", Prosody, Ejabberd, third, TASKS),
        ("spread", Ejabberd, Ejabberd, spread, SPREAD),
        ("spread", Prosody, Prosody, spread, SPREAD),
        ("limits", Ejabberd, Ejabberd, limited, LIMITED),
        ("limits", Prosody, Prosody, limited, LIMITED),
    ]
    .into_iter()
    .fold(Suite::new("bench"), |suite, (name, primary, replica, setup, tasks)| {
        let pairing = Pairing { primary, replica };
        suite.case(format!("{pairing} {name}"), move || run(pairing, setup, tasks))
    })
}

async fn run(pairing: Pairing, setup: Setup, tasks: &[Task]) -> Result<()> {
    let rows = Contest::counted(pairing, setup, tasks).await?.timed(1).await?;
    ensure!(rows.len() == tasks.len(), "{} rows", rows.len());
    for (row, &(case, k)) in rows.iter().zip(tasks) {
        check(row, setup, case, k).with_context(|| format!("{row:?}"))?;
    }
    Ok(())
}

fn check(row: &Row, setup: Setup, case: Case, k: usize) -> Result<()> {
    let json = serde_json::to_value(row)?;
    let ejabberds = [&row.primary, &row.replica].iter().all(|kind| **kind == "ejabberd");
    let fanouts: Vec<Fanout> = row.sides().map(|(fanout, _)| fanout).collect();
    let expected = match case.is_storm() {
        false if ejabberds => &[Fanout::Plain, Fanout::Xep0033, Fanout::Dmuc][..],
        true if setup.local => &[Fanout::Plain, Fanout::Dmuc, Fanout::Local],
        _ => &[Fanout::Plain, Fanout::Dmuc],
    };
    ensure!(fanouts == expected, "sides {fanouts:?}");
    for fanout in fanouts {
        let side = &*fanout.to_string();
        let has = |member: &str| json[side][member].as_f64().is_some_and(|value| value > 0.0);
        let linked = fanout != Fanout::Local;
        for member in MEMBERS {
            ensure!(has(member), "{side} has no {member}");
        }
        for member in OF_A_LINK {
            ensure!(has(member) == linked, "{side}: {member}");
        }
        // A server that nobody is at does next to nothing.
        ensure!(!linked || has("replica_cpu_us_per_copy"), "{side} has no time of the replica");
        let later = json[side]["link_bytes_per_later_joiner"].as_u64();
        ensure!(later.is_some() == case.is_storm(), "{side}: {later:?} for each later joiner");
    }
    ensure!(json["case"] == case.name() && json["k"] == k, "another row");
    ensure!(json["residents"] == setup.residents.name(), "other residents");
    if let Some(collector) = setup.collector {
        ensure!(json["prosody_gc"] == collector.name(), "another collector");
    }
    let (plain, dmuc) = (&row.plain, &row.dmuc);
    let expected = copies(row, case, k as u64);
    for (fanout, Figures { delivered, .. }) in row.sides() {
        match expected {
            Some(expected) => ensure!(
                *delivered == expected,
                "{fanout}: {delivered} delivered, {expected} expected"
            ),
            None => ensure!(*delivered == plain.delivered, "{fanout}: {delivered} delivered"),
        }
    }
    if let Some(Figures { link_stanzas, .. }) = row.xep0033 {
        // As many to each domain.
        let (domains, most) = (u64::from(setup.spread), setup.addresses.unwrap_or(20));
        let lists = domains * (k as u64 / domains).div_ceil(most.into());
        let exactly = |stanzas| stanzas..=stanzas;
        let expected = match case {
            Case::Message => exactly(lists * u64::from(Case::broadcasts(k, setup.quick))),
            Case::Limits => exactly(lists * VOLLEY as u64),
            Case::Mixed => {
                // While a guest is there, he is in the last list.
                let saved = k as u64 - lists;
                plain.link_stanzas - DAILY_MESSAGES * (saved + 1)
                    ..=plain.link_stanzas - DAILY_MESSAGES * saved
            }
            _ => exactly(plain.link_stanzas),
        };
        ensure!(expected.contains(&link_stanzas), "{link_stanzas} stanzas, not {expected:?}");
    }
    if case == Case::Message {
        let envelopes = u64::from(setup.spread) * u64::from(Case::broadcasts(k, setup.quick));
        let links = dmuc.link_stanzas;
        ensure!(links >= envelopes, "{links} stanzas with dmuc, and {envelopes} envelopes");
    }
    // What the room says, and the joins that it hears.
    let least = expected.unwrap_or(k as u64 * 90);
    ensure!(plain.link_stanzas >= least, "{} stanzas for {least}", plain.link_stanzas);
    ensure!(dmuc.link_stanzas < plain.link_stanzas, "no fewer stanzas than plain");
    ensure!(dmuc.link_bytes < plain.link_bytes, "no fewer bytes than plain");
    Ok(())
}

/// Stanzas for the remote users. What the guests of a day get is left to the servers.
fn copies(row: &Row, case: Case, k: u64) -> Option<u64> {
    match case {
        Case::Message | Case::Presence => Some(k * u64::from(Case::broadcasts(k as usize, false))),
        Case::Limits => Some(k * VOLLEY as u64),
        Case::Mixed => None,
        Case::Joins | Case::JoinsHistory | Case::JoinsBurst => {
            // To each: the owner and the residents, those before him, himself, the subject, what
            // was said; and he is shown to those before him. A room of ejabberd also tells of
            // itself (XEP-0115).
            let before = k * (k - 1) / 2;
            let room = u64::from(row.primary == Kind::Ejabberd.to_string());
            Some(k * (k + 1 + 1 + 1 + room + case.history() as u64) + 2 * before)
        }
    }
}
