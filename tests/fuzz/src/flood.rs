//! The same things over and over: nothing may grow for ever.

/// Rounds after which every limit must have been reached.
const WARM: usize = 50;
/// What may still come together in as many rounds again.
const SLACK: usize = 6_000;

/// `run` plays so many rounds and says how many bytes an end then holds.
///
/// # Panics
///
/// If that keeps growing.
pub fn repeat(run: impl Fn(usize) -> usize) {
    let (once, twice) = (run(WARM), run(2 * WARM));
    if twice <= once + SLACK {
        return;
    }
    // It may just have been the time for tables to double: what is a leak goes on.
    let (four, eight) = (run(4 * WARM), run(8 * WARM));
    let is_steady = eight < four + SLACK || four < twice + SLACK;
    assert!(is_steady, "{once}, {twice}, {four}, {eight} bytes: it grows with what a peer sends");
}
