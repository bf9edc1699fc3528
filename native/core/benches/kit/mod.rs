//! A room and a replica in a state worth measuring, and what a host does around the core.

use std::sync::Arc;

use divan::black_box;
use dmuc_core::{
    Action, Actions, Config, Element, Facts, Incoming, Millis, Payload, PayloadIn, Replica, Room,
    Shared, Verdict,
};

pub const ROOM: &str = "room@conference.a.test";
pub const NOW: Millis = Millis(1000);
pub const MESSAGE: Facts = Facts(Facts::MESSAGE | Facts::NICK);
pub const TO_ALL: Facts = Facts(Facts::MESSAGE | Facts::GROUPCHAT | Facts::NICK);
pub const PRESENCE: Facts = Facts(Facts::PRESENCE | Facts::NICK);
const ENTERED: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::CODE_110);
const LEFT: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::CODE_110 | Facts::UNAVAILABLE);
const GONE: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::UNAVAILABLE);

/// Events after which a replica acknowledges.
const ACK_EVERY: u32 = 32;

/// Children of a room with trees.
const FANOUT: usize = 16;

/// A room whose domains are all linked.
pub struct Primary {
    pub room: Room,
    pub sessions: Vec<String>,
    events: u32,
    stanzas: u128,
}

impl Primary {
    pub fn linked(occupants: usize, servers: usize) -> Self {
        Primary::with(occupants, servers, None)
    }

    /// The same with room trees, in which everybody has a place.
    pub fn grown(occupants: usize, servers: usize) -> Self {
        let mut primary = Primary::with(occupants, servers, Some(servers));
        let sessions = primary.sessions.clone();
        let to: Vec<&str> = sessions.iter().map(String::as_str).collect();
        primary.acknowledge();
        // The first goes to each, since each has just got an envelope.
        primary.broadcast(&to, TO_ALL);
        let actions = primary.broadcast(&to, TO_ALL);
        assert_eq!(actions.list.len(), FANOUT.min(servers), "by the tree");
        primary.acknowledge();
        primary
    }

    /// At a host where rooms may have trees, and too few servers for any.
    pub fn ungrown(occupants: usize, servers: usize) -> Self {
        Primary::with(occupants, servers, Some(servers + 1))
    }

    /// With trees from so many servers on.
    fn with(occupants: usize, servers: usize, trees: Option<usize>) -> Self {
        let options = [("tree_domains", trees.unwrap_or(0) as u64)];
        let mut room = Room::new(ROOM, 1, shared(&options)).expect("a room");
        if trees.is_some() {
            room.grow([7; 32]);
            room.may_show_domains(true);
        }
        let sessions: Vec<String> =
            (0..occupants).map(|n| format!("user{n}@s{}.test/r", n % servers)).collect();
        for session in &sessions {
            room.capture(NOW, session, ENTERED);
        }
        let mut linked = 0;
        for action in room.event(NOW, Vec::new(), &[]).list {
            let Action::AskSupport { domain } = action else { panic!("{action:?}") };
            for action in room.support(NOW, &domain, true).list {
                let Action::Setup { to, id, .. } = action else { panic!("{action:?}") };
                let answer = accept(&id).with_some("trees", trees.map(|_| FANOUT));
                room.setup_result(NOW, &to, &id, Some(&answer));
                linked += 1;
            }
        }
        assert_eq!(linked, servers, "every domain is linked");
        let mut primary = Primary { room, sessions, events: 0, stanzas: 0 };
        let sessions = primary.sessions.clone();
        let to: Vec<&str> = sessions.iter().map(String::as_str).collect();
        // Whoever was not in the set-up enters with the first event.
        primary.broadcast(&to, MESSAGE);
        primary
    }

    pub fn broadcast(&mut self, to: &[&str], facts: Facts) -> Actions {
        let held = self.room.capture_many(NOW, to, facts);
        assert!(held.iter().all(|held| *held), "a link for each");
        let copies: Vec<(&str, u32)> = to.iter().map(|to| (*to, 0)).collect();
        let message = payload(facts, self.fresh());
        self.event(vec![message], &copies)
    }

    pub fn join(&mut self, who: &str, others: &[&str]) {
        let list = u32::try_from(others.len()).expect("few");
        // The list is what it was for the one before.
        let mut stanzas: Vec<Stanza> = (0..list).map(|n| (PRESENCE, n.into())).collect();
        stanzas.extend([(PRESENCE, self.fresh()), (ENTERED, self.fresh())]);
        let mut copies: Vec<(&str, u32)> = (0..list).map(|n| (who, n)).collect();
        copies.extend(others.iter().map(|to| (*to, list)));
        copies.push((who, list + 1));
        let payloads = self.capture(&copies, &stanzas);
        black_box(self.event(payloads, &copies));
    }

    pub fn leave(&mut self, who: &str, others: &[&str]) {
        let stanzas = [(GONE, self.fresh()), (LEFT, self.fresh())];
        let mut copies: Vec<(&str, u32)> = others.iter().map(|to| (*to, 0)).collect();
        copies.push((who, 1));
        let payloads = self.capture(&copies, &stanzas);
        black_box(self.event(payloads, &copies));
    }

    /// As a host does it: what the core has is not handed over again.
    fn capture(&mut self, copies: &[(&str, u32)], stanzas: &[Stanza]) -> Vec<PayloadIn> {
        let mut payloads: Vec<Option<PayloadIn>> = stanzas.iter().map(|_| None).collect();
        for (to, token) in copies {
            let (facts, digest) = stanzas[*token as usize];
            assert_eq!(self.room.capture(NOW, to, facts), Verdict::Hold);
            payloads[*token as usize].get_or_insert_with(|| {
                match facts.is_lasting().then(|| self.room.recall(to, digest)).flatten() {
                    Some(id) => PayloadIn::Known(id),
                    None => payload(facts, digest),
                }
            });
        }
        payloads.into_iter().flatten().collect()
    }

    /// The digest of something that was never sent before.
    fn fresh(&mut self) -> u128 {
        self.stanzas += 1;
        1 << 64 | self.stanzas
    }

    /// An event, and from time to time what the replicas acknowledge.
    fn event(&mut self, payloads: Vec<PayloadIn>, copies: &[(&str, u32)]) -> Actions {
        let actions = self.room.event(NOW, payloads, copies);
        self.events += 1;
        if self.events.is_multiple_of(ACK_EVERY) {
            self.acknowledge();
        }
        actions
    }

    pub fn acknowledge(&mut self) {
        for (domain, report) in self.reports() {
            self.room.report(NOW, &domain, &report);
        }
    }

    /// What the replicas say when they have everything.
    pub fn reports(&self) -> Vec<(String, Element<Incoming>)> {
        let status = self.room.status().into_iter();
        let report = status.map(|status| {
            let epoch = status.epoch.expect("linked");
            let report = Element::new("report").with("epoch", epoch).with("ack", status.seq);
            (status.domain, report)
        });
        report.collect()
    }
}

pub fn linked_replica(occupants: usize) -> Replica {
    let mut replica = Replica::new("s0.test", 1, shared(&[]));
    let mut offer = Element::new("link")
        .with("epoch", "e")
        .with("stream", "s")
        .with("size", occupants)
        .with("hold", 10_000)
        .with("ping", 60_000)
        .with("max-bytes", 262_144);
    for n in 0..occupants {
        let session = format!("user{n}@s0.test/r");
        let join = Facts(Facts::PRESENCE | Facts::NICK | Facts::MUC_X);
        replica.outgoing(NOW, &session, &format!("{ROOM}/user{n}"), join);
        offer.children.push(Element::new("enter").with("i", n).with("jid", session));
    }
    let actions = replica.setup(NOW, ROOM, &offer);
    assert!(matches!(actions.list.last(), Some(Action::Result { .. })), "{:?}", actions.list);
    replica
}

fn shared(options: &[(&str, u64)]) -> Arc<Shared> {
    Shared::new(Config::from_pairs(options).expect("options"))
}

/// A replica's consent.
fn accept(epoch: &str) -> Element<Incoming> {
    Element::new("link")
        .with("epoch", epoch)
        .with("max-bytes", 262_144)
        .with("slots", 1_000_000)
        .with("slot-bytes", 1_u64 << 30)
}

pub fn carried(facts: Facts) -> Incoming {
    Incoming { facts, from: format!("{ROOM}/user0"), has_to: false, packed: None }
}

/// Facts and digest.
type Stanza = (Facts, u128);

fn payload(facts: Facts, digest: u128) -> PayloadIn {
    let bytes = format!("<message><body>{}</body></message>", "x".repeat(366)).into_bytes();
    PayloadIn::New { bytes, facts, nick: format!("user{digest}"), digest }
}

/// The XML of what goes out: how many bytes, all in all.
pub fn write(actions: &Actions) -> usize {
    let mut xml = Vec::new();
    for action in &actions.list {
        let Action::Envelope { to, id, body } = action else { panic!("{action:?}") };
        for part in ["<message type='normal' from='", ROOM, "' to='", to, "' id='", id, "'>"] {
            xml.extend_from_slice(part.as_bytes());
        }
        write_element(body, &mut xml);
        xml.extend_from_slice(b"</message>");
    }
    black_box(xml).len()
}

/// The names and values here need no entities.
fn write_element(element: &Element<Payload>, xml: &mut Vec<u8>) {
    for part in ["<", &element.name] {
        xml.extend_from_slice(part.as_bytes());
    }
    for (name, value) in &element.attrs {
        for part in [" ", name, "='", value, "'"] {
            xml.extend_from_slice(part.as_bytes());
        }
    }
    xml.push(b'>');
    element.children.iter().for_each(|child| write_element(child, xml));
    xml.extend_from_slice(element.payload.as_ref().map_or(&[], Payload::bytes));
    for part in ["</", &element.name, ">"] {
        xml.extend_from_slice(part.as_bytes());
    }
}
