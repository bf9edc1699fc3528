//! Two clusters of two nodes each: everything is there on both nodes, and streams lead to either.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{Client, Fault, Lab, Server, ServerSpec};

const SOON: Duration = Duration::from_secs(10);

/// A room on a second node, occupants on all four; then nodes fail, leave and come back.
pub async fn run() -> Result<()> {
    let lab = Lab::builder("selftest-cluster")
        .server(ServerSpec::ejabberd("a"))
        .server(ServerSpec::ejabberd("a2").in_cluster_of("a"))
        .server(ServerSpec::ejabberd("b"))
        .server(ServerSpec::ejabberd("b2").in_cluster_of("b"))
        .wire("a", "b")
        .start()
        .await?;
    let outcome = talk(&lab).await;
    lab.finish(outcome).await
}

async fn talk(lab: &Lab) -> Result<()> {
    let room = lab.server("a").room("hall");
    lab.wire("a", "b").aim("a2", "b2");
    let mut clients = Vec::new();
    for node in ["a2", "a", "b", "b2"] {
        clients.push(log_in(lab.server(node)).await?);
    }
    clients[0].create(&room, "a2", &[]).await?;
    for (client, nick) in clients.iter().zip(["a2", "a", "b", "b2"]).skip(1) {
        client.join(&room, nick).await?;
    }
    for node in ["a", "a2"] {
        let home = "{ok, Pid} = mod_muc:find_online_room(<<\"hall\">>, <<\"conference.a.test\">>), \
                    node(Pid)";
        let home = lab.server(node).eval(home).await?;
        ensure!(home.starts_with("'dmuc_a2_"), "the room is on {home}");
    }
    heard(&clients, &room, "all").await?;
    ensure!(streams(lab.server("b2")).await? != "0", "no stream leads to b2");
    ensure!(streams(lab.server("b")).await? == "0", "a stream leads to b");

    // What remains goes on, by a new stream.
    for fault in [Fault::Killed("b2".into()), Fault::Left("b2".into())] {
        clients.pop();
        fault.strike(lab).await?;
        let alone = lab.server("b").eval("length(nodes())").await?;
        ensure!(alone == "0" || alone == "1", "{alone}");
        // Until the stream that has broken is made again, messages may be lost.
        let mut tries = 0;
        while heard(&clients, &room, &format!("try {tries}")).await.is_err() {
            tries += 1;
            ensure!(tries < 3, "the other node is deaf");
        }
        ensure!(streams(lab.server("b")).await? != "0", "no stream leads to b");
        fault.mend(lab).await?;
        clients.push(log_in(lab.server("b2")).await?);
        clients[3].join(&room, &format!("b2 after {fault}")).await?;
        heard(&clients, &room, &format!("after {fault}")).await?;
    }
    Ok(())
}

async fn log_in(server: &Server) -> Result<Client> {
    server.register(&[server.name()]).await?;
    Client::connect(server, server.name(), "r").await
}

async fn heard(clients: &[Client], room: &str, body: &str) -> Result<()> {
    clients[0].say(room, body)?;
    for client in clients {
        client.wait_for(|r| r.body().as_deref() == Some(body), SOON).await?;
    }
    Ok(())
}

/// How many streams other servers have opened to this node.
async fn streams(server: &Server) -> Result<String> {
    server.eval("length(supervisor:which_children(ejabberd_s2s_in_sup))").await
}
