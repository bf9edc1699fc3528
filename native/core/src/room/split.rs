//! A link whose stream has broken: everything waits, the replica is asked how far it has come, and
//! the link goes on from there.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::domain::{Hold, State};
use super::link::Terms;
use super::setup::{CONTROL_BYTES, random_name};
use super::{Bounce, Room};
use crate::ops::{LinkOffer, Report, Resume};
use crate::{Action, Counter, Millis, Payload};

/// Longest time between two questions.
const MOST_WAIT: u64 = 20_000;
/// Shortest time between two questions, if a sign of life comes in between.
const LEAST_WAIT: u64 = 1000;

/// How late an error may be that has come by another stream.
const LATE: u64 = 1000;

impl Room {
    /// Takes a link for broken and asks its replica at once.
    pub(super) fn split(
        &mut self,
        now: Millis,
        number: usize,
        reason: &'static str,
        out: &mut Vec<Action>,
    ) {
        let Some(hold) = self.domains[number].link().map(|link| link.terms.hold_time) else {
            return;
        };
        let until = now + hold;
        if let Some(until) = self.domains[number].split(&self.jid, now, until, reason) {
            self.shared.counters.add(Counter::LinksSplit, 1);
            self.is_gone(number);
            // It may have been waited for long enough before: the next tick is its end.
            self.alarm.by(until.max(now + 1));
            if now < until {
                self.ask(now, number, out);
            }
        }
    }

    /// Asks whether a split link goes on, if it is time to.
    pub(super) fn ask(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        let domain = &mut self.domains[number];
        let State::Held(Hold { link, split: Some(split), .. }) = &mut domain.state else { return };
        if now >= split.next {
            link.questions += 1;
            let question = Resume { epoch: link.epoch.to_string(), n: link.questions };
            out.push(Action::Envelope {
                to: domain.name.clone(),
                id: link.question_id(),
                body: Arc::new(question.write()),
            });
            link.traffic.cost(1, CONTROL_BYTES);
            self.shared.counters.cost(1, CONTROL_BYTES);
            split.asked = now;
            split.next = now + split.wait;
            split.wait = (2 * split.wait).min(MOST_WAIT);
        }
        self.alarm.by(split.next);
    }

    /// A question has come back.
    pub(super) fn question_bounced(
        &mut self,
        now: Millis,
        number: usize,
        epoch: &str,
        how: Bounce,
        out: &mut Vec<Action>,
    ) {
        let domain = &mut self.domains[number];
        if let State::Linked(link) = &domain.state
            && *link.epoch == *epoch
        {
            let reason = match how {
                Bounce::Refused => "an envelope was refused",
                Bounce::Unknown => "the stream is broken",
            };
            self.split(now, number, reason, out);
        } else if let State::Held(Hold { link, split: Some(_), .. }) = &domain.state
            && *link.epoch == *epoch
            && how == Bounce::Refused
        {
            // Errors upon what was sent before have come before this one, if by the same stream.
            let until = now + self.shared.config.fate_timeout().min(LATE);
            domain.drain(&self.jid, until, "the replica does not know the link any more");
            self.alarm.by(until);
            self.settle(now, number, out);
        }
    }

    /// What a report of the link's epoch means for whether the link goes on.
    pub(super) fn heard(
        &mut self,
        now: Millis,
        number: usize,
        report: &Report,
        out: &mut Vec<Action>,
    ) {
        match &mut self.domains[number].state {
            // What has just been sent is an answer. A probe is kept until it is acknowledged.
            State::Linked(link) if report.ask && now.since(link.last_sent) >= LEAST_WAIT => {
                self.probe(now, number, out);
            }
            State::Held(Hold { link, split: Some(split), .. }) => {
                if report.resume.is_some_and(|n| (split.first..=link.questions).contains(&n)) {
                    if report.resume == Some(link.questions) {
                        link.round_trip = Some(now.since(split.asked));
                    }
                    return self.resume(now, number, out);
                }
                // A sign of life: the stream back may be there as well.
                split.next = split.next.min(split.asked + LEAST_WAIT);
                self.ask(now, number, out);
            }
            _ => {}
        }
    }

    /// Sends again what the replica has not handled, and then what waits.
    fn resume(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        let domain = &mut self.domains[number];
        let State::Held(mut hold) =
            std::mem::replace(&mut domain.state, State::Plain { retry: now })
        else {
            return;
        };
        let link = &mut hold.link;
        let lasted = hold.split.take().map_or(0, |split| now.since(split.since));
        log::info!(
            "{}: link with {} is up again after {lasted} ms, {} envelopes again, {} copies waited",
            self.jid,
            domain.name,
            link.sent.len(),
            hold.queue.len()
        );
        self.shared.counters.add(Counter::LinksResumed, 1);
        self.shared.counters.add(Counter::EnvelopesResent, link.sent.len() as u64);
        for sent in &mut link.sent {
            sent.fate = None;
            sent.expected = false;
            sent.at = now;
        }
        if let Some(first) = link.sent.front_mut() {
            first.expected = true;
        }
        for sent in &link.sent {
            out.push(Action::Envelope {
                to: domain.name.clone(),
                id: link.id(sent.seq),
                body: sent.body.clone(),
            });
            link.traffic.cost(1, sent.bytes);
            self.shared.counters.cost(1, sent.bytes);
        }
        link.last_sent = now;
        if link.ended {
            hold.until = now + link.terms.ack_timeout;
            self.alarm.by(hold.until);
            domain.state = State::Held(hold);
            return;
        }
        domain.reason = "linked";
        let is_parked = link.limb.as_ref().is_some_and(|limb| limb.is_parked());
        domain.state = State::Linked(hold.link);
        if is_parked {
            // What has been cast since waits at the replica for this, which takes its place.
            self.probe(now, number, out);
        }
        self.watch(number);
        self.release(now, hold.queue, out);
    }

    /// Sends what has been waiting as if the room had just sent it.
    fn release(
        &mut self,
        now: Millis,
        queue: VecDeque<(Arc<str>, Payload)>,
        out: &mut Vec<Action>,
    ) {
        let mut payloads: Vec<Option<Payload>> = Vec::new();
        let mut token_of: HashMap<u64, u32> = HashMap::new();
        let mut copies: Vec<(&str, u32)> = Vec::with_capacity(queue.len());
        for (jid, payload) in &queue {
            let token = *token_of.entry(payload.id()).or_insert_with(|| {
                payloads.push(Some(payload.clone()));
                payloads.len() as u32 - 1
            });
            copies.push((jid, token));
        }
        self.place_all(now, &payloads, &copies, out);
        self.try_candidates(now, out);
    }

    /// A replica asks about a link that is not there: a new one tells it who of its users is in.
    pub(super) fn reconcile(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        let domain = &mut self.domains[number];
        if self.closed {
            return;
        }
        if domain.occupants == 0 {
            let name = domain.name.clone();
            return out.push(self.nobody(&name));
        }
        match &mut domain.state {
            State::Plain { .. } | State::Asking { .. } => {
                let wait = self.shared.config.retry_min();
                if domain.announced.is_none_or(|last| now.since(last) >= wait) {
                    domain.announced = Some(now);
                    self.set_up(now, number, out);
                }
            }
            State::Held(hold) => hold.announced = true,
            State::SettingUp { .. } | State::Linked(_) => {}
        }
    }

    /// A set-up that names nobody: nobody of that domain is in the room.
    pub(super) fn nobody(&mut self, domain: &str) -> Action {
        let config = &self.shared.config;
        let terms = Terms::new(config);
        let epoch = random_name(&mut self.rng);
        let offer = LinkOffer {
            epoch: epoch.clone(),
            stream: self.stream.clone(),
            size: 0,
            hold: terms.longest_hold(),
            ping: terms.ping_interval,
            max_bytes: config.max_envelope_bytes(),
        };
        Action::Setup { to: domain.into(), id: epoch, body: offer.write() }
    }
}
