//! The room of `scale` with trees: six hundred servers, of which some pass casts on to others, and the
//! core at both ends of every link. `cargo bench --package dmuc-core --bench trees` has the figures for
//! ten thousand.

mod wide;

use dmuc_core::Counter;
use wide::{Act, Figures, World};

const SERVERS: u32 = 600;
const USERS: u32 = 2;
/// So small that they need as many levels as ten thousand servers do with 16.
const FANOUT: u32 = 8;
const SECOND: u64 = 1_000_000;

/// Everybody is in, knows his place, and has a stream to his children. Servers beyond the six hundred
/// are not in the room.
fn grown(servers: u32) -> World {
    let mut world = World::new(&vec![USERS; servers as usize], true);
    world.grow(&[("tree_domains", SERVERS.into()), ("tree_fanout", FANOUT.into())]);
    let all: Vec<u32> = (0..SERVERS * USERS).collect();
    world.play(Act::Join, &all, 1000, 20);
    assert_eq!(world.linked(), SERVERS as usize);
    // Each has just been told of its place, which is more than a cast has barriers for.
    let first = world.play(Act::Say, &[0, 1], 10 * SECOND, 10);
    assert_eq!(first.out, [SERVERS, FANOUT]);
    sound(&world);
    world
}

fn sound(world: &World) {
    assert_eq!(world.verdict(), Ok(()));
    for counter in [Counter::CopiesPlain, Counter::ComposeMismatches, Counter::BadReports] {
        assert_eq!(world.shared.counters.get(counter), 0, "{counter:?}");
    }
    for counter in [Counter::ForgedCasts, Counter::Malformed, Counter::Gaps, Counter::Evicted] {
        assert_eq!(world.of_homes.counters.get(counter), 0, "{counter:?}");
    }
}

/// Nothing was missed, and so many casts have left the room's server as often as it has children.
fn lean(figures: &Figures, casts: u64) {
    assert_eq!(figures.casts.stanzas, u64::from(FANOUT) * casts, "{figures:?}");
    assert_eq!(figures.aside.stanzas, u64::from(SERVERS - FANOUT) * casts);
    assert_eq!((figures.asked, figures.repaired.stanzas), (0, 0));
    assert!(figures.depth <= 4, "{} levels", figures.depth);
    // Each link is probed once in a minute.
    assert!(figures.beats.stanzas <= u64::from(SERVERS), "{}", figures.beats.stanzas);
}

fn some(world: &World, n: usize) -> Vec<u32> {
    let living = world.living();
    (0..n).map(|n| living[n * 149 % living.len()]).collect()
}

/// So many messages, one a second, and what comes of them in the ten seconds after.
fn say(world: &mut World, n: usize) -> Figures {
    let who = some(world, n);
    world.play(Act::Say, &who, SECOND, 10)
}

#[test]
fn a_broadcast_leaves_the_room_as_often_as_the_fan_out_says() {
    let mut world = grown(SERVERS + 1);
    let said = say(&mut world, 10);
    sound(&world);
    assert_eq!(said.copies, 10 * u64::from(SERVERS * USERS));
    assert_eq!(said.out, [FANOUT; 10]);
    assert_eq!(said.envelopes, 0);
    lean(&said, 10);

    // What is for few goes directly: who changes his status sees his own presence.
    world.show();
    let who = some(&world, 5);
    let away = world.play(Act::Away, &who, SECOND, 10);
    sound(&world);
    assert_eq!(away.copies, 5 * u64::from(SERVERS * USERS));
    assert_eq!(away.envelopes, 10, "that, and what the others there get before it");
    lean(&away, 5);

    // So does what somebody gets who comes in.
    let late = [SERVERS * USERS];
    let join = world.play(Act::Join, &late, 0, 10);
    assert_eq!((join.casts.stanzas, join.envelopes), (u64::from(FANOUT), 0));
    let leave = world.play(Act::Leave, &late, 0, 10);
    assert_eq!((leave.casts.stanzas, leave.envelopes), (u64::from(FANOUT), 0));
    sound(&world);
}

#[test]
fn probes_are_nothing_that_a_cast_waits_for() {
    let mut world = grown(SERVERS);
    let idle = world.play(Act::Say, &[], 0, 200);
    assert_eq!((idle.envelopes, idle.casts.stanzas), (0, 0));
    let probes = idle.beats.stanzas;
    assert!((3..=4).contains(&(probes / u64::from(SERVERS))), "{probes} probes");
    assert_eq!(idle.up.stanzas, probes, "each is answered");
    assert!(idle.ticks <= 100, "{} ticks of the room", idle.ticks);
    let said = say(&mut world, 2);
    sound(&world);
    assert_eq!(said.out, [FANOUT; 2]);
    lean(&said, 2);
}

#[test]
fn nobody_is_moved_for_a_better_place_while_nobody_speaks() {
    // Most relays of the second level have no children.
    let mut world = World::new(&[USERS; 300], true);
    world.grow(&[("tree_domains", 300), ("tree_fanout", FANOUT.into())]);
    let all: Vec<u32> = (0..600).collect();
    world.play(Act::Join, &all, 1000, 20);
    say(&mut world, 2);
    let relays = world.relays();
    world.slow_down(&relays, SECOND / 5);
    let idle = world.play(Act::Say, &[], 0, 200);
    assert!((1..=64).contains(&idle.envelopes), "{} envelopes", idle.envelopes);
    let said = say(&mut world, 20);
    assert_eq!(said.out, [FANOUT; 20]);
    assert!(said.envelopes > 0, "but then some are");
    sound(&world);
}

#[test]
fn what_is_lost_with_streams_between_replicas_is_sent_again() {
    let mut world = grown(SERVERS);
    world.break_streams(10_000);
    let rough = say(&mut world, 15);
    sound(&world);
    assert!(rough.lost > 30, "{} casts were lost", rough.lost);
    // Each of those that a whole subtree has missed, once.
    let most = 15 * u64::from(SERVERS) * 4 / 100;
    assert!(rough.repaired.stanzas <= most, "{} are more than {most}", rough.repaired.stanzas);
    assert!(rough.asked <= most, "{} questions", rough.asked);
    assert_eq!(rough.out, [FANOUT; 15]);
    world.break_streams(0);
    say(&mut world, 2);
    let calm = say(&mut world, 3);
    sound(&world);
    lean(&calm, 3);
}

#[test]
fn half_of_the_relays_may_vanish_at_once() {
    let mut world = grown(SERVERS);
    let relays = world.relays();
    let half: Vec<u32> = relays.iter().copied().step_by(2).collect();
    assert!(half.len() > 30, "{} relays", relays.len());
    world.vanish(&half);
    let after = say(&mut world, 15);
    sound(&world);
    // Nobody knows that they are gone, but everybody below them misses what is said: so it goes to each
    // directly, and is sent again only what was said before.
    assert!(after.last_repair < 6 * SECOND, "{} us", after.last_repair);
    assert!(after.repaired.stanzas < 5 * u64::from(SERVERS), "{}", after.repaired.stanzas);
    assert_eq!((after.out[0], after.out[14]), (FANOUT, SERVERS));
    // The room gives their links up, and their places in the tree are given to others.
    world.play(Act::Say, &[], 0, 30);
    assert_eq!(world.linked(), SERVERS as usize - half.len());
    say(&mut world, 2);
    let settled = say(&mut world, 3);
    sound(&world);
    assert_eq!(settled.out, [FANOUT; 3]);
    assert_eq!((settled.asked, settled.repaired.stanzas), (0, 0));
    assert!(settled.depth <= 6, "{} levels", settled.depth);
}

#[test]
fn relays_may_come_and_go() {
    let mut world = grown(SERVERS + 30);
    let mut next = SERVERS * USERS;
    for n in 0..15 {
        let relays = world.relays();
        let gone = [7, 31].map(|step| relays[n * step % relays.len()]);
        world.vanish(&gone);
        let who = some(&world, n + 1)[n];
        world.play(Act::Say, &[who], 0, 0);
        let coming: Vec<u32> = (next..next + 2 * USERS).collect();
        next += 2 * USERS;
        world.play(Act::Join, &coming, 1000, 1);
    }
    world.play(Act::Say, &[], 0, 60);
    sound(&world);
    say(&mut world, 2);
    let settled = say(&mut world, 3);
    sound(&world);
    assert_eq!(settled.out, [FANOUT; 3]);
    // A stream that has just been opened may be late.
    assert!(settled.asked < 5 && settled.repaired.stanzas < 5, "{settled:?}");
    assert!(settled.depth <= 6, "{} levels", settled.depth);
}
