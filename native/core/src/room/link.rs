//! One link of a room as the primary holds it: audience, sequence, and the fates of envelopes.

use std::collections::VecDeque;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::limb::Limb;
use super::slots::Slots;
use crate::audience::{Audience, Class, Scope};
use crate::config::Share;
use crate::ops::envelope_id;
use crate::{Element, Millis, Options, Payload};

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

    /// Bytes of the copies as plain MUC sends them, each without its `to`.
    pub fn bytes(&self) -> u64 {
        self.payloads.iter().map(|payload| payload.bytes().len() as u64).sum::<u64>()
            * self.to.len()
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
    /// It is no envelope but a cast of the room stream, of this class and number.
    pub cast: Option<(Class, u64)>,
}

/// What has gone over links, and what plain MUC would have sent instead.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    /// Copies that went in envelopes.
    pub copies: u64,
    /// Bytes of these as they would have gone, each without its `to`.
    pub copied_bytes: u64,
    /// Stanzas sent and received for the links: envelopes, set-ups, questions, and the answers. Copies
    /// that went plainly in the end count too.
    pub stanzas: u64,
    /// Bytes of these, rather too many than too few.
    pub bytes: u64,
}

impl Traffic {
    /// Takes note of stanzas for the link.
    pub fn cost(&mut self, stanzas: u64, bytes: u64) {
        self.stanzas += stanzas;
        self.bytes += bytes;
    }
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Traffic) {
        self.copies += other.copies;
        self.copied_bytes += other.copied_bytes;
        self.cost(other.stanzas, other.bytes);
    }
}

/// What a link keeps from its set-up on, whatever the options say: the replica counts on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub ack_timeout: u64,
    pub hold_time: u64,
    pub ping_interval: u64,
}

impl Terms {
    pub fn new(options: &Options) -> Self {
        Terms {
            ack_timeout: options.ack_timeout(),
            hold_time: options.hold_time(),
            ping_interval: options.ping_interval(),
        }
    }

    /// Milliseconds after the last acknowledgement for which the primary keeps what follows, at most.
    pub fn longest_hold(&self) -> u64 {
        self.ack_timeout + self.hold_time
    }
}

/// What envelopes change that trees have to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stance {
    takes_full: bool,
    is_parked: bool,
    is_deserted: bool,
    has_anonymous: bool,
}

/// A link that is up.
#[derive(Debug)]
pub(super) struct Link {
    pub epoch: Arc<str>,
    pub terms: Terms,
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
    pub traffic: Traffic,
    /// Milliseconds from something that the replica answers at once to the answer; or from an envelope
    /// to its acknowledgement, if that was faster.
    pub round_trip: Option<u64>,
    /// Counts for the host once the link is up.
    pub counted: Option<Share>,
    /// The replica takes part in trees, and passes casts on to so many.
    pub trees: Option<u64>,
    /// The link's end of the room stream, if it lies in it.
    pub limb: Option<Box<Limb>>,
}

impl Link {
    pub fn new(epoch: Arc<str>, options: &Options, bytes: Share, now: Millis) -> Self {
        Link {
            epoch,
            terms: Terms::new(options),
            audience: Audience::default(),
            unlisted: VecDeque::new(),
            stale: Vec::new(),
            refusals: 0,
            max_bytes: usize::try_from(options.max_envelope_bytes()).unwrap_or(usize::MAX),
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
            traffic: Traffic::default(),
            round_trip: None,
            counted: None,
            trees: None,
            limb: None,
        }
    }

    /// Id of the stanza that carries an envelope.
    pub fn id(&self, seq: u64) -> String {
        envelope_id(&self.epoch, seq)
    }

    /// Id of a question for resumption: no envelope has that number.
    pub fn question_id(&self) -> String {
        self.id(0)
    }

    /// Whether anybody in the audience is of the class that sees real JIDs.
    pub fn is_full(&self) -> bool {
        self.audience.seats.len(Scope::Class(Class::Full)) > 0
    }

    /// Whether nobody is left in the audience.
    pub fn is_deserted(&self) -> bool {
        self.audience.seats.all().is_empty()
    }

    /// Whether anybody in the audience is of the class that sees none.
    pub fn has_anonymous(&self) -> bool {
        self.audience.seats.len(Scope::Class(Class::Anonymous)) > 0
    }

    /// What trees have to follow if an envelope goes out.
    pub fn stance(&self) -> Stance {
        Stance {
            takes_full: self.limb.as_ref().is_some_and(|limb| limb.has_full),
            is_parked: self.limb.as_ref().is_some_and(|limb| limb.is_parked()),
            is_deserted: self.is_deserted(),
            has_anonymous: self.has_anonymous(),
        }
    }

    /// Whether the replica is to be told that it takes casts with real JIDs, or none any more.
    pub fn is_turning(&self) -> bool {
        self.limb.as_ref().is_some_and(|limb| limb.has_full != self.is_full())
    }

    /// Takes note of an envelope that goes out.
    pub fn push(&mut self, sent: Sent) {
        self.copies += sent.copies;
        self.bytes.add(sent.bytes);
        // A cast that others pass on is no sign of life of the room.
        if sent.cast.is_none() {
            self.last_sent = sent.at;
        }
        self.next_seq = sent.seq + 1;
        self.sent.push_back(sent);
    }

    /// Everything up to `ack` has been handled. False if that was never sent.
    pub fn acknowledge(&mut self, now: Millis, ack: u64) -> bool {
        if ack >= self.next_seq {
            return false;
        }
        #[cfg(feature = "planted-faults")]
        let ack = ack + u64::from(crate::planted::has(crate::planted::Defect::Acknowledgement));
        let mut newest = None;
        while let Some(sent) = self.sent.pop_front_if(|sent| sent.seq <= ack) {
            let is_probe = sent.body.children.is_empty() && sent.cast.is_none();
            newest = Some((now.since(sent.at), is_probe));
            self.copies -= sent.copies;
            self.bytes.remove(sent.bytes);
            self.patience = None;
            for index in sent.departed {
                self.audience.forget(index);
            }
        }
        if let Some((took, is_probe)) = newest
            && (is_probe || self.round_trip.is_none_or(|ms| took < ms))
        {
            self.round_trip = Some(took);
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
