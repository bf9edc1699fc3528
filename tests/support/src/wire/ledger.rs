//! What a wire has seen.

use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Direction;
use crate::framing::Frame;

/// The beginning of the list of addresses in a stanza for several recipients (XEP-0033).
const ADDRESSES: &str = "<addresses";

/// A stanza that crossed.
#[derive(Clone, Debug)]
pub struct Record {
    /// The name of the server that sent it.
    pub from: String,
    /// The name of the server that it was sent to.
    pub to: String,
    /// `message`, `presence` or `iq`.
    pub name: String,
    /// Its bytes as they were on the wire. The default namespace is the stream's.
    pub xml: String,
    /// When the wire had read all of it.
    pub at: Instant,
}

/// Sums over one direction or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Message stanzas.
    pub messages: u64,
    /// Presence stanzas.
    pub presences: u64,
    /// IQ stanzas.
    pub iqs: u64,
    /// Those among these that carry addresses of their own (XEP-0033).
    pub addressed: u64,
    /// Bytes of XML in all of these.
    pub stanza_bytes: u64,
    /// Elements that are not stanzas: negotiation, stream management.
    pub others: u64,
    /// Bytes of XML in those, and of stream headers and white space.
    pub other_bytes: u64,
    /// Bytes read from the sender's socket, TLS and negotiation included.
    pub raw_bytes: u64,
    /// Connections that got as far as TLS, counted for the side that opened them.
    pub connections: u64,
}

impl Counters {
    /// Messages, presences and iqs together.
    pub fn stanzas(&self) -> u64 {
        self.messages + self.presences + self.iqs
    }
}

impl Add for Counters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            messages: self.messages + other.messages,
            presences: self.presences + other.presences,
            iqs: self.iqs + other.iqs,
            addressed: self.addressed + other.addressed,
            stanza_bytes: self.stanza_bytes + other.stanza_bytes,
            others: self.others + other.others,
            other_bytes: self.other_bytes + other.other_bytes,
            raw_bytes: self.raw_bytes + other.raw_bytes,
            connections: self.connections + other.connections,
        }
    }
}

/// The book that all connections of a wire write in.
pub(crate) struct Ledger {
    names: [String; 2],
    raw: [Arc<AtomicU64>; 2],
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    counters: [Counters; 2],
    records: Vec<Record>,
    counting_only: bool,
    faults: Vec<String>,
}

impl Ledger {
    pub(crate) fn new(names: [String; 2]) -> Self {
        Self { names, raw: Default::default(), pages: Mutex::default() }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counter for bytes on the socket that come from the sender of `direction`.
    pub(crate) fn raw(&self, direction: Direction) -> Arc<AtomicU64> {
        self.raw[direction as usize].clone()
    }

    pub(crate) fn connected(&self, direction: Direction) {
        self.pages().counters[direction as usize].connections += 1;
    }

    pub(crate) fn note(&self, direction: Direction, frames: Vec<Frame>) {
        let at = Instant::now();
        let mut pages = self.pages();
        for frame in frames {
            let counters = &mut pages.counters[direction as usize];
            let stanza = frame.is_stanza();
            match frame {
                Frame::Element { name, xml } if stanza => {
                    match &*name {
                        "message" => counters.messages += 1,
                        "presence" => counters.presences += 1,
                        _ => counters.iqs += 1,
                    }
                    counters.addressed += u64::from(xml.contains(ADDRESSES));
                    counters.stanza_bytes += xml.len() as u64;
                    if !pages.counting_only {
                        let from = self.names[direction as usize].clone();
                        let to = self.names[direction.reverse() as usize].clone();
                        pages.records.push(Record { from, to, name, xml, at });
                    }
                }
                Frame::Element { xml, .. } => {
                    counters.others += 1;
                    counters.other_bytes += xml.len() as u64;
                }
                Frame::Header { xml, .. } => counters.other_bytes += xml.len() as u64,
                Frame::Space(len) => counters.other_bytes += len as u64,
                Frame::Footer => {}
            }
        }
    }

    pub(crate) fn fault(&self, direction: Direction, fault: &anyhow::Error) {
        let from = &self.names[direction as usize];
        self.pages().faults.push(format!("connection from {from}: {fault:#}"));
    }

    pub(crate) fn set_recording(&self, recording: bool) {
        self.pages().counting_only = !recording;
    }

    pub(crate) fn counters(&self, direction: Direction) -> Counters {
        let mut counters = self.pages().counters[direction as usize];
        counters.raw_bytes = self.raw[direction as usize].load(Ordering::Relaxed);
        counters
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.pages().records.clone()
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.pages().faults.clone()
    }

    pub(crate) fn reset(&self) {
        let mut pages = self.pages();
        pages.counters = Default::default();
        pages.records.clear();
        for raw in &self.raw {
            raw.store(0, Ordering::Relaxed);
        }
    }
}
