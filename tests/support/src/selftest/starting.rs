//! A server that has started has loaded everything.

use anyhow::{Result, bail};

use crate::rundir::RunDir;
use crate::{Lab, ServerSpec};

/// Written when all modules are loaded, a second after the ports were opened.
const SLOW: &str = r#"
module:hook_global("server-started", function ()
	os.execute("sleep 1");
	module:log("info", "slow but sure");
end);
"#;

/// A Prosody one of whose modules takes its time.
pub async fn run() -> Result<()> {
    let dir = RunDir::new("selftest-starting-modules")?;
    let file = dir.path().join("mod_vcard4.lua");
    std::fs::write(&file, SLOW)?;
    let lab = Lab::builder("selftest-starting")
        .server(
            ServerSpec::prosody("a").option("plugin_paths", vec![dir.path().display().to_string()]),
        )
        .start()
        .await?;
    let log = lab.server("a").log();
    dir.succeeded();
    let outcome = async {
        if !log.contains("slow but sure") {
            bail!("it was taken for ready:\n{log}");
        }
        Ok(())
    };
    lab.finish(outcome.await).await
}
