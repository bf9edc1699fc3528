//! A link's end of the room stream, as the primary holds it (`docs/protocol.md`, section 8).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::tree::wire::Mark;
use crate::tree::{Node, Place, Position, RoomStream};
use crate::{Class, Millis, Payload};

/// The room stream, which every envelope of a link in it has a place in.
pub(super) type SharedStream = Arc<Mutex<RoomStream<Payload>>>;

/// Nobody panics while he holds it, and nobody else could do better.
pub(super) fn lock(stream: &SharedStream) -> MutexGuard<'_, RoomStream<Payload>> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A link that lies in the room stream. When it goes, its replica delivers no more casts.
#[derive(Debug)]
pub(super) struct Limb {
    stream: SharedStream,
    /// Its number in the stream, never used again.
    pub node: Node,
    /// Newest envelope of the link by its number in the stream.
    nth: u64,
    /// What the replica was told: whether it takes casts with real JIDs.
    pub has_full: bool,
    /// The link is held since this position, or nobody is left in its audience: the next envelope takes
    /// the place of what has been cast since.
    parked: Option<Position>,
    /// The link leaves the stream with this envelope, at this position.
    leaving: Option<(u64, Position)>,
    /// The domain that the replica was told to get casts of each class from; `None` for the room.
    pub parents: [Option<usize>; 2],
    /// Those that it was told to pass them on to.
    pub children: [BTreeSet<usize>; 2],
    /// When something was last sent again.
    pub repaired: Option<Millis>,
    /// When it was last told how far the stream is.
    pub beat: Option<Millis>,
    /// The question of this number that it was asked with that, and when. It has not answered.
    pub asked: Option<(u64, Millis)>,
}

impl Limb {
    /// From here on in the stream. The stream must know the node.
    pub fn new(stream: SharedStream, node: Node, has_full: bool) -> Self {
        Limb {
            stream,
            node,
            nth: 0,
            has_full,
            parked: None,
            leaving: None,
            parents: [None; 2],
            children: Default::default(),
            repaired: None,
            beat: None,
            asked: None,
        }
    }

    /// An envelope goes out, in which somebody may see real JIDs or nobody; with `covering` it takes the
    /// place of the next cast of that class.
    pub fn mark(&mut self, covering: Option<Class>, is_full: bool) -> Mark {
        self.nth += 1;
        let nth = self.nth;
        if let Some((_, at)) = self.leaving {
            return Mark { nth, place: Place { after: at, covers: at }, has_full: None };
        }
        let mut stream = lock(&self.stream);
        let (mut place, has_full) = match covering {
            Some(class) => (stream.cover(self.node, nth, class), None),
            None => {
                let changed = (is_full != self.has_full).then_some(is_full);
                self.has_full = is_full;
                (stream.envelope(self.node, nth, changed), changed)
            }
        };
        if let Some(parked) = self.parked.take() {
            place.after = parked;
        }
        Mark { nth, place, has_full }
    }

    /// Nothing goes out on the link any more, for a while or for good, or nobody is left in its audience:
    /// what is cast from here on waits at the replica for the envelope that comes next, if one does.
    pub fn park(&mut self) {
        if self.parked.is_none() && self.leaving.is_none() {
            let mut stream = lock(&self.stream);
            stream.envelope(self.node, self.nth + 1, None);
            self.parked = Some(stream.newest());
        }
    }

    /// The link is held: it is parked, and whatever it was asked is asked anew.
    pub fn hold(&mut self) {
        self.asked = None;
        self.park();
    }

    pub fn is_parked(&self) -> bool {
        self.parked.is_some()
    }

    /// Whether it lies in this stream, and not in one that was before it.
    pub fn is_in(&self, stream: &SharedStream) -> bool {
        Arc::ptr_eq(&self.stream, stream)
    }

    /// The envelope of link sequence number `seq`, which was the last, says that it leaves the stream.
    pub fn leave(&mut self, seq: u64) {
        let mut stream = lock(&self.stream);
        stream.retire(self.node, self.nth);
        self.leaving = Some((seq, stream.newest()));
    }

    /// The envelope with which it leaves.
    pub fn leaving(&self) -> Option<u64> {
        self.leaving.map(|(seq, _)| seq)
    }

    /// Whether it is to get casts of a class. The stream knows the same.
    pub fn takes(&self, class: Class) -> bool {
        self.leaving.is_none()
            && self.parked.is_none()
            && (class == Class::Anonymous || self.has_full)
    }

    /// How far the stream is as far as it concerns this link.
    pub fn newest(&self) -> Position {
        self.parked.unwrap_or_else(|| lock(&self.stream).newest())
    }
}

impl Drop for Limb {
    fn drop(&mut self) {
        if self.leaving.is_none() {
            lock(&self.stream).retire(self.node, self.nth + 1);
        }
    }
}
