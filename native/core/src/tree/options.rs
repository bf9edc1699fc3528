//! What a host wants of room trees.

use super::Mode;

/// Options of room trees. They are the core's own: as long as a host does not hand them over with
/// [`crate::Room::grow`] and [`crate::Replica::grow`], there are no trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeOptions {
    /// At a primary: which rooms have trees. At a replica: whether it takes part in any, which it
    /// does unless this is [`Mode::Off`].
    pub mode: Mode,
    /// At a primary: children of the room and of each relay. At a replica: most children that it passes
    /// casts on to, for each class of a room. From 1 to 1000.
    pub fanout: usize,
    /// At a replica: whether it passes casts on to others.
    pub relay: bool,
    /// At a primary: milliseconds after which a room makes a new key, and with it a new epoch of its
    /// stream.
    pub renew_after: u64,
    /// At a primary: casts of a class after which it does.
    pub renew_casts: u64,
}

impl Default for TreeOptions {
    fn default() -> Self {
        TreeOptions {
            mode: Mode::Off,
            fanout: 16,
            relay: true,
            renew_after: 86_400_000,
            renew_casts: 1_000_000,
        }
    }
}

impl TreeOptions {
    /// The same within what is allowed.
    pub(crate) fn bounded(self) -> Self {
        TreeOptions {
            fanout: self.fanout.clamp(1, 1000),
            renew_after: self.renew_after.max(1000),
            renew_casts: self.renew_casts.max(1),
            ..self
        }
    }

    /// Children that a replica with these options takes.
    pub(crate) fn children(self) -> usize {
        if self.relay { self.fanout } else { 0 }
    }
}
