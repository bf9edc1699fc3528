//! A cast of the room stream, and places in that stream.

use std::sync::Arc;

use super::barrier::Tag;
use super::canonical::Digest;
use super::sign::Signature;
use crate::Class;

/// One cast of the room stream, whichever way it comes.
///
/// There is one stream for each class of payloads, numbered without gaps, because not every replica
/// may have both. `other` says how they lie to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    /// What the payload shows: [`Class::Full`] if real JIDs. Those go only to replicas that have an
    /// occupant entitled to them.
    pub class: Class,
    /// Number in its epoch and class, from 1, without gaps.
    pub number: u64,
    /// Number of the newest cast of the other class before it, 0 for none.
    pub other: u64,
    /// For which class of occupants; `None` for the whole audience.
    pub only: Option<Class>,
    /// Of the carried stanza.
    pub digest: Digest,
}

impl Cast {
    /// Where the room stream is just before this cast.
    pub fn before(&self) -> Position {
        let mut position = Position::default();
        position.set(self.class, self.number.saturating_sub(1));
        position.set(other(self.class), self.other);
        position
    }
}

/// A place in the room stream: how many casts of each class come before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Without real JIDs.
    pub anonymous: u64,
    /// With real JIDs.
    pub full: u64,
}

impl Position {
    /// How many of one class.
    pub fn get(&self, class: Class) -> u64 {
        match class {
            Class::Anonymous => self.anonymous,
            Class::Full => self.full,
        }
    }

    pub(super) fn set(&mut self, class: Class, number: u64) {
        match class {
            Class::Anonymous => self.anonymous = number,
            Class::Full => self.full = number,
        }
    }

    pub(super) fn raise(&mut self, class: Class, number: u64) {
        self.set(class, self.get(class).max(number));
    }
}

/// The class that this one is not.
pub(super) fn other(class: Class) -> Class {
    match class {
        Class::Anonymous => Class::Full,
        Class::Full => Class::Anonymous,
    }
}

/// How a replica knows that a cast is the room's, and which envelopes come before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// For any way. The tags are of those replicas that have had envelopes since the cast before.
    Signed {
        /// One for each of those replicas.
        tags: Vec<Tag>,
        /// Covers the cast and the tags.
        signature: Signature,
    },
    /// For one replica, over the authenticated stream from the room itself.
    Direct {
        /// The envelope that the cast comes after, 0 if the cast before says it all.
        seq: u64,
    },
}

/// A cast as it crosses a stream.
#[derive(Clone, Debug)]
pub struct Carried<P> {
    /// Epoch of the room stream.
    pub epoch: Arc<str>,
    /// What it is.
    pub cast: Cast,
    /// How one knows.
    pub proof: Proof,
    /// The room's stanza, of which [`Cast::digest`] is.
    pub payload: P,
    /// Bytes that it takes to keep it.
    pub size: usize,
}
