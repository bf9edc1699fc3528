//! What becomes of envelopes: reports, errors, and the end of a link with nothing lost.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::domain::{Drain, State};
use super::link::{self, Delivery, Fate, Link};
use super::session::{Seat, Sessions};
use super::{Bounce, Room};
use crate::ops::{Refused, Report};
use crate::{Action, Actions, Counter, Element, Incoming, Millis, Payload, jid};

/// Time after which a session that the room did not remove on [`Action::Fail`] is served plainly.
const FAIL_TIMEOUT: u64 = 30_000;
/// Time after which a link that is acknowledged counts as sound: the next failure is a first one.
const SETTLED: u64 = 60_000;

impl Room {
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

    pub(super) fn announced(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
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
            State::Draining(drain) => &mut drain.link,
            // What was under way when the link ended.
            _ if domain.last_epoch.as_deref() == Some(&*report.epoch) => return,
            _ => return self.shared.counters.add(Counter::BadReports, 1),
        };
        if *link.epoch != *report.epoch || report.ack >= link.next_seq {
            return self.shared.counters.add(Counter::BadReports, 1);
        }
        let mut plain = Vec::new();
        let lost = link.slots.lost(&report.dropped);
        self.shared.counters.add(Counter::SlotsLost, lost);
        for &refused in &report.refused {
            // Refusals are repeated until an envelope has said how many were acted on.
            if refused.number == link.refusals + 1 {
                refuse_index(link, &mut self.sessions, refused, &mut plain);
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
    pub(super) fn settle(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
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
    pub(super) fn fail(
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
    pub(super) fn resend(
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
            if ends {
                muted.remove(&jid);
            }
        }
    }

    /// Splits links whose buffers are full.
    pub(super) fn check_buffers(
        &mut self,
        now: Millis,
        copies: &[(&str, u32)],
        out: &mut Vec<Action>,
    ) {
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

    pub(super) fn give_up(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        if let State::Draining(drain) = &mut self.domains[number].state {
            drain.link.decide_rest(Fate::Unknown);
            self.settle(now, number, out);
        }
    }
}

/// Indexes to which something of unknown fate was sent.
fn unknown(link: &Link) -> RoaringBitmap {
    let sent = link.sent.iter().filter(|sent| sent.fate == Some(Fate::Unknown));
    sent.flat_map(|sent| &sent.deliveries).fold(RoaringBitmap::new(), |all, d| all | &d.to)
}

/// The replica does not serve `index` from envelope `seq` on: gives back what it has missed.
fn refuse_index(
    link: &mut Link,
    sessions: &mut Sessions,
    refused: Refused,
    plain: &mut Vec<(Arc<str>, Payload)>,
) {
    let Refused { seq, index, missing, .. } = refused;
    let Some(jid) = link.audience.jid(index).cloned() else { return };
    for sent in link.sent.iter_mut().filter(|sent| sent.seq >= seq) {
        for Delivery { payloads, to } in &mut sent.deliveries {
            if to.remove(index) {
                sent.copies -= payloads.len() as u64;
                link.copies -= payloads.len() as u64;
                plain.extend(payloads.iter().map(|payload| (jid.clone(), payload.clone())));
            }
        }
    }
    link.audience.seats.leave(index);
    if let Some(session) = sessions.find_mut(&jid)
        && session.seat == Seat::At(index)
    {
        // After the plain copies it may enter again, under another index.
        session.seat = if missing { Seat::None } else { Seat::Refused };
        session.entering = false;
        // So that both ends can forget the index.
        link.stale.push(index);
    }
}
