//! A room with users on a thousand servers: everybody gets everything, and nothing grows faster than
//! the room. `cargo bench --package dmuc-core --bench scale` has the figures for ten thousand.

mod wide;

use dmuc_core::Counter;
use wide::{Act, Figures, World};

const SERVERS: u32 = 1000;
const USERS: u32 = 3;

/// Everybody is in, and every server has its link.
fn linked() -> World {
    let mut world = World::new(&[USERS; SERVERS as usize], true);
    let all: Vec<u32> = (0..SERVERS * USERS).collect();
    let figures = world.play(Act::Join, &all, 1000, 20);
    assert_eq!(world.linked(), SERVERS as usize);
    assert_eq!(figures.questions, u64::from(SERVERS), "each domain is asked once");
    assert_eq!(figures.setups, u64::from(SERVERS));
    assert_eq!(figures.answered.len(), all.len());
    sound(&world);
    world
}

fn sound(world: &World) {
    assert_eq!(world.verdict(), Ok(()));
    let never = [
        Counter::CopiesPlain,
        Counter::ComposeMismatches,
        Counter::LinksSplit,
        Counter::LinksDown,
        Counter::BadReports,
        Counter::OccupantsRefused,
    ];
    for counter in never {
        assert_eq!(world.shared.counters.get(counter), 0, "{counter:?}");
    }
    assert_eq!((world.unacknowledged(), world.shared.waiting()), (0, 0));
}

/// One envelope for each server and broadcast, of little more than the stanza.
fn lean(figures: &Figures, broadcasts: u64, stanza: u64, own: u64) {
    let servers = u64::from(SERVERS);
    assert_eq!(figures.to_last.len() as u64, broadcasts);
    assert_eq!(figures.envelopes, servers * broadcasts);
    assert_eq!(figures.down.stanzas, servers * broadcasts, "and nothing else");
    let bytes = figures.down.bytes - own;
    assert!(bytes <= servers * broadcasts * (stanza + MARKUP), "{figures:?}");
    // A report each for those that come within two seconds.
    let reports = figures.up.stanzas - broadcasts;
    assert!(reports <= servers * broadcasts, "{reports} reports");
}

/// Bytes of an envelope with one operation beside the stanza that it carries.
const MARKUP: u64 = 330;

#[test]
fn a_broadcast_is_one_envelope_for_each_of_a_thousand_servers() {
    let mut world = linked();
    let some: Vec<u32> = (0..20).map(|n| n * 149).collect();
    let said = world.play(Act::Say, &some, 200_000, 5);
    sound(&world);
    assert_eq!(said.copies, 20 * u64::from(SERVERS * USERS));
    lean(&said, 20, 400, 0);

    world.show();
    let away = world.play(Act::Away, &some, 200_000, 5);
    sound(&world);
    assert_eq!(away.copies, 20 * u64::from(SERVERS * USERS));
    lean(&away, 20, 330, 20 * 600);

    // Nobody does anything: links are probed, and those that hear nothing do not ask.
    let idle = world.play(Act::Say, &[], 0, 300);
    sound(&world);
    assert_eq!(idle.copies, 0);
    let probes = 5 * u64::from(SERVERS);
    assert!(idle.envelopes <= probes && idle.up.stanzas <= probes, "{idle:?}");
    assert!(idle.ticks <= 100, "{} ticks of the room in five minutes", idle.ticks);
    assert!(idle.ticks_of_replicas <= 4 * probes, "{}", idle.ticks_of_replicas);
}

#[test]
fn a_storm_of_joins_costs_what_is_new() {
    let mut world = World::new(&[[USERS; SERVERS as usize - 1].as_slice(), &[20]].concat(), true);
    let before: Vec<u32> = (0..(SERVERS - 1) * USERS + 2).collect();
    let late: Vec<u32> = (0..18).map(|n| before.len() as u32 + n).collect();
    world.play(Act::Join, &before, 1000, 20);
    assert_eq!(world.linked(), SERVERS as usize);
    world.show();
    let mut alone = world.play(Act::Join, &late[..1], 0, 20);
    let storm = world.play(Act::Join, &late[1..], 20_000, 20);
    sound(&world);
    let servers = u64::from(SERVERS);
    let joins = late.len() as u64 - 1;
    assert_eq!(alone.answered.len() + storm.answered.len(), late.len());
    // The list crosses in full for the first of them, and as numbers for the others.
    alone.down.bytes -= servers * (330 + MARKUP);
    assert!(alone.down.bytes > 330 * u64::from(SERVERS * USERS), "{alone:?}");
    assert_eq!(storm.envelopes, servers * joins);
    let most = servers * joins * (330 + MARKUP) + joins * 2000;
    assert!(storm.down.bytes <= most, "{} bytes, at most {most}", storm.down.bytes);

    let left = world.play(Act::Leave, &late, 20_000, 10);
    assert_eq!(left.envelopes, servers * late.len() as u64);
    sound(&world);
}
