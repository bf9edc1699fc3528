//! The primary's end of a room stream: numbers, barriers, signatures, and what is sent again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Node;
use super::barrier::LinkKey;
use super::canonical::Digest;
use super::cast::{Carried, Cast, Position, Proof, other};
use super::merge::Missing;
use super::sign::{PublicKey, RoomKey, Stream};
use crate::{Class, Millis};

/// Limits of a [`RoomStream`].
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Casts of each class that are kept to be sent again.
    pub casts: usize,
    /// Bytes of those of both classes.
    pub bytes: usize,
    /// Barrier tags of one cast, 16 bytes each; with more, it goes to every replica directly.
    pub tags: usize,
    /// Milliseconds between two answers to one replica that misses something.
    pub repair_pause: u64,
    /// Casts in one such answer.
    pub repair_casts: u64,
}

impl Default for StreamLimits {
    fn default() -> Self {
        let bytes = 8 << 20;
        StreamLimits { casts: 2048, bytes, tags: 64, repair_pause: 100, repair_casts: 256 }
    }
}

/// Where an envelope of a direct link lies in the room stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// It comes after these casts.
    pub after: Position,
    /// It takes the place of the casts from there up to here: whoever gets it does not get them.
    pub covers: Position,
}

/// A replica that takes casts from others.
#[derive(Debug)]
struct Taker {
    key: LinkKey,
    /// The casts with real JIDs that it may have: after the first number of each pair, up to the second.
    /// It may have missed some of those from before it lost its last entitled occupant.
    full: Vec<(u64, u64)>,
    /// Newest envelope of its link.
    seq: u64,
    repaired: Option<Millis>,
    /// It takes no more casts: it is there until one of each class has told it so.
    is_retired: bool,
}

impl Taker {
    fn takes(&self, class: Class) -> bool {
        class == Class::Anonymous || self.full.last().is_some_and(|(_, last)| *last == u64::MAX)
    }

    /// Whether it takes casts of this class, or may not know yet that it does not any more: then it must
    /// not deliver what somebody passes on to it nevertheless.
    fn may_take(&self, class: Class) -> bool {
        class == Class::Anonymous || !self.full.is_empty()
    }

    fn may_have(&self, class: Class, number: u64) -> bool {
        let is_in = |(before, last): &(u64, u64)| (before + 1..=*last).contains(&number);
        class == Class::Anonymous || self.full.iter().any(is_in)
    }

    /// From here on it takes casts with real JIDs or none; those up to `oldest` are not kept any more.
    fn set_full(&mut self, has_full: bool, newest: u64, oldest: u64) {
        match (has_full, self.takes(Class::Full)) {
            (true, false) => self.full.push((newest, u64::MAX)),
            (false, true) => {
                self.full.retain(|(_, last)| *last > oldest);
                if let Some((_, last)) = self.full.last_mut() {
                    *last = newest;
                }
            }
            _ => {}
        }
    }
}

#[derive(Debug)]
struct Kept<P> {
    carried: Carried<P>,
    /// Barriers of a cast that has no tags.
    barriers: BTreeMap<Node, u64>,
}

impl<P: Clone> Kept<P> {
    fn to(&self, node: Node) -> Carried<P> {
        let mut carried = self.carried.clone();
        if let Proof::Direct { seq } = &mut carried.proof {
            *seq = self.barriers.get(&node).copied().unwrap_or(0);
        }
        carried
    }
}

/// How a cast is to go out.
#[derive(Clone, Debug)]
pub enum Spread<P> {
    /// To the primary's own children of the tree of this class, which pass it on.
    Tree(Carried<P>),
    /// To each of these by itself, who MUST NOT pass it on.
    Each(Vec<(Node, Carried<P>)>),
}

/// What a replica that misses something is answered.
#[derive(Clone, Debug)]
pub struct Repair<P> {
    /// To be sent to it directly.
    pub casts: Vec<Carried<P>>,
    /// Something is not kept any more: this replica's link has lost its place in the stream.
    pub is_lost: bool,
}

/// One epoch of a room stream at its primary.
#[derive(Debug)]
pub struct RoomStream<P> {
    stream: Stream,
    epoch: Arc<str>,
    key: RoomKey,
    limits: StreamLimits,
    at: Position,
    takers: BTreeMap<Node, Taker>,
    /// Those that have had an envelope since the last cast of a class which they take. For each class by
    /// itself: a replica may not know yet that it takes the other one, and would not see its tag there.
    due: [BTreeSet<Node>; 2],
    kept: [VecDeque<Kept<P>>; 2],
    bytes: usize,
    /// No cast is passed on, whatever barriers it has.
    pub is_direct: bool,
}

impl<P: Clone> RoomStream<P> {
    /// An epoch without casts. `secret` must be random, `epoch` a name not used before for this room.
    pub fn new(room: &str, epoch: &str, secret: &[u8; 32], limits: StreamLimits) -> Self {
        RoomStream {
            stream: Stream { room: room.to_owned(), epoch: epoch.to_owned() },
            epoch: epoch.into(),
            key: RoomKey::new(secret),
            limits,
            at: Position::default(),
            takers: BTreeMap::new(),
            due: Default::default(),
            kept: [VecDeque::new(), VecDeque::new()],
            bytes: 0,
            is_direct: false,
        }
    }

    /// What replicas know its casts by.
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    /// Where the stream is: for the heartbeats on the direct links.
    pub fn newest(&self) -> Position {
        self.at
    }

    /// Whether the next cast of a class has barriers for more replicas than these.
    pub fn has_barriers(&self, most: usize) -> bool {
        Class::ALL.into_iter().any(|class| {
            let may_take = |node: &&Node| self.takers.get(node).is_some_and(|t| t.may_take(class));
            self.due[class as usize].iter().filter(may_take).nth(most).is_some()
        })
    }

    /// From here on this replica takes casts; `seq` is the envelope that tells it so, after which it
    /// begins at the position that is given back.
    pub fn join(&mut self, node: Node, key: LinkKey, seq: u64, has_full: bool) -> Position {
        let full = if has_full { vec![(self.at.full, u64::MAX)] } else { Vec::new() };
        self.takers.insert(node, Taker { key, full, seq, repaired: None, is_retired: false });
        self.bar(node);
        self.at
    }

    /// No more.
    pub fn leave(&mut self, node: Node) {
        self.takers.remove(&node);
        for due in &mut self.due {
            due.remove(&node);
        }
    }

    /// No more, but its link was not ended by an envelope that it is sure to have: the next casts are to
    /// wait for envelope `seq`, which will never come, whoever passes them on to it.
    pub fn retire(&mut self, node: Node, seq: u64) {
        self.link(node, seq, None);
        if let Some(taker) = self.takers.get_mut(&node) {
            taker.is_retired = true;
        }
    }

    /// Whether a replica is to get casts of this class.
    pub fn takes(&self, node: Node, class: Class) -> bool {
        self.takers.get(&node).is_some_and(|taker| !taker.is_retired && taker.takes(class))
    }

    /// An envelope goes out on a replica's direct link. With `has_full` it says too whether its domain
    /// has somebody from here on who may see real JIDs.
    pub fn envelope(&mut self, node: Node, seq: u64, has_full: Option<bool>) -> Place {
        self.link(node, seq, has_full);
        Place { after: self.at, covers: self.at }
    }

    /// An envelope goes out that takes the place of the next cast, which must be of this class: this
    /// replica's occupants get something else, or some of them nothing.
    pub fn cover(&mut self, node: Node, seq: u64, class: Class) -> Place {
        self.link(node, seq, None);
        let mut covers = self.at;
        covers.raise(class, self.at.get(class) + 1);
        Place { after: self.at, covers }
    }

    fn link(&mut self, node: Node, seq: u64, has_full: Option<bool>) {
        if let Some(taker) = self.takers.get_mut(&node) {
            taker.seq = seq;
            if let Some(has_full) = has_full {
                let kept = self.kept[Class::Full as usize].len() as u64;
                taker.set_full(has_full, self.at.full, self.at.full - kept);
            }
            self.bar(node);
        }
    }

    /// The next cast of each class waits for what this replica has been sent.
    fn bar(&mut self, node: Node) {
        for due in &mut self.due {
            due.insert(node);
        }
    }

    /// The next cast. Everything that a replica is to have before it, or instead of it, has been
    /// through [`RoomStream::envelope`] or [`RoomStream::cover`].
    pub fn cast(
        &mut self,
        class: Class,
        only: Option<Class>,
        digest: Digest,
        payload: P,
        size: usize,
    ) -> Spread<P> {
        let number = self.at.get(class) + 1;
        let cast = Cast { class, number, other: self.at.get(other(class)), only, digest };
        self.at.raise(class, number);
        let due = std::mem::take(&mut self.due[class as usize]);
        let barrier = |node: Node| {
            let taker = self.takers.get(&node).filter(|taker| taker.may_take(class))?;
            Some((node, taker.seq))
        };
        let barriers: BTreeMap<Node, u64> = due.into_iter().filter_map(barrier).collect();
        let is_direct = self.is_direct || barriers.len() > self.limits.tags;
        let proof = if is_direct {
            Proof::Direct { seq: 0 }
        } else {
            let tag = |(node, seq): (&Node, &u64)| {
                Some(self.takers.get(node)?.key.tag(&self.stream, class, number, *seq))
            };
            let tags: Vec<_> = barriers.iter().filter_map(tag).collect();
            let signature = self.key.sign(&self.stream, &cast, &tags);
            Proof::Signed { tags, signature }
        };
        let carried = Carried { epoch: self.epoch.clone(), cast, proof, payload, size };
        let kept = Kept {
            carried: carried.clone(),
            barriers: if is_direct { barriers } else { BTreeMap::new() },
        };
        let spread = if is_direct {
            let takes = |taker: &Taker| !taker.is_retired && taker.takes(class);
            let to = self.takers.iter().filter(|(_, taker)| takes(taker));
            Spread::Each(to.map(|(node, _)| (*node, kept.to(*node))).collect())
        } else {
            Spread::Tree(carried)
        };
        self.keep(class, kept);
        self.forget_retired();
        spread
    }

    /// A cast that has just gone out, for a replica that is not to pass it on. After what it has been
    /// sent.
    pub fn direct(&self, node: Node, carried: &Carried<P>) -> Carried<P> {
        let seq = self.takers.get(&node).map_or(0, |taker| taker.seq);
        Carried { proof: Proof::Direct { seq }, ..carried.clone() }
    }

    /// Those that have been told by a cast of each class that they may have.
    fn forget_retired(&mut self) {
        let due = &self.due;
        let is_due = |node: &Node, taker: &Taker| {
            [Class::Anonymous, Class::Full]
                .into_iter()
                .any(|class| due[class as usize].contains(node) && taker.may_take(class))
        };
        let retired = self.takers.iter().filter(|(_, taker)| taker.is_retired);
        let told = retired.filter(|(node, taker)| !is_due(node, taker));
        for node in told.map(|(node, _)| *node).collect::<Vec<_>>() {
            self.leave(node);
        }
    }

    fn keep(&mut self, class: Class, kept: Kept<P>) {
        self.bytes += kept.carried.size;
        self.kept[class as usize].push_back(kept);
        while self.kept[class as usize].len() > self.limits.casts || self.bytes > self.limits.bytes
        {
            let full = if self.kept[class as usize].len() > self.limits.casts {
                class as usize
            } else {
                usize::from(self.kept[0].len() < self.kept[1].len())
            };
            match self.kept[full].pop_front() {
                Some(oldest) => self.bytes -= oldest.carried.size,
                None => break,
            }
        }
    }

    /// A replica says that it misses these. `None` if it asks too soon after the time before, or is
    /// none that takes casts.
    pub fn repair(&mut self, now: Millis, node: Node, missing: &[Missing]) -> Option<Repair<P>> {
        let taker = self.takers.get_mut(&node)?;
        if taker.repaired.is_some_and(|last| now.since(last) < self.limits.repair_pause) {
            return None;
        }
        taker.repaired = Some(now);
        let mut left = self.limits.repair_casts;
        let mut repair = Repair { casts: Vec::new(), is_lost: false };
        for Missing { class, first, last } in missing {
            let kept = &self.kept[*class as usize];
            let newest = self.at.get(*class);
            if *first == 0 || *first > newest {
                continue;
            }
            let oldest = newest + 1 - kept.len() as u64;
            if *first < oldest {
                repair.is_lost = true;
                continue;
            }
            let from = (*first - oldest) as usize;
            let most = left.min((*last).min(newest).saturating_sub(*first).saturating_add(1));
            left -= most;
            let wanted = kept.iter().skip(from).take(most as usize);
            let may_have = |kept: &&Kept<P>| taker.may_have(*class, kept.carried.cast.number);
            repair.casts.extend(wanted.filter(may_have).map(|kept| kept.to(node)));
        }
        Some(repair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [9; 32];

    fn stream(limits: StreamLimits) -> RoomStream<u64> {
        let mut stream = RoomStream::new("r@c.test", "e1", &[1; 32], limits);
        for n in 0..4u8 {
            stream.join(Node(n.into()), LinkKey::new([n; 32]), 0, n < 2);
        }
        stream
    }

    fn tags(spread: &Spread<u64>) -> usize {
        match spread {
            Spread::Tree(Carried { proof: Proof::Signed { tags, .. }, .. }) => tags.len(),
            other => panic!("{other:?}"),
        }
    }

    fn cast(stream: &mut RoomStream<u64>, class: Class) -> Spread<u64> {
        stream.cast(class, None, [0; 32], 0, 10)
    }

    #[test]
    fn a_replica_has_one_tag_for_what_it_was_sent_since_the_last_cast_that_it_takes() {
        let mut stream = stream(StreamLimits::default());
        assert_eq!(tags(&cast(&mut stream, Class::Anonymous)), 4, "all have just joined");
        assert_eq!(tags(&cast(&mut stream, Class::Anonymous)), 0);
        stream.envelope(Node(0), 1, None);
        stream.envelope(Node(0), 2, None);
        stream.envelope(Node(3), 1, None);
        assert_eq!(tags(&cast(&mut stream, Class::Full)), 2, "the fourth does not see this one");
        assert_eq!(
            tags(&cast(&mut stream, Class::Anonymous)),
            2,
            "the second has seen one already"
        );
        assert_eq!(tags(&cast(&mut stream, Class::Full)), 0);
    }

    #[test]
    fn with_too_many_tags_a_cast_goes_to_each_with_its_own_barrier() {
        let mut stream = stream(StreamLimits { tags: 1, ..StreamLimits::default() });
        stream.leave(Node(3));
        cast(&mut stream, Class::Anonymous);
        stream.envelope(Node(0), 5, None);
        stream.envelope(Node(2), 6, None);
        let Spread::Each(each) = cast(&mut stream, Class::Anonymous) else { panic!("a tree") };
        let barriers: Vec<_> = each.iter().map(|(node, c)| (node.0, c.proof.clone())).collect();
        let direct = |seq| Proof::Direct { seq };
        assert_eq!(barriers, [(0, direct(5)), (1, direct(0)), (2, direct(6))]);
        let missing = [Missing { class: Class::Anonymous, first: 2, last: 2 }];
        let repair = stream.repair(Millis(0), Node(2), &missing).expect("an answer");
        assert_eq!(repair.casts[0].proof, direct(6), "and when it is sent again");
    }

    #[test]
    fn what_is_missing_is_sent_again_within_limits() {
        let limits = StreamLimits { casts: 8, repair_casts: 3, ..StreamLimits::default() };
        let mut stream = stream(limits);
        for _ in 0..10 {
            cast(&mut stream, Class::Anonymous);
        }
        cast(&mut stream, Class::Full);
        let ask = |stream: &mut RoomStream<u64>, ms, node, class, first, last| {
            let repair =
                stream.repair(Millis(ms), Node(node), &[Missing { class, first, last }])?;
            Some((repair.casts.iter().map(|c| c.cast.number).collect::<Vec<_>>(), repair.is_lost))
        };
        use Class::{Anonymous, Full};
        assert_eq!(ask(&mut stream, 0, 0, Anonymous, 9, u64::MAX), Some((vec![9, 10], false)));
        assert_eq!(ask(&mut stream, 99, 0, Anonymous, 9, 9), None, "too soon");
        assert_eq!(ask(&mut stream, 100, 0, Anonymous, 3, 10), Some((vec![3, 4, 5], false)));
        assert_eq!(ask(&mut stream, 200, 0, Anonymous, 2, 3), Some((vec![], true)));
        assert_eq!(ask(&mut stream, 300, 0, Anonymous, 11, 12), Some((vec![], false)));
        assert_eq!(ask(&mut stream, 400, 0, Full, 1, 1), Some((vec![1], false)));
        assert_eq!(ask(&mut stream, 0, 2, Full, 1, 1), Some((vec![], false)), "not entitled");
        assert_eq!(ask(&mut stream, 0, 9, Anonymous, 10, 10), None, "a stranger");
        assert!(stream.kept[0].len() == 8 && stream.bytes == 90);
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let mut stream = stream(StreamLimits { bytes: 35, ..StreamLimits::default() });
        for n in 0..20 {
            cast(&mut stream, if n % 3 == 0 { Class::Full } else { Class::Anonymous });
            assert!(stream.bytes <= 35);
        }
        let sum = stream.kept.iter().flatten().map(|kept| kept.carried.size).sum::<usize>();
        assert_eq!(stream.bytes, sum);
        // One that is larger than all that may be kept goes out and is not kept.
        let spread = stream.cast(Class::Anonymous, None, KEY, 1, 1000);
        assert!(matches!(spread, Spread::Tree(_)) && stream.bytes <= 35);
    }
}
