//! What is measured.

use clap::ValueEnum;

use super::day::GUESTS;

/// One thing that happens in rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// Messages to a room with k remote occupants
    Message,
    /// Changes of an occupant's presence in a room with k remote occupants
    Presence,
    /// k remote users join a room of k residents, each when the one before is in
    Joins,
    /// The same in a room with a history of 50 messages
    JoinsHistory,
    /// As joins, but all ask at once
    JoinsBurst,
    /// A hundred events of a day: talk, presence, visits, nicks, private messages
    Mixed,
    /// Five messages at once, with the rate limits that the servers come with
    Limits,
}

/// Where those live who are in a room before a storm, apart from the owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Residents {
    /// Users of the primary's own server, whose copies dmuc does not touch
    #[default]
    Local,
    /// Users of a third server, of the primary's kind: linked where dmuc is
    Third,
}

impl Residents {
    /// As `--residents` takes it.
    pub fn name(self) -> String {
        name(&self)
    }
}

impl Case {
    /// As `--case` takes it.
    pub fn name(self) -> String {
        name(&self)
    }

    /// Whether it is users who enter.
    pub fn is_storm(self) -> bool {
        matches!(self, Self::Joins | Self::JoinsHistory | Self::JoinsBurst)
    }

    /// Whether it is measured with the rate limits that the servers come with.
    pub fn is_limited(self) -> bool {
        self == Self::Limits
    }

    /// Remote users beside the k who are in the room.
    pub fn guests(self) -> usize {
        if self == Self::Mixed { GUESTS } else { 0 }
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
    pub fn broadcasts(k: usize, quick: bool) -> u32 {
        match quick {
            true => LEAST,
            false => u32::try_from(50_000 / k.max(1)).unwrap_or(LEAST).clamp(LEAST, 2 * LEAST),
        }
    }
}

/// Broadcasts in a round, at least.
const LEAST: u32 = 50;

/// What is typed for it.
pub fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Messages of history that a room keeps.
pub const HISTORY: usize = 50;
