//! Stanzas that the replica of a link keeps, so that they can be replayed by number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::Options;
use crate::slots::{BLOCKS, SlotList, block};

/// Which slots have been given on a link: in each block, all up to a number.
#[derive(Clone, Debug, Default)]
pub(super) struct Given([u64; BLOCKS]);

impl Given {
    /// Takes note of a slot. False if it or a later one of its block has been given before.
    pub fn give(&mut self, slot: u64) -> bool {
        let Some(last) = block(slot).and_then(|block| self.0.get_mut(block)) else { return false };
        let is_new = slot > *last;
        *last = slot.max(*last);
        is_new
    }

    /// Whether all of these have been given or passed over.
    pub fn has(&self, slots: &SlotList) -> bool {
        slots.ranges().all(|(first, last)| {
            block(first).is_some_and(|at| block(last) == Some(at) && last <= self.0[at])
        })
    }
}

/// The slots of one link.
#[derive(Debug, Default)]
pub(super) struct Slots {
    held: BTreeMap<u64, Arc<[u8]>>,
    /// Slots with nothing in them of which the primary has not been told.
    dropped: BTreeSet<u64>,
    given: Given,
    bytes: u64,
}

impl Slots {
    /// Which numbers have been given.
    pub fn given(&self) -> &Given {
        &self.given
    }

    /// How many stanzas are kept.
    pub fn len(&self) -> u64 {
        self.held.len() as u64
    }

    /// Bytes of what is kept.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps a stanza, if there is room. `total` counts the bytes of all links.
    pub fn put(
        &mut self,
        slot: u64,
        packed: Option<&[u8]>,
        total: &mut u64,
        config: &Options,
    ) -> bool {
        self.given.give(slot);
        let len = packed.map_or(0, |packed| packed.len() as u64);
        let has_room = (self.held.len() as u64) < config.max_slots()
            && self.bytes + len <= config.max_slot_bytes()
            && *total + len <= config.max_slot_bytes_total();
        match packed {
            Some(packed) if has_room => {
                self.held.insert(slot, packed.into());
                self.bytes += len;
                *total += len;
                true
            }
            _ => {
                self.dropped.insert(slot);
                false
            }
        }
    }

    /// What is in these slots, or nothing if one of them is empty.
    pub fn get(&self, slots: &SlotList) -> Option<Vec<Arc<[u8]>>> {
        slots.iter().map(|slot| self.held.get(&slot).cloned()).collect()
    }

    /// Somebody misses what was in these slots: the primary will be told which are empty.
    pub fn miss(&mut self, slots: &SlotList) {
        self.dropped.extend(slots.iter().filter(|slot| !self.held.contains_key(slot)));
    }

    /// Forgets what is in these slots.
    pub fn drop(&mut self, slots: &SlotList, total: &mut u64) {
        for (first, last) in slots.ranges() {
            let gone: Vec<u64> = self.held.range(first..=last).map(|(slot, _)| *slot).collect();
            for slot in gone {
                let len = self.held.remove(&slot).map_or(0, |packed| packed.len() as u64);
                self.bytes -= len;
                *total -= len;
            }
        }
    }

    /// What the next report says to be empty.
    pub fn take_dropped(&mut self) -> SlotList {
        std::mem::take(&mut self.dropped).into_iter().collect()
    }
}
