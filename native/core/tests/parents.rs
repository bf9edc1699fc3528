//! The trees of a room: whatever comes and goes, everybody is in, nobody carries more than it may, and
//! nobody is moved without need.

use std::collections::{BTreeMap, BTreeSet};

use dmuc_core::Millis;
use dmuc_core::tree::{Move, Node, Parents, Shape};
use proptest::prelude::*;

const SHAPE: Shape = Shape { fanout: 3, depth: 4, stay: 60_000, gain: 50, moves: 4 };

#[derive(Clone, Debug)]
enum Step {
    Join(u32, u64, bool),
    Leave(u32),
    Relay(u32, bool),
    Measured(u32, u64),
    Away(u32),
    Improve(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..60u32;
    prop_oneof![
        8 => (node(), 1..500u64, prop::bool::weighted(0.7)).prop_map(|(n, ms, r)| Step::Join(n, ms, r)),
        3 => node().prop_map(Step::Leave),
        3 => (node(), any::<bool>()).prop_map(|(n, relay)| Step::Relay(n, relay)),
        2 => (node(), 1..500u64).prop_map(|(n, ms)| Step::Measured(n, ms)),
        2 => node().prop_map(Step::Away),
        2 => (1..90_000u64).prop_map(Step::Improve),
    ]
}

/// What the callers of [`Parents`] know.
#[derive(Default)]
struct Known {
    now: Millis,
    parents: BTreeMap<Node, Option<Node>>,
    relays: BTreeSet<Node>,
}

impl Known {
    fn apply(&mut self, moves: Vec<Move>) {
        for Move { node, parent } in moves {
            self.parents.insert(node, parent);
        }
    }

    fn check(&self, tree: &Parents, shape: &Shape) {
        assert_eq!(tree.len(), self.parents.len());
        let mut level: Vec<Node> = tree.top().collect();
        let (mut depth, mut seen, mut free) = (0, BTreeSet::new(), 0);
        while !level.is_empty() {
            depth += 1;
            let mut below = Vec::new();
            for node in level {
                assert!(seen.insert(node), "{node:?} is there twice");
                let told = self.parents.get(&node).copied().expect("a member");
                assert_eq!(tree.place(node), Some((told, depth)), "the moves tell all: {node:?}");
                let children: Vec<Node> = tree.children(node).collect();
                assert!(children.is_empty() || self.relays.contains(&node), "{node:?} is no relay");
                assert!(children.len() <= shape.fanout);
                if self.relays.contains(&node) && depth < shape.depth {
                    free += shape.fanout - children.len();
                }
                below.extend(children);
            }
            level = below;
        }
        assert!(depth <= shape.depth);
        assert_eq!(seen.len(), tree.len(), "everybody is in the tree");
        let leaf = |node: &Node| !self.relays.contains(node);
        let over = tree.top().count() > shape.fanout && tree.top().any(|node| leaf(&node));
        assert!(!over || free <= shape.fanout, "the room has more children than it should");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_has_everybody_and_asks_too_much_of_nobody(steps in prop::collection::vec(step(), 1..150)) {
        let mut tree = Parents::new(SHAPE);
        let mut known = Known::default();
        for step in steps {
            let now = known.now;
            let moves = match step {
                Step::Join(node, round_trip, relay) => {
                    let node = Node(node);
                    if relay { known.relays.insert(node) } else { known.relays.remove(&node) };
                    tree.join(now, node, round_trip, relay)
                }
                Step::Leave(node) => {
                    known.parents.remove(&Node(node));
                    tree.leave(now, Node(node))
                }
                Step::Relay(node, relay) => {
                    let node = Node(node);
                    if known.parents.contains_key(&node) {
                        if relay { known.relays.insert(node) } else { known.relays.remove(&node) };
                    }
                    tree.set_relay(now, node, relay)
                }
                Step::Measured(node, round_trip) => {
                    tree.measured(Node(node), round_trip);
                    Vec::new()
                }
                Step::Away(node) => {
                    let former = tree.place(Node(node)).and_then(|(parent, _)| parent);
                    let moves = tree.move_away(now, Node(node));
                    if former.is_some() {
                        prop_assert_ne!(tree.place(Node(node)).and_then(|(parent, _)| parent), former);
                    }
                    moves
                }
                Step::Improve(ms) => {
                    known.now = now + ms;
                    tree.improve(known.now)
                }
            };
            known.apply(moves);
            known.check(&tree, &SHAPE);
        }
        // Left alone, a tree comes to rest, and nobody is moved twice within the time to stay.
        let mut moved: BTreeMap<Node, Millis> = BTreeMap::new();
        let mut quiet = 0;
        for _ in 0..400 {
            known.now = known.now + 20_000;
            let before = known.parents.clone();
            known.apply(tree.improve(known.now));
            known.check(&tree, &SHAPE);
            let changed: Vec<Node> =
                before.iter().filter(|(n, p)| known.parents[n] != **p).map(|(n, _)| *n).collect();
            for node in &changed {
                moved.insert(*node, known.now);
            }
            quiet = if changed.is_empty() { quiet + 1 } else { 0 };
            if quiet > 5 {
                break;
            }
        }
        prop_assert!(quiet > 5, "it never comes to rest");
    }
}

fn grown(members: u32, relays: impl Fn(u32) -> bool) -> (Parents, Known) {
    let (mut tree, mut known) = (Parents::new(Shape::default()), Known::default());
    for n in 0..members {
        let node = Node(n);
        if relays(n) {
            known.relays.insert(node);
        }
        let moves = tree.join(Millis(0), node, 10 + u64::from(n % 97), relays(n));
        known.apply(moves);
    }
    (tree, known)
}

fn depth(tree: &Parents, members: u32) -> u32 {
    let depths = (0..members).filter_map(|n| tree.place(Node(n))).map(|(_, depth)| depth);
    depths.max().unwrap_or(0)
}

#[test]
fn ten_thousand_are_four_levels_also_after_half_of_them_have_gone() {
    let (mut tree, mut known) = grown(10_000, |_| true);
    assert_eq!((tree.top().count(), depth(&tree, 10_000)), (16, 4));
    for n in (0..10_000).filter(|n| n % 2 == 0) {
        known.parents.remove(&Node(n));
        let moves = tree.leave(Millis(1000), Node(n));
        known.apply(moves);
    }
    known.check(&tree, &Shape::default());
    for _ in 0..500 {
        known.now = known.now + 60_000;
        let moves = tree.improve(known.now);
        known.apply(moves);
    }
    known.check(&tree, &Shape::default());
    assert_eq!((tree.top().count(), depth(&tree, 10_000)), (16, 4));
}

#[test]
fn a_place_near_the_room_goes_to_who_relays() {
    // One in ten relays, and those come last.
    let (tree, known) = grown(2000, |n| n >= 1800);
    known.check(&tree, &Shape::default());
    assert_eq!(tree.top().count(), 16);
    assert!(tree.top().all(|node| known.relays.contains(&node)));
    let (tree, _) = grown(100, |_| false);
    assert_eq!(tree.top().count(), 100, "without relays there is one level");
}

#[test]
fn the_room_has_no_more_relays_than_its_fan_out_while_it_has_more_leaves() {
    let mut tree = Parents::new(Shape { fanout: 2, ..Shape::default() });
    for n in 0..8 {
        tree.join(Millis(0), Node(n), 10, false);
    }
    for n in 8..11 {
        tree.join(Millis(0), Node(n), 10, true);
    }
    let depths = [8, 9, 10].map(|n| tree.place(Node(n)).map(|(_, depth)| depth));
    assert_eq!(depths, [Some(1), Some(1), Some(2)]);
}

#[test]
fn a_child_leaves_a_parent_that_is_slower_by_far_and_no_other() {
    let mut tree = Parents::new(Shape { fanout: 1, ..Shape::default() });
    let shape = Shape { fanout: 2, ..Shape::default() };
    let mut other = Parents::new(shape);
    for tree in [&mut tree, &mut other] {
        tree.join(Millis(0), Node(0), 10, true);
    }
    other.join(Millis(0), Node(1), 20, true);
    let moves = other.join(Millis(0), Node(2), 30, false);
    assert_eq!(moves, [Move { node: Node(2), parent: Some(Node(0)) }]);
    other.measured(Node(0), 60);
    assert_eq!(other.improve(Millis(100_000)), [], "not by far");
    other.measured(Node(0), 100);
    assert_eq!(other.improve(Millis(59_999)), [], "not yet");
    let moves = other.improve(Millis(100_000));
    assert_eq!(moves, [Move { node: Node(2), parent: Some(Node(1)) }]);
    other.measured(Node(0), 5);
    assert_eq!(other.improve(Millis(159_999)), [], "not at once again");
}
