//! Faults for the tests, in no package: what a defect of the core would do.

use roaring::RoaringBitmap;

use crate::audience::Seats;
use crate::ops::Op;
use crate::{Payload, PayloadIn};

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
pub(crate) fn envelope(room: &str, seq: Option<&str>) {
    let planted = room.starts_with("panic-envelope") && seq == Some("3");
    assert!(!planted, "planted fault in envelope");
}

/// In a room that is named like this a cast is for one more than it should be.
pub(crate) fn surplus(room: &str, seats: &Seats, set: RoaringBitmap) -> RoaringBitmap {
    let more = if room.starts_with("surplus") { (seats.all() - &set).min() } else { None };
    set.into_iter().chain(more).collect()
}

/// Two stanzas of a room that is named like this, the first and the last of an envelope, change
/// places.
pub(crate) fn swap(ops: &mut [Op<Payload>]) {
    let planted = |op: &Op<Payload>| match op {
        Op::Cast { payload, .. } | Op::Only { payload, .. } => holds(payload.bytes(), b"swapped@"),
        _ => false,
    };
    if let (Some(first), Some(last)) = (ops.iter().position(planted), ops.iter().rposition(planted))
    {
        ops.swap(first, last);
    }
}

/// A room that is named like this has no second class.
pub(crate) fn is_classless(room: &str) -> bool {
    room.starts_with("classless")
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}
