//! One test for each rule of section 8 of the protocol that needs a room and its replicas.

mod sim;

use std::collections::BTreeSet;

use dmuc_core::{Config, Counter, Element, Payload};
use sim::World;
use sim::wood::{bodies, chain, fill, grown, levels, overtake, received, say, session, sum, wood};

#[test]
fn the_room_sends_a_message_to_its_children_only() {
    let mut world = grown(1, &[]);
    let before = sum(&world, Counter::CastsRelayed);
    let (near, far) = levels(&mut world);
    assert_eq!((near.len(), far.len()), (2, 4), "as many as the fan-out says");
    assert_eq!(sum(&world, Counter::CastsRelayed) - before, 4);
    assert_eq!(sum(&world, Counter::StrayCasts), 0);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn unless_the_room_wants_trees_nobody_says_a_word_of_them() {
    for grows in [false, true] {
        let mut world = sim::World::new(1, &sim::wood::DOMAINS, &[("retry_min", 1000)]);
        if grows {
            world.grow();
        }
        fill(&mut world);
        say(&mut world, 3);
        for home in 0..world.homes.len() {
            let bodies = bodies(&world, home);
            assert_eq!(bodies.len(), 1);
            assert!(bodies[0].attrs.is_empty(), "{:?}", bodies[0].attrs);
            assert_eq!(bodies[0].children[0].name, "cast");
        }
        world.quiet();
        assert_eq!(sum(&world, Counter::CastsRelayed), 0);
        assert_eq!(world.verdict(), Ok(()));
    }
}

#[test]
fn a_replica_that_offers_nothing_is_served_directly() {
    let mut world = wood(1, &[]);
    world.homes[3].is_older = true;
    fill(&mut world);
    say(&mut world, 2);
    world.quiet();
    say(&mut world, 2);
    let own = bodies(&world, 3);
    assert_eq!((own.len(), own[0].children[0].name.as_str()), (1, "cast"));
    assert!(own[0].attr("nth").is_none());
    world.quiet();
    assert!(sum(&world, Counter::CastsRelayed) > 0);
    assert_eq!(world.homes[3].shared.counters.get(Counter::Malformed), 0);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn who_does_not_relay_has_no_children() {
    let mut world = wood(1, &[]);
    for home in 0..5 {
        let config = &world.homes[home].shared.config;
        config.set(&Config { tree_children: 0, ..config.get() });
    }
    fill(&mut world);
    say(&mut world, 0);
    world.quiet();
    levels(&mut world);
    for home in 0..5 {
        assert_eq!(world.homes[home].shared.counters.get(Counter::CastsRelayed), 0);
    }
    assert!(world.homes[5].shared.counters.get(Counter::CastsRelayed) > 0);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_banned_session_reads_nothing_later_however_fast_the_relay_is() {
    let mut world = grown(1, &[]);
    let (_, far) = levels(&mut world);
    let home = far[0];
    let banned = home as u8;
    let copies = world.muc.kick(&session(banned).1, false);
    world.happen(copies);
    say(&mut world, (banned + 1) % 6);
    overtake(&mut world, home);
    let before = received(&world, banned);
    assert!(world.verdict().is_err(), "the others there wait");
    assert!(world.homes[home].inside.contains(&session(banned).1));
    world.quiet();
    assert!(!world.homes[home].inside.contains(&session(banned).1));
    // His own end, and the leave of nobody after it.
    assert_eq!(received(&world, banned), before + 1);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_demoted_session_sees_no_real_jid_later_however_fast_the_relay_is() {
    let mut world = grown(1, &[]);
    // One at each domain may see real JIDs, and all know it.
    for n in 1..6 {
        let copies = world.muc.toggle(&session(n).1);
        world.happen(copies);
        world.quiet();
    }
    for n in [6, 7, 8, 9] {
        let copies = world.muc.away(&session(n).1);
        world.happen(copies);
        world.quiet();
    }
    let casts = world.shared.counters.get(Counter::TreeCasts);
    let copies = world.muc.away(&session(6).1);
    world.happen(copies);
    assert!(world.shared.counters.get(Counter::TreeCasts) > casts, "they go by the tree");
    world.quiet();
    for home in 1..6u8 {
        let copies = world.muc.toggle(&session(home).1);
        world.happen(copies);
        for n in [6, 7, 8] {
            let copies = world.muc.away(&session(n).1);
            world.happen(copies);
        }
        overtake(&mut world, home.into());
        world.quiet();
        assert_eq!(world.verdict(), Ok(()));
    }
}

#[test]
fn a_last_cast_that_is_withheld_comes_from_the_room() {
    let mut world = grown(1, &[]);
    say(&mut world, 1);
    for home in 0..6 {
        while world.arrive_down(home) {}
    }
    for home in &mut world.homes {
        home.aside.clear();
    }
    assert!(world.verdict().is_err());
    for _ in 0..5 {
        world.settle();
        world.pass(1000);
    }
    world.settle();
    assert!(world.shared.counters.get(Counter::CastsRepaired) > 0);
    assert_eq!(world.verdict(), Ok(()), "before the next probe");
    world.quiet();
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_relay_that_alters_is_complained_of_and_loses_its_children() {
    let mut world = grown(1, &[]);
    let (near, _) = levels(&mut world);
    let hostile = near[0];
    world.homes[hostile].is_hostile = true;
    for n in 0..40 {
        say(&mut world, n % 6);
        for _ in 0..3 {
            world.settle();
            world.pass(500);
        }
    }
    assert!(world.shared.counters.get(Counter::Complaints) > 0);
    let before = world.homes[hostile].shared.counters.get(Counter::CastsRelayed);
    say(&mut world, 0);
    world.quiet();
    assert_eq!(world.verdict(), Ok(()));
    let after = world.homes[hostile].shared.counters.get(Counter::CastsRelayed);
    assert_eq!(after, before, "it has no children any more");
    assert_eq!(sum(&world, Counter::Evicted) + world.failed, 0);
}

#[test]
fn a_relay_is_complained_of_at_once_for_what_the_room_has_not_signed() {
    let mut world = grown(1, &[]);
    let (near, far) = levels(&mut world);
    say(&mut world, 1);
    near.iter().for_each(|home| while world.arrive_down(*home) {});
    let child = far[0];
    let (_, body) = world.homes[child].aside.front_mut().expect("a cast on its way");
    for (name, value) in &mut body.attrs {
        if name == "other" {
            *value = "77".into();
        }
    }
    let before = received(&world, child as u8);
    world.arrive_aside(child, 0);
    assert_eq!(received(&world, child as u8), before);
    assert_eq!(world.homes[child].shared.counters.get(Counter::ForgedCasts), 1);
    while world.arrive_up(child) {}
    assert_eq!(world.shared.counters.get(Counter::Complaints), 1, "and not after three");
    world.quiet();
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn what_is_cast_while_a_link_is_split_waits_there_for_the_next_envelope() {
    // Each has one child, so that the last but one need not hear of what becomes of the last.
    let options = [("tree_fanout", 1), ("ack_timeout", 5000), ("probe_after", 10_000)];
    let mut world = wood(1, &options);
    fill(&mut world);
    let chain = chain(&mut world);
    let last = chain[5];
    let copies = world.muc.whisper(&session(last as u8).1);
    world.happen(copies);
    world.settle();
    world.pass(1000);
    world.settle();
    // No envelope is on its way: only acknowledgements are lost.
    world.sever(last);
    let (speaker, before) = (chain[0] as u8, received(&world, last as u8));
    say(&mut world, speaker);
    world.settle();
    assert_eq!(received(&world, last as u8), before + 1);
    world.pass(1000);
    world.settle();
    world.pass(4000);
    assert_eq!(world.shared.counters.get(Counter::LinksSplit), 1);
    let relayed = |world: &World| world.homes[chain[4]].shared.counters.get(Counter::CastsRelayed);
    let passed_on = relayed(&world);
    say(&mut world, speaker);
    for _ in 0..6 {
        for home in 0..6 {
            while home != chain[4] && world.arrive_down(home) {}
            while world.arrive_aside(home, 0) {}
        }
    }
    assert_eq!(relayed(&world), passed_on + 1);
    assert_eq!(received(&world, last as u8), before + 1, "it waits");
    world.mend(last);
    for _ in 0..4 {
        world.quiet();
    }
    assert_eq!(received(&world, last as u8), before + 2);
    assert_eq!(world.failed, 0);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn nobody_is_listened_to_whom_the_room_has_not_named() {
    let mut world = grown(1, &[]);
    let (near, far) = levels(&mut world);
    say(&mut world, 1);
    while world.arrive_down(near[0]) {}
    let (child, body) = far
        .iter()
        .find_map(|home| Some((*home, world.homes[*home].aside.front()?.1.clone())))
        .expect("a cast on its way");
    world.homes[child].aside.clear();
    world.homes[child].aside.push_back(("stranger.test".into(), body));
    let before = received(&world, child as u8);
    world.arrive_aside(child, 0);
    assert_eq!(received(&world, child as u8), before);
    assert_eq!(world.homes[child].shared.counters.get(Counter::StrayCasts), 1);
    world.quiet();
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_stanza_without_canonical_form_goes_to_each_directly() {
    let mut world = grown(1, &[]);
    world.has_no_form = true;
    say(&mut world, 1);
    for home in 0..6 {
        let bodies = bodies(&world, home);
        assert_eq!((bodies.len(), bodies[0].name.as_str()), (1, "envelope"));
    }
    world.quiet();
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn what_is_cast_while_a_link_is_held_comes_once_whoever_passes_it_on() {
    let mut world = grown(1, &[]);
    let (_, far) = levels(&mut world);
    let home = far[0];
    world.sever(home);
    say(&mut world, 1);
    // A cast that was on its way when the stream broke, and one after the room knows.
    world.pass(60_000);
    for _ in 0..3 {
        say(&mut world, 1);
        for other in (0..6).filter(|other| *other != home) {
            while world.arrive_down(other) {}
            while world.arrive_aside(other, 0) {}
        }
        while world.arrive_aside(home, 0) {}
    }
    world.mend(home);
    for _ in 0..4 {
        world.quiet();
    }
    assert_eq!(world.failed, 0);
    assert_eq!(world.verdict(), Ok(()));
    let (near, far) = levels(&mut world);
    assert_eq!((near.len(), far.len()), (2, 4), "it has a place again");
}

#[test]
fn a_relay_that_knows_nothing_of_a_held_link_does_no_harm() {
    // Each has one child, so that most relays hear of their children later than of casts.
    let mut world = wood(1, &[("tree_fanout", 1)]);
    fill(&mut world);
    let chain = chain(&mut world);
    let (relay, last) = (chain[4], chain[5]);
    world.sever(last);
    let copies = world.muc.whisper(&session(last as u8).1);
    world.happen(copies);
    world.pass(100);
    for speaker in &chain[..3] {
        say(&mut world, *speaker as u8);
        for _ in 0..6 {
            for other in (0..6).filter(|other| *other != last && *other != relay) {
                while world.arrive_down(other) {}
            }
            for home in 0..6 {
                while world.arrive_aside(home, 0) {}
            }
        }
    }
    world.mend(last);
    for _ in 0..4 {
        world.quiet();
    }
    assert_eq!(world.failed, 0);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_relay_whose_link_is_split_passes_nothing_on_to_a_domain_with_nobody_left() {
    let mut world = wood(1, &[("tree_fanout", 1)]);
    fill(&mut world);
    let chain = chain(&mut world);
    let (above, relay, last) = (chain[3], chain[4], chain[5]);
    let copies = world.muc.whisper(&session(relay as u8).1);
    world.happen(copies);
    world.cut(relay);
    for n in [last, last + 6] {
        let (home, name) = session(n as u8);
        world.homes[home].leave(world.now, &name);
        while world.arrive_up(home) {}
    }
    // Neither the relay nor the one above it knows of anything, and the link of the relay ends.
    for wait in [0, 1000, 400_000, 1000] {
        world.pass(wait);
        say(&mut world, chain[0] as u8);
        for _ in 0..6 {
            for home in (0..6).filter(|home| *home != above && *home != relay) {
                while world.arrive_down(home) {}
            }
            for home in 0..6 {
                while world.arrive_aside(home, 0) {}
            }
        }
    }
    for _ in 0..4 {
        world.quiet();
    }
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn who_comes_later_is_not_passed_on_what_was_late() {
    let mut world = wood(1, &[("tree_fanout", 1)]);
    for n in (0..12).filter(|n| n % 6 != 5) {
        let (home, name) = session(n);
        world.homes[home].join(world.now, &name, &format!("n{n}"));
        world.settle();
    }
    world.quiet();
    say(&mut world, 0);
    world.quiet();
    let relay = {
        say(&mut world, 0);
        let mut last = (0..5).find(|home| !world.homes[*home].down.is_empty()).expect("a child");
        world.arrive_down(last);
        while let Some(next) = (0..5).find(|home| !world.homes[*home].aside.is_empty()) {
            world.arrive_aside(next, 0);
            last = next;
        }
        last
    };
    world.quiet();
    // Its own domain gets something in place of the first.
    for _ in 0..2 {
        let copies = world.muc.away(&session(relay as u8).1);
        world.happen(copies);
    }
    while let Some(home) = (0..5).find(|home| !world.homes[*home].down.is_empty()) {
        while world.arrive_down(home) {}
        for home in (0..5).filter(|home| *home != relay) {
            while world.arrive_aside(home, 0) {}
        }
    }
    let late = std::mem::take(&mut world.homes[relay].aside);
    assert_eq!(late.len(), 2);
    for n in [5, 11] {
        let (home, name) = session(n);
        world.homes[home].join(world.now, &name, &format!("n{n}"));
        world.settle();
    }
    world.quiet();
    world.homes[relay].aside.extend(late);
    while world.arrive_aside(relay, 0) {}
    say(&mut world, 0);
    world.settle();
    assert!(
        world.homes[relay].shared.counters.get(Counter::CastsRelayed) > 0,
        "its child has come"
    );
    world.quiet();
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_domain_with_nobody_left_gets_nothing_and_costs_nobody_the_tree() {
    let mut world = grown(1, &[]);
    let (near, far) = levels(&mut world);
    for n in [far[0], far[0] + 6] {
        let (home, name) = session(n as u8);
        world.homes[home].leave(world.now, &name);
        world.settle();
    }
    // Whoever had it for a child has said at once that he has not any more.
    let detours = world.shared.counters.get(Counter::TreeDetours);
    let copies = sum(&world, Counter::CastsRelayed);
    say(&mut world, near[0] as u8);
    world.settle();
    assert_eq!(sum(&world, Counter::CastsRelayed) - copies, 3);
    let counters = &world.shared.counters;
    assert_eq!(counters.get(Counter::TreeDetours), detours);
    assert_eq!(counters.get(Counter::LinksDown), 0, "its link is still there");
    // And it may come back.
    for n in [far[0], far[0] + 6] {
        let (home, name) = session(n as u8);
        world.homes[home].join(world.now, &name, &format!("n{n}"));
        world.settle();
    }
    say(&mut world, near[0] as u8);
    world.quiet();
    assert_eq!(world.verdict(), Ok(()));
    assert_eq!(levels(&mut world).1.len(), 4);
}

#[test]
fn a_domain_with_nobody_left_is_not_told_of_what_it_is_not_to_have() {
    let mut world = grown(1, &[("probe_after", 60_000)]);
    let (near, far) = levels(&mut world);
    let left = far[0];
    say(&mut world, near[0] as u8);
    for n in [left, left + 6] {
        let (home, name) = session(n as u8);
        world.homes[home].leave(world.now, &name);
        world.arrive_up(home);
    }
    // What it had before is not acknowledged, and others go on.
    for _ in 0..50 {
        say(&mut world, near[0] as u8);
        for home in (0..6).filter(|home| *home != left) {
            while world.arrive_up(home) {}
            while world.arrive_down(home) {}
            while world.arrive_aside(home, 0) {}
        }
        world.pass(100);
    }
    let told = bodies(&world, left).iter().filter(|body| body.name == "newest").count();
    assert!(told > 0);
    while world.arrive_down(left) || world.arrive_aside(left, 0) {}
    world.pass(1000);
    assert_eq!(world.homes[left].shared.counters.get(Counter::CastsMissed), 0);
    world.quiet();
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_child_of_a_slow_relay_gets_a_faster_one() {
    let mut world = grown(1, &[]);
    let (near, _) = levels(&mut world);
    let slow = near[0];
    // A message by relays, and who gets it from whom.
    let children = |world: &mut World| {
        say(world, slow as u8);
        near.iter().for_each(|home| while world.arrive_down(*home) {});
        let from = |home: usize| {
            let relay = &world.homes[home].aside.front()?.0;
            near.iter().position(|near| sim::wood::DOMAINS[*near] == relay)
        };
        let all: Vec<Option<usize>> = (0..6).map(from).collect();
        world.quiet();
        [0, 1].map(|near| (0..6).filter(|home| all[*home] == Some(near)).collect::<Vec<_>>())
    };
    let [_, of_fast] = children(&mut world);
    assert_eq!(of_fast.len(), 2);
    for n in [of_fast[0], of_fast[0] + 6] {
        let (home, name) = session(n as u8);
        world.homes[home].leave(world.now, &name);
        world.settle();
    }
    world.quiet();
    assert_eq!(children(&mut world).map(|children| children.len()), [2, 1]);
    for _ in 0..400 {
        let late = world.homes[slow].down.len();
        world.pass(500);
        (0..late).for_each(|_| _ = world.arrive_down(slow));
        for home in 0..6 {
            while home != slow && world.arrive_down(home) {}
            while world.arrive_up(home) {}
            while world.arrive_aside(home, 0) {}
        }
    }
    assert_eq!(children(&mut world).map(|children| children.len()), [1, 2]);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_relay_that_withholds_three_times_is_complained_of_and_loses_that_child() {
    let mut world = grown(1, &[]);
    let (near, far) = levels(&mut world);
    let child = far[0];
    let mut parents = Vec::new();
    for round in 1..5 {
        say(&mut world, near[0] as u8);
        near.iter().for_each(|home| while world.arrive_down(*home) {});
        let aside = std::mem::take(&mut world.homes[child].aside);
        parents.push(aside.front().map(|(relay, _)| relay.clone()));
        world.pass(3000);
        while world.arrive_down(child) {}
        world.pass(200);
        while world.arrive_up(child) {}
        while world.arrive_down(child) {}
        let complaints = world.shared.counters.get(Counter::Complaints);
        assert_eq!(complaints, u64::from(round >= 3), "after {round} times");
        world.settle();
    }
    assert_eq!(parents[0], parents[2]);
    assert_ne!(parents[0], parents[3]);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn who_waits_long_for_an_answer_does_not_complain_of_its_parent() {
    let mut world = grown(1, &[]);
    let (near, far) = levels(&mut world);
    let child = far[0];
    say(&mut world, near[0] as u8);
    near.iter().for_each(|home| while world.arrive_down(*home) {});
    world.homes[child].aside.clear();
    world.pass(3000);
    while world.arrive_down(child) {}
    // It asks again and again, and no word of it arrives.
    for _ in 0..20 {
        world.pass(500);
    }
    let asked = world.homes[child].shared.counters.get(Counter::CastsMissed);
    assert!(asked > 3, "asked {asked} times");
    world.settle();
    world.quiet();
    assert_eq!(world.shared.counters.get(Counter::Complaints), 0);
    assert_eq!(world.verdict(), Ok(()));
}

/// Name and key of the stream, as the replicas are told.
fn streams(world: &World) -> BTreeSet<(String, String)> {
    let attr = |op: &Element<Payload>, name| op.attr(name).expect("an attribute").to_owned();
    let bodies = (0..6).flat_map(|home| bodies(world, home));
    let ops = bodies.flat_map(|body| &body.children).filter(|op| op.name == "stream");
    ops.map(|op| (attr(op, "name"), attr(op, "key"))).collect()
}

/// Lets a room of which everybody is in come to a new stream. How many have been told of it.
fn renewed(world: &mut World) -> BTreeSet<(String, String)> {
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        seen.extend(streams(world));
        for home in 0..6 {
            while world.arrive_down(home) {}
            while world.arrive_up(home) {
                seen.extend(streams(world));
            }
        }
        while (0..6).any(|home| world.arrive_aside(home, 0)) {}
    }
    seen
}

#[test]
fn a_stream_that_is_old_or_long_makes_way_for_another_with_another_key() {
    for (after, casts) in [(3_600_000, 1_000_000), (86_400_000, 40)] {
        let mut world = wood(1, &[("tree_key_age", after), ("tree_key_casts", casts)]);
        for n in 0..12 {
            let (home, name) = session(n);
            world.homes[home].join(world.now, &name, &format!("n{n}"));
        }
        let first = renewed(&mut world);
        assert_eq!(first.len(), 1);
        world.quiet();
        let (near, far) = levels(&mut world);
        assert_eq!((near.len(), far.len()), (2, 4));
        let mut seen = BTreeSet::new();
        let mut said = 0;
        while seen.is_empty() && said < 100 {
            if casts < 1_000_000 {
                say(&mut world, 0);
                said += 1;
            } else {
                world.pass(60_000);
                said += 1;
            }
            seen = renewed(&mut world);
        }
        assert_eq!(seen.len(), 1, "the same for everybody, and at once");
        for (former, new) in first.iter().zip(&seen) {
            assert!(former.0 != new.0 && former.1 != new.1);
        }
        assert!(said > 20, "{said}");
        world.pass(100);
        let (near, far) = levels(&mut world);
        assert_eq!((near.len(), far.len()), (2, 4), "by the tree again");
        world.quiet();
        let counters = &world.shared.counters;
        assert_eq!(counters.get(Counter::LinksSplit) + counters.get(Counter::LinksDown), 0);
        assert_eq!(sum(&world, Counter::Gaps) + sum(&world, Counter::Malformed), 0);
        assert_eq!(world.verdict(), Ok(()));
    }
}

#[test]
fn what_waits_behind_the_end_of_a_stream_is_not_lost() {
    let mut world = wood(1, &[("tree_key_casts", 40)]);
    fill(&mut world);
    let (_, far) = levels(&mut world);
    let slow = far[0];
    let mut said = 0;
    // What comes from its parent is late, also when the room has another stream.
    while streams(&world).is_empty() && said < 100 {
        say(&mut world, (slow as u8 + 1) % 6);
        said += 1;
        for home in 0..6 {
            while world.arrive_down(home) {}
            while world.arrive_up(home) {}
            while home != slow && world.arrive_aside(home, 0) {}
        }
    }
    assert!((5..100).contains(&said));
    for _ in 0..3 {
        let copies = world.muc.whisper(&session(slow as u8).1);
        world.happen(copies);
        while world.arrive_down(slow) {}
    }
    world.quiet();
    assert_eq!(world.shared.counters.get(Counter::LinksSplit), 0);
    assert_eq!(sum(&world, Counter::Gaps) + sum(&world, Counter::Malformed), 0);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_relay_that_dies_takes_nobody_with_it() {
    let mut world = grown(1, &[]);
    let (near, _) = levels(&mut world);
    let dead = near[0];
    let users: Vec<String> = [dead, dead + 6].map(|n| session(n as u8).1).into();
    world.homes[dead].crash(&users);
    for n in (0..6).filter(|n| *n != dead as u8) {
        say(&mut world, n);
        world.pass(100);
        world.settle();
    }
    for _ in 0..4 {
        world.quiet();
    }
    let others = world.homes.iter().filter(|home| home.name != sim::wood::DOMAINS[dead]);
    assert_eq!(others.map(|home| home.evicted.len()).sum::<usize>(), 0);
    assert_eq!(world.verdict(), Ok(()));
    let (near, far) = levels(&mut world);
    assert_eq!((near.len(), far.len()), (2, 4), "who is gone has no place");
}

#[test]
fn a_room_that_shrinks_goes_back_to_one_level() {
    let mut world = wood(1, &[("tree_domains", 5)]);
    if let Some(room) = &mut world.primary {
        room.may_show_domains(true);
    }
    fill(&mut world);
    say(&mut world, 0);
    world.quiet();
    let (near, far) = levels(&mut world);
    assert_eq!((near.len(), far.len()), (2, 4));
    for n in [5, 11, 4, 10, 3, 9] {
        let (home, name) = session(n);
        world.homes[home].leave(world.now, &name);
        world.settle();
    }
    for _ in 0..10 {
        world.quiet();
    }
    let linked: BTreeSet<usize> = (0..3).collect();
    assert_eq!(levels(&mut world).0.len(), 2, "three are not less than half of five");
    for n in [2, 8] {
        let (home, name) = session(n);
        world.homes[home].leave(world.now, &name);
        world.settle();
    }
    for _ in 0..10 {
        world.quiet();
    }
    say(&mut world, 0);
    for home in linked.into_iter().filter(|home| *home != 2) {
        let bodies = bodies(&world, home);
        assert_eq!(bodies[0].children[0].name, "cast");
        assert!(bodies[0].attr("nth").is_none(), "{:?}", bodies[0].attrs);
    }
    world.quiet();
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn without_the_owners_word_nobody_learns_of_other_domains() {
    let mut world = wood(1, &[("tree_domains", 2)]);
    fill(&mut world);
    let (near, far) = levels(&mut world);
    assert_eq!((near.len(), far.len()), (6, 0));
}

#[test]
fn a_replica_that_is_gone_is_noticed_though_nobody_speaks() {
    for is_told in [true, false] {
        let mut world = grown(1, &[("ping_interval", 20_000)]);
        let pass = |world: &mut sim::World, seconds: u64, is_lost: bool| {
            for _ in 0..seconds {
                world.pass(1000);
                if is_lost {
                    world.homes[2].down.clear();
                }
                world.settle();
            }
        };
        if is_told {
            world.sever(2);
        }
        pass(&mut world, 60, !is_told);
        assert_eq!(world.shared.counters.get(Counter::LinksSplit), 1);
        world.mend(2);
        pass(&mut world, 60, false);
        assert_eq!(world.shared.counters.get(Counter::LinksResumed), 1);
        assert_eq!(world.shared.counters.get(Counter::LinksSplit), 1, "all others have answered");
        assert_eq!(world.verdict(), Ok(()));
    }
}
