//! What the core costs, by occupants and servers of a room: `cargo bench --package dmuc-core`.
//!
//! The columns of allocations are per call; `fill` shows by them what a room keeps.

use std::sync::Arc;

use divan::{AllocProfiler, Bencher, black_box};
use dmuc_core::{
    Action, Actions, Config, Element, Facts, Incoming, Millis, PayloadIn, Replica, Room, Shared,
    Verdict,
};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const ROOM: &str = "room@conference.a.test";
const NOW: Millis = Millis(1000);
const MESSAGE: Facts = Facts(Facts::MESSAGE | Facts::NICK);
const PRESENCE: Facts = Facts(Facts::PRESENCE | Facts::NICK);
const ENTERED: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::CODE_110);
const LEFT: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::CODE_110 | Facts::UNAVAILABLE);
const GONE: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::UNAVAILABLE);

/// Occupants, and servers that they are spread over.
const SIZES: &[(usize, usize)] =
    &[(100, 5), (1000, 5), (1000, 50), (10_000, 5), (10_000, 50), (10_000, 500), (10_000, 5000)];

/// Occupants of one replica.
const AUDIENCES: &[usize] = &[2, 20, 200, 2000, 10_000];

/// Events after which a replica acknowledges.
const ACK_EVERY: u32 = 32;

fn main() {
    divan::main();
}

/// One message to everybody.
#[divan::bench(args = SIZES)]
fn message(bencher: Bencher<'_, '_>, (occupants, servers): (usize, usize)) {
    let mut primary = Primary::linked(occupants, servers);
    let sessions = primary.sessions.clone();
    let to: Vec<&str> = sessions.iter().map(String::as_str).collect();
    bencher.counter(occupants).bench_local(|| primary.broadcast(&to, MESSAGE));
}

/// A join, with the list of occupants and the others' presences, and a leave.
#[divan::bench(args = SIZES)]
fn join_leave(bencher: Bencher<'_, '_>, (occupants, servers): (usize, usize)) {
    let mut primary = Primary::linked(occupants, servers);
    let sessions = primary.sessions.clone();
    let to: Vec<&str> = sessions.iter().map(String::as_str).collect();
    bencher.counter(occupants).bench_local(|| {
        primary.join("late@s0.test/r", &to);
        primary.leave("late@s0.test/r", &to);
    });
}

/// A room from nobody to linked with all servers.
#[divan::bench(args = SIZES)]
fn fill(bencher: Bencher<'_, '_>, (occupants, servers): (usize, usize)) {
    bencher.counter(occupants).bench_local(|| Primary::linked(occupants, servers));
}

/// An envelope with one message, read and carried out by a replica.
#[divan::bench(args = AUDIENCES)]
fn deliver(bencher: Bencher<'_, '_>, occupants: usize) {
    let mut replica = linked_replica(occupants);
    let mut seq = 0;
    bencher.counter(occupants).bench_local(|| {
        seq += 1;
        let mut cast = Element::new("cast").with("n", seq);
        cast.payload = Some(carried(MESSAGE));
        let mut envelope = Element::new("envelope").with("epoch", "e").with("seq", seq);
        envelope.children.push(cast);
        let actions = replica.envelope(NOW, ROOM, &format!("dmuc-e.{seq}"), &envelope);
        assert!(matches!(&actions.list[0], Action::Deliver { to, .. } if to.len() == occupants));
        actions
    });
}

/// Rooms, and occupants of each at one server.
const ROOMS: &[(usize, usize)] = &[(1, 500), (1, 5000), (200, 100)];

/// What primaries keep of rooms whose replica holds the list: see the most that is allocated.
#[divan::bench(args = ROOMS, sample_count = 3)]
fn keep_primary((rooms, occupants): (usize, usize)) -> Vec<Room> {
    let rooms = (0..rooms).map(|_| {
        let mut primary = Primary::linked(occupants, 1);
        let sessions = primary.sessions.clone();
        let to: Vec<&str> = sessions.iter().map(String::as_str).collect();
        primary.join("late@s0.test/r", &to);
        primary.acknowledge();
        primary.room
    });
    rooms.collect()
}

/// What a replica keeps of such rooms, with stanzas of 670 bytes.
#[divan::bench(args = ROOMS, sample_count = 3)]
fn keep_replica((rooms, occupants): (usize, usize)) -> Vec<Replica> {
    let rooms = (0..rooms).map(|_| {
        let mut replica = linked_replica(occupants);
        for first in (0..occupants).step_by(400) {
            let mut envelope = Element::new("envelope").with("epoch", "e");
            envelope = envelope.with("seq", first / 400 + 1);
            envelope.children.extend((first..occupants.min(first + 400)).map(|n| {
                let mut only = Element::new("only").with("i", 0).with("slot", n + 1);
                let packed = Some(vec![b'x'; 670].into());
                only.payload = Some(Incoming { packed, ..carried(PRESENCE) });
                only
            }));
            let actions = replica.envelope(NOW, ROOM, "dmuc-e.1", &envelope);
            assert!(matches!(actions.list[0], Action::Deliver { .. }));
        }
        replica
    });
    rooms.collect()
}

/// A room whose domains are all linked.
struct Primary {
    room: Room,
    sessions: Vec<String>,
    events: u32,
    stanzas: u128,
}

impl Primary {
    fn linked(occupants: usize, servers: usize) -> Self {
        let mut room = Room::new(ROOM, 1, shared()).expect("a room");
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
                let answer = accept(&id);
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

    fn broadcast(&mut self, to: &[&str], facts: Facts) -> Actions {
        let held = self.room.capture_many(NOW, to, facts);
        assert!(held.iter().all(|held| *held), "a link for each");
        let copies: Vec<(&str, u32)> = to.iter().map(|to| (*to, 0)).collect();
        let message = payload(facts, self.fresh());
        self.event(vec![message], &copies)
    }

    fn join(&mut self, who: &str, others: &[&str]) {
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

    fn leave(&mut self, who: &str, others: &[&str]) {
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

    fn acknowledge(&mut self) {
        for status in self.room.status() {
            let epoch = status.epoch.expect("linked");
            let report = Element::new("report").with("epoch", epoch).with("ack", status.seq);
            self.room.report(NOW, &status.domain, &report);
        }
    }
}

fn linked_replica(occupants: usize) -> Replica {
    let mut replica = Replica::new("s0.test", 1, shared());
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

fn shared() -> Arc<Shared> {
    Shared::new(Config::from_pairs(&[]).expect("defaults"))
}

/// A replica's consent.
fn accept(epoch: &str) -> Element<Incoming> {
    Element::new("link")
        .with("epoch", epoch)
        .with("max-bytes", 262_144)
        .with("slots", 1_000_000)
        .with("slot-bytes", 1_u64 << 30)
}

fn carried(facts: Facts) -> Incoming {
    Incoming { facts, from: format!("{ROOM}/user0"), has_to: false, packed: None }
}

/// Facts and digest.
type Stanza = (Facts, u128);

fn payload(facts: Facts, digest: u128) -> PayloadIn {
    PayloadIn::New { bytes: vec![b'x'; 400], facts, nick: format!("user{digest}"), digest }
}
