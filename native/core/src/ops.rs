//! The vocabulary of `docs/protocol.md`: envelopes, set-ups and reports, to and from [`Element`]s.

use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::audience::{Class, Scope};
use crate::slots::SlotList;
use crate::tree::Missing;
use crate::tree::wire::{TreeOp, read_missing, write_missing};
use crate::{Element, indexes, jid};

/// Why a session is refused for the time being.
const MISSING: &str = "missing";
/// Longest epoch that is read.
const MAX_EPOCH: usize = 64;

/// Reads a mandatory epoch.
pub(crate) fn epoch<P>(element: &Element<P>) -> Option<&str> {
    element.attr("epoch").filter(|name| is_epoch(name))
}

/// Whether this may be the name of an epoch, of a link or of a room stream.
pub(crate) fn is_epoch(name: &str) -> bool {
    (1..=MAX_EPOCH).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Id of the stanza that carries an envelope. It says which envelope it is: the peer reads it there, and
/// an error names it.
pub(crate) fn envelope_id(epoch: &str, seq: u64) -> String {
    format!("{epoch}.{seq}")
}

/// Reads it: epoch and link sequence.
pub(crate) fn parse_envelope_id(id: &str) -> Option<(&str, u64)> {
    let (epoch, seq) = id.rsplit_once('.')?;
    Some((epoch, indexes::long(seq)?)).filter(|_| is_epoch(epoch))
}

/// Whether a stanza's id is that of an envelope: a cheap test before [`crate::Room::bounced`].
pub fn is_envelope_id(id: &str) -> bool {
    parse_envelope_id(id).is_some()
}

/// Epoch and link sequence of an envelope: by its own attributes if it has any of them, else by the id
/// of the stanza around it.
pub(crate) fn place<'a, P>(envelope: &'a Element<P>, id: &'a str) -> Option<(&'a str, u64)> {
    match (envelope.attr("epoch"), envelope.attr("seq")) {
        (None, None) => parse_envelope_id(id),
        (_, seq) => Some((epoch(envelope)?, indexes::long(seq?)?)),
    }
}

/// One operation of an envelope.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op<P> {
    Enter {
        index: u32,
        jid: Arc<str>,
        class: Class,
    },
    Leave {
        index: u32,
    },
    Class {
        index: u32,
        class: Class,
    },
    Cast {
        scope: Scope,
        except: RoaringBitmap,
        number: u64,
        slot: Option<u64>,
        payload: P,
    },
    Only {
        indexes: RoaringBitmap,
        slot: Option<u64>,
        payload: P,
    },
    /// Deliver what these slots hold.
    Replay {
        indexes: RoaringBitmap,
        slots: SlotList,
    },
    /// Forget what these slots hold.
    Drop {
        slots: SlotList,
    },
    /// The epoch is over; the occupants are served plainly from here on.
    End,
    /// The replica's part in the room's trees; only for one that has offered to have any.
    Tree(TreeOp),
}

impl<P: Clone> Op<P> {
    pub fn write(&self) -> Element<P> {
        match self {
            Op::Enter { index, jid, class } => {
                let element = Element::new("enter").with("i", index).with("jid", jid);
                match class {
                    Class::Anonymous => element,
                    Class::Full => element.with("class", class.as_str()),
                }
            }
            Op::Leave { index } => Element::new("leave").with("i", index),
            Op::Class { index, class } => {
                Element::new("class").with("i", index).with("class", class.as_str())
            }
            Op::Cast { scope, except, number, slot, payload } => {
                let mut element = Element::new("cast").with("n", number);
                if let Scope::Class(class) = scope {
                    element = element.with("class", class.as_str());
                }
                if !except.is_empty() {
                    element = element.with("except", indexes::write(except));
                }
                element = element.with_some("slot", *slot);
                element.payload = Some(payload.clone());
                element
            }
            Op::Only { indexes, slot, payload } => {
                let mut element = Element::new("only")
                    .with("i", indexes::write(indexes))
                    .with_some("slot", *slot);
                element.payload = Some(payload.clone());
                element
            }
            Op::Replay { indexes, slots } => Element::new("replay")
                .with("i", indexes::write(indexes))
                .with("slots", slots.write()),
            Op::Drop { slots } => Element::new("drop").with("slots", slots.write()),
            Op::End => Element::new("end"),
            Op::Tree(op) => op.write(),
        }
    }

    /// Reads an operation; `bound` is one above the highest index given so far.
    pub fn read(element: &Element<P>, bound: u32) -> Option<Self> {
        Op::read_with(element, bound, P::clone)
    }

    /// The same without a copy of the payload.
    pub fn view(element: &Element<P>, bound: u32) -> Option<Op<&P>> {
        Op::read_with(element, bound, |payload| payload)
    }
}

impl<P> Op<P> {
    fn read_with<'a, Q>(
        element: &'a Element<Q>,
        bound: u32,
        take: impl FnOnce(&'a Q) -> P,
    ) -> Option<Self> {
        let index = || indexes::number(element.attr("i")?);
        let slot = || match element.attr("slot") {
            Some(slot) => indexes::long(slot).filter(|slot| *slot > 0).map(Some),
            None => Some(None),
        };
        let class = || Class::parse(element.attr("class")?);
        let carries = matches!(element.name.as_str(), "cast" | "only");
        if carries != element.payload.is_some() || !element.children.is_empty() {
            return None;
        }
        Some(match element.name.as_str() {
            "enter" => Op::Enter {
                index: index()?,
                jid: element.attr("jid").filter(|jid| jid::is_session(jid))?.into(),
                class: if element.attr("class").is_some() { class()? } else { Class::Anonymous },
            },
            "leave" => Op::Leave { index: index()? },
            "class" => Op::Class { index: index()?, class: class()? },
            "cast" => Op::Cast {
                scope: match element.attr("class") {
                    Some(_) => Scope::Class(class()?),
                    None => Scope::All,
                },
                except: indexes::parse(element.attr("except").unwrap_or(""), bound)?,
                number: indexes::long(element.attr("n")?)?,
                slot: slot()?,
                payload: take(element.payload.as_ref()?),
            },
            "only" => Op::Only {
                indexes: indexes::parse(element.attr("i")?, bound).filter(|set| !set.is_empty())?,
                slot: slot()?,
                payload: take(element.payload.as_ref()?),
            },
            "replay" => Op::Replay {
                indexes: indexes::parse(element.attr("i")?, bound).filter(|set| !set.is_empty())?,
                slots: SlotList::parse(element.attr("slots")?)?,
            },
            "drop" => Op::Drop { slots: SlotList::parse(element.attr("slots")?)? },
            "end" => Op::End,
            _ => Op::Tree(TreeOp::read(element)?),
        })
    }
}

/// What a set-up says beside the audience.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LinkOffer {
    /// Names the link until it ends.
    pub epoch: String,
    /// Names the room's own numbering of casts.
    pub stream: String,
    /// Occupants of the domain at this moment; more may follow as `enter` than are listed.
    pub size: u32,
    /// Milliseconds for which the primary keeps what has not been acknowledged.
    pub hold: u64,
    /// Milliseconds after which an idle link is probed.
    pub ping: u64,
    /// Longest envelope the primary will send.
    pub max_bytes: u64,
}

impl LinkOffer {
    pub fn write<P>(&self) -> Element<P> {
        Element::new("link")
            .with("epoch", &self.epoch)
            .with("stream", &self.stream)
            .with("size", self.size)
            .with("hold", self.hold)
            .with("ping", self.ping)
            .with("max-bytes", self.max_bytes)
    }

    pub fn read<P>(element: &Element<P>) -> Option<Self> {
        let long = |name| indexes::long(element.attr(name)?);
        if element.name != "link" {
            return None;
        }
        Some(LinkOffer {
            epoch: epoch(element)?.to_owned(),
            stream: element.attr("stream").filter(|s| s.len() <= MAX_EPOCH)?.to_owned(),
            size: indexes::number(element.attr("size")?)?,
            hold: long("hold")?,
            ping: long("ping")?,
            max_bytes: long("max-bytes")?,
        })
    }
}

/// The replica's answer to a set-up.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LinkAccept {
    pub epoch: String,
    /// Longest envelope the replica takes.
    pub max_bytes: u64,
    /// Slots the replica keeps; 0 means that no operation may carry a slot.
    pub slots: u64,
    /// Bytes of stanzas it keeps in them.
    pub slot_bytes: u64,
    /// It takes part in room trees, and passes casts on to so many for each class.
    pub trees: Option<u64>,
    /// Indexes of the set-up that have no consent; if that is all of them there is no link.
    pub refused: RoaringBitmap,
}

impl LinkAccept {
    pub fn write<P>(&self) -> Element<P> {
        let mut element = Element::new("link")
            .with("epoch", &self.epoch)
            .with("max-bytes", self.max_bytes)
            .with("slots", self.slots)
            .with("slot-bytes", self.slot_bytes)
            .with_some("trees", self.trees);
        if !self.refused.is_empty() {
            element.children.push(Element::new("refuse").with("i", indexes::write(&self.refused)));
        }
        element
    }

    pub fn read<P>(element: &Element<P>, bound: u32) -> Option<Self> {
        if element.name != "link" {
            return None;
        }
        let mut refused = RoaringBitmap::new();
        for child in element.children.iter().filter(|child| child.name == "refuse") {
            refused |= indexes::parse(child.attr("i")?, bound)?;
        }
        Some(LinkAccept {
            epoch: epoch(element)?.to_owned(),
            max_bytes: indexes::long(element.attr("max-bytes")?)?,
            slots: indexes::long(element.attr("slots")?)?,
            slot_bytes: indexes::long(element.attr("slot-bytes")?)?,
            trees: element.attr("trees").and_then(indexes::long),
            refused,
        })
    }
}

/// Asked by the primary of a link whose stream has broken: is the link still there, and how far has
/// it come?
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resume {
    pub epoch: String,
    /// Number of the question on this link, from 1.
    pub n: u64,
}

impl Resume {
    pub fn write<P>(&self) -> Element<P> {
        Element::new("resume").with("epoch", &self.epoch).with("n", self.n)
    }

    pub fn read<P>(element: &Element<P>) -> Option<Self> {
        if element.name != "resume" {
            return None;
        }
        let n = indexes::long(element.attr("n")?)?;
        Some(Resume { epoch: epoch(element)?.to_owned(), n })
    }
}

/// A session that the replica does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Number of this refusal in the epoch, from 1. It is repeated until an envelope says that it has
    /// been acted on.
    pub number: u64,
    /// From this link sequence number on.
    pub seq: u64,
    /// Index of the session.
    pub index: u32,
    /// Only because a slot was missing: the session may enter again.
    pub missing: bool,
}

/// What a replica tells the primary about a link.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    pub epoch: String,
    /// Every envelope up to this one has been handled; 0 is none.
    pub ack: u64,
    /// Sessions that are not served, oldest first.
    pub refused: Vec<Refused>,
    /// Slots that hold nothing, whatever they were given.
    pub dropped: SlotList,
    /// The question of a primary that it answers.
    pub resume: Option<u64>,
    /// The replica has heard nothing for long and asks whether the link is still there.
    pub ask: bool,
    /// The replica ends the link; nothing after `ack` has been or will be handled.
    pub bye: bool,
    /// Casts of the room stream that have not come.
    pub missing: Vec<Missing>,
    /// Classes whose parent does not pass on what it should.
    pub complaints: Vec<Class>,
}

impl Report {
    pub fn write<P>(&self) -> Element<P> {
        let mut element = Element::new("report")
            .with("epoch", &self.epoch)
            .with("ack", self.ack)
            .with_some("resume", self.resume);
        for Refused { number, seq, index, missing } in &self.refused {
            let refuse = Element::new("refuse").with("n", number).with("i", index).with("seq", seq);
            element.children.push(refuse.with_some("reason", missing.then_some(MISSING)));
        }
        if !self.dropped.is_empty() {
            element.children.push(Element::new("dropped").with("slots", self.dropped.write()));
        }
        if self.ask {
            element.children.push(Element::new("ask"));
        }
        if self.bye {
            element.children.push(Element::new("bye"));
        }
        element.children.extend(self.missing.iter().map(write_missing));
        for class in &self.complaints {
            element.children.push(Element::new("complaint").with("class", class.as_str()));
        }
        element
    }

    pub fn read<P>(element: &Element<P>) -> Option<Self> {
        if element.name != "report" {
            return None;
        }
        let mut report = Report {
            epoch: epoch(element)?.to_owned(),
            ack: indexes::long(element.attr("ack")?)?,
            ..Report::default()
        };
        if let Some(resume) = element.attr("resume") {
            report.resume = Some(indexes::long(resume)?);
        }
        for child in &element.children {
            match child.name.as_str() {
                "refuse" => report.refused.push(Refused {
                    number: indexes::long(child.attr("n")?)?,
                    seq: indexes::long(child.attr("seq")?)?,
                    index: indexes::number(child.attr("i")?)?,
                    missing: child.attr("reason") == Some(MISSING),
                }),
                "dropped" => report.dropped = SlotList::parse(child.attr("slots")?)?,
                "ask" => report.ask = true,
                "bye" => report.bye = true,
                "missing" => report.missing.extend(read_missing(child)),
                "complaint" => report.complaints.extend(child.attr("class").and_then(Class::parse)),
                // A later version may say more; what is not understood changes nothing here.
                _ => {}
            }
        }
        Some(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(numbers: &[u32]) -> RoaringBitmap {
        numbers.iter().copied().collect()
    }

    #[test]
    fn every_operation_is_read_as_it_was_written() {
        let all = [
            Op::Enter { index: 3, jid: "u@b.test/r".into(), class: Class::Full },
            Op::Enter { index: 4, jid: "u@b.test/s".into(), class: Class::Anonymous },
            Op::Leave { index: 3 },
            Op::Class { index: 3, class: Class::Anonymous },
            Op::Cast { scope: Scope::All, except: set(&[]), number: 7, slot: None, payload: 1u8 },
            Op::Cast {
                scope: Scope::Class(Class::Full),
                except: set(&[1, 2, 3]),
                number: 8,
                slot: Some(9),
                payload: 2,
            },
            Op::Only { indexes: set(&[5]), slot: None, payload: 3 },
            Op::Replay { indexes: set(&[5, 7]), slots: [9, 1, 2, 3].into_iter().collect() },
            Op::Drop { slots: [1].into_iter().collect() },
            Op::End,
        ];
        for op in all {
            assert_eq!(Op::read(&op.write(), 10), Some(op.clone()), "{op:?}");
        }
    }

    #[test]
    fn the_place_of_an_envelope_stands_in_the_id_or_in_the_envelope() {
        let bare = Element::<u8>::new("envelope");
        let id = envelope_id("e1", 7);
        assert_eq!(place(&bare, &id), Some(("e1", 7)));
        let own = bare.clone().with("epoch", "e2").with("seq", 8);
        for id in [&*id, "opaque"] {
            assert_eq!(place(&own, id), Some(("e2", 8)));
        }
        for half in [bare.clone().with("epoch", "e1"), bare.clone().with("seq", 7)] {
            assert_eq!(place(&half, &id), None, "{half:?}");
        }
        for id in ["", ".", "e1", "e1.", ".7", "e1.07", "e1.-7", "e-1.7", "e1.7 ", "e1.x"] {
            assert_eq!(place(&bare, id), None, "{id}");
        }
    }

    #[test]
    fn operations_out_of_form_are_not_read() {
        let bad = [
            Element::new("enter").with("i", 1).with("jid", "b.test"),
            Element::new("enter").with("i", "x").with("jid", "u@b.test/r"),
            Element::new("enter").with("i", 1).with("jid", "u@b.test/r").with("class", "owner"),
            Element::new("cast").with("n", 1),
            Element::new("only").with("i", "1"),
            Element::new("leave"),
            Element::new("class").with("i", 1),
            Element::new("nonsense"),
        ];
        for element in bad {
            assert_eq!(Op::<u8>::read(&element, 10), None, "{element:?}");
        }
        let mut only = Element::new("only").with("i", "10");
        only.payload = Some(0u8);
        assert_eq!(Op::read(&only, 10), None, "an index that was never given");
    }

    #[test]
    fn set_up_and_report_are_read_as_they_were_written() {
        let offer = LinkOffer {
            epoch: "e1".into(),
            stream: "s1".into(),
            size: 2,
            hold: 3,
            ping: 4,
            max_bytes: 5,
        };
        assert_eq!(LinkOffer::read(&offer.write::<u8>()), Some(offer));
        let accept = LinkAccept {
            epoch: "e1".into(),
            max_bytes: 9,
            slots: 3,
            slot_bytes: 4,
            trees: Some(16),
            refused: set(&[1, 4]),
        };
        assert_eq!(LinkAccept::read(&accept.write::<u8>(), 5), Some(accept.clone()));
        assert_eq!(LinkAccept::read(&accept.write::<u8>(), 4), None, "index out of range");
        let report = Report {
            epoch: "e1".into(),
            ack: 7,
            refused: vec![Refused { number: 1, seq: 6, index: 2, missing: true }],
            dropped: [4, 5].into_iter().collect(),
            resume: Some(3),
            ask: true,
            bye: true,
            missing: vec![Missing { class: Class::Full, first: 1, last: 2 }],
            complaints: vec![Class::Anonymous],
        };
        assert_eq!(Report::read(&report.write::<u8>()), Some(report));
    }
}
