//! What crossed a wire, read.

use dmuc_testkit::minidom::Element;
use dmuc_testkit::{Record, xml};

/// Namespace of dmuc.
pub const NS: &str = "urn:xmpp:tmp:dmuc:1";

/// The stanza of a record.
pub fn stanza(record: &Record) -> Option<Element> {
    xml::parse(&record.xml, "jabber:server").ok()
}

/// The dmuc element of a stanza, if it is one of dmuc's own.
pub fn payload(stanza: &Element) -> Option<&Element> {
    stanza.children().find(|child| child.ns() == NS)
}

/// How many set-ups of a room were accepted.
pub fn links(records: &[Record], room: &str) -> usize {
    records
        .iter()
        // Reading them all again and again would be most of the work of waiting for a link.
        .filter(|record| record.xml.contains("<iq"))
        .filter_map(stanza)
        .filter(|s| s.name() == "iq" && s.attr("type") == Some("result"))
        .filter(|s| s.attr("to") == Some(room) && payload(s).is_some_and(|p| p.name() == "link"))
        .count()
}

/// Stanzas of a room towards a server, sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// `<cast/>` operations.
    pub casts: usize,
    /// `<only/>` operations.
    pub onlys: usize,
    /// Stanzas with an `<envelope/>`.
    pub envelopes: usize,
    /// Other stanzas of dmuc: set-up, reports, announcements, refusals.
    pub control: usize,
    /// Stanzas from the room, or an occupant of it, to one recipient each.
    pub plain: usize,
    /// All else.
    pub other: usize,
}

/// Sorts what went to the server named `to`.
pub fn sort(records: &[Record], to: &str, room: &str) -> Sorted {
    let mut sorted = Sorted::default();
    for record in records.iter().filter(|record| record.to == to) {
        let Some(stanza) = stanza(record) else { continue };
        match payload(&stanza) {
            Some(envelope) if envelope.name() == "envelope" => {
                sorted.envelopes += 1;
                sorted.casts += envelope.children().filter(|op| op.name() == "cast").count();
                sorted.onlys += envelope.children().filter(|op| op.name() == "only").count();
            }
            Some(_) => sorted.control += 1,
            None => {
                let from = stanza.attr("from").unwrap_or_default();
                if from.split('/').next() == Some(room) {
                    sorted.plain += 1;
                } else {
                    sorted.other += 1;
                }
            }
        }
    }
    sorted
}
