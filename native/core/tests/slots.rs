//! One test for each rule of join storms by reference: slots, replays, and what is missing.

mod sim;

use dmuc_core::{Action, Counter, Element, Facts, Incoming, Millis, Replica};
use sim::scene::{B, count, linked, on_the_way, operations, say, state, user};
use sim::{ROOM, World};

/// Somebody joins; the operations that he costs, not yet arrived.
fn join(world: &mut World, n: usize) -> Vec<Element<dmuc_core::Payload>> {
    world.homes[0].join(world.now, &user(n), &format!("n{n}"));
    while world.arrive_up(0) {}
    on_the_way(world).cloned().collect()
}

fn named<'a, P>(ops: &'a [Element<P>], name: &str) -> Vec<&'a Element<P>> {
    ops.iter().filter(|op| op.name == name).collect()
}

fn away(world: &mut World, n: usize) {
    let copies = world.muc.away(&user(n));
    world.happen(copies);
    world.quiet();
}

fn toggle(world: &mut World, n: usize) {
    let copies = world.muc.toggle(&user(n));
    world.happen(copies);
    world.quiet();
}

/// Slots and bytes that the replica keeps.
fn kept(world: &World) -> (u64, u64) {
    let status = world.homes[0].replica.as_ref().expect("loaded").status();
    (status[0].slots, status[0].slot_bytes)
}

#[test]
fn a_later_joiner_costs_a_line_whatever_the_size_of_the_room() {
    for size in [5, 60] {
        let mut world = linked(3, &[]);
        for n in 3..size {
            join(&mut world, n);
            world.quiet();
        }
        for _ in 0..3 {
            say(&mut world, 0);
        }
        world.quiet();
        join(&mut world, size);
        world.quiet();
        let ops = join(&mut world, size + 1);
        let carried: Vec<_> = ops.iter().filter(|op| op.payload.is_some()).collect();
        assert_eq!(carried.len(), 3, "his presence for the moderator, for all others, for himself");
        let replays = named(&ops, "replay");
        assert_eq!(replays.len(), 2, "the list, and history after his own presence");
        assert!(replays.iter().all(|op| op.attr("slots").is_some_and(|slots| slots.len() < 30)));
        world.quiet();
        assert_eq!(world.verdict(), Ok(()));
        assert_eq!(count(&world, Counter::ComposeMismatches), 0);
    }
}

#[test]
fn the_newest_presence_is_replayed_and_the_one_before_is_dropped() {
    let mut world = linked(4, &[]);
    join(&mut world, 4);
    world.quiet();
    let before = kept(&world);
    for n in (0..4).cycle().take(100) {
        away(&mut world, n);
    }
    let ops = join(&mut world, 5);
    assert_eq!(ops.iter().filter(|op| op.payload.is_some()).count(), 3, "{ops:?}");
    world.quiet();
    assert_eq!(world.verdict(), Ok(()));
    let after = kept(&world);
    assert!(after.0 < before.0 + 50, "{before:?} {after:?}: told in batches");
    assert!(after.1 == 8 * after.0, "each has eight bytes: {after:?}");
}

#[test]
fn who_leaves_is_forgotten() {
    let mut world = linked(3, &[("min_occupants", 1)]);
    for n in 3..60 {
        join(&mut world, n);
        world.quiet();
    }
    for n in 3..60 {
        world.homes[0].leave(world.now, &user(n));
        world.quiet();
    }
    assert!(kept(&world).0 < 50, "{:?}", kept(&world));
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn only_what_can_be_wanted_again_gets_a_slot() {
    let mut world = linked(4, &[]);
    say(&mut world, 1);
    let copies = world.muc.whisper(&user(2));
    world.happen(copies);
    let copies = world.muc.away(&user(3));
    world.happen(copies);
    let slots: Vec<(bool, u32)> = on_the_way(&world)
        .filter_map(|op| Some((op.attr("slot").is_some(), op.payload.as_ref()?.facts().0)))
        .collect();
    assert!(slots.len() >= 5, "{slots:?}");
    for (slot, facts) in slots {
        let others = facts & (Facts::PRESENCE | Facts::CODE_110) == Facts::PRESENCE;
        assert_eq!(slot, others, "{facts:b}");
    }
}

#[test]
fn a_new_moderator_gets_what_he_may_see_now_and_nothing_crosses_that_he_may_not() {
    let mut world = linked(4, &[]);
    for n in [2, 0] {
        // The simulation watches what crosses; the only moderators leave off, and one comes back.
        toggle(&mut world, n);
        away(&mut world, 3);
    }
    toggle(&mut world, 2);
    away(&mut world, 1);
    away(&mut world, 3);
    toggle(&mut world, 2);
    assert_eq!(world.verdict(), Ok(()));
    let replayed = count(&world, Counter::CopiesReplayed);
    toggle(&mut world, 2);
    toggle(&mut world, 2);
    assert!(count(&world, Counter::CopiesReplayed) >= replayed + 3, "the list again, by number");
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn what_the_replica_lacks_comes_in_full_and_the_session_enters_again() {
    // Room for two stanzas of eight bytes.
    let mut world = linked(2, &[("max_slot_bytes_total", 16)]);
    for n in 2..8 {
        // One after the other, before the replica can say that it has no room.
        join(&mut world, n);
    }
    world.quiet();
    assert!(world.homes[0].shared.counters.get(Counter::SlotsMissing) > 0);
    assert!(count(&world, Counter::SlotsLost) > 0);
    assert_eq!(world.verdict(), Ok(()));
    assert_eq!((state(&world), world.failed), ("linked", 0));
    assert!(kept(&world).1 <= 16, "{:?}", kept(&world));
    world.homes[0].down.clear();
    say(&mut world, 1);
    world.quiet();
    say(&mut world, 1);
    assert_eq!(operations(&world), ["cast"], "everybody is served by the link again");
}

#[test]
fn a_payload_is_recalled_while_it_is_under_way_and_not_kept_for_it() {
    let mut world = linked(6, &[("ack_delay", 60_000), ("ack_every", 1000)]);
    join(&mut world, 6);
    while world.arrive_down(0) {}
    let before = world.recalled;
    join(&mut world, 7);
    let recalled = world.recalled - before;
    assert!(recalled >= 6, "{recalled}: the list of the one before is not acknowledged");
    world.pass(60_000);
    world.quiet();
    let before = world.recalled;
    let ops = join(&mut world, 8);
    assert_eq!(world.recalled, before, "all is acknowledged, nothing is kept");
    assert_eq!(named(&ops, "replay").len(), 1, "but hashes are");
    world.quiet();
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn without_slots_there_are_none() {
    let mut world = linked(3, &[("max_slots", 0)]);
    for n in 3..6 {
        let ops = join(&mut world, n);
        assert!(ops.iter().all(|op| op.attr("slot").is_none() && op.name != "replay"));
        world.quiet();
    }
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn messages_are_limited_by_count_and_the_oldest_goes_first() {
    let mut world = linked(3, &[("max_slot_messages", 2)]);
    for _ in 0..3 {
        say(&mut world, 0);
    }
    world.quiet();
    for n in 3..50 {
        join(&mut world, n);
        say(&mut world, 0);
        world.quiet();
    }
    // 50 presences in two variants at most, two messages, and what waits to be told.
    assert!(kept(&world).0 < 102 + 33, "{:?}", kept(&world));
    assert_eq!(world.verdict(), Ok(()));
}

fn replica(options: &[(&str, u64)]) -> Replica {
    let mut world = World::new(1, &[B], options);
    let mut replica = world.homes[0].replica.take().expect("loaded");
    let join = Facts(Facts::PRESENCE | Facts::NICK | Facts::MUC_X);
    replica.outgoing(Millis(0), &user(0), &format!("{ROOM}/n0"), join);
    let mut link = Element::new("link").with("epoch", "e1").with("stream", "s").with("size", 1);
    for name in ["hold", "ping", "max-bytes"] {
        link = link.with(name, 65536);
    }
    link.children.push(Element::new("enter").with("i", 0).with("jid", user(0)));
    replica.setup(Millis(1), ROOM, &link);
    replica
}

fn only(slot: u64, facts: u32) -> Element<Incoming> {
    let mut only = Element::new("only").with("i", 0).with("slot", slot);
    only.payload = Some(Incoming {
        facts: Facts(facts),
        from: format!("{ROOM}/x"),
        has_to: false,
        packed: Some(slot.to_be_bytes().into()),
    });
    only
}

const OTHER: u32 = Facts::PRESENCE | Facts::NICK;

fn replay(slots: &str) -> Element<Incoming> {
    Element::new("replay").with("i", 0).with("slots", slots)
}

/// What becomes of an envelope with these operations: (stanzas delivered, why it is refused).
fn give(
    replica: &mut Replica,
    seq: u64,
    ops: &[Element<Incoming>],
) -> (usize, Option<&'static str>) {
    let mut envelope = Element::new("envelope").with("epoch", "e1").with("seq", seq);
    envelope.children = ops.to_vec();
    let mut delivered = 0;
    let mut refused = None;
    for action in replica.envelope(Millis(seq), ROOM, "id", &envelope).list {
        match action {
            Action::Deliver { to, .. } => delivered += to.len(),
            Action::Replay { stanzas, to } => delivered += stanzas.len() * to.len(),
            Action::Refuse { dmuc, .. } => refused = Some(dmuc),
            _ => {}
        }
    }
    (delivered, refused)
}

#[test]
fn a_replica_takes_only_slots_that_make_sense() {
    let mut replica = replica(&[]);
    assert_eq!(give(&mut replica, 1, &[only(3, OTHER), replay("3")]), (2, None));
    let bad = [
        vec![only(3, OTHER)],
        vec![only(2, OTHER)],
        vec![only(0, OTHER)],
        vec![only(4, OTHER), only(4, OTHER)],
        vec![only(16 << 32, OTHER)],
        vec![replay("3-4294967300")],
        vec![replay("4294967297")],
        vec![only(4, OTHER | Facts::CODE_110)],
        vec![only(4, OTHER | Facts::UNAVAILABLE)],
        vec![only(4, Facts::MESSAGE | Facts::NICK)],
        vec![only(4, Facts::IQ)],
        vec![replay("4")],
        vec![replay("1-4")],
        vec![replay("4"), only(4, OTHER)],
        vec![Element::new("drop").with("slots", "4")],
        vec![Element::new("replay").with("i", 1).with("slots", "3")],
        vec![replay("")],
    ];
    for ops in bad {
        assert_eq!(give(&mut replica, 2, &ops), (0, Some("malformed")), "{ops:?}");
    }
    let storm: Vec<_> = (0..200_001).map(|_| "3").collect();
    assert_eq!(give(&mut replica, 2, &[replay(&storm.join(" "))]), (0, Some("limit")));
    assert_eq!(give(&mut replica, 2, &[replay("3 3")]), (2, None));
    let other_block = (1 << 32) + 1;
    let ops = [only(other_block, OTHER), replay("4294967297 3"), only(4, OTHER)];
    assert_eq!(give(&mut replica, 3, &ops), (4, None));
}

#[test]
fn an_empty_slot_delivers_nothing_of_its_envelope() {
    let mut replica = replica(&[]);
    assert_eq!(give(&mut replica, 1, &[only(1, OTHER), only(2, OTHER)]), (2, None));
    let drop = Element::new("drop").with("slots", "1");
    assert_eq!(give(&mut replica, 2, &[drop, replay("2")]), (1, None));
    let ops = [only(3, OTHER), replay("1-2")];
    assert_eq!(give(&mut replica, 3, &ops), (0, None), "in the room's order or not at all");
    assert_eq!(give(&mut replica, 4, &[replay("2")]), (0, None), "nor anything later");
}

#[test]
fn a_replica_that_offers_no_slots_takes_none() {
    let mut replica = replica(&[("max_slots", 0)]);
    assert_eq!(give(&mut replica, 1, &[only(1, OTHER)]), (0, Some("malformed")));
}
