//! A room with occupants at one domain, b.test.

use dmuc_core::{Counter, Element, Payload};

use super::{Down, World};

pub const B: &str = "b.test";

pub fn world(options: &[(&str, u64)]) -> World {
    let mut all = vec![("retry_min", 1000)];
    all.extend_from_slice(options);
    World::new(7, &[B], &all)
}

pub fn user(n: usize) -> String {
    format!("u{n}@{B}/r")
}

/// A room with this many occupants at b.test, linked.
pub fn linked(count: usize, options: &[(&str, u64)]) -> World {
    let mut world = world(options);
    for n in 0..count {
        world.homes[0].join(world.now, &user(n), &format!("n{n}"));
        world.quiet();
    }
    assert_eq!(state(&world), "linked");
    world
}

pub fn state(world: &World) -> &'static str {
    world.primary.as_ref().expect("loaded").status()[0].state
}

pub fn say(world: &mut World, n: usize) {
    let copies = world.muc.say(&user(n));
    world.happen(copies);
}

pub fn away_thrice(world: &mut World, n: usize) {
    for _ in 0..3 {
        let copies = world.muc.away(&user(n));
        world.happen(copies);
        world.quiet();
    }
}

pub fn count(world: &World, counter: Counter) -> u64 {
    world.shared.counters.get(counter)
}

pub fn received(world: &World, n: usize) -> usize {
    world.homes[0].received.get(&user(n)).map_or(0, Vec::len)
}

/// What is on its way to b.test, by the name of the dmuc element.
pub fn carriers(world: &World) -> Vec<&str> {
    world.homes[0]
        .down
        .iter()
        .map(|down| match down {
            Down::Envelope { body, .. } => &body.name,
            Down::Setup { body, .. } => &body.name,
            Down::Plain { .. } | Down::Nothing { .. } => "",
        })
        .collect()
}

/// The operations on their way to b.test.
pub fn on_the_way(world: &World) -> impl Iterator<Item = &Element<Payload>> {
    let envelopes = world.homes[0].down.iter().filter_map(|down| match down {
        Down::Envelope { body, .. } => Some(&body.children),
        _ => None,
    });
    envelopes.flatten()
}

/// The same, by name.
pub fn operations(world: &World) -> Vec<String> {
    on_the_way(world).map(|op| op.name.clone()).collect()
}
