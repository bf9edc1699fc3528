//! Who was put out of the room since a link had failed, and may not have heard it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{Millis, Payload, jid};

/// How long that is remembered, in milliseconds.
const MEMORY: u64 = 3_600_000;
/// Of how many.
const MOST: usize = 10_000;

/// What the room has told each of them.
#[derive(Debug, Default)]
pub(super) struct PutOut(HashMap<Arc<str>, (Millis, Payload)>);

impl PutOut {
    /// With the stanza that ends the stay.
    pub fn add(&mut self, now: Millis, session: &str, end: &Payload) {
        if self.0.len() >= MOST {
            self.0.retain(|_, (at, _)| now.since(*at) < MEMORY);
        }
        if self.0.len() < MOST {
            self.0.insert(session.into(), (now, end.clone()));
        }
    }

    pub fn get(&self, now: Millis, session: &str) -> Option<Payload> {
        let (at, end) = self.0.get(session)?;
        (now.since(*at) < MEMORY).then(|| end.clone())
    }

    /// The room has let it in again.
    pub fn remove(&mut self, session: &str) {
        self.0.remove(session);
    }

    /// A new link has named those who are inside, and their server has told the others.
    pub fn told(&mut self, domain: &str) {
        self.0.retain(|session, _| jid::domain(session) != domain);
    }
}
