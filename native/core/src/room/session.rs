//! The remote occupants of a room, one entry for each session.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use slab::Slab;

use crate::audience::Class;
use crate::{Facts, Millis};

/// How a session is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    /// In no audience: plainly, or about to enter.
    None,
    /// In the audience of its domain's link, or of the set-up under way, under this index.
    At(u32),
    /// The replica does not serve it: plainly until it leaves.
    Refused,
    /// The room has been told that it failed; it gets nothing but its own end.
    Failing(Millis),
}

#[derive(Debug)]
pub(super) struct Session {
    pub jid: Arc<str>,
    pub domain: usize,
    pub seat: Seat,
    /// Class by the newest evidence.
    pub class: Class,
    /// Not an occupant: it is here for one stanza that must not overtake those of a stay that has
    /// ended and is not acknowledged.
    pub passing: bool,
    /// It has just asked to enter and has not got its own presence: what it gets of others is the list
    /// of XEP-0045 section 7.2.2, in which the order is free.
    pub entering: bool,
    /// A link has served it since it entered: if the replica knows nothing of it now, it may be gone
    /// without the room's knowing.
    pub served: bool,
    /// The evidence before spoke for the other class: one stray payload does not reseat anybody.
    wavering: bool,
}

impl Session {
    /// Takes note of which variant of a presence the room sent; whether the class changed.
    pub fn learn(&mut self, facts: Facts) -> bool {
        if !facts.is_others_presence() {
            return false;
        }
        let seen = if facts.tells_jid() { Class::Full } else { Class::Anonymous };
        let changed = seen != self.class && self.wavering;
        self.wavering = seen != self.class && !self.wavering;
        if changed {
            self.class = seen;
        }
        changed
    }
}

/// All of them, by number and by JID.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slab: Slab<Session>,
    by_jid: HashMap<Arc<str>, usize>,
    /// By domain: a room has as many links to set up and to end as there are domains, and none of
    /// them looks through the occupants of all.
    of_domain: Vec<BTreeSet<usize>>,
}

impl Sessions {
    pub fn find(&self, jid: &str) -> Option<usize> {
        self.by_jid.get(jid).copied()
    }

    pub fn get(&self, number: usize) -> &Session {
        &self.slab[number]
    }

    pub fn get_mut(&mut self, number: usize) -> &mut Session {
        &mut self.slab[number]
    }

    pub fn find_mut(&mut self, jid: &str) -> Option<&mut Session> {
        let number = self.find(jid)?;
        Some(&mut self.slab[number])
    }

    pub fn add(&mut self, jid: &str, domain: usize) -> usize {
        let jid: Arc<str> = jid.into();
        let number = self.slab.insert(Session {
            jid: jid.clone(),
            domain,
            seat: Seat::None,
            class: Class::default(),
            passing: false,
            entering: true,
            served: false,
            wavering: false,
        });
        self.by_jid.insert(jid, number);
        if self.of_domain.len() <= domain {
            self.of_domain.resize_with(domain + 1, BTreeSet::new);
        }
        self.of_domain[domain].insert(number);
        number
    }

    pub fn remove(&mut self, number: usize) -> Session {
        let session = self.slab.remove(number);
        self.by_jid.remove(&session.jid);
        self.of_domain[session.domain].remove(&number);
        session
    }

    /// Numbers of the sessions of a domain, ascending.
    pub fn of_domain(&self, domain: usize) -> Vec<usize> {
        self.of_domain.get(domain).into_iter().flatten().copied().collect()
    }
}
