//! The readers: what is read is written as it is read, and nothing else happens.

use dmuc_core::consent::{Change, Consents, Most};
use dmuc_core::{Element, Facts, Incoming, Millis, is_envelope_id, jid, readers};

use crate::invent;
use crate::script::Script;

const ROOM: &str = "room@conference.a.test";
const SESSION: &str = "u@b.test/r";

/// The first byte says which.
pub fn run(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    match which % 4 {
        0 => {
            let mut script = Script::new(rest);
            let bound = script.word();
            texts(&String::from_utf8_lossy(script.all()), bound);
        }
        1 => consent(rest),
        _ => {
            let mut script = Script::new(rest);
            let bound = script.below(16) as u32;
            readers::elements(&element(&mut script, 0), bound);
        }
    }
}

fn texts(text: &str, bound: u32) {
    // A set may be as large as its bound, which is that of an audience.
    readers::texts(text, bound % 50_000);
    let _ = is_envelope_id(text);
    let (bare, domain) = (jid::bare(text), jid::domain(text));
    assert!(bare.contains(domain) && text.starts_with(bare));
    assert!(!jid::is_room(text) || jid::bare(text) == text);
    assert!(!(jid::is_room(text) && jid::is_session(text)));
}

/// Any element of the vocabulary, or none.
fn element(script: &mut Script<'_>, depth: usize) -> Element<Incoming> {
    const NAMES: &[&str] = &[
        "link", "report", "cast", "only", "enter", "leave", "class", "replay", "drop", "end",
        "refuse", "dropped", "bye", "envelope", "other", "resume", "ask",
    ];
    const ATTRIBUTES: &[&str] = &[
        "epoch",
        "stream",
        "size",
        "hold",
        "ping",
        "max-bytes",
        "slots",
        "slot-bytes",
        "ack",
        "n",
        "i",
        "seq",
        "jid",
        "class",
        "except",
        "slot",
        "reason",
    ];
    let mut element = Element::new(script.of::<&str>(NAMES));
    // All that some reader wants, then some that are otherwise.
    for name in ATTRIBUTES {
        if script.once_in(16) {
            continue;
        }
        let value = match (*name, &*element.name) {
            ("slots", "link") => invent::number(script, 5),
            ("i", "only" | "replay" | "refuse") | ("except", _) => invent::indexes(script, 16),
            ("slots", _) => invent::slots(script),
            ("class", "cast" | "enter") if script.once_in(2) => continue,
            ("class", _) => invent::class(script),
            ("epoch" | "stream", _) => ["e1", "e2", ""][script.below(3)].to_owned(),
            ("jid", _) => [SESSION, "b.test", ""][script.below(3)].to_owned(),
            ("reason", _) => ["missing", "other", "gone"][script.below(3)].to_owned(),
            _ => invent::number(script, 5),
        };
        element.attrs.push(((*name).to_owned(), value));
    }
    if matches!(&*element.name, "cast" | "only") != script.once_in(16) {
        element.payload = Some(invent::payload(script, ROOM, "", 1));
    } else if depth == 0 {
        for _ in 0..script.below(6) {
            element.children.push(self::element(script, depth + 1));
        }
    }
    element
}

/// A record of consent that somebody made up, and what then happens to it.
fn consent(data: &[u8]) {
    let (at, rest) = data.split_first().unwrap_or((&0, &[]));
    let (record, steps) = rest.split_at(usize::from(*at).min(rest.len()));
    let record = String::from_utf8_lossy(record);
    let mut consents = Consents::default();
    if consents.import(Millis(1), ROOM, SESSION, &record) {
        let written = consents.export(ROOM, SESSION).expect("imported");
        assert!(consents.import(Millis(1), ROOM, SESSION, &written), "{written:?}");
        assert_eq!(consents.export(ROOM, SESSION), Some(written));
    } else {
        assert_eq!(consents.export(ROOM, SESSION), None);
    }
    let mut script = Script::new(steps);
    let mut now = 1;
    let most = Most { in_all: 2, of_session: 1 };
    let to = format!("{ROOM}/nick");
    while script.goes_on() {
        let before = consents.export(ROOM, SESSION);
        let change = match script.below(4) {
            0 => consents.incoming(SESSION, &to, invent::facts(&mut script)),
            1 => {
                now += u64::from(script.byte());
                consents.expire(Millis(now), 500);
                assert!(consents.next_expiry(500).is_none_or(|at| at > Millis(now)));
                continue;
            }
            _ => {
                let facts = *script.of(&[
                    Facts(Facts::PRESENCE | Facts::NICK | Facts::MUC_X),
                    Facts(Facts::PRESENCE | Facts::NICK | Facts::UNAVAILABLE),
                ]);
                consents.outgoing(Millis(now), SESSION, &to, facts, most)
            }
        };
        let after = consents.export(ROOM, SESSION);
        let is_so = match change {
            Change::None | Change::Full => before == after,
            Change::Changed => after.is_some(),
            Change::Closed => before.is_some() && after.is_none(),
        };
        assert!(is_so, "{before:?} {change:?} {after:?}");
    }
    let records = consents.iter().count();
    assert_eq!(consents.session_closed(SESSION).len(), records);
    assert_eq!(consents.iter().count(), 0);
}
