//! The signature of a cast, which those who pass it on cannot make.

use std::fmt;

use ed25519_dalek::{Signature as Ed25519, Signer, SigningKey, VerifyingKey};

use super::barrier::Tag;
use super::canonical::Digest;
use super::cast::Cast;
use crate::Class;

/// What everything begins with that is signed: nothing else that somebody has signed with the same key
/// can be a cast.
const CONTEXT: &[u8] = b"urn:xmpp:tmp:dmuc:1#cast";

/// The signature of a cast: Ed25519 (RFC 8032), 64 bytes.
pub type Signature = [u8; 64];

/// What tells a room's signatures from others: 32 bytes, given to replicas on the direct link.
pub type PublicKey = [u8; 32];

/// What a room signs with, for one epoch of its room stream.
pub struct RoomKey(SigningKey);

impl RoomKey {
    /// From 32 bytes, which must be random and told to nobody.
    pub fn new(secret: &[u8; 32]) -> Self {
        RoomKey(SigningKey::from_bytes(secret))
    }

    /// To be given to the replicas.
    pub fn public(&self) -> PublicKey {
        self.0.verifying_key().to_bytes()
    }

    /// Signs a cast of this room and epoch.
    pub fn sign(&self, stream: &Stream, cast: &Cast, tags: &[Tag]) -> Signature {
        self.0.sign(&stream.text(cast, tags)).to_bytes()
    }
}

impl fmt::Debug for RoomKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RoomKey")
    }
}

/// What a replica knows a room's casts by, for one epoch of the room stream.
#[derive(Clone, Debug)]
pub struct RoomLock(VerifyingKey);

impl RoomLock {
    /// `None` if these bytes are no key, or one for which everybody can sign.
    pub fn new(key: &PublicKey) -> Option<Self> {
        VerifyingKey::from_bytes(key).ok().filter(|key| !key.is_weak()).map(RoomLock)
    }

    /// Whether the room has signed just this.
    pub fn fits(&self, stream: &Stream, cast: &Cast, tags: &[Tag], signature: &Signature) -> bool {
        let signature = Ed25519::from_bytes(signature);
        self.0.verify_strict(&stream.text(cast, tags), &signature).is_ok()
    }
}

/// One epoch of the room stream of one room: no cast of one is one of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Bare JID of the room.
    pub room: String,
    /// Name of the epoch, never used again for this room.
    pub epoch: String,
}

impl Stream {
    /// What is signed (`docs/protocol.md`, section 8.3): every field with a length or of a fixed one.
    fn text(&self, cast: &Cast, tags: &[Tag]) -> Vec<u8> {
        let Cast { class, number, other, only, digest } = cast;
        let mut text = Vec::with_capacity(256 + 16 * tags.len());
        text.extend_from_slice(CONTEXT);
        for word in [&self.room, &self.epoch] {
            text.extend_from_slice(&(word.len() as u64).to_be_bytes());
            text.extend_from_slice(word.as_bytes());
        }
        text.push(letter(Some(*class)));
        text.extend_from_slice(&number.to_be_bytes());
        text.extend_from_slice(&other.to_be_bytes());
        text.push(letter(*only));
        let digest: &Digest = digest;
        text.extend_from_slice(digest);
        for Tag(tag) in tags {
            text.extend_from_slice(tag);
        }
        text
    }
}

/// A class, or none, as one byte of what is signed.
pub(super) fn letter(class: Option<Class>) -> u8 {
    match class {
        None => b'*',
        Some(Class::Anonymous) => b'a',
        Some(Class::Full) => b'f',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Stream {
        Stream { room: "r@c.test".into(), epoch: "e1".into() }
    }

    fn cast() -> Cast {
        Cast { class: Class::Anonymous, number: 3, other: 1, only: None, digest: [7; 32] }
    }

    #[test]
    fn a_signature_is_for_one_cast_and_nothing_else() {
        let key = RoomKey::new(&[1; 32]);
        let lock = RoomLock::new(&key.public()).expect("a key");
        let tags = [Tag([5; 16])];
        let signature = key.sign(&stream(), &cast(), &tags);
        assert!(lock.fits(&stream(), &cast(), &tags, &signature));

        let others = [
            Cast { class: Class::Full, ..cast() },
            Cast { number: 4, ..cast() },
            Cast { other: 0, ..cast() },
            Cast { only: Some(Class::Full), ..cast() },
            Cast { digest: [8; 32], ..cast() },
        ];
        for other in others {
            assert!(!lock.fits(&stream(), &other, &tags, &signature), "{other:?}");
        }
        let elsewhere = [
            Stream { room: "s@c.test".into(), ..stream() },
            Stream { epoch: "e2".into(), ..stream() },
            // The same bytes one after the other.
            Stream { room: "r@c.teste".into(), epoch: "1".into() },
        ];
        for other in elsewhere {
            assert!(!lock.fits(&other, &cast(), &tags, &signature), "{other:?}");
        }
        for other in [&[][..], &[Tag([6; 16])], &[Tag([5; 16]), Tag([5; 16])]] {
            assert!(!lock.fits(&stream(), &cast(), other, &signature), "{other:?}");
        }
        let mut spoilt = signature;
        spoilt[9] ^= 1;
        assert!(!lock.fits(&stream(), &cast(), &tags, &spoilt));
        let another = RoomLock::new(&RoomKey::new(&[2; 32]).public()).expect("a key");
        assert!(!another.fits(&stream(), &cast(), &tags, &signature));
    }

    #[test]
    fn a_key_for_which_everybody_can_sign_is_none() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert!(RoomLock::new(&neutral).is_none());
        let mut off_curve = [0; 32];
        off_curve[0] = 2;
        assert!(RoomLock::new(&off_curve).is_none());
        assert_eq!(format!("{:?}", RoomKey::new(&[3; 32])), "RoomKey", "no secret in a log");
    }
}
