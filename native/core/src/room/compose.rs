//! Writing the envelopes of one domain for one event of the room.

use roaring::RoaringBitmap;

use super::link::{Link, Sent};
use super::session::{Seat, Sessions};
use crate::audience::{Class, Scope, Seats};
use crate::ops::Op;
use crate::{Action, Counter, Element, Millis, Payload, Shared, indexes};

/// The numbers of casts, the same for every replica of a room.
#[derive(Debug, Default)]
pub(super) struct RoomSequence {
    next: u64,
    /// Number before that of the first group of the event under way.
    first: u64,
}

impl RoomSequence {
    /// Starts an event of this many groups. Groups are numbered in the order of the event, so that
    /// numbers ascend for every replica; a group that nobody casts leaves its number unused.
    pub fn start_event(&mut self, groups: usize) {
        self.first = self.next;
        self.next += groups as u64;
    }

    fn number(&self, group: usize) -> u64 {
        self.first + group as u64 + 1
    }
}

/// Longest markup of one operation that carries a payload, beside its index sets.
const OP_MARKUP: usize = 96;
/// Operations in one envelope; replicas take twice as many.
const MAX_OPS: usize = 10_000;
/// Longest markup around the operations: the message, the envelope, their attributes.
const ENVELOPE_MARKUP: usize = 512;

/// Writes envelopes for one domain.
pub(super) struct Composer<'a> {
    link: &'a mut Link,
    domain: &'a std::sync::Arc<str>,
    shared: &'a Shared,
    now: Millis,
    /// Seats as they were before the envelope under way.
    before: Seats,
    ops: Vec<Op<Payload>>,
    expected: Vec<(Payload, RoaringBitmap)>,
    departed: Vec<u32>,
    len: usize,
    out: Vec<Action>,
}

impl<'a> Composer<'a> {
    pub fn new(
        link: &'a mut Link,
        domain: &'a std::sync::Arc<str>,
        shared: &'a Shared,
        now: Millis,
    ) -> Self {
        let before = link.audience.seats.clone();
        let mut composer = Composer {
            link,
            domain,
            shared,
            now,
            before,
            ops: Vec::new(),
            expected: Vec::new(),
            departed: Vec::new(),
            len: ENVELOPE_MARKUP,
            out: Vec::new(),
        };
        composer.settle();
        composer
    }

    /// Brings the replica's audience up to date with what changed since the set-up.
    fn settle(&mut self) {
        while let Some((index, class)) = self.link.unlisted.pop_front() {
            self.enter(index, class);
        }
        for index in std::mem::take(&mut self.link.stale) {
            self.leave(index);
        }
    }

    /// One group of the event: `members` are all of this domain. False, and nothing done with the
    /// payload, if it is too large for any envelope.
    #[must_use]
    pub fn group(
        &mut self,
        payload: &Payload,
        group: usize,
        members: &[usize],
        sessions: &mut Sessions,
        numbers: &RoomSequence,
    ) -> bool {
        if ENVELOPE_MARKUP + OP_MARKUP + payload.bytes().len() > self.link.max_bytes / 2 {
            return false;
        }
        let mut set = RoaringBitmap::new();
        for &number in members {
            let session = sessions.get_mut(number);
            let index = match session.seat {
                Seat::At(index) => index,
                _ => {
                    let index = self.link.audience.allot(session.jid.clone());
                    session.seat = Seat::At(index);
                    self.enter(index, session.class);
                    index
                }
            };
            if session.learn(payload.facts()) {
                self.op(Op::Class { index, class: session.class });
                self.link.audience.seats.set_class(index, session.class);
            }
            set.insert(index);
        }
        self.deliver(payload, group, &set, numbers);
        for &number in members {
            let session = sessions.get(number);
            if let Seat::At(index) = session.seat
                && (payload.facts().is_own_end() || session.passing)
            {
                self.leave(index);
            }
        }
        true
    }

    fn enter(&mut self, index: u32, class: Class) {
        if let Some(jid) = self.link.audience.jid(index).cloned() {
            self.op(Op::Enter { index, jid, class });
            self.link.audience.seats.enter(index, class);
        }
    }

    fn leave(&mut self, index: u32) {
        self.op(Op::Leave { index });
        self.link.audience.seats.leave(index);
        self.departed.push(index);
    }

    fn deliver(
        &mut self,
        payload: &Payload,
        group: usize,
        set: &RoaringBitmap,
        numbers: &RoomSequence,
    ) {
        let (scope, text) = cheapest(&self.link.audience.seats, set);
        let size = payload.bytes().len() + OP_MARKUP + text;
        if ENVELOPE_MARKUP + size > self.link.max_bytes && set.len() > 1 {
            // The list of indexes is too long: in two parts, which have no recipient in common.
            let (lower, upper) = halves(set);
            self.deliver(payload, group, &lower, numbers);
            self.deliver(payload, group, &upper, numbers);
            return;
        }
        if self.len + size > self.link.max_bytes {
            self.flush();
        }
        let op = match scope {
            Some((scope, except)) => Op::Cast {
                scope,
                except,
                number: numbers.number(group),
                slot: None,
                payload: payload.clone(),
            },
            None => Op::Only { indexes: set.clone(), slot: None, payload: payload.clone() },
        };
        self.len += size;
        self.ops.push(op);
        self.expected.push((payload.clone(), set.clone()));
    }

    fn op(&mut self, op: Op<Payload>) {
        let len = op.write().markup_len();
        if self.len + len > self.link.max_bytes || self.ops.len() >= MAX_OPS {
            self.flush();
        }
        self.len += len;
        self.ops.push(op);
    }

    /// Ends the link in an orderly way: its occupants are served plainly from here on.
    pub fn end(&mut self) {
        self.op(Op::End);
    }

    /// Sends what has been composed; an empty envelope if `probe`.
    fn close(&mut self, probe: bool) {
        if self.ops.is_empty() && !probe {
            return;
        }
        let seq = self.link.next_seq;
        let mut ops = std::mem::take(&mut self.ops);
        let deliveries = std::mem::take(&mut self.expected);
        if !is_faithful(&ops, &self.before, self.link.audience.bound(), &deliveries) {
            self.shared.counters.add(Counter::ComposeMismatches, 1);
            log::warn!("an envelope for {} did not expand to what was observed", self.domain);
            spell_out(&mut ops, &deliveries);
        }
        #[cfg(feature = "planted-faults")]
        crate::planted::swap(&mut ops);
        for op in &ops {
            match op {
                Op::Cast { .. } => self.shared.counters.add(Counter::CastsSent, 1),
                Op::Only { .. } => self.shared.counters.add(Counter::OnlysSent, 1),
                _ => {}
            }
        }
        let mut body = Element::new("envelope").with("epoch", &self.link.epoch).with("seq", seq);
        if self.link.refusals > 0 {
            body = body.with("refusals", self.link.refusals);
        }
        body.children = ops.iter().map(Op::write).collect();
        let copies = deliveries.iter().map(|(_, set)| set.len()).sum();
        self.shared.counters.add(Counter::EnvelopesSent, 1);
        self.shared.counters.add(Counter::CopiesCarried, copies);
        let sent = Sent {
            seq,
            at: self.now,
            deliveries,
            departed: std::mem::take(&mut self.departed),
            copies,
            bytes: self.len as u64,
            fate: None,
        };
        self.out.push(Action::Envelope { to: self.domain.clone(), id: self.link.id(seq), body });
        self.link.push(sent);
        self.before = self.link.audience.seats.clone();
        self.len = ENVELOPE_MARKUP;
    }

    fn flush(&mut self) {
        self.close(false);
    }

    /// Everything to be done for this domain, in order.
    pub fn finish(mut self) -> Vec<Action> {
        self.flush();
        self.out
    }

    /// As [`Composer::finish`], with an empty envelope if there is nothing else to send.
    pub fn probe(mut self) -> Vec<Action> {
        let probe = self.out.is_empty();
        self.close(probe);
        self.out
    }
}

/// The lower and the upper half of a set.
fn halves(set: &RoaringBitmap) -> (RoaringBitmap, RoaringBitmap) {
    let lower: RoaringBitmap = set.iter().take(set.len() as usize / 2).collect();
    let upper = set - &lower;
    (lower, upper)
}

/// The shortest way to name a set: a scope with exceptions, or `None` to spell it out. With the
/// length of the text.
fn cheapest(seats: &Seats, set: &RoaringBitmap) -> (Option<(Scope, RoaringBitmap)>, usize) {
    // " i=''" against nothing at all for the whole scope.
    let mut best = (None, indexes::text_len(set) + 5);
    let scopes = [
        (Scope::All, 0),
        (Scope::Class(Class::Anonymous), " class='anonymous'".len()),
        (Scope::Class(Class::Full), " class='full'".len()),
    ];
    for (scope, markup) in scopes {
        let all = seats.scope(scope);
        if all.is_empty() || !set.is_subset(&all) {
            continue;
        }
        let except = all - set;
        let len = if except.is_empty() {
            markup
        } else {
            markup + indexes::text_len(&except) + " except=''".len()
        };
        if len < best.1 {
            best = (Some((scope, except)), len);
        }
    }
    best
}

/// Reads the operations back as a replica would and compares what they deliver.
fn is_faithful(
    ops: &[Op<Payload>],
    before: &Seats,
    bound: u32,
    expected: &[(Payload, RoaringBitmap)],
) -> bool {
    let mut seats = before.clone();
    let mut expected = expected.iter();
    for op in ops {
        let Some(op) = Op::read(&op.write(), bound) else { return false };
        let (payload, set) = match op {
            Op::Enter { index, class, .. } => {
                seats.enter(index, class);
                continue;
            }
            Op::Leave { index } => {
                seats.leave(index);
                continue;
            }
            Op::Class { index, class } => {
                seats.set_class(index, class);
                continue;
            }
            Op::Cast { scope, except, payload, .. } => (payload, seats.scope(scope) - except),
            Op::Only { indexes, payload, .. } => (payload, indexes),
            Op::Replay { .. } | Op::Drop { .. } => return false,
            Op::End => continue,
        };
        if !set.is_subset(seats.all()) {
            return false;
        }
        match expected.next() {
            Some((wanted, to)) if wanted.id() == payload.id() && *to == set => {}
            _ => return false,
        }
    }
    expected.next().is_none()
}

/// Replaces every guess by the list of those who are to get the payload.
fn spell_out(ops: &mut [Op<Payload>], deliveries: &[(Payload, RoaringBitmap)]) {
    let carrying = ops.iter_mut().filter(|op| matches!(op, Op::Cast { .. } | Op::Only { .. }));
    for (op, (payload, set)) in carrying.zip(deliveries) {
        *op = Op::Only { indexes: set.clone(), slot: None, payload: payload.clone() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Facts, PayloadIn};

    fn set(numbers: &[u32]) -> RoaringBitmap {
        numbers.iter().copied().collect()
    }

    fn seats() -> Seats {
        let mut seats = Seats::default();
        for index in 0..20 {
            seats.enter(index, if index < 3 { Class::Full } else { Class::Anonymous });
        }
        seats
    }

    fn payload(id: u64) -> Payload {
        Payload::new(id, PayloadIn { bytes: b"<message/>".to_vec(), facts: Facts(0) })
    }

    #[test]
    fn the_shortest_expression_is_chosen() {
        let all: Vec<u32> = (0..20).collect();
        let name = |set: &RoaringBitmap| cheapest(&seats(), set).0;
        assert_eq!(name(&set(&all)), Some((Scope::All, set(&[]))));
        assert_eq!(name(&set(&all[1..])), None, "1-19 is shorter than except='0'");
        let odd: Vec<u32> = all.iter().copied().filter(|n| !matches!(n, 4 | 8 | 12 | 16)).collect();
        assert_eq!(name(&set(&odd)), Some((Scope::All, set(&[4, 8, 12, 16]))));
        assert_eq!(name(&set(&[7])), None);
    }

    #[test]
    fn the_check_sees_every_kind_of_wrong_guess() {
        let cast = |scope, except: &[u32]| Op::Cast {
            scope,
            except: set(except),
            number: 1,
            slot: None,
            payload: payload(1),
        };
        let all = seats().scope(Scope::All);
        let check = |ops: &[Op<Payload>], want: &RoaringBitmap| {
            is_faithful(ops, &seats(), 20, &[(payload(1), want.clone())])
        };
        assert!(check(&[cast(Scope::All, &[])], &all));
        assert!(!check(&[cast(Scope::All, &[5])], &all), "one too few");
        assert!(!check(&[cast(Scope::All, &[])], &(&all - set(&[5]))), "one too many");
        assert!(!check(&[cast(Scope::Class(Class::Full), &[])], &all), "wrong class");
        assert!(!check(&[], &all), "nothing sent");
        assert!(!check(&[Op::Leave { index: 1 }, cast(Scope::All, &[])], &all), "left before");
        assert!(!check(&[cast(Scope::All, &[]), cast(Scope::All, &[])], &all), "twice");
        let mut wrong = vec![cast(Scope::All, &[5])];
        spell_out(&mut wrong, &[(payload(1), all.clone())]);
        assert!(check(&wrong, &all), "spelled out");
    }
}
