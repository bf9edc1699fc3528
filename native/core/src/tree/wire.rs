//! What room trees say on the wire: operations of an envelope, casts that are passed on, and places in
//! the room stream (`docs/protocol.md`, section 8.7).

use std::sync::Arc;

use super::barrier::Tag;
use super::canonical::Digest;
use super::cast::{Carried, Cast, Position, Proof};
use super::merge::Missing;
use super::sign::PublicKey;
use super::stream::Place;
use crate::ops::is_epoch;
use crate::{Class, Element, indexes, jid};

/// Barrier tags that are read; a primary has no reason to send more.
const MAX_TAGS: usize = 64;
/// Name of the element that carries a cast outside of an envelope.
pub(crate) const RELAYED: &str = "relayed";
/// Name of the element that says how far the stream is.
pub(crate) const NEWEST: &str = "newest";

/// What a room tells a replica of its part in the trees.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TreeOp {
    /// From the next envelope on this link lies in the room stream.
    Stream { name: String, key: PublicKey, secret: [u8; 32], from: Position, has_full: bool },
    /// From here on it does not.
    Alone,
    /// Casts of a class are passed on by this domain, or come from the room itself.
    Parent { class: Class, domain: Option<Arc<str>> },
    /// Casts of a class are to be passed on to this domain, or not any more.
    Child { class: Class, domain: Arc<str>, is_gone: bool },
}

impl TreeOp {
    pub fn write<P>(&self) -> Element<P> {
        match self {
            TreeOp::Stream { name, key, secret, from, has_full } => Element::new("stream")
                .with("name", name)
                .with("key", hex(key))
                .with("secret", hex(secret))
                .with("from", position(*from))
                .with_some("full", has_full.then_some(1)),
            TreeOp::Alone => Element::new("alone"),
            TreeOp::Parent { class, domain } => Element::new("parent")
                .with("class", class.as_str())
                .with_some("domain", domain.as_ref()),
            TreeOp::Child { class, domain, is_gone } => {
                Element::new(if *is_gone { "orphan" } else { "child" })
                    .with("class", class.as_str())
                    .with("domain", domain)
            }
        }
    }

    pub fn read<P>(element: &Element<P>) -> Option<Self> {
        let class = || Class::parse(element.attr("class")?);
        let domain = |text: &str| is_domain(text).then(|| Arc::from(text));
        Some(match element.name.as_str() {
            "stream" => TreeOp::Stream {
                name: element.attr("name").filter(|name| is_epoch(name))?.to_owned(),
                key: unhex(element.attr("key")?)?,
                secret: unhex(element.attr("secret")?)?,
                from: parse_position(element.attr("from")?)?,
                has_full: element.attr("full").is_some(),
            },
            "alone" => TreeOp::Alone,
            "parent" => TreeOp::Parent {
                class: class()?,
                domain: match element.attr("domain") {
                    Some(text) => Some(domain(text)?),
                    None => None,
                },
            },
            "child" | "orphan" => TreeOp::Child {
                class: class()?,
                domain: domain(element.attr("domain")?)?,
                is_gone: element.name == "orphan",
            },
            _ => return None,
        })
    }
}

/// Where an envelope lies: its number among those of its link in the stream, its place, and whether real
/// JIDs are shown from it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub nth: u64,
    pub place: Place,
    pub has_full: Option<bool>,
}

impl Mark {
    pub fn write<P>(&self, envelope: Element<P>) -> Element<P> {
        let Place { after, covers } = self.place;
        envelope
            .with("nth", self.nth)
            .with("after", position(after))
            .with_some("covers", (covers != after).then(|| position(covers)))
            .with_some("full", self.has_full.map(u8::from))
    }

    pub fn read<P>(envelope: &Element<P>) -> Option<Self> {
        let after = parse_position(envelope.attr("after")?)?;
        let covers = match envelope.attr("covers") {
            Some(text) => parse_position(text)?,
            None => after,
        };
        let has_full = match envelope.attr("full") {
            None => None,
            Some("0") => Some(false),
            Some("1") => Some(true),
            Some(_) => return None,
        };
        let nth = indexes::long(envelope.attr("nth")?)?;
        Some(Mark { nth, place: Place { after, covers }, has_full })
    }
}

/// A cast outside of an envelope, with what proves it.
pub(crate) fn write_cast<P: Clone>(room: &str, carried: &Carried<P>) -> Element<P> {
    let Cast { class, number, other, only, .. } = carried.cast;
    let mut element = Element::new(RELAYED)
        .with("room", room)
        .with("stream", &carried.epoch)
        .with("class", class.as_str())
        .with("n", number)
        .with("other", other)
        .with_some("only", only.map(Class::as_str));
    match &carried.proof {
        Proof::Signed { tags, signature } => {
            if !tags.is_empty() {
                let tags: Vec<String> = tags.iter().map(|Tag(tag)| hex(tag)).collect();
                element = element.with("tags", tags.join(" "));
            }
            element = element.with("signature", hex(signature));
        }
        Proof::Direct { seq } => element = element.with("nth", seq),
    }
    element.payload = Some(carried.payload.clone());
    element
}

/// Reads one; `digest` is that of its stanza in canonical form.
pub(crate) fn read_cast<P: Clone>(
    element: &Element<P>,
    digest: Option<Digest>,
    size: usize,
) -> Option<Carried<P>> {
    let long = |name| indexes::long(element.attr(name)?);
    let only = match element.attr("only") {
        Some(class) => Some(Class::parse(class)?),
        None => None,
    };
    let proof = match element.attr("signature") {
        Some(signature) => {
            let words = element.attr("tags").unwrap_or("").split(' ').filter(|tag| !tag.is_empty());
            let tags: Vec<Tag> =
                words.take(MAX_TAGS + 1).map(|tag| unhex(tag).map(Tag)).collect::<Option<_>>()?;
            if tags.len() > MAX_TAGS {
                return None;
            }
            Proof::Signed { tags, signature: unhex(signature)? }
        }
        None => Proof::Direct { seq: long("nth")? },
    };
    // Without a canonical form nothing can have been signed; directly it needs none.
    let digest = match (&proof, digest) {
        (_, Some(digest)) => digest,
        (Proof::Direct { .. }, None) => [0; 32],
        (Proof::Signed { .. }, None) => return None,
    };
    Some(Carried {
        epoch: element.attr("stream").filter(|name| is_epoch(name))?.into(),
        cast: Cast {
            class: Class::parse(element.attr("class")?)?,
            number: long("n").filter(|number| *number > 0)?,
            other: long("other")?,
            only,
            digest,
        },
        proof,
        payload: element.payload.clone()?,
        size,
    })
}

/// How far the stream is.
pub(crate) fn write_newest<P>(link: &str, newest: Position, question: Option<u64>) -> Element<P> {
    let newest = Element::new(NEWEST).with("epoch", link).with("at", position(newest));
    newest.with_some("n", question)
}

/// With the number of the question, if it is one.
pub(crate) fn read_newest<P>(element: &Element<P>) -> Option<(Position, Option<u64>)> {
    let question = match element.attr("n") {
        Some(text) => Some(indexes::long(text)?),
        None => None,
    };
    Some((parse_position(element.attr("at")?)?, question))
}

/// What a report says to be missing.
pub(crate) fn write_missing<P>(missing: &Missing) -> Element<P> {
    Element::new("missing")
        .with("class", missing.class.as_str())
        .with("first", missing.first)
        .with("last", missing.last)
}

pub(crate) fn read_missing<P>(element: &Element<P>) -> Option<Missing> {
    let long = |name| indexes::long(element.attr(name)?);
    let class = Class::parse(element.attr("class")?)?;
    let (first, last) = (long("first")?, long("last")?);
    (first > 0 && first <= last).then_some(Missing { class, first, last })
}

fn is_domain(text: &str) -> bool {
    !text.is_empty() && text.len() <= 1023 && jid::domain(text) == text && !text.contains(' ')
}

/// Newest number without real JIDs, then with.
fn position(position: Position) -> String {
    format!("{} {}", position.anonymous, position.full)
}

fn parse_position(text: &str) -> Option<Position> {
    let (anonymous, full) = text.split_once(' ')?;
    Some(Position { anonymous: indexes::long(anonymous)?, full: indexes::long(full)? })
}

fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from_digit(n.into(), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// In lower case, as it is written: there is one form only.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_read_as_they_were_written() {
        let from = Position { anonymous: 3, full: 4 };
        let all = [
            TreeOp::Stream {
                name: "s1".into(),
                key: [0xa5; 32],
                secret: [7; 32],
                from,
                has_full: true,
            },
            TreeOp::Alone,
            TreeOp::Parent { class: Class::Full, domain: Some("p.test".into()) },
            TreeOp::Parent { class: Class::Anonymous, domain: None },
            TreeOp::Child { class: Class::Full, domain: "c.test".into(), is_gone: false },
            TreeOp::Child { class: Class::Full, domain: "c.test".into(), is_gone: true },
        ];
        for op in all {
            assert_eq!(TreeOp::read::<u8>(&op.write()), Some(op.clone()), "{op:?}");
        }
        let user = Element::<u8>::new("child").with("class", "full").with("domain", "u@c.test");
        assert_eq!(TreeOp::read(&user), None, "no server");
        let key = Element::<u8>::new("stream").with("name", "s").with("key", "A5");
        assert_eq!(TreeOp::read(&key), None);
    }

    #[test]
    fn places_and_casts_are_read_as_they_were_written() {
        let after = Position { anonymous: 3, full: 4 };
        let covers = Position { anonymous: 4, full: 4 };
        for (covers, has_full) in [(after, None), (covers, Some(true)), (covers, Some(false))] {
            let mark = Mark { nth: 9, place: Place { after, covers }, has_full };
            assert_eq!(Mark::read(&mark.write(Element::<u8>::new("envelope"))), Some(mark));
        }
        let cast = Cast {
            class: Class::Full,
            number: 5,
            other: 6,
            only: Some(Class::Full),
            digest: [8; 32],
        };
        let signed = Proof::Signed { tags: vec![Tag([1; 16]), Tag([2; 16])], signature: [3; 64] };
        for proof in [signed, Proof::Direct { seq: 7 }] {
            let carried = Carried { epoch: "s1".into(), cast, proof, payload: 1u8, size: 2 };
            let element = write_cast("r@c.test", &carried);
            let read = read_cast(&element, Some([8; 32]), 2).expect("a cast");
            assert_eq!((read.cast, read.proof, read.payload), (cast, carried.proof.clone(), 1));
            let is_signed = matches!(carried.proof, Proof::Signed { .. });
            assert_eq!(read_cast(&element, None, 2).is_none(), is_signed);
        }
        let missing = Missing { class: Class::Full, first: 2, last: 3 };
        assert_eq!(read_missing(&write_missing::<u8>(&missing)), Some(missing));
        for question in [None, Some(7)] {
            let element = write_newest::<u8>("e1", after, question);
            assert_eq!(read_newest(&element), Some((after, question)));
        }
    }
}
