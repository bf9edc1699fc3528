//! One link as the replica holds it.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::branch::Branch;
use super::slots::Slots;
use crate::Millis;
use crate::audience::Audience;
use crate::config::Share;
use crate::ops::Refused;

/// Refusals in one report, some 30 kB; the rest goes with the next.
const MAX_REFUSALS: usize = 1000;

#[derive(Debug)]
pub(super) struct Link {
    pub epoch: String,
    pub audience: Audience,
    /// Index of each session in the audience.
    pub index_of: HashMap<Arc<str>, u32>,
    /// Sessions in the audience whose consent has ended since.
    pub lapsed: RoaringBitmap,
    /// The nicks of those of them whom the room may take for occupants.
    pub gone: HashMap<u32, String>,
    /// Indexes that are not served: operations may still name them.
    pub refused: RoaringBitmap,
    /// Refusals that the primary has not said to have acted on: told with every report.
    pub refusals: VecDeque<Refused>,
    /// There are some that no report has told.
    pub untold: bool,
    /// Refusals of this epoch so far.
    pub refusal_count: u64,
    /// Sessions with a refusal that the primary may not have acted on, and its number. A new stay of
    /// such a session is refused too: the plain copies of the old one are still to come.
    pub barred: HashMap<Arc<str>, u64>,
    pub next_seq: u64,
    pub slots: Slots,
    /// Envelopes since the last report.
    pub unreported: u64,
    /// When the next report is due.
    pub report_due: Option<Millis>,
    /// Occupants the primary had at the set-up; it has named all of them when this many are known.
    pub size: u32,
    /// Sessions that take themselves for occupants and have not been named in this epoch.
    pub unconfirmed: BTreeSet<Arc<str>>,
    /// When the primary was last heard on this link.
    pub heard: Millis,
    /// Sessions that the room has since let in by a plain stanza: they are not what it is silent about.
    pub let_in: HashSet<Arc<str>>,
    /// Sessions that the primary has let in plainly while it was setting up the link: it may go on with
    /// them in the link.
    pub welcomed: HashSet<Arc<str>>,
    /// Milliseconds for which the primary keeps what is not acknowledged.
    pub hold: u64,
    /// Milliseconds after which it says something on an idle link.
    pub ping: u64,
    /// When it was last asked whether it is still there.
    pub asked: Option<Millis>,
    /// When leaves are repeated that the room may not have got.
    pub repeat: Option<Millis>,
    /// Whether operations may carry slots: the answer to the set-up has offered some.
    pub has_slots: bool,
    /// Its part in them, if it has one.
    pub branch: Option<Box<Branch>>,
    /// The envelope under way has waited: it is not what the host has just handed over.
    pub has_waited: bool,
    /// When it came up.
    pub since: Millis,
    /// Copies that it has delivered.
    pub copies: u64,
    /// Stanzas that it has taken for that: envelopes, reports, the set-up and its answer.
    pub stanzas: u64,
    /// Counts for the host.
    pub _counted: Share,
}

impl Link {
    /// The primary has said something.
    pub fn hear(&mut self, now: Millis) {
        self.heard = now;
        self.asked = None;
    }

    /// The session's consent is over: what still comes for it is refused. With its nick if it has not
    /// been ended by the room.
    pub fn lapse(&mut self, session: &str, nick: Option<String>) {
        if let Some(index) = self.index_of.get(session)
            && self.audience.seats.contains(*index)
        {
            self.lapsed.insert(*index);
            if let Some(nick) = nick {
                self.gone.insert(*index, nick);
            }
        }
    }

    /// Some consents have ended in the envelope under way, which may name their sessions further on,
    /// under an index that it has taken leave of or a new one.
    pub fn lapse_in(&mut self, set: &RoaringBitmap, ended: &HashSet<Arc<str>>) {
        for index in set - &self.refused {
            if self.audience.jid(index).is_some_and(|jid| ended.contains(jid)) {
                self.lapsed.insert(index);
            }
        }
    }

    /// The session asks anew before the primary took leave of its old index: that index stays
    /// closed, a new join gets a new one.
    pub fn forget(&mut self, index: u32) {
        if let Some(jid) = self.audience.jid(index).cloned()
            && self.index_of.get(&jid) == Some(&index)
        {
            self.index_of.remove(&jid);
        }
        self.lapsed.remove(index);
        self.gone.remove(&index);
        self.refused.remove(index);
        self.audience.forget(index);
    }

    /// Those of a set who have not left, served or not.
    pub fn inside(&self, indexes: RoaringBitmap) -> RoaringBitmap {
        indexes & (self.audience.seats.all() | &self.refused)
    }

    /// From this envelope on, this index is not served; for `missing` a slot the session may enter
    /// under another.
    pub fn refuse(&mut self, seq: u64, index: u32, missing: bool) {
        self.lapsed.remove(index);
        self.audience.seats.leave(index);
        self.refused.insert(index);
        self.refusal_count += 1;
        let number = self.refusal_count;
        self.refusals.push_back(Refused { number, seq, index, missing });
        self.untold = true;
        if let Some(jid) = self.audience.jid(index) {
            self.barred.insert(jid.clone(), self.refusal_count);
        }
    }

    /// The primary has acted on this many refusals of the epoch.
    pub fn acted_on(&mut self, refusals: u64) {
        self.barred.retain(|_, refusal| *refusal > refusals);
        while self.refusals.pop_front_if(|refused| refused.number <= refusals).is_some() {}
    }

    /// What the next report says: the refusals to tell, and the number up to which all envelopes are
    /// handled. An acknowledgement never passes a refusal that it does not come with.
    pub fn account(&self) -> (Vec<Refused>, u64) {
        let ack = self.next_seq - 1;
        let told = self.refusals.iter().take(MAX_REFUSALS).copied().collect();
        match self.refusals.get(MAX_REFUSALS) {
            Some(left_out) => (told, ack.min(left_out.seq - 1)),
            None => (told, ack),
        }
    }

    /// Whether nobody here listens any more.
    pub fn is_deserted(&self) -> bool {
        self.audience.seats.all().is_subset(&self.lapsed)
    }
}
