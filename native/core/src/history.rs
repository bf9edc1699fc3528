//! What was saved over time: for each minute of the last day what the links of a host carried, and what
//! that took.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::{Counter, Counters, Millis};

/// Time of one sample, in milliseconds.
const MINUTE: u64 = 60_000;
/// Samples that are kept: a day of them, 32 bytes each.
const KEPT: usize = 24 * 60;

/// What links carried and took, of a span of time or in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Copies that plain MUC would have sent: those carried by the primary, those delivered by the replica.
    pub carried: u64,
    /// Stanzas for links at the primary, envelopes at the replica.
    pub stanzas: u64,
    /// Bytes of the carried copies, at the primary only.
    pub carried_bytes: u64,
    /// Bytes of the stanzas for links, at the primary only.
    pub bytes: u64,
}

impl Traffic {
    /// All since the start.
    pub(crate) fn total(counters: &Counters) -> Self {
        let of = |counter| counters.get(counter);
        Traffic {
            carried: of(Counter::CopiesCarried) + of(Counter::CopiesDelivered),
            stanzas: of(Counter::LinkStanzas) + of(Counter::EnvelopesReceived),
            carried_bytes: of(Counter::CarriedBytes),
            bytes: of(Counter::LinkBytes),
        }
    }

    /// What has come since.
    fn since(self, before: Self) -> Self {
        Traffic {
            carried: self.carried.saturating_sub(before.carried),
            stanzas: self.stanzas.saturating_sub(before.stanzas),
            carried_bytes: self.carried_bytes.saturating_sub(before.carried_bytes),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.carried += other.carried;
        self.stanzas += other.stanzas;
        self.carried_bytes += other.carried_bytes;
        self.bytes += other.bytes;
    }
}

/// Spans of the past, the newest first. That one is still running.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    /// Milliseconds for which the newest has been running.
    pub running: u64,
    /// What was carried in each.
    pub spans: Vec<Traffic>,
}

/// The samples of a host.
#[derive(Debug, Default)]
pub struct History(Mutex<Samples>);

#[derive(Debug, Default)]
struct Samples {
    /// When the newest sample ended, and what there was in all until then.
    last: Option<(Millis, Traffic)>,
    /// Number of samples ever taken: spans begin at its multiples, so that they do not move with time.
    taken: u64,
    /// The newest last.
    kept: VecDeque<Traffic>,
}

impl History {
    /// Takes the samples that are due. What came in a time without calls counts for its first minute.
    pub(crate) fn sample(&self, now: Millis, total: Traffic) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // There was nothing before the first.
        let (mut end, mut before) = samples.last.unwrap_or((now, Traffic::default()));
        let due = now.since(end) / MINUTE;
        // More would push each other out again.
        for _ in 0..due.min(KEPT as u64 + 1) {
            samples.kept.push_back(total.since(before));
            before = total;
        }
        samples.taken += due;
        end = end + due * MINUTE;
        samples.last = Some((end, before));
        let surplus = samples.kept.len().saturating_sub(KEPT);
        samples.kept.drain(..surplus);
    }

    /// At most `most` spans of `minutes` each.
    pub(crate) fn spans(&self, now: Millis, total: Traffic, minutes: u64, most: usize) -> Spans {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((end, before)) = samples.last else { return Spans::default() };
        let number = |sample: u64| sample / minutes;
        let newest = number(samples.taken);
        let mut spans = vec![total.since(before)];
        for (sample, traffic) in (0..samples.taken).rev().zip(samples.kept.iter().rev()) {
            let place = (newest - number(sample)) as usize;
            if place >= most {
                break;
            }
            if place == spans.len() {
                spans.push(Traffic::default());
            }
            spans[place] += *traffic;
        }
        Spans { running: samples.taken % minutes * MINUTE + now.since(end), spans }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(carried: u64) -> Traffic {
        Traffic { carried, stanzas: carried / 2, carried_bytes: 100 * carried, bytes: carried }
    }

    fn carried(spans: &Spans) -> Vec<u64> {
        spans.spans.iter().map(|span| span.carried).collect()
    }

    #[test]
    fn a_minute_is_a_sample_and_the_newest_is_running() {
        let history = History::default();
        assert_eq!(history.spans(Millis(5), total(3), 1, 60), Spans::default());
        for (at, count) in [(0, 10), (30_000, 12), (60_000, 13), (119_999, 20), (120_000, 21)] {
            history.sample(Millis(at), total(count));
        }
        let spans = history.spans(Millis(130_000), total(23), 1, 60);
        assert_eq!(carried(&spans), [2, 8, 13]);
        assert_eq!(spans.running, 10_000);
        assert_eq!(spans.spans[1].carried_bytes, 800);
        assert_eq!(carried(&history.spans(Millis(130_000), total(23), 1, 2)), [2, 8]);
    }

    #[test]
    fn spans_of_many_minutes_do_not_move() {
        let history = History::default();
        for minute in 0..=32 {
            history.sample(Millis(minute * MINUTE), total(minute));
        }
        let spans = history.spans(Millis(32 * MINUTE), total(32), 15, 96);
        assert_eq!(carried(&spans), [2, 15, 15]);
        assert_eq!(spans.running, 2 * MINUTE);
    }

    #[test]
    fn a_time_without_calls_is_not_made_up() {
        let history = History::default();
        history.sample(Millis(0), total(0));
        history.sample(Millis(3 * MINUTE), total(9));
        assert_eq!(carried(&history.spans(Millis(3 * MINUTE), total(9), 1, 60)), [0, 0, 0, 9]);
    }

    #[test]
    fn memory_is_a_day_of_samples() {
        let history = History::default();
        history.sample(Millis(0), total(0));
        history.sample(Millis(MINUTE), total(5));
        history.sample(Millis(u64::MAX), total(9));
        let now = Millis(u64::MAX);
        let samples = history.0.lock().expect("samples").kept.len();
        assert_eq!(samples, KEPT);
        assert_eq!(history.spans(now, total(9), 15, 1000).spans.len(), 96 + 1);
        for minute in 0..2 * KEPT as u64 {
            history.sample(Millis(minute), total(9));
        }
        assert_eq!(history.0.lock().expect("samples").kept.len(), KEPT);
    }
}
