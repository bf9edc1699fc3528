//! A tree of three hundred replicas. `cargo bench --package dmuc-core --bench trees` has the figures for
//! ten thousand.

#[path = "grove/mod.rs"]
mod grove;

use grove::{NOTICE, World};

const SECOND: u64 = 1_000_000;

#[test]
fn the_room_sends_a_cast_to_its_fan_out_and_everybody_has_it() {
    let mut world = World::new(300, 1);
    for _ in 0..10 {
        world.cast();
        world.pass(SECOND);
    }
    let figures = world.take();
    assert!(world.is_whole());
    assert_eq!((figures.egress, figures.most, figures.took.len()), (160, 16, 3000));
    assert_eq!((figures.asked, figures.repaired), (0, 0), "nothing is missed");
    assert!(world.depth() <= 3);
}

#[test]
fn what_relays_lose_is_repaired_within_a_second_of_the_next_heartbeat() {
    let mut world = World::new(300, 2);
    world.loss = 50_000;
    for _ in 0..20 {
        world.cast();
        world.pass(SECOND);
    }
    world.pass(2 * SECOND);
    let figures = world.take();
    assert!(world.is_whole());
    assert!(figures.repaired > 0);
    assert_eq!((figures.egress, figures.most), (320, 16));
    assert!(*figures.to_last.last().expect("casts") < 2 * SECOND, "{figures:?}");
}

#[test]
fn half_of_the_relays_may_die_at_once() {
    let mut world = World::new(300, 3);
    let dead: Vec<usize> = world.alive().into_iter().filter(|n| n % 2 == 0).collect();
    for n in dead {
        world.kill(n);
    }
    for _ in 0..6 {
        world.cast();
        world.pass(SECOND / 2);
    }
    world.pass(NOTICE);
    assert!(world.is_whole(), "over the direct links, as long as nobody has noticed");
    let figures = world.take();
    assert!(figures.repaired > 0 && *figures.to_last.last().expect("casts") < 2 * SECOND);
    // And then by the tree again.
    world.cast();
    world.pass(SECOND);
    let figures = world.take();
    assert!(world.is_whole());
    assert_eq!((figures.egress, figures.took.len(), figures.repaired), (16, 150, 0));
}
