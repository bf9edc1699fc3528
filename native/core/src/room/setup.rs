//! From plain to linked: who deserves a link, whether it can have one, and the way back.

use std::sync::Arc;

use fastrand::Rng;

use super::Room;
use super::compose::Composer;
use super::domain::{Domain, State};
use super::link::Link;
use super::session::Seat;
use crate::config::Share;
use crate::ops::{LinkAccept, LinkOffer, Op};
use crate::{Action, Actions, Counter, Element, Facts, Incoming, Millis, Payload};

/// Bytes of a set-up's audience; the rest follows as `enter`.
const SETUP_BYTES: usize = 65_536;
/// Bytes of a stanza for a link that carries nothing, such as a report; about, beside its markup.
pub(super) const CONTROL_BYTES: u64 = 200;

impl Room {
    /// Remembers the domain if it has come to deserve a link.
    pub(super) fn consider(&mut self, now: Millis, number: usize) {
        let domain = &self.domains[number];
        if let State::Plain { retry } = domain.state
            && domain.occupants as u64 >= self.shared.config.min_occupants()
        {
            if now >= retry {
                self.candidates.push(number);
            } else {
                self.alarm.by(retry);
            }
        }
    }

    pub(super) fn try_candidates(&mut self, now: Millis, out: &mut Vec<Action>) {
        for number in std::mem::take(&mut self.candidates) {
            let domain = &mut self.domains[number];
            if let State::Plain { retry } = domain.state
                && now >= retry
                && !self.closed
                && domain.occupants as u64 >= self.shared.config.min_occupants()
            {
                let until = now + self.shared.config.setup_timeout();
                domain.state = State::Asking { until };
                domain.reason = "asking whether it speaks dmuc";
                self.alarm.by(until);
                out.push(Action::AskSupport { domain: domain.name.clone() });
            }
        }
    }

    /// The answer to [`Action::AskSupport`].
    /// The answer is `None` if there was none; what [`crate::Support`] remembers is a no then.
    pub fn support(&mut self, now: Millis, domain: &str, yes: impl Into<Option<bool>>) -> Actions {
        let yes = yes.into();
        let mut out = Vec::new();
        if let Some(&number) = self.by_name.get(domain)
            && matches!(self.domains[number].state, State::Asking { .. })
        {
            if yes == Some(true) {
                self.set_up(now, number, &mut out);
            } else {
                // The cache answers most of these questions.
                let domain = &mut self.domains[number];
                domain.failures += 1;
                let wait = domain.back_off(&self.shared.config);
                domain.state =
                    State::Plain { retry: now + wait.min(self.shared.config.support_no()) };
                domain.reason = match yes {
                    Some(_) => "does not speak dmuc",
                    None => "no answer whether it speaks dmuc",
                };
                log::debug!("{}: no link with {}: {}", self.jid, domain.name, domain.reason);
                self.consider(now, number);
            }
        }
        self.give(now, out)
    }

    pub(super) fn set_up(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        let config = &self.shared.config;
        let domain = &mut self.domains[number];
        let epoch: Arc<str> = random_name(&mut self.rng).into();
        let mut link = Domain::new_link(epoch.clone(), &self.shared, now);
        let mut listed = Vec::new();
        let mut len = 0;
        for session in self.sessions.of_domain(number) {
            let session = self.sessions.get_mut(session);
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
        log::debug!(
            "{}: set-up names {} sessions of {}",
            self.jid,
            link.audience.bound(),
            domain.name
        );
        let offer = LinkOffer {
            epoch: epoch.to_string(),
            stream: self.stream.clone(),
            size: link.audience.bound(),
            hold: link.terms.longest_hold(),
            ping: link.terms.ping_interval,
            max_bytes: config.max_envelope_bytes(),
        };
        let mut body = offer.write();
        body.children = listed;
        link.traffic.cost(1, body.markup_len() as u64 + CONTROL_BYTES);
        self.shared.counters.cost(1, body.markup_len() as u64 + CONTROL_BYTES);
        let until = now + config.setup_timeout();
        self.alarm.by(until);
        domain.reason = "set-up under way";
        domain.state = State::SettingUp { id: epoch.to_string(), until, link };
        out.push(Action::Setup { to: domain.name.clone(), id: epoch.to_string(), body });
        self.stir(number);
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
            && let State::SettingUp { id: open, link, .. } = &self.domains[number].state
            && open == id
        {
            let accept = answer
                .and_then(|element| LinkAccept::read(element, link.audience.bound()))
                .filter(|accept| *accept.epoch == *link.epoch && accept.max_bytes >= 4096);
            match accept.and_then(|accept| Some((accept, self.take_set_up(now, number)?))) {
                Some((accept, mut link)) => {
                    link.max_bytes =
                        link.max_bytes.min(usize::try_from(accept.max_bytes).unwrap_or(usize::MAX));
                    link.slots.limit(&self.shared, accept.slots, accept.slot_bytes);
                    link.trees = accept.trees.filter(|_| self.trees.is_some());
                    self.refused_at_once(&mut link, &accept, &mut out);
                    if link.audience.seats.all().is_empty() && link.unlisted.is_empty() {
                        // The replica keeps no link for nobody.
                        let reason = "none of its sessions has asked to be in the room";
                        self.unlink(now, number, reason, &mut out);
                        return self.give(now, out);
                    }
                    let domain = &mut self.domains[number];
                    let round_trip = now.since(link.up_since);
                    log::info!(
                        "{}: link with {} is up: {} sessions, answered in {round_trip} ms",
                        self.jid,
                        domain.name,
                        link.audience.seats.all().len()
                    );
                    self.shared.counters.add(Counter::LinksUp, 1);
                    self.put_out.told(&domain.name);
                    link.traffic.cost(1, CONTROL_BYTES);
                    self.shared.counters.cost(1, CONTROL_BYTES);
                    link.round_trip = Some(round_trip);
                    link.counted = Some(Share::of_link(&self.shared));
                    domain.reason = "linked";
                    link.last_sent = now;
                    link.up_since = now;
                    domain.state = State::Linked(link);
                    self.stir(number);
                    self.watch(number);
                }
                None => self.set_up_failed(
                    now,
                    number,
                    "the set-up was not answered as it should be",
                    &mut out,
                ),
            }
        }
        self.give(now, out)
    }

    /// The set-up was answered with an error, of which these are the conditions.
    pub fn setup_refused(
        &mut self,
        now: Millis,
        domain: &str,
        id: &str,
        conditions: &[&str],
    ) -> Actions {
        let mut out = Vec::new();
        if let Some(&number) = self.by_name.get(domain)
            && let State::SettingUp { id: open, .. } = &self.domains[number].state
            && open == id
        {
            self.set_up_failed(now, number, refusal(conditions), &mut out);
        }
        self.give(now, out)
    }

    /// The set-up under way is given up.
    pub(super) fn set_up_failed(
        &mut self,
        now: Millis,
        number: usize,
        reason: &'static str,
        out: &mut Vec<Action>,
    ) {
        self.shared.counters.add(Counter::SetupsFailed, 1);
        log::debug!("{}: no link with {}: {reason}", self.jid, self.domains[number].name);
        self.abandon(now, number, out);
        self.unlink(now, number, reason, out);
        out.push(Action::ForgetSupport { domain: self.domains[number].name.clone() });
    }

    /// The replica may have said yes, which is late or lost. It is told that there is no such link, or
    /// it would take those for out to whom the room is silent there and speaks plainly.
    pub(super) fn abandon(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        if let Some(mut link) = self.take_set_up(now, number) {
            let mut composer =
                Composer::new(&mut link, &self.domains[number].name, &self.shared, now);
            composer.end();
            out.extend(composer.finish());
            self.domains[number].past += link.traffic;
        }
    }

    /// Nothing is under way any more: the link that was.
    fn take_set_up(&mut self, now: Millis, number: usize) -> Option<Box<Link>> {
        let state = &mut self.domains[number].state;
        match std::mem::replace(state, State::Plain { retry: now }) {
            State::SettingUp { link, .. } => Some(link),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Those whom the replica does not serve are served plainly. Whom it has served before, and knows
    /// no more, may be gone without the room's knowing: he is sent something that his server sends back
    /// then. Others are not, since a client would see what no room has sent.
    fn refused_at_once(&mut self, link: &mut Link, accept: &LinkAccept, out: &mut Vec<Action>) {
        let mut probed = Vec::new();
        for index in &accept.refused {
            self.shared.counters.add(Counter::OccupantsRefused, 1);
            link.audience.seats.leave(index);
            let Some(jid) = link.audience.jid(index).cloned() else { continue };
            if let Some(session) = self.sessions.find_mut(&jid)
                && session.seat == Seat::At(index)
            {
                session.seat = Seat::Refused;
                link.stale.push(index);
                if std::mem::take(&mut session.served) {
                    probed.push(jid);
                }
            }
        }
        if !probed.is_empty() {
            out.push(Action::Plain { payload: self.nothing(), to: probed });
        }
        for (_, jid) in link.audience.jids() {
            if let Some(session) = self.sessions.find_mut(jid) {
                session.served |= matches!(session.seat, Seat::At(_));
            }
        }
    }

    /// A message without content, which clients pass over and servers return if nobody is there.
    fn nothing(&mut self) -> Payload {
        let id = self.next_payload;
        self.next_payload += 1;
        let from = escaped(&self.jid);
        let xml = format!("<message from='{from}' type='groupchat'/>");
        Payload::new(id, xml.into_bytes(), Facts(Facts::MESSAGE | Facts::GROUPCHAT), "", 0)
    }

    /// Back to plain, to be tried again after a while.
    pub(super) fn unlink(
        &mut self,
        now: Millis,
        number: usize,
        reason: &'static str,
        out: &mut Vec<Action>,
    ) {
        let domain = &mut self.domains[number];
        domain.failures += 1;
        let wait = domain.back_off(&self.shared.config);
        let retry = now + (wait - self.rng.u64(0..=wait / 10));
        domain.state = State::Plain { retry };
        domain.reason = reason;
        self.stir(number);
        self.unseat(number);
        self.consider(now, number);
        self.try_candidates(now, out);
    }

    /// Without a link nobody has a place in an audience.
    pub(super) fn unseat(&mut self, number: usize) {
        for session in self.sessions.of_domain(number) {
            let session = self.sessions.get_mut(session);
            if matches!(session.seat, Seat::At(_) | Seat::Refused) {
                session.seat = Seat::None;
            }
        }
    }
}

/// Why a replica does not take a set-up, in words for the operator.
fn refusal(conditions: &[&str]) -> &'static str {
    const REASONS: &[(&str, &str)] = &[
        ("limit", "the replica has reached a limit of its own"),
        ("malformed", "the replica does not understand the set-up"),
        ("remote-server-not-found", "its server cannot be reached"),
        ("remote-server-timeout", "its server does not answer"),
        ("service-unavailable", "its server does not take links for it"),
        ("feature-not-implemented", "its server does not take links for it"),
        ("not-authorized", "its server does not trust the stream"),
        ("forbidden", "its server does not allow it"),
    ];
    let known = REASONS.iter().find(|(condition, _)| conditions.contains(condition));
    known.map_or("the set-up was refused", |(_, reason)| reason)
}

/// A JID as the value of an attribute in single quotes.
fn escaped(jid: &str) -> String {
    jid.replace('&', "&amp;").replace('\'', "&apos;").replace('<', "&lt;")
}

/// Letters and digits of a name: 65 bits, and it is in every envelope.
const NAME: usize = 11;

pub(super) fn random_name(rng: &mut Rng) -> String {
    (0..NAME).map(|_| rng.alphanumeric()).collect()
}
