//! What has been counted.

use dmuc_core::{Element, NS, Payload};

use super::ROOM;
use super::net::Micros;

/// Stanzas in one direction, in all streams together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    pub stanzas: u64,
    pub bytes: u64,
}

impl Traffic {
    pub fn add(&mut self, len: usize) {
        self.stanzas += 1;
        self.bytes += len as u64;
    }
}

#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// From the room's server.
    pub down: Traffic,
    /// To it, with what users do.
    pub up: Traffic,
    pub envelopes: u64,
    pub questions: u64,
    pub setups: u64,
    /// Copies that sessions received.
    pub copies: u64,
    /// From the room's event to the last recipient, for each stanza but those about the recipient's
    /// own stay.
    pub to_last: Vec<Micros>,
    /// From a user's presence to his own presence from the room.
    pub answered: Vec<Micros>,
    /// Calls of `Room::tick`, and of `Replica::tick`.
    pub ticks: u64,
    pub ticks_of_replicas: u64,
    /// The most bytes that waited to be acknowledged.
    pub waiting: u64,
}

/// Length of a carrier with this in it, as a stanza.
pub fn len(body: &Element<Payload>) -> usize {
    let carrier = "<message type='normal' from='' to='' id='dmuc-0123456789abcdef.1000'></message>";
    let payloads = body.children.iter().filter_map(|child| child.payload.as_ref());
    let carried = |payload: &Payload| payload.bytes().len() + " xmlns='jabber:client'".len();
    carrier.len()
        + ROOM.len()
        + "s1000.test".len()
        + " xmlns=''".len()
        + NS.len()
        + body.markup_len()
        + payloads.map(carried).sum::<usize>()
}

/// The value below which this part of all are.
pub fn quantile(values: &[Micros], part: f64) -> Micros {
    let mut values = values.to_vec();
    values.sort_unstable();
    let at = (values.len() as f64 * part) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}
