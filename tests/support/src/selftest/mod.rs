//! The laboratory tried on plain servers, without dmuc: what the other tests stand on.

pub mod cluster;
pub mod conversation;
pub mod crowd;
pub mod hostile;
pub mod loading;
pub mod sessions;
pub mod triangle;

use std::time::Instant;

use anyhow::Result;

use crate::Kind;

const KINDS: [Kind; 2] = [Kind::Ejabberd, Kind::Prosody];

/// Runs all of it; how many passed and failed.
pub async fn run() -> (u64, u64) {
    let mut sums = (0, 0);
    let mut note = |name: String, begin: Instant, outcome: Result<()>| {
        let seconds = begin.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                sums.0 += 1;
                println!("ok   {name} ({seconds:.1} s)");
            }
            Err(error) => {
                sums.1 += 1;
                println!("FAIL {name} ({seconds:.1} s): {error:#}");
            }
        }
    };
    for primary in KINDS {
        for replica in KINDS {
            let begin = Instant::now();
            let outcome = conversation::run(primary, replica).await;
            note(format!("conversation {primary} {replica}"), begin, outcome);
        }
        let begin = Instant::now();
        note(format!("hostile {primary}"), begin, hostile::run(primary).await);
        let begin = Instant::now();
        note(format!("sessions {primary}"), begin, sessions::run(primary).await);
        let begin = Instant::now();
        note(format!("crowd {primary}"), begin, crowd::run(primary).await);
    }
    let begin = Instant::now();
    note("triangle".into(), begin, triangle::run().await);
    let begin = Instant::now();
    note("cluster".into(), begin, cluster::run().await);
    sums
}
