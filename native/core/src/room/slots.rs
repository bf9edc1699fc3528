//! What the replica of a link holds, as its primary knows it: hashes, and no stanza but those that
//! an unacknowledged operation names anyway.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::audience::Class;
use crate::config::Share;
use crate::element::Former;
use crate::slots::{BLOCK_BITS, SlotList, is_among};
use crate::{Counter, Facts, Payload, Shared};

/// Slots to be dropped that are collected before the replica is told.
const DROPS: usize = 32;
/// The block of slots for messages; those of presences are their class.
const MESSAGES: usize = 2;

#[derive(Debug)]
struct Held {
    digest: u128,
    bytes: u64,
    payload: Former,
    of: Of,
}

/// What a slot is for.
#[derive(Debug)]
enum Of {
    /// The newest presence of an occupant in this variant.
    Presence(Arc<str>, Class),
    /// A message, with when it was last used.
    Message(u64),
    /// Nothing any more: the replica has not been told.
    Dropped,
}

/// The slots of one link.
#[derive(Debug, Default)]
pub(super) struct Slots {
    most: usize,
    most_bytes: u64,
    most_messages: usize,
    held: HashMap<u64, Held>,
    /// How many they are; they count among those of all links.
    share: Option<Share>,
    by_digest: HashMap<u128, u64>,
    /// By nick, for each class.
    presences: HashMap<Arc<str>, [Option<u64>; 2]>,
    /// Slot by last use, the oldest first.
    messages: BTreeMap<u64, u64>,
    dropped: BTreeSet<u64>,
    uses: u64,
    /// Of all that is held, dropped or not.
    bytes: u64,
    /// Something had no room while there was something to be dropped.
    short: bool,
    /// The newest number in each block: presences without and with real JIDs, and messages. Each has
    /// its own, since they are replayed apart from each other.
    last: [u64; 3],
}

impl Slots {
    /// Within the limits of both ends.
    pub fn limit(&mut self, shared: &Arc<Shared>, slots: u64, bytes: u64) {
        let config = &shared.config;
        self.share = Some(Share::of_slots(shared));
        let size = |n| usize::try_from(n).unwrap_or(usize::MAX);
        self.most = size(config.max_slots().min(slots));
        self.most_messages = size(config.max_slot_messages());
        self.most_bytes = config.max_slot_bytes().min(bytes);
    }

    /// A payload with this digest that the replica holds and that somebody here still needs.
    pub fn recall(&self, digest: u128) -> Option<Payload> {
        let held = self.held.get(self.by_digest.get(&digest)?)?;
        Payload::upgrade(&held.payload)
    }

    /// The slot that holds this payload.
    pub fn find(&mut self, payload: &Payload) -> Option<u64> {
        let slot = *self.by_digest.get(&payload.digest())?;
        let held = self.held.get_mut(&slot)?;
        held.payload = payload.downgrade();
        if let Of::Message(used) = &mut held.of {
            self.messages.remove(used);
            self.uses += 1;
            *used = self.uses;
            self.messages.insert(self.uses, slot);
        }
        Some(slot)
    }

    /// Whether a slot of this number has been given this payload and the replica has not been told to
    /// drop it.
    pub fn holds(&self, slot: u64, payload: &Payload) -> bool {
        self.held.get(&slot).is_some_and(|held| held.digest == payload.digest())
    }

    /// A slot for a payload that will be wanted again and is about to be sent.
    ///
    /// Presences are; of messages those that are not for all, which are a part of the room's history
    /// or its subject for somebody who has just entered.
    pub fn give(&mut self, payload: &Payload, for_all: bool) -> Option<u64> {
        let facts = payload.facts();
        if self.most == 0 || !facts.is_lasting() || facts.is_groupchat() && for_all {
            return None;
        }
        let class = if facts.tells_jid() { Class::Full } else { Class::Anonymous };
        if facts.is_available() {
            self.discard_presence(payload.nick(), class);
        }
        let bytes = payload.bytes().len() as u64;
        let has_room = self.held.len() < self.most && self.bytes + bytes <= self.most_bytes;
        if facts.is_groupchat() && (!has_room || self.messages.len() >= self.most_messages) {
            // The message that has not been wanted for longest.
            let (_, slot) = self.messages.pop_first()?;
            self.discard(slot);
        }
        let in_all = self.has_room_in_all();
        if !has_room || !in_all {
            self.short = true;
            return None;
        }
        let block = if facts.is_groupchat() { MESSAGES } else { class as usize };
        self.last[block] += 1;
        let slot = ((block as u64) << BLOCK_BITS) + self.last[block];
        let of = if facts.is_groupchat() {
            self.uses += 1;
            self.messages.insert(self.uses, slot);
            Of::Message(self.uses)
        } else {
            let nick = payload.nick().clone();
            self.presences.entry(nick.clone()).or_default()[class as usize] = Some(slot);
            Of::Presence(nick, class)
        };
        let digest = payload.digest();
        self.held.insert(slot, Held { digest, bytes, payload: payload.downgrade(), of });
        self.by_digest.insert(digest, slot);
        self.bytes += bytes;
        if let Some(share) = &mut self.share {
            share.add(1);
        }
        Some(slot)
    }

    /// A room shows the presence of each occupant to each server, and so has as many slots as there are
    /// pairs of them: no limit of one link bounds that.
    fn has_room_in_all(&self) -> bool {
        let Some(shared) = self.share.as_ref().map(Share::shared) else { return true };
        let has_room = shared.slots() < shared.config.max_slots_total();
        if !has_room {
            shared.counters.add(Counter::LimitHit, 1);
        }
        has_room
    }

    /// Takes note of a stanza of the room: the presence of one who has left is not wanted again.
    pub fn seen(&mut self, facts: Facts, nick: &str) {
        if facts.is_unavailable() && !nick.is_empty() {
            self.discard_presence(nick, Class::Anonymous);
            self.discard_presence(nick, Class::Full);
        }
    }

    fn discard_presence(&mut self, nick: &str, class: Class) {
        let Some(slots) = self.presences.get_mut(nick) else { return };
        let slot = slots[class as usize].take();
        if slots.iter().all(Option::is_none) {
            self.presences.remove(nick);
        }
        if let Some(slot) = slot {
            self.discard(slot);
        }
    }

    /// The slot is not used again; the replica is told later.
    fn discard(&mut self, slot: u64) {
        let Some(held) = self.held.get_mut(&slot) else { return };
        held.of = Of::Dropped;
        if self.by_digest.get(&held.digest) == Some(&slot) {
            self.by_digest.remove(&held.digest);
        }
        self.dropped.insert(slot);
    }

    /// The replica holds nothing in these slots. How many of them that concerns.
    pub fn lost(&mut self, slots: &SlotList) -> u64 {
        // A list may be long, and name a slot more than once.
        let lost: BTreeSet<u64> = match slots.len() > self.held.len() as u64 {
            true => {
                let ranges = slots.merged();
                self.held.keys().copied().filter(|slot| is_among(&ranges, *slot)).collect()
            }
            false => slots.iter().filter(|slot| self.held.contains_key(slot)).collect(),
        };
        for slot in &lost {
            match &self.held[slot].of {
                Of::Presence(nick, class) => self.discard_presence(&nick.clone(), *class),
                Of::Message(used) => {
                    self.messages.remove(&used.clone());
                    self.discard(*slot);
                }
                Of::Dropped => {}
            }
            self.dropped.remove(slot);
            self.remove(*slot);
        }
        // It has no room for more than what is left.
        if !lost.is_empty() {
            self.most_bytes = self.most_bytes.min(self.bytes);
        }
        lost.len() as u64
    }

    /// What the replica is to drop before it is given more, if that is worth an operation or needed.
    pub fn take_drops(&mut self) -> Option<SlotList> {
        let due = self.dropped.len() >= DROPS || self.short;
        self.short = false;
        if self.dropped.is_empty() || !due {
            return None;
        }
        let dropped = std::mem::take(&mut self.dropped);
        for slot in &dropped {
            self.remove(*slot);
        }
        Some(dropped.into_iter().collect())
    }

    fn remove(&mut self, slot: u64) {
        if let Some(held) = self.held.remove(&slot) {
            self.bytes -= held.bytes;
            if let Some(share) = &mut self.share {
                share.remove(1);
            }
        }
    }
}
