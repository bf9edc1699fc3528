//! Log records of the core on their way to ejabberd's logger.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{Level, LevelFilter, Log, Metadata, Record};
use once_cell::sync::Lazy;
use rustler::Atom;

use crate::terms::atoms;

/// Records that wait for the next drain; a second's worth in bad times.
const WAITING: usize = 1024;

struct Queue {
    sender: Sender<(Level, String)>,
    receiver: Receiver<(Level, String)>,
    dropped: AtomicU64,
}

static QUEUE: Lazy<Queue> = Lazy::new(|| {
    let (sender, receiver) = bounded(WAITING);
    Queue { sender, receiver, dropped: AtomicU64::new(0) }
});

impl Log for Queue {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record) {
        if self.sender.try_send((record.level(), record.args().to_string())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// Makes the queue the logger of this library.
pub(crate) fn install() {
    // An error means that an earlier load of this library did it.
    if log::set_logger(&*QUEUE).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// Whether records at debug are wanted.
pub(crate) fn level(debug: bool) {
    log::set_max_level(if debug { LevelFilter::Debug } else { LevelFilter::Info });
}

/// At most `most` records, oldest first, and how many were dropped since the last call.
pub(crate) fn drain(most: usize) -> (Vec<(Atom, String)>, u64) {
    let records =
        QUEUE.receiver.try_iter().take(most).map(|(level, text)| (name(level), text)).collect();
    (records, QUEUE.dropped.swap(0, Ordering::Relaxed))
}

fn name(level: Level) -> Atom {
    match level {
        Level::Error => atoms::error(),
        Level::Warn => atoms::warning(),
        Level::Info => atoms::info(),
        Level::Debug | Level::Trace => atoms::debug(),
    }
}
