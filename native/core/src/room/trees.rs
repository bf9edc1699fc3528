//! The trees of a room: when there are any, and what the room keeps for them (`docs/protocol.md`,
//! section 8).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

use super::Room;
use super::domain::{Domain, State};
use super::limb::{SharedStream, lock};
use super::reach::Reach;
use super::setup::random_name;
use crate::tree::{
    Digest, Node, Parents, Patience, RoomStream, Shape, Standings, StreamLimits, TreeOptions,
};
use crate::{Action, Millis, Payload};

/// What a room needs for trees.
pub(super) struct Trees {
    pub options: TreeOptions,
    /// What all keys are made from.
    secret: [u8; 32],
    /// Members may learn of each other's domains.
    may_show: bool,
    /// Canonical digests of payloads of the next event.
    pub digests: HashMap<u32, Digest>,
    /// What has been queued in this event for domains whose links are held.
    pub queued: Vec<(usize, Payload)>,
    pub standings: Standings,
    /// Links that have lain in a stream.
    pub nodes: u32,
    pub grown: Option<Grown>,
}

impl std::fmt::Debug for Trees {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trees").field("grown", &self.grown).finish_non_exhaustive()
    }
}

/// The trees that there are.
#[derive(Debug)]
pub(super) struct Grown {
    pub stream: SharedStream,
    pub epoch: String,
    since: Millis,
    /// Of each class. Domains are known by their numbers.
    pub parents: [Parents; 2],
    /// Whom relays may pass casts on to, whether they are to or not.
    pub reach: Reach,
}

impl Grown {
    /// When it is time for another key; at once if it has signed enough.
    fn ends(&self, options: &TreeOptions) -> Millis {
        let newest = lock(&self.stream).newest();
        match newest.anonymous.max(newest.full) >= options.renew_casts {
            true => self.since,
            false => self.since + options.renew_after,
        }
    }
}

impl Trees {
    /// A key of its own for each purpose.
    pub fn key(&self, purpose: &str, name: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.secret);
        for word in [purpose, name] {
            hash.update((word.len() as u64).to_be_bytes());
            hash.update(word.as_bytes());
        }
        hash.finalize().into()
    }
}

/// The number of a domain as that of a member of a tree.
pub(super) fn member(domain: usize) -> Node {
    Node(u32::try_from(domain).unwrap_or(u32::MAX))
}

impl Room {
    /// From here on this room may have trees, as these options say. `secret` must be 32 random bytes that
    /// nobody else knows. Without it the room has none, whatever replicas offer.
    pub fn grow(&mut self, secret: [u8; 32], options: TreeOptions) {
        self.trees = Some(Box::new(Trees {
            options: options.bounded(),
            secret,
            may_show: false,
            digests: HashMap::new(),
            queued: Vec::new(),
            standings: Standings::new(Patience::default()),
            nodes: 0,
            grown: None,
        }));
    }

    /// Whether members may learn of each other's domains: they may all see real JIDs, or the room's owner
    /// says so. Trees that are not forced are only for such rooms.
    pub fn may_show_domains(&mut self, may_show: bool) {
        if let Some(trees) = &mut self.trees {
            trees.may_show = may_show;
        }
    }

    /// Whether the host is to compute the canonical digest of stanzas that go to many.
    pub fn wants_digests(&self) -> bool {
        self.trees.as_ref().is_some_and(|trees| trees.grown.is_some())
    }

    /// The digest of a stanza in canonical form, by its position in the `payloads` of the next
    /// [`Room::event`]. One without goes to each replica directly.
    pub fn canonical(&mut self, position: u32, digest: Digest) {
        if let Some(trees) = self.trees.as_mut().filter(|trees| trees.grown.is_some()) {
            trees.digests.insert(position, digest);
        }
    }

    /// Brings trees up to date with the links.
    pub(super) fn tend(&mut self, now: Millis, out: &mut Vec<Action>) {
        let Some(mut trees) = self.trees.take() else { return };
        let is_able =
            |domain: &&Domain| matches!(&domain.state, State::Linked(link) if link.trees.is_some());
        let able = self.domains.iter().filter(is_able).count();
        let wants = trees.options.mode.wants(trees.grown.is_some(), able, trees.may_show);
        let wants = wants && !self.closed;
        if !wants && trees.grown.take().is_some() {
            log::info!("{}: casts go to each domain again", self.jid);
        }
        let is_worn = |grown: &Grown| grown.ends(&trees.options) <= now;
        if trees.grown.as_ref().is_some_and(is_worn) {
            log::debug!("{}: a new key signs casts", self.jid);
            trees.grown = None;
            self.plant(now, &mut trees);
        }
        if wants && trees.grown.is_none() {
            log::info!("{}: casts go by trees of {able} domains", self.jid);
            self.plant(now, &mut trees);
        }
        if let Some(grown) = &mut trees.grown {
            grown.reach.tend(|number| self.domains[number].told_link());
        }
        for number in 0..self.domains.len() {
            self.cut_off(now, &trees, number, out);
            self.join_stream(now, &mut trees, number, out);
        }
        let mut has_moved = false;
        for number in 0..self.domains.len() {
            has_moved |= self.place_domain(now, &mut trees, number);
        }
        if let Some(grown) = trees.grown.as_mut().filter(|_| has_moved) {
            self.assign_all(now, grown, out);
        }
        self.park_deserted();
        if let Some(at) = trees.standings.next(now) {
            self.alarm.by(at);
        }
        if let Some(grown) = &trees.grown {
            self.alarm.by(grown.ends(&trees.options));
        }
        self.trees = Some(trees);
    }

    /// A new stream, in which no link lies yet, and trees without members.
    fn plant(&mut self, now: Millis, trees: &mut Trees) {
        let epoch = random_name(&mut self.rng);
        let secret = trees.key("stream", &epoch);
        // What is not acknowledged is kept with the links.
        let limits = StreamLimits { casts: 0, bytes: 0, ..StreamLimits::default() };
        let stream = RoomStream::new(&self.jid, &epoch, &secret, limits);
        let shape = Shape { fanout: trees.options.fanout, ..Shape::default() };
        trees.grown = Some(Grown {
            stream: Arc::new(Mutex::new(stream)),
            epoch,
            since: now,
            parents: [Parents::new(shape), Parents::new(shape)],
            reach: Reach::default(),
        });
    }
}
