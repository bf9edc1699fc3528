//! Who passes casts on to whom: a place in the tree of each class, and what replicas are told of it
//! (`docs/protocol.md`, section 8.6).

use std::collections::BTreeSet;

use super::Room;
use super::compose::Composer;
use super::domain::State;
use super::limb::lock;
use super::trees::{Grown, Trees, member};
use crate::ops::Report;
use crate::tree::wire::TreeOp;
use crate::tree::{Parents, Sentence};
use crate::{Action, Class, Counter, Millis};

/// Milliseconds between two looks for better places.
const IMPROVE_PAUSE: u64 = 1000;
/// Nobody is moved to a better place while the next cast has more barriers than these.
const IMPROVE_BARRIERS: usize = 8;

/// Who passes casts of a class on to a domain; `None` for the room.
fn parent(parents: &Parents, number: usize) -> Option<usize> {
    let (parent, _) = parents.place(member(number))?;
    parent.map(|node| node.0 as usize)
}

/// To whom a domain passes them on, in ascending order.
fn children(parents: &Parents, number: usize) -> impl Iterator<Item = usize> {
    parents.children(member(number)).map(|node| node.0 as usize)
}

impl Room {
    /// Puts a domain into the trees of the classes that it takes, or out of them.
    pub(super) fn place_domain(&self, now: Millis, trees: &mut Trees, number: usize) {
        let node = member(number);
        for class in Class::ALL {
            let member = self.membership(now, trees, number, class);
            let Some(grown) = &mut trees.grown else { return };
            let parents = &mut grown.parents[class as usize];
            let is_in = parents.place(node).is_some();
            match member {
                None if is_in => {
                    parents.leave(now, node);
                }
                None => {}
                Some((round_trip, may_relay)) => {
                    if is_in {
                        parents.measured(node, round_trip);
                    }
                    parents.join(now, node, round_trip, may_relay);
                }
            }
        }
    }

    /// If a domain is to be in the tree of a class: its round trip, and whether it may relay.
    fn membership(
        &self,
        now: Millis,
        trees: &Trees,
        number: usize,
        class: Class,
    ) -> Option<(u64, bool)> {
        let State::Linked(link) = &self.domains[number].state else { return None };
        let limb = link.limb.as_ref().filter(|limb| limb.leaving().is_none())?;
        let takes = class == Class::Anonymous || limb.has_full;
        let node = member(number);
        if !takes || link.is_deserted() || !trees.standings.is_heard(now, node) {
            return None;
        }
        let takes_all = link.trees.unwrap_or(0) >= trees.options.fanout as u64;
        let may_relay = takes_all && trees.standings.is_good(now, node);
        Some((link.round_trip.unwrap_or(0), may_relay))
    }

    /// Whether there is nothing to do for [`Self::place_domain`].
    pub(super) fn is_placed(&self, now: Millis, trees: &Trees, number: usize) -> bool {
        let Some(grown) = &trees.grown else { return true };
        Class::ALL.into_iter().all(|class| {
            let member = self.membership(now, trees, number, class);
            let parents = &grown.parents[class as usize];
            parents.may_relay(super::trees::member(number))
                == member.map(|(_, may_relay)| may_relay)
        })
    }

    /// [`Self::assign`] for those whose places are others than before, and for these, which are parked
    /// if they are deserted.
    pub(super) fn assign_moved(
        &mut self,
        now: Millis,
        trees: &mut Trees,
        mut these: BTreeSet<usize>,
        out: &mut Vec<Action>,
    ) {
        if let Some(grown) = &mut trees.grown {
            let changed = grown.parents.iter_mut().flat_map(Parents::take_changed);
            these.extend(changed.map(|node| node.0 as usize));
        }
        for number in these {
            if let Some(grown) = &mut trees.grown
                && self.assign(now, grown, number, out)
            {
                trees.stale.insert(number);
            }
            self.park_deserted(number);
        }
    }

    /// Whether there is nothing to do for [`Self::assign`].
    pub(super) fn is_assigned(&self, grown: &Grown, number: usize) -> bool {
        let State::Linked(link) = &self.domains[number].state else { return true };
        let Some(limb) = link.limb.as_ref().filter(|limb| limb.leaving().is_none()) else {
            return true;
        };
        Class::ALL.into_iter().all(|class| {
            let (parents, at) = (&grown.parents[class as usize], class as usize);
            parent(parents, number) == limb.parents[at]
                && children(parents, number).eq(limb.children[at].iter().copied())
        })
    }

    /// Tells a replica who passes casts on to it and to whom it does. Whether the same envelopes have
    /// told it something else that the trees have to follow.
    fn assign(
        &mut self,
        now: Millis,
        grown: &mut Grown,
        number: usize,
        out: &mut Vec<Action>,
    ) -> bool {
        let State::Linked(link) = &self.domains[number].state else { return false };
        let Some(limb) = link.limb.as_ref().filter(|limb| limb.leaving().is_none()) else {
            return false;
        };
        if self.is_assigned(grown, number) {
            return false;
        }
        let name = |number: &usize| self.domains[*number].name.clone();
        let mut ops = Vec::new();
        let mut gone = Vec::new();
        let mut told = (limb.parents, limb.children.clone());
        for class in Class::ALL {
            let at = class as usize;
            let parents = &grown.parents[at];
            let parent = parent(parents, number);
            if parent != limb.parents[at] {
                ops.push(TreeOp::Parent { class, domain: parent.as_ref().map(name) });
            }
            let children: BTreeSet<usize> = children(parents, number).collect();
            for child in limb.children[at].difference(&children) {
                gone.push((class, *child));
                ops.push(TreeOp::Child { class, domain: name(child), is_gone: true });
            }
            for child in children.difference(&limb.children[at]) {
                grown.reach.add(class, number, *child, link);
                ops.push(TreeOp::Child { class, domain: name(child), is_gone: false });
            }
            told.0[at] = parent;
            told.1[at] = children;
        }
        let stance = link.stance();
        let domain = &mut self.domains[number];
        let State::Linked(link) = &mut domain.state else { return false };
        let mut composer = Composer::new(link, &domain.name, &self.shared, now);
        for op in ops {
            composer.tree(op);
        }
        out.extend(composer.finish());
        for (class, child) in gone {
            grown.reach.dismiss(class, number, child, link.next_seq - 1);
        }
        if let Some(limb) = &mut link.limb {
            (limb.parents, limb.children) = told;
        }
        let has_changed = link.stance() != stance;
        self.watch(number);
        has_changed
    }

    /// What a report says of the parents of a domain.
    pub(super) fn hear_complaints(
        &mut self,
        now: Millis,
        number: usize,
        report: &Report,
        out: &mut Vec<Action>,
    ) {
        let witness = member(number);
        let State::Linked(link) = &self.domains[number].state else { return };
        let Some(limb) = &link.limb else { return };
        let parents = limb.parents;
        if report.complaints.is_empty() {
            return;
        }
        let Some(mut trees) = self.trees.take() else { return };
        for class in &report.complaints {
            let Some(parent) = parents[*class as usize] else { continue };
            self.shared.counters.add(Counter::Complaints, 1);
            let sentence = trees.standings.complain(now, witness, member(parent));
            log::info!(
                "{}: {} complains of {}: {sentence:?}",
                self.jid,
                self.domains[number].name,
                self.domains[parent].name
            );
            // Who may not relay or have a parent any more is dealt with by `tend`.
            trees.stale.extend([number, parent]);
            if let (Sentence::Move, Some(grown)) = (sentence, &mut trees.grown) {
                grown.parents[*class as usize].move_away(now, witness);
            }
        }
        trees.pardon = trees.standings.next(now);
        self.assign_moved(now, &mut trees, BTreeSet::new(), out);
        self.trees = Some(trees);
    }

    /// Moves those for whom another place in a tree is better by far.
    pub(super) fn improve(&mut self, now: Millis, out: &mut Vec<Action>) {
        let Some(mut trees) = self.trees.take() else { return };
        let is_soon = trees.improved.is_some_and(|last| now.since(last) < IMPROVE_PAUSE);
        // Each move is two or three envelopes, and the next cast has barriers for so many only.
        let may_move =
            |grown: &&mut Grown| !is_soon && !lock(&grown.stream).has_barriers(IMPROVE_BARRIERS);
        if let Some(grown) = trees.grown.as_mut().filter(may_move) {
            trees.improved = Some(now);
            for parents in &mut grown.parents {
                parents.improve(now);
            }
            self.assign_moved(now, &mut trees, BTreeSet::new(), out);
        }
        self.trees = Some(trees);
    }
}
