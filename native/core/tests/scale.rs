//! A room with users on a thousand servers: everybody gets everything, and nothing grows faster than
//! the room. `cargo bench --package dmuc-core --bench scale` has the figures for ten thousand.

mod wide;

use dmuc_core::{Action, Config, Counter, Element, Facts, Incoming, Millis, Replica, Shared};
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
const MARKUP: u64 = 260;

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

#[test]
fn a_room_wakes_for_many_links_at_once() {
    let mut world = linked();
    // The links came up one after the other, and so they are probed.
    let idle = world.play(Act::Say, &[], 0, 300);
    sound(&world);
    assert!(idle.envelopes >= 4 * u64::from(SERVERS), "{idle:?}");
    assert!(idle.ticks <= 150, "{} ticks of the room in five minutes", idle.ticks);
}

#[test]
fn a_replica_wakes_for_many_rooms_at_once() {
    let shared = Shared::new(Config::default());
    let mut replica = Replica::new("b.test", 1, shared);
    let join = Facts(Facts::PRESENCE | Facts::NICK | Facts::MUC_X);
    let rooms: Vec<String> = (0..1000).map(|n| format!("room{n}@conference.a.test")).collect();
    for (n, room) in rooms.iter().enumerate() {
        let user = format!("u{n}@b.test/r");
        replica.outgoing(Millis(0), &user, &format!("{room}/nick"), join);
        let mut offer = Element::new("link").with("epoch", "e").with("stream", "s");
        for (name, value) in [("size", 1), ("hold", 10_000), ("ping", 60_000)] {
            offer = offer.with(name, value);
        }
        offer = offer.with("max-bytes", 262_144);
        offer.children.push(Element::new("enter").with("i", 0).with("jid", user));
        replica.setup(Millis(0), room, &offer);
    }
    // What is looked at once after a set-up.
    let mut wake = replica.tick(Millis(60_000)).wake;
    for (room, now) in rooms.iter().zip(60_001..) {
        let facts = Facts(Facts::MESSAGE | Facts::GROUPCHAT);
        let payload = Incoming { facts, from: room.clone(), has_to: false, packed: None };
        let mut cast = Element::new("cast").with("n", 1);
        cast.payload = Some(payload);
        let mut envelope = Element::new("envelope").with("epoch", "e").with("seq", 1);
        envelope.children.push(cast);
        let told = replica.envelope(Millis(now), room, "dmuc-e.1", &envelope).wake;
        wake = [wake, told].into_iter().flatten().min();
    }
    let (mut ticks, mut reports) = (0, 0);
    while reports < rooms.len() {
        let actions = replica.tick(wake.expect("more to report"));
        reports += actions.list.iter().filter(|a| matches!(a, Action::Report { .. })).count();
        wake = actions.wake;
        ticks += 1;
    }
    assert_eq!(reports, rooms.len(), "each link once");
    assert!(ticks <= 10, "{ticks} ticks");
}

#[test]
fn what_replicas_keep_is_bounded_for_all_links_together() {
    let shared = Shared::new(Config::from_pairs(&[("max_slots_total", 2500)]).expect("options"));
    let mut world = World::with(&[2; 100], Some(shared.clone()));
    let all: Vec<u32> = (0..200).collect();
    world.play(Act::Join, &all, 1000, 20);
    world.show();
    world.play(Act::Away, &all, 10_000, 20);
    assert_eq!(world.verdict(), Ok(()));
    // 200 presences at 100 servers.
    assert_eq!(shared.slots(), 2500);
    assert!(shared.counters.get(Counter::LimitHit) >= 20_000 - 2500);
    let gone: Vec<u32> = (0..200).collect();
    world.play(Act::Leave, &gone, 10_000, 200);
    assert_eq!(world.verdict(), Ok(()));
    assert_eq!((world.linked(), shared.slots()), (0, 0), "links that have ended keep nothing");
}
