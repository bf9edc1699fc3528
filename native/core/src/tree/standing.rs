//! What is thought of relays: who loses, delays, alters or invents may not relay for a while.
//!
//! What a replica says of its parent cannot be proved, and may be a lie. So one complaint costs the
//! relay one child; it may not relay any more when two domains have complained. Whoever complains of
//! one parent after the other is served by the room itself and not listened to.

use std::collections::{BTreeMap, BTreeSet};

use super::Node;
use crate::Millis;

/// How long complaints count and what they cost.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Milliseconds for which a complaint counts.
    pub memory: u64,
    /// Domains that complain until a relay may not relay.
    pub witnesses: usize,
    /// Parents that one domain complains of until it is not listened to.
    pub complaints: usize,
    /// Milliseconds for which that lasts the first time. It doubles with each time.
    pub least: u64,
    /// The longest, after which the former times are forgotten too.
    pub most: u64,
    /// Domains about which something is remembered.
    pub entries: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            memory: 600_000,
            witnesses: 2,
            complaints: 3,
            least: 300_000,
            most: 86_400_000,
            entries: 10_000,
        }
    }
}

/// What follows from a complaint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sentence {
    /// Nothing: the witness is not listened to, or it is no news.
    Nothing,
    /// The witness gets another parent.
    Move,
    /// Nobody is to have this relay for a parent, until [`Standings::is_good`] says otherwise.
    Demote,
    /// The witness is to be served by the room itself, without a parent.
    Mistrust,
}

#[derive(Debug, Default)]
struct Standing {
    /// Who has complained of it, and when.
    by: BTreeMap<Node, Millis>,
    /// Of whom it has complained, and when.
    of: BTreeMap<Node, Millis>,
    until: Option<Millis>,
    times: u32,
    unheard: Option<Millis>,
}

/// Standing of the domains of one room, also of those that have left it: coming back clears nobody.
#[derive(Debug)]
pub struct Standings {
    patience: Patience,
    of: BTreeMap<Node, Standing>,
}

impl Standings {
    /// Nobody has done anything.
    pub fn new(patience: Patience) -> Self {
        Standings { patience, of: BTreeMap::new() }
    }

    /// A witness says that its parent has passed on what the room has not signed, or has missed casts
    /// that its parent has had.
    pub fn complain(&mut self, now: Millis, witness: Node, relay: Node) -> Sentence {
        let Patience { memory, witnesses, complaints, least, most, .. } = self.patience;
        if !self.make_room(now, [witness, relay]) {
            return Sentence::Move;
        }
        let fresh = |at: &Millis| now.since(*at) < memory;
        let own = self.of.entry(witness).or_default();
        if own.unheard.is_some_and(|until| now < until) {
            return Sentence::Nothing;
        }
        own.of.retain(|_, at| fresh(at));
        if own.of.insert(relay, now).is_some() {
            return Sentence::Nothing;
        }
        let too_many = own.of.len() > complaints;
        if too_many {
            own.unheard = Some(now + most);
        }
        let accused: BTreeSet<Node> = own.of.keys().copied().collect();
        if too_many {
            // What it has said of others does not count any more either.
            for accused in accused {
                if let Some(standing) = self.of.get_mut(&accused) {
                    standing.by.remove(&witness);
                }
            }
            return Sentence::Mistrust;
        }
        let standing = self.of.entry(relay).or_default();
        standing.by.retain(|_, at| fresh(at));
        standing.by.insert(witness, now);
        if standing.by.len() < witnesses {
            return Sentence::Move;
        }
        if standing.until.is_some_and(|until| now.since(until) > most) {
            standing.times = 0;
        }
        let pause = least.saturating_mul(1 << standing.times.min(20)).min(most);
        standing.times += 1;
        standing.until = Some(now + pause);
        standing.by.clear();
        Sentence::Demote
    }

    /// A domain is gone, as the room has found out by itself: whoever has complained of it was right.
    /// Those who are listened to again.
    pub fn is_gone(&mut self, relay: Node) -> Vec<Node> {
        let most = self.patience.complaints;
        let forgiven = self.of.iter_mut().filter_map(|(node, standing)| {
            let was_right = standing.of.remove(&relay).is_some() && standing.of.len() <= most;
            (was_right && standing.unheard.take().is_some()).then_some(*node)
        });
        forgiven.collect()
    }

    /// Whether a domain may relay.
    pub fn is_good(&self, now: Millis, node: Node) -> bool {
        self.of.get(&node).and_then(|standing| standing.until).is_none_or(|until| until <= now)
    }

    /// Whether a domain may have a parent.
    pub fn is_heard(&self, now: Millis, node: Node) -> bool {
        self.of.get(&node).and_then(|standing| standing.unheard).is_none_or(|until| until <= now)
    }

    /// When something about a domain changes by itself.
    pub fn next(&self, now: Millis) -> Option<Millis> {
        let ends = self.of.values().flat_map(|standing| [standing.until, standing.unheard]);
        ends.flatten().filter(|until| now < *until).min()
    }

    fn make_room(&mut self, now: Millis, nodes: [Node; 2]) -> bool {
        let new = nodes.iter().filter(|node| !self.of.contains_key(node)).count();
        if self.of.len() + new > self.patience.entries {
            let Patience { memory, most, .. } = self.patience;
            self.of.retain(|_, standing| {
                let fresh = |at: &Millis| now.since(*at) < memory;
                standing.by.values().any(fresh)
                    || standing.of.values().any(fresh)
                    || standing.until.is_some_and(|until| now.since(until) <= most)
                    || standing.unheard.is_some_and(|until| now < until)
            });
        }
        self.of.len() + new <= self.patience.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Node = Node(1);
    const B: Node = Node(2);
    const RELAY: Node = Node(9);

    fn standings() -> Standings {
        Standings::new(Patience::default())
    }

    #[test]
    fn one_witness_costs_a_child_and_two_cost_the_place() {
        let mut standings = standings();
        assert_eq!(standings.complain(Millis(0), A, RELAY), Sentence::Move);
        assert_eq!(standings.complain(Millis(1), A, RELAY), Sentence::Nothing, "the same again");
        assert!(standings.is_good(Millis(1), RELAY));
        assert_eq!(standings.complain(Millis(2), B, RELAY), Sentence::Demote);
        assert!(!standings.is_good(Millis(300_001), RELAY));
        assert_eq!(standings.next(Millis(3)), Some(Millis(300_002)));
        assert!(standings.is_good(Millis(300_002), RELAY));
    }

    #[test]
    fn who_does_it_again_waits_longer_and_is_forgiven_in_the_end() {
        let mut standings = standings();
        let mut now = Millis(0);
        let mut waits = Vec::new();
        for _ in 0..12 {
            standings.complain(now, A, RELAY);
            assert_eq!(standings.complain(now, B, RELAY), Sentence::Demote);
            let until = standings.next(now).expect("an end");
            waits.push(until.since(now));
            now = until + 600_000;
        }
        assert_eq!(waits[..3], [300_000, 600_000, 1_200_000]);
        assert_eq!(waits[11], 86_400_000);
        now = now + 86_400_000;
        standings.complain(now, A, RELAY);
        standings.complain(now, B, RELAY);
        assert_eq!(standings.next(now), Some(now + 300_000));
    }

    #[test]
    fn an_old_complaint_does_not_count() {
        let mut standings = standings();
        standings.complain(Millis(0), A, RELAY);
        assert_eq!(standings.complain(Millis(600_000), B, RELAY), Sentence::Move);
    }

    #[test]
    fn who_complains_of_everybody_is_not_listened_to() {
        let mut standings = standings();
        for relay in 10..13 {
            assert_eq!(standings.complain(Millis(0), A, Node(relay)), Sentence::Move);
        }
        assert_eq!(standings.complain(Millis(0), A, Node(13)), Sentence::Mistrust);
        assert!(!standings.is_heard(Millis(0), A) && standings.is_heard(Millis(86_400_000), A));
        assert_eq!(standings.complain(Millis(1), A, Node(14)), Sentence::Nothing);
        // Nor does what it has said before.
        assert_eq!(standings.complain(Millis(1), B, Node(10)), Sentence::Move);
        assert!(standings.is_good(Millis(1), Node(10)));
    }

    #[test]
    fn who_complains_of_those_that_are_gone_is_listened_to() {
        let mut standings = standings();
        for relay in 10..14 {
            standings.complain(Millis(0), A, Node(relay));
        }
        assert!(!standings.is_heard(Millis(1), A));
        assert_eq!(standings.is_gone(Node(99)), []);
        assert_eq!(standings.is_gone(Node(12)), [A]);
        assert!(standings.is_heard(Millis(1), A));
        assert_eq!(standings.complain(Millis(1), A, Node(14)), Sentence::Mistrust, "once more");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut standings = Standings::new(Patience { entries: 4, ..Patience::default() });
        assert_eq!(standings.complain(Millis(0), Node(0), Node(100)), Sentence::Move);
        assert_eq!(standings.complain(Millis(0), Node(1), Node(101)), Sentence::Move);
        assert_eq!(standings.complain(Millis(0), Node(2), Node(101)), Sentence::Move, "no room");
        assert!(standings.of.len() <= 4 && standings.is_good(Millis(0), Node(101)));
        assert_eq!(standings.complain(Millis(600_000), Node(2), Node(102)), Sentence::Move);
        assert_eq!(standings.of.len(), 2);
    }
}
