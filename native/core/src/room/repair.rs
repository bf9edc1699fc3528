//! What a replica misses of the room stream comes over its direct link (`docs/protocol.md`, section 8.5).

use std::sync::Arc;

use super::Room;
use super::domain::{Hold, State};
use super::link::Link;
use super::setup::CONTROL_BYTES;
use super::trees::Grown;
use crate::ops::Report;
use crate::tree::wire::write_newest;
use crate::{Action, Class, Counter, Millis};

/// Milliseconds without an acknowledgement of a cast after which a replica is told how far the stream
/// is, and between two such.
const BEAT: u64 = 3000;
/// Milliseconds between two answers to a replica that misses casts.
const REPAIR_PAUSE: u64 = 100;
/// Casts in one such answer.
const REPAIRED: usize = 256;
/// Replicas that miss something at once, with which the tree is still used.
const MISSED: usize = 64;

impl Grown {
    /// A replica that was last sent something again at `last` has asked. If it is one of very many, most
    /// casts would go twice; relays that are gone are found by what they do not acknowledge.
    fn miss(&mut self, now: Millis, last: Option<Millis>, ack_timeout: u64) {
        let (since, count) = &mut self.missed;
        if now.since(*since) > BEAT {
            (*since, *count) = (now, 0);
        }
        *count += usize::from(last.is_none_or(|last| last < *since));
        if *count > MISSED && 4 * *count > self.parents[0].len() {
            self.direct_until = Some(now + ack_timeout);
        }
    }
}

impl Room {
    /// Sends casts again that a replica misses. All that are not acknowledged are kept.
    pub(super) fn repair(
        &mut self,
        now: Millis,
        number: usize,
        report: &Report,
        out: &mut Vec<Action>,
    ) {
        let domain = &mut self.domains[number];
        // Also what is missing before the end of a link that takes its leave.
        let link = match &mut domain.state {
            State::Linked(link) => link,
            State::Held(Hold { link, split: None, .. }) => link,
            _ => return,
        };
        let Link { limb: Some(limb), sent, .. } = &mut **link else { return };
        let is_soon = limb.repaired.is_some_and(|last| now.since(last) < REPAIR_PAUSE);
        if report.missing.is_empty() || is_soon {
            return;
        }
        let last = limb.repaired.replace(now);
        let is_missing = |(class, n): (Class, u64)| {
            report.missing.iter().any(|m| m.class == class && (m.first..=m.last).contains(&n))
        };
        let lost = sent.iter().filter(|sent| sent.cast.is_some_and(is_missing));
        let lost: Vec<_> = lost.take(REPAIRED).map(|s| (s.seq, s.body.clone(), s.bytes)).collect();
        self.shared.counters.add(Counter::CastsRepaired, lost.len() as u64);
        if let Some(grown) = self.trees.as_mut().and_then(|trees| trees.grown.as_mut()) {
            grown.miss(now, last, link.terms.ack_timeout);
        }
        for (seq, body, bytes) in lost {
            link.traffic.cost(1, bytes + CONTROL_BYTES);
            self.shared.counters.cost(1, bytes + CONTROL_BYTES);
            out.push(Action::Envelope { to: domain.name.clone(), id: link.id(seq), body });
        }
    }

    /// Tells a replica that has not acknowledged a cast for a while how far the stream is.
    pub(super) fn beat(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        let State::Linked(link) = &self.domains[number].state else { return };
        if next_beat(link).is_some_and(|at| now >= at) {
            self.say_newest(now, number, false, out);
        }
    }

    /// A link that is to be probed lies in the stream: the replica is asked whether it is there, and told
    /// how far the stream is. Upon an empty envelope the next cast would have to wait at each replica.
    /// False if the link does not.
    pub(super) fn probe_in_stream(
        &mut self,
        now: Millis,
        number: usize,
        out: &mut Vec<Action>,
    ) -> bool {
        let State::Linked(link) = &self.domains[number].state else { return false };
        let is_in = link.limb.as_ref().is_some_and(|limb| limb.leaving().is_none());
        is_in && self.say_newest(now, number, true, out)
    }

    fn say_newest(
        &mut self,
        now: Millis,
        number: usize,
        asks: bool,
        out: &mut Vec<Action>,
    ) -> bool {
        let domain = &mut self.domains[number];
        let State::Linked(link) = &mut domain.state else { return false };
        let (id, epoch) = (link.question_id(), link.epoch.clone());
        let Some(limb) = &mut link.limb else { return false };
        limb.beat = Some(now);
        if asks {
            link.last_sent = now;
            limb.asked.get_or_insert_with(|| {
                link.questions += 1;
                (link.questions, now)
            });
        }
        let question = limb.asked.filter(|_| asks).map(|(n, _)| n);
        let body = Arc::new(write_newest(&epoch, limb.newest(), question));
        link.traffic.cost(1, CONTROL_BYTES);
        self.shared.counters.cost(1, CONTROL_BYTES);
        out.push(Action::Envelope { to: domain.name.clone(), id, body });
        self.watch(number);
        true
    }
}

/// When a replica is to be told how far the stream is.
pub(super) fn next_beat(link: &Link) -> Option<Millis> {
    let limb = link.limb.as_ref().filter(|limb| limb.leaving().is_none())?;
    let oldest = link.sent.front().filter(|sent| sent.cast.is_some())?.at;
    Some(oldest.max(limb.beat.unwrap_or(oldest)) + BEAT)
}
