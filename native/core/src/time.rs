//! Time as the caller gives it.

use std::ops::Add;

/// Milliseconds on the caller's monotonic clock, from an origin of the caller's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Add<u64> for Millis {
    type Output = Millis;

    fn add(self, ms: u64) -> Millis {
        Millis(self.0.saturating_add(ms))
    }
}

impl Millis {
    /// Milliseconds from `earlier` to here; 0 when `earlier` is later.
    pub fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The earliest of a set of deadlines, and whether it moved since the caller was last told.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    at: Option<Millis>,
    told: Option<Millis>,
}

impl Alarm {
    /// Asks to be woken at `at` or earlier.
    pub fn by(&mut self, at: Millis) {
        if self.at.is_none_or(|old| at < old) {
            self.at = Some(at);
        }
    }

    /// Forgets all deadlines: a tick has come and sets anew what is still wanted.
    pub fn ring(&mut self) {
        self.at = None;
        self.told = None;
    }

    /// The deadline to tell the caller, if it is earlier than the one already told.
    pub fn take(&mut self) -> Option<Millis> {
        match (self.at, self.told) {
            (Some(at), Some(told)) if told <= at => None,
            (Some(at), _) => {
                self.told = Some(at);
                Some(at)
            }
            (None, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_told_once_and_again_when_it_moves_forward() {
        let mut alarm = Alarm::default();
        alarm.by(Millis(50));
        assert_eq!(alarm.take(), Some(Millis(50)));
        alarm.by(Millis(70));
        assert_eq!(alarm.take(), None);
        alarm.by(Millis(20));
        assert_eq!(alarm.take(), Some(Millis(20)));
        alarm.ring();
        assert_eq!(alarm.take(), None);
    }
}
