//! The trees of a room: when there are any, and what the room keeps for them (`docs/protocol.md`,
//! section 8).

use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

use super::Room;
use super::domain::{Domain, State};
use super::limb::{SharedStream, lock};
use super::reach::Reach;
use super::setup::random_name;
use crate::audience::Scope;
use crate::tree::{
    Node, Parents, Patience, RoomStream, Shape, Standings, StreamLimits, TreeOptions,
};
use crate::{Action, Class, Millis, Payload};

/// Milliseconds for which it must have been so, or not, that all see real JIDs.
const SETTLED: u64 = 30_000;

/// What a room needs for trees.
pub(super) struct Trees {
    /// What all keys are made from.
    secret: [u8; 32],
    /// The owner says that members may learn of each other's domains.
    may_show: bool,
    /// Whether all remote occupants see real JIDs, and since when that is not so any more, or is anew.
    shown: (bool, Option<Millis>),
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
        match newest.anonymous.max(newest.full) >= options.key_casts {
            true => self.since,
            false => self.since + options.key_age,
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
    /// From here on this room may have trees, as the options say. `secret` must be 32 random bytes that
    /// nobody else knows. Without it the room has none.
    pub fn grow(&mut self, secret: [u8; 32]) {
        self.trees = Some(Box::new(Trees {
            secret,
            may_show: false,
            shown: (false, None),
            queued: Vec::new(),
            standings: Standings::new(Patience::default()),
            nodes: 0,
            grown: None,
        }));
    }

    /// The room's owner says whether members may learn of each other's domains. They may without him as
    /// long as they all see real JIDs. Trees that are not forced are only for such rooms.
    pub fn may_show_domains(&mut self, may_show: bool) {
        if let Some(trees) = &mut self.trees {
            trees.may_show = may_show;
        }
    }

    /// Brings trees up to date with the links.
    pub(super) fn tend(&mut self, now: Millis, out: &mut Vec<Action>) {
        let Some(mut trees) = self.trees.take() else { return };
        let is_able =
            |domain: &&Domain| matches!(&domain.state, State::Linked(link) if link.trees.is_some());
        let able = self.domains.iter().filter(is_able).count();
        let options = TreeOptions::of(&self.shared.config);
        let may_show = trees.may_show || self.shows_jids(now, &mut trees.shown);
        let wants = options.mode.wants(trees.grown.is_some(), able, may_show);
        let wants = wants && !self.closed;
        if !wants && trees.grown.take().is_some() {
            log::info!("{}: casts go to each domain again", self.jid);
        }
        let is_worn = |grown: &Grown| grown.ends(&options) <= now;
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
            self.alarm.by(grown.ends(&options));
        }
        self.trees = Some(trees);
    }
    /// Whether all remote occupants see real JIDs. What has changed counts only after a while: a session
    /// that comes in has not been shown any yet.
    fn shows_jids(&mut self, now: Millis, (is_shown, since): &mut (bool, Option<Millis>)) -> bool {
        let mut links = self.domains.iter().filter_map(Domain::link);
        let is_now = links.all(|link| link.audience.seats.len(Scope::Class(Class::Anonymous)) == 0);
        if is_now == *is_shown {
            *since = None;
        } else {
            let at = *since.get_or_insert(now) + SETTLED;
            if at <= now {
                (*is_shown, *since) = (is_now, None);
            } else {
                self.alarm.by(at);
            }
        }
        *is_shown
    }

    /// A new stream, in which no link lies yet, and trees without members.
    fn plant(&mut self, now: Millis, trees: &mut Trees) {
        let epoch = random_name(&mut self.rng);
        let secret = trees.key("stream", &epoch);
        // What is not acknowledged is kept with the links.
        let limits = StreamLimits { casts: 0, bytes: 0, ..StreamLimits::default() };
        let stream = RoomStream::new(&self.jid, &epoch, &secret, limits);
        let shape =
            Shape { fanout: TreeOptions::of(&self.shared.config).fanout, ..Shape::default() };
        trees.grown = Some(Grown {
            stream: Arc::new(Mutex::new(stream)),
            epoch,
            since: now,
            parents: [Parents::new(shape), Parents::new(shape)],
            reach: Reach::default(),
        });
    }
}
