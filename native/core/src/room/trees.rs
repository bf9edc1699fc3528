//! The trees of a room: when there are any, and what the room keeps for them (`docs/protocol.md`,
//! section 8).

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

use super::Room;
use super::domain::State;
use super::limb::{SharedStream, lock};
use super::link::Link;
use super::reach::Reach;
use super::setup::random_name;
use crate::tree::{
    Node, Parents, Patience, RoomStream, Shape, Standings, StreamLimits, TreeOptions,
};
use crate::{Action, Millis, Payload};

/// Milliseconds for which it must have been so, or not, that all see real JIDs.
const SETTLED: u64 = 30_000;

/// Of so many domains it is checked whether the trees have followed them, in a build that checks.
const FEW: usize = 64;

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
    /// When somebody's bad standing ends next.
    pub pardon: Option<Millis>,
    /// Links that have lain in a stream.
    pub nodes: u32,
    pub grown: Option<Grown>,
    /// The options that the trees are up to date with.
    pub options: TreeOptions,
    /// Domains of which something may be new that the trees have to follow: a room with thousands of
    /// them does not look at all for each acknowledgement.
    pub stale: BTreeSet<usize>,
    /// Those with a link that takes part.
    able: HashSet<usize>,
    /// Those with somebody in the audience of a link, if only one that is set up, who sees no real JIDs.
    anonymous: HashSet<usize>,
    /// When the room last looked for better places.
    pub improved: Option<Millis>,
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
    /// Since when replicas that miss something are counted, and how many there are.
    pub missed: (Millis, usize),
    /// Until then casts go to each domain directly.
    pub direct_until: Option<Millis>,
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
            pardon: None,
            nodes: 0,
            grown: None,
            options: TreeOptions::of(&self.shared.config),
            stale: (0..self.domains.len()).collect(),
            able: HashSet::new(),
            anonymous: HashSet::new(),
            improved: None,
        }));
    }

    /// Something may have happened to a domain's link that the trees have to follow.
    pub(super) fn stir(&mut self, number: usize) {
        if let Some(trees) = &mut self.trees {
            trees.stale.insert(number);
        }
    }

    /// The stream to a domain is broken: it can have passed nothing on.
    pub(super) fn is_gone(&mut self, number: usize) {
        self.stir(number);
        if let Some(trees) = &mut self.trees {
            let heard = trees.standings.is_gone(member(number));
            trees.stale.extend(heard.into_iter().map(|node| node.0 as usize));
        }
    }

    /// To all of them.
    pub(super) fn stir_all(&mut self) {
        if let Some(trees) = &mut self.trees {
            trees.stale = (0..self.domains.len()).collect();
        }
    }

    /// The room's owner says whether members may learn of each other's domains. They may without him as
    /// long as they all see real JIDs. Trees that are not forced are only for such rooms. Comes into force
    /// with the next call that gives actions.
    pub fn may_show_domains(&mut self, may_show: bool) {
        if let Some(trees) = &mut self.trees {
            trees.may_show = may_show;
        }
    }

    /// Brings trees up to date with the links to which something may have happened.
    pub(super) fn tend(&mut self, now: Millis, out: &mut Vec<Action>) {
        let Some(mut trees) = self.trees.take() else { return };
        let options = TreeOptions::of(&self.shared.config);
        // Some may relay again, or be listened to, only because time has passed.
        let is_pardon = trees.pardon.is_some_and(|at| at <= now);
        if is_pardon {
            trees.pardon = trees.standings.next(now);
        }
        if is_pardon || options != trees.options {
            trees.options = options;
            trees.stale = (0..self.domains.len()).collect();
        }
        // Or something has happened to a domain that nobody has said.
        debug_assert_eq!(self.unfollowed(now, &trees), None);
        let mut stale = std::mem::take(&mut trees.stale);
        for number in &stale {
            self.count(*number, &mut trees);
        }
        let able = trees.able.len();
        let is_shown = trees.anonymous.is_empty();
        let may_show = trees.may_show || self.shows_jids(now, is_shown, &mut trees.shown);
        let wants = options.mode.wants(trees.grown.is_some(), able, may_show);
        let wants = wants && !self.closed;
        if !wants && trees.grown.take().is_some() {
            log::info!("{}: casts go to each domain again", self.jid);
            stale = (0..self.domains.len()).collect();
        }
        let is_worn = |grown: &Grown| grown.ends(&options) <= now;
        if wants && trees.grown.as_ref().is_none_or(is_worn) {
            match trees.grown {
                Some(_) => log::debug!("{}: a new key signs casts", self.jid),
                None => log::info!("{}: casts go by trees of {able} domains", self.jid),
            }
            self.plant(now, &mut trees);
            stale = (0..self.domains.len()).collect();
        }
        if let Some(grown) = &mut trees.grown {
            for number in &stale {
                grown.reach.tend(*number, self.domains[*number].told_link());
            }
        }
        for number in &stale {
            self.cut_off(now, &mut trees, *number, out);
            self.join_stream(now, &mut trees, *number, out);
        }
        for number in &stale {
            self.place_domain(now, &mut trees, *number);
        }
        self.assign_moved(now, &mut trees, stale, out);
        if let Some(at) = trees.pardon {
            self.alarm.by(at);
        }
        if let Some(grown) = &trees.grown {
            self.alarm.by(grown.ends(&options));
        }
        self.trees = Some(trees);
    }

    /// Takes note of what a domain is for the questions whether the room has trees.
    fn count(&self, number: usize, trees: &mut Trees) {
        let set = |set: &mut HashSet<usize>, is_in: bool| {
            if is_in { set.insert(number) } else { set.remove(&number) }
        };
        let (is_able, is_anonymous) = self.counts(number);
        set(&mut trees.able, is_able);
        set(&mut trees.anonymous, is_anonymous);
    }

    /// Whether a domain has a link that takes part, and somebody who sees no real JIDs.
    fn counts(&self, number: usize) -> (bool, bool) {
        let domain = &self.domains[number];
        let takes_part = matches!(&domain.state, State::Linked(link) if link.trees.is_some());
        (takes_part, domain.link().is_some_and(Link::has_anonymous))
    }

    /// A domain that the trees have not followed, if there is one beside those that are to be looked at.
    fn unfollowed(&self, now: Millis, trees: &Trees) -> Option<&str> {
        let all = 0..self.domains.len().min(FEW);
        let number = all.into_iter().find(|number| {
            let domain = &self.domains[*number];
            let counted = (trees.able.contains(number), trees.anonymous.contains(number));
            let is_followed = counted == self.counts(*number)
                && self.is_in_stream(trees, *number)
                && self.is_placed(now, trees, *number)
                && trees.grown.as_ref().is_none_or(|grown| {
                    self.is_assigned(grown, *number)
                        && grown.reach.is_tended(*number, domain.told_link())
                });
            !trees.stale.contains(number) && !is_followed
        })?;
        Some(&self.domains[number].name)
    }

    /// Whether all remote occupants see real JIDs. What has changed counts only after a while: a session
    /// that comes in has not been shown any yet.
    fn shows_jids(
        &mut self,
        now: Millis,
        is_now: bool,
        (is_shown, since): &mut (bool, Option<Millis>),
    ) -> bool {
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
        let shape = Shape { fanout: trees.options.fanout, ..Shape::default() };
        trees.grown = Some(Grown {
            stream: Arc::new(Mutex::new(stream)),
            epoch,
            since: now,
            parents: [Parents::new(shape), Parents::new(shape)],
            reach: Reach::default(),
            missed: (now, 0),
            direct_until: None,
        });
    }
}
