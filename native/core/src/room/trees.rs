//! Which links lie in the room stream, and who passes casts on to whom (`docs/protocol.md`, section 8).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

use super::Room;
use super::compose::Composer;
use super::domain::{Hold, State};
use super::limb::{Limb, SharedStream, lock};
use super::link::Link;
use super::setup::{CONTROL_BYTES, random_name};
use crate::ops::Report;
use crate::tree::wire::{TreeOp, write_newest};
use crate::tree::{
    Digest, LinkKey, Move, Node, Parents, Patience, RoomStream, Sentence, Shape, Standings,
    StreamLimits, TreeOptions,
};
use crate::{Action, Class, Counter, Millis};

/// Milliseconds without an acknowledgement of a cast after which a replica is told how far the stream
/// is, and between two such.
const BEAT: u64 = 3000;
/// Milliseconds between two answers to a replica that misses casts.
const REPAIR_PAUSE: u64 = 100;
/// Replicas that miss something at once, with which the tree is still used.
const MISSED: usize = 64;
/// Milliseconds between two looks for better places.
const IMPROVE_PAUSE: u64 = 1000;
/// Nobody is moved to a better place while the next cast has more barriers than these.
const IMPROVE_BARRIERS: usize = 8;
/// Casts in one such answer.
const REPAIRED: usize = 256;

/// What a room needs for trees.
pub(super) struct Trees {
    options: TreeOptions,
    /// What all keys are made from.
    secret: [u8; 32],
    /// Members may learn of each other's domains.
    may_show: bool,
    /// Canonical digests of payloads of the next event.
    pub digests: HashMap<u32, Digest>,
    standings: Standings,
    nodes: u32,
    pub grown: Option<Grown>,
    /// Domains of which something may be new that matters for the trees: a room with thousands of them
    /// does not look at all for each acknowledgement.
    stale: BTreeSet<usize>,
    /// Those with a link that takes part.
    able: HashSet<usize>,
    improved: Option<Millis>,
    /// When somebody's bad standing ends next.
    pardon: Option<Millis>,
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
    epoch: String,
    /// Of each class. Domains are known by their numbers.
    pub parents: [Parents; 2],
    /// Relays that may not know yet that a child of theirs is not to have casts of a class any more.
    unaware: Vec<Unaware>,
    /// Since when replicas that miss something are counted, and how many there are.
    missed: (Millis, usize),
    /// Until then casts go to each domain directly.
    pub direct_until: Option<Millis>,
}

/// A relay that was told to pass casts on to somebody no longer, and what it has to acknowledge.
#[derive(Debug)]
struct Unaware {
    class: Class,
    relay: usize,
    epoch: Arc<str>,
    seq: u64,
}

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

    /// Whether nobody is sent casts of a class by others who is not to have them. `link` tells the link
    /// of a domain, if it is up.
    pub fn is_tight(&self, class: Class, link: impl Fn(usize) -> Option<(Arc<str>, u64)>) -> bool {
        let of_class = self.unaware.iter().filter(|unaware| unaware.class == class);
        !of_class.map(|u| (u, link(u.relay))).any(|(u, link)| u.is_open(link))
    }
}

impl Unaware {
    /// `link` is the epoch of the relay's link, if it has one, and the oldest envelope that is not
    /// acknowledged there.
    fn is_open(&self, link: Option<(Arc<str>, u64)>) -> bool {
        link.is_some_and(|(epoch, oldest)| epoch == self.epoch && oldest <= self.seq)
    }
}

/// The epoch of a link and its oldest envelope that is not acknowledged.
pub(super) fn acknowledged(link: &Link) -> (Arc<str>, u64) {
    (link.epoch.clone(), link.sent.front().map_or(u64::MAX, |sent| sent.seq))
}

impl Trees {
    /// A key of its own for each purpose.
    fn key(&self, purpose: &str, name: &str) -> [u8; 32] {
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
            standings: Standings::new(Patience::default()),
            nodes: 0,
            grown: None,
            stale: (0..self.domains.len()).collect(),
            able: HashSet::new(),
            improved: None,
            pardon: None,
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

    /// Some may relay again, or be listened to, only because time has passed.
    pub(super) fn look_at_standings(&mut self, now: Millis) {
        let Some(trees) = &mut self.trees else { return };
        if trees.pardon.is_some_and(|at| now >= at) {
            trees.pardon = trees.standings.next(now);
            trees.stale = (0..self.domains.len()).collect();
        }
        trees.pardon.into_iter().for_each(|at| self.alarm.by(at));
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
        let mut stale = std::mem::take(&mut trees.stale);
        for number in &stale {
            let is_able =
                matches!(&self.domains[*number].state, State::Linked(l) if l.trees.is_some());
            match is_able {
                true => trees.able.insert(*number),
                false => trees.able.remove(number),
            };
        }
        let able = trees.able.len();
        let wants = trees.options.mode.wants(trees.grown.is_some(), able, trees.may_show);
        let wants = wants && !self.closed;
        if !wants && let Some(grown) = trees.grown.take() {
            log::info!("{}: casts go to each domain again", self.jid);
            for number in 0..self.domains.len() {
                self.cut_off(now, number, out);
            }
            drop(grown);
        }
        if wants && trees.grown.is_none() {
            log::info!("{}: casts go by trees of {able} domains", self.jid);
            let epoch = random_name(&mut self.rng);
            let secret = trees.key("stream", &epoch);
            // What is not acknowledged is kept with the links.
            let limits = StreamLimits { casts: 0, bytes: 0, ..StreamLimits::default() };
            let stream = RoomStream::new(&self.jid, &epoch, &secret, limits);
            let shape = Shape { fanout: trees.options.fanout, ..Shape::default() };
            let parents = [Parents::new(shape), Parents::new(shape)];
            trees.grown = Some(Grown {
                stream: Arc::new(Mutex::new(stream)),
                epoch,
                parents,
                unaware: Vec::new(),
                missed: (now, 0),
                direct_until: None,
            });
            stale = (0..self.domains.len()).collect();
        }
        if let Some(grown) = &mut trees.grown {
            let link = |number: usize| self.domains[number].link().map(acknowledged);
            grown.unaware.retain(|unaware| unaware.is_open(link(unaware.relay)));
        }
        for number in &stale {
            self.join_stream(now, &mut trees, *number, out);
        }
        let mut moved = BTreeSet::new();
        for number in &stale {
            self.place_domain(now, &mut trees, *number, &mut moved);
        }
        self.assign_all(now, &mut trees, moved, out);
        self.trees = Some(trees);
    }

    /// A link that may lie in the stream does from here on, and one that has left it is forgotten there.
    fn join_stream(
        &mut self,
        now: Millis,
        trees: &mut Trees,
        number: usize,
        out: &mut Vec<Action>,
    ) {
        let domain = &mut self.domains[number];
        let State::Linked(link) = &mut domain.state else { return };
        if let Some(seq) = link.limb.as_ref().and_then(|limb| limb.leaving())
            && link.sent.front().is_none_or(|sent| sent.seq > seq)
        {
            link.limb = None;
        }
        let Some(grown) = &trees.grown else { return };
        if link.limb.is_some() || link.trees.is_none() || link.ended {
            return;
        }
        trees.nodes += 1;
        let node = Node(trees.nodes);
        let secret = trees.key("link", &format!("{} {}", link.epoch, trees.nodes));
        let mut composer = Composer::new(link, &domain.name, &self.shared, now);
        composer.flush();
        let has_full = composer.is_full();
        let mut stream = lock(&grown.stream);
        let from = stream.newest();
        let (name, key) = (grown.epoch.clone(), stream.public());
        composer.tree(TreeOp::Stream { name, key, secret, from, has_full });
        out.extend(composer.finish());
        stream.join(node, LinkKey::new(secret), 0, has_full);
        drop(stream);
        link.limb = Some(Box::new(Limb::new(grown.stream.clone(), node, has_full)));
        self.watch(number);
    }

    /// A link lies in the stream no more.
    fn cut_off(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        let domain = &mut self.domains[number];
        match &mut domain.state {
            State::Linked(link) if link.limb.as_ref().is_some_and(|l| l.leaving().is_none()) => {
                let mut composer = Composer::new(link, &domain.name, &self.shared, now);
                composer.tree(TreeOp::Alone);
                out.extend(composer.finish());
                let seq = link.next_seq - 1;
                if let Some(limb) = &mut link.limb {
                    limb.leave(seq);
                }
                self.watch(number);
            }
            _ => {}
        }
    }

    /// Puts a domain into the trees of the classes that it takes, or out of them. Who is to hear of it is
    /// added to `moved`.
    fn place_domain(
        &self,
        now: Millis,
        trees: &mut Trees,
        number: usize,
        moved: &mut BTreeSet<usize>,
    ) {
        let Some(grown) = &mut trees.grown else { return };
        let node = member(number);
        let link = match &self.domains[number].state {
            State::Linked(link) => Some(link),
            _ => None,
        };
        for class in Class::ALL {
            let parents = &mut grown.parents[class as usize];
            let place = parents.place(node);
            let taker = link.filter(|link| {
                let takes = |limb: &Limb| {
                    limb.leaving().is_none() && (class == Class::Anonymous || limb.has_full)
                };
                link.limb.as_deref().is_some_and(takes) && trees.standings.is_heard(now, node)
            });
            let moves = match taker {
                None if place.is_some() => parents.leave(now, node),
                None => continue,
                Some(link) => {
                    let most = link.trees.unwrap_or(0);
                    let may_relay =
                        most >= trees.options.fanout as u64 && trees.standings.is_good(now, node);
                    let round_trip = link.round_trip.unwrap_or(0);
                    if place.is_some() {
                        parents.measured(node, round_trip);
                    }
                    parents.join(now, node, round_trip, may_relay)
                }
            };
            if place.is_none() || taker.is_none() {
                let parent = place.and_then(|(parent, _)| parent);
                moved.extend(parent.map(|parent| parent.0 as usize));
                moved.insert(number);
            }
            self.concern(class, &moves, moved);
        }
    }

    /// Those who have moved, and their parents before and from here on.
    fn concern(&self, class: Class, moves: &[Move], moved: &mut BTreeSet<usize>) {
        for Move { node, parent } in moves {
            let number = node.0 as usize;
            let limb = self.domains[number].link().and_then(|link| link.limb.as_ref());
            moved.extend(limb.and_then(|limb| limb.parents[class as usize]));
            moved.extend(parent.map(|parent| parent.0 as usize));
            moved.insert(number);
        }
    }

    /// [`Self::assign`] for each of these.
    fn assign_all(
        &mut self,
        now: Millis,
        trees: &mut Trees,
        moved: BTreeSet<usize>,
        out: &mut Vec<Action>,
    ) {
        let Some(grown) = &mut trees.grown else { return };
        for number in moved {
            if self.assign(now, grown, number, out) {
                trees.stale.insert(number);
            }
        }
    }

    /// Tells a replica who passes casts on to it and to whom it does. Whether the same envelopes have
    /// told it something else that matters.
    fn assign(
        &mut self,
        now: Millis,
        grown: &mut Grown,
        number: usize,
        out: &mut Vec<Action>,
    ) -> bool {
        let State::Linked(link) = &self.domains[number].state else { return false };
        let Some(limb) = link.limb.as_ref().filter(|limb| limb.leaving().is_none()) else {
            return false;
        };
        let name = |number: &usize| self.domains[*number].name.clone();
        let mut ops = Vec::new();
        let mut barred = Vec::new();
        let mut told = (limb.parents, limb.children.clone());
        for class in Class::ALL {
            let at = class as usize;
            let parents = &grown.parents[at];
            let parent = parents.place(member(number)).and_then(|(parent, _)| parent);
            let parent = parent.map(|node| node.0 as usize);
            if parent != limb.parents[at] {
                ops.push(TreeOp::Parent { class, domain: parent.as_ref().map(name) });
            }
            let children: BTreeSet<usize> =
                parents.children(member(number)).map(|node| node.0 as usize).collect();
            for gone in limb.children[at].difference(&children) {
                let domain = &self.domains[*gone];
                let is_full = domain.link().is_some_and(Link::is_full);
                if domain.occupants == 0 || class == Class::Full && !is_full {
                    barred.push(class);
                }
                ops.push(TreeOp::Child { class, domain: name(gone), is_gone: true });
            }
            for new in children.difference(&limb.children[at]) {
                ops.push(TreeOp::Child { class, domain: name(new), is_gone: false });
            }
            told.0[at] = parent;
            told.1[at] = children;
        }
        if ops.is_empty() {
            return false;
        }
        let had_full = limb.has_full;
        let domain = &mut self.domains[number];
        let State::Linked(link) = &mut domain.state else { return false };
        let mut composer = Composer::new(link, &domain.name, &self.shared, now);
        for op in ops {
            composer.tree(op);
        }
        out.extend(composer.finish());
        let (epoch, seq) = (link.epoch.clone(), link.next_seq - 1);
        let unaware = |class| Unaware { class, relay: number, epoch: epoch.clone(), seq };
        grown.unaware.extend(barred.into_iter().map(unaware));
        let mut has_turned = false;
        if let Some(limb) = &mut link.limb {
            (limb.parents, limb.children) = told;
            has_turned = limb.has_full != had_full;
        }
        self.watch(number);
        has_turned
    }

    /// What a report says of the room stream.
    pub(super) fn hear_of_casts(
        &mut self,
        now: Millis,
        number: usize,
        report: &Report,
        out: &mut Vec<Action>,
    ) {
        self.repair(now, number, report, out);
        let witness = member(number);
        let State::Linked(link) = &self.domains[number].state else { return };
        let Some(limb) = &link.limb else { return };
        let parents = limb.parents;
        if report.complaints.is_empty() {
            return;
        }
        let Some(mut trees) = self.trees.take() else { return };
        let mut moved = BTreeSet::new();
        for class in &report.complaints {
            let Some(parent) = parents[*class as usize] else { continue };
            self.shared.counters.add(Counter::Complaints, 1);
            let sentence = trees.standings.complain(now, witness, member(parent));
            log::info!(
                "{}: {} complains of {}: {sentence:?}",
                self.jid,
                self.domains[number].name,
                self.domains[parent].name
            );
            // Who may not relay or have a parent any more is dealt with by `tend`.
            trees.stale.extend([number, parent]);
            if let (Sentence::Move, Some(grown)) = (sentence, &mut trees.grown) {
                let moves = grown.parents[*class as usize].move_away(now, witness);
                self.concern(*class, &moves, &mut moved);
            }
        }
        self.assign_all(now, &mut trees, moved, out);
        trees.pardon = trees.standings.next(now);
        trees.pardon.into_iter().for_each(|at| self.alarm.by(at));
        self.trees = Some(trees);
    }

    /// Sends casts again that a replica misses. All that are not acknowledged are kept.
    fn repair(&mut self, now: Millis, number: usize, report: &Report, out: &mut Vec<Action>) {
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
        let Some(grown) = self.trees.as_ref().and_then(|trees| trees.grown.as_ref()) else {
            return false;
        };
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
        let body = Arc::new(write_newest(&epoch, lock(&grown.stream).newest(), question));
        link.traffic.cost(1, CONTROL_BYTES);
        self.shared.counters.cost(1, CONTROL_BYTES);
        out.push(Action::Envelope { to: domain.name.clone(), id, body });
        self.watch(number);
        true
    }

    /// Moves those for whom another place in a tree is better by far.
    pub(super) fn improve(&mut self, now: Millis, out: &mut Vec<Action>) {
        let Some(mut trees) = self.trees.take() else { return };
        let is_soon = trees.improved.is_some_and(|last| now.since(last) < IMPROVE_PAUSE);
        // Each move is two or three envelopes, and the next cast has barriers for so many only.
        let may_move =
            |grown: &&mut Grown| !is_soon && !lock(&grown.stream).has_barriers(IMPROVE_BARRIERS);
        if let Some(grown) = trees.grown.as_mut().filter(may_move) {
            trees.improved = Some(now);
            let mut moved = BTreeSet::new();
            for class in Class::ALL {
                let moves = grown.parents[class as usize].improve(now);
                self.concern(class, &moves, &mut moved);
            }
            self.assign_all(now, &mut trees, moved, out);
        }
        self.trees = Some(trees);
    }
}

/// When a replica is to be told how far the stream is.
pub(super) fn next_beat(link: &Link) -> Option<Millis> {
    let limb = link.limb.as_ref().filter(|limb| limb.leaving().is_none())?;
    let oldest = link.sent.front().filter(|sent| sent.cast.is_some())?.at;
    Some(oldest.max(limb.beat.unwrap_or(oldest)) + BEAT)
}
