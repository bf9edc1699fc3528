//! One link of a room as the primary holds it: audience, sequence, and the fates of envelopes.

use std::collections::VecDeque;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::slots::Slots;
use crate::audience::{Audience, Class};
use crate::config::Share;
use crate::{Element, Millis, Payload};

/// What became of an envelope that has not been acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Certainly not handled by the replica.
    Refused,
    /// It may have arrived.
    Unknown,
}

/// Stanzas that an envelope delivers, one after the other, to the same sessions.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub payloads: Vec<Payload>,
    /// Indexes.
    pub to: RoaringBitmap,
}

impl Delivery {
    pub fn copies(&self) -> u64 {
        self.payloads.len() as u64 * self.to.len()
    }
}

/// An envelope that has not been acknowledged.
#[derive(Debug)]
pub(super) struct Sent {
    pub seq: u64,
    pub at: Millis,
    pub deliveries: Vec<Delivery>,
    /// Indexes that it takes leave of; their JIDs are needed until its fate is known.
    pub departed: Vec<u32>,
    pub copies: u64,
    pub bytes: u64,
    pub fate: Option<Fate>,
    /// As it went out, to be sent again.
    pub body: Arc<Element<Payload>>,
    /// It was sent to a replica that had said to expect just this one: a refusal is not for a gap.
    pub expected: bool,
}

/// A link that is up.
#[derive(Debug)]
pub(super) struct Link {
    pub epoch: Arc<str>,
    pub audience: Audience,
    /// Indexes of the set-up that are still to be sent as `enter`.
    pub unlisted: VecDeque<(u32, Class)>,
    /// Indexes whose sessions left while the set-up was under way.
    pub stale: Vec<u32>,
    /// Refusals of single indexes that have been acted on in this epoch.
    pub refusals: u64,
    pub max_bytes: usize,
    /// What the replica holds.
    pub slots: Slots,
    pub next_seq: u64,
    pub sent: VecDeque<Sent>,
    pub copies: u64,
    pub bytes: Share,
    pub last_sent: Millis,
    pub up_since: Millis,
    /// Questions for resumption asked on this link.
    pub questions: u64,
    /// Until when it is held, however often it goes on, if nothing is acknowledged meanwhile.
    pub patience: Option<Millis>,
    /// The newest envelope says that the link ends.
    pub ended: bool,
}

impl Link {
    pub fn new(epoch: Arc<str>, max_bytes: usize, bytes: Share, now: Millis) -> Self {
        Link {
            epoch,
            audience: Audience::default(),
            unlisted: VecDeque::new(),
            stale: Vec::new(),
            refusals: 0,
            max_bytes,
            slots: Slots::default(),
            next_seq: 1,
            sent: VecDeque::new(),
            copies: 0,
            bytes,
            last_sent: now,
            up_since: now,
            questions: 0,
            patience: None,
            ended: false,
        }
    }

    /// Id of the stanza that carries an envelope.
    pub fn id(&self, seq: u64) -> String {
        format!("{ID_PREFIX}{}.{seq}", self.epoch)
    }

    /// Id of a question for resumption: no envelope has that number.
    pub fn question_id(&self) -> String {
        self.id(0)
    }

    /// Takes note of an envelope that goes out.
    pub fn push(&mut self, sent: Sent) {
        self.copies += sent.copies;
        self.bytes.add(sent.bytes);
        self.last_sent = sent.at;
        self.next_seq = sent.seq + 1;
        self.sent.push_back(sent);
    }

    /// Everything up to `ack` has been handled. False if that was never sent.
    pub fn acknowledge(&mut self, ack: u64) -> bool {
        if ack >= self.next_seq {
            return false;
        }
        #[cfg(feature = "planted-faults")]
        let ack = ack + u64::from(crate::planted::has(crate::planted::Defect::Acknowledgement));
        while let Some(sent) = self.sent.pop_front_if(|sent| sent.seq <= ack) {
            self.copies -= sent.copies;
            self.bytes.remove(sent.bytes);
            self.patience = None;
            for index in sent.departed {
                self.audience.forget(index);
            }
        }
        true
    }

    /// Notes the fate of one envelope. False if it is not waiting for one.
    pub fn decide(&mut self, seq: u64, fate: Fate) -> bool {
        let Ok(at) = self.sent.binary_search_by_key(&seq, |sent| sent.seq) else { return false };
        let sent = &mut self.sent[at];
        if sent.fate.is_some() {
            return false;
        }
        sent.fate = Some(fate);
        true
    }

    /// Whether this envelope was sent to a replica that had said to expect it.
    pub fn is_expected(&self, seq: u64) -> bool {
        self.sent.front().is_some_and(|sent| sent.seq == seq && sent.expected)
    }

    /// Whether an envelope that is not acknowledged takes leave of this session.
    pub fn is_leaving(&self, jid: &str) -> bool {
        self.sent
            .iter()
            .flat_map(|sent| &sent.departed)
            .any(|index| self.audience.jid(*index).is_some_and(|departed| **departed == *jid))
    }

    /// Gives every envelope without a fate this one.
    pub fn decide_rest(&mut self, fate: Fate) {
        for sent in &mut self.sent {
            sent.fate.get_or_insert(fate);
        }
    }

    /// Whether every envelope that is not acknowledged has a fate.
    pub fn is_decided(&self) -> bool {
        self.sent.iter().all(|sent| sent.fate.is_some())
    }
}

const ID_PREFIX: &str = "dmuc-";

/// Reads an envelope's id: epoch and link sequence.
pub(super) fn parse_id(id: &str) -> Option<(&str, u64)> {
    let (epoch, seq) = id.strip_prefix(ID_PREFIX)?.rsplit_once('.')?;
    Some((epoch, crate::indexes::long(seq)?))
}

/// Whether a stanza's id is that of an envelope: a cheap test before [`crate::Room::bounced`].
pub fn is_envelope_id(id: &str) -> bool {
    parse_id(id).is_some()
}
