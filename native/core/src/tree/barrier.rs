//! Barrier tags: which envelopes of the direct link come before a cast, told to that link's replica only.
//!
//! A cast is the same for all replicas, and so are its tags. A relay must not learn from them who else
//! was sent something, so a tag looks random to everybody but the replica that has the key of the link.
//! The signature of the cast covers the tags: nobody on the way can take one out.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::sign::{Stream, letter};
use crate::Class;

/// Half of a tag: what its replica knows it by.
const NAME: usize = 8;

/// A barrier for one replica: the first half is an HMAC, cut short, that names the replica to itself,
/// the second a link sequence number under the rest of that HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub [u8; 16]);

/// A secret that a primary shares with one replica, for one epoch of their link.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkKey([u8; 32]);

impl LinkKey {
    /// From 32 bytes, which must be random.
    pub fn new(secret: [u8; 32]) -> Self {
        LinkKey(secret)
    }

    /// To be told on the direct link.
    pub fn secret(&self) -> &[u8; 32] {
        &self.0
    }

    /// The tag that says: this cast comes after envelope `seq` of this link. For each cast once, since
    /// two numbers under the same HMAC would tell their difference.
    pub fn tag(&self, stream: &Stream, class: Class, number: u64, seq: u64) -> Tag {
        let (name, cover) = self.halves(stream, class, number);
        let mut tag = [0; 16];
        tag[..NAME].copy_from_slice(&name);
        tag[NAME..].copy_from_slice(&(seq ^ u64::from_be_bytes(cover)).to_be_bytes());
        Tag(tag)
    }

    /// The envelope that a cast comes after, if one of its tags is for this link.
    pub fn find(&self, stream: &Stream, class: Class, number: u64, tags: &[Tag]) -> Option<u64> {
        if tags.is_empty() {
            return None;
        }
        let (name, cover) = self.halves(stream, class, number);
        let Tag(tag) = tags.iter().find(|Tag(tag)| tag[..NAME] == name)?;
        let (_, seq) = tag.split_last_chunk::<8>()?;
        Some(u64::from_be_bytes(*seq) ^ u64::from_be_bytes(cover))
    }

    fn halves(&self, stream: &Stream, class: Class, number: u64) -> ([u8; 8], [u8; 8]) {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0)
            .expect("an HMAC takes keys of any length");
        mac.update(&(stream.epoch.len() as u64).to_be_bytes());
        mac.update(stream.epoch.as_bytes());
        mac.update(&[letter(Some(class))]);
        mac.update(&number.to_be_bytes());
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        let part = |at: usize| std::array::from_fn(|n| full[at + n]);
        (part(0), part(NAME))
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(epoch: &str) -> Stream {
        Stream { room: "r@c.test".into(), epoch: epoch.into() }
    }

    #[test]
    fn a_tag_is_read_by_its_replica_and_by_nobody_else() {
        let (mine, other) = (LinkKey::new([1; 32]), LinkKey::new([2; 32]));
        let stream = stream("e1");
        let tags: Vec<Tag> = [(&other, 7), (&mine, 9)]
            .map(|(key, seq)| key.tag(&stream, Class::Full, 5, seq))
            .into();
        assert_eq!(mine.find(&stream, Class::Full, 5, &tags), Some(9));
        assert_eq!(other.find(&stream, Class::Full, 5, &tags), Some(7));
        assert_eq!(LinkKey::new([3; 32]).find(&stream, Class::Full, 5, &tags), None);
        assert_eq!(mine.find(&stream, Class::Full, 5, &[]), None);
    }

    #[test]
    fn tags_of_one_replica_have_nothing_in_common() {
        let key = LinkKey::new([1; 32]);
        let mut seen = Vec::new();
        for epoch in ["e1", "e2"] {
            for class in [Class::Anonymous, Class::Full] {
                for number in 1..20 {
                    let Tag(tag) = key.tag(&stream(epoch), class, number, 9);
                    seen.extend([tag[..NAME].to_vec(), tag[NAME..].to_vec()]);
                }
            }
        }
        let all = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), all);
        assert_eq!(format!("{key:?}"), "LinkKey", "no secret in a log");
    }
}
