//! The module comes and goes in a running server.

use anyhow::{Result, ensure};

use crate::{Kind, Lab, Server, ServerSpec};

/// Needs a built module in `$DMUC_STAGE`.
pub async fn run(kind: Kind) -> Result<()> {
    let lab = Lab::builder(&format!("selftest-loading-{kind}"))
        .server(ServerSpec::new(kind, "a"))
        .server(ServerSpec::new(kind, "b").dmuc(true))
        .start()
        .await?;
    let outcome = change(lab.server("a"), lab.server("b")).await;
    lab.finish(outcome).await
}

async fn change(without: &Server, with: &Server) -> Result<()> {
    ensure!(with.has_dmuc().await?, "dmuc was asked for and is not loaded");
    ensure!(!without.has_dmuc().await?, "dmuc is loaded and was not asked for");
    for _ in 0..2 {
        without.load_dmuc().await?;
        ensure!(without.has_dmuc().await?, "dmuc is not loaded");
        without.unload_dmuc().await?;
        ensure!(!without.has_dmuc().await?, "dmuc is still loaded");
    }
    with.restart().await?;
    ensure!(with.has_dmuc().await?, "dmuc is not loaded after a restart");
    Ok(())
}
