//! The same things over and over: nothing may grow for ever.

/// Rounds of the first try, in which most limits are reached.
const WARM: usize = 50;
/// How often they are doubled, until every limit must have been reached.
const DOUBLINGS: usize = 6;
/// What may still come together in as many rounds again.
const SLACK: usize = 6_000;

/// `run` plays so many rounds and says how many bytes an end then holds.
///
/// # Panics
///
/// If that keeps growing.
pub fn repeat(run: impl Fn(usize) -> usize) {
    let mut sizes = vec![run(WARM)];
    for doublings in 1..=DOUBLINGS {
        // It may just have been the time for tables to double, or their limits are far: what is a
        // leak goes on.
        sizes.push(run(WARM << doublings));
        if sizes[doublings] <= sizes[doublings - 1] + SLACK {
            return;
        }
    }
    panic!("{sizes:?} bytes: it grows with what a peer sends");
}
