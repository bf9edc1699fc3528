//! What is measured.

use clap::ValueEnum;

/// One thing that happens in rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// Messages to a room with k remote occupants
    Message,
    /// Changes of an occupant's presence in a room with k remote occupants
    Presence,
    /// k remote users join a room of k local occupants, each when the one before is in
    Joins,
    /// The same in a room with a history of 50 messages
    JoinsHistory,
    /// As joins, but all ask at once
    JoinsBurst,
}

impl Case {
    /// As `--case` takes it.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether it is users who enter.
    pub fn is_storm(self) -> bool {
        matches!(self, Self::Joins | Self::JoinsHistory | Self::JoinsBurst)
    }

    /// Messages that a joiner finds in the room.
    pub fn history(self) -> usize {
        if self == Self::JoinsHistory { HISTORY } else { 0 }
    }

    /// How many may wait to be in the room.
    pub fn at_once(self, k: usize) -> usize {
        if self == Self::JoinsBurst { k } else { 1 }
    }

    /// Broadcasts in a round: many where each is small, since the scheduler's account of so short
    /// a time is coarse.
    pub fn broadcasts(k: usize) -> u32 {
        u32::try_from((2000 / k.max(1)).clamp(10, 100)).unwrap_or(10)
    }
}

/// Messages of history that a room keeps.
pub const HISTORY: usize = 50;
