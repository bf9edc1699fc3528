//! One test for each rule about streams that break and ends that restart.

mod sim;

use dmuc_core::{Action, Bounce, Counter, Element, Facts, Millis};
use sim::scene::{B, carriers, count, linked, say, state, user, world};
use sim::{Down, ROOM, Up, World};

/// So short that a test gets to the end of it.
const PATIENCE: &[(&str, u64)] =
    &[("hold_time", 20_000), ("ping_interval", 10_000), ("ack_timeout", 10_000)];

fn pass(world: &mut World, seconds: u64) {
    for _ in 0..seconds {
        world.pass(1000);
        world.settle();
    }
}

fn of_replica(world: &World, counter: Counter) -> u64 {
    world.homes[0].shared.counters.get(counter)
}

/// Everybody has all that was sent, and nobody has been told that he is out.
fn nothing_has_happened(world: &World) {
    assert_eq!(world.verdict(), Ok(()));
    assert_eq!(world.haunted(), [""; 0]);
    assert_eq!((world.failed, world.homes[0].evicted.len()), (0, 0));
    assert_eq!(state(world), "linked");
}

#[test]
fn a_cut_that_is_noticed_costs_nothing() {
    let mut world = linked(3, &[]);
    say(&mut world, 0);
    world.cut(0);
    assert_eq!(state(&world), "split");
    assert_eq!(carriers(&world), ["resume"]);
    for _ in 0..3 {
        say(&mut world, 1);
    }
    assert_eq!(carriers(&world), ["resume"], "nothing overtakes what may have been lost");
    world.quiet();
    nothing_has_happened(&world);
    assert_eq!((count(&world, Counter::LinksSplit), count(&world, Counter::LinksResumed)), (1, 1));
    assert_eq!(count(&world, Counter::EnvelopesResent), 1);
}

#[test]
fn who_fails_when_dmuc_is_unloaded_hears_of_nobody_elses_leave() {
    let mut world = linked(4, &[]);
    world.sever(0);
    say(&mut world, 0);
    world.pass(2000);
    assert_eq!(state(&world), "split");
    let now = world.now;
    let room = world.primary.as_mut().expect("loaded");
    let closed = room.close(now);
    let [Action::Fail { to }] = &closed.list[..] else { panic!("{closed:?}") };
    assert_eq!(to.len(), 4);
    // The room puts out the first: all four are told.
    use dmuc_core::Verdict::{Hold, Pass};
    for n in 0..4 {
        assert_eq!(room.capture(now, &user(n), Facts(0)), Hold);
    }
    assert_eq!(room.capture(now, &format!("stranger@{B}/r"), Facts(0)), Pass);
    let leave = |digest, facts| dmuc_core::PayloadIn::New {
        bytes: b"<presence type='unavailable'/>".to_vec(),
        facts,
        nick: String::new(),
        digest,
    };
    let left = Facts::PRESENCE | Facts::UNAVAILABLE | Facts::NICK;
    let payloads = vec![leave(1, Facts(left | Facts::CODE_110)), leave(2, Facts(left))];
    let (first, others) = (user(0), [user(1), user(2), user(3)]);
    let mut copies = vec![(first.as_str(), 0)];
    copies.extend(others.iter().map(|jid| (jid.as_str(), 1)));
    let sent = room.event(now, payloads, &copies);
    let [Action::Plain { to, .. }] = &sent.list[..] else { panic!("{sent:?}") };
    assert_eq!(to.iter().map(|jid| &**jid).collect::<Vec<_>>(), [user(0)]);
}

/// Some rooms take any presence for a join. It would let him in again, with a gap that he knows nothing of.
#[test]
fn who_was_put_out_over_a_broken_stream_and_does_not_ask_to_enter_is_told_again() {
    let mut world = linked(2, PATIENCE);
    let now = world.now;
    let told = |world: &mut World, at: Millis| {
        let room = world.primary.as_mut().expect("loaded");
        let list = room.unasked(at, &user(0)).list;
        list.iter().map(|a| matches!(a, Action::Plain { .. })).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut world, now), [false; 0], "he is inside");
    world.sever(0);
    say(&mut world, 0);
    pass(&mut world, 40);
    assert_eq!(world.failed, 2);
    let now = world.now;
    assert_eq!(told(&mut world, now), [true]);
    assert_eq!(told(&mut world, now), [true], "nor may he have heard it this time");
    assert_eq!(told(&mut world, now + 3_600_000), [false; 0], "after an hour it is a stranger");
    // He asks, and is inside.
    world.mend(0);
    pass(&mut world, 1);
    world.homes[0].join(world.now, &user(0), "n0");
    world.quiet();
    let now = world.now;
    assert_eq!(told(&mut world, now), [false; 0]);
}

#[test]
fn who_is_served_plainly_because_an_answer_was_lost_stays() {
    let mut world =
        world(&[("retry_min", 3_600_000), ("setup_timeout", 5000), ("min_occupants", 2)]);
    let is_result = |up: &Up| matches!(up, Up::Result { .. });
    world.homes[0].join(world.now, &user(0), "n0");
    world.settle();
    world.homes[0].join(world.now, &user(1), "n1");
    while !world.homes[0].up.iter().any(is_result) {
        world.arrive_up(0);
        world.arrive_down(0);
    }
    world.homes[0].up.retain(|up| !is_result(up));
    assert_eq!(world.homes[0].shared.counters.get(Counter::LinksAccepted), 1);
    pass(&mut world, 6);
    assert_eq!(state(&world), "plain");
    for _ in 0..600 {
        if (world.now.since(Millis(0)) / 1000).is_multiple_of(60) {
            say(&mut world, 0);
        }
        world.pass(1000);
        while world.arrive_down(0) {}
        // Nor does anything else for a long time.
        world.homes[0].up.clear();
    }
    assert_eq!(world.homes[0].evicted, [""; 0]);
    assert_eq!(of_replica(&world, Counter::EpochsDead), 0);
    assert_eq!(world.haunted(), [""; 0]);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_cut_that_nobody_notices_shows_as_a_gap_and_costs_nothing() {
    let mut world = linked(3, &[]);
    for _ in 0..3 {
        say(&mut world, 0);
    }
    world.sever(0);
    world.mend(0);
    say(&mut world, 1);
    world.arrive_down(0);
    assert_eq!(of_replica(&world, Counter::Gaps), 1);
    world.quiet();
    nothing_has_happened(&world);
    assert_eq!(count(&world, Counter::EnvelopesResent), 4);
}

#[test]
fn what_was_handled_is_not_sent_again_nor_delivered_twice() {
    let mut world = linked(3, &[]);
    say(&mut world, 0);
    let Some(Down::Envelope { id, body }) = world.homes[0].down.front().cloned() else { panic!() };
    world.arrive_down(0);
    say(&mut world, 0);
    // The own server says that it could not send the first, which has arrived.
    let now = world.now;
    world.ask_primary(|room| room.bounced(now, B, &id, Bounce::Unknown));
    world.homes[0].down.push_back(Down::Envelope { id, body });
    world.quiet();
    nothing_has_happened(&world);
    assert_eq!(count(&world, Counter::EnvelopesResent), 0, "both had arrived before the question");
    assert_eq!(of_replica(&world, Counter::Duplicates), 1);
}

#[test]
fn the_question_is_repeated_less_and_less_often_until_the_hold_time_is_over() {
    let mut world = linked(2, &[("hold_time", 60_000)]);
    world.sever(0);
    say(&mut world, 0);
    let mut asked = Vec::new();
    let began = world.now;
    for _ in 0..70 {
        let before = world.questions;
        world.pass(1000);
        asked.extend((world.questions > before).then(|| world.now.since(began) / 1000));
    }
    assert_eq!(asked, [1, 2, 4, 8, 16, 32, 52]);
    assert_eq!(world.failed, 2);
}

#[test]
fn a_sign_of_life_is_followed_by_a_question() {
    let mut world = linked(2, &[]);
    world.sever(0);
    say(&mut world, 0);
    for _ in 0..20 {
        world.pass(1000);
    }
    world.mend(0);
    let now = world.now;
    let epoch = world.primary.as_ref().expect("loaded").status()[0].epoch.clone();
    let report = Element::new("report").with("epoch", epoch.expect("a link")).with("ack", 0);
    world.ask_primary(|room| room.report(now, B, &report));
    assert_eq!(carriers(&world), ["resume"]);
    world.quiet();
    nothing_has_happened(&world);
}

#[test]
fn an_answer_to_a_question_of_an_earlier_cut_counts_for_nothing() {
    let mut world = linked(2, &[]);
    for _ in 0..2 {
        say(&mut world, 0);
        world.cut(0);
        if world.questions == 1 {
            world.quiet();
        }
    }
    assert_eq!(world.questions, 2);
    let now = world.now;
    let epoch = world.primary.as_ref().expect("loaded").status()[0].epoch.clone();
    let epoch = epoch.expect("a link");
    let report =
        |n: u64| Element::new("report").with("epoch", &epoch).with("ack", 0).with("resume", n);
    for n in [1, 3] {
        world.ask_primary(|room| room.report(now, B, &report(n)));
        assert_eq!(state(&world), "split", "{n}");
    }
    world.ask_primary(|room| room.report(now, B, &report(2)));
    assert_eq!(state(&world), "linked");
}

#[test]
fn an_envelope_that_is_refused_though_it_was_expected_ends_the_link() {
    let mut world = linked(2, &[]);
    say(&mut world, 0);
    let Some(Down::Envelope { id, .. }) = world.homes[0].down.pop_front() else { panic!() };
    let now = world.now;
    world.ask_primary(|room| room.bounced(now, B, &id, Bounce::Refused));
    assert_eq!(state(&world), "split");
    // The question is answered: it is expected. And refused again.
    world.arrive_down(0);
    world.arrive_up(0);
    assert_eq!(carriers(&world), ["envelope"]);
    world.homes[0].down.clear();
    world.ask_primary(|room| room.bounced(now, B, &id, Bounce::Refused));
    assert_eq!(state(&world), "plain");
    assert_eq!(world.homes[0].down.len(), 2, "it goes plainly to both");
    world.quiet();
    assert_eq!(world.failed, 0);
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_replica_that_has_lost_the_epoch_keeps_those_of_whom_nothing_is_unknown() {
    let mut world = linked(4, &[("fate_timeout", 2000)]);
    let copies = world.muc.whisper(&user(2));
    world.happen(copies);
    world.sever(0);
    // Its module is loaded anew meanwhile.
    world.homes[0].unload(world.now);
    world.homes[0].load(world.now);
    world.mend(0);
    say(&mut world, 1);
    world.quiet();
    assert_eq!(world.failed, 1, "the one who was whispered to");
    assert_eq!(world.muc.sessions().len(), 3);
    assert_eq!(world.verdict(), Ok(()));
    assert_eq!(state(&world), "linked");
}

#[test]
fn after_the_hold_time_who_waits_for_something_is_out_and_knows_it() {
    let mut world = linked(4, PATIENCE);
    world.sever(0);
    let copies = world.muc.whisper(&user(2));
    world.happen(copies);
    for _ in 0..22 {
        world.pass(1000);
    }
    assert_eq!(world.failed, 1, "the others are removed since his leave comes back, as ever");
    for _ in 0..60 {
        world.pass(1000);
    }
    assert_eq!(world.homes[0].evicted.len(), 4, "to the replica the epoch is dead");
    world.mend(0);
    pass(&mut world, 300);
    assert_eq!(world.haunted(), [""; 0]);
    assert_eq!(world.verdict(), Ok(()));
    assert_eq!(of_replica(&world, Counter::EpochsDead), 1);
}

#[test]
fn a_leave_that_was_lost_is_repeated_when_the_link_goes_on() {
    let mut world = linked(4, &[]);
    say(&mut world, 0);
    world.sever(0);
    world.homes[0].leave(world.now, &user(1));
    world.homes[0].close(world.now, &user(3));
    for _ in 0..15 {
        world.pass(1000);
    }
    world.mend(0);
    world.quiet();
    let left = world.muc.sessions();
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(of_replica(&world, Counter::LeavesRepeated), 2);
    assert_eq!(world.haunted(), [""; 0]);
    assert_eq!(world.verdict(), Ok(()));
    assert_eq!(state(&world), "linked");
}

#[test]
fn a_silent_primary_is_asked_and_one_that_answers_stays() {
    let mut world = linked(2, &[("ping_interval", 10_000)]);
    // The primary is not awake to ping.
    for _ in 0..25 {
        let now = world.now + 1000;
        world.now = now;
        world.homes[0].pass(now);
    }
    let asks = world.homes[0].up.len();
    assert_eq!(asks, 1, "after the ping and ten seconds");
    world.arrive_up(0);
    assert_eq!(carriers(&world), ["envelope"], "an empty one");
    world.quiet();
    nothing_has_happened(&world);
}

#[test]
fn a_primary_that_does_not_know_the_epoch_sets_up_another() {
    let mut world = linked(3, &[("ping_interval", 10_000)]);
    // Its module was loaded anew, and neither the end of the link nor the new set-up has arrived.
    world.unload_primary();
    world.homes[0].down.clear();
    world.load_primary();
    world.homes[0].down.clear();
    pass(&mut world, 200);
    nothing_has_happened(&world);
}

#[test]
fn a_room_without_occupants_of_a_domain_says_so_when_asked() {
    let mut world = linked(3, &[("ping_interval", 10_000)]);
    // The server was killed. The room is there again, with nobody in it.
    world.primary = None;
    for n in 0..3 {
        world.muc.kick(&user(n), true);
    }
    world.homes[0].down.clear();
    world.load_primary();
    pass(&mut world, 60);
    assert_eq!(world.homes[0].evicted.len(), 3);
    assert_eq!(world.haunted(), [""; 0]);
    assert!(world.homes[0].replica.as_ref().expect("loaded").status().is_empty());
}

#[test]
fn a_room_that_is_gone_is_given_up_at_the_first_question() {
    let mut world = linked(3, &[("ping_interval", 10_000)]);
    let epoch = world.primary.as_ref().expect("loaded").status()[0].epoch.clone();
    let id = format!("dmucq-{}", epoch.expect("a link"));
    assert!(dmuc_core::is_question_id(&id));
    let now = world.now;
    let replica = world.homes[0].replica.as_mut().expect("loaded");
    let unasked = replica.returned(now, ROOM, &id, Bounce::Refused);
    assert!(unasked.list.is_empty(), "nobody has asked");
    let later = now + 20_001;
    let asked = replica.tick(later);
    assert!(matches!(&asked.list[..], [Action::Report { id: asked, .. }] if *asked == id));
    let own = replica.returned(later, ROOM, &id, Bounce::Unknown);
    assert!(own.list.is_empty(), "the own server cannot know");
    let other = replica.returned(later, "other@conference.a.test", &id, Bounce::Refused);
    assert!(other.list.is_empty());
    let gone = replica.returned(later, ROOM, &id, Bounce::Refused);
    let evicted = gone.list.iter().filter(|a| matches!(a, Action::Evict { .. })).count();
    let departed = gone.list.iter().filter(|a| matches!(a, Action::Depart { .. })).count();
    assert_eq!((evicted, departed), (3, 3));
}

#[test]
fn a_leave_is_repeated_until_the_room_answers() {
    let mut world = linked(2, PATIENCE);
    let replica = world.homes[0].replica.as_mut().expect("loaded");
    let mut departed = Vec::new();
    let mut now = world.now;
    for _ in 0..600 {
        now = now + 1000;
        let left = replica.tick(now).list;
        let left = left.iter().filter(|a| matches!(a, Action::Depart { .. })).count();
        departed.extend((left > 0).then(|| now.since(world.now) / 1000));
        if departed.len() == 3 {
            break;
        }
    }
    assert_eq!(departed, [50, 80, 140]);
    let out = Facts(Facts::PRESENCE | Facts::NICK | Facts::UNAVAILABLE | Facts::CODE_110);
    for n in 0..2 {
        replica.incoming(now, &user(n), &format!("{ROOM}/n{n}"), out);
    }
    let later = replica.tick(now + 3_600_000);
    assert!(!later.list.iter().any(|a| matches!(a, Action::Depart { .. })));
}

#[test]
fn sessions_that_are_not_connected_fail_when_a_set_up_names_them() {
    let mut world = linked(4, &[]);
    // The domain's server is killed: sessions and records are gone, and nobody has said so.
    let gone: Vec<String> = (0..3).map(user).collect();
    world.homes[0].crash(&gone);
    world.homes[0].join(world.now, &user(3), "n3");
    say(&mut world, 3);
    pass(&mut world, 200);
    assert_eq!(world.haunted(), [""; 0]);
    assert_eq!(world.muc.sessions().len(), 1);
}

#[test]
fn a_thousand_fail_in_batches() {
    let mut world = linked(100, &[("hold_time", 0)]);
    world.sever(0);
    say(&mut world, 0);
    world.pass(1);
    world.pass(1);
    assert_eq!(world.failed, 20);
    for _ in 0..4 {
        world.pass(100);
    }
    assert_eq!(world.failed, 100);
    assert!(world.muc.sessions().is_empty());
    // Nobody who fails is sent the leaves of the others.
    assert_eq!(count(&world, Counter::CopiesPlain), 100);
}

#[test]
fn unloading_the_primary_while_a_link_is_split_leaves_nobody_with_a_gap() {
    let mut world = linked(3, &[]);
    say(&mut world, 0);
    world.sever(0);
    say(&mut world, 1);
    world.pass(1000);
    assert_eq!(state(&world), "split");
    world.unload_primary();
    assert_eq!(world.failed, 3);
}

#[test]
fn who_was_let_in_without_a_link_by_a_room_that_has_died_is_told_by_the_next_set_up() {
    let mut world = world(&[]);
    world.unload_primary();
    for n in 0..4 {
        world.homes[0].join(world.now, &user(n), &format!("n{n}"));
    }
    world.quiet();
    // Two of them ask the new room to let them in; the others do not know that it is a new one.
    for n in 0..4 {
        world.muc.kick(&user(n), true);
    }
    for n in 0..2 {
        world.homes[0].join(world.now, &user(n), &format!("n{n}"));
    }
    world.settle();
    world.load_primary();
    world.quiet();
    assert_eq!(state(&world), "linked");
    assert_eq!(world.homes[0].evicted, [user(2), user(3)]);
    assert_eq!(world.haunted(), [""; 0]);
}

#[test]
fn the_last_one_who_is_put_out_hears_of_it_though_nobody_knows_whether_he_was_told() {
    let mut world = linked(2, &[("ack_timeout", 5000)]);
    let copies = world.muc.destroy();
    world.happen(copies);
    // The replica's module has a new life, with its records but without the link.
    let now = world.now;
    world.homes[0].unload(now);
    world.homes[0].up.clear();
    world.homes[0].down.clear();
    world.homes[0].load(now);
    world.homes[0].up.clear();
    // So that the records are not taken for out of date.
    let yes = Facts(Facts::PRESENCE | Facts::NICK | Facts::CODE_110);
    let replica = world.homes[0].replica.as_mut().expect("loaded");
    for n in 0..2 {
        replica.incoming(now, &user(n), &format!("{ROOM}/n{n}"), yes);
    }
    world.quiet();
    assert_eq!(world.homes[0].evicted.len(), 2);
    assert_eq!(world.haunted(), [""; 0]);
}

#[test]
fn a_leave_that_seems_to_be_answered_is_repeated_if_the_room_has_not_got_it() {
    let mut world = linked(2, &[]);
    let session = user(2);
    world.homes[0].join(world.now, &session, "n2");
    world.homes[0].leave(world.now, &session);
    world.homes[0].up.clear();
    let replica = world.homes[0].replica.as_mut().expect("loaded");
    // What looks like the answer to the leave is older; then the room lets in who has left.
    let end = Facts(Facts::PRESENCE | Facts::NICK | Facts::UNAVAILABLE | Facts::CODE_110);
    replica.incoming(world.now, &session, &format!("{ROOM}/n2"), end);
    assert_eq!(replica.consent(ROOM, &session), None);
    let copies = world.muc.join(&session, "n2");
    world.happen(copies);
    world.settle();
    assert!(world.muc.sessions().contains(&session));
    pass(&mut world, 10);
    assert!(!world.muc.sessions().contains(&session), "the leave was repeated");
    assert_eq!(world.haunted(), [""; 0]);
}

#[test]
fn who_is_in_the_room_again_before_its_old_link_is_given_up_stays() {
    let mut world = linked(3, PATIENCE);
    // The room's server is killed and comes back; one occupant enters again, which its link does not tell.
    world.primary = None;
    for n in 0..3 {
        world.muc.kick(&user(n), true);
    }
    world.homes[0].down.clear();
    for _ in 0..30 {
        world.pass(1000);
    }
    world.homes[0].join(world.now, &user(1), "n1");
    while world.arrive_up(0) {}
    while world.arrive_down(0) {}
    for _ in 0..60 {
        world.pass(1000);
    }
    assert_eq!(world.homes[0].evicted, [user(0), user(2)]);
    assert!(world.homes[0].inside.contains(&user(1)));
}
