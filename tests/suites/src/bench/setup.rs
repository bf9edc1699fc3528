//! How the servers of a contest are set up, the same on all sides.

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use dmuc_testkit::{Kind, Lab, ServerSpec};
use serde_json::json;

use super::case::{HISTORY, Residents, name};
use super::fanout::Fanout;

/// So that an Erlang machine that waits does not count as one that works.
const NO_BUSY_WAIT: &[&str] = &["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"];

/// What may be chosen about the servers.
#[derive(Args, Clone, Copy, Debug)]
pub struct Setup {
    /// Who is in the room before a storm
    #[arg(long, value_enum, value_name = "WHERE", default_value_t)]
    pub residents: Residents,
    /// Addresses that an XEP-0033 message may have, and not mod_multicast's own limit of 20
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub addresses: Option<u16>,
    /// Remote users are spread over so many domains of one server process, each with links of its own
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub spread: u16,
    /// Storms also with everybody at the room's own server, where there is no link
    #[arg(long)]
    pub local: bool,
    /// Prosody's collector; else what it comes with.
    #[arg(skip)]
    pub collector: Option<Collector>,
    /// The rate limits that the servers come with; else none.
    #[arg(skip)]
    pub stock_limits: bool,
    /// Fewer broadcasts and shorter waits.
    #[arg(skip)]
    pub quick: bool,
}

/// A mode of the garbage collector of Lua, as Prosody's option `gc` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Collector {
    /// In steps, of everything
    Incremental,
    /// Mostly of what is young
    Generational,
}

impl Collector {
    /// As `--gc` takes it.
    pub fn name(self) -> String {
        name(&self)
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            residents: Residents::default(),
            addresses: None,
            spread: 1,
            local: false,
            collector: None,
            stock_limits: false,
            quick: false,
        }
    }
}

impl Setup {
    /// Whether Prosody's collector is in the mode that was chosen.
    pub async fn verify(self, lab: &Lab) -> Result<()> {
        let Some(collector) = self.collector else { return Ok(()) };
        for server in lab.servers().filter(|server| server.kind() == Kind::Prosody) {
            // Gives back the mode before, and changes nothing if that is the same.
            let mode = collector.name();
            let before = server.shell(&format!("> collectgarbage(\"{mode}\")")).await?;
            ensure!(before.contains(&mode), "{}: {before} and not {mode}", server.name());
        }
        Ok(())
    }

    /// A server that fans out this way.
    pub fn configure(self, spec: ServerSpec, fanout: Fanout) -> ServerSpec {
        let spec = spec.log_level("info").dmuc(fanout == Fanout::Dmuc);
        let spec = spec.stock_limits(self.stock_limits);
        // With one domain that is the server's own.
        let further = usize::from(self.spread) - 1;
        let spec = if spec.name == "b" { spec.hosts(further) } else { spec };
        match (spec.kind, self.collector) {
            (Kind::Prosody, None) => spec,
            (Kind::Prosody, Some(mode)) => spec.option("gc", json!({ "mode": mode.name() })),
            (Kind::Ejabberd, _) => {
                let mut modules = json!({ "mod_muc": { "history_size": HISTORY } });
                if fanout == Fanout::Xep0033 {
                    // As it comes: whoever may send to it, and 20 addresses in a stanza.
                    let limits =
                        self.addresses.map(|most| json!({ "remote": { "message": most } }));
                    modules["mod_multicast"] = match limits {
                        Some(limits) => json!({ "limits": limits }),
                        None => json!({}),
                    };
                }
                spec.erl_arguments(NO_BUSY_WAIT)
                    .option("max_fsm_queue", 10_000_000)
                    // While it is another side's turn the connections stay.
                    .option("s2s_timeout", 3600)
                    .option("modules", modules)
            }
        }
    }
}
