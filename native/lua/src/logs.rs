//! Log records of the core, on their way to the server's own log.
//!
//! Lua is not called from here: a timer of the wrapper drains the queue.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use log::{Level, LevelFilter, Log, Metadata, Record};
use mlua::prelude::*;
use once_cell::sync::Lazy;

const QUEUE: usize = 1024;

struct Entry {
    level: Level,
    target: String,
    message: String,
}

struct Queue {
    sender: Sender<Entry>,
    receiver: Receiver<Entry>,
    /// Records for which there was no room since the last drain.
    dropped: AtomicU64,
}

static QUEUED: Lazy<Queue> = Lazy::new(|| {
    let (sender, receiver) = bounded(QUEUE);
    Queue { sender, receiver, dropped: AtomicU64::new(0) }
});

impl Log for Queue {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let entry = Entry {
            level: record.level(),
            target: record.target().to_owned(),
            message: record.args().to_string(),
        };
        if let Err(TrySendError::Full(_)) = self.sender.try_send(entry) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// Takes the log facade of this library. Loading it twice into one process is harmless: the
/// second time fails and the first queue goes on.
pub fn install() {
    if log::set_logger(&*QUEUED).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug | Level::Trace => "debug",
    }
}

/// `drain_log()` gives a list of `{ level, target, message }` and the number of lost records.
pub fn drain(lua: &Lua, (): ()) -> LuaResult<(LuaTable, u64)> {
    let list = lua.create_table()?;
    for entry in QUEUED.receiver.try_iter().take(QUEUE) {
        list.push(lua.create_sequence_from([
            level(entry.level),
            &entry.target,
            &entry.message,
        ])?)?;
    }
    Ok((list, QUEUED.dropped.swap(0, Ordering::Relaxed)))
}
