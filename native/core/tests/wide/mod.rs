//! A discrete-event simulation of one room with occupants on thousands of servers, with the core on
//! both ends of every link, with room trees or without, or as plain MUC.
//!
//! `sim` is for few servers and every fault, and keeps all that was ever sent; here there are millions
//! of copies, and all that fails are servers that vanish and streams between replicas that break
//! (`edges`). What takes time is said by the constants below: the figures compare plain MUC and dmuc on
//! the same wires and processors, and are no measurement of a server.

// The test and the bench use a part each.
#![allow(dead_code, unused_imports)]

mod book;
mod edges;
mod figures;
mod home;
mod muc;
mod net;

use std::rc::Rc;
use std::sync::Arc;

use dmuc_core::{
    Action, Actions, Answer, Config, Counter, Element, Facts, Incoming, Millis, Payload, PayloadIn,
    Replica, Room, Shared, Support, Verdict,
};
use fastrand::Rng;

use self::book::Seen;
use self::edges::Edges;
pub use self::figures::{Figures, quantile};
pub use self::home::Act;
use self::home::{Down, Home, Input, Outcome, Up, due, incoming, session};
use self::muc::Muc;
use self::net::{Agenda, Micros, Processor, Wire};

pub const ROOM: &str = "room@conference.a.test";

/// Nanoseconds of a processor for a stanza that is sent or received, about what `cargo xtask bench`
/// finds for a plain copy.
const STANZA: u64 = 30_000;
/// The same for each byte of it: 1 Gbit/s.
const BYTE: u64 = 8;
/// For a copy that the room's server holds, and that costs it nothing else.
const HOLD: u64 = 2_000;
/// For a copy that is handed to a session.
const HAND: u64 = 30_000;
/// For a signature that the room makes, and for one that a replica checks: what `--bench trees` finds.
const SIGN: u64 = 20_000;
const CHECK: u64 = 50_000;

enum Event {
    /// A user does something.
    Act(u32, Act),
    Down(u32, Down),
    Up(u32, Up),
    /// A cast from another replica, over a stream that may have broken meanwhile.
    Aside {
        to: u32,
        from: u32,
        stream: u32,
        cast: Rc<Aside>,
    },
    WakeRoom(Millis),
    Wake(u32, Millis),
}

/// A cast on its way between replicas.
pub struct Aside {
    body: Arc<Element<Payload>>,
    /// Streams from the room on.
    hops: u32,
}

/// The room's server with dmuc.
struct Primary {
    room: Room,
    support: Support,
    wake: Option<Millis>,
}

pub struct World {
    now: Micros,
    rng: Rng,
    agenda: Agenda<Event>,
    muc: Muc,
    primary: Option<Primary>,
    processor: Processor,
    homes: Vec<Home>,
    edges: Edges,
    /// By number of the user.
    sessions: Vec<(Arc<str>, u32)>,
    sent: Vec<Seen>,
    got: Vec<Seen>,
    asked: Vec<Micros>,
    pub shared: Arc<Shared>,
    /// Of all replicas.
    pub of_homes: Arc<Shared>,
    figures: Figures,
}

impl World {
    /// Servers with so many users each.
    pub fn new(users: &[u32], dmuc: bool) -> Self {
        World::with(users, dmuc.then(|| Shared::new(Config::default())))
    }

    /// The same, with these options at the room's server if it has dmuc.
    pub fn with(users: &[u32], shared: Option<Arc<Shared>>) -> Self {
        let mut rng = Rng::with_seed(6);
        let dmuc = shared.is_some();
        let shared = shared.unwrap_or_default();
        let of_homes = Shared::new(Config::default());
        let mut homes = Vec::new();
        let mut sessions = Vec::new();
        for (n, users) in users.iter().enumerate() {
            let name = format!("s{n}.test");
            for _ in 0..*users {
                let session = session(sessions.len() as u32, &name);
                sessions.push((session.into(), n as u32));
            }
            let [down, up] = Wire::pair(&mut rng);
            let replica = Replica::new(&name, rng.u64(..), of_homes.clone());
            let processor = Processor::default();
            homes.push(Home {
                name,
                replica,
                down,
                up,
                processor,
                wake: None,
                is_gone: false,
                passed_on: None,
            });
        }
        let primary = dmuc.then(|| Primary {
            room: Room::new(ROOM, 1, shared.clone()).expect("a room"),
            support: Support::new(1, shared.clone()),
            wake: None,
        });
        World {
            now: 0,
            rng,
            agenda: Agenda::new(),
            muc: Muc::default(),
            primary,
            processor: Processor::default(),
            homes,
            edges: Edges::new(7),
            sent: vec![Seen::default(); sessions.len()],
            got: vec![Seen::default(); sessions.len()],
            asked: vec![0; sessions.len()],
            sessions,
            shared,
            of_homes,
            figures: Figures::default(),
        }
    }

    /// Casts go by trees from here on, as these options say.
    pub fn grow(&mut self, options: &[(&str, u64)]) {
        if let Some(Primary { room, .. }) = &mut self.primary {
            room.grow([7; 32]);
            room.may_show_domains(true);
        }
        for shared in [&self.shared, &self.of_homes] {
            let mut config = shared.config.get();
            for (name, value) in options {
                config.set(name, *value).expect("an option");
            }
            shared.config.set(&config);
        }
    }

    /// Of a million casts that one replica sends to another, so many break the stream between them.
    pub fn break_streams(&mut self, of_million: u32) {
        self.edges.breaks = of_million;
    }

    /// Servers that are there and have passed something on in the last half a minute.
    pub fn relays(&self) -> Vec<u32> {
        let all = self.homes.iter().zip(0..).filter(|(home, _)| !home.is_gone);
        let is_recent = |at: Micros| self.now - at < 30_000_000;
        let relays = all.filter(|(home, _)| home.passed_on.is_some_and(is_recent));
        relays.map(|(_, number)| number).collect()
    }

    /// The ways between these servers and the room's are so much longer from here on.
    pub fn slow_down(&mut self, servers: &[u32], by: Micros) {
        for server in servers {
            let home = &mut self.homes[*server as usize];
            home.down.slow_down(by);
            home.up.slow_down(by);
        }
    }

    /// These servers are gone from one moment to the next. Nobody is told: what is sent to them is
    /// lost, and they say nothing any more.
    pub fn vanish(&mut self, servers: &[u32]) {
        for server in servers {
            self.homes[*server as usize].is_gone = true;
        }
    }

    /// From here on occupants are shown to each other.
    pub fn show(&mut self) {
        self.muc.shows = true;
    }

    /// Users of servers that are there.
    pub fn living(&self) -> Vec<u32> {
        let users = (0..self.sessions.len() as u32).filter(|who| self.lives(*who));
        users.collect()
    }

    fn lives(&self, who: u32) -> bool {
        !self.homes[self.sessions[who as usize].1 as usize].is_gone
    }

    /// Servers with a link.
    pub fn linked(&self) -> usize {
        let status = self.primary.as_ref().map(|primary| primary.room.status());
        status.into_iter().flatten().filter(|status| status.state == "linked").count()
    }

    /// Envelopes that nobody has acknowledged.
    pub fn unacknowledged(&self) -> usize {
        let status = self.primary.as_ref().map(|primary| primary.room.status());
        status.into_iter().flatten().map(|status| status.unacked).sum()
    }

    /// These do this one after the other, so many microseconds apart; then `rest` seconds pass. What
    /// that has cost.
    pub fn play(&mut self, act: Act, who: &[u32], apart: Micros, rest: u64) -> Figures {
        self.figures = Figures { since: self.now, ..Figures::default() };
        let first = self.muc.stanzas.len();
        for (n, who) in who.iter().enumerate() {
            self.agenda.add(self.now + n as u64 * apart, Event::Act(*who, act));
        }
        let until = self.now + who.len() as u64 * apart + rest * 1_000_000;
        while let Some((at, event)) = self.agenda.next(until) {
            self.now = at;
            self.happen(event);
        }
        self.now = until;
        let mut figures = std::mem::take(&mut self.figures);
        let broadcasts = self.muc.stanzas[first..].iter();
        figures.to_last = broadcasts
            .filter(|stanza| !stanza.facts.is_own_available() && !stanza.facts.is_own_end())
            .map(|stanza| stanza.last - stanza.sent)
            .collect();
        let said = self.muc.stanzas[first..].iter().filter(|stanza| stanza.facts.is_groupchat());
        figures.out = said.map(|stanza| stanza.out).collect();
        figures
    }

    /// Whether everybody whose server is there got what the room sent him, once and in order.
    pub fn verdict(&self) -> Result<(), String> {
        let all = self.sent.iter().zip(&self.got).zip(0..);
        let mut wrong = all.filter(|((sent, got), who)| sent != got && self.lives(*who));
        match wrong.next().map(|(_, who)| who as usize) {
            Some(who) => {
                Err(format!("{}: {:?}, {:?}", self.sessions[who].0, self.sent[who], self.got[who]))
            }
            None => Ok(()),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Act(who, act) => {
                let now = self.clock();
                let (session, server) = self.sessions[who as usize].clone();
                self.asked[who as usize] = self.now;
                if self.primary.is_some() {
                    self.homes[server as usize].act(now, &session, who, act);
                }
                self.send_up(server, self.now, Up::Act { who, act }, 200);
            }
            Event::Up(server, up) => self.arrive_up(server, up),
            Event::Down(server, _) | Event::Wake(server, _) | Event::Aside { to: server, .. }
                if self.homes[server as usize].is_gone => {}
            Event::Down(server, down) => {
                let home = &mut self.homes[server as usize];
                let check = if down.is_cast() { CHECK } else { 0 };
                let at = home.processor.work(self.now, STANZA + check);
                self.at_home(server, at, Input::Down(&down));
            }
            Event::Aside { to, from, stream, cast } => {
                if self.edges.is_whole(from, to, stream) {
                    let home = &mut self.homes[to as usize];
                    let at = home.processor.work(self.now, STANZA + CHECK);
                    self.at_home(to, at, Input::Aside(from, &cast));
                } else {
                    self.figures.lost += 1;
                }
            }
            Event::WakeRoom(at) => {
                let now = self.clock();
                if let Some(primary) = &mut self.primary
                    && primary.wake == Some(at)
                {
                    primary.wake = None;
                    self.figures.ticks += 1;
                    let actions = primary.room.tick(now);
                    self.carry_out(actions, Cause::Other);
                }
            }
            Event::Wake(server, at) => {
                let home = &mut self.homes[server as usize];
                if home.wake == Some(at) {
                    home.wake = None;
                    self.figures.ticks_of_replicas += 1;
                    self.at_home(server, self.now, Input::Tick);
                }
            }
        }
    }

    /// The clock of the core.
    fn clock(&self) -> Millis {
        Millis(self.now / 1000)
    }

    fn at_home(&mut self, server: u32, mut at: Micros, input: Input<'_>) {
        let now = self.clock();
        let stanzas = &self.muc.stanzas;
        let facts_of = |n: u32| (stanzas[n as usize].facts, stanzas[n as usize].who);
        let from = match input {
            Input::Aside(from, _) => self.homes[from as usize].name.clone(),
            _ => String::new(),
        };
        let (hops, cast) = match &input {
            Input::Aside(_, cast) => (cast.hops, Some(&cast.body)),
            Input::Down(Down::Envelope { body, .. }) => (1, Some(body)),
            _ => (1, None),
        };
        let cast = cast.cloned();
        let home = &mut self.homes[server as usize];
        let (outcomes, wake) = home.take(now, input, &from, facts_of);
        self.figures.depth = self.figures.depth.max(hops);
        if let Some(wake) = wake
            && home.wake.is_none_or(|old| wake < old)
        {
            home.wake = Some(wake);
            self.agenda.add(due(wake).max(self.now), Event::Wake(server, wake));
        }
        for outcome in outcomes {
            match outcome {
                Outcome::Hand(number, to) => {
                    for who in to {
                        at = self.homes[server as usize].processor.work(at, HAND);
                        self.hand(who, number, at);
                    }
                }
                Outcome::Pass(to) => {
                    let body = cast.clone().expect("a cast");
                    let len = figures::len(&body);
                    let cast = Rc::new(Aside { body, hops: hops + 1 });
                    for to in to {
                        let home = &mut self.homes[server as usize];
                        home.passed_on = Some(self.now);
                        at = home.processor.work(at, STANZA + BYTE * len as u64);
                        self.figures.aside.add(len);
                        let to = self::server(&to);
                        let (stream, arrives) = self.edges.carry(server, to, at);
                        let event = Event::Aside { to, from: server, stream, cast: cast.clone() };
                        self.agenda.add(arrives, event);
                    }
                }
                Outcome::Up(up) => {
                    if let Up::Report { body } = &up {
                        let asks = body.children.iter().any(|child| child.name == "missing");
                        self.figures.asked += u64::from(asks);
                    }
                    let len = match &up {
                        Up::Report { body } | Up::Result { body } => figures::len(body),
                        Up::Answer | Up::Act { .. } => 400,
                    };
                    self.send_up(server, at, up, len);
                }
            }
        }
    }

    fn hand(&mut self, who: u32, number: u32, at: Micros) {
        let stanza = &mut self.muc.stanzas[number as usize];
        stanza.last = stanza.last.max(at);
        if stanza.facts.is_groupchat() {
            self.figures.took.push((at - stanza.sent) as u32);
        }
        self.figures.copies += 1;
        self.got[who as usize].note(number, stanza.facts);
        if stanza.facts.is_own_available() && stanza.who == who {
            self.figures.answered.push(at - self.asked[who as usize]);
        }
    }

    fn send_up(&mut self, server: u32, at: Micros, up: Up, len: usize) {
        self.figures.up.add(len);
        let at = self.homes[server as usize].up.carry(at, &mut self.rng);
        self.agenda.add(at, Event::Up(server, up));
    }

    fn arrive_up(&mut self, server: u32, up: Up) {
        self.processor.work(self.now, STANZA);
        let now = self.clock();
        match up {
            Up::Act { who, act } => {
                let copies = match act {
                    Act::Join => self.muc.join(self.now, who),
                    Act::Say => self.muc.say(self.now, who),
                    Act::Away => self.muc.away(self.now, who),
                    Act::Leave => self.muc.leave(self.now, who),
                };
                self.route(&copies);
            }
            Up::Answer => {
                let domain = self.homes[server as usize].name.clone();
                self.answered(&domain);
            }
            Up::Result { body } => {
                let body = incoming(&body, &no_stanza);
                let id = body.attr("epoch").expect("an epoch").to_owned();
                self.with_room(server, Cause::Other, |room, domain| {
                    room.setup_result(now, domain, &id, Some(&body))
                });
            }
            Up::Report { body } => {
                let body = incoming(&body, &no_stanza);
                self.with_room(server, Cause::Report, |room, domain| {
                    room.report(now, domain, &body)
                });
            }
        }
    }

    fn with_room(
        &mut self,
        server: u32,
        cause: Cause,
        call: impl FnOnce(&mut Room, &str) -> Actions,
    ) {
        let Some(primary) = &mut self.primary else { return };
        let actions = call(&mut primary.room, &self.homes[server as usize].name);
        self.carry_out(actions, cause);
    }

    /// The room sends these, each to its session.
    fn route(&mut self, copies: &[muc::Copy]) {
        let now = self.clock();
        let mut payloads: Vec<PayloadIn> = Vec::new();
        let mut held: Vec<(Arc<str>, u32)> = Vec::new();
        let mut token_of = std::collections::HashMap::new();
        for (who, number) in copies {
            let (to, facts) =
                (&self.sessions[*who as usize].0, self.muc.stanzas[*number as usize].facts);
            self.sent[*who as usize].note(*number, facts);
            let Some(Primary { room, .. }) = &mut self.primary else {
                self.send_copy(*who, *number);
                continue;
            };
            if room.capture(now, to, facts) != Verdict::Hold {
                self.send_copy(*who, *number);
                continue;
            }
            self.processor.work(self.now, HOLD);
            let token = *token_of.entry(*number).or_insert_with(|| {
                let digest = u128::from(*number) + 1;
                let position = payloads.len() as u32;
                payloads.push(
                    match facts.is_lasting().then(|| room.recall(to, digest)).flatten() {
                        Some(id) => PayloadIn::Known(id),
                        None => self.muc.payload(*number, digest),
                    },
                );
                position
            });
            held.push((to.clone(), token));
        }
        if let Some(primary) = &mut self.primary {
            let held: Vec<(&str, u32)> = held.iter().map(|(to, token)| (&**to, *token)).collect();
            let casts = self.shared.counters.get(Counter::TreeCasts);
            let actions = primary.room.event(now, payloads, &held);
            let casts = self.shared.counters.get(Counter::TreeCasts) - casts;
            self.processor.work(self.now, SIGN * casts);
            self.carry_out(actions, Cause::Event);
        }
    }

    fn send_copy(&mut self, who: u32, number: u32) {
        let (session, server) = &self.sessions[who as usize];
        let stanza = &mut self.muc.stanzas[number as usize];
        stanza.out += 1;
        let len = stanza.len + " to=''".len() + session.len();
        self.send_down(*server, len, Down::Plain { who, number });
    }

    fn send_down(&mut self, server: u32, len: usize, down: Down) {
        self.figures.down.add(len);
        let at = self.processor.work(self.now, STANZA + BYTE * len as u64);
        let home = &mut self.homes[server as usize];
        let at = home.down.carry(at, &mut self.rng);
        match down {
            // Without dmuc nothing comes of it but that somebody has it.
            Down::Plain { who, number } if self.primary.is_none() => {
                let at = home.processor.work(at, STANZA + HAND);
                self.hand(who, number, at);
            }
            down => self.agenda.add(at, Event::Down(server, down)),
        }
    }

    fn carry_out(&mut self, actions: Actions, cause: Cause) {
        let Some(primary) = &mut self.primary else { return };
        if let Some(wake) = actions.wake
            && primary.wake.is_none_or(|old| wake < old)
        {
            primary.wake = Some(wake);
            self.agenda.add(due(wake).max(self.now), Event::WakeRoom(wake));
        }
        for action in actions.list {
            match action {
                Action::AskSupport { domain } => self.ask(&domain),
                Action::Setup { to, body, .. } => {
                    self.figures.setups += 1;
                    let len = figures::len(&body);
                    self.send_down(server(&to), len, Down::Setup { body });
                }
                Action::Envelope { to, id, body } => {
                    let len = figures::len(&body);
                    self.count(&body, len, cause);
                    self.send_down(server(&to), len, Down::Envelope { id, body });
                }
                // In a room that does not show its occupants nobody else hears of it.
                Action::Fail { to } => {
                    for to in to {
                        let who = home::who(&to);
                        self.figures.failed += 1;
                        let copies = self.muc.leave(self.now, who);
                        self.route(&copies);
                    }
                }
                Action::Plain { payload, to } => {
                    for to in to {
                        self.send_copy(home::who(&to), number(payload.bytes()));
                    }
                }
                Action::ForgetSupport { .. } => {}
                other => panic!("nothing fails here, and yet: {other:?}"),
            }
        }
        self.figures.waiting = self.figures.waiting.max(self.shared.waiting());
    }

    /// Takes note of what goes out in the link of a server.
    fn count(&mut self, body: &Element<Payload>, len: usize, cause: Cause) {
        let figures = &mut self.figures;
        match (body.name.as_str(), cause) {
            ("relayed", Cause::Event) => figures.casts.add(len),
            ("relayed", _) => {
                figures.repaired.add(len);
                figures.last_repair = self.now - figures.since;
            }
            ("newest", _) => figures.beats.add(len),
            ("envelope", _) => figures.envelopes += 1,
            _ => figures.resumes += 1,
        }
        if let Cause::Event = cause {
            figures.with_stanza += len as u64;
            let carried = body.children.iter().chain([body]).filter_map(|op| op.payload.as_ref());
            for payload in carried {
                self.muc.stanzas[number(payload.bytes()) as usize].out += 1;
            }
        }
    }

    /// Asks the cache whether a domain speaks dmuc, and the domain if need be.
    fn ask(&mut self, domain: &str) {
        let now = self.clock();
        let Some(primary) = &mut self.primary else { return };
        match primary.support.ask(now, domain, ROOM) {
            Answer::Yes => {
                self.with_room(server(domain), Cause::Other, |room, domain| {
                    room.support(now, domain, true)
                });
            }
            Answer::Query => self.question(domain),
            Answer::Wait => {}
            Answer::No => panic!("all of them speak it"),
        }
    }

    fn question(&mut self, domain: &str) {
        self.figures.questions += 1;
        self.send_down(server(domain), 200, Down::Question);
    }

    fn answered(&mut self, domain: &str) {
        let now = self.clock();
        let Some(primary) = &mut self.primary else { return };
        let rooms = primary.support.answered(now, domain, Some(true));
        if !rooms.is_empty() {
            self.with_room(server(domain), Cause::Other, |room, domain| {
                room.support(now, domain, true)
            });
        }
        while let Some(next) = self.primary.as_mut().and_then(|p| p.support.next_question()) {
            self.question(&next);
        }
    }
}

/// Upon what the room sends something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// What somebody in it does.
    Event,
    /// What a replica reports.
    Report,
    Other,
}

impl Muc {
    /// A stanza as a host hands it over, with as many bytes as it has. Its number stands for its content.
    fn payload(&self, number: u32, digest: u128) -> PayloadIn {
        let stanza = &self.stanzas[number as usize];
        let bytes = xml(number, stanza.len);
        PayloadIn::New { bytes, facts: stanza.facts, nick: format!("n{}", stanza.who), digest }
    }
}

const BEGIN: &str = "<message n='";
const END: &str = "</message>";

fn xml(number: u32, len: usize) -> Vec<u8> {
    let mut xml = format!("{BEGIN}{number:08x}'>").into_bytes();
    xml.resize(len - END.len(), b' ');
    xml.extend_from_slice(END.as_bytes());
    xml
}

/// Of a stanza as it is carried, or as a replica keeps it.
fn number(bytes: &[u8]) -> u32 {
    match bytes.try_into() {
        Ok(kept) => u32::from_be_bytes(kept),
        Err(_) => {
            let digits = std::str::from_utf8(&bytes[BEGIN.len()..BEGIN.len() + 8]).expect("ascii");
            u32::from_str_radix(digits, 16).expect("a number")
        }
    }
}

fn no_stanza(_: u32) -> (Facts, u32) {
    panic!("reports carry none")
}

/// Number of the server of this name.
fn server(domain: &str) -> u32 {
    let number = domain.strip_prefix('s').and_then(|name| name.strip_suffix(".test"));
    number.and_then(|number| number.parse().ok()).expect("a server of this world")
}
