//! Virtual time: what is to happen, wires that take their time, and processors that do one thing
//! after the other.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use fastrand::Rng;

/// Microseconds since the beginning.
pub type Micros = u64;

/// Events in the order of their time, and of their making if they are at once.
pub struct Agenda<E> {
    heap: BinaryHeap<Entry<E>>,
    made: u64,
}

struct Entry<E> {
    at: Micros,
    nth: u64,
    event: E,
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the greatest first.
        (other.at, other.nth).cmp(&(self.at, self.nth))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

impl<E> Agenda<E> {
    pub fn new() -> Self {
        Agenda { heap: BinaryHeap::new(), made: 0 }
    }

    pub fn add(&mut self, at: Micros, event: E) {
        self.made += 1;
        self.heap.push(Entry { at, nth: self.made, event });
    }

    /// The next event, if it is not after `until`.
    pub fn next(&mut self, until: Micros) -> Option<(Micros, E)> {
        self.heap.peek().filter(|entry| entry.at <= until)?;
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}

/// One direction of a stream: nothing overtakes.
pub struct Wire {
    latency: Micros,
    opened: Micros,
    arrived: Micros,
}

impl Wire {
    /// Both directions of a stream of about 40 ms, seldom more than 200, and some jitter.
    pub fn pair(rng: &mut Rng) -> [Self; 2] {
        let latency = Wire::latency(rng);
        [(); 2].map(|()| Wire::new(latency, 0))
    }

    /// One that is open from this time on.
    pub fn new(latency: Micros, opened: Micros) -> Self {
        Wire { latency, opened, arrived: 0 }
    }

    pub fn latency(rng: &mut Rng) -> Micros {
        // The sum of twelve is nearly normal: a log-normal distribution.
        let normal = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
        (40_000.0 * (0.6 * normal).exp()).clamp(2_000.0, 400_000.0) as Micros
    }

    /// From here on it takes so much longer.
    pub fn slow_down(&mut self, by: Micros) {
        self.latency += by;
    }

    /// When something arrives that is sent at this time.
    pub fn carry(&mut self, at: Micros, rng: &mut Rng) -> Micros {
        let jitter = rng.u64(0..=self.latency / 10);
        self.arrived = self.arrived.max(at.max(self.opened) + self.latency + jitter);
        self.arrived
    }
}

/// A processor.
#[derive(Default)]
pub struct Processor {
    free: Micros,
    rest: u64,
}

impl Processor {
    /// When work of so many nanoseconds is done that comes at this time.
    pub fn work(&mut self, at: Micros, nanos: u64) -> Micros {
        let nanos = nanos + if self.free >= at { self.rest } else { 0 };
        self.rest = nanos % 1000;
        self.free = self.free.max(at) + nanos / 1000;
        self.free
    }
}
