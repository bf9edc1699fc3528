//! What becomes of envelopes: reports, errors, and the end of a link with nothing lost.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::domain::{Hold, State, is_full};
use super::link::{Delivery, Fate, Link};
use super::session::{Seat, Sessions};
use super::setup::CONTROL_BYTES;
use super::{Bounce, Room};
use crate::ops::{Refused, Report, parse_envelope_id};
use crate::{Action, Actions, Counter, Element, Incoming, Millis, Payload};

/// Time after which a session that the room did not remove on [`Action::Fail`] is served plainly.
const FAIL_TIMEOUT: u64 = 30_000;
/// Sessions of which a room is told in one go: it sends the leave of each to everybody.
const FAIL_BATCH: usize = 20;
/// Time between two such batches.
const FAIL_PAUSE: u64 = 100;
/// Time after which a link that is acknowledged counts as sound: the next failure is a first one.
const SETTLED: u64 = 60_000;

impl Room {
    /// A `<report/>` or `<announce/>` received over a server-to-server stream from `domain`.
    pub fn report(&mut self, now: Millis, domain: &str, element: &Element<Incoming>) -> Actions {
        let mut out = Vec::new();
        let number = self.by_name.get(domain).copied();
        number.into_iter().for_each(|number| self.stir(number));
        match (element.name.as_str(), number) {
            // Of a domain without occupants there is nothing to remember.
            ("announce", None) => {}
            ("report", None) if Report::read(element).is_some_and(|report| report.ask) => {
                out.push(self.nobody(domain));
            }
            ("announce", Some(number)) => {
                let last = self.domains[number].announced;
                if last.is_none_or(|last| now.since(last) >= self.shared.config.retry_min()) {
                    self.domains[number].announced = Some(now);
                    out.push(Action::SupportSeen { domain: domain.into() });
                    self.announced(now, number, &mut out);
                }
            }
            ("report", Some(number)) => match Report::read(element) {
                Some(report) => {
                    let bytes = element.markup_len() as u64 + CONTROL_BYTES;
                    self.domains[number].past.cost(1, bytes);
                    self.shared.counters.cost(1, bytes);
                    self.reported(now, number, &report, &mut out)
                }
                None => self.shared.counters.add(Counter::BadReports, 1),
            },
            _ => self.shared.counters.add(Counter::BadReports, 1),
        }
        self.give(now, out)
    }

    pub(super) fn announced(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        let domain = &mut self.domains[number];
        match &mut domain.state {
            State::Plain { .. } | State::Asking { .. } => {
                domain.state = State::Plain { retry: now };
                domain.failures = 0;
                if domain.occupants as u64 >= self.shared.config.min_occupants() && !self.closed {
                    self.set_up(now, number, out);
                }
            }
            State::Held(hold) => hold.announced = true,
            State::SettingUp { .. } | State::Linked(_) => {}
        }
    }

    pub(super) fn reported(
        &mut self,
        now: Millis,
        number: usize,
        report: &Report,
        out: &mut Vec<Action>,
    ) {
        let domain = &mut self.domains[number];
        let link = match &mut domain.state {
            State::Linked(link) => link,
            State::Held(hold) => &mut hold.link,
            _ if report.ask => return self.reconcile(now, number, out),
            // What was under way when the link ended.
            _ if domain.last_epoch.as_deref() == Some(&*report.epoch) => return,
            _ => return self.shared.counters.add(Counter::BadReports, 1),
        };
        if report.ask && *link.epoch != *report.epoch {
            return self.reconcile(now, number, out);
        }
        if *link.epoch != *report.epoch || report.ack >= link.next_seq {
            return self.shared.counters.add(Counter::BadReports, 1);
        }
        let mut plain = Vec::new();
        let lost = link.slots.lost(&report.dropped);
        self.shared.counters.add(Counter::SlotsLost, lost);
        // Refusals are repeated until an envelope has said how many were acted on.
        let mut refused = report.refused.clone();
        refused.retain(|refused| {
            let is_next = refused.number == link.refusals + 1;
            link.refusals += u64::from(is_next);
            is_next
        });
        self.shared.counters.add(Counter::OccupantsRefused, refused.len() as u64);
        take_back(link, &refused, &mut plain);
        for refused in refused {
            refuse_index(link, &mut self.sessions, refused);
        }
        link.acknowledge(now, report.ack);
        if let Some(limb) = &mut link.limb
            && let Some((_, at)) = limb.asked.take_if(|(n, _)| report.resume == Some(*n))
        {
            link.round_trip = Some(now.since(at));
        }
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
            let bytes = payload.bytes().len() as u64;
            self.domains[number].past.cost(1, bytes);
            self.shared.counters.cost(1, bytes);
            self.send_plain(&payload, &jid, out);
        }
        if self.trees.is_some() {
            self.repair(now, number, report, out);
            self.hear_complaints(now, number, report, out);
        }
        self.heard(now, number, report, out);
        self.settle(now, number, out);
    }

    /// An error stanza from `domain` with the id of an envelope. What it holds is not looked at.
    pub fn bounced(&mut self, now: Millis, domain: &str, id: &str, how: Bounce) -> Actions {
        let mut out = Vec::new();
        if let Some(&number) = self.by_name.get(domain)
            && let Some((epoch, seq)) = parse_envelope_id(id)
        {
            self.stir(number);
            match seq {
                0 => self.question_bounced(now, number, epoch, how, &mut out),
                _ => self.envelope_bounced(now, number, (epoch, seq), how, &mut out),
            }
        }
        self.give(now, out)
    }

    fn envelope_bounced(
        &mut self,
        now: Millis,
        number: usize,
        (epoch, seq): (&str, u64),
        how: Bounce,
        out: &mut Vec<Action>,
    ) {
        let (fate, counter) = match how {
            Bounce::Refused => (Fate::Refused, Counter::EnvelopesRefused),
            Bounce::Unknown => (Fate::Unknown, Counter::EnvelopesUnknown),
        };
        let domain = &mut self.domains[number];
        let expected = domain.link().is_some_and(|link| link.is_expected(seq));
        if !domain.decide(epoch, seq, fate) {
            return;
        }
        self.shared.counters.add(counter, 1);
        if how == Bounce::Refused && expected {
            let until = now + self.shared.config.fate_timeout();
            domain.drain(&self.jid, until, "an envelope was refused");
            self.alarm.by(until);
        } else if how == Bounce::Refused {
            // It may have come after one that was lost.
            self.split(now, number, "an envelope was refused", out);
        } else {
            self.split(now, number, "the stream is broken", out);
        }
        self.settle(now, number, out);
    }

    /// Ends a link that is ending already, if every envelope has its fate: sends what was refused and
    /// what was queued as plain copies, and gives up those whose stanzas may or may not have arrived.
    pub(super) fn settle(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        if let State::Held(Hold { link, split: None, .. }) = &self.domains[number].state
            && link.is_decided()
        {
            self.dissolve(now, number, out);
        }
    }

    /// Ends a held link. Over a stream that is broken nothing more is sent: whoever waits for
    /// something has missed it.
    fn dissolve(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        let domain = &mut self.domains[number];
        let State::Held(hold) = std::mem::replace(&mut domain.state, State::Plain { retry: now })
        else {
            return;
        };
        self.shared.counters.add(Counter::LinksDown, 1);
        let Hold { link, queue, announced, split, .. } = hold;
        let reason = domain.reason;
        domain.past += link.traffic;
        let refused = link.sent.iter().filter(|sent| sent.fate == Some(Fate::Refused));
        let (copies, bytes) = refused.fold((0, 0), |(copies, bytes), sent| {
            (copies + sent.copies, bytes + sent.deliveries.iter().map(Delivery::bytes).sum::<u64>())
        });
        domain.past.cost(copies, bytes);
        self.shared.counters.cost(copies, bytes);
        domain.last_epoch = Some(link.epoch.clone());
        let was_refused = link.sent.iter().any(|sent| sent.fate == Some(Fate::Refused));
        for (jid, payload) in &queue {
            self.note(now, jid, payload.facts());
        }
        let failed = unknown(&link);
        let mut muted = self.fail(now, number, &link, &failed);
        if split.is_some() {
            self.fail_waiting(now, number, &link, &queue, &mut muted);
        }
        log::info!(
            "{}: link with {} is down: {reason}; {} of its occupants have missed something, \
             {} copies waited",
            self.jid,
            self.domains[number].name,
            muted.len(),
            queue.len()
        );
        self.resend(&link, &failed, queue, muted, out);
        self.fail_some(now, out);
        self.unlink(now, number, reason, out);
        if split.is_none() && self.is_end_unknown(&link) {
            self.reconcile(now, number, out);
        }
        if announced {
            self.announced(now, number, out);
        } else if was_refused {
            out.push(Action::ForgetSupport { domain: self.domains[number].name.clone() });
        }
    }

    /// Marks those whose stanzas may or may not have arrived. Returns the JIDs of all whose stay has
    /// lost its thread; it may go on in the queue.
    fn fail(
        &mut self,
        now: Millis,
        number: usize,
        link: &Link,
        failed: &RoaringBitmap,
    ) -> HashSet<Arc<str>> {
        let departed: RoaringBitmap =
            link.sent.iter().flat_map(|sent| sent.departed.iter().copied()).collect();
        let mut muted = HashSet::new();
        // A stay that had ended before is over either way.
        for index in failed - departed {
            let Some(jid) = link.audience.jid(index).cloned() else { continue };
            if self.sessions.find_mut(&jid).is_some_and(|session| session.seat == Seat::At(index)) {
                self.mark_failing(now, number, &jid);
            }
            muted.insert(jid);
        }
        muted
    }

    /// The same for those for whom something waits.
    fn fail_waiting(
        &mut self,
        now: Millis,
        number: usize,
        link: &Link,
        queue: &VecDeque<(Arc<str>, Payload)>,
        muted: &mut HashSet<Arc<str>>,
    ) {
        let served: HashSet<&Arc<str>> = link.audience.jids().map(|(_, jid)| jid).collect();
        for (jid, _) in queue {
            if self.sessions.find(jid).is_some() {
                self.mark_failing(now, number, jid);
                muted.insert(jid.clone());
            } else if served.contains(jid) {
                muted.insert(jid.clone());
            }
        }
    }

    /// Whether somebody may not have been told that he is out of the room.
    fn is_end_unknown(&self, link: &Link) -> bool {
        let sent = link.sent.iter().filter(|sent| sent.fate == Some(Fate::Unknown));
        sent.flat_map(|sent| &sent.deliveries).any(|Delivery { payloads, to }| {
            let is_out = |index| {
                link.audience.jid(index).is_some_and(|jid| self.sessions.find(jid).is_none())
            };
            payloads.iter().any(|payload| payload.facts().is_own_end()) && to.iter().any(is_out)
        })
    }

    /// From here on it gets nothing but its own end; the room is told soon.
    fn mark_failing(&mut self, now: Millis, number: usize, jid: &Arc<str>) {
        let batches = (self.to_fail.len() / FAIL_BATCH) as u64;
        let until = now + FAIL_TIMEOUT + batches * FAIL_PAUSE;
        if let Some(session) = self.sessions.find_mut(jid)
            && !matches!(session.seat, Seat::Failing(_))
        {
            session.seat = Seat::Failing(until);
            self.to_fail.push_back(jid.clone());
            self.domains[number].failing += 1;
            self.alarm.by(until);
            self.shared.counters.add(Counter::OccupantsFailed, 1);
        }
    }

    /// Tells the room of some of those who fail, and wakes up for the next.
    pub(super) fn fail_some(&mut self, now: Millis, out: &mut Vec<Action>) {
        if self.to_fail.is_empty() || self.fail_at.is_some_and(|at| now < at) {
            return;
        }
        let batch = if self.closed { self.to_fail.len() } else { FAIL_BATCH };
        let batch = self.to_fail.drain(..batch.min(self.to_fail.len()));
        let batch: Vec<Arc<str>> = batch.collect();
        let to: Vec<Arc<str>> = batch.into_iter().filter(|jid| self.is_failing(jid)).collect();
        if !to.is_empty() {
            out.push(Action::Fail { to });
        }
        self.fail_at = (!self.to_fail.is_empty()).then(|| now + FAIL_PAUSE);
        if let Some(at) = self.fail_at {
            self.alarm.by(at);
        }
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
        for Delivery { payloads, to } in refused.flat_map(|sent| &sent.deliveries) {
            for payload in payloads {
                let ends = payload.facts().is_own_end();
                for index in to.iter().filter(|index| ends || !failed.contains(*index)) {
                    if let Some(jid) = link.audience.jid(index) {
                        self.send_plain(payload, jid, out);
                    }
                }
            }
        }
        for (jid, payload) in queue {
            let ends = payload.facts().is_own_end();
            if !muted.contains(&jid) || ends {
                self.send_plain(&payload, &jid, out);
            }
            if ends && !self.is_failing(&jid) {
                muted.remove(&jid);
            }
        }
    }

    /// Gives up a link whose buffer is full.
    pub(super) fn check_buffer(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        let domain = &mut self.domains[number];
        let full = match &domain.state {
            State::Linked(link) => is_full(&self.shared, link.copies, link.bytes.amount()),
            State::Held(hold) => hold.is_full(&self.shared),
            _ => false,
        };
        if full {
            self.shared.counters.add(Counter::BufferFull, 1);
            const REASON: &str = "the buffer of the link is full";
            domain.split(&self.jid, now, now, REASON);
            // Also if it was split for something else before.
            domain.reason = REASON;
            self.give_up(now, number, out);
        }
    }

    /// Waits no longer: what has no fate is unknown.
    pub(super) fn give_up(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        self.stir(number);
        if let State::Held(hold) = &mut self.domains[number].state {
            hold.link.decide_rest(Fate::Unknown);
            self.dissolve(now, number, out);
        }
    }

    pub(super) fn is_failing(&self, jid: &str) -> bool {
        self.sessions
            .find(jid)
            .is_some_and(|number| matches!(self.sessions.get(number).seat, Seat::Failing(_)))
    }
}

/// Indexes to which something of unknown fate was sent.
fn unknown(link: &Link) -> RoaringBitmap {
    let sent = link.sent.iter().filter(|sent| sent.fate == Some(Fate::Unknown));
    sent.flat_map(|sent| &sent.deliveries).fold(RoaringBitmap::new(), |all, d| all | &d.to)
}

/// Gives back what those have missed whom the replica does not serve from some envelope on. Once
/// through the envelopes, however many refusals a report has.
fn take_back(link: &mut Link, refused: &[Refused], plain: &mut Vec<(Arc<str>, Payload)>) {
    let mut since: HashMap<u32, (u64, Arc<str>)> = HashMap::new();
    for Refused { seq, index, .. } in refused {
        if let Some(jid) = link.audience.jid(*index) {
            let (least, _) = since.entry(*index).or_insert_with(|| (*seq, jid.clone()));
            *least = (*least).min(*seq);
        }
    }
    let all: RoaringBitmap = since.keys().copied().collect();
    if all.is_empty() {
        return;
    }
    for sent in &mut link.sent {
        for Delivery { payloads, to } in &mut sent.deliveries {
            for index in &*to & &all {
                let (least, jid) = &since[&index];
                if sent.seq >= *least {
                    to.remove(index);
                    sent.copies -= payloads.len() as u64;
                    link.copies -= payloads.len() as u64;
                    plain.extend(payloads.iter().map(|payload| (jid.clone(), payload.clone())));
                }
            }
        }
    }
}

/// The replica does not serve `index` any more.
fn refuse_index(link: &mut Link, sessions: &mut Sessions, refused: Refused) {
    let Refused { index, missing, .. } = refused;
    let Some(jid) = link.audience.jid(index).cloned() else { return };
    link.audience.seats.leave(index);
    if let Some(session) = sessions.find_mut(&jid)
        && session.seat == Seat::At(index)
    {
        // After the plain copies it may enter again, under another index.
        session.seat = if missing { Seat::None } else { Seat::Refused };
        session.entering = false;
        session.served = missing;
        // So that both ends can forget the index.
        link.stale.push(index);
    }
}
