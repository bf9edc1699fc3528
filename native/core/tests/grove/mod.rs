//! A room's tree over virtual wires: [`RoomStream`] and [`Parents`] at the primary, a [`Merge`] at each
//! replica, which passes on what is new. Direct links lose nothing; relays may lose, come, go and die.
//!
//! Only room trees: there are no occupants, and no [`dmuc_core::Room`] and [`dmuc_core::Replica`].

#![allow(dead_code, reason = "the test and the bench each use a part")]

#[path = "../wide/net.rs"]
mod net;

use std::collections::HashMap;
use std::rc::Rc;

use dmuc_core::Class;
use dmuc_core::Millis;
use dmuc_core::tree::{
    Carried, Digest, LinkKey, Merge, MergeLimits, Missing, Move, Next, Node, Parents, Position,
    RoomLock, RoomStream, Shape, Source, Spread, Stream, StreamLimits, Taken,
};
use fastrand::Rng;
use net::{Agenda, Micros};

/// What it takes to hand one stanza to a stream.
const SEND: Micros = 50;
/// What it takes to read a cast and check its signature.
const CHECK: Micros = 150;
/// From a server's death until the primary knows that the stream is broken.
pub const NOTICE: Micros = 2_000_000;
/// Heartbeats on direct links.
const BEAT: Micros = 1_000_000;

enum Event {
    Cast(usize, Source, Rc<Carried<u32>>),
    Newest(usize, Position),
    Children(usize, Vec<usize>),
    Ask(usize, Vec<Missing>),
    Wake(usize),
    Beat,
    Gone(usize),
}

struct Home {
    merge: Merge<u32, ()>,
    parent: Option<Node>,
    children: Vec<usize>,
    /// One way, to the middle of the network.
    away: Micros,
    is_alive: bool,
    delivered: u32,
    wakes: Option<Millis>,
}

/// What came of some casts.
#[derive(Debug, Default)]
pub struct Figures {
    /// Casts sent.
    pub casts: u64,
    /// Signed casts that the room has sent as the parent of others.
    pub egress: u64,
    /// The most of them for one cast.
    pub most: u64,
    /// Casts that the room has sent again.
    pub repaired: u64,
    /// Questions for them.
    pub asked: u64,
    /// Replicas that have got another parent.
    pub moves: u64,
    /// Microseconds from the room to each replica.
    pub took: Vec<Micros>,
    /// Until the last replica had it, by cast.
    pub to_last: Vec<Micros>,
}

/// The room and its replicas.
pub struct World {
    now: Micros,
    agenda: Agenda<Event>,
    rng: Rng,
    stream: RoomStream<u32>,
    parents: Parents,
    homes: Vec<Home>,
    sent: Vec<Micros>,
    last: HashMap<u32, Micros>,
    /// Of a million, what an edge between replicas loses.
    pub loss: u32,
    figures: Figures,
}

fn digest(payload: u32) -> Digest {
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&payload.to_be_bytes());
    digest
}

impl World {
    pub fn new(replicas: usize, seed: u64) -> Self {
        let limits = StreamLimits::default();
        let mut world = World {
            now: 0,
            agenda: Agenda::new(),
            rng: Rng::with_seed(seed),
            stream: RoomStream::new("r@c.test", "e1", &[1; 32], limits),
            parents: Parents::new(Shape::default()),
            homes: Vec::new(),
            sent: Vec::new(),
            last: HashMap::new(),
            loss: 0,
            figures: Figures::default(),
        };
        for _ in 0..replicas {
            world.join();
        }
        // With an envelope since the cast before for everybody the first cast goes to each directly.
        world.cast();
        world.agenda.add(BEAT, Event::Beat);
        world.pass(10_000_000);
        world.take();
        world
    }

    /// One more server.
    pub fn join(&mut self) {
        let n = self.homes.len();
        let node = Node(n as u32);
        let key = LinkKey::new(std::array::from_fn(|at| (n >> (8 * (at % 4))) as u8));
        let start = self.stream.join(node, key.clone(), 0, false);
        let stream = Stream { room: "r@c.test".into(), epoch: "e1".into() };
        let lock = RoomLock::new(&self.stream.public()).expect("a key");
        let merge = Merge::new(stream, lock, key, (0, start), false, MergeLimits::default());
        let away = self.rng.u64(5_000..75_000);
        let delivered = start.anonymous as u32;
        let home = Home {
            merge,
            parent: None,
            children: Vec::new(),
            away,
            is_alive: true,
            delivered,
            wakes: None,
        };
        self.homes.push(home);
        let moves = self.parents.join(self.millis(), node, 2 * away / 1000, true);
        self.tell(&moves);
    }

    /// A server dies without a word.
    pub fn kill(&mut self, n: usize) {
        if std::mem::replace(&mut self.homes[n].is_alive, false) {
            self.agenda.add(self.now + NOTICE, Event::Gone(n));
        }
    }

    /// Servers that live.
    pub fn alive(&self) -> Vec<usize> {
        (0..self.homes.len()).filter(|n| self.homes[*n].is_alive).collect()
    }

    pub fn depth(&self) -> u32 {
        let depth = |n: &usize| self.parents.place(Node(*n as u32)).map(|(_, depth)| depth);
        self.alive().iter().filter_map(depth).max().unwrap_or(0)
    }

    /// Those whose place in the tree is changed hear of it over their direct links.
    fn tell(&mut self, moves: &[Move]) {
        self.figures.moves += moves.len() as u64;
        let mut parents: Vec<Node> = Vec::new();
        for Move { node, parent } in moves {
            let former = std::mem::replace(&mut self.homes[node.0 as usize].parent, *parent);
            parents.extend(former.into_iter().chain(*parent));
        }
        parents.sort_unstable();
        parents.dedup();
        for parent in parents {
            let children = self.parents.children(parent).map(|node| node.0 as usize).collect();
            let n = parent.0 as usize;
            self.agenda.add(self.now + self.homes[n].away, Event::Children(n, children));
        }
    }

    fn millis(&self) -> Millis {
        Millis(self.now / 1000)
    }

    /// Somebody says something.
    pub fn cast(&mut self) {
        let payload = self.sent.len() as u32 + 1;
        self.sent.push(self.now);
        self.figures.casts += 1;
        let spread = self.stream.cast(Class::Anonymous, None, digest(payload), payload, 400);
        let (mut at, mut out) = (self.now, 0);
        let mut send = |world: &mut Self, node: Node, carried: Rc<Carried<u32>>| {
            at += SEND;
            out += 1;
            let n = node.0 as usize;
            let arrives = at + world.homes[n].away;
            world.agenda.add(arrives, Event::Cast(n, Source::Primary, carried));
        };
        match spread {
            Spread::Tree(carried) => {
                let carried = Rc::new(carried);
                for node in self.parents.top().collect::<Vec<_>>() {
                    send(self, node, carried.clone());
                }
            }
            Spread::Each(each) => {
                for (node, carried) in each {
                    send(self, node, Rc::new(carried));
                }
            }
        }
        self.figures.egress += out;
        self.figures.most = self.figures.most.max(out);
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Micros) {
        let until = self.now + time;
        while let Some((at, event)) = self.agenda.next(until) {
            self.now = at;
            self.happen(event);
        }
        self.now = until;
    }

    fn happen(&mut self, event: Event) {
        let now = self.millis();
        match event {
            Event::Cast(n, from, carried) if self.homes[n].is_alive => {
                let home = &mut self.homes[n];
                if home.merge.cast(now, from, (*carried).clone()) == Taken::New
                    && matches!(carried.proof, dmuc_core::tree::Proof::Signed { .. })
                {
                    let mut at = self.now + CHECK;
                    for child in home.children.clone() {
                        at += SEND;
                        if self.rng.u32(..1_000_000) >= self.loss {
                            let arrives = at + self.homes[n].away + self.homes[child].away;
                            let event = Event::Cast(child, Source::Relay, carried.clone());
                            self.agenda.add(arrives, event);
                        }
                    }
                }
                self.look(n);
            }
            Event::Newest(n, newest) if self.homes[n].is_alive => {
                self.homes[n].merge.heartbeat(now, newest);
                self.look(n);
            }
            Event::Wake(n) if self.homes[n].is_alive => {
                self.homes[n].wakes = None;
                let missing = self.homes[n].merge.ask(now);
                if !missing.is_empty() {
                    let arrives = self.now + self.homes[n].away;
                    self.agenda.add(arrives, Event::Ask(n, missing));
                }
                self.look(n);
            }
            Event::Ask(n, missing) => {
                self.figures.asked += 1;
                if let Some(repair) = self.stream.repair(now, Node(n as u32), &missing) {
                    assert!(!repair.is_lost);
                    for (nth, carried) in repair.casts.into_iter().enumerate() {
                        self.figures.repaired += 1;
                        let arrives = self.now + SEND * (nth as u64 + 1) + self.homes[n].away;
                        let event = Event::Cast(n, Source::Primary, Rc::new(carried));
                        self.agenda.add(arrives, event);
                    }
                }
            }
            Event::Children(n, children) => self.homes[n].children = children,
            Event::Beat => {
                for n in self.alive() {
                    let event = Event::Newest(n, self.stream.newest());
                    self.agenda.add(self.now + self.homes[n].away, event);
                }
                let moves = self.parents.improve(now);
                self.tell(&moves);
                self.agenda.add(self.now + BEAT, Event::Beat);
            }
            Event::Gone(n) => {
                self.stream.leave(Node(n as u32));
                let moves = self.parents.leave(now, Node(n as u32));
                self.tell(&moves);
            }
            Event::Cast(..) | Event::Newest(..) | Event::Wake(..) => {}
        }
    }

    fn look(&mut self, n: usize) {
        let now = self.millis();
        let home = &mut self.homes[n];
        while let Some(Next::Cast(carried)) = home.merge.next(now) {
            home.delivered += 1;
            assert_eq!(carried.payload, home.delivered, "once, and in order");
            let sent = self.sent[carried.payload as usize - 1];
            self.figures.took.push(self.now - sent);
            let last = self.last.entry(carried.payload).or_default();
            *last = (*last).max(self.now - sent);
        }
        if let Some(wake) = home.merge.wake()
            && home.wakes.is_none_or(|at| wake < at)
        {
            home.wakes = Some(wake);
            self.agenda.add((wake.0 * 1000).max(self.now), Event::Wake(n));
        }
    }

    /// Whether all who live have all that was said since they came.
    pub fn is_whole(&self) -> bool {
        let all = self.sent.len() as u32;
        self.homes.iter().all(|home| !home.is_alive || home.delivered == all)
    }

    /// What came of the casts since the last time.
    pub fn take(&mut self) -> Figures {
        let mut figures = std::mem::take(&mut self.figures);
        figures.to_last = self.last.drain().map(|(_, took)| took).collect();
        figures.to_last.sort_unstable();
        figures.took.sort_unstable();
        figures
    }
}
