//! What names a stanza's content: a keyed hash of its term.

use std::hash::{BuildHasher, RandomState};

use once_cell::sync::Lazy;
use rustler::{Binary, Env, Error, NewBinary, NifResult, Term};
use siphasher::sip128::{Hasher128, SipHasher13};

/// Of this process alone: digests never leave it, so that nobody can look for two stanzas of one
/// digest.
static KEY: Lazy<SipHasher13> = Lazy::new(|| {
    // The standard library's hashers have the system's randomness.
    let half = |n: u8| RandomState::new().hash_one(n);
    SipHasher13::new_with_keys(half(0), half(1))
});

/// The digest of a term. Equal terms have one external form, and different terms have two.
pub(crate) fn of(term: Term<'_>) -> u128 {
    let mut hasher = *KEY;
    std::hash::Hasher::write(&mut hasher, &term.to_binary());
    hasher.finish128().as_u128()
}

/// A digest as it goes out.
pub(crate) fn out<'a>(env: Env<'a>, digest: u128) -> Binary<'a> {
    let bytes = digest.to_ne_bytes();
    let mut binary = NewBinary::new(env, bytes.len());
    binary.as_mut_slice().copy_from_slice(&bytes);
    binary.into()
}

/// A digest as it comes back.
pub(crate) fn back(digest: Binary<'_>) -> NifResult<u128> {
    digest.as_slice().try_into().map(u128::from_ne_bytes).map_err(|_| Error::BadArg)
}

/// The digest of a stanza without `to`.
#[rustler::nif]
fn digest<'a>(env: Env<'a>, stanza: Term<'a>) -> Binary<'a> {
    out(env, of(stanza))
}
