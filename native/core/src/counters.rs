//! What the core has seen and done, for the operator.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// Names of the counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter { $($(#[doc = $doc])* $variant,)* }

        const NAMES: &[&str] = &[$($name,)*];

        /// What each counts.
        const DOCS: &[&str] = &[$(concat!($($doc,)*),)*];
    };
}

counters! {
    /// Envelopes sent.
    EnvelopesSent = "envelopes_sent",
    /// Copies that plain MUC would have sent and that went in envelopes.
    CopiesCarried = "copies_carried",
    /// Bytes of the carried copies as plain MUC would have sent them, without their `to`.
    CarriedBytes = "carried_bytes",
    /// Stanzas sent and received for links by the primary: envelopes, set-ups, questions, answers;
    /// and carried copies that went plainly in the end.
    LinkStanzas = "link_stanzas",
    /// Bytes of these, rather too many than too few.
    LinkBytes = "link_bytes",
    /// Copies sent plainly by the core: refused, oversize, queued, or to sessions outside a link.
    CopiesPlain = "copies_plain",
    /// `cast` operations sent.
    CastsSent = "casts_sent",
    /// `only` operations sent.
    OnlysSent = "onlys_sent",
    /// Copies among the carried ones that went as numbers of slots.
    CopiesReplayed = "copies_replayed",
    /// Slots that replicas have dropped by themselves or did not have.
    SlotsLost = "slots_lost",
    /// Links that came up at the primary.
    LinksUp = "links_up",
    /// Links that ended at the primary.
    LinksDown = "links_down",
    /// Links whose stream broke at the primary.
    LinksSplit = "links_split",
    /// Links that went on after that.
    LinksResumed = "links_resumed",
    /// Envelopes that were sent again then.
    EnvelopesResent = "envelopes_resent",
    /// Set-ups refused or unanswered.
    SetupsFailed = "setups_failed",
    /// Envelopes that came back as refused.
    EnvelopesRefused = "envelopes_refused",
    /// Envelopes whose fate stayed unknown.
    EnvelopesUnknown = "envelopes_unknown",
    /// Occupants handed to the room as failed.
    OccupantsFailed = "occupants_failed",
    /// Occupants that a replica refused to serve.
    OccupantsRefused = "occupants_refused",
    /// Compositions that the check before sending rejected.
    ComposeMismatches = "compose_mismatches",
    /// Payloads too large for an envelope.
    Oversize = "oversize",
    /// Links that ended because a buffer was full.
    BufferFull = "buffer_full",
    /// Reports that were malformed, stale or for an unknown link.
    BadReports = "bad_reports",
    /// Envelopes accepted by the replica.
    EnvelopesReceived = "envelopes_received",
    /// Copies delivered to local sessions.
    CopiesDelivered = "copies_delivered",
    /// Deliveries withheld because a slot was missing; the primary repeats them.
    SlotsMissing = "slots_missing",
    /// Stanzas not kept for replay for want of room.
    SlotsDropped = "slots_dropped",
    /// Envelopes refused for an unknown epoch.
    UnknownEpochs = "unknown_epochs",
    /// Envelopes refused for a gap in the sequence.
    Gaps = "gaps",
    /// Envelopes seen before.
    Duplicates = "duplicates",
    /// Envelopes or set-ups refused as malformed.
    Malformed = "malformed",
    /// Set-ups refused because no session named had asked to be in the room.
    NoConsent = "no_consent",
    /// Deliveries withheld because the session had not asked, or no longer asked.
    Withheld = "withheld",
    /// Links accepted by the replica.
    LinksAccepted = "links_accepted",
    /// Anything refused because a limit of this side was reached.
    LimitHit = "limit_hit",
    /// Sessions told that they are out.
    Evicted = "evicted",
    /// Links whose primary was silent for too long, or did not know them any more.
    EpochsDead = "epochs_dead",
    /// Leaves of sessions that were told to the room again.
    LeavesRepeated = "leaves_repeated",
    /// Casts that went by a room tree, once for each class and message.
    TreeCasts = "tree_casts",
    /// Casts that the room has sent past a tree, so that nobody passes them on to whom they are not for;
    /// once for each domain.
    TreeDetours = "tree_detours",
    /// Casts that were sent again over the direct link because a replica missed them.
    CastsRepaired = "casts_repaired",
    /// Gaps in a room stream that this replica has asked its room about.
    CastsMissed = "casts_missed",
    /// Casts passed on to other replicas, once for each.
    CastsRelayed = "casts_relayed",
    /// Casts from domains that are not this replica's parents, dropped.
    StrayCasts = "stray_casts",
    /// Casts that the room has not signed, dropped.
    ForgedCasts = "forged_casts",
    /// Complaints of replicas about their parents.
    Complaints = "complaints",
}

/// One number for each [`Counter`], shared between the parts of a host.
#[derive(Debug)]
pub struct Counters([AtomicU64; NAMES.len()]);

impl Default for Counters {
    fn default() -> Self {
        Counters([const { AtomicU64::new(0) }; NAMES.len()])
    }
}

impl Counters {
    pub(crate) fn add(&self, counter: Counter, n: u64) {
        self.0[counter as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// Takes note of stanzas for links.
    pub(crate) fn cost(&self, stanzas: u64, bytes: u64) {
        self.add(Counter::LinkStanzas, stanzas);
        self.add(Counter::LinkBytes, bytes);
    }

    /// All counters with their names and meanings.
    pub fn described(&self) -> Vec<(&'static str, &'static str, u64)> {
        let values = self.snapshot().into_iter();
        values.zip(DOCS).map(|((name, value), doc)| (name, doc.trim(), value)).collect()
    }

    /// The value of one counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }

    /// All counters with their names.
    pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
        NAMES.iter().zip(&self.0).map(|(name, n)| (*name, n.load(Ordering::Relaxed))).collect()
    }
}
