//! The document that the page draws.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde_json::{Map, Value as Json, json};

use crate::view::{LinkRow, Value, overview};
use crate::{Millis, Shared, Spans, Traffic};

/// Rooms that are listed at most; a filter finds the others.
const ROOMS: usize = 200;
/// Domains of the chosen room that are told at most.
const LINKS: usize = 1000;
/// Longest filter.
const FILTER: usize = 200;

/// A host and its links.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Its name: a virtual host or a MUC service.
    pub host: &'a str,
    /// Its options and counters, or why dmuc is off there.
    pub shared: Result<&'a Shared, &'a str>,
    /// Its links.
    pub rows: &'a [LinkRow],
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<'a> {
    /// Bare JID of the room whose links are told.
    pub room: &'a str,
    /// Only rooms are listed that have this in their name, in that of a domain or in a state.
    pub filter: &'a str,
    /// Whether there is a page above this one, relative to it.
    pub above: Option<&'a str>,
}

pub(super) fn write(now: Millis, query: &Query<'_>, reports: &[Report<'_>]) -> Json {
    let active: Vec<&Shared> = reports.iter().filter_map(|report| report.shared.ok()).collect();
    for shared in &active {
        shared.sample(now);
    }
    let mut total = Traffic::default();
    for shared in &active {
        total += shared.traffic();
    }
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "above": query.above,
        "hosts": reports.iter().map(host).collect::<Vec<_>>(),
        "total": traffic(&total),
        "hour": history(now, &active, 1, 60),
        "day": history(now, &active, 15, 96),
        "rooms": rooms(query.filter, reports),
        "room": room(query.room, reports),
    })
}

fn host(report: &Report<'_>) -> Json {
    match report.shared {
        Ok(shared) => {
            let all: Map<String, Json> = overview(shared)
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect();
            json!({ "name": report.host, "about": all })
        }
        Err(reason) => json!({ "name": report.host, "off": reason }),
    }
}

/// `[carried, stanzas, carried_bytes, bytes]`.
fn traffic(traffic: &Traffic) -> Json {
    json!([traffic.carried, traffic.stanzas, traffic.carried_bytes, traffic.bytes])
}

/// The newest span last, of all hosts together.
fn history(now: Millis, hosts: &[&Shared], minutes: u64, most: usize) -> Json {
    let mut all = Spans::default();
    for shared in hosts {
        let spans = shared.spans(now, minutes, most);
        all.running = all.running.max(spans.running);
        all.spans.resize(all.spans.len().max(spans.spans.len()), Traffic::default());
        for (sum, span) in all.spans.iter_mut().zip(spans.spans) {
            *sum += span;
        }
    }
    let spans: Vec<Json> = all.spans.iter().rev().map(traffic).collect();
    json!({ "seconds": minutes * 60, "most": most, "running": all.running / 1000, "spans": spans })
}

/// What is told of a room in the list.
struct Room<'a> {
    host: &'a str,
    first: &'a LinkRow,
    /// Domains in each state, in order of appearance.
    states: Vec<(&'a str, u64)>,
    occupants: i64,
    saved: i64,
    saved_bytes: i64,
    found: bool,
}

/// Those that match, the most useful ones first, with their number and that of all.
fn rooms(filter: &str, reports: &[Report<'_>]) -> Json {
    let filter: String = filter.chars().take(FILTER).flat_map(char::to_lowercase).collect();
    let matches = |text: &str| filter.is_empty() || text.to_lowercase().contains(&filter);
    let mut all: Vec<Room<'_>> = Vec::new();
    let mut places: HashMap<(&str, &str), usize> = HashMap::new();
    for report in reports {
        for row in report.rows {
            let place = *places.entry((&row.room, &row.role)).or_insert_with(|| {
                let found = matches(&row.room);
                let (host, states) = (report.host, Vec::new());
                all.push(Room {
                    host,
                    first: row,
                    states,
                    found,
                    occupants: 0,
                    saved: 0,
                    saved_bytes: 0,
                });
                all.len() - 1
            });
            let room = &mut all[place];
            match room.states.iter_mut().find(|(state, _)| *state == row.state) {
                Some((_, count)) => *count += 1,
                None => room.states.push((&row.state, 1)),
            }
            room.occupants += row.occupants;
            room.saved = room.saved.saturating_add(row.saved);
            room.saved_bytes = room.saved_bytes.saturating_add(row.saved_bytes);
            room.found = room.found || matches(&row.peer) || matches(&row.state);
        }
    }
    let total = all.len();
    all.retain(|room| room.found);
    let found = all.len();
    all.sort_by_key(|room| (Reverse(room.saved), Reverse(room.occupants), &room.first.room));
    all.truncate(ROOMS);
    let list: Vec<Json> = all
        .iter()
        .map(|room| {
            json!({
                "room": room.first.room, "role": room.first.role, "host": room.host,
                "states": room.states, "occupants": room.occupants,
                "saved": room.saved, "saved_bytes": room.saved_bytes,
            })
        })
        .collect();
    json!({ "total": total, "found": found, "list": list })
}

/// The links of a room, those in trouble first and then those with most occupants.
fn room(name: &str, reports: &[Report<'_>]) -> Json {
    let of_host = |report: &Report<'_>| report.rows.iter().filter(|row| row.room == name).count();
    let Some(report) = reports.iter().find(|report| of_host(report) > 0) else { return Json::Null };
    let mut links: Vec<&LinkRow> = report.rows.iter().filter(|row| row.room == name).collect();
    links.sort_by_key(|row| (rank(&row.state), Reverse(row.occupants), &row.peer));
    let total = links.len();
    let occupants: i64 = links.iter().map(|row| row.occupants).sum();
    links.truncate(LINKS);
    json!({
        "room": name, "role": links[0].role, "host": report.host,
        "total": total, "occupants": occupants,
        "links": links.into_iter().map(link).collect::<Vec<_>>(),
    })
}

fn rank(state: &str) -> usize {
    let order = ["split", "silent", "draining", "setting up", "asking", "linked", "plain"];
    order.iter().position(|known| *known == state).unwrap_or(order.len())
}

/// A row by the names of its columns; what is not known is `null`.
fn link(row: &LinkRow) -> Json {
    let columns = LinkRow::COLUMNS.iter().zip(row.clone().values());
    let values = columns.map(|(column, value)| {
        let value = match value {
            Value::Number(-1) if column.partial => Json::Null,
            Value::Number(number) => number.into(),
            Value::Text(text) => text.into(),
        };
        (column.name.to_owned(), value)
    });
    values.collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Config, Counter};

    fn row(room: &str, peer: &str, state: &str, occupants: i64, saved: i64) -> LinkRow {
        LinkRow {
            role: "primary".to_owned(),
            room: room.to_owned(),
            peer: peer.to_owned(),
            state: state.to_owned(),
            occupants,
            saved,
            round_trip: -1,
            ..LinkRow::default()
        }
    }

    fn shared() -> Arc<Shared> {
        Shared::new(Config::default())
    }

    fn told(query: &Query<'_>, rows: &[LinkRow]) -> Json {
        let shared = shared();
        write(Millis(0), query, &[Report { host: "m.test", shared: Ok(&shared), rows }])
    }

    #[test]
    fn rooms_are_sorted_by_what_they_save() {
        let rows = [
            row("few@m.test", "b.test", "linked", 2, 10),
            row("many@m.test", "b.test", "linked", 3, 20),
            row("many@m.test", "c.test", "plain", 1, 0),
        ];
        let told = told(&Query::default(), &rows);
        let rooms = &told["rooms"];
        assert_eq!((&rooms["total"], &rooms["found"]), (&json!(2), &json!(2)));
        let expected = json!({
            "room": "many@m.test", "role": "primary", "host": "m.test", "occupants": 4,
            "states": [["linked", 1], ["plain", 1]], "saved": 20, "saved_bytes": 0,
        });
        assert_eq!(rooms["list"][0], expected);
        assert_eq!(rooms["list"][1]["room"], "few@m.test");
        assert_eq!(told["room"], Json::Null);
    }

    #[test]
    fn a_filter_finds_names_domains_and_states() {
        let rows = [
            row("Halle@m.test", "b.test", "linked", 2, 0),
            row("other@m.test", "far.test", "split", 2, 0),
        ];
        for (filter, found) in
            [("HALLE", "Halle@m.test"), ("Far", "other@m.test"), ("split", "other@m.test")]
        {
            let rooms = &told(&Query { filter, ..Query::default() }, &rows)["rooms"];
            assert_eq!((&rooms["total"], &rooms["found"]), (&json!(2), &json!(1)), "{filter}");
            assert_eq!(rooms["list"][0]["room"], found);
        }
    }

    #[test]
    fn a_room_has_those_in_trouble_first() {
        let rows = [
            row("r@m.test", "plain.test", "plain", 9, 0),
            row("r@m.test", "few.test", "linked", 2, 5),
            row("r@m.test", "many.test", "linked", 7, 5),
            row("r@m.test", "cut.test", "split", 2, 5),
            row("other@m.test", "b.test", "linked", 2, 5),
        ];
        let room = &told(&Query { room: "r@m.test", ..Query::default() }, &rows)["room"];
        let links = room["links"].as_array().expect("links");
        let peers: Vec<_> = links.iter().map(|link| link["peer"].as_str().expect("text")).collect();
        assert_eq!(peers, ["cut.test", "many.test", "few.test", "plain.test"]);
        assert_eq!((&room["total"], &room["occupants"]), (&json!(4), &json!(20)));
        assert_eq!(links[0]["round_trip"], Json::Null);
        assert_eq!(links[0].as_object().expect("values").len(), LinkRow::COLUMNS.len());
    }

    #[test]
    fn a_document_is_bounded_and_stays_text() {
        let name = |n| format!("{n}\"<script>alert(1)</script>\u{202e}@m.test");
        let mut rows: Vec<_> = (0..5000).map(|n| row(&name(n), "b.test", "linked", 2, n)).collect();
        rows.extend((0..5000).map(|n| row("big@m.test", &format!("d{n}.test"), "linked", 2, 1)));
        let filter = "<".repeat(100_000);
        let query = Query { room: "big@m.test", filter: "script", ..Query::default() };
        let response = super::super::document(Millis(0), &query, &[]);
        assert!(response.body.contains("\"list\":[]"));
        let document = told(&query, &rows);
        assert!(document.to_string().len() < 1_000_000);
        let rooms = document["rooms"]["list"].as_array().expect("rooms");
        assert_eq!((rooms.len(), &document["rooms"]["found"]), (ROOMS, &json!(5000)));
        assert_eq!(rooms[0]["room"], name(4999));
        assert_eq!(document["room"]["total"], 5000);
        assert_eq!(document["room"]["links"].as_array().expect("links").len(), LINKS);
        assert_eq!(told(&Query { filter: &filter, ..query }, &rows)["rooms"]["found"], 0);
    }

    #[test]
    fn hosts_are_added_up_and_one_may_be_off() {
        let (one, two) = (shared(), shared());
        let reports = |now| {
            let of = |host, shared| Report { host, shared, rows: &[] };
            let all = [of("a.test", Ok(&*one)), of("b.test", Ok(&*two)), of("c.test", Err("why"))];
            write(Millis(now), &Query::default(), &all)
        };
        reports(0);
        one.counters.add(Counter::CopiesCarried, 40);
        two.counters.add(Counter::CopiesDelivered, 2);
        two.counters.add(Counter::EnvelopesReceived, 1);
        let told = reports(61_000);
        assert_eq!(told["total"], json!([42, 1, 0, 0]));
        assert_eq!(told["hour"]["spans"], json!([[42, 1, 0, 0], [0, 0, 0, 0]]));
        assert_eq!((&told["hour"]["running"], &told["hour"]["seconds"]), (&json!(1), &json!(60)));
        assert_eq!(told["day"]["spans"], json!([[42, 1, 0, 0]]));
        assert_eq!(told["hosts"][2], json!({ "name": "c.test", "off": "why" }));
        assert_eq!(told["hosts"][0]["about"]["options"], "defaults");
    }
}
