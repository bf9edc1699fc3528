//! Rooms on both nodes of the primary, with occupants on both nodes of the replica; each room has a
//! stream of its own, which leads to the other node.

use std::time::Duration;

use anyhow::{Result, ensure};
use dmuc_testkit::{Client, Kind, Lab, ServerSpec};

use super::{A, B, home, lab, owner, streams};
use crate::link;
use crate::scene::{SOON, all_have, join_all, linked, log_in, names};

/// Users of each node of the replica.
const REMOTE: usize = 10;

pub async fn run() -> Result<()> {
    let nodes = A.iter().chain(B).map(|node| (Kind::Ejabberd, *node));
    let change = |spec: ServerSpec| spec.dmuc(true);
    let lab = lab("cluster-spread", nodes, change, ServerSpec::prosody("c")).start().await?;
    let outcome = play(&lab).await;
    lab.finish(outcome).await
}

async fn play(lab: &Lab) -> Result<()> {
    let wire = lab.wire("a", "b");
    for (from, to) in [("a", "b2"), ("a2", "b2"), ("b", "a2"), ("b2", "a2")] {
        wire.aim(from, to);
    }
    let users = names("remote", 2 * REMOTE);
    let mut remote = log_in(lab.server("b"), &users[..REMOTE]).await?;
    remote.extend(log_in(lab.server("b2"), &users[REMOTE..]).await?);
    let third = log_in(lab.server("c"), &names("third", 3)).await?;

    let one = Room::open(lab, "one", ["a", "a2"], &remote, &third).await?;
    ensure!(streams(lab, "a2").await? == ["a"], "the stream is not that of the room's node");
    ensure!(owner(lab, "b", &one.jid).await? == "b2", "the link is not where the stream leads");
    one.is_right(lab).await?;
    link::presence(lab, &one.jid, &remote).await?;

    // The stream leads to the other node from now on, and what it brings goes on to this one.
    wire.aim("a", "b");
    wire.aim("a2", "b");
    wire.interrupt().await?;
    one.local[1].say(&one.jid, "by another stream")?;
    all_have(one.everybody(), "by another stream").await?;
    let two = Room::open(lab, "two", ["a2", "a"], &remote, &third).await?;
    ensure!(owner(lab, "b2", &two.jid).await? == "b", "the link is not where the stream leads");
    two.is_right(lab).await?;
    link::presence(lab, &two.jid, &remote).await?;
    ensure!(owner(lab, "b", &one.jid).await? == "b2", "the link has gone to another node");
    one.is_right(lab).await
}

/// A room and its occupants.
struct Room<'c> {
    jid: String,
    local: Vec<Client>,
    remote: &'c [Client],
    third: &'c [Client],
}

impl<'c> Room<'c> {
    /// A room on a node, with occupants on this node and the other one, and with these.
    async fn open(
        lab: &Lab,
        name: &str,
        [node, other]: [&str; 2],
        remote: &'c [Client],
        third: &'c [Client],
    ) -> Result<Self> {
        let jid = lab.server(node).room(name);
        let mut local = log_in(lab.server(node), &names(&format!("near{name}"), 2)).await?;
        local.extend(log_in(lab.server(other), &names(&format!("far{name}"), 2)).await?);
        local[0].create(&jid, &format!("near{name}00"), &[]).await?;
        ensure!(home(lab, other, &jid).await? == node, "{jid} is not on {node}");
        let wire = lab.wire("a", "b");
        wire.reset();
        for clients in [&local[1..], third, remote] {
            join_all(&jid, clients).await?;
        }
        linked(wire, &jid, 1).await?;
        local[1].say(&jid, "linked")?;
        let room = Self { jid, local, remote, third };
        all_have(room.everybody(), "linked").await?;
        Ok(room)
    }

    fn everybody(&self) -> Vec<&Client> {
        self.remote.iter().chain(&self.local).chain(self.third).collect()
    }

    /// Everybody hears everything once and in order, and it crosses once.
    async fn is_right(&self, lab: &Lab) -> Result<()> {
        let everybody = self.everybody();
        link::quiet(&everybody).await;
        everybody.iter().for_each(|client| client.clear());
        link::messages(lab, &self.jid, &everybody, self.remote).await?;
        for node in B {
            self.come_and_go(lab, node).await?;
        }
        Ok(())
    }

    /// A newcomer of a node is seen by all to come and to go, once.
    async fn come_and_go(&self, lab: &Lab, node: &str) -> Result<()> {
        let nick = format!("new{node}");
        let newcomer = &log_in(lab.server(node), std::slice::from_ref(&nick)).await?[0];
        newcomer.join(&self.jid, &nick).await?;
        let here = format!("{nick} is here");
        newcomer.say(&self.jid, &here)?;
        all_have(self.everybody(), &here).await?;
        newcomer.leave(&self.jid, &nick).await?;
        let from = format!("{}/{nick}", self.jid);
        for client in self.everybody() {
            client.wait_for(|r| r.is("presence", "unavailable", &from), SOON).await?;
            client.quiet(Duration::from_millis(50)).await;
            let received = client.received();
            let seen = |kind| received.iter().filter(|r| r.is("presence", kind, &from)).count();
            ensure!((seen(""), seen("unavailable")) == (1, 1), "{}: {nick}", client.jid());
        }
        Ok(())
    }
}
