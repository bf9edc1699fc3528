//! What is not as section 8 of the protocol says: of the room, of relays, and of replicas that ask.

mod sim;

use std::sync::Arc;

use dmuc_core::{Counter, Element, Payload};
use sim::scene::linked;
use sim::wood::{bodies, chain, fill, grown, levels, received, say, session, wood};
use sim::{Down, Up, World};

fn count(world: &World, home: usize, counter: Counter) -> u64 {
    world.homes[home].shared.counters.get(counter)
}

fn with<P>(mut element: Element<P>, name: &str, value: impl ToString) -> Element<P> {
    element.attrs.retain(|(known, _)| known != name);
    element.attrs.push((name.into(), value.to_string()));
    element
}

/// The next envelope of the link of a domain in the stream, with these operations; it says itself which it
/// is.
fn envelope(world: &mut World, home: usize, ops: Vec<Element<Payload>>) -> Element<Payload> {
    let copies = world.muc.whisper(&session(home as u8).1);
    world.happen(copies);
    let Some(Down::Envelope { id, body }) = world.homes[home].down.pop_back() else {
        panic!("no envelope");
    };
    let (epoch, seq) = id.split_once('.').expect("epoch and number");
    let body = Element { children: ops, ..(*body).clone() };
    with(with(body, "epoch", epoch), "seq", seq)
}

fn deliver(world: &mut World, home: usize, body: Element<Payload>) {
    let id = format!("{}.1", body.attr("epoch").expect("an epoch"));
    world.homes[home].down.push_back(Down::Envelope { id, body: Arc::new(body) });
    while world.arrive_down(home) {}
}

fn op(name: &str, domain: &str) -> Element<Payload> {
    Element::new(name).with("class", "anonymous").with("domain", domain)
}

#[test]
fn an_envelope_whose_number_is_not_what_has_been_counted_is_malformed() {
    for ahead in [0, 1] {
        let mut world = grown(1, &[]);
        let body = envelope(&mut world, 2, vec![op("child", "x.test")]);
        let seq = body.attr("seq").and_then(|seq| seq.parse::<u64>().ok()).expect("a number");
        deliver(&mut world, 2, with(body, "seq", seq + ahead));
        assert_eq!(count(&world, 2, Counter::Malformed), ahead);
    }
}

#[test]
fn an_operation_of_trees_that_is_not_alone_is_malformed() {
    let mut world = grown(1, &[]);
    let ops = ["x.test", "y.test"].map(|domain| op("child", domain)).into();
    let body = envelope(&mut world, 2, ops);
    deliver(&mut world, 2, body);
    assert_eq!(count(&world, 2, Counter::Malformed), 1);
}

#[test]
fn a_replica_has_no_more_children_than_it_has_offered() {
    let mut world = grown(1, &[]);
    let (near, _) = levels(&mut world);
    assert_eq!(count(&world, near[0], Counter::LimitHit), 0);
    let body = envelope(&mut world, near[0], vec![op("child", "x.test")]);
    deliver(&mut world, near[0], body);
    assert_eq!(count(&world, near[0], Counter::LimitHit), 1);
}

#[test]
fn a_part_that_cannot_be_taken_is_refused_as_a_whole() {
    let stream = Element::new("stream")
        .with("name", "s1")
        // Not on the curve.
        .with("key", "02".repeat(32))
        .with("secret", "07".repeat(32))
        .with("from", "0 0");
    for op in [stream, op("child", "x.test")] {
        let mut world = linked(3, &[]);
        let status = &world.primary.as_ref().expect("loaded").status()[0];
        let mut body = Element::new("envelope")
            .with("epoch", status.epoch.as_ref().expect("a link"))
            .with("seq", status.seq + 1);
        body.children.push(op);
        let before = world.homes[0].replica.as_ref().expect("loaded").status()[0].seq;
        deliver(&mut world, 0, body);
        assert_eq!(count(&world, 0, Counter::Malformed), 1);
        let after = world.homes[0].replica.as_ref().expect("loaded").status()[0].seq;
        assert_eq!(after, before, "it was not carried out");
    }
}

#[test]
fn what_has_come_already_is_dropped_before_its_signature_is_looked_at() {
    let mut world = grown(1, &[]);
    let (near, far) = levels(&mut world);
    say(&mut world, near[0] as u8);
    near.iter().for_each(|home| while world.arrive_down(*home) {});
    let child = far[0];
    let (from, body) = world.homes[child].aside[0].clone();
    world.arrive_aside(child, 0);
    let before = received(&world, child as u8);
    world.homes[child].aside.push_back((from, with(body, "signature", "00".repeat(64))));
    world.arrive_aside(child, 0);
    assert_eq!(received(&world, child as u8), before);
    assert_eq!(count(&world, child, Counter::ForgedCasts), 0);
}

#[test]
fn a_forgery_under_a_number_that_an_envelope_has_covered_is_not_passed_on() {
    for is_forged in [false, true] {
        let mut world = wood(1, &[("tree_fanout", 1)]);
        fill(&mut world);
        let chain = chain(&mut world);
        let relay = chain[1];
        let before = count(&world, relay, Counter::CastsRelayed);
        // Its own domain gets something in place of it.
        let copies = world.muc.away(&session(relay as u8).1);
        world.happen(copies);
        while world.arrive_down(chain[0]) || world.arrive_down(relay) {}
        if is_forged {
            let (_, body) = &mut world.homes[relay].aside[0];
            *body = with(body.clone(), "signature", "00".repeat(64));
        }
        world.arrive_aside(relay, 0);
        let relayed = count(&world, relay, Counter::CastsRelayed) - before;
        assert_eq!(relayed, u64::from(!is_forged));
    }
}

/// The casts on their way from the room to a domain.
fn casts(world: &World, home: usize) -> usize {
    bodies(world, home).iter().filter(|body| body.name == "relayed").count()
}

#[test]
fn what_is_missing_comes_bit_by_bit_however_much_is_asked_for() {
    let mut world = grown(1, &[]);
    let (near, far) = levels(&mut world);
    let child = far[0];
    for _ in 0..300 {
        say(&mut world, near[0] as u8);
        near.iter().for_each(|home| while world.arrive_down(*home) {});
        world.homes[child].aside.clear();
    }
    world.pass(3000);
    while world.arrive_down(child) {}
    world.pass(200);
    let mut asked: Vec<Up> = world.homes[child].up.drain(..).collect();
    let mut asks = 0;
    for up in &mut asked {
        let Up::Dmuc { body } = up else { continue };
        for missing in body.children.iter_mut().filter(|child| child.name == "missing") {
            let number = |name| missing.attr(name).and_then(|n| n.parse::<u64>().ok());
            let (first, last) = (number("first").expect("one"), number("last").expect("one"));
            assert_eq!(last - first + 1, 256, "it does not ask for more at once");
            *missing = with(missing.clone(), "last", last + 1000);
            asks += 1;
        }
    }
    assert_eq!(asks, 1);
    for (wait, answer) in [(0, 256), (99, 0), (1, 256)] {
        world.pass(wait);
        world.homes[child].down.clear();
        world.homes[child].up = asked.clone().into();
        while world.arrive_up(child) {}
        assert_eq!(casts(&world, child), answer, "after {wait} ms more");
    }
}

#[test]
fn how_far_the_stream_is_is_told_every_three_seconds() {
    let mut world = grown(1, &[("probe_after", 60_000)]);
    let (near, far) = levels(&mut world);
    let child = far[0];
    say(&mut world, near[0] as u8);
    for _ in 0..100 {
        world.pass(100);
    }
    let told = bodies(&world, child).iter().filter(|body| body.name == "newest").count();
    assert_eq!(told, 3);
}

#[test]
fn only_who_may_see_real_jids_is_in_the_tree_for_them() {
    let mut world = grown(1, &[]);
    let entitled = [1, 3, 5];
    let mut ops = Vec::new();
    let mut settle = |world: &mut World| {
        for _ in 0..30 {
            for home in 0..6 {
                let bodies = bodies(world, home);
                let all = bodies.iter().flat_map(|body| &body.children);
                let named = all.filter(|op| op.attr("class") == Some("full"));
                let named = named.filter(|op| ["parent", "child"].contains(&op.name.as_str()));
                ops.extend(named.map(|op| (home, op.attr("domain").map(str::to_owned))));
                while world.arrive_down(home) {}
                while world.arrive_up(home) {}
                while world.arrive_aside(home, 0) {}
            }
            world.pass(100);
        }
    };
    for home in entitled {
        let copies = world.muc.toggle(&session(home).1);
        world.happen(copies);
        settle(&mut world);
    }
    for n in [6, 7, 8, 9] {
        let copies = world.muc.away(&session(n).1);
        world.happen(copies);
        settle(&mut world);
    }
    // The first of all is a moderator.
    let may_see = |home: usize| home == 0 || entitled.contains(&(home as u8));
    assert!(ops.iter().any(|(_, domain)| domain.is_some()));
    for (home, domain) in ops {
        let named = domain.map(|domain| sim::wood::DOMAINS.iter().position(|d| *d == domain));
        assert!(may_see(home) && named.is_none_or(|named| may_see(named.expect("one of them"))));
    }
    assert_eq!(world.verdict(), Ok(()));
}
