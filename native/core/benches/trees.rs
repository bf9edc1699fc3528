//! A tree of up to 10 000 replicas: `cargo bench --package dmuc-core --bench trees`. Prints a table,
//! which is the same every time, and what signatures cost on this machine; `-- 1000` for fewer.

#[path = "../tests/grove/mod.rs"]
mod grove;

use std::hint::black_box;
use std::time::Instant;

use dmuc_core::Class;
use dmuc_core::tree::{Cast, RoomKey, RoomLock, Stream, canonical};
use grove::{Figures, World};

const SECOND: u64 = 1_000_000;
/// Casts of each part.
const CASTS: u64 = 20;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let number = args.iter().find_map(|arg| arg.parse().ok());
    if number.is_none() && !args.is_empty() {
        return;
    }
    let replicas: usize = number.unwrap_or(10_000);
    println!(
        "{:>8} {:14} {:>5} {:>12} {:>8} {:>8} {:>7} {:>10} {:>10} {:>10}",
        "replicas",
        "",
        "depth",
        "casts/message",
        "repaired",
        "asked",
        "moves",
        "median ms",
        "p99 ms",
        "last ms"
    );
    let mut world = World::new(replicas, 1);
    for _ in 0..CASTS {
        world.cast();
        world.pass(SECOND);
    }
    print(&mut world, "sound");

    world.loss = 10_000;
    for _ in 0..CASTS {
        world.cast();
        world.pass(SECOND);
    }
    world.pass(3 * SECOND);
    print(&mut world, "loss 1 %");
    world.loss = 0;

    for n in 0..CASTS as usize {
        for member in world.alive().into_iter().skip(n).step_by(200) {
            world.kill(member);
        }
        for _ in 0..replicas / 200 {
            world.join();
        }
        world.cast();
        world.pass(SECOND);
    }
    world.pass(5 * SECOND);
    print(&mut world, "churn 1 %/s");

    for member in world.alive().into_iter().step_by(2) {
        world.kill(member);
    }
    for _ in 0..5 {
        world.cast();
        world.pass(SECOND);
    }
    world.pass(3 * SECOND);
    print(&mut world, "half of it dead");
    for _ in 0..CASTS {
        world.cast();
        world.pass(SECOND);
    }
    print(&mut world, "and then");
    signatures();
}

fn print(world: &mut World, name: &str) {
    assert!(world.is_whole(), "{name}: somebody misses something");
    let alive = world.alive().len();
    let depth = world.depth();
    let Figures { casts, egress, repaired, asked, moves, took, to_last, .. } = world.take();
    let at = |part: f64| took.get((took.len() as f64 * part) as usize).copied().unwrap_or(0) / 1000;
    let last = to_last.last().copied().unwrap_or(0) / 1000;
    println!(
        "{alive:>8} {name:14} {depth:>5} {:>12.1} {repaired:>8} {asked:>8} {moves:>7} {:>10} {:>10} {last:>10}",
        egress as f64 / casts as f64,
        at(0.5),
        at(0.99),
    );
}

/// What a cast costs beside, once where it is made and once at each replica of a tree.
fn signatures() {
    let key = RoomKey::new(&[1; 32]);
    let lock = RoomLock::new(&key.public()).expect("a key");
    let stream =
        Stream { room: "square@conference.a.test".into(), epoch: "fWf6fr99OYtDZsgl".into() };
    let cast = Cast { class: Class::Anonymous, number: 1, other: 0, only: None, digest: [7; 32] };
    let signature = key.sign(&stream, &cast, &[]);
    let each = |name, work: &mut dyn FnMut()| {
        let start = Instant::now();
        for _ in 0..2000 {
            work();
        }
        println!("{name}: {:.1} us", start.elapsed().as_secs_f64() * 1e6 / 2000.0);
    };
    each("sign", &mut || {
        black_box(key.sign(&stream, black_box(&cast), &[]));
    });
    each("check", &mut || assert!(lock.fits(&stream, black_box(&cast), &[], &signature)));
    let stanza = b"<message from='square@conference.a.test/Anne' type='groupchat' id='kit-2'>\
        <stanza-id xmlns='urn:xmpp:sid:0' by='square@conference.a.test' id='1'/>\
        <body>Hello, everybody. Is there anything new that I should know about?</body></message>";
    each("canonical form", &mut || assert!(canonical(black_box(stanza)).is_ok()));
}
