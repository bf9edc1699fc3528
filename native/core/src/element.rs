//! XML of the dmuc vocabulary, without an XML library: the hosts have parsed and will write it.

use std::sync::Arc;

use crate::Facts;

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
pub struct PayloadIn {
    /// Its XML without `to`.
    pub bytes: Vec<u8>,
    /// What the host read off it.
    pub facts: Facts,
}

/// A stanza of the room, shared by every operation that names it.
#[derive(Clone, Debug)]
pub struct Payload(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: u64,
    bytes: Box<[u8]>,
    facts: Facts,
}

impl Payload {
    pub(crate) fn new(id: u64, payload: PayloadIn) -> Self {
        let PayloadIn { bytes, facts } = payload;
        Payload(Arc::new(Inner { id, bytes: bytes.into_boxed_slice(), facts }))
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
}
