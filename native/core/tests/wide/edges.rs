//! Streams between replicas, each opened when something is to go over it.
//!
//! A stream loses nothing by itself: what is lost is what is on the way when it breaks. The sender's
//! server opens another one when it has something to send again, and that waits for as long as it
//! takes.

use std::collections::HashMap;

use fastrand::Rng;

use super::net::{Micros, Wire};

/// Round trips until something can be sent over a new stream: TCP, TLS, two stream headers, and the
/// authentication between them.
const OPENING: u64 = 5;

pub struct Edges {
    rng: Rng,
    of: HashMap<(u32, u32), Edge>,
    /// Of a million casts, so many break the stream that they are sent over.
    pub breaks: u32,
}

struct Edge {
    latency: Micros,
    /// How many streams there have been, and the newest of them, if it is whole.
    streams: u32,
    wire: Option<Wire>,
}

impl Edges {
    pub fn new(seed: u64) -> Self {
        Edges { rng: Rng::with_seed(seed), of: HashMap::new(), breaks: 0 }
    }

    /// When something arrives that is sent at this time, and over which stream. The stream may break
    /// before: then this is lost and all else that is on its way.
    pub fn carry(&mut self, from: u32, to: u32, at: Micros) -> (u32, Micros) {
        let rng = &mut self.rng;
        let edge = self.of.entry((from, to)).or_insert_with(|| Edge {
            latency: Wire::latency(rng),
            streams: 0,
            wire: None,
        });
        let stream = edge.streams;
        let wire = edge.wire.get_or_insert_with(|| {
            let opened = at + OPENING * 2 * edge.latency;
            Wire::new(edge.latency, opened)
        });
        let arrives = wire.carry(at, rng);
        if rng.u32(..1_000_000) < self.breaks {
            edge.streams += 1;
            edge.wire = None;
        }
        (stream, arrives)
    }

    /// Whether what was sent over this stream has not been lost with it.
    pub fn is_whole(&self, from: u32, to: u32, stream: u32) -> bool {
        self.of.get(&(from, to)).is_some_and(|edge| edge.streams == stream)
    }
}
