//! Faults for the tests of the shells, in no package: what a defect of the core would do.

use crate::PayloadIn;

/// Whoever is named like this is not captured but panicked about.
pub(crate) fn capture(to: &str) {
    assert!(!to.starts_with("panic-capture"), "planted fault in capture");
}

/// A stanza that says so ends the room's handle.
pub(crate) fn event(payloads: &[PayloadIn]) {
    let wanted = b"panic in event";
    let planted = payloads.iter().any(|p| p.bytes.windows(wanted.len()).any(|w| w == wanted));
    assert!(!planted, "planted fault in event");
}

/// So does the third envelope of a room that is named like this.
pub(crate) fn envelope(room: &str, seq: Option<&str>) {
    let planted = room.starts_with("panic-envelope") && seq == Some("3");
    assert!(!planted, "planted fault in envelope");
}
