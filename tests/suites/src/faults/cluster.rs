//! Clusters of ejabberd: rooms, streams and sessions are spread over two nodes, of which one is
//! killed, or leaves and joins again.

use std::time::Duration;

use anyhow::{Result, bail};
use dmuc_testkit::{Fault, Kind, Lab, LabBuilder, ServerSpec};

use super::oracle::Findings;
use super::town::{Layout, Setup, Town};
use crate::runner::Suite;

/// How long it may take until all is well again after a fault that is over.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn suite() -> Suite {
    Suite::new("cluster").case("replica nodes fail, room on prosody", || replica(Kind::Prosody))
}

/// Servers with dmuc and a wire between every two; which of `a` and `b` are clusters.
fn lab(name: &str, a: (Kind, bool), b: (Kind, bool)) -> LabBuilder {
    let mut lab = Lab::builder(name);
    for ((kind, cluster), name) in [(a, "a"), (b, "b")] {
        lab = lab.server(Setup::QUICK.spec(ServerSpec::new(kind, name)));
        if cluster {
            let second = ServerSpec::new(kind, &format!("{name}2")).in_cluster_of(name);
            lab = lab.server(Setup::QUICK.spec(second));
        }
    }
    lab.server(Setup::QUICK.spec(ServerSpec::prosody("c"))).wires()
}

/// The node of `b` that has the window of a room's link, and the one that has not.
async fn owner(town: &Town<'_>) -> Result<(&'static str, &'static str)> {
    let read = format!(
        "[element(3, O) || O <- mnesia:dirty_read(dmuc_owner, {{<<\"b.test\">>, <<{:?}>>}})]",
        town.room
    );
    let owner = town.lab.server("b").eval(&read).await?;
    match (owner.starts_with("['dmuc_b_"), owner.starts_with("['dmuc_b2_")) {
        (true, _) => Ok(("b", "b2")),
        (_, true) => Ok(("b2", "b")),
        _ => bail!("{} is linked to no node: {owner}", town.room),
    }
}

/// A story, told step by step: what was found after each.
struct Story<'t, 'l> {
    town: &'t Town<'l>,
    name: &'static str,
    wrong: Vec<String>,
}

impl<'t, 'l> Story<'t, 'l> {
    fn new(name: &'static str, town: &'t Town<'l>) -> Self {
        Self { town, name, wrong: Vec::new() }
    }

    fn note(&mut self, step: &str, findings: Findings) {
        println!("  {}: {step}: {findings}", self.name);
        if !findings.is_clean() {
            self.wrong.push(format!("{step}: {}", findings.details.join("\n    ")));
        }
    }

    /// A fault for so long, and what it has done.
    async fn suffer(&mut self, what: &str, fault: Fault, ms: u64) -> Result<()> {
        self.town.pass(Duration::from_millis(1500)).await;
        self.town.suffer(&fault, Duration::from_millis(ms)).await?;
        self.town.pass(Duration::from_millis(1500)).await;
        let findings = self.town.quiet(PATIENCE).await?;
        self.note(&format!("{what} ({fault})"), findings);
        Ok(())
    }

    fn end(self) -> Result<()> {
        match self.wrong.is_empty() {
            true => Ok(()),
            false => bail!("{}", self.wrong.join("\n")),
        }
    }
}

async fn replica(kind: Kind) -> Result<()> {
    let lab = lab("cluster-replica", (kind, false), (Kind::Ejabberd, true)).start().await?;
    let outcome = async {
        let layout = Layout { remote: &["b", "b2"], ..Layout::SINGLE };
        let town = Town::found_as(&lab, layout, 1).await?;
        town.live(replica_nodes_fail("replica", &town)).await
    };
    let outcome = outcome.await;
    lab.finish(outcome).await
}

async fn replica_nodes_fail(name: &'static str, town: &Town<'_>) -> Result<()> {
    let mut story = Story::new(name, town);
    town.pass(Duration::from_secs(2)).await;
    story.note("nothing", town.quiet(PATIENCE).await?);
    let (_, other) = owner(town).await?;
    story.suffer("a node without the link", Fault::Killed(other.into()), 2000).await?;
    let (owner_, _) = owner(town).await?;
    story.suffer("the node with the link", Fault::Killed(owner_.into()), 2000).await?;
    let (owner_, other) = owner(town).await?;
    story.suffer("a node without the link", Fault::Left(other.into()), 1000).await?;
    story.suffer("the node with the link", Fault::Left(owner_.into()), 1000).await?;
    story.end()
}
