//! Sessions of a user domain, and what they have asked of which room: a second opinion on consent.
//!
//! It is laxer than the core where that is for the core to say, and never stricter.

use std::collections::BTreeMap;

use dmuc_core::{Facts, jid};

/// So many stays that all may be.
const UNKNOWN: u32 = 1 << 20;

/// What one session has to do with one room.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// Stays that the session has begun and of which it has not seen the end.
    stays: u32,
    /// The newest of them has been left.
    left: u32,
}

/// All that the sessions of a domain have asked.
#[derive(Debug, Default)]
pub struct People {
    asked: BTreeMap<(String, String), Asked>,
}

impl People {
    /// A session sends a presence to a room.
    pub fn outgoing(&mut self, session: &str, to: &str, facts: Facts) {
        let key = (jid::bare(to).to_owned(), session.to_owned());
        let asked = self.asked.entry(key).or_default();
        if facts.is_unavailable() {
            asked.left = asked.stays;
        } else if asked.left == asked.stays {
            asked.stays += 1;
        }
    }

    /// A session sees a presence of a room.
    pub fn incoming(&mut self, session: &str, from: &str, facts: Facts) {
        let key = (jid::bare(from).to_owned(), session.to_owned());
        if let Some(asked) = self.asked.get_mut(&key)
            && facts.is_own_end()
            && asked.left > 0
        {
            asked.left -= 1;
            asked.stays -= 1;
        }
    }

    /// A record of it comes from elsewhere, or is taken away.
    pub fn import(&mut self, room: &str, session: &str, there: bool) {
        let key = (room.to_owned(), session.to_owned());
        self.asked.remove(&key);
        if there {
            // What the record says is not looked at.
            self.asked.insert(key, Asked { stays: UNKNOWN, left: UNKNOWN / 2 });
        }
    }

    pub fn closed(&mut self, session: &str) {
        self.asked.retain(|(_, of), _| of != session);
    }

    /// Whether it is another node's word that a session is in a room.
    pub fn is_imported(&self, room: &str, session: &str) -> bool {
        let key = (room.to_owned(), session.to_owned());
        self.asked.get(&key).is_some_and(|asked| asked.stays >= UNKNOWN)
    }

    /// Whether anything of that room may be delivered to that session.
    pub fn consents(&self, room: &str, session: &str) -> bool {
        let key = (room.to_owned(), session.to_owned());
        self.asked.get(&key).is_some_and(|asked| asked.stays > 0)
    }
}
