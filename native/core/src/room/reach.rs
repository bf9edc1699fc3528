//! Whom a cast may come to by others: a relay passes on to a child until it has carried out the envelope
//! that takes it away (`docs/protocol.md`, section 8.7, rule 9).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::link::Link;
use crate::Class;

/// Who passes casts on to whom, as far as the room can know. While its link is held, and after that has
/// ended, a relay goes on as before.
#[derive(Debug, Default)]
pub(super) struct Reach {
    relays: BTreeMap<usize, Relay>,
    /// The relays of each child, by class.
    above: [BTreeMap<usize, BTreeSet<usize>>; 2],
}

#[derive(Debug)]
struct Relay {
    /// Of the link over which it has been told.
    epoch: Arc<str>,
    children: BTreeSet<(Class, usize)>,
    /// Those of them that an envelope takes away which it may not have carried out.
    dismissed: Vec<((Class, usize), u64)>,
}

impl Reach {
    /// A relay is told on this link to pass casts on to a child.
    pub fn add(&mut self, class: Class, relay: usize, child: usize, link: &Link) {
        let epoch = link.epoch.clone();
        let new = Relay { epoch, children: BTreeSet::new(), dismissed: Vec::new() };
        let relays = self.relays.entry(relay).or_insert(new);
        relays.children.insert((class, child));
        relays.dismissed.retain(|(dismissed, _)| *dismissed != (class, child));
        self.above[class as usize].entry(child).or_default().insert(relay);
    }

    /// An envelope of this number tells a relay to do so no longer.
    pub fn dismiss(&mut self, class: Class, relay: usize, child: usize, seq: u64) {
        if let Some(relay) = self.relays.get_mut(&relay) {
            relay.dismissed.push(((class, child), seq));
        }
    }

    /// Forgets what a relay has acknowledged to do no longer, and all of it if it has another link. `link`
    /// is its own, if it was ever up.
    pub fn tend(&mut self, number: usize, link: Option<&Link>) {
        let (Some(link), Some(relay)) = (link, self.relays.get_mut(&number)) else { return };
        let mut over = Vec::new();
        if link.epoch == relay.epoch {
            let oldest = link.sent.front().map_or(u64::MAX, |sent| sent.seq);
            relay.dismissed.retain(|(child, seq)| {
                let is_open = oldest <= *seq;
                if !is_open {
                    relay.children.remove(child);
                    over.push(*child);
                }
                is_open
            });
        } else {
            over.extend(std::mem::take(&mut relay.children));
        }
        if relay.children.is_empty() {
            self.relays.remove(&number);
        }
        for (class, child) in over {
            let above = &mut self.above[class as usize];
            if let Some(relays) = above.get_mut(&child) {
                relays.remove(&number);
                if relays.is_empty() {
                    above.remove(&child);
                }
            }
        }
    }

    /// Whether there is nothing to do for [`Self::tend`].
    pub fn is_tended(&self, number: usize, link: Option<&Link>) -> bool {
        let (Some(link), Some(relay)) = (link, self.relays.get(&number)) else { return true };
        let oldest = link.sent.front().map_or(u64::MAX, |sent| sent.seq);
        link.epoch == relay.epoch && relay.dismissed.iter().all(|(_, seq)| oldest <= *seq)
    }

    /// The relays that may pass a cast of this class on, at once or by others, to somebody who may not see
    /// it.
    pub fn wary(&self, class: Class, may_see: impl Fn(usize) -> bool) -> BTreeSet<usize> {
        let above = &self.above[class as usize];
        let mut wary = BTreeSet::new();
        let mut below: Vec<usize> =
            above.keys().copied().filter(|child| !may_see(*child)).collect();
        while let Some(child) = below.pop() {
            for relay in above.get(&child).into_iter().flatten() {
                if wary.insert(*relay) {
                    below.push(*relay);
                }
            }
        }
        wary
    }
}
