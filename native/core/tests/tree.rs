//! Room trees: what a replica delivers is what the primary has sent it, in its order, whatever the
//! relays lose, repeat, delay, reorder, alter or invent.

use std::collections::VecDeque;
use std::sync::Arc;

use dmuc_core::tree::{
    Carried, Digest, Envelope, LinkKey, Merge, MergeLimits, Missing, Next, Node, NotTaken, Place,
    Position, Proof, RoomKey, RoomLock, RoomStream, Source, Spread, Stream, StreamLimits, Tag,
    Taken,
};
use dmuc_core::{Class, Millis};
use fastrand::Rng;
use proptest::prelude::*;

const ROOM: &str = "r@c.test";
const EPOCH: &str = "e1";
const SECRET: [u8; 32] = [1; 32];

/// What a replica delivers: a cast or an envelope, by its number in the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Cast(u64),
    Envelope(u64),
}

/// What crosses a direct link, which is first in, first out.
enum Direct {
    Envelope(Envelope<u64>),
    Cast(Carried<u64>),
    Heartbeat(Position),
}

struct End {
    merge: Merge<u64, u64>,
    seq: u64,
    has_full: bool,
    direct: VecDeque<Direct>,
    /// Whatever relays have of the stream, in no order.
    relayed: Vec<Carried<u64>>,
    asked: Vec<Vec<Missing>>,
    expected: Vec<Item>,
    delivered: Vec<Item>,
}

struct World {
    now: Millis,
    rng: Rng,
    stream: RoomStream<u64>,
    ends: Vec<End>,
    next: u64,
    /// Everything that was ever signed, for those who would like to use it again.
    seen: Vec<Carried<u64>>,
    /// Percent of the casts that no relay passes on.
    loss: u8,
}

fn digest(payload: u64) -> Digest {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&payload.to_be_bytes());
    digest
}

fn key(node: usize) -> LinkKey {
    LinkKey::new([node as u8 + 10; 32])
}

impl World {
    fn new(ends: usize, seed: u64, loss: u8, tags: usize, casts: usize) -> Self {
        let limits = StreamLimits { tags, casts: 1 << 20, ..StreamLimits::default() };
        let mut stream = RoomStream::new(ROOM, EPOCH, &SECRET, limits);
        let limits = MergeLimits { casts, ..MergeLimits::default() };
        let ends = (0..ends).map(|n| {
            let start = stream.join(Node(n as u32), key(n), 0, false);
            End {
                merge: Merge::new(
                    Stream { room: ROOM.into(), epoch: EPOCH.into() },
                    RoomLock::new(&stream.public()).expect("a key"),
                    key(n),
                    (0, start),
                    false,
                    limits,
                ),
                seq: 0,
                has_full: false,
                direct: VecDeque::new(),
                relayed: Vec::new(),
                asked: Vec::new(),
                expected: Vec::new(),
                delivered: Vec::new(),
            }
        });
        let ends = ends.collect();
        World {
            now: Millis(0),
            rng: Rng::with_seed(seed),
            stream,
            ends,
            next: 0,
            seen: Vec::new(),
            loss,
        }
    }

    fn envelope(&mut self, node: usize, has_full: Option<bool>, covers: Option<Class>) {
        let end = &mut self.ends[node];
        self.next += 1;
        end.seq += 1;
        let place: Place = match covers {
            Some(class) => self.stream.cover(Node(node as u32), end.seq, class),
            None => self.stream.envelope(Node(node as u32), end.seq, has_full),
        };
        end.has_full = has_full.unwrap_or(end.has_full);
        end.expected.push(Item::Envelope(self.next));
        let envelope = Envelope { seq: end.seq, place, has_full, content: self.next };
        end.direct.push_back(Direct::Envelope(envelope));
    }

    /// A cast, of which some replicas get something of their own.
    fn cast(&mut self, class: Class, covered: &[usize]) {
        let takes = |end: &End| class == Class::Anonymous || end.has_full;
        let covered: Vec<usize> =
            covered.iter().copied().filter(|node| takes(&self.ends[*node])).collect();
        for node in &covered {
            self.envelope(*node, None, Some(class));
        }
        self.next += 1;
        let payload = self.next;
        let spread = self.stream.cast(class, None, digest(payload), payload, 10);
        for (node, end) in self.ends.iter_mut().enumerate() {
            if takes(end) && !covered.contains(&node) {
                end.expected.push(Item::Cast(payload));
            }
        }
        match spread {
            Spread::Tree(carried) => {
                self.seen.push(carried.clone());
                for end in &mut self.ends {
                    for _ in 0..2 {
                        if self.rng.u8(..100) >= self.loss {
                            end.relayed.push(carried.clone());
                        }
                    }
                }
            }
            Spread::Each(each) => {
                for (node, carried) in each {
                    self.ends[node.0 as usize].direct.push_back(Direct::Cast(carried));
                }
            }
        }
    }

    /// Something comes to a replica, or an answer to the primary.
    fn happen(&mut self, node: usize) {
        let now = self.now;
        let end = &mut self.ends[node];
        if self.rng.bool() && !end.relayed.is_empty() {
            let at = self.rng.usize(..end.relayed.len());
            let carried = end.relayed.swap_remove(at);
            let taken = end.merge.cast(now, Source::Relay, carried);
            assert_ne!(taken, Taken::Forged, "an honest cast");
        } else if let Some(direct) = end.direct.pop_front() {
            match direct {
                Direct::Envelope(envelope) => {
                    assert_eq!(end.merge.envelope(now, envelope), Ok(()));
                }
                Direct::Cast(carried) => {
                    let taken = end.merge.cast(now, Source::Primary, carried);
                    assert_ne!(taken, Taken::Forged, "from the room itself");
                }
                Direct::Heartbeat(newest) => end.merge.heartbeat(now, newest),
            }
        }
        let missing = end.merge.ask(now);
        if !missing.is_empty() {
            end.asked.push(missing);
        }
        if let Some(missing) = end.asked.pop()
            && let Some(repair) = self.stream.repair(now, Node(node as u32), &missing)
        {
            assert!(!repair.is_lost);
            end.direct.extend(repair.casts.into_iter().map(Direct::Cast));
        }
        self.deliver(node);
    }

    /// What was delivered is at any moment the beginning of what the primary has sent: nothing too
    /// early, nothing twice, nothing that was not sent.
    fn deliver(&mut self, node: usize) {
        let end = &mut self.ends[node];
        while let Some(next) = end.merge.next(self.now) {
            let item = match next {
                Next::Cast(carried) => Item::Cast(carried.payload),
                Next::Envelope(content) => Item::Envelope(content),
            };
            assert_eq!(end.expected.get(end.delivered.len()), Some(&item), "replica {node}");
            end.delivered.push(item);
        }
    }

    fn settle(&mut self) {
        for _ in 0..2000 {
            self.now = self.now + 250;
            for node in 0..self.ends.len() {
                let newest = self.stream.newest();
                self.ends[node].direct.push_back(Direct::Heartbeat(newest));
                while !self.ends[node].direct.is_empty() || !self.ends[node].relayed.is_empty() {
                    self.happen(node);
                }
                self.happen(node);
            }
            if self.ends.iter().all(|end| end.delivered == end.expected) {
                return;
            }
        }
        let behind = self.ends.iter().map(|end| (end.delivered.len(), end.expected.len()));
        panic!("not everything is repaired: {:?}", behind.collect::<Vec<_>>());
    }

    /// A hostile relay makes something out of what it has seen.
    fn forge(&mut self, node: usize, kind: u8) {
        if self.seen.is_empty() {
            return;
        }
        let at = self.rng.usize(..self.seen.len());
        let mut carried = self.seen[at].clone();
        let next = self.stream.newest().get(carried.cast.class) + 1;
        match kind % 8 {
            // Alters the stanza, and may say another digest of it than it has: the replica computes it.
            0 => {
                carried.payload += 1_000_000;
                carried.cast.digest = digest(carried.payload);
            }
            // Sends an old one as a new one.
            1 => carried.cast.number = next,
            2 => carried.cast.class = other(carried.cast.class),
            3 => carried.cast.only = Some(Class::Full),
            4 => carried.cast.other += 1,
            // Takes the barriers out, or puts one in.
            5 => match &mut carried.proof {
                Proof::Signed { tags, .. } if tags.is_empty() => tags.push(Tag([7; 16])),
                Proof::Signed { tags, .. } => tags.clear(),
                Proof::Direct { .. } => unreachable!("not seen by relays"),
            },
            // Claims to be the room.
            6 => carried.proof = Proof::Direct { seq: 0 },
            // One of an old epoch that the same key has signed, under the name of this one.
            _ => {
                let mut old = RoomStream::new(ROOM, "e0", &SECRET, StreamLimits::default());
                let Spread::Tree(former) = old.cast(carried.cast.class, None, digest(666), 666, 10)
                else {
                    unreachable!("nobody is in it");
                };
                carried = former;
                let end = &mut self.ends[node];
                let taken = end.merge.cast(self.now, Source::Relay, carried.clone());
                assert_eq!(taken, Taken::Stale);
                carried.epoch = Arc::from(EPOCH);
            }
        }
        let taken = self.ends[node].merge.cast(self.now, Source::Relay, carried.clone());
        assert!(!matches!(taken, Taken::New | Taken::Ahead), "{taken:?}: {carried:?}");
        self.deliver(node);
    }
}

fn other(class: Class) -> Class {
    if class == Class::Full { Class::Anonymous } else { Class::Full }
}

#[derive(Clone, Debug)]
enum Step {
    Cast { full: bool, covered: Vec<usize> },
    Envelope(usize),
    Full(usize, bool),
    Happen(usize),
    Later(u64),
    Forge(usize, u8),
}

const ENDS: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (any::<bool>(), prop::collection::btree_set(0..ENDS, 0..3)).prop_map(
            |(full, covered)| Step::Cast { full, covered: covered.into_iter().collect() }),
        3 => (0..ENDS).prop_map(Step::Envelope),
        2 => (0..ENDS, any::<bool>()).prop_map(|(node, has)| Step::Full(node, has)),
        12 => (0..ENDS).prop_map(Step::Happen),
        2 => (1..400u64).prop_map(Step::Later),
        2 => (0..ENDS, any::<u8>()).prop_map(|(node, kind)| Step::Forge(node, kind)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_replica_delivers_in_the_order_of_the_primary(
        steps in prop::collection::vec(step(), 1..120),
        seed in any::<u64>(),
        loss in prop_oneof![Just(0u8), Just(10), Just(60), Just(100)],
        tags in prop_oneof![Just(0usize), Just(2), Just(64)],
        casts in prop_oneof![Just(1usize), Just(3), Just(1024)],
    ) {
        let mut world = World::new(ENDS, seed, loss, tags, casts);
        for step in steps {
            match step {
                Step::Cast { full, covered } => {
                    world.cast(if full { Class::Full } else { Class::Anonymous }, &covered);
                }
                Step::Envelope(node) => world.envelope(node, None, None),
                Step::Full(node, has) => world.envelope(node, Some(has), None),
                Step::Happen(node) => world.happen(node),
                Step::Later(ms) => world.now = world.now + ms,
                Step::Forge(node, kind) => world.forge(node, kind),
            }
        }
        world.settle();
    }
}

/// A room of one replica, nothing of which is on its way.
fn one() -> World {
    World::new(1, 7, 0, 64, 1024)
}

#[test]
fn a_banned_occupant_reads_nothing_that_was_said_after_it() {
    let mut world = one();
    world.cast(Class::Anonymous, &[]);
    world.settle();
    world.envelope(0, None, None);
    world.cast(Class::Anonymous, &[]);
    // The relay is fast and the direct link is slow.
    let carried = world.ends[0].relayed.pop().expect("a cast");
    let end = &mut world.ends[0];
    assert_eq!(end.merge.cast(world.now, Source::Relay, carried), Taken::New);
    assert!(end.merge.next(world.now).is_none(), "it waits for the ban");
    assert_eq!(end.merge.wake(), None, "which the direct link will bring by itself");
    world.settle();
}

#[test]
fn what_the_primary_does_for_one_replica_alone_takes_the_place_of_the_cast() {
    let mut world = one();
    world.cast(Class::Anonymous, &[0]);
    let carried = world.ends[0].relayed.pop().expect("a cast");
    let end = &mut world.ends[0];
    end.merge.cast(world.now, Source::Relay, carried);
    assert!(end.merge.next(world.now).is_none());
    world.settle();
    assert_eq!(world.ends[0].delivered.len(), 1);
    assert_eq!(world.ends[0].merge.done(), world.stream.newest());
}

#[test]
fn a_withheld_last_cast_is_asked_for_after_a_heartbeat() {
    let mut world = World::new(1, 7, 100, 64, 1024);
    world.cast(Class::Anonymous, &[]);
    let end = &mut world.ends[0];
    assert_eq!(end.merge.wake(), None);
    end.merge.heartbeat(Millis(1000), world.stream.newest());
    assert_eq!(end.merge.wake(), Some(Millis(1200)), "it may just be late");
    assert_eq!(end.merge.ask(Millis(1199)), []);
    let missing = [Missing { class: Class::Anonymous, first: 1, last: 1 }];
    assert_eq!(end.merge.ask(Millis(1200)), missing);
    assert_eq!(end.merge.ask(Millis(1500)), [], "not at once again");
    assert_eq!(end.merge.ask(Millis(1600)), missing);
}

#[test]
fn a_domain_that_is_not_entitled_any_more_still_gets_what_it_was_sent() {
    let mut world = World::new(1, 7, 100, 64, 1024);
    world.envelope(0, Some(true), None);
    world.cast(Class::Full, &[]);
    world.envelope(0, Some(false), None);
    world.cast(Class::Full, &[]);
    world.envelope(0, Some(true), None);
    world.cast(Class::Full, &[]);
    world.settle();
    assert_eq!(world.ends[0].delivered.len(), 5);
    let all = [Missing { class: Class::Full, first: 1, last: 3 }];
    let later = world.now + 1000;
    let repair = world.stream.repair(later, Node(0), &all).expect("an answer");
    let numbers: Vec<u64> = repair.casts.iter().map(|carried| carried.cast.number).collect();
    assert_eq!(numbers, [1, 3], "and never the one between");
}

#[test]
fn a_demoted_moderator_sees_no_real_jid_even_if_a_relay_still_passes_them_on() {
    let mut world = one();
    world.envelope(0, Some(true), None);
    world.settle();
    world.envelope(0, Some(false), None);
    world.cast(Class::Full, &[]);
    let carried = world.ends[0].relayed.pop().expect("a cast");
    let end = &mut world.ends[0];
    assert_eq!(end.merge.cast(world.now, Source::Relay, carried), Taken::New);
    assert!(end.merge.next(world.now).is_none(), "he is not known to be demoted yet");
    world.settle();
}

#[test]
fn real_jids_are_not_taken_without_somebody_who_may_see_them() {
    let mut world = one();
    world.cast(Class::Full, &[]);
    let carried = world.ends[0].relayed.pop().expect("a cast");
    let taken = world.ends[0].merge.cast(world.now, Source::Relay, carried);
    assert_eq!(taken, Taken::NotEntitled);
}

#[test]
fn what_waits_is_bounded_and_the_next_one_always_fits() {
    let mut world = World::new(1, 7, 0, 64, 3);
    for _ in 0..10 {
        world.cast(Class::Anonymous, &[]);
    }
    let mut casts = std::mem::take(&mut world.ends[0].relayed);
    casts.sort_by_key(|carried| carried.cast.number);
    casts.dedup_by_key(|carried| carried.cast.number);
    let end = &mut world.ends[0];
    let mut come = |n: usize| end.merge.cast(Millis(0), Source::Relay, casts[n - 1].clone());
    assert_eq!([come(10), come(9), come(8)], [Taken::New; 3]);
    assert_eq!(come(7), Taken::New, "in the place of the tenth");
    assert_eq!(come(10), Taken::Ahead);
    assert_eq!(come(1), Taken::New);
    world.deliver(0);
    assert_eq!(world.ends[0].delivered.len(), 1);
    assert!(world.ends[0].merge.thrown() > 1);
    world.settle();
}

#[test]
fn envelopes_are_taken_in_their_order_and_within_a_limit() {
    let stream = Stream { room: ROOM.into(), epoch: EPOCH.into() };
    let lock = RoomLock::new(&RoomKey::new(&SECRET).public()).expect("a key");
    let limits = MergeLimits { envelopes: 2, ..MergeLimits::default() };
    let mut merge: Merge<u64, u64> =
        Merge::new(stream, lock, key(0), (5, Position::default()), false, limits);
    let after = Position { anonymous: 1, full: 0 };
    let envelope = |seq| {
        let place = Place { after, covers: after };
        Envelope { seq, place, has_full: None, content: seq }
    };
    assert_eq!(merge.envelope(Millis(0), envelope(7)), Err(NotTaken::Gap));
    assert_eq!(merge.envelope(Millis(0), envelope(5)), Err(NotTaken::Gap));
    assert_eq!(merge.envelope(Millis(0), envelope(6)), Ok(()));
    assert_eq!(merge.envelope(Millis(0), envelope(7)), Ok(()));
    assert_eq!(merge.envelope(Millis(0), envelope(8)), Err(NotTaken::Limit));
    assert!(merge.next(Millis(0)).is_none() && merge.seq() == 5);
    assert_eq!(merge.wake(), Some(Millis(200)), "they wait for a cast that is missing");
}

#[test]
fn a_heartbeat_out_of_all_bounds_costs_a_question_of_bounded_size() {
    let mut world = one();
    let merge = &mut world.ends[0].merge;
    merge.heartbeat(Millis(0), Position { anonymous: u64::MAX, full: u64::MAX });
    let missing = merge.ask(Millis(200));
    assert_eq!(missing, [Missing { class: Class::Anonymous, first: 1, last: 256 }]);
}
