//! A second reader: everything that the core writes is read by types made from the schema in
//! `docs/protocol.md`, which take no unknown attribute and no unknown element.

mod sim;

use std::collections::BTreeSet;

use dmuc_core::{Config, Element, Facts, NS, Payload};
use sim::wood::{session, wood};
use sim::{Down, Up, World};
use xmpp_parsers::jid::FullJid;
use xmpp_parsers::minidom;
use xso::{AsXml, FromXml};

const SCHEMA: &str = "urn:xmpp:tmp:dmuc:1";

#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = SCHEMA, name = "envelope")]
struct Envelope {
    #[xml(attribute(default))]
    refusals: Option<u64>,
    #[xml(attribute(default))]
    nth: Option<u64>,
    #[xml(attribute(default))]
    after: Option<String>,
    #[xml(attribute(default))]
    covers: Option<String>,
    #[xml(attribute(default))]
    full: Option<u8>,
    #[xml(child(n = ..))]
    ops: Vec<Op>,
}

#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = SCHEMA, exhaustive)]
enum Op {
    #[xml(name = "enter")]
    Enter {
        #[xml(attribute)]
        i: u32,
        #[xml(attribute)]
        jid: FullJid,
        #[xml(attribute(default))]
        class: Option<String>,
    },
    #[xml(name = "leave")]
    Leave {
        #[xml(attribute)]
        i: u32,
    },
    #[xml(name = "class")]
    Class {
        #[xml(attribute)]
        i: u32,
        #[xml(attribute)]
        class: String,
    },
    #[xml(name = "cast")]
    Cast {
        #[xml(attribute = "n")]
        number: u64,
        #[xml(attribute(default))]
        class: Option<String>,
        #[xml(attribute(default))]
        except: Option<String>,
        #[xml(attribute(default))]
        slot: Option<u64>,
        #[xml(element)]
        payload: minidom::Element,
    },
    #[xml(name = "only")]
    Only {
        #[xml(attribute)]
        i: String,
        #[xml(attribute(default))]
        slot: Option<u64>,
        #[xml(element)]
        payload: minidom::Element,
    },
    #[xml(name = "replay")]
    Replay {
        #[xml(attribute)]
        i: String,
        #[xml(attribute)]
        slots: String,
    },
    #[xml(name = "drop")]
    Drop {
        #[xml(attribute)]
        slots: String,
    },
    #[xml(name = "end")]
    End,
    #[xml(name = "stream")]
    Stream {
        #[xml(attribute)]
        name: String,
        #[xml(attribute)]
        key: String,
        #[xml(attribute)]
        secret: String,
        #[xml(attribute)]
        from: String,
        #[xml(attribute(default))]
        full: Option<u8>,
    },
    #[xml(name = "alone")]
    Alone,
    #[xml(name = "parent")]
    Parent {
        #[xml(attribute)]
        class: String,
        #[xml(attribute(default))]
        domain: Option<String>,
    },
    #[xml(name = "child")]
    Child {
        #[xml(attribute)]
        class: String,
        #[xml(attribute)]
        domain: String,
    },
    #[xml(name = "orphan")]
    Orphan {
        #[xml(attribute)]
        class: String,
        #[xml(attribute)]
        domain: String,
    },
}

#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = SCHEMA, name = "relayed")]
struct Relayed {
    #[xml(attribute)]
    room: String,
    #[xml(attribute)]
    stream: String,
    #[xml(attribute)]
    class: String,
    #[xml(attribute = "n")]
    number: u64,
    #[xml(attribute)]
    other: u64,
    #[xml(attribute(default))]
    only: Option<String>,
    #[xml(attribute(default))]
    tags: Option<String>,
    #[xml(attribute(default))]
    signature: Option<String>,
    #[xml(attribute(default))]
    nth: Option<u64>,
    #[xml(element)]
    payload: minidom::Element,
}

#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = SCHEMA, name = "newest")]
struct Newest {
    #[xml(attribute)]
    epoch: String,
    #[xml(attribute)]
    at: String,
    #[xml(attribute(default, name = "n"))]
    number: Option<u64>,
}

#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = SCHEMA, name = "resume")]
struct Resume {
    #[xml(attribute)]
    epoch: String,
    #[xml(attribute = "n")]
    number: u64,
}

#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = SCHEMA, name = "link")]
struct Offer {
    #[xml(attribute)]
    epoch: String,
    #[xml(attribute)]
    stream: String,
    #[xml(attribute)]
    size: u32,
    #[xml(attribute)]
    hold: u64,
    #[xml(attribute)]
    ping: u64,
    #[xml(attribute = "max-bytes")]
    max_bytes: u64,
    #[xml(child(n = ..))]
    audience: Vec<Op>,
}

#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = SCHEMA, name = "link")]
struct Accept {
    #[xml(attribute)]
    epoch: String,
    #[xml(attribute = "max-bytes")]
    max_bytes: u64,
    #[xml(attribute)]
    slots: u64,
    #[xml(attribute = "slot-bytes")]
    slot_bytes: u64,
    #[xml(attribute)]
    trees: u64,
    #[xml(child(n = ..))]
    refused: Vec<Unserved>,
}

#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = SCHEMA, name = "refuse")]
struct Unserved {
    #[xml(attribute)]
    i: String,
}

#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = SCHEMA, name = "report")]
struct Report {
    #[xml(attribute)]
    epoch: String,
    #[xml(attribute)]
    ack: u64,
    #[xml(attribute(default))]
    resume: Option<u64>,
    #[xml(child(n = ..))]
    said: Vec<Said>,
}

#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = SCHEMA, exhaustive)]
enum Said {
    #[xml(name = "refuse")]
    Refuse {
        #[xml(attribute = "n")]
        number: u64,
        #[xml(attribute)]
        seq: u64,
        #[xml(attribute)]
        i: u32,
        #[xml(attribute(default))]
        reason: Option<String>,
    },
    #[xml(name = "dropped")]
    Dropped {
        #[xml(attribute)]
        slots: String,
    },
    #[xml(name = "ask")]
    Ask,
    #[xml(name = "bye")]
    Bye,
    #[xml(name = "missing")]
    Missing {
        #[xml(attribute)]
        class: String,
        #[xml(attribute)]
        first: u64,
        #[xml(attribute)]
        last: u64,
    },
    #[xml(name = "complaint")]
    Complaint {
        #[xml(attribute)]
        class: String,
    },
}

#[derive(FromXml, AsXml, Debug)]
#[xml(namespace = SCHEMA, name = "announce")]
struct Announce;

/// As a host writes it.
fn xml(element: &Element<Payload>, top: bool) -> String {
    let mut text = format!("<{}", element.name);
    if top {
        text += &format!(" xmlns='{NS}'");
    }
    for (name, value) in &element.attrs {
        text += &format!(" {name}='{value}'");
    }
    text.push('>');
    for child in &element.children {
        text += &xml(child, false);
    }
    if let Some(payload) = &element.payload {
        let stanza = std::str::from_utf8(payload.bytes()).expect("text");
        text += &stanza.replacen("<message", "<message xmlns='jabber:client'", 1);
    }
    format!("{text}</{}>", element.name)
}

fn read<T: FromXml>(element: &Element<Payload>) -> T {
    let text = xml(element, true);
    xso::from_bytes(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A position in a room stream: two numbers.
fn is_position(text: &str) -> bool {
    text.split_once(' ').is_some_and(|(a, f)| a.parse::<u64>().is_ok() && f.parse::<u64>().is_ok())
}

fn is_class(text: &str) -> bool {
    ["anonymous", "full"].contains(&text)
}

/// So many bytes in hexadecimal digits, in lower case.
fn is_hex(text: &str, bytes: usize) -> bool {
    text.len() == 2 * bytes && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// What room trees say in an envelope.
fn read_part(op: &Op) -> &'static str {
    match op {
        Op::Stream { name, key, secret, from, full } => {
            assert!(!name.is_empty() && is_hex(key, 32) && is_hex(secret, 32) && is_position(from));
            assert!(full.is_none_or(|full| full == 1));
            "stream"
        }
        Op::Alone => "alone",
        Op::Parent { class, domain } => {
            assert!(is_class(class) && domain.as_ref().is_none_or(|name| name.ends_with(".test")));
            "parent"
        }
        Op::Child { class, domain } => {
            assert!(is_class(class) && domain.ends_with(".test"));
            "child"
        }
        Op::Orphan { class, domain } => {
            assert!(is_class(class) && domain.ends_with(".test"));
            "orphan"
        }
        _ => "",
    }
}

fn read_relayed(body: &Element<Payload>) -> &'static str {
    let relayed: Relayed = read(body);
    assert!(relayed.room == sim::ROOM && is_class(&relayed.class) && relayed.number > 0);
    assert!(relayed.only.is_none_or(|class| is_class(&class)) && !relayed.stream.is_empty());
    assert!(relayed.payload.is("message", "jabber:client"));
    let tags = relayed.tags.unwrap_or_default();
    assert!(tags.split(' ').all(|tag| tag.is_empty() || is_hex(tag, 16)), "{tags}");
    match (relayed.signature, relayed.nth) {
        (Some(signature), None) => {
            assert!(is_hex(&signature, 64));
            "signed"
        }
        (None, Some(_)) => "unsigned",
        other => panic!("{other:?}"),
    }
}

/// A list of slots as the schema has it.
fn is_list(slots: &str) -> bool {
    slots.split(' ').flat_map(|part| part.splitn(2, '-')).all(|slot| slot.parse::<u64>().is_ok())
}

/// Reads everything that is on its way; how many stanzas of dmuc that were. Notes the names of what the
/// day must have had.
fn read_all(world: &World, met: &mut BTreeSet<&'static str>) -> usize {
    let mut count = 0;
    for down in world.homes.iter().flat_map(|home| &home.down) {
        match down {
            Down::Envelope { id, body } if body.name == "resume" => {
                let resume: Resume = read(body);
                assert!(id.contains(&resume.epoch) && resume.number > 0);
                met.insert("resume");
            }
            Down::Envelope { body, .. } if body.name == "relayed" => {
                met.insert(read_relayed(body));
            }
            Down::Envelope { body, .. } if body.name == "newest" => {
                let Newest { epoch, at, number } = read(body);
                assert!(!epoch.is_empty() && is_position(&at));
                met.insert(if number.is_some_and(|n| n > 0) { "question" } else { "newest" });
            }
            Down::Envelope { id, body } => {
                let envelope: Envelope = read(body);
                if let Some(nth) = envelope.nth {
                    assert!(nth > 0 && is_position(&envelope.after.expect("a place")));
                    assert!(envelope.covers.is_none_or(|place| is_position(&place)));
                    assert!(envelope.full.is_none_or(|full| full < 2));
                }
                let (epoch, seq) = id.split_once('.').expect("epoch and number");
                assert!(epoch.len() == 11 && epoch.bytes().all(|b| b.is_ascii_alphanumeric()));
                assert!(seq.parse::<u64>().is_ok_and(|seq| seq > 0), "{id}");
                for op in envelope.ops {
                    match op {
                        Op::Cast { payload, .. } | Op::Only { payload, .. } => {
                            assert!(payload.is("message", "jabber:client"));
                        }
                        Op::Replay { slots, .. } => {
                            assert!(is_list(&slots), "{slots}");
                            met.insert("replay");
                        }
                        Op::Drop { slots } => {
                            assert!(is_list(&slots), "{slots}");
                            met.insert("drop");
                        }
                        part => {
                            met.insert(read_part(&part));
                        }
                    }
                }
            }
            Down::Setup { body, .. } => {
                let offer: Offer = read(body);
                assert!(offer.audience.iter().all(|op| matches!(op, Op::Enter { .. })));
                assert!(offer.audience.len() <= offer.size as usize);
            }
            Down::Plain { .. } | Down::Nothing { .. } => continue,
        }
        count += 1;
    }
    for up in world.homes.iter().flat_map(|home| &home.up) {
        match up {
            Up::Dmuc { body } if body.name == "announce" => {
                let Announce = read(body);
            }
            Up::Dmuc { body } => {
                let report: Report = read(body);
                if report.resume.is_some() {
                    met.insert("resumed");
                }
                for said in report.said {
                    match said {
                        Said::Refuse { reason: Some(reason), .. } => {
                            assert_eq!(reason, "missing");
                            met.insert("missing");
                        }
                        Said::Dropped { slots } => {
                            assert!(is_list(&slots), "{slots}");
                            met.insert("dropped");
                        }
                        Said::Ask => {
                            met.insert("ask");
                        }
                        Said::Missing { class, first, last } => {
                            assert!(is_class(&class) && 0 < first && first <= last);
                            met.insert("missing casts");
                        }
                        Said::Complaint { class } => {
                            assert!(is_class(&class));
                            met.insert("complaint");
                        }
                        _ => {}
                    }
                }
            }
            Up::Result { body: Some(body), .. } => {
                let accept: Accept = read(body);
                assert!(accept.slots > 0 && accept.slot_bytes > 0 || !accept.refused.is_empty());
            }
            _ => continue,
        }
        count += 1;
    }
    count
}

/// A cut, a primary that sleeps for too long, a server that is killed.
fn break_all(world: &mut World, met: &mut BTreeSet<&'static str>) {
    world.homes[0].join(world.now, "v0@b.test/r", "v0");
    world.homes[0].join(world.now, "v1@b.test/r", "v1");
    world.quiet();
    let copies = world.muc.say("v0@b.test/r");
    world.happen(copies);
    world.cut(0);
    read_all(world, met);
    while world.arrive_down(0) {
        read_all(world, met);
    }
    world.quiet();
    let later = world.now + 80_000;
    world.homes[0].pass(later);
    read_all(world, met);
    world.homes[0].crash(&["v0@b.test/r".to_owned(), "v1@b.test/r".to_owned()]);
    let copies = world.muc.say("v0@b.test/r");
    world.happen(copies);
    for _ in 0..100 {
        world.pass(1000);
        while world.arrive_down(0) {
            read_all(world, met);
        }
        while world.arrive_up(0) {}
    }
    // A link for the end.
    for n in 0..2 {
        world.homes[0].join(world.now, &format!("w{n}@b.test/r"), &format!("w{n}"));
    }
}

#[test]
fn everything_on_the_wire_is_of_the_schema() {
    let options = [
        ("retry_min", 1000),
        ("ack_every", 2),
        ("max_slots", 30),
        // The stanzas of the simulation have eight bytes each.
        ("max_slot_bytes_total", 8),
    ];
    let mut world = World::new(3, &["b.test", "c.test"], &options);
    let mut met = BTreeSet::new();
    let mut seen = 0;
    // A day in the life, every step looked at while its stanzas are on their way.
    for step in 0..200usize {
        let (home, user) = (step % 2, step % 5);
        let session = format!("u{user}@{}/r", world.homes[home].name);
        let now = world.now;
        match step % 23 {
            0..=6 => world.homes[home].join(now, &session, &format!("n{home}{user}")),
            7 => world.homes[home].leave(now, &session),
            8 => {
                if let Some(replica) = &mut world.homes[home].replica {
                    replica.import_consent(now, sim::ROOM, &session, None);
                }
            }
            9 => world.homes[home].unload(now),
            10 => world.homes[home].load(now),
            11 | 12 => {
                let copies = world.muc.toggle(&session);
                world.happen(copies);
            }
            13 | 14 => {
                let copies = world.muc.whisper(&session);
                world.happen(copies);
            }
            15 | 16 => {
                let copies = world.muc.away(&session);
                world.happen(copies);
            }
            _ => {
                let copies = world.muc.say(&session);
                world.happen(copies);
            }
        }
        seen += read_all(&world, &mut met);
        for home in 0..2 {
            for _ in 0..step % 7 {
                world.arrive_down(home);
                seen += read_all(&world, &mut met);
                world.arrive_up(home);
            }
        }
        world.pass(300);
    }
    assert!(seen > 300, "{seen}");
    world.quiet();
    assert_eq!(world.verdict(), Ok(()));
    break_all(&mut world, &mut met);
    world.quiet();
    world.unload_primary();
    assert!(read_all(&world, &mut met) > 0, "the links end");
    met.remove("");
    let all = ["ask", "drop", "dropped", "missing", "replay", "resume", "resumed"];
    assert_eq!(met.into_iter().collect::<Vec<_>>(), all);
    // The schema says what the constants say.
    assert_eq!(SCHEMA, NS);
    assert_eq!(Facts::default(), Facts(0));
}

#[test]
fn what_trees_say_is_of_the_schema() {
    let mut world = wood(1, &[]);
    let mut met = BTreeSet::new();
    for n in 0..12 {
        let (home, name) = session(n);
        world.homes[home].join(world.now, &name, &format!("n{n}"));
        wander(&mut world, &mut met);
    }
    world.homes[2].is_hostile = true;
    for n in 0..60u8 {
        let copies = match n % 7 {
            0 => world.muc.away(&session(n % 12).1),
            1 => world.muc.toggle(&session(n % 5).1),
            _ => world.muc.say(&session(n % 12).1),
        };
        world.happen(copies);
        read_all(&world, &mut met);
        for home in 0..world.homes.len() {
            // What others pass on is lost now and then.
            if n % 5 == 0 {
                world.homes[home].aside.clear();
            }
        }
        wander(&mut world, &mut met);
    }
    // Nobody answers.
    let copies = world.muc.say(&session(0).1);
    world.happen(copies);
    for _ in 0..24 {
        world.pass(500);
        read_all(&world, &mut met);
    }
    wander(&mut world, &mut met);
    // The room has no trees any more.
    world.shared.config.set(&Config { tree_domains: 0, ..world.shared.config.get() });
    let copies = world.muc.say(&session(0).1);
    world.happen(copies);
    wander(&mut world, &mut met);
    let all = [
        "alone",
        "child",
        "complaint",
        "missing casts",
        "newest",
        "orphan",
        "parent",
        "question",
        "resumed",
        "signed",
        "stream",
    ];
    assert!(all.iter().all(|name| met.contains(name)), "{met:?}");
}

/// Things arrive one after the other, and time goes by.
fn wander(world: &mut World, met: &mut BTreeSet<&'static str>) {
    for _ in 0..12 {
        for home in 0..world.homes.len() {
            while world.arrive_down(home) {
                read_all(world, met);
            }
            while world.arrive_aside(home, 0) {}
            while world.arrive_up(home) {
                read_all(world, met);
            }
        }
        world.pass(400);
        read_all(world, met);
    }
}
