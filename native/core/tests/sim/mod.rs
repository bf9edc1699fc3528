//! A simulated network: one primary with a model of a XEP-0045 room, several user domains, and
//! between each pair two first-in-first-out streams. Time is virtual and moves only when told.
//!
//! The model room knows nothing of dmuc. It writes down what it sends to each stay of each session,
//! and the domains write down what each session receives; [`World::verdict`] compares the two.

// Each file of tests uses a part of this.
#![allow(dead_code)]

mod home;
mod muc;
pub mod scene;
pub mod step;
pub mod wood;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use dmuc_core::{
    Action, Actions, Bounce, Config, Counter, Element, Facts, Incoming, Millis, Payload, PayloadIn,
    Room, Shared, Verdict, is_envelope_id, jid,
};
pub use home::Home;
pub use muc::{Copy, Muc, Sent};

pub const ROOM: &str = "room@conference.a.test";

/// A stanza as the simulation carries it: its number stands for its content.
#[derive(Clone, Debug)]
pub struct Stanza {
    pub number: u64,
    pub from: String,
    pub facts: Facts,
}

/// What goes from the primary to a domain.
#[derive(Clone, Debug)]
pub enum Down {
    Plain {
        to: String,
        number: u64,
    },
    /// A plain message without content.
    Nothing {
        to: String,
    },
    Envelope {
        id: String,
        body: Arc<Element<Payload>>,
    },
    Setup {
        id: String,
        body: Element<Payload>,
    },
}

/// What goes from a domain to the primary.
#[derive(Clone, Debug)]
pub enum Up {
    Join {
        session: String,
        nick: String,
    },
    Leave {
        session: String,
    },
    /// A plain stanza was for a session that is not there.
    Dead {
        session: String,
    },
    Dmuc {
        body: Element<Payload>,
    },
    Result {
        id: String,
        body: Option<Element<Payload>>,
    },
    Error {
        id: String,
    },
}

/// Everything there is.
pub struct World {
    pub now: Millis,
    pub muc: Muc,
    pub primary: Option<Room>,
    pub homes: Vec<Home>,
    pub shared: Arc<Shared>,
    seed: u64,
    wake: Option<Millis>,
    /// Copies that are held: to whom, number of the stanza, and the payload that the core recalls.
    buffer: Vec<(String, u64, Option<u64>)>,
    /// Which variant of a stanza is which, by number.
    stanzas: BTreeMap<u64, Stanza>,
    pub failed: u64,
    /// Those of them that were there.
    pub failed_alive: u64,
    /// Questions for resumption.
    pub questions: u64,
    /// How often the core had a payload itself.
    pub recalled: u64,
    /// Whether casts may go by trees, if the options say so.
    trees: bool,
    /// Stanzas have no canonical form.
    pub has_no_form: bool,
    /// Some stanzas are too large for an envelope of 4096 bytes.
    pub large: bool,
}

/// Payload bytes carry the number. Some are too large for an envelope, if so wanted.
pub fn bytes(number: u64, large: bool) -> Vec<u8> {
    let padding = if large && number.is_multiple_of(29) { 3000 } else { 0 };
    format!("<message n='{number:05}'>{}</message>", " ".repeat(padding)).into_bytes()
}

fn is_nothing(payload: &Payload) -> bool {
    payload.bytes().starts_with(b"<message from=")
}

fn number(payload: &Payload) -> u64 {
    let text = std::str::from_utf8(payload.bytes()).expect("ascii");
    text.split('\'').nth(1).expect("number").parse().expect("number")
}

impl World {
    pub fn new(seed: u64, domains: &[&str], options: &[(&str, u64)]) -> Self {
        let shared = Shared::new(Config::from_pairs(options).expect("options"));
        World {
            now: Millis(1000),
            muc: Muc::default(),
            primary: Some(Room::new(ROOM, seed, shared.clone()).expect("room")),
            homes: domains.iter().map(|name| Home::new(name, seed, options)).collect(),
            shared,
            seed,
            wake: None,
            buffer: Vec::new(),
            stanzas: BTreeMap::new(),
            failed: 0,
            failed_alive: 0,
            questions: 0,
            recalled: 0,
            trees: false,
            has_no_form: false,
            large: false,
        }
    }

    /// Casts may go by trees from here on, in new rooms too.
    pub fn grow(&mut self) {
        self.trees = true;
        if let Some(room) = &mut self.primary {
            room.grow([7; 32]);
        }
    }

    fn home(&mut self, jid: &str) -> &mut Home {
        let name = jid::domain(jid);
        self.homes.iter_mut().find(|home| home.name == name).expect("home")
    }

    /// Something happens in the room.
    pub fn happen(&mut self, copies: Vec<Copy>) {
        for Copy { to, stanza } in copies {
            self.stanzas.insert(stanza.number, stanza.clone());
            let verdict = match &mut self.primary {
                Some(room) => room.capture(self.now, &to, stanza.facts),
                None => Verdict::Pass,
            };
            match verdict {
                Verdict::Hold => {
                    let room = self.primary.as_mut().expect("loaded");
                    let known = room.recall(&to, stanza.number.into());
                    self.recalled += u64::from(known.is_some());
                    self.buffer.push((to, stanza.number, known));
                }
                Verdict::Pass | Verdict::PassPoll => {
                    let down = Down::Plain { to: to.clone(), number: stanza.number };
                    self.home(&to).down.push_back(down);
                }
            }
        }
        self.flush();
    }

    /// The room's event is over.
    pub fn flush(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut payloads = Vec::new();
        let mut token_of = HashMap::new();
        let mut copies = Vec::new();
        for (to, number, known) in &buffer {
            let token = *token_of.entry(*number).or_insert_with(|| {
                let Stanza { facts, from, .. } = &self.stanzas[number];
                payloads.push(match known {
                    Some(id) => PayloadIn::Known(*id),
                    None => PayloadIn::New {
                        bytes: match self.has_no_form {
                            true => format!("<message n='{number}'>").into(),
                            false => bytes(*number, self.large),
                        },
                        facts: *facts,
                        nick: jid::resource(from).unwrap_or_default().to_owned(),
                        digest: (*number).into(),
                    },
                });
                payloads.len() as u32 - 1
            });
            copies.push((to.as_str(), token));
        }
        self.with_primary(|room, now| room.event(now, payloads, &copies));
    }

    /// The primary gets an input that no stream has brought.
    pub fn ask_primary(&mut self, call: impl FnOnce(&mut Room) -> Actions) {
        self.with_primary(|room, _| call(room));
    }

    fn with_primary(&mut self, call: impl FnOnce(&mut Room, Millis) -> Actions) {
        let now = self.now;
        if let Some(room) = &mut self.primary {
            let actions = call(room, now);
            self.carry_out(actions);
        }
    }

    fn carry_out(&mut self, actions: Actions) {
        self.wake = [self.wake, actions.wake].into_iter().flatten().min();
        for action in actions.list {
            match action {
                Action::Plain { payload, to } if is_nothing(&payload) => {
                    for to in to {
                        self.home(&to).down.push_back(Down::Nothing { to: to.to_string() });
                    }
                }
                Action::Plain { payload, to } => {
                    for to in to {
                        let down = Down::Plain { to: to.to_string(), number: number(&payload) };
                        self.home(&to).down.push_back(down);
                    }
                }
                Action::Envelope { to, id, body } => {
                    self.questions += u64::from(body.name == "resume");
                    self.check_privacy(&to, &body);
                    self.home(&to).down.push_back(Down::Envelope { id, body });
                }
                Action::Setup { to, id, body } => {
                    self.home(&to).down.push_back(Down::Setup { id, body });
                }
                Action::AskSupport { domain } => {
                    let yes = self.home(&domain).replica.is_some();
                    self.with_primary(|room, now| room.support(now, &domain, yes));
                }
                Action::Fail { to } => {
                    self.failed += to.len() as u64;
                    for to in to {
                        self.failed_alive += u64::from(!self.home(&to).is_gone(&to));
                        let copies = self.muc.kick(&to, true);
                        self.happen(copies);
                    }
                }
                Action::SupportSeen { .. } | Action::ForgetSupport { .. } => {}
                other => panic!("not an action of a primary: {other:?}"),
            }
        }
    }

    /// Lets the oldest cast that others pass on to a domain arrive, or the one after it; false if there
    /// is none.
    pub fn arrive_aside(&mut self, home: usize, nth: usize) -> bool {
        let home = &mut self.homes[home];
        if home.aside.is_empty() {
            return false;
        }
        let nth = nth.min(home.aside.len() - 1);
        let Some((from, body)) = home.aside.remove(nth) else { return false };
        home.receive_aside(self.now, &from, &body, &self.stanzas, self.large);
        self.pass_on();
        true
    }

    /// What replicas have to pass on is on its way.
    fn pass_on(&mut self) {
        for from in 0..self.homes.len() {
            let name = self.homes[from].name.clone();
            for (to, body) in std::mem::take(&mut self.homes[from].relays) {
                for (to, body) in self.homes[from].betray(&to, body) {
                    let number = body.payload.expect("a stanza");
                    assert!(
                        self.homes[from].is_hostile || self.muc.has_shown(&to, number),
                        "{number} was for nobody at {to}"
                    );
                    self.home(&to).aside.push_back((name.clone(), body));
                }
            }
        }
    }

    /// Nothing crosses to a domain in full that the room has sent to nobody there.
    fn check_privacy(&self, domain: &str, envelope: &Element<Payload>) {
        if let Some(payload) = &envelope.payload {
            let number = number(payload);
            assert!(self.muc.has_shown(domain, number), "{number} was for nobody at {domain}");
        }
        for payload in envelope.children.iter().filter_map(|op| op.payload.as_ref()) {
            let number = number(payload);
            assert!(self.muc.has_sent_to(domain, number), "{number} was for nobody at {domain}");
        }
    }

    /// Lets the oldest stanza on the way to a domain arrive; false if there is none.
    pub fn arrive_down(&mut self, home: usize) -> bool {
        let home = &mut self.homes[home];
        if home.is_severed {
            return false;
        }
        let Some(down) = home.down.pop_front() else { return false };
        home.receive(self.now, down, &self.stanzas);
        self.pass_on();
        true
    }

    /// Lets the oldest stanza on the way from a domain arrive; false if there is none.
    pub fn arrive_up(&mut self, home: usize) -> bool {
        if self.homes[home].is_severed {
            return false;
        }
        let Some(up) = self.homes[home].up.pop_front() else { return false };
        let domain = self.homes[home].name.clone();
        match up {
            Up::Join { session, nick } => {
                let copies = self.muc.join(&session, &nick);
                self.happen(copies);
            }
            Up::Leave { session } => {
                let copies = self.muc.leave(&session);
                self.happen(copies);
            }
            Up::Dead { session } => {
                let copies = self.muc.kick(&session, true);
                self.happen(copies);
            }
            Up::Dmuc { body } => {
                let body = incoming(&body, &self.stanzas);
                self.with_primary(|room, now| room.report(now, &domain, &body));
            }
            Up::Result { id, body } => {
                let body = body.map(|body| incoming(&body, &self.stanzas));
                self.with_primary(|room, now| room.setup_result(now, &domain, &id, body.as_ref()));
            }
            Up::Error { id } => {
                assert!(is_envelope_id(&id));
                self.with_primary(|room, now| room.bounced(now, &domain, &id, Bounce::Refused));
            }
        }
        true
    }

    /// The stream to a domain breaks: what is on the way down is lost. The primary's server makes
    /// errors for the stanzas, as ejabberd and Prosody do; reports on the way up are lost too.
    pub fn cut(&mut self, home: usize) {
        self.homes[home].was_cut = true;
        let lost: Vec<Down> = self.homes[home].down.drain(..).collect();
        let domain = self.homes[home].name.clone();
        self.homes[home].up.retain(|up| matches!(up, Up::Join { .. } | Up::Leave { .. }));
        for down in &lost {
            if let Down::Plain { to, number } = down {
                self.muc.lost(to, *number);
            }
        }
        for down in lost {
            match down {
                Down::Plain { to, .. } | Down::Nothing { to } => {
                    let copies = self.muc.kick(&to, true);
                    self.happen(copies);
                }
                Down::Envelope { id, .. } => {
                    self.with_primary(|room, now| room.bounced(now, &domain, &id, Bounce::Unknown));
                }
                Down::Setup { id, .. } => {
                    self.with_primary(|room, now| room.setup_result(now, &domain, &id, None));
                }
            }
        }
    }

    /// The server of a domain is killed with everybody who was ever in the room there, and starts again.
    pub fn crash(&mut self, home: usize, breaks: bool) {
        if breaks {
            self.cut(home);
        }
        let home = &mut self.homes[home];
        home.was_cut = true;
        let sessions: Vec<String> = home.received.keys().cloned().collect();
        home.crash(&sessions);
    }

    /// The network between the primary and a domain fails. What is on the way is lost, and nobody hears
    /// of that. What is sent from here on comes back to its sender.
    pub fn sever(&mut self, home: usize) {
        let home = &mut self.homes[home];
        home.was_cut = true;
        home.is_severed = true;
        for up in home.up.drain(..) {
            if let Up::Join { session, .. } = up {
                home.unheard.insert(session);
            }
        }
        for down in home.down.drain(..) {
            if let Down::Plain { to, number } = down {
                self.muc.lost(&to, number);
            }
        }
    }

    /// It is there again.
    pub fn mend(&mut self, home: usize) {
        self.bounce();
        self.homes[home].is_severed = false;
    }

    fn bounce(&mut self) {
        let now = self.now;
        for home in 0..self.homes.len() {
            // What comes of it may be sent to where nothing passes.
            while self.homes[home].is_severed && !self.homes[home].down.is_empty() {
                self.cut(home);
            }
            if self.homes[home].is_severed {
                self.homes[home].bounce_up(now);
            }
        }
    }

    /// Whether the domain has had a cut and is served plainly, being too small for a link: a leave that
    /// was lost is not repeated then, as in plain MUC.
    fn is_left_to_plain(&self, home: &Home) -> bool {
        let status = self.primary.as_ref().map(Room::status).unwrap_or_default();
        let linked = status.iter().any(|s| s.domain == home.name && s.state == "linked");
        home.has_missed() && !linked
    }

    /// Who is haunted: sessions that take themselves for occupants and are not, or the other way round.
    pub fn haunted(&self) -> Vec<String> {
        let live = self.muc.sessions();
        let mut haunted = Vec::new();
        for home in &self.homes {
            let excused = |s: &str| self.muc.has_lost_plainly(s) || home.unheard.contains(s);
            for session in home.received.keys().filter(|s| !excused(s)) {
                let inside = home.inside.contains(session) && !home.is_gone(session);
                let may_haunt = !inside && self.is_left_to_plain(home);
                if inside != live.contains(session) && !may_haunt {
                    haunted.push(format!("{session}: inside {inside}"));
                }
            }
        }
        haunted
    }

    /// dmuc is unloaded at the primary.
    pub fn unload_primary(&mut self) {
        self.with_primary(Room::close);
        self.primary = None;
    }

    /// dmuc is loaded at the primary while the room is live.
    pub fn load_primary(&mut self) {
        if self.primary.is_none() {
            self.seed += 1;
            let mut room = Room::new(ROOM, self.seed, self.shared.clone()).expect("room");
            if self.trees {
                room.grow([7; 32]);
            }
            self.primary = Some(room);
            let sessions = self.muc.sessions();
            let sessions: Vec<&str> = sessions.iter().map(String::as_str).collect();
            self.with_primary(|room, now| room.occupants(now, &sessions));
        }
    }

    /// Time passes.
    pub fn pass(&mut self, ms: u64) {
        self.now = self.now + ms;
        let now = self.now;
        if self.wake.is_some_and(|at| at <= now) {
            self.wake = None;
            self.with_primary(Room::tick);
        }
        for home in &mut self.homes {
            home.pass(now);
        }
        self.bounce();
    }

    /// Until nothing is on the way and no short timer is left.
    pub fn quiet(&mut self) {
        for _ in 0..60 {
            self.settle();
            self.pass(1000);
        }
        self.settle();
    }

    /// Until nothing is on the way.
    pub fn settle(&mut self) {
        let mut busy = true;
        while busy {
            busy = false;
            for home in 0..self.homes.len() {
                busy |= self.arrive_down(home);
                busy |= self.arrive_up(home);
                busy |= self.arrive_aside(home, 0);
            }
        }
    }

    fn has_split(&self) -> bool {
        self.shared.counters.get(Counter::LinksSplit) > 0
    }

    /// What is wrong with what the sessions received, if anything.
    ///
    /// For each stay of a session that the room took in: what was received is what the room sent, in
    /// its order, once. A stay that the room ended because a stanza did not arrive may lack a tail,
    /// but for the room's own end; so may one whose session is gone.
    pub fn verdict(&self) -> Result<(), String> {
        for home in &self.homes {
            let ghost = self.muc.sessions().into_iter().find(|session| home.is_gone(session));
            if let Some(ghost) = ghost.filter(|_| !self.is_left_to_plain(home)) {
                return Err(format!("{ghost} is gone and still in the room"));
            }
            if let Some(session) = home.disturbed.first().filter(|_| !home.has_missed()) {
                return Err(format!("{session} got what the room has not sent"));
            }
            for (session, received) in &home.received {
                // How much of what was received may belong to the stays so far.
                let mut reached = BTreeSet::from([0]);
                for (stay, sent) in self.muc.sent_to(session) {
                    let may_lack = sent.failed
                        || sent.lost_plainly
                        || home.evicted.contains(session)
                        || ((home.has_missed() || self.has_split()) && !self.muc.is_live(stay))
                        || home.is_gone(session);
                    let after: BTreeSet<usize> = reached
                        .iter()
                        .flat_map(|&at| {
                            lengths(&sent, &received[at..], may_lack).map(move |n| at + n)
                        })
                        .collect();
                    if after.is_empty() {
                        return Err(format!(
                            "{session}, stay {stay}: sent {:?}, received from {reached:?} of \
                             {received:?}, may lack: {may_lack}",
                            sent.stanzas
                        ));
                    }
                    reached = after;
                }
                if !reached.contains(&received.len()) {
                    return Err(format!("{session}: never sent after {reached:?}: {received:?}"));
                }
            }
        }
        Ok(())
    }
}

/// How many of the first stanzas received can be those of this stay.
fn lengths(sent: &Sent, received: &[u64], may_lack: bool) -> impl Iterator<Item = usize> + use<> {
    let all = &sent.stanzas;
    let (list, rest) = all.split_at(sent.listed);
    let mut lengths = BTreeSet::new();
    // The list may come in any order, but for the same stanza twice that is no matter.
    let mut open = list.to_vec();
    let of_list = received.iter().take_while(|number| {
        let at = open.iter().position(|listed| listed == *number);
        at.map(|at| open.swap_remove(at)).is_some()
    });
    let of_list = of_list.count();
    let got = &received[of_list..];
    let of_rest = match sent.lost_plainly {
        // As in plain MUC, what follows something lost may still arrive.
        true => {
            let mut rest = rest.iter();
            got.iter().take_while(|got| rest.any(|sent| sent == *got)).count()
        }
        false if of_list < list.len() => 0,
        false => got.iter().zip(rest).take_while(|(got, sent)| got == sent).count(),
    };
    let in_order = of_list + of_rest;
    if in_order == all.len() {
        lengths.insert(in_order);
    }
    if may_lack {
        for n in 0..=in_order {
            lengths.insert(n);
            if received.get(n).is_some() && received.get(n) == all.last() {
                lengths.insert(n + 1);
            }
        }
    }
    lengths.into_iter()
}

/// As a host hands over what it has received.
fn incoming(element: &Element<Payload>, stanzas: &BTreeMap<u64, Stanza>) -> Element<Incoming> {
    Element {
        name: element.name.clone(),
        attrs: element.attrs.clone(),
        children: element.children.iter().map(|child| incoming(child, stanzas)).collect(),
        payload: element.payload.as_ref().map(|payload| {
            let stanza = &stanzas[&number(payload)];
            Incoming {
                facts: stanza.facts,
                from: stanza.from.clone(),
                has_to: false,
                packed: Some(stanza.number.to_be_bytes().into()),
            }
        }),
    }
}

/// Streams are queues.
pub type Stream<T> = VecDeque<T>;
