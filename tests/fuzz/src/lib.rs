//! What a hostile peer may send, made up by a fuzzer.
//!
//! Every target takes bytes, of which it makes what happens to one or both ends of the protocol, and
//! panics if an end breaks one of its promises. `cargo xtask fuzz` runs them under libFuzzer with inputs
//! of its making, `cargo test --package dmuc-fuzz` with those that are kept in `corpus/`.

mod flood;
mod heap;
mod home;
mod hostile_primary;
mod hostile_replica;
mod invent;
mod pair;
mod people;
mod readers;
mod script;
#[path = "../../../native/core/tests/sim/mod.rs"]
mod sim;
mod world;

/// One of the targets.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its directory in `corpus/`.
    pub name: &'static str,
    /// What it is about.
    pub meaning: &'static str,
    /// Takes one input.
    ///
    /// # Panics
    ///
    /// If the core is at fault.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "readers", meaning: "texts, elements, records of consent", run: readers::run },
    Target {
        name: "primary",
        meaning: "a hostile primary against a replica",
        run: hostile_primary::run,
    },
    Target {
        name: "replica",
        meaning: "a hostile replica against a room",
        run: hostile_replica::run,
    },
    Target {
        name: "pair",
        meaning: "a room and a replica with a hostile wire between",
        run: pair::run,
    },
    Target { name: "flood", meaning: "either end, the same things over and over", run: flooded },
];

/// Repeats part of an input until the heap must be as large as it will ever be.
fn flooded(data: &[u8]) {
    match data.split_first() {
        Some((side, rest)) if side % 2 == 0 => hostile_primary::flood(rest),
        Some((_, rest)) => hostile_replica::flood(rest),
        None => {}
    }
}
