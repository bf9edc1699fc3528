//! Loads and unloads the staged module on both servers.

use anyhow::Result;
use dmuc_testkit::{Kind, selftest};

#[tokio::main]
async fn main() -> Result<()> {
    for kind in [Kind::Ejabberd, Kind::Prosody] {
        selftest::loading::run(kind).await?;
        println!("{kind}: the module comes and goes");
    }
    Ok(())
}
