//! Who passes casts on to whom: one tree for one class of one room, at its primary.
//!
//! A member that may relay sits as near to the room as it can, one that may not sits where it finds a
//! place. Nobody is moved without need: only when its parent goes or may not relay any more, when a
//! relay needs the place, or when another place is better by far ([`Parents::improve`]).

use std::collections::{BTreeMap, BTreeSet};

use super::Node;
use crate::Millis;

/// Shape of a tree and how ready it is to change.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Children of the room and of each relay.
    pub fanout: usize,
    /// Longest way from the room to a member.
    pub depth: u32,
    /// Milliseconds for which a member is not moved again only because another place is better.
    pub stay: u64,
    /// A parent is left whose round trip is longer than that of another by so many milliseconds at
    /// least, and twice as long.
    pub gain: u64,
    /// Members that one call of [`Parents::improve`] moves.
    pub moves: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Shape { fanout: 16, depth: 6, stay: 60_000, gain: 50, moves: 16 }
    }
}

/// A member has another parent than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The member.
    pub node: Node,
    /// `None` is the room itself.
    pub parent: Option<Node>,
}

#[derive(Debug)]
struct Member {
    parent: Option<Node>,
    children: BTreeSet<Node>,
    depth: u32,
    round_trip: u64,
    may_relay: bool,
    moved: Millis,
}

/// The tree. All members take casts of the class: for the one with real JIDs the caller lets in only
/// domains that are entitled to them, so that no other can be a relay of it either.
#[derive(Debug)]
pub struct Parents {
    shape: Shape,
    members: BTreeMap<Node, Member>,
    /// Children of the room.
    top: BTreeSet<Node>,
    /// Relays among them.
    top_relays: BTreeSet<Node>,
    /// Relays with a place for one more: depth, round trip.
    open: BTreeSet<(u32, u64, Node)>,
    /// Members with a place that a relay could make better use of, by depth.
    yielding: BTreeSet<(u32, Node)>,
    /// Those that have, or had, another parent or other children than before.
    changed: BTreeSet<Node>,
}

impl Parents {
    /// A tree without members.
    pub fn new(shape: Shape) -> Self {
        Parents {
            shape,
            members: BTreeMap::new(),
            top: BTreeSet::new(),
            top_relays: BTreeSet::new(),
            open: BTreeSet::new(),
            yielding: BTreeSet::new(),
            changed: BTreeSet::new(),
        }
    }

    /// Members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Those that the room itself sends casts to; more than the fan-out if there are not enough relays.
    pub fn top(&self) -> impl Iterator<Item = Node> {
        self.top.iter().copied()
    }

    /// Those that a relay passes casts on to.
    pub fn children(&self, node: Node) -> impl Iterator<Item = Node> {
        self.members.get(&node).into_iter().flat_map(|member| member.children.iter().copied())
    }

    /// The parent of a member (`None` for the room itself), and how far the member is from the room.
    pub fn place(&self, node: Node) -> Option<(Option<Node>, u32)> {
        self.members.get(&node).map(|member| (member.parent, member.depth))
    }

    /// Every member and its parent, in the order of their numbers.
    pub fn places(&self) -> impl Iterator<Item = (Node, Option<Node>)> {
        self.members.iter().map(|(node, member)| (*node, member.parent))
    }

    /// Whether a member may relay.
    pub fn may_relay(&self, node: Node) -> Option<bool> {
        self.members.get(&node).map(|member| member.may_relay)
    }

    /// Those that have had another parent or other children since this was last asked, if only meanwhile.
    /// Some of them may be no members any more.
    pub fn take_changed(&mut self) -> BTreeSet<Node> {
        std::mem::take(&mut self.changed)
    }

    /// A member comes in. `round_trip` in milliseconds is that of its direct link; it may relay if
    /// both ends agree to that, and its standing is good.
    pub fn join(&mut self, now: Millis, node: Node, round_trip: u64, may_relay: bool) -> Vec<Move> {
        if self.members.contains_key(&node) {
            return self.set_relay(now, node, may_relay);
        }
        let member = Member {
            parent: None,
            children: BTreeSet::new(),
            depth: 0,
            round_trip,
            may_relay,
            moved: now,
        };
        self.members.insert(node, member);
        let mut moves = Vec::new();
        self.settle(now, vec![node], None, &mut moves);
        self.relieve(now, &mut moves);
        moves
    }

    /// A member goes: its children get other parents.
    pub fn leave(&mut self, now: Millis, node: Node) -> Vec<Move> {
        let mut moves = Vec::new();
        if self.members.contains_key(&node) {
            let orphans = self.release(node);
            self.detach(node);
            self.members.remove(&node);
            self.settle(now, orphans, None, &mut moves);
        }
        moves
    }

    /// Whether a member may relay from here on: it takes part or not, or its standing has changed.
    pub fn set_relay(&mut self, now: Millis, node: Node, may_relay: bool) -> Vec<Move> {
        let mut moves = Vec::new();
        let Some(member) = self.members.get_mut(&node) else { return moves };
        if member.may_relay != may_relay {
            let orphans = self.release(node);
            self.unlist(node);
            if let Some(member) = self.members.get_mut(&node) {
                member.may_relay = may_relay;
            }
            self.list(node);
            self.settle(now, orphans, None, &mut moves);
            self.relieve(now, &mut moves);
        }
        moves
    }

    /// A round trip was measured. Small changes are not worth a thought.
    pub fn measured(&mut self, node: Node, round_trip: u64) {
        let Some(member) = self.members.get(&node) else { return };
        if member.round_trip.abs_diff(round_trip) * 4 > member.round_trip {
            self.unlist(node);
            if let Some(member) = self.members.get_mut(&node) {
                member.round_trip = round_trip;
            }
            self.list(node);
        }
    }

    /// A member has reason to complain of its parent: it gets another, or the room itself.
    pub fn move_away(&mut self, now: Millis, node: Node) -> Vec<Move> {
        let mut moves = Vec::new();
        if let Some(former) = self.members.get(&node).and_then(|member| member.parent) {
            self.detach(node);
            self.settle(now, vec![node], Some(former), &mut moves);
        }
        moves
    }

    /// Moves those for whom another place is better by far: two levels nearer, or a parent that is much
    /// faster and no further away. To be called every few seconds.
    pub fn improve(&mut self, now: Millis) -> Vec<Move> {
        let mut moves = Vec::new();
        self.relieve(now, &mut moves);
        let mut wishes: Vec<(u32, u64, Node)> = Vec::new();
        for (node, member) in &self.members {
            let Some(parent) = member.parent.and_then(|parent| self.members.get(&parent)) else {
                continue;
            };
            if now.since(member.moved) < self.shape.stay {
                continue;
            }
            let nearest = match self.open.first() {
                _ if self.top.len() < self.shape.fanout => 0,
                Some((depth, ..)) => *depth,
                None => continue,
            };
            let levels = member.depth.saturating_sub(nearest + 1);
            let gain = match self.open.first() {
                Some((depth, fast, _)) if *depth <= parent.depth => {
                    parent.round_trip.saturating_sub((2 * fast).max(fast + self.shape.gain))
                }
                _ => 0,
            };
            if levels >= 2 || gain > 0 {
                wishes.push((levels, gain, *node));
            }
        }
        wishes.sort_unstable_by(|a, b| b.cmp(a));
        for (_, _, node) in wishes.into_iter().take(self.shape.moves) {
            self.detach(node);
            self.settle(now, vec![node], None, &mut moves);
        }
        moves
    }

    /// As long as the room has more children than it should, relays with a place take some: first those
    /// that are none themselves.
    fn relieve(&mut self, now: Millis, moves: &mut Vec<Move>) {
        let over = self.top.len().saturating_sub(self.shape.fanout).min(self.shape.fanout);
        if over == 0 || self.open.is_empty() && self.top_relays.len() <= self.shape.fanout {
            return;
        }
        let spare = self.top_relays.len().saturating_sub(self.shape.fanout);
        let leaves = self.top.difference(&self.top_relays).copied().take(over);
        let relays = self.top_relays.iter().copied().rev().take(spare);
        let surplus: Vec<Node> = leaves.chain(relays).take(over).collect();
        for node in surplus {
            if !self.open.is_empty() || self.top_relays.contains(&node) {
                self.detach(node);
                self.settle(now, vec![node], None, moves);
            }
        }
    }

    /// Finds a place for members that have none, with all that is below them. None of them gets `avoid`
    /// for a parent.
    fn settle(
        &mut self,
        now: Millis,
        mut homeless: Vec<Node>,
        avoid: Option<Node>,
        moves: &mut Vec<Move>,
    ) {
        // The best relay first, which is the last of the list.
        homeless.sort_by_key(|node| {
            self.members.get(node).map(|m| (m.may_relay, m.children.len(), u64::MAX - m.round_trip))
        });
        while let Some(node) = homeless.pop() {
            let height = self.height(node);
            match self.find(node, height, avoid) {
                Some(Seat::Under(parent)) => self.attach(now, node, parent, moves),
                Some(Seat::Of(leaf)) => {
                    let parent = self.members.get(&leaf).and_then(|member| member.parent);
                    self.detach(leaf);
                    self.attach(now, node, parent, moves);
                    self.attach(now, leaf, Some(node), moves);
                }
                // What is below it does not fit: that is placed by itself.
                None if height > 0 => {
                    homeless.extend(self.release(node));
                    homeless.push(node);
                }
                // Never worse than without a tree.
                None => self.attach(now, node, None, moves),
            }
        }
    }

    fn find(&self, node: Node, height: u32, avoid: Option<Node>) -> Option<Seat> {
        let member = self.members.get(&node)?;
        let fits = |depth: u32| depth + height <= self.shape.depth;
        let free = if self.top.len() < self.shape.fanout {
            Some((1, Seat::Under(None)))
        } else {
            let open = self.open.iter().find(|(_, _, relay)| Some(*relay) != avoid);
            open.map(|(depth, _, relay)| (depth + 1, Seat::Under(Some(*relay))))
        };
        let free = free.filter(|(depth, _)| fits(*depth));
        // The room has at most so many relays, even if it has more leaves while there are few.
        let from = if self.top_relays.len() < self.shape.fanout { 1 } else { 2 };
        let taken = self.yielding.range((from, Node(0))..).next().filter(|(depth, leaf)| {
            let parent = self.members.get(leaf).and_then(|member| member.parent);
            member.may_relay
                && member.children.len() < self.shape.fanout
                && free.as_ref().is_none_or(|(nearest, _)| depth < nearest)
                && *depth < self.shape.depth
                && fits(*depth)
                && (avoid.is_none() || parent != avoid)
        });
        match taken {
            Some((_, leaf)) => Some(Seat::Of(*leaf)),
            None => free.map(|(_, seat)| seat),
        }
    }

    /// Takes a member and all below it out of the tree.
    fn detach(&mut self, node: Node) {
        for below in self.subtree(node) {
            self.unlist(below);
            if let Some(member) = self.members.get_mut(&below) {
                member.depth = 0;
            }
        }
        self.top.remove(&node);
        self.changed.insert(node);
        if let Some(parent) = self.members.get_mut(&node).and_then(|member| member.parent.take()) {
            self.changed.insert(parent);
            if let Some(member) = self.members.get_mut(&parent) {
                member.children.remove(&node);
            }
            self.list(parent);
        }
    }

    /// Takes all children of a member out of the tree.
    fn release(&mut self, node: Node) -> Vec<Node> {
        let children: Vec<Node> = self.children(node).collect();
        for child in &children {
            self.detach(*child);
        }
        children
    }

    fn attach(&mut self, now: Millis, node: Node, parent: Option<Node>, moves: &mut Vec<Move>) {
        match parent.and_then(|parent| self.members.get_mut(&parent)) {
            Some(member) => {
                member.children.insert(node);
            }
            None => {
                self.top.insert(node);
            }
        }
        self.changed.insert(node);
        if let Some(parent) = parent {
            self.changed.insert(parent);
            self.unlist(parent);
            self.list(parent);
        }
        if let Some(member) = self.members.get_mut(&node) {
            member.parent = parent;
            member.moved = now;
        }
        for below in self.subtree(node) {
            let parent = self.members.get(&below).and_then(|member| member.parent);
            let above = parent.and_then(|parent| self.members.get(&parent)).map_or(0, |m| m.depth);
            if let Some(member) = self.members.get_mut(&below) {
                member.depth = above + 1;
            }
            self.list(below);
        }
        moves.push(Move { node, parent });
    }

    /// A member and all below it, from above.
    fn subtree(&self, node: Node) -> Vec<Node> {
        let mut all = vec![node];
        let mut at = 0;
        while let Some(node) = all.get(at) {
            let children = self.children(*node);
            all.extend(children.collect::<Vec<_>>());
            at += 1;
        }
        all
    }

    /// Levels below a member.
    fn height(&self, node: Node) -> u32 {
        let mut level: Vec<Node> = self.children(node).collect();
        let mut height = 0;
        while !level.is_empty() {
            height += 1;
            level = level.into_iter().flat_map(|node| self.children(node)).collect();
        }
        height
    }

    fn unlist(&mut self, node: Node) {
        if let Some(member) = self.members.get(&node) {
            self.open.remove(&(member.depth, member.round_trip, node));
            self.yielding.remove(&(member.depth, node));
            self.top_relays.remove(&node);
        }
    }

    fn list(&mut self, node: Node) {
        // Without a depth it has no place itself.
        let Some(member) = self.members.get(&node).filter(|member| member.depth > 0) else {
            return;
        };
        if member.may_relay && member.depth == 1 {
            self.top_relays.insert(node);
        }
        if !member.may_relay {
            self.yielding.insert((member.depth, node));
        } else if member.children.len() < self.shape.fanout && member.depth < self.shape.depth {
            self.open.insert((member.depth, member.round_trip, node));
        }
    }
}

/// Where a member can go.
enum Seat {
    /// To a free place.
    Under(Option<Node>),
    /// To that of a member which is no relay, and which becomes its child.
    Of(Node),
}
