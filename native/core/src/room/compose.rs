//! Writing the envelopes of one domain for one event of the room.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::link::{Delivery, Link, Sent, Traffic};
use super::order::singles_first;
use super::session::{Seat, Sessions};
use super::slots::Slots;
use crate::audience::{Class, Scope, Seats};
use crate::ops::Op;
use crate::slots::SlotList;
use crate::tree::wire::TreeOp;
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
/// Longest text of one slot in a list.
const SLOT_LEN: usize = 13;
/// Copies that the replays of one envelope make; replicas take twice as many.
const MAX_REPLAYED: u64 = 100_000;
/// Longest markup around the operations: the message, the envelope, their attributes.
const ENVELOPE_MARKUP: usize = 512;

/// Part of the list of occupants for somebody who enters, as far as the replica holds it. The order
/// inside is free, so that it becomes ranges of slots.
struct List {
    to: RoaringBitmap,
    slots: BTreeMap<u64, Payload>,
    /// Each nick once: two presences of one occupant stay in their order.
    nicks: HashSet<Arc<str>>,
}

/// Those of a group whom one domain has.
pub(super) struct Ready {
    pub set: RoaringBitmap,
    entering: bool,
}

/// Writes envelopes for one domain.
pub(super) struct Composer<'a> {
    link: &'a mut Link,
    domain: &'a Arc<str>,
    shared: &'a Shared,
    now: Millis,
    /// Seats as they were before the envelope under way, if it changes them.
    before: Option<Seats>,
    ops: Vec<Op<Payload>>,
    expected: Vec<Delivery>,
    list: Option<List>,
    departed: Vec<u32>,
    len: usize,
    replayed: u64,
    out: Vec<Action>,
}

impl<'a> Composer<'a> {
    pub fn new(link: &'a mut Link, domain: &'a Arc<str>, shared: &'a Shared, now: Millis) -> Self {
        let mut composer = Composer {
            link,
            domain,
            shared,
            now,
            before: None,
            ops: Vec::new(),
            expected: Vec::new(),
            list: None,
            departed: Vec::new(),
            len: ENVELOPE_MARKUP,
            replayed: 0,
            out: Vec::new(),
        };
        composer.settle();
        composer
    }

    /// Brings the replica's audience up to date with what changed since the set-up, and its slots.
    fn settle(&mut self) {
        if let Some(slots) = self.link.slots.take_drops() {
            self.op(Op::Drop { slots });
        }
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
        let Some(ready) = self.prepare(payload, members, sessions) else { return false };
        self.deliver(payload, group, &ready, numbers);
        self.depart(payload, members, sessions);
        true
    }

    /// Whether an envelope, or a cast of the room stream, can carry this.
    pub fn fits(link: &Link, payload: &Payload) -> bool {
        ENVELOPE_MARKUP + OP_MARKUP + payload.bytes().len() <= link.max_bytes / 2
    }

    /// What comes before a group's payload: who enters, and who is of another class now. `None` if it is
    /// too large.
    pub fn prepare(
        &mut self,
        payload: &Payload,
        members: &[usize],
        sessions: &mut Sessions,
    ) -> Option<Ready> {
        if !Self::fits(self.link, payload) {
            return None;
        }
        let facts = payload.facts();
        let mut entering = true;
        let mut set = RoaringBitmap::new();
        for &number in members {
            let session = sessions.get_mut(number);
            let index = match session.seat {
                Seat::At(index) => index,
                _ => {
                    let index = self.link.audience.allot(session.jid.clone());
                    session.seat = Seat::At(index);
                    session.served = true;
                    self.enter(index, session.class);
                    index
                }
            };
            if session.learn(facts) {
                self.op(Op::Class { index, class: session.class });
                self.seats().set_class(index, session.class);
            }
            entering &= session.entering;
            session.entering &= !facts.is_own_available();
            set.insert(index);
        }
        self.link.slots.seen(facts, payload.nick());
        Some(Ready { set, entering })
    }

    /// What comes after it: who has left.
    pub fn depart(&mut self, payload: &Payload, members: &[usize], sessions: &Sessions) {
        for &number in members {
            let session = sessions.get(number);
            if let Seat::At(index) = session.seat
                && (payload.facts().is_own_end() || session.passing)
            {
                self.leave(index);
            }
        }
    }

    /// The link, whose audience is as it will be after what is written so far.
    pub fn link(&mut self) -> &mut Link {
        self.link
    }

    /// The same, only to look at.
    pub fn peek(&self) -> &Link {
        self.link
    }

    /// Whether anybody in the audience is of the class that sees real JIDs.
    pub fn is_full(&self) -> bool {
        self.link.is_full()
    }

    /// Tells the replica that it takes casts with real JIDs from here on, or none any more, if that is new.
    pub fn turn(&mut self) {
        if self.link.is_turning() {
            self.close(true, None);
        }
    }

    /// Sends what there is, in place of the next cast of this class.
    pub fn cover(&mut self, class: Class) {
        self.turn();
        self.close(true, Some(class));
    }

    /// An operation in an envelope of its own.
    pub fn tree(&mut self, op: TreeOp) {
        self.flush();
        self.op(Op::Tree(op));
        self.flush();
    }

    fn enter(&mut self, index: u32, class: Class) {
        if let Some(jid) = self.link.audience.jid(index).cloned() {
            self.op(Op::Enter { index, jid, class });
            self.seats().enter(index, class);
        }
    }

    fn leave(&mut self, index: u32) {
        self.op(Op::Leave { index });
        self.seats().leave(index);
        self.departed.push(index);
    }

    /// To be changed by an operation that has just been written.
    fn seats(&mut self) -> &mut Seats {
        let seats = &mut self.link.audience.seats;
        self.before.get_or_insert_with(|| seats.clone());
        seats
    }

    /// By number if the replica has it, else in full.
    pub fn deliver(
        &mut self,
        payload: &Payload,
        group: usize,
        Ready { set, entering }: &Ready,
        numbers: &RoomSequence,
    ) {
        let facts = payload.facts();
        let listed = *entering && facts.is_available() && facts.is_lasting();
        match self.link.slots.find(payload) {
            Some(slot) if listed => self.list(slot, payload, set),
            Some(slot) if indexes::text_len(set) <= payload.bytes().len() => {
                self.replay(slot, payload, set)
            }
            Some(_) => {
                self.close_list();
                self.carry(payload, group, set, numbers, None);
            }
            None => {
                if !listed || self.is_listed(payload, set) {
                    self.close_list();
                }
                // What goes to all and is no presence will not be wanted in the same form again:
                // history and subject are for somebody who has just entered.
                let for_all = set == self.link.audience.seats.all();
                let slot = self.link.slots.give(payload, for_all);
                self.carry(payload, group, set, numbers, slot);
            }
        }
    }

    /// Whether something from the same occupant waits in the list, or the list is for others.
    fn is_listed(&self, payload: &Payload, set: &RoaringBitmap) -> bool {
        self.list
            .as_ref()
            .is_some_and(|list| list.nicks.contains(payload.nick()) || list.to != *set)
    }

    fn list(&mut self, slot: u64, payload: &Payload, set: &RoaringBitmap) {
        if self.is_listed(payload, set) {
            self.close_list();
        }
        self.make_room(SLOT_LEN + OP_MARKUP + indexes::text_len(set), set.len());
        let list = self.list.get_or_insert_with(|| {
            self.len += OP_MARKUP + indexes::text_len(set);
            List { to: set.clone(), slots: BTreeMap::new(), nicks: HashSet::new() }
        });
        list.slots.insert(slot, payload.clone());
        list.nicks.insert(payload.nick().clone());
        self.len += SLOT_LEN;
        self.replayed += set.len();
    }

    fn close_list(&mut self) {
        if let Some(List { to, slots, .. }) = self.list.take() {
            let op = Op::Replay { indexes: to.clone(), slots: slots.keys().copied().collect() };
            self.ops.push(op);
            self.expected.push(Delivery { payloads: slots.into_values().collect(), to });
        }
    }

    fn replay(&mut self, slot: u64, payload: &Payload, set: &RoaringBitmap) {
        self.close_list();
        self.make_room(SLOT_LEN + OP_MARKUP + indexes::text_len(set), set.len());
        self.len += SLOT_LEN;
        self.replayed += set.len();
        if let Some(Op::Replay { indexes, slots }) = self.ops.last_mut()
            && indexes == set
            && let Some(delivery) = self.expected.last_mut()
        {
            slots.push(slot);
            delivery.payloads.push(payload.clone());
            return;
        }
        self.len += OP_MARKUP + indexes::text_len(set);
        self.ops.push(Op::Replay { indexes: set.clone(), slots: SlotList::from_iter([slot]) });
        self.expected.push(Delivery { payloads: vec![payload.clone()], to: set.clone() });
    }

    /// Sends what there is if it leaves no room for so many bytes, or for so many more copies.
    fn make_room(&mut self, len: usize, copies: u64) {
        if self.len + len > self.link.max_bytes
            || self.ops.len() >= MAX_OPS
            || self.replayed > 0 && self.replayed + copies > MAX_REPLAYED
        {
            self.flush();
        }
    }

    fn carry(
        &mut self,
        payload: &Payload,
        group: usize,
        set: &RoaringBitmap,
        numbers: &RoomSequence,
        slot: Option<u64>,
    ) {
        let (scope, text) = cheapest(&self.link.audience.seats, set);
        let size = payload.bytes().len() + OP_MARKUP + text;
        if ENVELOPE_MARKUP + size > self.link.max_bytes && set.len() > 1 {
            // The list of indexes is too long: in two parts, which have no recipient in common.
            let (lower, upper) = halves(set);
            self.carry(payload, group, &lower, numbers, slot);
            self.carry(payload, group, &upper, numbers, None);
            return;
        }
        self.make_room(size, 0);
        let op = match scope {
            Some((scope, except)) => Op::Cast {
                scope,
                except,
                number: numbers.number(group),
                slot,
                payload: payload.clone(),
            },
            None => Op::Only { indexes: set.clone(), slot, payload: payload.clone() },
        };
        self.len += size;
        self.ops.push(op);
        self.expected.push(Delivery { payloads: vec![payload.clone()], to: set.clone() });
    }

    fn op(&mut self, op: Op<Payload>) {
        self.close_list();
        let len = op.write().markup_len();
        self.make_room(len, 0);
        self.len += len;
        self.ops.push(op);
    }

    /// Ends the link in an orderly way: its occupants are served plainly from here on.
    pub fn end(&mut self) {
        self.op(Op::End);
        self.link.ended = true;
    }

    /// Sends what has been composed; an empty envelope if `probe`.
    fn close(&mut self, probe: bool, covering: Option<Class>) {
        self.close_list();
        if self.ops.is_empty() && !probe {
            return;
        }
        let seq = self.link.next_seq;
        let mut ops = std::mem::take(&mut self.ops);
        let mut deliveries = std::mem::take(&mut self.expected);
        singles_first(&mut ops, &mut deliveries);
        let mut written: Vec<Element<Payload>> = ops.iter().map(Op::write).collect();
        let bound = self.link.audience.bound();
        let before = self.before.take();
        let before = before.as_ref().unwrap_or(&self.link.audience.seats);
        if !is_faithful(&written, before, bound, &self.link.slots, &deliveries) {
            self.shared.counters.add(Counter::ComposeMismatches, 1);
            log::warn!("an envelope for {} did not expand to what was observed", self.domain);
            ops = spell_out(ops, &deliveries);
            written = ops.iter().map(Op::write).collect();
        }
        #[cfg(feature = "planted-faults")]
        if crate::planted::swap(&mut ops) {
            written = ops.iter().map(Op::write).collect();
        }
        for op in &ops {
            match op {
                Op::Cast { .. } => self.shared.counters.add(Counter::CastsSent, 1),
                Op::Only { .. } => self.shared.counters.add(Counter::OnlysSent, 1),
                _ => {}
            }
        }
        // Its place stands in the id.
        let mut body = Element::new("envelope");
        if self.link.refusals > 0 {
            body = body.with("refusals", self.link.refusals);
        }
        let is_full = self.link.limb.is_some() && self.link.is_full();
        if let Some(limb) = &mut self.link.limb {
            body = limb.mark(covering, is_full).write(body);
        }
        body.children = written;
        let copies = deliveries.iter().map(Delivery::copies).sum();
        self.shared.counters.add(Counter::EnvelopesSent, 1);
        self.shared.counters.add(Counter::CopiesCarried, copies);
        let copied_bytes = deliveries.iter().map(Delivery::bytes).sum();
        self.shared.counters.add(Counter::CarriedBytes, copied_bytes);
        self.shared.counters.cost(1, self.len as u64);
        self.link.traffic += Traffic { copies, copied_bytes, stanzas: 1, bytes: self.len as u64 };
        self.shared.counters.add(Counter::CopiesReplayed, std::mem::take(&mut self.replayed));
        let body = Arc::new(body);
        let sent = Sent {
            seq,
            at: self.now,
            deliveries,
            departed: std::mem::take(&mut self.departed),
            copies,
            bytes: self.len as u64,
            fate: None,
            body: body.clone(),
            expected: false,
            cast: None,
        };
        self.out.push(Action::Envelope { to: self.domain.clone(), id: self.link.id(seq), body });
        self.link.push(sent);
        self.len = ENVELOPE_MARKUP;
    }

    /// Sends what there is.
    pub fn flush(&mut self) {
        self.close(false, None);
    }

    /// Everything to be done for this domain, in order.
    pub fn finish(mut self) -> Vec<Action> {
        self.flush();
        self.out
    }

    /// As [`Composer::finish`], with an empty envelope if there is nothing else to send.
    pub fn probe(mut self) -> Vec<Action> {
        let probe = self.out.is_empty();
        self.close(probe, None);
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
        let size = seats.len(scope);
        // A small part of many is not named by those whom it leaves out, and many are dear to copy.
        if size < set.len() || size > 4 * set.len() + 16 {
            continue;
        }
        let all = seats.scope(scope);
        if all.is_empty() || !set.is_subset(&all) {
            continue;
        }
        let except = match size == set.len() {
            true => RoaringBitmap::new(),
            false => &*all - set,
        };
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

/// Reads the operations back, as they have been written, as a replica would, and compares what they
/// deliver.
fn is_faithful(
    written: &[Element<Payload>],
    before: &Seats,
    bound: u32,
    held: &Slots,
    expected: &[Delivery],
) -> bool {
    let mut seats = Cow::Borrowed(before);
    let mut expected = expected.iter();
    for op in written {
        let Some(op) = Op::view(op, bound) else { return false };
        let (payload, slot, set) = match op {
            Op::Enter { index, class, .. } => {
                seats.to_mut().enter(index, class);
                continue;
            }
            Op::Leave { index } => {
                seats.to_mut().leave(index);
                continue;
            }
            Op::Class { index, class } => {
                seats.to_mut().set_class(index, class);
                continue;
            }
            Op::Cast { scope, except, payload, slot, .. } => {
                (payload, slot, seats.part(scope, &except))
            }
            Op::Only { indexes, payload, slot } => (payload, slot, Cow::Owned(indexes)),
            Op::Replay { indexes, slots } => {
                let is_so = expected.next().is_some_and(|delivery| {
                    delivery.to == indexes
                        && indexes.is_subset(seats.all())
                        && slots.len() == delivery.payloads.len() as u64
                        && slots.iter().zip(&delivery.payloads).all(|(n, p)| held.holds(n, p))
                });
                match is_so {
                    true => continue,
                    false => return false,
                }
            }
            Op::Drop { .. } | Op::End | Op::Tree(_) => continue,
        };
        let is_so = expected.next().is_some_and(|delivery| {
            matches!(&delivery.payloads[..], [wanted] if wanted.id() == payload.id())
                && delivery.to == *set
        });
        let is_kept = slot.is_none_or(|slot| held.holds(slot, payload));
        if !is_so || !is_kept || !set.is_subset(seats.all()) {
            return false;
        }
    }
    expected.next().is_none()
}

/// Replaces every guess by the list of those who are to get the payload.
fn spell_out(ops: Vec<Op<Payload>>, deliveries: &[Delivery]) -> Vec<Op<Payload>> {
    let mut deliveries = deliveries.iter();
    let mut spelt = Vec::new();
    for op in ops {
        let kept = match &op {
            Op::Cast { slot, .. } | Op::Only { slot, .. } => *slot,
            Op::Replay { .. } => None,
            _ => {
                spelt.push(op);
                continue;
            }
        };
        let Some(Delivery { payloads, to }) = deliveries.next() else { continue };
        spelt.extend(payloads.iter().map(|payload| Op::Only {
            indexes: to.clone(),
            slot: kept,
            payload: payload.clone(),
        }));
    }
    spelt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Facts;

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
        Payload::new(id, b"<message/>".to_vec(), Facts(0), "", id.into())
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
        let all = seats().scope(Scope::All).into_owned();
        let delivery = |to: &RoaringBitmap| Delivery { payloads: vec![payload(1)], to: to.clone() };
        let check = |ops: &[Op<Payload>], want: &RoaringBitmap| {
            let written: Vec<_> = ops.iter().map(Op::write).collect();
            is_faithful(&written, &seats(), 20, &Slots::default(), &[delivery(want)])
        };
        assert!(check(&[cast(Scope::All, &[])], &all));
        assert!(!check(&[cast(Scope::All, &[5])], &all), "one too few");
        assert!(!check(&[cast(Scope::All, &[])], &(&all - set(&[5]))), "one too many");
        assert!(!check(&[cast(Scope::Class(Class::Full), &[])], &all), "wrong class");
        assert!(!check(&[], &all), "nothing sent");
        assert!(!check(&[Op::Leave { index: 1 }, cast(Scope::All, &[])], &all), "left before");
        assert!(!check(&[cast(Scope::All, &[]), cast(Scope::All, &[])], &all), "twice");
        let unknown = Op::Replay { indexes: all.clone(), slots: SlotList::from_iter([1]) };
        assert!(!check(&[unknown], &all), "nothing in the slot");
        let wrong = vec![cast(Scope::All, &[5])];
        assert!(check(&spell_out(wrong, &[delivery(&all)]), &all), "spelled out");
    }
}
