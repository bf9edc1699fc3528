//! A room with trees and occupants at six domains: two levels for a fan-out of two.

use dmuc_core::tree::{Mode, TreeOptions};
use dmuc_core::{Counter, Element, Payload};

use super::{Down, World};

pub const DOMAINS: [&str; 6] = ["b.test", "c.test", "d.test", "e.test", "f.test", "g.test"];
pub const FORCED: TreeOptions = TreeOptions {
    mode: Mode::Forced,
    fanout: 2,
    relay: true,
    renew_after: 86_400_000,
    renew_casts: 1_000_000,
};

/// Two users with one session each at each domain. The first of all is a moderator.
pub fn session(n: u8) -> (usize, String) {
    let (home, user) = (usize::from(n) % DOMAINS.len(), n / 6 % 2);
    (home, format!("u{user}@{}/r", DOMAINS[home]))
}

/// Four users at each domain, of whom the first two are those of [`session`].
pub fn one_of_four(n: u8) -> (usize, String) {
    let (home, user) = (usize::from(n) % DOMAINS.len(), n / 6 % 4);
    (home, format!("u{user}@{}/r", DOMAINS[home]))
}

/// Nobody is in yet.
pub fn wood(seed: u64, trees: TreeOptions, options: &[(&str, u64)]) -> World {
    let all = [&[("ack_every", 3), ("ack_delay", 500), ("retry_min", 1000)], options].concat();
    let mut world = World::new(seed, &DOMAINS, &all);
    world.grow(trees);
    world
}

/// Everybody comes in, and all are linked.
pub fn fill(world: &mut World) {
    for n in 0..12 {
        let (home, name) = session(n);
        world.homes[home].join(world.now, &name, &format!("n{n}"));
        world.settle();
    }
    world.quiet();
}

/// Everybody is in, trees are forced.
pub fn full(seed: u64, options: &[(&str, u64)]) -> World {
    let mut world = wood(seed, FORCED, options);
    fill(&mut world);
    world
}

/// The same, and all know who passes on to whom.
pub fn grown(seed: u64, options: &[(&str, u64)]) -> World {
    let mut world = full(seed, options);
    say(&mut world, 0);
    world.quiet();
    world
}

pub fn say(world: &mut World, n: u8) {
    let copies = world.muc.say(&session(n).1);
    world.happen(copies);
}

/// A counter of all replicas.
pub fn sum(world: &World, counter: Counter) -> u64 {
    world.homes.iter().map(|home| home.shared.counters.get(counter)).sum()
}

/// How many stanzas the session of this number has received.
pub fn received(world: &World, n: u8) -> usize {
    let (home, name) = session(n);
    world.homes[home].received.get(&name).map_or(0, Vec::len)
}

/// What is on its way from the room to a domain.
pub fn bodies(world: &World, home: usize) -> Vec<&Element<Payload>> {
    let down = world.homes[home].down.iter();
    let bodies = down.filter_map(|down| match down {
        Down::Envelope { body, .. } => Some(&**body),
        _ => None,
    });
    bodies.collect()
}

/// The domains that get a message from the room itself, and those that get it from others. The message has
/// arrived afterwards.
pub fn levels(world: &mut World) -> (Vec<usize>, Vec<usize>) {
    let speaker = (0..12).find(|n| world.muc.sessions().contains(&session(*n).1));
    say(world, speaker.expect("an occupant"));
    let homes = 0..world.homes.len();
    let (near, far) = homes.partition(|home| !world.homes[*home].down.is_empty());
    world.quiet();
    (near, far)
}

/// The domains of a room whose fan-out is one, from the room on. A message has arrived afterwards.
pub fn chain(world: &mut World) -> Vec<usize> {
    say(world, 0);
    world.quiet();
    say(world, 0);
    let mut chain: Vec<usize> =
        (0..DOMAINS.len()).filter(|home| !world.homes[*home].down.is_empty()).collect();
    world.arrive_down(chain[0]);
    while let Some(next) = (0..DOMAINS.len()).find(|home| !world.homes[*home].aside.is_empty()) {
        world.arrive_aside(next, 0);
        chain.push(next);
    }
    assert_eq!(chain.len(), DOMAINS.len());
    world.quiet();
    chain
}

/// Everything arrives but what comes to this domain from the room itself.
pub fn overtake(world: &mut World, home: usize) {
    for _ in 0..20 {
        for other in (0..DOMAINS.len()).filter(|other| *other != home) {
            while world.arrive_down(other) {}
        }
        while world.arrive_aside(home, 0) {}
    }
}
