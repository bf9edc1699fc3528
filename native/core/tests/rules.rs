//! One test for each rule of the protocol that the law alone would not name.

mod sim;

use dmuc_core::{
    Action, Bounce, Config, Counter, Element, Facts, Incoming, Millis, Replica, Room, Shared,
};
use sim::scene::{
    B, away_thrice, carriers, count, linked, operations, received, say, state, user, world,
};
use sim::{Down, ROOM, Up, World};

#[test]
fn one_occupant_is_served_plainly() {
    let mut world = world(&[]);
    world.homes[0].join(world.now, &user(0), "n0");
    world.quiet();
    say(&mut world, 0);
    assert!(matches!(world.homes[0].down[0], Down::Plain { .. }));
    assert_eq!(count(&world, Counter::LinksUp), 0);
}

#[test]
fn a_broadcast_is_one_cast_and_a_presence_one_for_each_class() {
    let mut world = linked(6, &[]);
    say(&mut world, 3);
    assert_eq!(operations(&world), ["cast"]);
    world.quiet();
    // The first occupant is a moderator; another becomes one, and after two presences both are known.
    away_thrice(&mut world, 5);
    let copies = world.muc.toggle(&user(1));
    world.happen(copies);
    world.quiet();
    away_thrice(&mut world, 5);
    let copies = world.muc.away(&user(4));
    world.happen(copies);
    let operations = operations(&world);
    assert!(operations.len() <= 3 && operations.iter().all(|op| op != "class"), "{operations:?}");
    world.quiet();
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_full_variant_crosses_only_to_a_domain_with_an_occupant_entitled_to_it() {
    let mut world = World::new(7, &["mod.test", B], &[("retry_min", 1000)]);
    let moderator = "m@mod.test/r";
    world.homes[0].join(world.now, moderator, "m");
    world.quiet();
    for n in 0..4 {
        world.homes[1].join(world.now, &user(n), &format!("n{n}"));
        world.quiet();
    }
    let copies = world.muc.away(&user(2));
    world.happen(copies);
    let told = |world: &World, home: usize| {
        world.homes[home].down.iter().any(|down| match down {
            Down::Envelope { body, .. } => body.children.iter().any(|op| {
                op.payload.as_ref().is_some_and(|p| {
                    let facts = p.facts().0;
                    facts & Facts::ITEM_JID != 0 && facts & Facts::CODE_110 == 0
                })
            }),
            _ => false,
        })
    };
    assert!(!told(&world, 1), "nobody at b.test may see real JIDs");
    world.quiet();
    let copies = world.muc.toggle(&user(0));
    world.happen(copies);
    world.quiet();
    let copies = world.muc.away(&user(2));
    world.happen(copies);
    assert!(told(&world, 1), "now one may");
    world.quiet();
    let copies = world.muc.toggle(&user(0));
    world.happen(copies);
    world.quiet();
    let copies = world.muc.away(&user(2));
    world.happen(copies);
    assert!(!told(&world, 1), "and now no more");
}

#[test]
fn acknowledgements_are_few_and_prompt() {
    let mut world = linked(3, &[("ack_every", 10), ("ack_delay", 2000)]);
    for _ in 0..25 {
        say(&mut world, 0);
    }
    while world.arrive_down(0) {}
    let reports =
        |world: &World| world.homes[0].up.iter().filter(|up| matches!(up, Up::Dmuc { .. })).count();
    assert_eq!(reports(&world), 2, "one for each ten");
    world.pass(2000);
    assert_eq!(reports(&world), 3, "and the rest after the delay");
    world.quiet();
    assert_eq!(world.primary.as_ref().expect("loaded").status()[0].unacked, 0);
}

#[test]
fn a_refused_envelope_comes_plainly_and_in_order_and_what_was_handled_does_not() {
    let mut world = linked(3, &[]);
    say(&mut world, 0);
    world.arrive_down(0);
    // The module goes without a word: envelopes bounce from here on.
    world.homes[0].replica = None;
    for _ in 0..3 {
        say(&mut world, 1);
    }
    while world.arrive_down(0) {}
    assert_eq!(state(&world), "linked");
    world.arrive_up(0);
    assert_eq!(state(&world), "split");
    say(&mut world, 2);
    assert_eq!(carriers(&world), ["resume"], "nothing else goes out while fates are open");
    world.quiet();
    // The first was delivered, but nobody is left to say so: its fate is unknown, all three fail.
    assert_eq!(count(&world, Counter::EnvelopesRefused), 3);
    assert_eq!(world.failed, 3);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_bye_decides_every_fate_and_nobody_fails() {
    let mut world = linked(3, &[]);
    say(&mut world, 0);
    world.arrive_down(0);
    say(&mut world, 1);
    world.homes[0].unload(world.now);
    say(&mut world, 2);
    world.quiet();
    assert_eq!(world.failed, 0);
    assert_eq!(world.verdict(), Ok(()));
    assert_eq!(state(&world), "plain");
    world.homes[0].load(world.now);
    world.quiet();
    assert_eq!(state(&world), "linked", "an announcement does not wait for the back-off");
}

#[test]
fn a_session_that_the_room_does_not_remove_is_served_plainly_in_the_end() {
    let mut world = linked(2, &[("retry_min", 3_600_000), ("hold_time", 0)]);
    let room = world.primary.as_mut().expect("loaded");
    let now = world.now;
    // The host is told of a failure and does nothing about it.
    let payload = dmuc_core::PayloadIn::New {
        bytes: b"<message/>".to_vec(),
        facts: Facts(0),
        nick: String::new(),
        digest: 1,
    };
    let (to, other) = (user(0), user(1));
    let sent = room.event(now, vec![payload], &[(&to, 0)]);
    let Some(Action::Envelope { id, .. }) = sent.list.first() else { panic!("{sent:?}") };
    room.bounced(now, B, id, Bounce::Unknown);
    let done = room.tick(now);
    assert!(
        done.list.iter().any(|a| matches!(a, Action::Fail { to } if *to[0] == *user(0))),
        "{done:?}"
    );
    use dmuc_core::Verdict::{Hold, Pass};
    assert_eq!(room.capture(now + 1, &to, Facts(0)), Hold, "it gets nothing");
    assert_eq!(room.capture(now + 1, &other, Facts(0)), Pass);
    room.tick(now + 30_000);
    assert_eq!(room.capture(now + 30_001, &to, Facts(0)), Pass);
}

#[test]
fn a_session_without_consent_is_refused_and_served_plainly_from_that_number_on() {
    let mut world = linked(3, &[]);
    // The server has no record of this session, as after a crash.
    let lost = user(1);
    world.homes[0].replica.as_mut().expect("loaded").import_consent(world.now, ROOM, &lost, None);
    for _ in 0..3 {
        say(&mut world, 0);
    }
    world.quiet();
    assert_eq!(count(&world, Counter::OccupantsRefused), 1);
    assert_eq!(world.verdict(), Ok(()));
    say(&mut world, 0);
    let plain = world.homes[0].down.iter().filter(|d| matches!(d, Down::Plain { .. })).count();
    assert_eq!((plain, operations(&world).len()), (1, 1));
}

#[test]
fn a_refusal_whose_report_was_lost_is_told_again() {
    let mut world = linked(3, &[]);
    let replica = world.homes[0].replica.as_mut().expect("loaded");
    replica.import_consent(world.now, ROOM, &user(1), None);
    say(&mut world, 0);
    world.arrive_down(0);
    let lost = world.homes[0].up.pop_front();
    assert!(matches!(lost, Some(Up::Dmuc { .. })), "{lost:?}");
    say(&mut world, 2);
    world.quiet();
    assert_eq!(world.verdict(), Ok(()));
    assert_eq!(count(&world, Counter::OccupantsRefused), 1, "and acted on once");
    say(&mut world, 0);
    world.quiet();
    say(&mut world, 0);
    world.quiet();
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn who_joined_while_the_replica_was_away_gets_nothing_that_the_room_has_not_sent() {
    let mut world = linked(3, &[("retry_min", 1000)]);
    let now = world.now;
    world.homes[0].leave(now, &user(2));
    world.quiet();
    world.homes[0].unload(now);
    world.quiet();
    // The replica has no record of this stay, though the link has served this session before.
    world.homes[0].join(now, &user(2), "n2");
    world.quiet();
    world.homes[0].load(now);
    world.pass(60_000);
    world.settle();
    assert_eq!(state(&world), "linked");
    say(&mut world, 0);
    world.quiet();
    assert_eq!(count(&world, Counter::OccupantsRefused), 1);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_dead_link_is_probed_and_given_up() {
    let times = [("probe_after", 5000), ("ack_timeout", 30_000), ("hold_time", 30_000)];
    let mut world = linked(2, &times);
    say(&mut world, 0);
    // It vanishes: no error, no acknowledgement.
    world.homes[0].down.clear();
    world.pass(5000);
    assert_eq!(world.homes[0].down.len(), 1, "a probe");
    for _ in 0..60 {
        world.homes[0].down.clear();
        world.pass(1000);
    }
    assert_eq!(world.failed, 2);
    assert!(world.muc.sessions().is_empty());
    assert_eq!(count(&world, Counter::LinksDown), 1);
}

#[test]
fn waiting_times_double_up_to_the_longest() {
    let config = Config::from_pairs(&[("retry_min", 1000), ("retry_max", 8000)]).expect("options");
    let mut room = Room::new(ROOM, 1, Shared::new(config)).expect("a room");
    let mut now = Millis(0);
    for n in 0..2 {
        room.capture(now, &user(n), Facts(Facts::PRESENCE | Facts::NICK));
    }
    room.event(now, vec![], &[]);
    // The domain is believed to speak dmuc, and does not answer to it.
    let mut tries = Vec::new();
    for _ in 0..6 {
        let set_up = room.support(now, B, true);
        let Some(Action::Setup { id, .. }) = set_up.list.first() else { panic!("{set_up:?}") };
        let began = now;
        let failed = room.setup_result(now, B, id, None);
        assert!(failed.list.iter().any(|a| matches!(a, Action::ForgetSupport { .. })));
        while !room.tick(now).list.iter().any(|a| matches!(a, Action::AskSupport { .. })) {
            now = now + 100;
            assert!(now.since(began) < 20_000);
        }
        tries.push(now.since(began));
    }
    for (n, waited) in tries.iter().enumerate() {
        let whole = (1000u64 << n).min(8000);
        assert!((whole * 9 / 10..=whole + 100).contains(waited), "{tries:?}");
    }
}

#[test]
fn a_full_buffer_ends_the_link() {
    let mut world = linked(4, &[("max_unacked_copies", 1000)]);
    for _ in 0..300 {
        say(&mut world, 0);
        // Nothing is ever acknowledged.
        world.homes[0].down.retain(|down| matches!(down, Down::Plain { .. }));
    }
    assert_eq!(count(&world, Counter::BufferFull), 1);
    assert_eq!(world.failed, 4);
}

#[test]
fn a_link_that_is_split_ends_for_its_full_buffer_by_name() {
    let mut world = linked(4, &[("max_unacked_copies", 1000), ("retry_min", 60_000)]);
    say(&mut world, 0);
    world.cut(0);
    assert_eq!(state(&world), "split");
    for _ in 0..300 {
        say(&mut world, 0);
    }
    assert_eq!((count(&world, Counter::BufferFull), world.failed), (1, 4));
    for n in 0..2 {
        world.homes[0].join(world.now, &user(n), &format!("n{n}"));
    }
    while world.arrive_up(0) {}
    let status = &world.primary.as_ref().expect("loaded").status()[0];
    assert_eq!((status.state, status.reason), ("plain", "the buffer of the link is full"));
}

#[test]
fn when_too_much_waits_on_a_host_the_links_to_blame_end() {
    let mut world = linked(4, &[("max_unacked_bytes_total", 1 << 20)]);
    let mut said = 0;
    while count(&world, Counter::BufferFull) == 0 {
        say(&mut world, 0);
        world.homes[0].down.retain(|down| matches!(down, Down::Plain { .. }));
        said += 1;
        assert!(world.shared.waiting() <= (1 << 20) + 4096, "{}", world.shared.waiting());
    }
    assert!(said > 1000, "{said}");
    assert_eq!((world.failed, world.shared.waiting()), (4, 0));
}

#[test]
fn occupants_of_an_old_epoch_who_are_not_in_the_new_one_are_told() {
    let mut world = linked(4, &[]);
    // The primary's server dies and forgets everything but that two of them are still inside.
    world.primary = None;
    for n in [1, 3] {
        world.muc.kick(&user(n), true);
    }
    // One of these two is on his way in again.
    world.homes[0].join(world.now, &user(3), "n3");
    world.load_primary();
    while world.arrive_down(0) {}
    assert_eq!(world.homes[0].evicted, [user(1)]);
    world.quiet();
    assert_eq!(state(&world), "linked");
}

#[test]
fn a_set_up_that_follows_at_once_forgets_nobody() {
    let mut replica = replica(&[]);
    let join = Facts(Facts::PRESENCE | Facts::NICK | Facts::MUC_X);
    let yes = Facts(Facts::PRESENCE | Facts::NICK | Facts::CODE_110);
    replica.outgoing(Millis(0), &user(1), &format!("{ROOM}/n1"), join);
    for n in [0, 1] {
        replica.incoming(Millis(0), &user(n), &format!("{ROOM}/n{n}"), yes);
    }
    replica.setup(Millis(1), ROOM, &link("e1", &[user(0), user(1)]));
    // This one has not named all of its audience when the next comes.
    let mut open = link("e2", &[user(0)]);
    open.attrs.iter_mut().find(|(name, _)| name == "size").expect("size").1 = "2".into();
    let evicted = |actions: dmuc_core::Actions| {
        let evict =
            |a: &Action| matches!(a, Action::Evict { session, .. } if **session == *user(1));
        actions.list.iter().any(evict)
    };
    assert!(!evicted(replica.setup(Millis(2), ROOM, &open)));
    assert!(evicted(replica.setup(Millis(3), ROOM, &link("e3", &[user(0)]))));
}

#[test]
fn a_doubt_about_one_stay_does_not_end_the_next() {
    let mut replica = replica(&[]);
    let (user0, nick) = (user(0), format!("{ROOM}/n0"));
    let join = Facts(Facts::PRESENCE | Facts::NICK | Facts::MUC_X);
    let welcome = Facts(Facts::PRESENCE | Facts::NICK | Facts::CODE_110);
    let is_out = |actions: &dmuc_core::Actions, n| {
        let mut out = actions.list.iter();
        out.any(|a| matches!(a, Action::Evict { session, .. } if **session == *user(n)))
    };
    replica.outgoing(Millis(0), &user(1), &format!("{ROOM}/n1"), join);
    replica.setup(Millis(1), ROOM, &link("e1", &[user(0), user(1)]));
    replica.incoming(Millis(2), &user0, &nick, welcome);
    // Presences of both are under way when their link is gone: there may be an answer.
    replica.outgoing(Millis(3), &user0, &nick, join);
    let doubted = replica.setup(Millis(4), ROOM, &link("e2", &[user(1)]));
    assert!(!is_out(&doubted, 0));
    let doubted = replica.setup(Millis(4), ROOM, &link("e3", &[user(0)]));
    assert!(!is_out(&doubted, 1));
    // For the one there is, then he is out in the next epoch, and in again.
    replica.incoming(Millis(5), &user0, &nick, welcome);
    let out = replica.setup(Millis(6), ROOM, &link("e4", &[user(1)]));
    assert!(is_out(&out, 0));
    replica.outgoing(Millis(7), &user0, &nick, join);
    replica.incoming(Millis(8), &user0, &nick, welcome);
    let resolved = replica.tick(Millis(61_000));
    assert!(!is_out(&resolved, 0), "that was another stay");
    assert!(is_out(&resolved, 1), "nobody has answered him");
}

/// Who is loaded next has only the records, and does not take anybody for an occupant by them.
#[test]
fn whoever_is_in_doubt_is_told_before_the_module_is_unloaded() {
    let mut replica = replica(&[]);
    let (join, welcome) = (
        Facts(Facts::PRESENCE | Facts::NICK | Facts::MUC_X),
        Facts(Facts::PRESENCE | Facts::NICK | Facts::CODE_110),
    );
    replica.incoming(Millis(1), &user(0), &format!("{ROOM}/n0"), welcome);
    replica.outgoing(Millis(1), &user(1), &format!("{ROOM}/n1"), join);
    replica.incoming(Millis(1), &user(1), &format!("{ROOM}/n1"), welcome);
    replica.setup(Millis(2), ROOM, &link("e1", &[user(0), user(1)]));
    // The room's server is another now, and has lost a presence on its way.
    replica.outgoing(Millis(3), &user(0), &format!("{ROOM}/n0"), join);
    replica.setup(Millis(4), ROOM, &link("e2", &[user(1)]));
    let told = |replica: &mut Replica, now| {
        let actions = replica.close(Millis(now)).list;
        let out = actions.iter().filter_map(|action| match action {
            Action::Evict { session, .. } => Some(("out", session.to_string())),
            Action::Depart { session, .. } => Some(("leave", session.to_string())),
            _ => None,
        });
        out.collect::<Vec<_>>()
    };
    assert_eq!(told(&mut replica, 5), [("out", user(0)), ("leave", user(0))]);
    assert_eq!(replica.consents().len(), 1);
}

/// Its server may have answered for a day that it does not speak dmuc, before it did.
#[test]
fn a_service_whose_rooms_stay_plain_is_told_once() {
    let mut replica = replica(&[]);
    let welcome = Facts(Facts::PRESENCE | Facts::NICK | Facts::CODE_110);
    let join = Facts(Facts::PRESENCE | Facts::NICK | Facts::MUC_X);
    let told = |replica: &mut Replica, now| {
        let actions = replica.tick(Millis(now)).list;
        let rooms = actions.iter().filter_map(|action| match action {
            Action::Announce { room } => Some(room.to_string()),
            _ => None,
        });
        rooms.collect::<Vec<_>>()
    };
    // Nobody has asked for this.
    replica.incoming(Millis(0), &user(1), "other@elsewhere.test/n1", welcome);
    replica.incoming(Millis(1), &user(0), &format!("{ROOM}/n0"), welcome);
    assert_eq!(told(&mut replica, 10_000), [""; 0]);
    assert_eq!(told(&mut replica, 10_001), [ROOM]);
    let second = ROOM.replace("room", "second");
    replica.outgoing(Millis(11_000), &user(0), &format!("{second}/n0"), join);
    replica.incoming(Millis(11_000), &user(0), &format!("{second}/n0"), welcome);
    assert_eq!(told(&mut replica, 30_000), [""; 0]);
}

#[test]
fn a_service_with_a_link_is_not_told() {
    let mut replica = replica(&[]);
    let welcome = Facts(Facts::PRESENCE | Facts::NICK | Facts::CODE_110);
    replica.incoming(Millis(1), &user(0), &format!("{ROOM}/n0"), welcome);
    replica.setup(Millis(2), ROOM, &link("e1", &[user(0)]));
    let announces = |action: &Action| matches!(action, Action::Announce { .. });
    assert!(!replica.tick(Millis(10_001)).list.iter().any(announces));
}

/// A replica by itself, with one member, and a hostile primary.
fn replica(options: &[(&str, u64)]) -> Replica {
    let shared = Shared::new(Config::from_pairs(options).expect("options"));
    let mut replica = Replica::new(B, 1, shared);
    let join = Facts(Facts::PRESENCE | Facts::NICK | Facts::MUC_X);
    replica.outgoing(Millis(0), &user(0), &format!("{ROOM}/n0"), join);
    replica
}

fn link(epoch: &str, sessions: &[String]) -> Element<Incoming> {
    let mut link = Element::new("link")
        .with("epoch", epoch)
        .with("stream", "s")
        .with("size", sessions.len())
        .with("hold", 1)
        .with("ping", 1)
        .with("max-bytes", 65536);
    for (index, jid) in sessions.iter().enumerate() {
        link.children.push(Element::new("enter").with("i", index).with("jid", jid));
    }
    link
}

fn cast(seq: u64) -> Element<Incoming> {
    let mut cast = Element::new("cast").with("n", 1);
    cast.payload =
        Some(Incoming { facts: Facts(0), from: format!("{ROOM}/x"), has_to: false, packed: None });
    let mut envelope = Element::new("envelope").with("epoch", "e1").with("seq", seq);
    envelope.children.push(cast);
    envelope
}

fn delivered(actions: &[Action]) -> usize {
    actions.iter().map(|a| if let Action::Deliver { to, .. } = a { to.len() } else { 0 }).sum()
}

fn refusal(actions: &[Action]) -> Option<&'static str> {
    actions.iter().find_map(|a| match a {
        Action::Refuse { dmuc, .. } | Action::SetupError { dmuc, .. } => Some(*dmuc),
        _ => None,
    })
}

#[test]
fn a_link_needs_somebody_who_asked() {
    let mut replica = replica(&[]);
    let strangers = [user(8), user(9)];
    let answer = replica.setup(Millis(1), ROOM, &link("e1", &strangers));
    let Some(Action::Result { body }) = answer.list.last() else { panic!("{answer:?}") };
    assert_eq!(body.children[0].attr("i"), Some("0-1"), "both are refused");
    assert!(replica.status().is_empty());
    let answer = replica.setup(Millis(1), ROOM, &link("e1", &[user(8), user(0)]));
    let Some(Action::Result { body }) = answer.list.last() else { panic!("{answer:?}") };
    assert_eq!(body.children[0].attr("i"), Some("0"), "the stranger is named");
    assert_eq!(delivered(&replica.envelope(Millis(2), ROOM, "id", &cast(1)).list), 1);
}

#[test]
fn envelopes_come_once_in_order_and_in_the_links_epoch() {
    let mut replica = replica(&[]);
    let deliver = |replica: &mut Replica, envelope: &Element<Incoming>| {
        let actions = replica.envelope(Millis(2), ROOM, "id", envelope).list;
        (delivered(&actions), refusal(&actions))
    };
    assert_eq!(deliver(&mut replica, &cast(1)), (0, Some("unknown-epoch")));
    replica.setup(Millis(1), ROOM, &link("e1", &[user(0)]));
    assert_eq!(deliver(&mut replica, &cast(1)), (1, None));
    assert_eq!(deliver(&mut replica, &cast(1)), (0, None), "again");
    assert_eq!(deliver(&mut replica, &cast(3)), (0, Some("gap")));
    let mut other = cast(2);
    other.attrs[0].1 = "e2".into();
    assert_eq!(deliver(&mut replica, &other), (0, Some("unknown-epoch")));
    assert_eq!(deliver(&mut replica, &cast(2)), (1, None));
}

#[test]
fn an_envelope_is_taken_as_a_whole_or_not_at_all() {
    let mut replica = replica(&[]);
    replica.setup(Millis(1), ROOM, &link("e1", &[user(0)]));
    let payload =
        |from: &str, has_to| Incoming { facts: Facts(0), from: from.into(), has_to, packed: None };
    let with = |name: &str, attrs: &[(&str, &str)], payload: Option<Incoming>| {
        let mut op = Element::new(name);
        op.attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        op.payload = payload;
        op
    };
    let inside = format!("{ROOM}/x");
    let bad = [
        with("cast", &[("n", "1")], Some(payload("other@conference.a.test/x", false))),
        with("cast", &[("n", "1")], Some(payload(&inside, true))),
        with("cast", &[("n", "1")], None),
        with("cast", &[("n", "-1")], Some(payload(&inside, false))),
        with("cast", &[("n", "1"), ("except", "0-4294967294")], Some(payload(&inside, false))),
        with("only", &[("i", "1")], Some(payload(&inside, false))),
        with("only", &[("i", "")], Some(payload(&inside, false))),
        with("enter", &[("i", "7"), ("jid", &user(0))], None),
        with("enter", &[("i", "1"), ("jid", "v@c.test/r")], None),
        with("enter", &[("i", "1"), ("jid", &user(0))], None),
        with("leave", &[("i", "9")], None),
        with("replay", &[("i", "0"), ("slots", "1")], None),
        with("end", &[], Some(payload(&inside, false))),
        with("surprise", &[], None),
    ];
    for op in bad {
        let mut envelope = cast(1);
        envelope.children.push(op.clone());
        let actions = replica.envelope(Millis(2), ROOM, "id", &envelope).list;
        assert_eq!((delivered(&actions), refusal(&actions)), (0, Some("malformed")), "{op:?}");
    }
    assert_eq!(delivered(&replica.envelope(Millis(2), ROOM, "id", &cast(1)).list), 1);
}

#[test]
fn links_are_limited_in_all_and_for_each_domain() {
    let mut replica = replica(&[("max_links", 3), ("max_links_per_domain", 2)]);
    let join = Facts(Facts::PRESENCE | Facts::NICK | Facts::MUC_X);
    let mut answers = Vec::new();
    for domain in ["x.test", "y.test"] {
        for n in 0..3 {
            let room = format!("r{n}@{domain}");
            replica.outgoing(Millis(0), &user(0), &format!("{room}/n0"), join);
            let answer = replica.setup(Millis(1), &room, &link("e1", &[user(0)]));
            answers.push(refusal(&answer.list));
        }
    }
    let limit = Some("limit");
    assert_eq!(answers, [None, None, limit, None, limit, limit]);
    assert_eq!(replica.status().len(), 3);
}

#[test]
fn after_its_own_end_a_session_gets_nothing_more() {
    let mut replica = replica(&[]);
    replica.setup(Millis(1), ROOM, &link("e1", &[user(0)]));
    let yes = Facts(Facts::PRESENCE | Facts::NICK | Facts::CODE_110);
    replica.incoming(Millis(1), &user(0), &format!("{ROOM}/n0"), yes);
    let mut end = cast(1);
    let facts = Facts::PRESENCE | Facts::NICK | Facts::UNAVAILABLE | Facts::CODE_110;
    end.children[0].payload = Some(Incoming {
        facts: Facts(facts),
        from: format!("{ROOM}/n0"),
        has_to: false,
        packed: None,
    });
    assert_eq!(delivered(&replica.envelope(Millis(2), ROOM, "id", &end).list), 1);
    let actions = replica.envelope(Millis(3), ROOM, "id", &cast(2)).list;
    assert_eq!(delivered(&actions), 0);
    let Some(Action::Report { body, .. }) = actions.get(1) else { panic!("{actions:?}") };
    assert_eq!(body.children[0].name, "refuse");
    assert_eq!(body.children[0].attr("seq"), Some("2"));
    let [Action::Handled { seq: 2, .. }, ..] = actions[..] else { panic!("{actions:?}") };
}

#[test]
fn after_a_bye_nothing_is_delivered() {
    let mut replica = replica(&[]);
    replica.setup(Millis(1), ROOM, &link("e1", &[user(0)]));
    replica.envelope(Millis(2), ROOM, "id", &cast(1));
    let bye = replica.close(Millis(3)).list;
    let Some(Action::Report { body, .. }) = bye.first() else { panic!("{bye:?}") };
    assert_eq!((body.attr("ack"), body.children[0].name.as_str()), (Some("1"), "bye"));
    let after = replica.envelope(Millis(4), ROOM, "id", &cast(2)).list;
    assert_eq!((delivered(&after), refusal(&after)), (0, Some("unknown-epoch")));
    assert_eq!(replica.consents().len(), 1, "records survive");
}

#[test]
fn a_hostile_replica_cannot_confuse_the_primary() {
    let mut world = linked(3, &[]);
    let epoch = world.primary.as_ref().expect("loaded").status()[0].epoch.clone().expect("epoch");
    let report = |epoch: &str, ack: &str| {
        Element::<Incoming>::new("report").with("epoch", epoch).with("ack", ack)
    };
    let refuse = |seq: &str, i: &str| {
        let mut report = report(&epoch, "0");
        report.children.push(Element::new("refuse").with("n", 1).with("seq", seq).with("i", i));
        report
    };
    let bad = [
        report(&epoch, "9999999"),
        report(&epoch, "-1"),
        report("other", "0"),
        refuse("x", "0"),
        Element::new("nonsense"),
    ];
    let room = world.primary.as_mut().expect("loaded");
    let before = world.shared.counters.get(Counter::BadReports);
    for element in &bad {
        assert!(room.report(world.now, B, element).list.is_empty(), "{element:?}");
    }
    // An index that there is not, or a number that was never sent: nothing comes of it.
    room.report(world.now, B, &refuse("1", "4000000000"));
    room.report(world.now, "stranger.test", &report(&epoch, "0"));
    let after = world.shared.counters.get(Counter::BadReports);
    assert_eq!(after - before, bad.len() as u64 + 1);
    let heard = received(&world, 1);
    say(&mut world, 0);
    world.quiet();
    assert_eq!(received(&world, 1), heard + 1);
    assert_eq!(world.verdict(), Ok(()));
}
