//! When a room has trees at all.

/// What an operator wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Never: each replica gets its casts from the room.
    #[default]
    Off,
    /// In rooms with at least so many linked domains; and until there are less than half as many, so that
    /// a room near that number does not change back and forth.
    From(usize),
    /// In each room: for tests.
    Forced,
}

impl Mode {
    /// Whether a room has trees from here on. `may_show` says whether its members may learn of each
    /// other's domains: they may all see real JIDs, or the owner says so.
    pub fn wants(self, has_trees: bool, links: usize, may_show: bool) -> bool {
        match self {
            Mode::Off => false,
            Mode::From(least) => {
                may_show && links >= if has_trees { least.div_ceil(2) } else { least }
            }
            Mode::Forced => has_trees || links > 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_goes_back_to_one_level_when_it_has_shrunk_to_half() {
        let mode = Mode::From(100);
        assert!(!mode.wants(false, 99, true) && mode.wants(false, 100, true));
        assert!(mode.wants(true, 50, true) && !mode.wants(true, 49, true));
        assert!(!mode.wants(true, 1000, false), "nobody may learn who else is there");
        assert!(
            !Mode::Off.wants(true, 1000, true)
                && Mode::Forced.wants(false, 1, false)
                && !Mode::Forced.wants(false, 0, true)
        );
    }
}
