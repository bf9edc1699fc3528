//! A room with two users on each of up to 10 000 servers, with room trees and without, on the same wires:
//! `cargo bench --package dmuc-core --bench trees`. Prints a table, which is the same every time;
//! `-- 1000` for so many servers; and `-- cost` for what signatures cost on this machine instead.
//!
//! The core is the real one at both ends of every link, with real signatures. Servers, users and wires
//! are those of `tests/wide`: times are of processors and wires as slow as its constants say.

#[allow(dead_code, reason = "the other bench uses the rest")]
mod kit;
#[path = "../tests/wide/mod.rs"]
mod wide;

use std::hint::black_box;
use std::time::Instant;

use dmuc_core::Class;
use dmuc_core::tree::{Cast, LinkKey, RoomKey, RoomLock, Stream, Tag, canonical};
use kit::{Primary, TO_ALL};
use wide::{Act, Figures, World, quantile};

const SECOND: u64 = 1_000_000;

fn main() {
    // Cargo says `--bench`; other words are names of benches in the other files.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let number = args.iter().find_map(|arg| arg.parse().ok());
    if args == ["cost"] {
        return cost();
    }
    if number.is_none() && !args.is_empty() {
        return;
    }
    let servers: u32 = number.unwrap_or(10_000);
    println!(
        "for each message: stanzas of the room's server with it, kB of these and of all that it sends, casts \
         of replicas; in all: casts lost, questions, casts sent again; ms from the room to each user"
    );
    println!(
        "{:26} {:>5} {:>17} {:>7} {:>7} {:>10} {:>6} {:>6} {:>7} {:>6} {:>6} {:>6} {:>6}",
        "",
        "depth",
        "out",
        "kB",
        "kB all",
        "passed on",
        "lost",
        "asked",
        "again",
        "kB",
        "p50",
        "p99",
        "last"
    );
    let mut plain = World::new(&vec![2; servers as usize], true);
    let all: Vec<u32> = (0..2 * servers).collect();
    plain.play(Act::Join, &all, 1000, 20);
    say(&mut plain, "without trees", 20, 10);
    drop(plain);

    // Servers beyond are there for those who come later.
    let mut world = World::new(&vec![2; servers as usize + 100], true);
    world.grow(&[("tree_domains", servers.into())]);
    world.play(Act::Join, &all, 1000, 20);
    say(&mut world, "the first with trees", 1, 10);
    say(&mut world, "streams are opened", 1, 10);
    say(&mut world, "with trees", 20, 10);
    world.play(Act::Say, &[], 0, 130);
    say(&mut world, "after two minutes' silence", 5, 10);
    world.break_streams(10_000);
    say(&mut world, "1 % of casts break streams", 20, 10);
    world.break_streams(0);
    say(&mut world, "and then", 5, 10);

    let mut come = 2 * servers;
    let mut churn = Figures::default();
    for n in 0..20 {
        let relays = world.relays();
        // There are none for a while when casts go to each directly.
        let nth = |k: usize| (n * 31 + k * 7919) % relays.len().max(1);
        let gone: Vec<u32> = (0..5).filter_map(|k| relays.get(nth(k)).copied()).collect();
        world.vanish(&gone);
        let living = world.living();
        let who = living[n * 149 % living.len()];
        churn.merge(world.play(Act::Say, &[who], 0, 0));
        let coming: Vec<u32> = (come..come + 10).collect();
        come += 10;
        churn.merge(world.play(Act::Join, &coming, 1000, 1));
    }
    churn.merge(world.play(Act::Say, &[], 0, 60));
    print(&world, "5 go and come each second", &churn);
    say(&mut world, "and then", 5, 10);

    let relays = world.relays();
    let half: Vec<u32> = relays.iter().copied().step_by(2).collect();
    world.vanish(&half);
    let after = say(&mut world, "half of the relays vanish", 25, 10);
    world.play(Act::Say, &[], 0, 120);
    say(&mut world, "two minutes later", 1, 10);
    say(&mut world, "and then", 5, 10);
    println!(
        "{} of {} relays have vanished; the last cast was sent again {:.1} s later",
        half.len(),
        relays.len(),
        after.last_repair as f64 / 1e6,
    );
}

/// So many messages, one a second, and what comes of them in so many seconds after.
fn say(world: &mut World, name: &str, n: usize, rest: u64) -> Figures {
    let living = world.living();
    let who: Vec<u32> = (0..n).map(|n| living[n * 149 % living.len()]).collect();
    let figures = world.play(Act::Say, &who, SECOND, rest);
    print(world, name, &figures);
    figures
}

fn print(world: &World, name: &str, figures: &Figures) {
    assert_eq!(world.verdict(), Ok(()), "{name}");
    let messages = figures.out.len() as u64;
    let at = |part| quantile(&figures.took, part) / 1000;
    println!(
        "{name:26} {:>5} {:>17} {:>7.1} {:>7.1} {:>10} {:>6} {:>6} {:>7} {:>6} {:>6} {:>6} {:>6}",
        figures.depth,
        format!("{} to {}", quantile(&figures.out, 0.0), quantile(&figures.out, 1.0)),
        figures.with_stanza as f64 / 1000.0 / messages as f64,
        figures.down.bytes as f64 / 1000.0 / messages as f64,
        figures.aside.stanzas / messages,
        figures.lost,
        figures.asked,
        figures.repaired.stanzas,
        figures.repaired.bytes / 1000,
        at(0.5),
        at(0.99),
        at(1.0),
    );
}

/// What a cast costs beside, once where it is made and once at each replica of a tree; and what a room
/// pays for a message with trees and without.
fn cost() {
    let key = RoomKey::new(&[1; 32]);
    let lock = RoomLock::new(&key.public()).expect("a key");
    let stream =
        Stream { room: "square@conference.a.test".into(), epoch: "fWf6fr99OYtDZsgl".into() };
    let cast = Cast { class: Class::Anonymous, number: 1, other: 0, only: None, digest: [7; 32] };
    let links: Vec<LinkKey> = (0..64).map(|n| LinkKey::new([n; 32])).collect();
    println!("{:40} {:>10}", "", "ns");
    for barriers in [0, 1, 16, 64] {
        let tags = || -> Vec<Tag> {
            let links = links.iter().take(barriers);
            links.map(|link| link.tag(&stream, cast.class, cast.number, 5)).collect()
        };
        let made = tags();
        let signature = key.sign(&stream, &cast, &made);
        each(&format!("make {barriers} barriers"), 20, || {
            black_box(tags());
        });
        each(&format!("sign a cast with {barriers}"), 20, || {
            black_box(key.sign(&stream, black_box(&cast), &made));
        });
        each(&format!("check its signature, {barriers} barriers"), 20, || {
            assert!(lock.fits(&stream, black_box(&cast), &made, &signature));
        });
        each(&format!("look for the own one among {barriers}"), 20, || {
            black_box(links[63].find(&stream, cast.class, cast.number, black_box(&made)));
        });
    }
    let stanza = b"<message from='square@conference.a.test/Anne' type='groupchat' id='kit-2'>\
        <stanza-id xmlns='urn:xmpp:sid:0' by='square@conference.a.test' id='1'/>\
        <body>Hello, everybody. Is there anything new that I should know about?</body></message>";
    each("canonical form of a message", 20, || assert!(canonical(black_box(stanza)).is_ok()));
    const SERVERS: usize = 1000;
    let rooms = [
        ("no trees at this host", Primary::linked(2 * SERVERS, SERVERS)),
        ("too few servers for trees", Primary::ungrown(2 * SERVERS, SERVERS)),
        ("with trees", Primary::grown(2 * SERVERS, SERVERS)),
    ];
    println!("a message to 1000 servers with two occupants each, by server:");
    // In turns, so that what else the machine does is the same for all.
    let mut rooms = rooms.map(|(name, primary)| (name, primary, u64::MAX));
    for _ in 0..101 {
        for (_, primary, least) in &mut rooms {
            let sessions = primary.sessions.clone();
            let to: Vec<&str> = sessions.iter().map(String::as_str).collect();
            let start = Instant::now();
            black_box(primary.broadcast(&to, TO_ALL));
            *least = (*least).min(start.elapsed().as_nanos() as u64 / SERVERS as u64);
            primary.acknowledge();
        }
    }
    for (name, _, least) in rooms {
        println!("{name:40} {least:>10}");
    }
}

/// The fastest of many: the machine may do other things.
fn each(name: &str, times: u32, mut work: impl FnMut()) {
    let batch = || {
        let start = Instant::now();
        (0..times).for_each(|_| work());
        start.elapsed().as_nanos() as u64 / u64::from(times)
    };
    let took: Vec<u64> = std::iter::repeat_with(batch).take(301).collect();
    println!("{name:40} {:>10}", quantile(&took, 0.0));
}
