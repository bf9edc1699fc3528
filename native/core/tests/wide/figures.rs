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
    /// When all this began.
    pub since: Micros,
    /// Microseconds from the room to each session, for each message.
    pub took: Vec<u32>,
    /// Stanzas that the room's server has sent because of each message, beside what was sent again, and the
    /// bytes of all that are for what somebody does.
    pub out: Vec<u32>,
    pub with_stanza: u64,
    /// Of room trees: casts that the room has sent itself, those that it has sent again, and what it has
    /// said of how far it is.
    pub casts: Traffic,
    pub repaired: Traffic,
    pub beats: Traffic,
    /// When something was sent again last, from the beginning on.
    pub last_repair: Micros,
    /// Reports of replicas that miss something.
    pub asked: u64,
    /// Casts that replicas have passed on, and those of them that were lost with a stream.
    pub aside: Traffic,
    pub lost: u64,
    /// The most streams that something has come over.
    pub depth: u32,
    /// Questions whether a link goes on.
    pub resumes: u64,
    /// Occupants of which the room was told that they have missed something.
    pub failed: u64,
}

impl Figures {
    /// Adds what came after.
    pub fn merge(&mut self, mut other: Figures) {
        for (sum, more) in [
            (&mut self.down, other.down),
            (&mut self.up, other.up),
            (&mut self.casts, other.casts),
            (&mut self.repaired, other.repaired),
            (&mut self.beats, other.beats),
            (&mut self.aside, other.aside),
        ] {
            sum.stanzas += more.stanzas;
            sum.bytes += more.bytes;
        }
        self.with_stanza += other.with_stanza;
        self.asked += other.asked;
        self.lost += other.lost;
        self.depth = self.depth.max(other.depth);
        self.took.append(&mut other.took);
        self.out.append(&mut other.out);
    }
}

/// Length of a carrier with this in it, as a stanza.
pub fn len(body: &Element<Payload>) -> usize {
    let payloads = body.children.iter().chain([body]).filter_map(|child| child.payload.as_ref());
    let carried = |payload: &Payload| payload.bytes().len() + " xmlns='jabber:client'".len();
    markup(body) + payloads.map(carried).sum::<usize>()
}

/// The same without what is carried.
pub fn markup<P>(body: &Element<P>) -> usize {
    let carrier = "<message from='' to='' id='0123456789a.1000'></message>";
    carrier.len()
        + ROOM.len()
        + "s1000.test".len()
        + " xmlns=''".len()
        + NS.len()
        + body.markup_len()
}

/// The value below which this part of all are.
pub fn quantile<N: Copy + Default + Ord>(values: &[N], part: f64) -> N {
    let mut values = values.to_vec();
    values.sort_unstable();
    let at = (values.len() as f64 * part) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}
