//! People talk, and a node is killed, or leaves and joins again.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use dmuc_testkit::{Client, Fault, Kind, Lab, ServerSpec};
use serde_json::json;
use tokio::time::sleep;

use super::{A, B, home, lab, owner, streams};
use crate::faults::oracle::Findings;
use crate::faults::town::{Layout, Setup, Town};
use crate::scene::{SOON, log_in, until, until_async};

/// How long it may take until all is well again after a fault that is over.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the room of somebody whose node was lost may not know, though nobody says a word.
const KNOWN: Duration = Duration::from_secs(15);

fn quick(spec: ServerSpec) -> ServerSpec {
    Setup::QUICK.spec(spec)
}

fn kinds(first: &'static [&str], kind: Kind) -> impl Iterator<Item = (Kind, &'static str)> {
    first.iter().map(move |node| (kind, *node))
}

/// The replica is a cluster: a node fails that has the link, or one that has not.
pub async fn replica(kind: Kind) -> Result<()> {
    let nodes = kinds(&["a"], kind).chain(kinds(B, Kind::Ejabberd));
    let lab = lab("cluster-replica", nodes, quick, quick(ServerSpec::prosody("c"))).start().await?;
    let outcome = async {
        let town = Town::found_as(&lab, Layout { remote: B, ..Layout::SINGLE }, 1).await?;
        town.live(async {
            let mut story = Story::begin("replica", &town).await?;
            story.replica_node("with the link", true, Fault::Killed).await?;
            story.replica_node("without the link", false, Fault::Killed).await?;
            story.lead_stream_elsewhere().await?;
            story.replica_node("with the link", true, Fault::Left).await?;
            story.replica_node("without the link", false, Fault::Left).await?;
            story.in_silence(true).await?;
            story.end()
        })
        .await
    };
    let outcome = outcome.await;
    lab.finish(outcome).await
}

/// The primary is a cluster: a node fails that has the room, or one that has not.
pub async fn primary(kind: Kind) -> Result<()> {
    let nodes = kinds(A, Kind::Ejabberd).chain(kinds(&["b"], kind));
    // As an ejabberd has it that nobody has configured: without help it would be minutes.
    let change = |spec| quick(spec).option("s2s_max_retry_delay", json!(300));
    let lab =
        lab("cluster-primary", nodes, change, quick(ServerSpec::prosody("c"))).start().await?;
    let outcome = async {
        let _side = side_room(&lab, "a").await?;
        let layout = Layout { home: "a2", local: A, ..Layout::SINGLE };
        let town = Town::found_as(&lab, layout, 2).await?;
        town.live(async {
            let mut story = Story::begin("primary", &town).await?;
            ensure!(home(&lab, "a", &town.room).await? == "a2", "the room is on another node");
            ensure!(streams(&lab, "a2").await? == ["a"], "the stream is the room's node's");
            let refused = Fault::Refused("a".into(), "b".into());
            story.suffer("stream of the other node", refused, 4000).await?;
            town.pass(Duration::from_secs(1)).await;
            town.move_home(Duration::from_secs(2)).await?;
            ensure!(home(&lab, "a2", &town.room).await? == "a", "the room is on another node");
            story.look("the room's node dies, and the other takes over").await?;
            story.suffer("node without the room", Fault::Killed("a2".into()), 1500).await?;
            story.suffer("node with the room", Fault::Killed("a".into()), 1500).await?;
            story.end()
        })
        .await
    };
    let outcome = outcome.await;
    lab.finish(outcome).await
}

/// Both are clusters; the stream is not that of the room's node.
pub async fn both() -> Result<()> {
    let nodes = kinds(A, Kind::Ejabberd).chain(kinds(B, Kind::Ejabberd));
    let lab = lab("cluster-both", nodes, quick, quick(ServerSpec::prosody("c"))).start().await?;
    let wire = lab.wire("a", "b");
    for (from, to) in [("a", "b2"), ("a2", "b"), ("b", "a2"), ("b2", "a2")] {
        wire.aim(from, to);
    }
    let outcome = async {
        let _side = side_room(&lab, "a2").await?;
        let town = Town::found_as(&lab, Layout { home: "a", local: A, remote: B }, 3).await?;
        town.live(async {
            let mut story = Story::begin("both", &town).await?;
            ensure!(home(&lab, "a2", &town.room).await? == "a", "the room is on another node");
            ensure!(streams(&lab, "a").await? == ["a2"], "the stream is the room's node's");
            story.suffer("node with the streams", Fault::Killed("a2".into()), 1500).await?;
            story.replica_node("without the link", false, Fault::Killed).await?;
            story.replica_node("with the link", true, Fault::Killed).await?;
            story.suffer("node without the room", Fault::Left("a2".into()), 500).await?;
            story.in_silence(false).await?;
            story.end()
        })
        .await
    };
    let outcome = outcome.await;
    lab.finish(outcome).await
}

/// A room on this node with an occupant of `b`: so the stream of all rooms is this node's.
async fn side_room(lab: &Lab, node: &str) -> Result<Vec<Client>> {
    let room = lab.server(node).room("side");
    let mut users = log_in(lab.server(node), &["host".to_owned()]).await?;
    users.extend(log_in(lab.server("b"), &["guest".to_owned()]).await?);
    users[0].create(&room, "host", &[]).await?;
    users[1].join(&room, "guest").await?;
    Ok(users)
}

/// What is told, step by step, and what was found after each.
struct Story<'t, 'l> {
    town: &'t Town<'l>,
    name: &'static str,
    wrong: Vec<String>,
}

impl<'t, 'l> Story<'t, 'l> {
    async fn begin(name: &'static str, town: &'t Town<'l>) -> Result<Self> {
        let mut story = Self { town, name, wrong: Vec::new() };
        story.look("nothing").await?;
        Ok(story)
    }

    /// People talk on, then fall silent, and the oracle speaks.
    async fn look(&mut self, step: &str) -> Result<()> {
        self.town.pass(Duration::from_millis(1500)).await;
        let findings = self.town.quiet(PATIENCE).await?;
        self.note(step, findings);
        self.same_records(step).await
    }

    fn note(&mut self, step: &str, findings: Findings) {
        println!("  {}: {step}: {findings}", self.name);
        if !findings.is_clean() {
            self.wrong.push(format!("{step}: {}", findings.details.join("\n    ")));
        }
    }

    /// A fault for so long, and what it has done.
    async fn suffer(&mut self, what: &str, fault: Fault, ms: u64) -> Result<()> {
        self.town.pass(Duration::from_millis(1000)).await;
        self.town.linked(PATIENCE).await?;
        self.town.suffer(&fault, Duration::from_millis(ms)).await?;
        self.look(&format!("{what} ({fault})")).await
    }

    /// The replica's node that has the link, and the other.
    async fn replica_nodes(&self) -> Result<(&'static str, &'static str)> {
        match owner(self.town.lab, "b", &self.town.room).await?.as_str() {
            "b" => Ok(("b", "b2")),
            _ => Ok(("b2", "b")),
        }
    }

    async fn replica_node(
        &mut self,
        what: &str,
        linked: bool,
        fault: fn(String) -> Fault,
    ) -> Result<()> {
        let (owner, other) = self.replica_nodes().await?;
        let node = if linked { owner } else { other };
        self.suffer(&format!("node {what}"), fault(node.to_owned()), 1500).await
    }

    /// The stream from the room leads to the node without the link from now on. A node that leaves
    /// takes no care of what has just arrived by a stream.
    async fn lead_stream_elsewhere(&self) -> Result<()> {
        let (_, other) = self.replica_nodes().await?;
        let wire = self.town.lab.wire("a", "b");
        wire.aim("a", other);
        wire.interrupt().await
    }

    /// A node of the replica is killed while nobody says anything: the room learns who is gone.
    async fn in_silence(&mut self, linked: bool) -> Result<()> {
        let (owner, other) = self.replica_nodes().await?;
        let node = if linked { owner } else { other };
        let fault = Fault::Killed(node.to_owned());
        self.town.linked(PATIENCE).await?;
        self.town.set_lively(false);
        sleep(Duration::from_secs(1)).await;
        fault.strike(self.town.lab).await?;
        let what = format!("the room knows who is gone, in silence ({fault})");
        let of_node = || self.town.of(node);
        until("their connections have ended", SOON, || of_node().all(|m| !m.is_inside())).await?;
        let begin = Instant::now();
        let known = until_async(&what, KNOWN, async || Ok(self.town.ghosts().await?.is_empty()));
        if let Err(error) = known.await {
            self.wrong.push(format!("{error:#}: {:?}", self.town.ghosts().await?));
        }
        println!("  {}: {what}: {:.1} s", self.name, begin.elapsed().as_secs_f64());
        fault.mend(self.town.lab).await?;
        self.look("after the silence").await
    }

    /// Every node of the replica knows the same of everybody, as its native library and as the
    /// tables have it.
    async fn same_records(&mut self, step: &str) -> Result<()> {
        let lab = self.town.lab;
        if lab.servers().all(|server| server.name() != "b2") {
            return Ok(());
        }
        let room = &self.town.room;
        let sessions: Vec<String> =
            self.town.sessions("b.test").map(|jid| format!("<<{jid:?}>>")).collect();
        let read = format!(
            "R = mod_dmuc_replica:find(<<\"b.test\">>), \
             [{{S, mod_dmuc_nif:replica_consent(element(5, R), <<{room:?}>>, S), \
             case mnesia:dirty_read(dmuc_consent, {{<<{room:?}>>, S}}) of \
             [C] -> element(6, C); [] -> undefined end}} || S <- [{}]]",
            sessions.join(", ")
        );
        let same = "lists:filter(fun({_, Own, Table}) -> Own /= Table end, All)";
        let mut last = [const { String::new() }; 2];
        // What another node has just written is on its way.
        for _ in 0..10 {
            for (node, last) in B.iter().zip(&mut last) {
                *last = lab
                    .server(node)
                    .eval(&format!("(fun() -> All = begin {read} end, {same} end)()"))
                    .await?;
            }
            if last.iter().all(|differ| differ == "[]") {
                return Ok(());
            }
            sleep(Duration::from_millis(200)).await;
        }
        self.wrong.push(format!("{step}: records differ: {last:?}"));
        Ok(())
    }

    fn end(self) -> Result<()> {
        match self.wrong.is_empty() {
            true => Ok(()),
            false => bail!("{}", self.wrong.join("\n")),
        }
    }
}
