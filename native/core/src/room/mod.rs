//! The primary's side of one live room.
//!
//! A [`Room`] belongs to the live room object of the MUC service and ends with it. The host asks
//! [`Room::capture`] about every stanza that the room sends to a remote session; those that it is
//! told to hold it hands over in one [`Room::event`] when the room's event is over. All the rest
//! are inputs from the replicas, the [`Support`](crate::Support) cache and the clock.

mod compose;
mod domain;
mod link;
mod session;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use fastrand::Rng;
use roaring::RoaringBitmap;

use self::compose::{Composer, RoomSequence};
use self::domain::{Domain, Drain, State};
pub use self::link::is_envelope_id;
use self::link::{Fate, Link};
use self::session::{Seat, Sessions};
use crate::grouping::group;
use crate::ops::{LinkAccept, LinkOffer, Op, Refused, Report};
use crate::time::Alarm;
use crate::{
    Action, Actions, Config, Counter, Element, Facts, Incoming, Millis, Payload, PayloadIn, Shared,
    jid,
};

/// Time after which a session that the room did not remove on [`Action::Fail`] is served plainly.
const FAIL_TIMEOUT: u64 = 30_000;
/// Time after which a link that is acknowledged counts as sound: the next failure is a first one.
const SETTLED: u64 = 60_000;
/// Shortest time before a domain that said no is asked again.
const ASK_AGAIN: u64 = 60_000;
/// Bytes of a set-up's audience; the rest follows as `enter`.
const SETUP_BYTES: usize = 65_536;

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
    /// `plain`, `asking`, `setting up`, `linked` or `draining`.
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
    alarm: Alarm,
    /// Domains that may have come to deserve a link.
    candidates: Vec<usize>,
    /// Sessions that have left while the host makes its list of occupants.
    left_since: Option<HashSet<String>>,
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
            alarm: Alarm::default(),
            candidates: Vec::new(),
            left_since: None,
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
        if self.closed || !jid::is_session(to) {
            return Verdict::Pass;
        }
        if let Some(&number) = self.by_name.get(jid::domain(to)) {
            let domain = &self.domains[number];
            if matches!(domain.state, State::Linked(_) | State::Draining(_)) {
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

    /// As [`Room::capture`] for one stanza to many; true for those to hold.
    pub fn capture_many(&mut self, now: Millis, to: &[&str], facts: Facts) -> Vec<bool> {
        to.iter().map(|to| self.capture(now, to, facts) == Verdict::Hold).collect()
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
        let payloads: Vec<Payload> = payloads
            .into_iter()
            .map(|payload| {
                self.next_payload += 1;
                Payload::new(self.next_payload - 1, payload)
            })
            .collect();
        let mut out = Vec::new();
        let mut batch: Vec<(usize, u32)> = Vec::new();
        let mut ending: HashSet<usize> = HashSet::new();
        for &(to, token) in copies {
            let Some(payload) = payloads.get(token as usize) else { continue };
            if self.sessions.find(to).is_some_and(|number| ending.contains(&number)) {
                // Something for a session after its own end: it is another's stay, or a stranger's.
                self.send(now, &payloads, &mut batch, &mut out);
                ending.clear();
            }
            if let Some(number) = self.place(now, to, payload, &mut out) {
                batch.push((number, token));
                if payload.facts().is_own_end() || self.sessions.get(number).passing {
                    ending.insert(number);
                }
            }
        }
        self.send(now, &payloads, &mut batch, &mut out);
        self.check_buffers(now, copies, &mut out);
        self.try_candidates(now, &mut out);
        self.give(out)
    }

    /// Decides how one held copy goes: the number of its session if through a link.
    fn place(
        &mut self,
        now: Millis,
        to: &str,
        payload: &Payload,
        out: &mut Vec<Action>,
    ) -> Option<usize> {
        let facts = payload.facts();
        let domain = self.by_name.get(jid::domain(to)).copied();
        let known = self.sessions.find(to);
        if let Some(number) = known
            && let Seat::Failing(_) = self.sessions.get(number).seat
            && !facts.is_own_end()
        {
            return None;
        }
        match domain.map(|number| &mut self.domains[number].state) {
            Some(State::Linked(link)) => {
                let full = link.audience.seats.all().len() >= self.shared.config.max_audience;
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
            Some(State::Draining(drain)) => {
                drain.push(&to.into(), payload);
                self.note(now, to, facts);
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
        payloads: &[Payload],
        batch: &mut Vec<(usize, u32)>,
        out: &mut Vec<Action>,
    ) {
        if batch.is_empty() {
            return;
        }
        // For each domain its part of each group: (number of the group, payload, sessions).
        type Parts = Vec<(usize, u32, Vec<usize>)>;
        let mut of_domain: Vec<(usize, Parts)> = Vec::new();
        let mut position: HashMap<usize, usize> = HashMap::new();
        let mut gone = Vec::new();
        let groups = group(batch);
        self.numbers.start_event(groups.len());
        for (nth, group) in groups.into_iter().enumerate() {
            let mut parts: HashMap<usize, Vec<usize>> = HashMap::new();
            for number in group.to {
                let session = self.sessions.get(number);
                parts.entry(session.domain).or_default().push(number);
                if payloads[group.payload as usize].facts().is_own_end() || session.passing {
                    gone.push(number);
                }
            }
            for (domain, members) in parts {
                let at = *position.entry(domain).or_insert_with(|| {
                    of_domain.push((domain, Vec::new()));
                    of_domain.len() - 1
                });
                of_domain[at].1.push((nth, group.payload, members));
            }
        }
        batch.clear();
        for (number, groups) in of_domain {
            let domain = &mut self.domains[number];
            let State::Linked(link) = &mut domain.state else { continue };
            let mut composer = Composer::new(link, &domain.name, &self.shared, now);
            let mut groups = groups.into_iter();
            let oversize = groups.by_ref().find(|(nth, token, members)| {
                let payload = &payloads[*token as usize];
                !composer.group(payload, *nth, members, &mut self.sessions, &self.numbers)
            });
            if let Some(first) = oversize {
                composer.end();
                out.extend(composer.finish());
                self.shared.counters.add(Counter::Oversize, 1);
                let until = now + self.shared.config.ack_timeout;
                self.alarm.by(until);
                domain.drain(&self.jid, until, "a stanza was too large for an envelope");
                let State::Draining(drain) = &mut domain.state else { continue };
                for (_, token, members) in std::iter::once(first).chain(groups) {
                    for number in members {
                        drain.push(&self.sessions.get(number).jid, &payloads[token as usize]);
                    }
                }
                continue;
            }
            out.extend(composer.finish());
            self.watch(number);
        }
        for number in gone {
            self.forget(number);
        }
    }

    fn send_plain(&self, payload: &Payload, to: &str, out: &mut Vec<Action>) {
        self.shared.counters.add(Counter::CopiesPlain, 1);
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
                    self.sessions.add(to, domain)
                }
            };
            self.sessions.get_mut(number).learn(facts);
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

    /// Remembers the domain if it has come to deserve a link.
    fn consider(&mut self, now: Millis, number: usize) {
        let domain = &self.domains[number];
        if let State::Plain { retry } = domain.state
            && domain.occupants as u64 >= self.shared.config.min_occupants
        {
            if now >= retry {
                self.candidates.push(number);
            } else {
                self.alarm.by(retry);
            }
        }
    }

    fn try_candidates(&mut self, now: Millis, out: &mut Vec<Action>) {
        for number in std::mem::take(&mut self.candidates) {
            let domain = &mut self.domains[number];
            if let State::Plain { retry } = domain.state
                && now >= retry
                && !self.closed
                && domain.occupants as u64 >= self.shared.config.min_occupants
            {
                let until = now + self.shared.config.setup_timeout;
                domain.state = State::Asking { until };
                domain.reason = "asking whether it speaks dmuc";
                self.alarm.by(until);
                out.push(Action::AskSupport { domain: domain.name.clone() });
            }
        }
    }

    /// The answer to [`Action::AskSupport`].
    pub fn support(&mut self, now: Millis, domain: &str, yes: bool) -> Actions {
        let mut out = Vec::new();
        if let Some(&number) = self.by_name.get(domain)
            && matches!(self.domains[number].state, State::Asking { .. })
        {
            if yes {
                self.set_up(now, number, &mut out);
            } else {
                // The cache answers most of these questions.
                let domain = &mut self.domains[number];
                domain.failures += 1;
                let wait = domain.back_off(&self.shared.config).max(ASK_AGAIN);
                domain.state =
                    State::Plain { retry: now + wait.min(self.shared.config.support_no) };
                domain.reason = "does not speak dmuc";
                self.consider(now, number);
            }
        }
        self.give(out)
    }

    fn set_up(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        let config = &self.shared.config;
        let domain = &mut self.domains[number];
        let epoch: Arc<str> = random_name(&mut self.rng).into();
        let mut link = Domain::new_link(epoch.clone(), config, now);
        let mut listed = Vec::new();
        let mut len = 0;
        for session in self.sessions.of_domain(number) {
            if matches!(session.seat, Seat::Failing(_)) {
                continue;
            }
            let index = link.audience.allot(session.jid.clone());
            session.seat = Seat::At(index);
            let enter =
                Op::<Payload>::Enter { index, jid: session.jid.clone(), class: session.class };
            let enter = enter.write();
            len += enter.markup_len();
            if len <= SETUP_BYTES {
                link.audience.seats.enter(index, session.class);
                listed.push(enter);
            } else {
                link.unlisted.push_back((index, session.class));
            }
        }
        let offer = LinkOffer {
            epoch: epoch.to_string(),
            stream: self.stream.clone(),
            size: link.audience.bound(),
            hold: config.hold_time,
            ping: config.ping_interval,
            max_bytes: config.max_envelope_bytes,
        };
        let mut body = offer.write();
        body.children = listed;
        let until = now + config.setup_timeout;
        self.alarm.by(until);
        domain.reason = "set-up under way";
        domain.state = State::SettingUp { id: epoch.to_string(), until, link };
        out.push(Action::Setup { to: domain.name.clone(), id: epoch.to_string(), body });
    }

    /// The answer to [`Action::Setup`]; `None` for an error or no answer.
    pub fn setup_result(
        &mut self,
        now: Millis,
        domain: &str,
        id: &str,
        answer: Option<&Element<Incoming>>,
    ) -> Actions {
        let mut out = Vec::new();
        if let Some(&number) = self.by_name.get(domain)
            && matches!(&self.domains[number].state, State::SettingUp { id: open, .. } if open == id)
        {
            let domain = &mut self.domains[number];
            let State::SettingUp { mut link, .. } =
                std::mem::replace(&mut domain.state, State::Plain { retry: now })
            else {
                return self.give(out);
            };
            let accept = answer
                .and_then(|element| LinkAccept::read(element, link.audience.bound()))
                .filter(|accept| *accept.epoch == *link.epoch && accept.max_bytes >= 4096);
            match accept {
                Some(accept) => {
                    link.max_bytes =
                        link.max_bytes.min(usize::try_from(accept.max_bytes).unwrap_or(usize::MAX));
                    for index in accept.refused {
                        self.shared.counters.add(Counter::OccupantsRefused, 1);
                        link.audience.seats.leave(index);
                        if let Some(jid) = link.audience.jid(index)
                            && let Some(session) = self.sessions.find_mut(jid)
                            && session.seat == Seat::At(index)
                        {
                            session.seat = Seat::Refused;
                            link.stale.push(index);
                        }
                    }
                    log::info!("{}: link with {} is up", self.jid, domain.name);
                    self.shared.counters.add(Counter::LinksUp, 1);
                    domain.reason = "linked";
                    link.last_sent = now;
                    link.up_since = now;
                    domain.state = State::Linked(link);
                    self.watch(number);
                }
                None => {
                    self.shared.counters.add(Counter::SetupsFailed, 1);
                    self.unlink(now, number, "set-up refused or unanswered", &mut out);
                    out.push(Action::ForgetSupport { domain: self.domains[number].name.clone() });
                }
            }
        }
        self.give(out)
    }

    /// Back to plain, to be tried again after a while.
    fn unlink(&mut self, now: Millis, number: usize, reason: &'static str, out: &mut Vec<Action>) {
        let domain = &mut self.domains[number];
        domain.failures += 1;
        let wait = domain.back_off(&self.shared.config);
        let retry = now + (wait - self.rng.u64(0..=wait / 10));
        domain.state = State::Plain { retry };
        domain.reason = reason;
        for session in self.sessions.of_domain(number) {
            if matches!(session.seat, Seat::At(_) | Seat::Refused) {
                session.seat = Seat::None;
            }
        }
        self.consider(now, number);
        self.try_candidates(now, out);
    }

    /// A `<report/>` or `<announce/>` received over a server-to-server stream from `domain`.
    pub fn report(&mut self, now: Millis, domain: &str, element: &Element<Incoming>) -> Actions {
        let mut out = Vec::new();
        let number = self.by_name.get(domain).copied();
        match (element.name.as_str(), number) {
            // Of a domain without occupants there is nothing to remember.
            ("announce", None) => {}
            ("announce", Some(number)) => {
                let last = self.domains[number].announced;
                if last.is_none_or(|last| now.since(last) >= self.shared.config.retry_min) {
                    self.domains[number].announced = Some(now);
                    out.push(Action::SupportSeen { domain: domain.into() });
                    self.announced(now, number, &mut out);
                }
            }
            ("report", Some(number)) => match Report::read(element) {
                Some(report) => self.reported(now, number, &report, &mut out),
                None => self.shared.counters.add(Counter::BadReports, 1),
            },
            _ => self.shared.counters.add(Counter::BadReports, 1),
        }
        self.give(out)
    }

    fn announced(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        let domain = &mut self.domains[number];
        match &mut domain.state {
            State::Plain { .. } | State::Asking { .. } => {
                domain.state = State::Plain { retry: now };
                domain.failures = 0;
                if domain.occupants as u64 >= self.shared.config.min_occupants && !self.closed {
                    self.set_up(now, number, out);
                }
            }
            State::Draining(drain) => drain.announced = true,
            State::SettingUp { .. } | State::Linked(_) => {}
        }
    }

    fn reported(&mut self, now: Millis, number: usize, report: &Report, out: &mut Vec<Action>) {
        let domain = &mut self.domains[number];
        let link = match &mut domain.state {
            State::Linked(link) => link,
            State::Draining(drain) => &mut drain.link,
            // What was under way when the link ended.
            _ if domain.last_epoch.as_deref() == Some(&*report.epoch) => return,
            _ => return self.shared.counters.add(Counter::BadReports, 1),
        };
        if *link.epoch != *report.epoch || report.ack >= link.next_seq {
            return self.shared.counters.add(Counter::BadReports, 1);
        }
        let mut plain = Vec::new();
        for &Refused { number, seq, index } in &report.refused {
            // Refusals are repeated until an envelope has said how many were acted on.
            if number == link.refusals + 1 {
                refuse_index(link, &mut self.sessions, seq, index, &mut plain);
                link.refusals += 1;
                self.shared.counters.add(Counter::OccupantsRefused, 1);
            }
        }
        link.acknowledge(report.ack);
        if now.since(link.up_since) >= SETTLED {
            domain.failures = 0;
        }
        if report.bye {
            link.decide_rest(Fate::Refused);
            domain.drain(&self.jid, now, "the replica has taken its leave");
        }
        // At once, also while draining: the replica handles envelopes in order, so everything before
        // the one it refuses has been handled, and all else for this session is still held here.
        for (jid, payload) in plain {
            self.send_plain(&payload, &jid, out);
        }
        self.settle(now, number, out);
    }

    /// An error stanza from `domain` with the id of an envelope. What it holds is not looked at.
    pub fn bounced(&mut self, now: Millis, domain: &str, id: &str, how: Bounce) -> Actions {
        let mut out = Vec::new();
        if let Some(&number) = self.by_name.get(domain)
            && let Some((epoch, seq)) = link::parse_id(id)
        {
            let (fate, wait, reason) = match how {
                Bounce::Refused => {
                    (Fate::Refused, self.shared.config.fate_timeout, "an envelope was refused")
                }
                Bounce::Unknown => {
                    (Fate::Unknown, self.shared.config.hold_time, "the stream is broken")
                }
            };
            let domain = &mut self.domains[number];
            if domain.decide(epoch, seq, fate) {
                self.shared.counters.add(
                    match how {
                        Bounce::Refused => Counter::EnvelopesRefused,
                        Bounce::Unknown => Counter::EnvelopesUnknown,
                    },
                    1,
                );
                domain.drain(&self.jid, now + wait, reason);
                self.alarm.by(now + wait);
                self.settle(now, number, &mut out);
            }
        }
        self.give(out)
    }

    /// Ends a draining link if every envelope has its fate: sends what was refused and what was
    /// queued as plain copies, and gives up those whose stanzas may or may not have arrived.
    fn settle(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        let domain = &mut self.domains[number];
        let State::Draining(Drain { link, .. }) = &domain.state else { return };
        if !link.is_decided() {
            return;
        }
        let State::Draining(drain) =
            std::mem::replace(&mut domain.state, State::Plain { retry: now })
        else {
            return;
        };
        self.shared.counters.add(Counter::LinksDown, 1);
        let Drain { link, queue, announced, .. } = drain;
        let reason = domain.reason;
        domain.last_epoch = Some(link.epoch.clone());
        let was_refused = link.sent.iter().any(|sent| sent.fate == Some(Fate::Refused));
        let failed = unknown(&link);
        let (failing, muted) = self.fail(now, number, &link, &failed);
        self.resend(&link, &failed, queue, muted, out);
        if !failing.is_empty() {
            // After the plain copies: the room's own stanzas about it come after what it sent before.
            out.push(Action::Fail { to: failing });
        }
        self.unlink(now, number, reason, out);
        if announced {
            self.announced(now, number, out);
        } else if was_refused {
            out.push(Action::ForgetSupport { domain: self.domains[number].name.clone() });
        }
    }

    /// Marks those whose stanzas may or may not have arrived. Returns the sessions that the room is to
    /// be told of, and the JIDs of all whose stay that has lost its thread may go on in the queue.
    fn fail(
        &mut self,
        now: Millis,
        number: usize,
        link: &Link,
        failed: &RoaringBitmap,
    ) -> (Vec<Arc<str>>, HashSet<Arc<str>>) {
        let departed: RoaringBitmap =
            link.sent.iter().flat_map(|sent| sent.departed.iter().copied()).collect();
        let mut muted = HashSet::new();
        let mut failing = Vec::new();
        // A stay that had ended before is over either way.
        for index in failed - departed {
            let Some(jid) = link.audience.jid(index).cloned() else { continue };
            if let Some(session) = self.sessions.find_mut(&jid)
                && session.seat == Seat::At(index)
            {
                session.seat = Seat::Failing(now + FAIL_TIMEOUT);
                failing.push(jid.clone());
            }
            muted.insert(jid);
        }
        if !failing.is_empty() {
            self.domains[number].failing += failing.len();
            self.alarm.by(now + FAIL_TIMEOUT);
            self.shared.counters.add(Counter::OccupantsFailed, failing.len() as u64);
        }
        (failing, muted)
    }

    /// Sends plainly what was refused, then what has been queued since. A muted session gets nothing
    /// of its broken stay but the end.
    fn resend(
        &mut self,
        link: &Link,
        failed: &RoaringBitmap,
        queue: VecDeque<(Arc<str>, Payload)>,
        mut muted: HashSet<Arc<str>>,
        out: &mut Vec<Action>,
    ) {
        let refused = link.sent.iter().filter(|sent| sent.fate == Some(Fate::Refused));
        for (payload, set) in refused.flat_map(|sent| &sent.deliveries) {
            let ends = payload.facts().is_own_end();
            for index in set.iter().filter(|index| ends || !failed.contains(*index)) {
                if let Some(jid) = link.audience.jid(index) {
                    self.send_plain(payload, jid, out);
                }
            }
        }
        for (jid, payload) in queue {
            let ends = payload.facts().is_own_end();
            if !muted.contains(&jid) || ends {
                self.send_plain(&payload, &jid, out);
            }
            if ends {
                muted.remove(&jid);
            }
        }
    }

    /// Splits links whose buffers are full.
    fn check_buffers(&mut self, now: Millis, copies: &[(&str, u32)], out: &mut Vec<Action>) {
        let touched: HashSet<usize> = copies
            .iter()
            .filter_map(|(to, _)| self.by_name.get(jid::domain(to)).copied())
            .collect();
        for number in touched {
            let config = &self.shared.config;
            let domain = &mut self.domains[number];
            let full = match &domain.state {
                State::Linked(link) => {
                    link.copies > config.max_unacked_copies || link.bytes > config.max_unacked_bytes
                }
                State::Draining(drain) => drain.is_full(config),
                _ => false,
            };
            if full {
                self.shared.counters.add(Counter::BufferFull, 1);
                domain.drain(&self.jid, now, "the buffer of the link is full");
                self.give_up(now, number, out);
            }
        }
    }

    fn give_up(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        if let State::Draining(drain) = &mut self.domains[number].state {
            drain.link.decide_rest(Fate::Unknown);
            self.settle(now, number, out);
        }
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
            }
        }
        let mut out = Vec::new();
        self.try_candidates(now, &mut out);
        self.give(out)
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Millis) -> Actions {
        self.alarm.ring();
        let mut out = Vec::new();
        for number in 0..self.domains.len() {
            self.tick_domain(now, number, &mut out);
        }
        self.try_candidates(now, &mut out);
        self.give(out)
    }

    fn tick_domain(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        if self.domains[number].failing > 0 {
            self.release_failing(now, number);
        }
        let config = &self.shared.config;
        let domain = &mut self.domains[number];
        match &mut domain.state {
            State::Plain { .. } => self.consider(now, number),
            State::Asking { until } if now >= *until => {
                domain.state = State::Plain { retry: now + config.retry_max.min(60_000) };
                domain.reason = "no answer whether it speaks dmuc";
                self.consider(now, number);
            }
            State::SettingUp { until, .. } if now >= *until => {
                self.shared.counters.add(Counter::SetupsFailed, 1);
                self.unlink(now, number, "set-up unanswered", out);
                out.push(Action::ForgetSupport { domain: self.domains[number].name.clone() });
            }
            State::Draining(drain) if now >= drain.until => self.give_up(now, number, out),
            State::Asking { until } | State::SettingUp { until, .. } => self.alarm.by(*until),
            State::Draining(drain) => self.alarm.by(drain.until),
            State::Linked(link) => {
                let oldest = link.sent.front().map(|sent| sent.at);
                if oldest.is_some_and(|at| now >= at + config.ack_timeout) {
                    domain.drain(&self.jid, now, "the replica has stopped acknowledging");
                    return self.give_up(now, number, out);
                }
                if now >= probe_time(link, config) {
                    if link.audience.seats.all().is_empty() && link.sent.is_empty() {
                        return self.end(now, number, "no occupants left", out);
                    }
                    out.extend(Composer::new(link, &domain.name, &self.shared, now).probe());
                }
                self.watch(number);
            }
        }
    }

    /// Wakes up when a link is to be probed or given up.
    fn watch(&mut self, number: usize) {
        let config = &self.shared.config;
        if let State::Linked(link) = &self.domains[number].state {
            self.alarm.by(probe_time(link, config));
            if let Some(oldest) = link.sent.front() {
                self.alarm.by(oldest.at + config.ack_timeout);
            }
        }
    }

    /// A room that did not take the word for it keeps the occupant: serve it plainly.
    fn release_failing(&mut self, now: Millis, number: usize) {
        for session in self.sessions.numbers_of_domain(number) {
            let session = self.sessions.get_mut(session);
            if let Seat::Failing(until) = session.seat {
                if now >= until {
                    session.seat = Seat::Refused;
                    self.domains[number].failing -= 1;
                } else {
                    self.alarm.by(until);
                }
            }
        }
    }

    /// Ends a link in an orderly way.
    fn end(&mut self, now: Millis, number: usize, reason: &'static str, out: &mut Vec<Action>) {
        let domain = &mut self.domains[number];
        if let State::Linked(link) = &mut domain.state {
            let mut composer = Composer::new(link, &domain.name, &self.shared, now);
            composer.end();
            out.extend(composer.finish());
            log::info!("{}: link with {} ends: {reason}", self.jid, domain.name);
            self.shared.counters.add(Counter::LinksDown, 1);
            domain.last_epoch = domain.link().map(|link| link.epoch.clone());
            domain.state = State::Plain { retry: now };
            domain.reason = reason;
            for session in self.sessions.of_domain(number) {
                if matches!(session.seat, Seat::At(_) | Seat::Refused) {
                    session.seat = Seat::None;
                }
            }
        }
    }

    /// dmuc stops watching: every link ends and everything that waits goes plainly.
    pub fn close(&mut self, now: Millis) -> Actions {
        self.closed = true;
        let mut out = Vec::new();
        for number in 0..self.domains.len() {
            self.end(now, number, "the room is no longer watched", &mut out);
            // Nobody will be here to hear of other fates; on a sound stream there are none.
            if let State::Draining(drain) = &mut self.domains[number].state {
                drain.link.sent.retain(|sent| sent.fate.is_some());
                self.settle(now, number, &mut out);
            }
        }
        self.give(out)
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

    fn give(&mut self, list: Vec<Action>) -> Actions {
        Actions { list, wake: self.alarm.take() }
    }
}

/// Indexes to which something of unknown fate was sent.
fn unknown(link: &Link) -> RoaringBitmap {
    let sent = link.sent.iter().filter(|sent| sent.fate == Some(Fate::Unknown));
    sent.flat_map(|sent| &sent.deliveries).fold(RoaringBitmap::new(), |all, (_, set)| all | set)
}

/// When a link wants a probe: sooner if something on it is not acknowledged.
fn probe_time(link: &Link, config: &Config) -> Millis {
    let wait = if link.sent.is_empty() { config.ping_interval } else { config.probe_after };
    link.last_sent + wait.min(config.ping_interval)
}

/// The replica does not serve `index` from envelope `seq` on: gives back what it has missed.
fn refuse_index(
    link: &mut Link,
    sessions: &mut Sessions,
    seq: u64,
    index: u32,
    plain: &mut Vec<(Arc<str>, Payload)>,
) {
    let Some(jid) = link.audience.jid(index).cloned() else { return };
    for sent in link.sent.iter_mut().filter(|sent| sent.seq >= seq) {
        for (payload, set) in &mut sent.deliveries {
            if set.remove(index) {
                sent.copies -= 1;
                link.copies -= 1;
                plain.push((jid.clone(), payload.clone()));
            }
        }
    }
    link.audience.seats.leave(index);
    if let Some(session) = sessions.find_mut(&jid)
        && session.seat == Seat::At(index)
    {
        session.seat = Seat::Refused;
        // So that both ends can forget the index.
        link.stale.push(index);
    }
}

fn random_name(rng: &mut Rng) -> String {
    (0..16).map(|_| rng.alphanumeric()).collect()
}
