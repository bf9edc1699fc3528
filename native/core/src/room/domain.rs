//! One domain with occupants in a room, and how far its link has come.

use std::collections::VecDeque;
use std::sync::Arc;

use super::link::{Fate, Link, Traffic};
use crate::config::Share;
use crate::{Millis, Options, Payload, Shared};

/// Time between the first and the second question for resumption; it doubles.
const FIRST_WAIT: u64 = 1000;

/// States of a domain. Each holds what is valid only in it.
#[derive(Debug)]
pub(super) enum State {
    /// Served plainly; nothing is under way before this time.
    Plain { retry: Millis },
    /// Served plainly while [`crate::Support`] finds out.
    Asking { until: Millis },
    /// Served plainly while the set-up is under way.
    SettingUp { id: String, until: Millis, link: Box<Link> },
    /// Served through the link.
    Linked(Box<Link>),
    /// Nothing goes out: the link is split and may come back, or it is ending and every envelope is to
    /// have a fate first.
    Held(Hold),
}

/// A link on which everything waits.
#[derive(Debug)]
pub(super) struct Hold {
    pub link: Box<Link>,
    /// What the room has sent since, in order. Sessions are as they were before it.
    pub queue: VecDeque<(Arc<str>, Payload)>,
    pub queued: Share,
    /// When envelopes without a fate are given up as unknown.
    pub until: Millis,
    /// The replica is asked whether it goes on; `None` if the link is ending.
    pub split: Option<Split>,
    /// It does not go on, whatever the replica says.
    pub is_over: bool,
    /// The replica has announced itself meanwhile.
    pub announced: bool,
}

/// The questions for resumption of a link whose stream has broken.
#[derive(Debug)]
pub(super) struct Split {
    pub since: Millis,
    /// Number of the first question since then; the answer to an earlier one is of another cut.
    pub first: u64,
    /// When the last one was asked.
    pub asked: Millis,
    /// When the next one is due.
    pub next: Millis,
    /// Time until the one after it.
    pub wait: u64,
    /// Counts for the host.
    pub _counted: Share,
}

impl Hold {
    /// Holds one copy until the fates of the envelopes before it are known.
    pub fn push(&mut self, to: &Arc<str>, payload: &Payload) {
        self.queue.push_back((to.clone(), payload.clone()));
        self.queued.add(payload.bytes().len() as u64);
    }

    /// Whether what waits is more than may.
    pub fn is_full(&self, shared: &Shared) -> bool {
        let copies = self.link.copies + self.queue.len() as u64;
        is_full(shared, copies, self.link.bytes.amount() + self.queued.amount())
    }
}

/// Whether so much is more than may wait on a link.
pub(super) fn is_full(shared: &Shared, copies: u64, bytes: u64) -> bool {
    let (most_copies, most_bytes) =
        (shared.config.max_unacked_copies(), shared.config.max_unacked_bytes());
    // When there is too much in all, the links that have no more than one envelope are not to blame.
    let in_all = shared.waiting() > shared.config.max_unacked_bytes_total()
        && bytes > shared.config.max_envelope_bytes();
    in_all || copies > most_copies || bytes > most_bytes
}

#[derive(Debug)]
pub(super) struct Domain {
    pub name: Arc<str>,
    /// Sessions of this domain that are occupants.
    pub occupants: usize,
    /// How many of them are failing.
    pub failing: usize,
    pub state: State,
    /// Links that failed in a row.
    pub failures: u32,
    /// When an announcement of the replica was last acted on.
    pub announced: Option<Millis>,
    /// Epoch of the link that ended last: reports of it may still be on their way.
    pub last_epoch: Option<Arc<str>>,
    /// Why it is in this state, for the operator.
    pub reason: &'static str,
    /// Of links that have ended.
    pub past: Traffic,
}

impl Domain {
    pub fn new(name: &str) -> Self {
        Domain {
            name: name.into(),
            occupants: 0,
            failing: 0,
            state: State::Plain { retry: Millis(0) },
            failures: 0,
            announced: None,
            last_epoch: None,
            reason: "too few occupants",
            past: Traffic::default(),
        }
    }

    /// Name of the state.
    pub fn state_name(&self) -> &'static str {
        match &self.state {
            State::Plain { .. } => "plain",
            State::Asking { .. } => "asking",
            State::SettingUp { .. } => "setting up",
            State::Linked(_) => "linked",
            State::Held(Hold { split: Some(_), .. }) => "split",
            State::Held(_) => "draining",
        }
    }

    pub fn link(&self) -> Option<&Link> {
        match &self.state {
            State::SettingUp { link, .. } | State::Linked(link) => Some(link),
            State::Held(hold) => Some(&hold.link),
            State::Plain { .. } | State::Asking { .. } => None,
        }
    }

    /// The link that the replica has taken, also while it is held.
    pub fn told_link(&self) -> Option<&Link> {
        self.link().filter(|_| !matches!(self.state, State::SettingUp { .. }))
    }

    /// Ends the link. Nothing is sent; envelopes get `fate`s as they come, and those without one at
    /// `until` are unknown.
    pub fn drain(&mut self, room: &str, until: Millis, reason: &'static str) {
        self.stop(until);
        if let State::Held(hold) = &mut self.state {
            log::debug!("{room}: link with {} ends: {reason}", self.name);
            self.reason = reason;
            hold.until = until;
            hold.split = None;
            hold.is_over = true;
        }
    }

    /// The newest envelope says that the link ends: nothing is sent until it is acknowledged.
    pub fn finish(&mut self, room: &str, until: Millis, reason: &'static str) {
        self.drain(room, until, reason);
        if let State::Held(hold) = &mut self.state {
            hold.is_over = false;
        }
    }

    /// Takes the link for broken, until when at the longest: that is told, unless it is broken already
    /// or no link. It may have been broken before, and nothing acknowledged since.
    pub fn split(
        &mut self,
        room: &str,
        now: Millis,
        until: Millis,
        reason: &'static str,
    ) -> Option<Millis> {
        let ending = match &self.state {
            State::Linked(_) => false,
            // What says so may have been lost.
            State::Held(hold) => hold.split.is_none() && !hold.is_over,
            _ => return None,
        };
        if !ending && !matches!(self.state, State::Linked(_)) {
            return None;
        }
        self.stop(until);
        let State::Held(hold) = &mut self.state else { return None };
        log::info!("{room}: link with {} is split: {reason}", self.name);
        self.reason = reason;
        hold.until = *hold.link.patience.get_or_insert(until);
        let first = hold.link.questions + 1;
        let _counted = Share::of_split(hold.link.bytes.owner());
        let (asked, next) = (now, now);
        hold.split = Some(Split { since: now, first, asked, next, wait: FIRST_WAIT, _counted });
        Some(hold.until)
    }

    fn stop(&mut self, until: Millis) {
        match std::mem::replace(&mut self.state, State::Plain { retry: Millis(0) }) {
            State::Linked(mut link) => {
                if let Some(limb) = &mut link.limb {
                    limb.hold();
                }
                let queued = link.bytes.another();
                self.state = State::Held(Hold {
                    link,
                    queue: VecDeque::new(),
                    queued,
                    until,
                    split: None,
                    is_over: false,
                    announced: false,
                });
            }
            other => self.state = other,
        }
    }

    /// Notes the fate of one envelope; false if it was not waiting for one.
    pub fn decide(&mut self, epoch: &str, seq: u64, fate: Fate) -> bool {
        match &mut self.state {
            State::Linked(link) if *link.epoch == *epoch => link.decide(seq, fate),
            State::Held(hold) if *hold.link.epoch == *epoch => hold.link.decide(seq, fate),
            _ => false,
        }
    }

    /// Waiting time before the next attempt.
    pub fn back_off(&self, config: &Options) -> u64 {
        let doublings = self.failures.saturating_sub(1).min(32);
        config.retry_min().saturating_mul(1 << doublings).min(config.retry_max())
    }

    /// A new link with nobody in it.
    pub fn new_link(epoch: Arc<str>, shared: &Arc<Shared>, now: Millis) -> Box<Link> {
        Box::new(Link::new(epoch, &shared.config, Share::of_waiting(shared), now))
    }
}
