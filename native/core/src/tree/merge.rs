//! A replica's end: the room stream, over any number of ways, and the envelopes of the direct link
//! become one stream again, in the order of the primary.
//!
//! An envelope says after which casts it comes, and a cast after which envelope. Both hold at any
//! moment: so at most one thing may come next, and whatever has not come yet is waited for or asked for.

use std::collections::{BTreeMap, VecDeque};

use super::barrier::LinkKey;
use super::cast::{Carried, Position, Proof, other};
use super::gaps::Gap;
use super::sign::{RoomLock, Stream};
use super::stream::Place;
use crate::{Class, Millis};

/// Limits of a [`Merge`].
#[derive(Clone, Copy, Debug)]
pub struct MergeLimits {
    /// Casts that wait.
    pub casts: usize,
    /// Bytes of them.
    pub bytes: usize,
    /// Envelopes that wait.
    pub envelopes: usize,
    /// Milliseconds for which a missing cast may be late before it is asked for.
    pub patience: u64,
    /// Longest time until it is asked for again, in milliseconds.
    pub longest_pause: u64,
    /// Casts that one question names.
    pub ask: u64,
}

impl Default for MergeLimits {
    fn default() -> Self {
        MergeLimits {
            casts: 1024,
            bytes: 4 << 20,
            envelopes: 1024,
            patience: 200,
            longest_pause: 30_000,
            ask: 256,
        }
    }
}

/// Casts that have not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Their class.
    pub class: Class,
    /// From this number.
    pub first: u64,
    /// To this one.
    pub last: u64,
}

/// Over which stream a cast has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From the room itself.
    Primary,
    /// From another replica.
    Relay,
}

/// What became of a cast that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// New and genuine: it is to be passed on at once to those whose parent this replica is, unless
    /// its proof is [`Proof::Direct`].
    New,
    /// Seen already, or another way round it: nothing is to be done.
    Duplicate,
    /// Of another epoch; relays may have some on the way when one ends.
    Stale,
    /// With real JIDs, and nobody here is entitled to see any.
    NotEntitled,
    /// Too far ahead of what is delivered to be kept; it will be asked for.
    Ahead,
    /// The room has not signed this. A relay passes on nothing that it has not checked: so the one that
    /// it came from has made or altered it.
    Forged,
}

/// An envelope of the direct link, with what it says of the room stream.
#[derive(Clone, Debug)]
pub struct Envelope<E> {
    /// Link sequence number.
    pub seq: u64,
    /// Where it lies in the room stream.
    pub place: Place,
    /// From it on, or no longer, this replica takes casts with real JIDs.
    pub has_full: Option<bool>,
    /// What it is to the caller.
    pub content: E,
}

/// Why an envelope is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// It is not the next one of its link.
    Gap,
    /// More wait than may.
    Limit,
}

/// What comes next.
#[derive(Clone, Debug)]
pub enum Next<P, E> {
    /// A cast of the room stream.
    Cast(Carried<P>),
    /// An envelope.
    Envelope(E),
}

/// The merge of one link.
#[derive(Debug)]
pub struct Merge<P, E> {
    stream: Stream,
    lock: RoomLock,
    key: LinkKey,
    limits: MergeLimits,
    has_full: bool,
    /// Delivered, or covered by an envelope that is.
    done: Position,
    /// Known to exist.
    newest: Position,
    /// Newest envelope delivered.
    seq: u64,
    casts: [BTreeMap<u64, Carried<P>>; 2],
    bytes: usize,
    thrown: u64,
    envelopes: VecDeque<Envelope<E>>,
    gaps: [Gap; 2],
}

impl<P: Clone, E> Merge<P, E> {
    /// From the envelope on that says so, of number `seq`, and from this position of the room stream.
    pub fn new(
        stream: Stream,
        lock: RoomLock,
        key: LinkKey,
        (seq, position): (u64, Position),
        has_full: bool,
        limits: MergeLimits,
    ) -> Self {
        Merge {
            stream,
            lock,
            key,
            limits,
            has_full,
            done: position,
            newest: position,
            seq,
            casts: [BTreeMap::new(), BTreeMap::new()],
            bytes: 0,
            thrown: 0,
            envelopes: VecDeque::new(),
            gaps: Default::default(),
        }
    }

    /// How far the stream is delivered: for reports, and it is acknowledged by them.
    pub fn done(&self) -> Position {
        self.done
    }

    /// Newest envelope that is delivered.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Casts that were thrown away for want of room. They are asked for when their turn comes.
    pub fn thrown(&self) -> u64 {
        self.thrown
    }

    /// Bytes of the casts that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn takes(&self, class: Class) -> bool {
        class == Class::Anonymous || self.has_full
    }

    /// Whether the room has signed a cast, or it comes from the room itself.
    pub fn is_genuine(&self, from: Source, carried: &Carried<P>) -> bool {
        *carried.epoch == *self.stream.epoch
            && match &carried.proof {
                Proof::Signed { tags, signature } => {
                    self.lock.fits(&self.stream, &carried.cast, tags, signature)
                }
                Proof::Direct { .. } => from == Source::Primary,
            }
    }

    /// A cast has come. Call [`Merge::next`] afterwards, as after everything that comes.
    pub fn cast(&mut self, now: Millis, from: Source, carried: Carried<P>) -> Taken {
        let cast = carried.cast;
        if *carried.epoch != *self.stream.epoch {
            return Taken::Stale;
        }
        if !self.takes(cast.class) {
            return Taken::NotEntitled;
        }
        // Before the signature is checked, which costs a thousand times as much.
        let waiting = &self.casts[cast.class as usize];
        if cast.number <= self.done.get(cast.class) || waiting.contains_key(&cast.number) {
            return Taken::Duplicate;
        }
        if !self.is_genuine(from, &carried) {
            return Taken::Forged;
        }
        self.newest.raise(cast.class, cast.number);
        self.newest.raise(other(cast.class), cast.other);
        self.bytes += carried.size;
        self.casts[cast.class as usize].insert(cast.number, carried);
        let is_kept = self.make_room(cast.class, cast.number);
        self.watch(now);
        if is_kept { Taken::New } else { Taken::Ahead }
    }

    /// Throws away what is furthest ahead until the rest may wait, but never the next of a class: the
    /// stream could not go on. Whether this one is still there.
    fn make_room(&mut self, class: Class, number: u64) -> bool {
        let mut is_kept = true;
        while self.casts.iter().map(BTreeMap::len).sum::<usize>() > self.limits.casts
            || self.bytes > self.limits.bytes
        {
            let ahead = |class: Class| {
                let (number, _) = self.casts[class as usize].last_key_value()?;
                Some((number - self.done.get(class), class)).filter(|(ahead, _)| *ahead > 1)
            };
            let furthest = Class::ALL.into_iter().filter_map(ahead).max_by_key(|(ahead, _)| *ahead);
            let Some((_, furthest)) = furthest else { break };
            if let Some((gone, carried)) = self.casts[furthest as usize].pop_last() {
                self.bytes -= carried.size;
                self.thrown += 1;
                is_kept &= (furthest, gone) != (class, number);
            }
        }
        is_kept
    }

    /// An envelope has come over the direct link.
    pub fn envelope(&mut self, now: Millis, envelope: Envelope<E>) -> Result<(), NotTaken> {
        if Some(envelope.seq) != self.seq.checked_add(self.envelopes.len() as u64 + 1) {
            return Err(NotTaken::Gap);
        }
        if self.envelopes.len() >= self.limits.envelopes {
            return Err(NotTaken::Limit);
        }
        for class in Class::ALL {
            self.newest.raise(class, envelope.place.after.get(class));
        }
        self.envelopes.push_back(envelope);
        self.watch(now);
        Ok(())
    }

    /// The room says on the direct link how far its stream is: so that a last cast is missed too.
    pub fn heartbeat(&mut self, now: Millis, newest: Position) {
        for class in Class::ALL {
            self.newest.raise(class, newest.get(class));
        }
        self.watch(now);
    }

    /// What is to be delivered next, if it is there. To be called until there is nothing.
    pub fn next(&mut self, now: Millis) -> Option<Next<P, E>> {
        if let Some(class) = Class::ALL.into_iter().find(|class| self.is_next(*class)) {
            let number = self.done.get(class) + 1;
            let carried = self.casts[class as usize].remove(&number)?;
            self.bytes -= carried.size;
            self.done.raise(class, number);
            self.watch(now);
            return Some(Next::Cast(carried));
        }
        let after = self.envelopes.front()?.place.after;
        if Class::ALL.into_iter().any(|c| self.takes(c) && self.done.get(c) < after.get(c)) {
            return None;
        }
        let Envelope { seq, place, has_full, content } = self.envelopes.pop_front()?;
        self.seq = seq;
        if has_full == Some(true) && !self.has_full {
            self.has_full = true;
            self.done.full = place.after.full;
        }
        for class in Class::ALL {
            self.done.raise(class, place.covers.get(class));
        }
        self.has_full = has_full.unwrap_or(self.has_full);
        self.forget();
        self.watch(now);
        Some(Next::Envelope(content))
    }

    /// The envelopes that wait, when this link leaves the stream: they come after nothing any more.
    pub fn rest(&mut self) -> impl Iterator<Item = E> + use<P, E> {
        std::mem::take(&mut self.envelopes).into_iter().map(|envelope| envelope.content)
    }

    /// Whether the next cast of this class is there, and everything that comes before it.
    fn is_next(&self, class: Class) -> bool {
        let next = self.done.get(class).saturating_add(1);
        let Some(carried) = self.casts[class as usize].get(&next) else { return false };
        let second = other(class);
        if self.takes(second) && self.done.get(second) < carried.cast.other {
            return false;
        }
        let barrier = match &carried.proof {
            Proof::Signed { tags, .. } => self.key.find(&self.stream, class, next, tags),
            Proof::Direct { seq } => Some(*seq),
        };
        barrier.is_none_or(|seq| seq <= self.seq)
    }

    /// Drops casts that an envelope has taken the place of, or that are not for this replica any more.
    fn forget(&mut self) {
        for class in Class::ALL {
            let done = if self.takes(class) { self.done.get(class) } else { u64::MAX };
            let gone = &mut self.casts[class as usize];
            while let Some(entry) = gone.first_entry().filter(|entry| *entry.key() <= done) {
                self.bytes -= entry.remove().size;
            }
        }
    }

    fn watch(&mut self, now: Millis) {
        for class in Class::ALL {
            let first = self.holes(class, 1).next().map(|hole| hole.first);
            self.gaps[class as usize].watch(now, first, self.limits.patience);
        }
    }

    /// When to call [`Merge::ask`], if anything is missing.
    pub fn wake(&self) -> Option<Millis> {
        self.gaps.iter().filter_map(Gap::due).min()
    }

    /// What is missing for so long that the room is to be asked for it, over the direct link.
    pub fn ask(&mut self, now: Millis) -> Vec<Missing> {
        let mut missing = Vec::new();
        for class in Class::ALL {
            let gap = &mut self.gaps[class as usize];
            if gap.due().is_some_and(|due| due <= now) {
                gap.asked(now, self.limits.patience, self.limits.longest_pause);
                missing.extend(self.holes(class, self.limits.ask));
            }
        }
        missing
    }

    /// Whether the last question about a class was about a gap that had been asked for before.
    pub fn has_asked_again(&self, class: Class) -> bool {
        self.gaps[class as usize].is_old()
    }

    /// Casts of a class that are known and not there, so many at most.
    fn holes(&self, class: Class, most: u64) -> impl Iterator<Item = Missing> {
        let waiting = &self.casts[class as usize];
        let known = self.newest.get(class).saturating_sub(self.done.get(class));
        let is_whole = known <= waiting.len() as u64 || !self.takes(class);
        let newest = if is_whole { 0 } else { self.newest.get(class) };
        let mut first = self.done.get(class).saturating_add(1);
        let mut left = most;
        let mut waiting = waiting.keys();
        let mut is_over = false;
        std::iter::from_fn(move || {
            while !is_over && left > 0 && first <= newest {
                let end = match waiting.next() {
                    Some(number) => *number,
                    None => {
                        is_over = true;
                        newest.saturating_add(1)
                    }
                };
                let begin = std::mem::replace(&mut first, end.saturating_add(1));
                if begin < end {
                    let last = begin.saturating_add(left - 1).min(end - 1);
                    left -= last - begin + 1;
                    return Some(Missing { class, first: begin, last });
                }
            }
            None
        })
    }
}
