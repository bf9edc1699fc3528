//! The primary's side of one live room.
//!
//! A [`Room`] belongs to the live room object of the MUC service and ends with it. The host asks
//! [`Room::capture`] about every stanza that the room sends to a remote session; those that it is
//! told to hold it hands over in one [`Room::event`] when the room's event is over. All the rest
//! are inputs from the replicas, the [`Support`](crate::Support) cache and the clock.

mod clock;
mod compose;
mod domain;
mod fates;
mod limb;
mod link;
mod membership;
mod order;
mod places;
mod put_out;
mod reach;
mod repair;
mod session;
mod setup;
mod slots;
mod split;
mod spread;
mod trees;
mod view;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use fastrand::Rng;

use self::compose::{Composer, RoomSequence};
use self::domain::{Domain, State};
use self::put_out::PutOut;
use self::session::{Seat, Sessions};
use self::setup::random_name;
use self::trees::Trees;
use crate::grouping::group;
use crate::time::Alarm;
use crate::{Action, Actions, Counter, Facts, Millis, Payload, PayloadIn, Shared, jid};

/// Why a room cannot be watched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Rooms are known by their bare JID.
    #[error("'{0}' is not the bare JID of a room")]
    NotARoom(String),
}

/// What is to happen to a stanza that the room is about to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Route it as usual.
    Pass,
    /// Route it as usual, and call [`Room::event`] when the event is over, if only with nothing.
    PassPoll,
    /// Do not route it; hand it to [`Room::event`].
    Hold,
}

/// How an envelope came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bounce {
    /// An error received over the server-to-server stream from the replica's domain.
    Refused,
    /// An error made by the own server: the envelope may have arrived.
    Unknown,
}

/// One domain of a room, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainStatus {
    /// The domain.
    pub domain: String,
    /// `plain`, `asking`, `setting up`, `linked`, `split` or `draining`.
    pub state: &'static str,
    /// Epoch of the link, if there is one.
    pub epoch: Option<String>,
    /// Occupants of this domain, by session.
    pub occupants: usize,
    /// Link sequence number of the newest envelope.
    pub seq: u64,
    /// Envelopes that are not acknowledged.
    pub unacked: usize,
    /// Why it is in this state.
    pub reason: &'static str,
}

/// A room as its primary sees it.
#[derive(Debug)]
pub struct Room {
    jid: Arc<str>,
    shared: Arc<Shared>,
    rng: Rng,
    stream: String,
    numbers: RoomSequence,
    sessions: Sessions,
    domains: Vec<Domain>,
    by_name: HashMap<Arc<str>, usize>,
    next_payload: u64,
    /// Id of the first payload of the call under way or the last one.
    call: u64,
    /// What [`Room::recall`] has given since the last event, by id.
    recalled: HashMap<u64, Payload>,
    alarm: Alarm,
    /// Domains that may have come to deserve a link.
    candidates: Vec<usize>,
    /// Sessions that fail and of which the room is still to be told, and when it is told of more.
    to_fail: VecDeque<Arc<str>>,
    fail_at: Option<Millis>,
    /// Sessions that have left while the host makes its list of occupants.
    left_since: Option<HashSet<String>>,
    put_out: PutOut,
    /// `None` if the host has no room trees.
    trees: Option<Box<Trees>>,
    closed: bool,
}

impl Room {
    /// A room without occupants. `seed` must be random: epochs come from it.
    pub fn new(jid: &str, seed: u64, shared: Arc<Shared>) -> Result<Self, Error> {
        if !jid::is_room(jid) {
            return Err(Error::NotARoom(jid.to_owned()));
        }
        let mut rng = Rng::with_seed(seed);
        let stream = random_name(&mut rng);
        Ok(Room {
            jid: jid.into(),
            shared,
            rng,
            stream,
            numbers: RoomSequence::default(),
            sessions: Sessions::default(),
            domains: Vec::new(),
            by_name: HashMap::new(),
            next_payload: 0,
            call: 0,
            recalled: HashMap::new(),
            alarm: Alarm::default(),
            candidates: Vec::new(),
            to_fail: VecDeque::new(),
            fail_at: None,
            left_since: None,
            put_out: PutOut::default(),
            trees: None,
            closed: false,
        })
    }

    /// Position of a payload in the `payloads` of the last [`Room::event`], if it came with it.
    pub fn token_of(&self, payload: &Payload) -> Option<u32> {
        let token = payload.id().checked_sub(self.call)?;
        (payload.id() < self.next_payload).then(|| u32::try_from(token).ok()).flatten()
    }

    /// Asked before each stanza of the room to a remote full JID is routed.
    pub fn capture(&mut self, now: Millis, to: &str, facts: Facts) -> Verdict {
        #[cfg(feature = "planted-faults")]
        crate::planted::capture(to);
        if !jid::is_session(to) {
            return Verdict::Pass;
        }
        if self.closed {
            // Who fails with the room's last link gets nothing but his own end.
            return if self.is_failing(to) { Verdict::Hold } else { Verdict::Pass };
        }
        if let Some(&number) = self.by_name.get(jid::domain(to)) {
            let domain = &self.domains[number];
            if matches!(domain.state, State::Linked(_) | State::Held(_)) {
                return Verdict::Hold;
            }
            let failing = |s: &session::Session| matches!(s.seat, Seat::Failing(_));
            if domain.failing > 0
                && self.sessions.find(to).is_some_and(|n| failing(self.sessions.get(n)))
            {
                return Verdict::Hold;
            }
        }
        self.note(now, to, facts);
        if self.candidates.is_empty() { Verdict::Pass } else { Verdict::PassPoll }
    }

    /// Whether everything for the sessions of a domain is held, so that nobody need ask for each: until
    /// something else than [`Room::capture`] and [`Room::recall`] is called.
    pub fn holds_all(&self, domain: &str) -> bool {
        let state = self.by_name.get(domain).map(|&number| &self.domains[number].state);
        !self.closed && matches!(state, Some(State::Linked(_) | State::Held(_)))
    }

    /// As [`Room::capture`] for one stanza to many; true for those to hold.
    pub fn capture_many(&mut self, now: Millis, to: &[&str], facts: Facts) -> Vec<bool> {
        to.iter().map(|to| self.capture(now, to, facts) == Verdict::Hold).collect()
    }

    /// Asked about a stanza that is held, before it is serialised: the id of an equal one which the
    /// room's side has and the recipient's domain too, to be handed over in its place
    /// ([`PayloadIn::Known`]). `digest` is the stanza's.
    pub fn recall(&mut self, to: &str, digest: u128) -> Option<u64> {
        let number = *self.by_name.get(jid::domain(to))?;
        let State::Linked(link) = &self.domains[number].state else { return None };
        let payload = link.slots.recall(digest)?;
        let id = payload.id();
        self.recalled.insert(id, payload);
        Some(id)
    }

    /// Everything that was held during one event of the room, as (full JID, position in
    /// `payloads`), in the order in which the room sent it.
    pub fn event(
        &mut self,
        now: Millis,
        payloads: Vec<PayloadIn>,
        copies: &[(&str, u32)],
    ) -> Actions {
        #[cfg(feature = "planted-faults")]
        crate::planted::event(&payloads);
        self.call = self.next_payload;
        let mut recalled = std::mem::take(&mut self.recalled);
        let payloads: Vec<Option<Payload>> = payloads
            .into_iter()
            .map(|payload| match payload {
                PayloadIn::New { bytes, facts, nick, digest } => {
                    let id = self.next_payload;
                    self.next_payload += 1;
                    Some(Payload::new(id, bytes, facts, &nick, digest))
                }
                PayloadIn::Known(id) => {
                    // So that a position in `payloads` stays one in ids.
                    self.next_payload += 1;
                    recalled.remove(&id)
                }
            })
            .collect();
        let mut out = Vec::new();
        for domain in self.place_all(now, &payloads, copies, &mut out) {
            self.check_buffer(now, domain, &mut out);
        }
        self.try_candidates(now, &mut out);
        self.give(now, out)
    }

    /// Sends copies, which are (full JID, position in `payloads`), by link or plainly. The domains
    /// concerned.
    fn place_all(
        &mut self,
        now: Millis,
        payloads: &[Option<Payload>],
        copies: &[(&str, u32)],
        out: &mut Vec<Action>,
    ) -> Vec<usize> {
        let mut batch: Vec<(usize, u32)> = Vec::with_capacity(copies.len());
        let mut ending: HashSet<usize> = HashSet::new();
        let mut touched: Vec<usize> = Vec::new();
        if let Some(trees) = &mut self.trees {
            trees.queued.clear();
        }
        for &(to, token) in copies {
            let Some(Some(payload)) = payloads.get(token as usize) else { continue };
            let mut known = self.sessions.find(to);
            if known.is_some_and(|number| ending.contains(&number)) {
                // Something for a session after its own end: it is another's stay, or a stranger's.
                self.send(now, payloads, &mut batch, out);
                ending.clear();
                known = self.sessions.find(to);
            }
            let domain = match known {
                Some(number) => Some(self.sessions.get(number).domain),
                None => self.by_name.get(jid::domain(to)).copied(),
            };
            if touched.last() != domain.as_ref() {
                touched.extend(domain);
            }
            if let Some(number) = self.place(now, to, (known, domain), payload, out) {
                batch.push((number, token));
                if payload.facts().is_own_end() || self.sessions.get(number).passing {
                    ending.insert(number);
                }
            } else if let (Some(trees), Some(domain)) = (&mut self.trees, domain)
                && matches!(self.domains[domain].state, State::Held(_))
            {
                trees.queued.push((domain, payload.clone()));
            }
        }
        self.send(now, payloads, &mut batch, out);
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// Decides how one held copy goes: the number of its session if through a link. `known` and
    /// `domain` are the numbers of the session and of its domain, if they have one.
    fn place(
        &mut self,
        now: Millis,
        to: &str,
        (known, domain): (Option<usize>, Option<usize>),
        payload: &Payload,
        out: &mut Vec<Action>,
    ) -> Option<usize> {
        let facts = payload.facts();
        if let Some(number) = known
            && let Seat::Failing(_) = self.sessions.get(number).seat
        {
            if !facts.is_own_end() {
                return None;
            }
            self.put_out.add(now, to, payload);
        } else if known.is_none() && facts.is_available() {
            self.put_out.remove(to);
        }
        match domain.map(|number| &mut self.domains[number].state) {
            Some(State::Linked(link)) => {
                let full = link.audience.seats.all().len() >= self.shared.config.max_audience();
                let number = match known {
                    Some(number) => number,
                    None if facts.is_available() => {
                        self.note(now, to, facts);
                        self.sessions.find(to)?
                    }
                    None if link.is_leaving(to) => {
                        // Plainly it could overtake the end of the stay before, should that be refused.
                        let domain = domain?;
                        self.domains[domain].occupants += 1;
                        let number = self.sessions.add(to, domain);
                        self.sessions.get_mut(number).passing = true;
                        return Some(number);
                    }
                    None => {
                        self.send_plain(payload, to, out);
                        return None;
                    }
                };
                let session = self.sessions.get_mut(number);
                if session.seat == Seat::None && full {
                    session.seat = Seat::Refused;
                    self.shared.counters.add(Counter::LimitHit, 1);
                }
                if matches!(session.seat, Seat::Refused | Seat::Failing(_)) {
                    self.note(now, to, facts);
                    self.send_plain(payload, to, out);
                    return None;
                }
                Some(number)
            }
            Some(State::Held(hold)) => {
                hold.push(&to.into(), payload);
                // A stay that has failed is not part of the link.
                if known.is_some_and(|n| matches!(self.sessions.get(n).seat, Seat::Failing(_))) {
                    self.note(now, to, facts);
                }
                None
            }
            _ => {
                self.note(now, to, facts);
                self.send_plain(payload, to, out);
                None
            }
        }
    }

    /// Composes and sends what has been collected for linked domains.
    fn send(
        &mut self,
        now: Millis,
        payloads: &[Option<Payload>],
        batch: &mut Vec<(usize, u32)>,
        out: &mut Vec<Action>,
    ) {
        if batch.is_empty() {
            return;
        }
        if self.trees.as_ref().is_some_and(|trees| trees.grown.is_some()) {
            let groups = group(batch);
            batch.clear();
            return self.spread(now, payloads, groups, out);
        }
        // For each domain its part of each group: (number of the group, payload, sessions).
        type Parts<'p> = Vec<(usize, &'p Payload, Vec<usize>)>;
        let mut of_domain: Vec<(usize, Parts<'_>)> = Vec::new();
        let mut position: HashMap<usize, usize> = HashMap::new();
        let mut gone = Vec::new();
        let groups = group(batch);
        self.numbers.start_event(groups.len());
        for (nth, group) in groups.into_iter().enumerate() {
            let Some(payload) = &payloads[group.payload as usize] else { continue };
            for number in group.to {
                let session = self.sessions.get(number);
                if payload.facts().is_own_end() || session.passing {
                    gone.push(number);
                }
                let at = *position.entry(session.domain).or_insert_with(|| {
                    of_domain.push((session.domain, Vec::new()));
                    of_domain.len() - 1
                });
                let parts = &mut of_domain[at].1;
                match parts.last_mut() {
                    Some((last, _, members)) if *last == nth => members.push(number),
                    _ => parts.push((nth, payload, vec![number])),
                }
            }
        }
        batch.clear();
        for (number, groups) in of_domain {
            let domain = &mut self.domains[number];
            let State::Linked(link) = &mut domain.state else { continue };
            let stance = link.stance();
            let mut composer = Composer::new(link, &domain.name, &self.shared, now);
            let mut groups = groups.into_iter();
            let oversize = groups.by_ref().find(|(nth, payload, members)| {
                !composer.group(payload, *nth, members, &mut self.sessions, &self.numbers)
            });
            if let Some(first) = oversize {
                composer.end();
                out.extend(composer.finish());
                self.shared.counters.add(Counter::Oversize, 1);
                let until = now + link.terms.ack_timeout;
                self.alarm.by(until);
                domain.finish(&self.jid, until, "a stanza was too large for an envelope");
                let State::Held(hold) = &mut domain.state else { continue };
                for (_, payload, members) in std::iter::once(first).chain(groups) {
                    for number in members {
                        hold.push(&self.sessions.get(number).jid, payload);
                    }
                }
                self.stir(number);
                continue;
            }
            out.extend(composer.finish());
            if link.stance() != stance {
                self.stir(number);
            }
            self.watch(number);
        }
        for number in gone {
            self.forget(number);
        }
    }

    /// A session that is no occupant has sent an available presence that does not ask to enter, without the
    /// `<x/>` of XEP-0045, which some rooms take for a join. If it was put out over a stream that was
    /// broken it may not know: then it is told again, and this presence is to be dropped. No actions
    /// otherwise.
    pub fn unasked(&mut self, now: Millis, session: &str) -> Actions {
        let mut out = Vec::new();
        if let Some(end) = self.put_out.get(now, session) {
            self.send_plain(&end, session, &mut out);
        }
        self.give(now, out)
    }

    fn send_plain(&mut self, payload: &Payload, to: &str, out: &mut Vec<Action>) {
        self.shared.counters.add(Counter::CopiesPlain, 1);
        // It comes back if nobody is there.
        if let Some(session) = self.sessions.find_mut(to) {
            session.served = false;
        }
        if let Some(Action::Plain { payload: last, to: list }) = out.last_mut()
            && last.id() == payload.id()
        {
            list.push(to.into());
            return;
        }
        out.push(Action::Plain { payload: payload.clone(), to: vec![to.into()] });
    }

    /// Takes note of a stanza that goes, or will go, plainly: who enters and who leaves.
    fn note(&mut self, now: Millis, to: &str, facts: Facts) {
        if let Some(left) = &mut self.left_since {
            if facts.is_own_end() {
                left.insert(to.to_owned());
            } else if facts.is_available() {
                left.remove(to);
            }
        }
        if facts.is_available() {
            let number = match self.sessions.find(to) {
                Some(number) => number,
                None => {
                    let domain = self.domain(jid::domain(to));
                    self.domains[domain].occupants += 1;
                    self.consider(now, domain);
                    self.put_out.remove(to);
                    self.sessions.add(to, domain)
                }
            };
            let session = self.sessions.get_mut(number);
            session.learn(facts);
            session.entering &= !facts.is_own_available();
            session.served &= !facts.is_own_available();
        } else if facts.is_own_end()
            && let Some(number) = self.sessions.find(to)
        {
            self.forget(number);
        }
    }

    fn forget(&mut self, number: usize) {
        let session = self.sessions.remove(number);
        if let Some(left) = &mut self.left_since {
            left.insert(session.jid.to_string());
        }
        let domain = &mut self.domains[session.domain];
        domain.occupants -= 1;
        if matches!(session.seat, Seat::Failing(_)) {
            domain.failing -= 1;
        }
        // A place in a set-up under way is taken leave of when the link is up.
        if let (State::SettingUp { link, .. }, Seat::At(index)) = (&mut domain.state, session.seat)
        {
            link.stale.push(index);
        }
    }

    fn domain(&mut self, name: &str) -> usize {
        if let Some(&number) = self.by_name.get(name) {
            return number;
        }
        let domain = Domain::new(name);
        self.by_name.insert(domain.name.clone(), self.domains.len());
        self.domains.push(domain);
        self.domains.len() - 1
    }

    /// dmuc starts to watch a room that is live already, and its host is about to make a list of the
    /// occupants. What [`Room::capture`] sees from here on is newer than that list.
    pub fn occupants_asked(&mut self) {
        self.left_since = Some(HashSet::new());
    }

    /// Full JIDs of the remote occupants of a room that is live already. Sessions that the room is
    /// known to have stay as they are; those that have left since [`Room::occupants_asked`] are out.
    pub fn occupants(&mut self, now: Millis, sessions: &[&str]) -> Actions {
        let left = self.left_since.take().unwrap_or_default();
        for session in sessions {
            if jid::is_session(session) && !left.contains(*session) {
                self.note(now, session, Facts(Facts::PRESENCE | Facts::NICK));
                if let Some(session) = self.sessions.find_mut(session) {
                    session.entering = false;
                }
            }
        }
        let mut out = Vec::new();
        self.try_candidates(now, &mut out);
        self.give(now, out)
    }

    /// One entry for each domain with occupants or a link.
    pub fn status(&self) -> Vec<DomainStatus> {
        self.domains
            .iter()
            .filter(|domain| domain.occupants > 0 || domain.link().is_some())
            .map(|domain| DomainStatus {
                domain: domain.name.to_string(),
                state: domain.state_name(),
                epoch: domain.link().map(|link| link.epoch.to_string()),
                occupants: domain.occupants,
                seq: domain.link().map_or(0, |link| link.next_seq - 1),
                unacked: domain.link().map_or(0, |link| link.sent.len()),
                reason: domain.reason,
            })
            .collect()
    }

    /// The room's bare JID.
    pub fn jid(&self) -> &str {
        &self.jid
    }

    fn give(&mut self, now: Millis, mut list: Vec<Action>) -> Actions {
        if self.trees.is_some() {
            self.tend(now, &mut list);
        }
        // What the room sends upon it comes after everything that is here, for any domain.
        list.sort_by_key(|action| matches!(action, Action::Fail { .. }));
        Actions { list, relays: Vec::new(), wake: self.alarm.take() }
    }
}
