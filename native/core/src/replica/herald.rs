//! Telling a MUC service that this domain speaks dmuc, which it may have asked before that was so.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::{Millis, jid};

/// Milliseconds in which a room that knows sets up a link by itself.
const WAIT: u64 = 10_000;
/// MUC services that are remembered; beyond that none is told.
const MOST: usize = 10_000;

/// Each service is told once from a load on, by the first of its rooms that lets somebody in.
#[derive(Debug, Default)]
pub(super) struct Herald {
    known: HashSet<Arc<str>>,
    due: VecDeque<(Millis, Arc<str>)>,
}

impl Herald {
    /// A room has let in a session by a plain stanza.
    pub fn entered(&mut self, now: Millis, room: &str) {
        if self.known.len() < MOST && jid::is_room(room) && self.knows(jid::domain(room)) {
            self.due.push_back((now + WAIT, room.into()));
        }
    }

    /// The service knows, or is being told. Whether that is new.
    pub fn knows(&mut self, domain: &str) -> bool {
        !self.known.contains(domain) && self.known.insert(domain.into())
    }

    /// Rooms that are to be told now, unless there is a link with their service.
    pub fn due(&mut self, now: Millis) -> Vec<Arc<str>> {
        let count = self.due.partition_point(|(at, _)| *at <= now);
        self.due.drain(..count).map(|(_, room)| room).collect()
    }

    /// When there is one.
    pub fn next(&self) -> Option<Millis> {
        self.due.front().map(|(at, _)| *at)
    }
}
