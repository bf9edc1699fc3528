//! The audience of a link, held alike by both ends.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

/// Which variant of presences an occupant gets.
///
/// XEP-0045 lets a room show real JIDs to some occupants only (section 4.2); the class is learnt
/// from what the room sends, not computed from affiliations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Presences without `item/@jid`.
    #[default]
    Anonymous,
    /// Presences with `item/@jid`.
    Full,
}

impl Class {
    /// Both, in the order of their discriminants.
    pub(crate) const ALL: [Class; 2] = [Class::Anonymous, Class::Full];

    /// The value of the `class` attribute.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Anonymous => "anonymous",
            Class::Full => "full",
        }
    }

    /// Reads a `class` attribute.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "anonymous" => Some(Class::Anonymous),
            "full" => Some(Class::Full),
            _ => None,
        }
    }
}

/// Whom a `cast` is for, before exceptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The whole audience.
    All,
    /// One class of it.
    Class(Class),
}

/// Who is in the audience and who of them is of the full class, by index.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seats {
    all: RoaringBitmap,
    full: RoaringBitmap,
}

impl Seats {
    pub fn enter(&mut self, index: u32, class: Class) {
        self.all.insert(index);
        if class == Class::Full {
            self.full.insert(index);
        }
    }

    pub fn leave(&mut self, index: u32) {
        self.all.remove(index);
        self.full.remove(index);
    }

    pub fn set_class(&mut self, index: u32, class: Class) {
        if class == Class::Full {
            self.full.insert(index);
        } else {
            self.full.remove(index);
        }
    }

    pub fn contains(&self, index: u32) -> bool {
        self.all.contains(index)
    }

    pub fn all(&self) -> &RoaringBitmap {
        &self.all
    }

    /// How many a scope has.
    pub fn len(&self, scope: Scope) -> u64 {
        match scope {
            Scope::All => self.all.len(),
            Scope::Class(Class::Full) => self.full.len(),
            Scope::Class(Class::Anonymous) => self.all.len() - self.full.len(),
        }
    }

    pub fn scope(&self, scope: Scope) -> Cow<'_, RoaringBitmap> {
        match scope {
            Scope::All => Cow::Borrowed(&self.all),
            Scope::Class(Class::Full) => Cow::Borrowed(&self.full),
            Scope::Class(Class::Anonymous) if self.full.is_empty() => Cow::Borrowed(&self.all),
            Scope::Class(Class::Anonymous) => Cow::Owned(&self.all - &self.full),
        }
    }

    /// A scope without exceptions from it.
    pub fn part(&self, scope: Scope, except: &RoaringBitmap) -> Cow<'_, RoaringBitmap> {
        let all = self.scope(scope);
        if except.is_empty() { all } else { Cow::Owned(&*all - except) }
    }
}

/// The audience with its JIDs. An index is given once in an epoch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audience {
    pub seats: Seats,
    jids: HashMap<u32, Arc<str>>,
    /// Indexes that have a JID, of sessions that are served or not.
    known: RoaringBitmap,
    next: u32,
}

impl Audience {
    /// Gives the next index to a session, which is not in the audience before [`Self::enter`].
    pub fn allot(&mut self, jid: Arc<str>) -> u32 {
        let index = self.next;
        self.next += 1;
        self.jids.insert(index, jid);
        self.known.insert(index);
        index
    }

    /// Takes in a session under an index that a peer has given, which must be the next one: a gap
    /// would let a peer make sets of indexes as large as it likes.
    pub fn admit(&mut self, index: u32, jid: Arc<str>, class: Class) -> bool {
        if index != self.next || index == u32::MAX {
            return false;
        }
        self.next = index + 1;
        self.jids.insert(index, jid);
        self.known.insert(index);
        self.seats.enter(index, class);
        true
    }

    pub fn jid(&self, index: u32) -> Option<&Arc<str>> {
        self.jids.get(&index)
    }

    /// Forgets the JID of an index that nothing names any more.
    pub fn forget(&mut self, index: u32) {
        self.seats.leave(index);
        self.jids.remove(&index);
        self.known.remove(index);
    }

    /// Indexes that have a JID, of sessions that are served or not.
    pub fn known(&self) -> &RoaringBitmap {
        &self.known
    }

    /// One above the highest index given.
    pub fn bound(&self) -> u32 {
        self.next
    }

    pub fn jids(&self) -> impl Iterator<Item = (u32, &Arc<str>)> {
        self.jids.iter().map(|(index, jid)| (*index, jid))
    }
}
