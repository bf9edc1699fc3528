//! One test for each rule of section 8 of the protocol that needs a room and its replicas.

mod sim;

use std::collections::BTreeSet;

use dmuc_core::Counter;
use dmuc_core::tree::{Mode, TreeOptions};
use sim::wood::{FORCED, bodies, fill, grown, levels, overtake, received, say, session, sum, wood};

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
fn without_options_nobody_says_a_word_of_trees() {
    for options in [None, Some(TreeOptions::default())] {
        let mut world = sim::World::new(1, &sim::wood::DOMAINS, &[("retry_min", 1000)]);
        if let Some(options) = options {
            world.grow(options);
        }
        for n in 0..12 {
            let (home, name) = session(n);
            world.homes[home].join(world.now, &name, &format!("n{n}"));
            world.settle();
            for home in 0..world.homes.len() {
                world.pass(100);
                let is_tree = |name: &str| ["nth", "trees", "after"].contains(&name);
                for up in &world.homes[home].up {
                    if let sim::Up::Result { body: Some(body), .. } = up {
                        assert!(!body.attrs.iter().any(|(name, _)| is_tree(name)));
                    }
                }
            }
        }
        world.quiet();
        say(&mut world, 3);
        for home in 0..world.homes.len() {
            let bodies = bodies(&world, home);
            assert_eq!(bodies.len(), 1);
            assert_eq!(bodies[0].attrs.len(), 2, "{:?}", bodies[0].attrs);
            assert_eq!(bodies[0].children[0].name, "cast");
        }
        world.quiet();
        assert_eq!(sum(&world, Counter::CastsRelayed), 0);
        assert_eq!(world.verdict(), Ok(()));
    }
}

#[test]
fn a_replica_that_offers_nothing_is_served_directly() {
    let mut world = wood(1, FORCED, &[]);
    world.homes[3].replica =
        Some(dmuc_core::Replica::new(sim::wood::DOMAINS[3], 9, world.homes[3].shared.clone()));
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
    let mut world = wood(1, FORCED, &[]);
    for home in 0..5 {
        world.homes[home].grow(TreeOptions { relay: false, ..FORCED });
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
    let mut world = wood(1, TreeOptions { fanout: 1, ..FORCED }, &[]);
    fill(&mut world);
    say(&mut world, 0);
    world.quiet();
    say(&mut world, 0);
    let mut chain: Vec<usize> = (0..6).filter(|home| !world.homes[*home].down.is_empty()).collect();
    world.arrive_down(chain[0]);
    while let Some(next) = (0..6).find(|home| !world.homes[*home].aside.is_empty()) {
        world.arrive_aside(next, 0);
        chain.push(next);
    }
    assert_eq!(chain.len(), 6);
    world.quiet();
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
    let mut world = wood(1, TreeOptions { mode: Mode::From(5), ..FORCED }, &[]);
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
    let mut world = wood(1, TreeOptions { mode: Mode::From(2), ..FORCED }, &[]);
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
