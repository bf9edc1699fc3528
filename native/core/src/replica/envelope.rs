//! Reading an envelope: taken as a whole or not at all, then carried out in order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::link::Link;
use super::slots::Given;
use super::{LIMIT, MALFORMED, Refusal};
use crate::consent::{Consents, Record};
use crate::ops::Op;
use crate::slots::SlotList;
use crate::tree::RoomLock;
use crate::tree::wire::TreeOp;
use crate::{Counter, Element, Facts, Incoming, Shared, indexes, jid};

/// Operations of one envelope: more than a primary has reason to send.
const MAX_OPS: usize = 20_000;
/// Copies that the replays of one envelope may make.
const MAX_REPLAYED: u64 = 200_000;

/// What an envelope does, before any of it is done.
#[derive(Default)]
pub(super) struct Plan {
    pub deliveries: Vec<(What, RoaringBitmap)>,
    /// Somebody has entered who has left since: the room may not have got that.
    pub has_left: bool,
    /// Who has entered without having asked.
    pub strangers: Vec<Arc<str>>,
    /// This domain's part in the room's trees.
    pub part: Option<TreeOp>,
    pub end: bool,
}

/// What is delivered.
pub(super) enum What {
    /// The payload of an operation.
    Carried(usize),
    /// What slots held when the operation was read.
    Replayed(Vec<Arc<[u8]>>),
}

/// Whether all of an envelope is in order, so that it is taken as a whole or not at all.
pub(super) fn check(
    link: &Link,
    domain: &str,
    room: &str,
    element: &Element<Incoming>,
    max_audience: usize,
    slots_offered: bool,
) -> Result<(), Refusal> {
    if element.children.len() > MAX_OPS {
        return Err(LIMIT);
    }
    let mut bound = link.audience.bound();
    // A set may name the whole audience, and every operation such a set: never one index at a time.
    let mut known = link.audience.known().clone();
    let mut here = RoaringBitmap::new();
    let mut entering: HashMap<Arc<str>, u32> = HashMap::new();
    let mut left: HashSet<u32> = HashSet::new();
    let mut given = link.slots.given().clone();
    let mut replayed = 0u64;
    let may_keep = |slot: Option<u64>, payload: &Incoming, given: &mut Given| match slot {
        None => Ok(()),
        Some(slot) if slots_offered && payload.facts.is_lasting() && given.give(slot) => Ok(()),
        Some(_) => Err(MALFORMED),
    };
    for (nth, child) in element.children.iter().enumerate() {
        match Op::view(child, bound).ok_or(MALFORMED)? {
            Op::Enter { index, jid, .. } => {
                if index != bound || index == u32::MAX || *jid::domain(&jid) != *domain {
                    return Err(MALFORMED);
                }
                // Nobody is in twice: one cast would become as many copies for him.
                let seated = match entering.get(&jid).or_else(|| link.index_of.get(&jid)) {
                    Some(at) => {
                        (here.contains(*at) || link.audience.seats.contains(*at))
                            && !left.contains(at)
                    }
                    None => false,
                };
                if seated {
                    return Err(MALFORMED);
                }
                entering.insert(jid, index);
                // Those who are not served are remembered too, until the primary has left them out and
                // said so; the same session may be among them many times.
                let kept = link.audience.known().len().max(link.refusals.len() as u64) as usize;
                if link.audience.seats.all().len() as usize + entering.len() > max_audience
                    || kept + entering.len() > 2 * max_audience
                {
                    return Err(LIMIT);
                }
                bound = index + 1;
                here.insert(index);
                known.insert(index);
            }
            Op::Leave { index } => {
                if !known.contains(index) {
                    return Err(MALFORMED);
                }
                left.insert(index);
            }
            Op::Class { index, .. } => {
                if !known.contains(index) {
                    return Err(MALFORMED);
                }
            }
            Op::Cast { payload, slot, .. } => {
                carried(room, payload)?;
                may_keep(slot, payload, &mut given)?;
            }
            Op::Only { indexes, payload, slot } => {
                carried(room, payload)?;
                may_keep(slot, payload, &mut given)?;
                if !indexes.is_subset(&known) {
                    return Err(MALFORMED);
                }
            }
            Op::Replay { indexes, slots } => {
                if !given.has(&slots) || !indexes.is_subset(&known) {
                    return Err(MALFORMED);
                }
                replayed = replayed.saturating_add(slots.len().saturating_mul(indexes.len()));
                if replayed > MAX_REPLAYED {
                    return Err(LIMIT);
                }
            }
            Op::Drop { slots } => {
                if !given.has(&slots) {
                    return Err(MALFORMED);
                }
            }
            Op::End if nth + 1 == element.children.len() => {}
            // Only to one that has offered it, and by itself.
            Op::Tree(op) if element.children.len() == 1 && can_take(link, &op) => {}
            Op::Tree(_) => return Err(MALFORMED),
            Op::End => return Err(MALFORMED),
        }
    }
    Ok(())
}

/// Whether a part in the trees can be taken as the link is.
fn can_take(link: &Link, op: &TreeOp) -> bool {
    match op {
        TreeOp::Stream { key, .. } => RoomLock::new(key).is_some(),
        TreeOp::Alone => true,
        TreeOp::Parent { .. } | TreeOp::Child { .. } => link.branch.is_some(),
    }
}

/// A payload must be a stanza of this room without `to`.
pub(super) fn carried(room: &str, payload: &Incoming) -> Result<(), Refusal> {
    let kind = payload.facts.0 & Facts::KIND;
    if jid::bare(&payload.from) != room || payload.has_to || kind > Facts::IQ {
        return Err(MALFORMED);
    }
    Ok(())
}

/// An envelope that [`check`] has passed, while it is carried out.
pub(super) struct Taking<'a> {
    pub link: &'a mut Link,
    /// Bytes in the slots of all links.
    pub total: &'a mut u64,
    pub shared: &'a Shared,
    pub seq: u64,
}

impl Taking<'_> {
    /// Carries out the operations, and says who gets what.
    pub fn apply(&mut self, consents: &Consents, room: &str, element: &Element<Incoming>) -> Plan {
        let mut plan = Plan::default();
        let acted_on = element.attr("refusals").and_then(indexes::long).unwrap_or(0);
        self.link.acted_on(acted_on);
        for (nth, child) in element.children.iter().enumerate() {
            let link = &mut *self.link;
            let Some(op) = Op::view(child, link.audience.bound()) else { continue };
            match op {
                Op::Enter { index, jid, class } => {
                    let record = consents.get(room, &jid);
                    plan.has_left |= record.is_some_and(Record::has_left);
                    if record.is_none() {
                        plan.strangers.push(jid.clone());
                    }
                    let served = record.is_some() && !link.barred.contains_key(&jid);
                    link.audience.admit(index, jid.clone(), class);
                    link.unconfirmed.remove(&jid);
                    link.index_of.insert(jid, index);
                    if !served {
                        link.refuse(self.seq, index, false);
                    }
                }
                Op::Leave { index } => link.audience.seats.leave(index),
                Op::Class { index, class } => {
                    #[cfg(feature = "planted-faults")]
                    if crate::planted::is_classless(room) {
                        continue;
                    }
                    if link.audience.seats.contains(index) {
                        link.audience.seats.set_class(index, class);
                    }
                }
                Op::Cast { scope, except, slot, payload, .. } => {
                    let set = link.audience.seats.part(scope, &except).into_owned();
                    #[cfg(feature = "planted-faults")]
                    let set = crate::planted::surplus(room, &link.audience.seats, set);
                    plan.deliveries.push((What::Carried(nth), set));
                    self.keep(slot, payload);
                }
                Op::Only { indexes, slot, payload } => {
                    plan.deliveries.push((What::Carried(nth), link.inside(indexes)));
                    self.keep(slot, payload);
                }
                Op::Replay { indexes, slots } => {
                    let set = link.inside(indexes);
                    match link.slots.get(&slots) {
                        Some(stanzas) => plan.deliveries.push((What::Replayed(stanzas), set)),
                        None => self.miss(set, &slots),
                    }
                }
                Op::Drop { slots } => link.slots.drop(&slots, self.total),
                Op::Tree(op) => plan.part = Some(op),
                Op::End => plan.end = true,
            }
        }
        plan
    }

    fn keep(&mut self, slot: Option<u64>, payload: &Incoming) {
        let Some(slot) = slot else { return };
        let packed = payload.packed.as_deref();
        if !self.link.slots.put(slot, packed, self.total, &self.shared.config) {
            self.shared.counters.add(Counter::SlotsDropped, 1);
            self.link.untold = true;
        }
    }

    /// Nothing of this envelope is delivered to those for whom something is missing: they get it from
    /// the primary, in the room's order.
    fn miss(&mut self, set: RoaringBitmap, slots: &SlotList) {
        let set = set - &self.link.refused;
        if set.is_empty() {
            return;
        }
        // Told with the refusals, at once: so there are never more than one envelope can name.
        self.link.slots.miss(slots);
        for index in set {
            self.shared.counters.add(Counter::SlotsMissing, 1);
            self.link.refuse(self.seq, index, true);
        }
    }
}
