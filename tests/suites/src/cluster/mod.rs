//! Clusters of ejabberd, two nodes each: rooms, streams and sessions are spread over them, and nodes
//! fail, leave and come back.

mod failing;
mod spread;

use anyhow::{Result, bail};
use dmuc_testkit::{Kind, Lab, LabBuilder, ServerSpec};

use crate::runner::Suite;

pub fn suite() -> Suite {
    Suite::new("cluster")
        .case("two rooms on two nodes, two streams to two nodes", spread::run)
        .case("replica's nodes fail, room on prosody", || failing::replica(Kind::Prosody))
        .case("primary's nodes fail, replica prosody", || failing::primary(Kind::Prosody))
        .case("nodes of both fail", failing::both)
}

/// Where a server is a cluster: its nodes.
const A: &[&str] = &["a", "a2"];
const B: &[&str] = &["b", "b2"];

/// Servers whose nodes these are, and a third, `c`, as it is; a wire between every two servers.
fn lab<'n>(
    name: &str,
    nodes: impl IntoIterator<Item = (Kind, &'n str)>,
    change: impl Fn(ServerSpec) -> ServerSpec,
    third: ServerSpec,
) -> LabBuilder {
    let nodes = nodes.into_iter().map(|(kind, node)| {
        let spec = change(ServerSpec::new(kind, node));
        match node.strip_suffix('2') {
            Some(first) => spec.in_cluster_of(first),
            None => spec,
        }
    });
    nodes.fold(Lab::builder(name), LabBuilder::server).server(third).wires()
}

/// The node that has a room, as another node of its cluster sees it.
async fn home(lab: &Lab, seen_by: &str, room: &str) -> Result<String> {
    let (name, service) = room.split_once('@').unwrap_or_default();
    let find = format!("{{ok, Pid}} = mod_muc:find_online_room(<<{name:?}>>, <<{service:?}>>)");
    node(&lab.server(seen_by).eval(&format!("{find}, node(Pid)")).await?)
}

/// The node of `b` that has the window of a room's link, as node `seen_by` of it knows.
async fn owner(lab: &Lab, seen_by: &str, room: &str) -> Result<String> {
    let read = format!(
        "[Owner] = mnesia:dirty_read(dmuc_owner, {{<<\"b.test\">>, <<{room:?}>>}}), \
         element(3, Owner)"
    );
    node(&lab.server(seen_by).eval(&read).await?)
}

/// The nodes of `a` that have a stream from its rooms to `b`.
async fn streams(lab: &Lab, seen_by: &str) -> Result<Vec<String>> {
    let read = "lists:join(\" \", [atom_to_list(node(element(3, S))) || \
                S <- mnesia:dirty_read(s2s, {<<\"conference.a.test\">>, <<\"b.test\">>})])";
    let read = format!("lists:flatten({read})");
    let text = lab.server(seen_by).eval(&read).await?;
    let mut nodes =
        text.trim_matches('"').split_whitespace().map(node).collect::<Result<Vec<_>>>()?;
    nodes.sort();
    Ok(nodes)
}

/// The server of the laboratory that is an Erlang node.
fn node(erlang: &str) -> Result<String> {
    match erlang.trim_matches('\'').split('_').collect::<Vec<_>>()[..] {
        ["dmuc", name, _] => Ok(name.to_owned()),
        _ => bail!("{erlang} is no node of the laboratory"),
    }
}
