//! A room with users on up to 10 000 servers, as plain MUC and with dmuc on the same wires:
//! `cargo bench --package dmuc-core --bench scale`. Prints a table, which is the same every time;
//! `-- 1000` for so many servers.
//!
//! What crosses between servers is counted. Times are of the model in `tests/wide`: processors and
//! wires as slow as its constants say.

#[path = "../tests/wide/mod.rs"]
mod wide;

use wide::{Act, Figures, World, quantile};

/// Users of one server who come late, and how many servers have such.
const LATE: (u32, usize) = (10, 4);

fn main() {
    // Cargo says `--bench`; other words are names of benches in the other file.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let number = args.iter().find_map(|arg| arg.parse().ok());
    if number.is_none() && !args.is_empty() {
        return;
    }
    let servers: usize = number.unwrap_or(10_000);
    println!("plain / dmuc; ms from the room to the last recipient, of joins to the own presence");
    println!(
        "{:>7} {:>8} {:9} {:>20} {:>20} {:>19} {:>19} {:>15} {:>15}",
        "servers", "users", "", "stanzas down", "kB down", "stanzas up", "kB up", "median", "p99"
    );
    for spread in [even(servers / 100, 100), even(servers, 2), uneven(servers)] {
        compare(&spread);
    }
}

/// So many users on each server.
fn even(servers: usize, users: u32) -> Vec<u32> {
    vec![users; servers]
}

/// As servers are: few large ones, and many with one user or two (Zipf).
fn uneven(servers: usize) -> Vec<u32> {
    (1..=servers).map(|rank| (2 * servers / (5 * rank)).max(1) as u32).collect()
}

fn compare(spread: &[u32]) {
    let [plain, dmuc] = [false, true].map(|dmuc| play(spread, dmuc));
    let users: u32 = spread.iter().sum();
    for ((name, plain), (_, dmuc)) in plain.iter().zip(&dmuc) {
        let pair = |of: &dyn Fn(&Figures) -> u64| format!("{} / {}", of(plain), of(dmuc));
        let time = |part| {
            pair(&|f| match *name {
                "enter" | "join" => quantile(&f.answered, part) / 1000,
                _ => quantile(&f.to_last, part) / 1000,
            })
        };
        println!(
            "{:>7} {:>8} {:9} {:>20} {:>20} {:>19} {:>19} {:>15} {:>15}",
            spread.len(),
            users,
            name,
            pair(&|f| f.down.stanzas),
            pair(&|f| f.down.bytes / 1000),
            pair(&|f| f.up.stanzas),
            pair(&|f| f.up.bytes / 1000),
            time(0.5),
            time(0.99),
        );
    }
    for (name, Figures { questions, setups, ticks, ticks_of_replicas, waiting, .. }) in dmuc {
        println!(
            "{name:>26}: {questions} questions, {setups} set-ups; {ticks} ticks of the room, \
             {ticks_of_replicas} of replicas; {} kB waited at most",
            waiting / 1000
        );
    }
}

/// A day in the life of the room.
fn play(spread: &[u32], dmuc: bool) -> Vec<(&'static str, Figures)> {
    let (each, with_late) = LATE;
    let mut all = spread.to_vec();
    all.iter_mut().take(with_late).for_each(|users| *users += each);
    let mut world = World::new(&all, dmuc);
    let mut early = Vec::new();
    let mut late = Vec::new();
    let mut next = 0;
    for (of, users) in spread.iter().zip(&all) {
        early.extend(next..next + of);
        late.extend(next + of..next + users);
        next += users;
    }
    let some: Vec<u32> = (0..50).map(|n| early[n * 7919 % early.len()]).collect();
    let few = &some[..10];
    let mut figures = vec![("enter", world.play(Act::Join, &early, 3000, 20))];
    // One after the other, and as fast as people can.
    figures.push(("message", world.play(Act::Say, few, 10_000_000, 10)));
    figures.push(("burst", world.play(Act::Say, &some, 200_000, 60)));
    world.show();
    figures.push(("presence", world.play(Act::Away, few, 10_000_000, 10)));
    figures.push(("join", world.play(Act::Join, &late, 2_000_000, 60)));
    figures.push(("leave", world.play(Act::Leave, &late, 2_000_000, 60)));
    figures.push(("silence", world.play(Act::Say, &[], 0, 300)));
    assert_eq!(world.verdict(), Ok(()));
    figures
}
