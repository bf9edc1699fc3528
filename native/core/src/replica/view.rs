//! What a replica shows of its links.

use super::link::Link;
use crate::view::{LinkRow, known, signed};
use crate::{Millis, jid};

impl Link {
    /// The link with this room. What it saves in bytes, the primary knows.
    pub(super) fn row(&self, now: Millis, room: &str) -> LinkRow {
        let heard = now.since(self.heard);
        let (state, reason) = match self.asked {
            Some(_) => ("silent", format!("nothing heard from the room for {} s", heard / 1000)),
            None => ("linked", "linked".to_owned()),
        };
        LinkRow {
            role: "replica".to_owned(),
            room: room.to_owned(),
            peer: jid::domain(room).to_owned(),
            state: state.to_owned(),
            occupants: signed(self.audience.seats.all().len()),
            apart: signed(self.refused.len()),
            epoch: self.epoch.clone(),
            seq: signed(self.next_seq - 1),
            unacked: signed(self.unreported),
            round_trip: known(None),
            waiting: 0,
            waiting_bytes: signed(self.slots.bytes()),
            up: known(Some(now.since(self.since) / 1000)),
            retry: known(None),
            carried: signed(self.copies),
            carried_bytes: 0,
            saved: signed(self.copies) - signed(self.stanzas),
            saved_bytes: 0,
            reason,
        }
    }
}
