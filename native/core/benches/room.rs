//! What the core costs, by occupants and servers of a room: `cargo bench --package dmuc-core --bench room`.
//!
//! The columns of allocations are per call; `fill` shows by them what a room keeps.

#[allow(dead_code, reason = "the other bench uses the rest")]
mod kit;

use std::cell::RefCell;

use divan::{AllocProfiler, Bencher};
use dmuc_core::{Action, Element, Incoming, Replica, Room};
use kit::{MESSAGE, NOW, PRESENCE, Primary, ROOM, TO_ALL, carried, linked_replica, write};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// Occupants, and servers that they are spread over.
const SIZES: &[(usize, usize)] =
    &[(100, 5), (1000, 5), (1000, 50), (10_000, 5), (10_000, 50), (10_000, 500), (10_000, 5000)];

/// Servers with two occupants each.
const SERVERS: &[usize] = &[100, 1000, 10_000];

/// Occupants of one replica.
const AUDIENCES: &[usize] = &[2, 20, 200, 2000, 10_000];

fn main() {
    divan::main();
}

/// One message to everybody.
#[divan::bench(args = SIZES)]
fn message(bencher: Bencher<'_, '_>, (occupants, servers): (usize, usize)) {
    let mut primary = Primary::linked(occupants, servers);
    let sessions = primary.sessions.clone();
    let to: Vec<&str> = sessions.iter().map(String::as_str).collect();
    bencher.counter(occupants).bench_local(|| primary.broadcast(&to, MESSAGE));
}

/// The same down to the XML of every envelope.
#[divan::bench(args = SIZES)]
fn message_written(bencher: Bencher<'_, '_>, (occupants, servers): (usize, usize)) {
    let mut primary = Primary::linked(occupants, servers);
    let sessions = primary.sessions.clone();
    let to: Vec<&str> = sessions.iter().map(String::as_str).collect();
    bencher.counter(occupants).bench_local(|| write(&primary.broadcast(&to, MESSAGE)));
}

/// The same by room trees: sixteen casts go out, whatever the number of servers.
#[divan::bench(args = SERVERS)]
fn message_by_trees(bencher: Bencher<'_, '_>, servers: usize) {
    let mut primary = Primary::grown(2 * servers, servers);
    let sessions = primary.sessions.clone();
    let to: Vec<&str> = sessions.iter().map(String::as_str).collect();
    bencher.counter(servers).bench_local(|| primary.broadcast(&to, TO_ALL));
}

/// One message of the same room without them.
#[divan::bench(args = SERVERS)]
fn message_without_trees(bencher: Bencher<'_, '_>, servers: usize) {
    let mut primary = Primary::linked(2 * servers, servers);
    let sessions = primary.sessions.clone();
    let to: Vec<&str> = sessions.iter().map(String::as_str).collect();
    bencher.counter(servers).bench_local(|| primary.broadcast(&to, TO_ALL));
}

/// The acknowledgements of one message by trees.
#[divan::bench(args = SERVERS)]
fn window_by_trees(bencher: Bencher<'_, '_>, servers: usize) {
    acknowledged(bencher, Primary::grown(2 * servers, servers), servers);
}

/// And of one without.
#[divan::bench(args = SERVERS)]
fn window_without_trees(bencher: Bencher<'_, '_>, servers: usize) {
    acknowledged(bencher, Primary::linked(2 * servers, servers), servers);
}

fn acknowledged(bencher: Bencher<'_, '_>, primary: Primary, servers: usize) {
    let primary = RefCell::new(primary);
    let sessions = primary.borrow().sessions.clone();
    let to: Vec<&str> = sessions.iter().map(String::as_str).collect();
    let said = || {
        let mut primary = primary.borrow_mut();
        primary.broadcast(&to, TO_ALL);
        primary.reports()
    };
    bencher.counter(servers).with_inputs(said).bench_local_values(|reports| {
        let room = &mut primary.borrow_mut().room;
        for (domain, report) in &reports {
            room.report(NOW, domain, report);
        }
        reports
    });
}

/// The acknowledgements of one message: what is kept of it goes.
#[divan::bench(args = SIZES)]
fn window(bencher: Bencher<'_, '_>, (occupants, servers): (usize, usize)) {
    let primary = RefCell::new(Primary::linked(occupants, servers));
    let sessions = primary.borrow().sessions.clone();
    let to: Vec<&str> = sessions.iter().map(String::as_str).collect();
    let said = || {
        let mut primary = primary.borrow_mut();
        primary.broadcast(&to, MESSAGE);
        primary.reports()
    };
    bencher.counter(occupants).with_inputs(said).bench_local_values(|reports| {
        let room = &mut primary.borrow_mut().room;
        for (domain, report) in &reports {
            room.report(NOW, domain, report);
        }
        reports
    });
}

/// A join at a server that has the list already: it goes by number.
#[divan::bench(args = SIZES)]
fn replay_written(bencher: Bencher<'_, '_>, (occupants, servers): (usize, usize)) {
    let primary = RefCell::new(Primary::linked(occupants, servers));
    let sessions = primary.borrow().sessions.clone();
    let to: Vec<&str> = sessions.iter().map(String::as_str).collect();
    primary.borrow_mut().join("early@s0.test/r", &to);
    let away = || {
        primary.borrow_mut().leave("late@s0.test/r", &to);
        primary.borrow_mut().acknowledge();
    };
    let join = |()| primary.borrow_mut().join("late@s0.test/r", &to);
    bencher.counter(occupants).with_inputs(away).bench_local_values(join);
}

/// What a replica makes of it.
#[divan::bench(args = AUDIENCES)]
fn replay(bencher: Bencher<'_, '_>, occupants: usize) {
    let mut replica = linked_replica(occupants);
    let mut seq = fill_slots(&mut replica, occupants);
    bencher.counter(occupants).bench_local(|| {
        seq += 1;
        let slots = Element::new("replay").with("i", 0).with("slots", format!("1-{occupants}"));
        let mut envelope = Element::new("envelope").with("epoch", "e").with("seq", seq);
        envelope.children.push(slots);
        let actions = replica.envelope(NOW, ROOM, &format!("dmuc-e.{seq}"), &envelope);
        assert!(
            matches!(&actions.list[0], Action::Replay { stanzas, .. } if stanzas.len() == occupants)
        );
        actions
    });
}

/// A join, with the list of occupants and the others' presences, and a leave.
#[divan::bench(args = SIZES)]
fn join_leave(bencher: Bencher<'_, '_>, (occupants, servers): (usize, usize)) {
    let mut primary = Primary::linked(occupants, servers);
    let sessions = primary.sessions.clone();
    let to: Vec<&str> = sessions.iter().map(String::as_str).collect();
    bencher.counter(occupants).bench_local(|| {
        primary.join("late@s0.test/r", &to);
        primary.leave("late@s0.test/r", &to);
    });
}

/// A room from nobody to linked with all servers.
#[divan::bench(args = SIZES)]
fn fill(bencher: Bencher<'_, '_>, (occupants, servers): (usize, usize)) {
    bencher.counter(occupants).bench_local(|| Primary::linked(occupants, servers));
}

/// An envelope with one message, read and carried out by a replica.
#[divan::bench(args = AUDIENCES)]
fn deliver(bencher: Bencher<'_, '_>, occupants: usize) {
    let mut replica = linked_replica(occupants);
    let mut seq = 0;
    bencher.counter(occupants).bench_local(|| {
        seq += 1;
        let mut cast = Element::new("cast").with("n", seq);
        cast.payload = Some(carried(MESSAGE));
        let mut envelope = Element::new("envelope").with("epoch", "e").with("seq", seq);
        envelope.children.push(cast);
        let actions = replica.envelope(NOW, ROOM, &format!("dmuc-e.{seq}"), &envelope);
        assert!(matches!(&actions.list[0], Action::Deliver { to, .. } if to.len() == occupants));
        actions
    });
}

/// Rooms, and occupants of each at one server.
const ROOMS: &[(usize, usize)] = &[(1, 500), (1, 5000), (200, 100)];

/// What primaries keep of rooms whose replica holds the list: see the most that is allocated.
#[divan::bench(args = ROOMS, sample_count = 3)]
fn keep_primary((rooms, occupants): (usize, usize)) -> Vec<Room> {
    let rooms = (0..rooms).map(|_| {
        let mut primary = Primary::linked(occupants, 1);
        let sessions = primary.sessions.clone();
        let to: Vec<&str> = sessions.iter().map(String::as_str).collect();
        primary.join("late@s0.test/r", &to);
        primary.acknowledge();
        primary.room
    });
    rooms.collect()
}

/// What a replica keeps of such rooms, with stanzas of 670 bytes.
#[divan::bench(args = ROOMS, sample_count = 3)]
fn keep_replica((rooms, occupants): (usize, usize)) -> Vec<Replica> {
    let rooms = (0..rooms).map(|_| {
        let mut replica = linked_replica(occupants);
        fill_slots(&mut replica, occupants);
        replica
    });
    rooms.collect()
}

/// Presences shown to so many servers.
const SHOWN: &[(usize, usize)] = &[(1000, 5), (1000, 50), (100, 500)];

/// What a primary keeps of presences that everybody was shown, beside the occupants.
#[divan::bench(args = SHOWN, sample_count = 3)]
fn keep_slots((presences, servers): (usize, usize)) -> Room {
    let mut primary = Primary::linked(2 * servers, servers);
    let sessions = primary.sessions.clone();
    let to: Vec<&str> = sessions.iter().map(String::as_str).collect();
    for _ in 0..presences {
        primary.broadcast(&to, PRESENCE);
    }
    primary.acknowledge();
    primary.room
}

/// Stanzas of 670 bytes, one for each slot; how many envelopes they took.
fn fill_slots(replica: &mut Replica, slots: usize) -> usize {
    for first in (0..slots).step_by(400) {
        let mut envelope = Element::new("envelope").with("epoch", "e");
        envelope = envelope.with("seq", first / 400 + 1);
        envelope.children.extend((first..slots.min(first + 400)).map(|n| {
            let mut only = Element::new("only").with("i", 0).with("slot", n + 1);
            let packed = Some(vec![b'x'; 670].into());
            only.payload = Some(Incoming { packed, ..carried(PRESENCE) });
            only
        }));
        let actions = replica.envelope(NOW, ROOM, "dmuc-e.1", &envelope);
        assert!(matches!(actions.list[0], Action::Deliver { .. }));
    }
    slots.div_ceil(400)
}
