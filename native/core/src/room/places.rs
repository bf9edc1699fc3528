//! Who passes casts on to whom: a place in the tree of each class, and what replicas are told of it
//! (`docs/protocol.md`, section 8.6).

use std::collections::BTreeSet;

use super::Room;
use super::compose::Composer;
use super::domain::State;
use super::limb::Limb;
use super::trees::{Grown, Trees, member};
use crate::ops::Report;
use crate::tree::wire::TreeOp;
use crate::tree::{Sentence, TreeOptions};
use crate::{Action, Class, Counter, Millis};

impl Room {
    /// Puts a domain into the trees of the classes that it takes, or out of them. Whether anybody has
    /// moved.
    pub(super) fn place_domain(&mut self, now: Millis, trees: &mut Trees, number: usize) -> bool {
        let Some(grown) = &mut trees.grown else { return false };
        let fanout = TreeOptions::of(&self.shared.config).fanout;
        let node = member(number);
        let link = match &self.domains[number].state {
            State::Linked(link) => Some(link),
            _ => None,
        };
        let mut has_moved = false;
        for class in Class::ALL {
            let parents = &mut grown.parents[class as usize];
            let is_in = parents.place(node).is_some();
            let taker = link.filter(|link| {
                let takes = |limb: &Limb| {
                    limb.leaving().is_none()
                        && (class == Class::Anonymous || limb.has_full)
                        && !link.is_deserted()
                };
                link.limb.as_deref().is_some_and(takes) && trees.standings.is_heard(now, node)
            });
            let moves = match taker {
                None if is_in => parents.leave(now, node),
                None => continue,
                Some(link) => {
                    let most = link.trees.unwrap_or(0);
                    let may_relay = most >= fanout as u64 && trees.standings.is_good(now, node);
                    let round_trip = link.round_trip.unwrap_or(0);
                    if is_in {
                        parents.measured(node, round_trip);
                    }
                    parents.join(now, node, round_trip, may_relay)
                }
            };
            has_moved |= !moves.is_empty() || !is_in || taker.is_none();
        }
        has_moved
    }

    /// [`Self::assign`] for every domain.
    pub(super) fn assign_all(&mut self, now: Millis, grown: &mut Grown, out: &mut Vec<Action>) {
        for number in 0..self.domains.len() {
            self.assign(now, grown, number, out);
        }
    }

    /// Tells a replica who passes casts on to it and to whom it does.
    fn assign(&mut self, now: Millis, grown: &mut Grown, number: usize, out: &mut Vec<Action>) {
        let State::Linked(link) = &self.domains[number].state else { return };
        let Some(limb) = link.limb.as_ref().filter(|limb| limb.leaving().is_none()) else { return };
        let name = |number: &usize| self.domains[*number].name.clone();
        let mut ops = Vec::new();
        let mut gone = Vec::new();
        let mut told = (limb.parents, limb.children.clone());
        for class in Class::ALL {
            let at = class as usize;
            let parents = &grown.parents[at];
            let parent = parents.place(member(number)).and_then(|(parent, _)| parent);
            let parent = parent.map(|node| node.0 as usize);
            if parent != limb.parents[at] {
                ops.push(TreeOp::Parent { class, domain: parent.as_ref().map(name) });
            }
            let children: BTreeSet<usize> =
                parents.children(member(number)).map(|node| node.0 as usize).collect();
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
        if ops.is_empty() {
            return;
        }
        let domain = &mut self.domains[number];
        let State::Linked(link) = &mut domain.state else { return };
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
        self.watch(number);
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
        let Some(trees) = &mut self.trees else { return };
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
            if let (Sentence::Move, Some(grown)) = (sentence, &mut trees.grown) {
                grown.parents[*class as usize].move_away(now, witness);
            }
        }
        if !report.complaints.is_empty()
            && let Some(mut trees) = self.trees.take()
        {
            if let Some(grown) = &mut trees.grown {
                self.assign_all(now, grown, out);
            }
            self.trees = Some(trees);
        }
    }

    /// Moves those for whom another place in a tree is better by far.
    pub(super) fn improve(&mut self, now: Millis, out: &mut Vec<Action>) {
        let Some(mut trees) = self.trees.take() else { return };
        if let Some(grown) = &mut trees.grown {
            let [anonymous, full] = &mut grown.parents;
            if !anonymous.improve(now).is_empty() | !full.improve(now).is_empty() {
                self.assign_all(now, grown, out);
            }
        }
        self.trees = Some(trees);
    }
}
