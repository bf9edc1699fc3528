//! Runs the laboratory's test of itself: `cargo xtask test --suite kit` does the same.

use anyhow::Result;
use dmuc_testkit::{Kind, selftest};

#[tokio::main]
async fn main() -> Result<()> {
    for primary in [Kind::Ejabberd, Kind::Prosody] {
        for replica in [Kind::Ejabberd, Kind::Prosody] {
            selftest::conversation(primary, replica).await?;
        }
    }
    Ok(())
}
