//! What a peer must not be able to do: each was found by a fuzz target (tests/fuzz).

mod sim;

use std::time::{Duration, Instant};

use dmuc_core::{
    Action, Config, Element, Facts, Incoming, Millis, PayloadIn, Replica, Room, Shared, Verdict,
};
use sim::ROOM;
use sim::scene::{B, linked, state, user};

const JOIN: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::MUC_X);
const LEAVE: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::UNAVAILABLE);
const YES: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::CODE_110);
const END: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::UNAVAILABLE | Facts::CODE_110);

/// A replica by itself, with one member.
fn replica() -> Replica {
    let mut replica = Replica::new(B, 1, Shared::new(Config::default()));
    replica.outgoing(Millis(0), &user(0), &format!("{ROOM}/n0"), JOIN);
    replica.incoming(Millis(0), &user(0), &format!("{ROOM}/n0"), YES);
    replica
}

fn offer(epoch: &str, size: usize, sessions: &[String]) -> Element<Incoming> {
    let mut link = Element::new("link")
        .with("epoch", epoch)
        .with("stream", "s")
        .with("size", size)
        .with("hold", 1)
        .with("ping", 1)
        .with("max-bytes", 65536);
    for (index, jid) in sessions.iter().enumerate() {
        link.children.push(enter(index, jid));
    }
    link
}

fn enter(index: usize, jid: &str) -> Element<Incoming> {
    Element::new("enter").with("i", index).with("jid", jid)
}

fn leave(index: usize) -> Element<Incoming> {
    Element::new("leave").with("i", index)
}

fn cast(facts: Facts) -> Element<Incoming> {
    let mut cast = Element::new("cast").with("n", 1);
    let packed = Some([0; 8].into());
    cast.payload = Some(Incoming { facts, from: format!("{ROOM}/n0"), has_to: false, packed });
    cast
}

fn only(index: usize) -> Element<Incoming> {
    Element { name: "only".into(), ..cast(Facts(0)).with("i", index) }
}

fn envelope(seq: usize, ops: Vec<Element<Incoming>>) -> Element<Incoming> {
    let envelope = Element::new("envelope").with("epoch", "e1").with("seq", seq);
    Element { children: ops, ..envelope }
}

fn delivered(actions: &[Action]) -> usize {
    actions.iter().map(|a| if let Action::Deliver { to, .. } = a { to.len() } else { 0 }).sum()
}

#[test]
fn nothing_comes_between_the_end_of_a_stay_and_the_leave_in_one_envelope() {
    let mut replica = replica();
    replica.setup(Millis(1), ROOM, &offer("e1", 1, &[user(0)]));
    let ops = vec![cast(END), only(0), leave(0)];
    assert_eq!(delivered(&replica.envelope(Millis(2), ROOM, "id", &envelope(1, ops)).list), 1);
}

#[test]
fn a_slot_that_is_said_to_be_dropped_twice_is_dropped_once() {
    let mut world = linked(9, &[]);
    let epoch = world.primary.as_ref().expect("loaded").status()[0].epoch.clone().expect("epoch");
    for slots in ["1 1", "2-4 3-5", "7-99 6-99"] {
        let mut report = Element::<Incoming>::new("report").with("epoch", &epoch).with("ack", 0);
        report.children.push(Element::new("dropped").with("slots", slots));
        let room = world.primary.as_mut().expect("loaded");
        room.report(world.now, B, &report);
    }
    assert!(world.shared.counters.get(dmuc_core::Counter::SlotsLost) > 2);
    assert_eq!(state(&world), "linked");
    world.quiet();
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn refusals_that_the_primary_does_not_act_on_are_limited() {
    let mut replica = replica();
    replica.setup(Millis(1), ROOM, &offer("e1", 1, &[user(0)]));
    let most = 2 * Config::default().max_audience as usize;
    let (mut index, mut taken) = (1, 0);
    for seq in 1.. {
        // In and out, again and again, and never served.
        let ops = (index..index + 10_000).flat_map(|i| [enter(i, &user(1)), leave(i)]).collect();
        let actions = replica.envelope(Millis(2), ROOM, "id", &envelope(seq, ops)).list;
        if let [Action::Refuse { dmuc, .. }] = &actions[..] {
            assert_eq!(*dmuc, "limit");
            break;
        }
        taken += 10_000;
        assert!(taken <= most, "{taken} refusals are kept");
        index += 10_000;
    }
    assert_eq!(taken, most);
}

#[test]
fn nothing_comes_after_the_end_of_a_stay_to_who_enters_again_in_one_envelope() {
    let mut replica = replica();
    replica.setup(Millis(1), ROOM, &offer("e1", 1, &[user(0)]));
    let ops = vec![cast(END), only(0), leave(0), enter(1, &user(0)), only(1), cast(Facts(0))];
    assert_eq!(delivered(&replica.envelope(Millis(2), ROOM, "id", &envelope(1, ops)).list), 1);
}

#[test]
fn whoever_was_told_that_he_is_out_gets_nothing_from_a_newer_link() {
    let mut replica = replica();
    replica.outgoing(Millis(0), &user(1), &format!("{ROOM}/n1"), JOIN);
    replica.setup(Millis(1), ROOM, &offer("e2", 2, &[user(0), user(1)]));
    // Its join is under way, and for a minute the room may yet answer.
    replica.setup(Millis(2), ROOM, &offer("e3", 1, &[user(0)]));
    replica.setup(Millis(59_000), ROOM, &offer("e1", 2, &[user(0), user(1)]));
    let actions = replica.tick(Millis(61_000));
    let out =
        |action: &Action| matches!(action, Action::Evict { session, .. } if **session == user(1));
    assert!(actions.list.iter().any(out), "{actions:?}");
    let message = envelope(1, vec![cast(Facts(0))]);
    assert_eq!(delivered(&replica.envelope(Millis(61_000), ROOM, "id", &message).list), 1);
}

#[test]
fn a_primary_that_is_asked_again_and_again_answers_now_and_then() {
    let mut world = linked(3, &[]);
    let room = world.primary.as_mut().expect("loaded");
    let epoch = room.status()[0].epoch.clone().expect("epoch");
    let mut ask = Element::<Incoming>::new("report").with("epoch", &epoch).with("ack", 0);
    ask.children.push(Element::new("ask"));
    for n in 0..3000 {
        room.report(world.now + n, B, &ask);
    }
    assert!((2..6).contains(&room.status()[0].unacked), "{}", room.status()[0].unacked);
}

#[test]
fn a_link_that_goes_on_and_acknowledges_nothing_has_an_end() {
    let mut world = linked(3, &[("max_unacked_bytes", 65_536)]);
    let room = world.primary.as_mut().expect("loaded");
    let epoch = room.status()[0].epoch.clone().expect("epoch");
    let (mut now, mut asked) = (world.now, 0);
    while room.status()[0].state != "plain" {
        now = now + 1000;
        let actions = room.tick(now);
        assert!(actions.wake.is_none_or(|at| at > now), "{:?} at {now:?}", actions.wake);
        for question in &actions.list {
            let Action::Envelope { body, .. } = question else { continue };
            let Some(n) = body.attr("n").filter(|_| body.name == "resume") else { continue };
            let report = Element::<Incoming>::new("report").with("epoch", &epoch).with("ack", 0);
            room.report(now, B, &report.with("resume", n));
            asked += 1;
        }
        let unacked = room.status()[0].unacked;
        assert!(unacked < 150, "{unacked} after {asked} resumptions");
    }
    assert!(asked > 3, "{asked}");
}

#[test]
fn a_link_that_acknowledges_less_than_it_asks_for_has_an_end_though_nobody_speaks() {
    let mut world = linked(3, &[("max_unacked_bytes", 65_536)]);
    let room = world.primary.as_mut().expect("loaded");
    let epoch = room.status()[0].epoch.clone().expect("epoch");
    let (mut now, mut seq, mut question) = (world.now, 1, None);
    for _ in 0..2000 {
        now = now + 1000;
        let mut actions = room.tick(now).list;
        let report = Element::<Incoming>::new("report").with("epoch", &epoch).with("ack", seq / 2);
        let mut report = report.with_some("resume", question.take());
        report.children.push(Element::new("ask"));
        actions.extend(room.report(now, B, &report).list);
        for action in actions {
            let Action::Envelope { id, body, .. } = action else { continue };
            match body.name.as_str() {
                "resume" => question = body.attr("n").map(str::to_owned),
                _ => seq = id.split_once('.').and_then(|(_, seq)| seq.parse().ok()).unwrap_or(seq),
            }
        }
        let status = &room.status()[0];
        if status.state == "plain" {
            return;
        }
        assert!(status.unacked < 150, "{} of {seq}", status.unacked);
    }
    panic!("it goes on: {:?}", room.status());
}

/// How much there is to tell of a replica: nothing else shows what it keeps.
fn told(replica: &Replica) -> usize {
    format!("{replica:?}").len()
}

#[test]
fn set_ups_that_never_name_their_whole_audience_leave_nothing_behind() {
    let mut replica = replica();
    let mut set_up = |n: u64| {
        replica.setup(Millis(n), ROOM, &offer(&format!("e{}", 1000 + n), 2, &[user(0)]));
        told(&replica)
    };
    set_up(1);
    let before = set_up(2);
    for n in 3..100 {
        set_up(n);
    }
    assert!(set_up(100) < before + 100);
}

#[test]
fn a_session_is_in_doubt_once_however_often_a_room_takes_it_in_and_leaves_it_out() {
    let mut replica = replica();
    // A presence of its own is under way.
    replica.outgoing(Millis(0), &user(1), &format!("{ROOM}/n1"), JOIN);
    let mut in_and_out = |n: usize| {
        for (n, sessions) in [(2 * n, [user(0), user(1)]), (2 * n + 1, [user(0), user(2)])] {
            let epoch = format!("e{}", 1000 + n);
            replica.setup(Millis(1), ROOM, &offer(&epoch, 2, &sessions));
        }
        told(&replica)
    };
    in_and_out(1);
    let before = in_and_out(2);
    for n in 3..100 {
        in_and_out(n);
    }
    assert!(in_and_out(100) < before + 100);
}

#[test]
fn whoever_leaves_again_and_again_makes_no_other_leave_forgotten() {
    let mut replica = replica();
    let nick = |n: usize| format!("{ROOM}/n{n}");
    replica.outgoing(Millis(1), &user(0), &nick(0), LEAVE);
    replica.incoming(Millis(1), &user(0), &nick(0), END);
    replica.outgoing(Millis(1), &user(1), &nick(1), JOIN);
    for _ in 0..100_000 {
        replica.outgoing(Millis(2), &user(1), &nick(1), LEAVE);
    }
    // That was the end of something older: the room has not got the leave.
    replica.incoming(Millis(3), &user(0), &nick(0), YES);
    let actions = replica.tick(Millis(60_000)).list;
    let departs = |a: &Action| matches!(a, Action::Depart { session, .. } if **session == user(0));
    assert!(actions.iter().any(departs), "{actions:?}");
}

#[test]
fn whoever_the_new_epoch_has_named_is_not_told_that_he_is_out() {
    let mut replica = replica();
    replica.outgoing(Millis(0), &user(1), &format!("{ROOM}/n1"), JOIN);
    replica.setup(Millis(1), ROOM, &offer("e0", 1, &[user(0)]));
    replica.setup(Millis(2), ROOM, &offer("e1", 2, &[user(1)]));
    // It has a place no more, as if the replica had refused it: the room serves it plainly.
    let actions =
        replica.envelope(Millis(3), ROOM, "id", &envelope(1, vec![enter(1, &user(0)), leave(1)]));
    let evicted = actions.list.iter().any(|action| matches!(action, Action::Evict { .. }));
    assert!(!evicted, "{actions:?}");
}

#[test]
fn an_empty_slot_is_noted_only_if_somebody_misses_what_was_in_it() {
    let mut replica = replica();
    replica.setup(Millis(1), ROOM, &offer("e1", 1, &[user(0)]));
    let message = Facts(Facts::MESSAGE | Facts::GROUPCHAT);
    let given = cast(message).with("slot", 1_000_000);
    replica.envelope(Millis(2), ROOM, "id", &envelope(1, vec![given]));
    let before = told(&replica);
    // For somebody who has left: nobody misses anything.
    for seq in 2..8 {
        replica.outgoing(Millis(2), &user(seq), &format!("{ROOM}/n{seq}"), JOIN);
        let replay = Element::new("replay").with("i", seq - 1).with("slots", "1-100000");
        let ops = vec![enter(seq - 1, &user(seq)), leave(seq - 1), replay];
        let actions = replica.envelope(Millis(2), ROOM, "id", &envelope(seq, ops)).list;
        assert!(!matches!(actions.first(), Some(Action::Refuse { .. })), "{actions:?}");
    }
    assert!(told(&replica) < before + 10_000, "{}", told(&replica) - before);
}

/// What one stanza may take, also on a busy machine and in slow code. What it took before these
/// tests was from seconds in fast code to minutes.
const PATIENCE: Duration = Duration::from_secs(4);

#[test]
fn an_envelope_that_names_a_large_audience_again_and_again_takes_no_time() {
    const AUDIENCE: usize = 50_000;
    let mut replica = replica();
    let everybody: Vec<String> = (0..AUDIENCE).map(user).collect();
    replica.setup(Millis(1), ROOM, &offer("e1", AUDIENCE, &everybody));
    let all = Element { name: "only".into(), ..cast(Facts(0)).with("i", "0-49999") };
    let started = Instant::now();
    // As many as there is room for in a stanza of usual size.
    let actions = replica.envelope(Millis(2), ROOM, "id", &envelope(1, vec![all; 2600])).list;
    assert_eq!(delivered(&actions), 2600);
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}

#[test]
fn a_report_of_many_refusals_and_slots_takes_no_time() {
    const UNACKED: u32 = 20_000;
    let mut room = Room::new(ROOM, 1, Shared::new(Config::default())).expect("a room");
    let users: Vec<String> = (0..1000).map(user).collect();
    for user in &users {
        room.capture(Millis(1), user, Facts(Facts::PRESENCE | Facts::NICK));
    }
    room.event(Millis(1), Vec::new(), &[]);
    let set_up = room.support(Millis(1), B, true).list;
    let Some(Action::Setup { id, .. }) = set_up.first() else { panic!("{set_up:?}") };
    let accept = Element::new("link").with("epoch", id).with("max-bytes", 65536);
    let accept = accept.with("slots", 20_000).with("slot-bytes", 1 << 24);
    room.setup_result(Millis(1), B, id, Some(&accept));
    for n in 0..UNACKED {
        let to = &users[n as usize % 1000];
        // Half of them are kept in slots.
        let facts = Facts(if n % 2 == 0 { 0 } else { Facts::PRESENCE | Facts::NICK });
        let (nick, digest) = (n.to_string(), n.into());
        assert_eq!(room.capture(Millis(2), to, facts), Verdict::Hold);
        let payload = PayloadIn::New { bytes: vec![b'x'; 200], facts, nick, digest };
        room.event(Millis(2), vec![payload], &[(to, 0)]);
    }
    assert_eq!(room.status()[0].unacked, UNACKED as usize);
    let mut report = Element::new("report").with("epoch", id).with("ack", 0);
    for n in 1..=6500 {
        let refuse = Element::new("refuse").with("n", n).with("seq", 1).with("i", n % 1000);
        report.children.push(refuse);
    }
    let odd: Vec<String> = (0..60_000).map(|n| (2 * n + 1).to_string()).collect();
    report.children.push(Element::new("dropped").with("slots", odd.join(" ")));
    let started = Instant::now();
    let plain = room.report(Millis(3), B, &report).list;
    assert!(plain.len() >= UNACKED as usize / 2, "{}", plain.len());
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}
