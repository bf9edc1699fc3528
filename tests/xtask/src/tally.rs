//! Adding up what passed and what failed.

use std::ops::AddAssign;

/// How many tests passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl Tally {
    /// One check.
    pub fn one(passed: bool) -> Self {
        Self { passed: passed.into(), failed: (!passed).into() }
    }

    /// Reads the sums that `cargo test`, `cargo nextest` or one of our suites has printed.
    /// A program that failed without saying of what counts as one failure.
    pub fn read<'a>(lines: impl IntoIterator<Item = &'a str>, succeeded: bool) -> Self {
        let mut tally = Self::default();
        for line in lines {
            let whole = plain(line);
            let line = whole.trim();
            // nextest indents what a test has printed that failed, the sum of its own program among it.
            let sums = whole.starts_with("test result:")
                || line.starts_with("suite ")
                || (line.starts_with("Summary [") && line.contains("run:"));
            if sums {
                tally += Self { passed: before(line, "passed"), failed: before(line, "failed") };
            }
        }
        if !succeeded && tally.failed == 0 {
            tally.failed = 1;
        }
        tally
    }

    /// Prints the machine line of a suite; whether all is well.
    pub fn report(self, suite: &str) -> bool {
        println!("suite {suite}: {} passed, {} failed", self.passed, self.failed);
        self.failed == 0
    }
}

/// The number right before `word`.
fn before(line: &str, word: &str) -> u64 {
    let words: Vec<&str> =
        line.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
    words.windows(2).find(|pair| pair[1] == word).and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

/// The line without colours.
fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_all_kinds_are_read() {
        let read = |line: &str| Tally::read([line], true);
        let both = Tally { passed: 3, failed: 2 };
        assert_eq!(read("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured"), both);
        assert_eq!(
            read("     Summary [   0.005s] 5 tests run: 3 passed, 2 failed, 1 skipped"),
            both
        );
        assert_eq!(
            read("\u{1b}[32m Summary\u{1b}[0m [ 0s] 3 tests run: 3 passed, 0 skipped").passed,
            3
        );
        assert_eq!(read("suite room: 3 passed, 2 failed"), both);
        assert_eq!(read("3 passed in another sense"), Tally::default());
    }

    #[test]
    fn a_failure_that_nextest_shows_counts_once() {
        let lines = [
            "    test result: FAILED. 0 passed; 1 failed; 0 ignored; finished in 0.18s",
            "     Summary [  98.761s] 254 tests run: 253 passed, 1 failed, 0 skipped",
        ];
        assert_eq!(Tally::read(lines, false), Tally { passed: 253, failed: 1 });
    }

    #[test]
    fn a_silent_failure_counts() {
        assert_eq!(Tally::read(["error: no such crate"], false).failed, 1);
    }
}
