//! How long something of one class has been missing, and when to ask for it.

use crate::Millis;

/// The first missing cast of a class, and when it is asked for.
#[derive(Debug, Default)]
pub(super) struct Gap {
    first: Option<u64>,
    due: Option<Millis>,
    asked: u32,
}

impl Gap {
    /// What is missing first. As long as that stays the same, the waiting goes on.
    pub fn watch(&mut self, now: Millis, first: Option<u64>, patience: u64) {
        if first != self.first {
            self.first = first;
            self.due = first.map(|_| now + patience);
            self.asked = 0;
        }
    }

    pub fn due(&self) -> Option<Millis> {
        self.due
    }

    /// Whether this gap has been asked for more than once.
    pub fn is_old(&self) -> bool {
        self.asked > 1
    }

    /// The answer may be lost too: it is asked for again, with longer and longer pauses.
    pub fn asked(&mut self, now: Millis, patience: u64, longest: u64) {
        self.asked += 1;
        let pause = patience.max(1).saturating_mul(1 << self.asked.min(20));
        self.due = Some(now + pause.min(longest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_gap_is_asked_for_less_and_less_often_and_another_one_soon() {
        let mut gap = Gap::default();
        gap.watch(Millis(0), Some(5), 200);
        assert_eq!(gap.due(), Some(Millis(200)));
        gap.watch(Millis(100), Some(5), 200);
        assert_eq!(gap.due(), Some(Millis(200)));
        gap.asked(Millis(200), 200, 1000);
        assert_eq!(gap.due(), Some(Millis(600)));
        assert!(!gap.is_old());
        gap.asked(Millis(600), 200, 1000);
        assert!(gap.is_old());
        gap.asked(Millis(1400), 200, 1000);
        assert_eq!(gap.due(), Some(Millis(2400)), "at most so long");
        gap.watch(Millis(2000), Some(7), 200);
        assert!(!gap.is_old());
        assert_eq!(gap.due(), Some(Millis(2200)));
        gap.watch(Millis(2100), None, 200);
        assert_eq!(gap.due(), None);
    }
}
