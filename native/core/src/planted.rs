//! Faults for the tests, in no package: what a defect of the core would do.

use std::cell::Cell;

use roaring::RoaringBitmap;

use crate::audience::Seats;
use crate::ops::Op;
use crate::{Payload, PayloadIn};

/// What a defect in the bookkeeping of a link would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// A primary takes one envelope more for handled than the replica says.
    Acknowledgement,
    /// A replica takes envelopes whatever their number.
    Window,
    /// A replica takes envelopes of any epoch for those of its link.
    Epoch,
}

thread_local! {
    static DEFECT: Cell<Option<Defect>> = const { Cell::new(None) };
}

/// From now on all ends of links on this thread have this defect.
pub fn plant(defect: Option<Defect>) {
    DEFECT.set(defect);
}

pub(crate) fn has(defect: Defect) -> bool {
    DEFECT.get() == Some(defect)
}

/// Whoever is named like this is not captured but panicked about.
pub(crate) fn capture(to: &str) {
    assert!(!to.starts_with("panic-capture"), "planted fault in capture");
}

/// A stanza that says so ends the room's handle.
pub(crate) fn event(payloads: &[PayloadIn]) {
    let wanted = b"panic in event";
    let planted = payloads.iter().any(|payload| match payload {
        PayloadIn::New { bytes, .. } => holds(bytes, wanted),
        PayloadIn::Known(_) => false,
    });
    assert!(!planted, "planted fault in event");
}

/// So does the third envelope of a room that is named like this.
pub(crate) fn envelope(room: &str, place: Option<(&str, u64)>) {
    let is_third = place.is_some_and(|(_, seq)| seq == 3);
    let planted = room.starts_with("panic-envelope") && is_third;
    assert!(!planted, "planted fault in envelope");
}

/// Epoch and number of an envelope as a replica takes them that does not look at what it expects.
pub(crate) fn accepted<'a>(epoch: (&'a str, &'a str), seq: (u64, u64)) -> (&'a str, u64) {
    let epoch = if has(Defect::Epoch) { epoch.1 } else { epoch.0 };
    (epoch, if has(Defect::Window) { seq.1 } else { seq.0 })
}

/// In a room that is named like this a cast is for one more than it should be.
pub(crate) fn surplus(room: &str, seats: &Seats, set: RoaringBitmap) -> RoaringBitmap {
    let more = if room.starts_with("surplus") { (seats.all() - &set).min() } else { None };
    set.into_iter().chain(more).collect()
}

/// Two stanzas of a room that is named like this, the first and the last of an envelope, change
/// places; whether there were two.
pub(crate) fn swap(ops: &mut [Op<Payload>]) -> bool {
    let planted = |op: &Op<Payload>| match op {
        Op::Cast { payload, .. } | Op::Only { payload, .. } => holds(payload.bytes(), b"swapped@"),
        _ => false,
    };
    match (ops.iter().position(planted), ops.iter().rposition(planted)) {
        (Some(first), Some(last)) if first < last => {
            ops.swap(first, last);
            true
        }
        _ => false,
    }
}

/// A room that is named like this has no second class.
pub(crate) fn is_classless(room: &str) -> bool {
    room.starts_with("classless")
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
