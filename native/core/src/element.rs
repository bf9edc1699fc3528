//! XML of the dmuc vocabulary, without an XML library: the hosts have parsed and will write it.

use std::sync::{Arc, OnceLock, Weak};

use crate::Facts;
use crate::tree::{Digest, canonical};

/// An element in the dmuc namespace. `P` is what stands for a carried stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element<P> {
    /// Local name.
    pub name: String,
    /// Attributes without `xmlns`.
    pub attrs: Vec<(String, String)>,
    /// Child elements of the same namespace.
    pub children: Vec<Element<P>>,
    /// The one carried stanza, in `jabber:client`; then there are no `children`.
    pub payload: Option<P>,
}

impl<P> Element<P> {
    /// An element without attributes or content.
    pub fn new(name: &str) -> Self {
        Element { name: name.to_owned(), attrs: Vec::new(), children: Vec::new(), payload: None }
    }

    /// Adds an attribute.
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.attrs.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds an attribute if there is a value.
    pub fn with_some(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The value of an attribute.
    pub fn attr(&self, name: &str) -> Option<&str> {
        self.attrs.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Upper bound of the length in bytes of the XML of this element without its payloads.
    pub fn markup_len(&self) -> usize {
        // Every character of a value may become an entity of up to six bytes; only JIDs can hold
        // such characters, so the bound is loose only there.
        let attrs: usize = self
            .attrs
            .iter()
            .map(|(name, value)| {
                let entities = value.bytes().filter(|b| b"<>&'\"".contains(b)).count();
                name.len() + value.len() + 5 * entities + 4
            })
            .sum();
        let children: usize = self.children.iter().map(Element::markup_len).sum();
        2 * self.name.len() + 5 + attrs + children
    }
}

/// A stanza of the room as the host hands it over.
#[derive(Clone, Debug)]
pub enum PayloadIn {
    /// The stanza itself.
    New {
        /// Its XML without `to`.
        bytes: Vec<u8>,
        /// What the host read off it.
        facts: Facts,
        /// Resource of its `from`; empty for the room itself.
        nick: String,
        /// Names the content: equal for two stanzas only if they are equal but for `to`. Payloads are
        /// recognised by it, so nobody may be able to make two of one digest.
        digest: u128,
    },
    /// A payload that [`crate::Room::recall`] has told the id of, since the event before.
    Known(u64),
}

/// A stanza of the room, shared by every operation that names it.
#[derive(Clone, Debug)]
pub struct Payload(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    id: u64,
    bytes: Box<[u8]>,
    facts: Facts,
    nick: Arc<str>,
    digest: u128,
    /// What a room stream signs, once it was asked for.
    canonical: OnceLock<Option<Digest>>,
}

/// A [`Payload`] that may be gone.
pub(crate) type Former = Weak<Inner>;

impl Payload {
    pub(crate) fn new(id: u64, bytes: Vec<u8>, facts: Facts, nick: &str, digest: u128) -> Self {
        let bytes = bytes.into_boxed_slice();
        let canonical = OnceLock::new();
        Payload(Arc::new(Inner { id, bytes, facts, nick: nick.into(), digest, canonical }))
    }

    /// The digest of its canonical form, if it has one.
    pub(crate) fn canonical(&self) -> Option<Digest> {
        *self.0.canonical.get_or_init(|| canonical(self.bytes()).ok())
    }

    pub(crate) fn downgrade(&self) -> Former {
        Arc::downgrade(&self.0)
    }

    pub(crate) fn upgrade(former: &Former) -> Option<Self> {
        former.upgrade().map(Payload)
    }

    pub(crate) fn digest(&self) -> u128 {
        self.0.digest
    }

    /// Resource of its `from`.
    pub(crate) fn nick(&self) -> &Arc<str> {
        &self.0.nick
    }

    /// Number of this payload in its room, never used twice.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The stanza's XML without `to`.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// What the host read off it.
    pub fn facts(&self) -> Facts {
        self.0.facts
    }
}

/// A carried stanza as the host describes it on the way in; the host keeps the stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// What the host read off it.
    pub facts: Facts,
    /// Its `from`.
    pub from: String,
    /// Whether it has a `to`, which no carried stanza may have.
    pub has_to: bool,
    /// The stanza in a form of the host's own, from which [`crate::Action::Replay`] makes it again;
    /// wanted where the operation has a `slot`.
    pub packed: Option<Box<[u8]>>,
}
