//! What a host wants of room trees.

use super::Mode;
use crate::Options;

/// The options of room trees, as they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TreeOptions {
    /// Which rooms have trees.
    pub mode: Mode,
    /// Children of the room and of each relay.
    pub fanout: usize,
    /// At a replica: most children that it passes casts on to, for each class of a room.
    pub children: u64,
    /// Milliseconds after which a room makes a new key, and with it a new epoch of its stream.
    pub key_age: u64,
    /// Casts of a class after which it does.
    pub key_casts: u64,
}

impl TreeOptions {
    pub fn of(options: &Options) -> Self {
        let size = |n| usize::try_from(n).unwrap_or(usize::MAX);
        let mode = match size(options.tree_domains()) {
            0 => Mode::Off,
            1 => Mode::Forced,
            least => Mode::From(least),
        };
        let fanout = size(options.tree_fanout());
        TreeOptions {
            mode,
            fanout,
            children: options.tree_children(),
            key_age: options.tree_key_age(),
            key_casts: options.tree_key_casts(),
        }
    }
}
