//! placeholder
use clap::Args;
#[derive(Args)]
pub struct Arguments {}
pub async fn run(_: &Arguments) -> anyhow::Result<()> {
    Ok(())
}
