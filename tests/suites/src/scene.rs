//! What most cases begin with: a room on one server, occupants on others.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dmuc_testkit::{Client, Kind, Lab, LabBuilder, Server, ServerSpec, Wire};
use tokio::time::sleep;

use crate::traffic;

/// Which server hosts the room and which has the occupants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pairing {
    /// Kind of the server named `a`, with the room.
    pub primary: Kind,
    /// Kind of the server named `b`, with the remote occupants.
    pub replica: Kind,
}

/// All four.
pub const PAIRINGS: [Pairing; 4] = [
    Pairing { primary: Kind::Ejabberd, replica: Kind::Ejabberd },
    Pairing { primary: Kind::Ejabberd, replica: Kind::Prosody },
    Pairing { primary: Kind::Prosody, replica: Kind::Ejabberd },
    Pairing { primary: Kind::Prosody, replica: Kind::Prosody },
];

/// Only this one, or all.
pub fn pairings(only: Option<Pairing>) -> impl Iterator<Item = Pairing> {
    PAIRINGS.into_iter().filter(move |pairing| only.is_none_or(|only| only == *pairing))
}

impl FromStr for Pairing {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let (primary, replica) =
            name.split_once('-').context("no pairing as in ejabberd-prosody")?;
        Ok(Self { primary: primary.parse()?, replica: replica.parse()? })
    }
}

impl fmt::Display for Pairing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.primary, self.replica)
    }
}

impl Pairing {
    /// Servers `a` and `b` of this pairing, both with dmuc, and a wire between them.
    pub fn lab(self, name: &str) -> LabBuilder {
        self.lab_with(name, |spec| spec)
    }

    /// The same, with something changed on both.
    pub fn lab_with(self, name: &str, change: impl Fn(ServerSpec) -> ServerSpec) -> LabBuilder {
        let spec = |kind, name| change(ServerSpec::new(kind, name).dmuc(true));
        Lab::builder(&format!("{name}-{self}"))
            .server(spec(self.primary, "a"))
            .server(spec(self.replica, "b"))
            .wire("a", "b")
    }
}

/// How long to wait for something that is due.
pub const SOON: Duration = Duration::from_secs(30);

/// Names of users: `prefix00`, `prefix01` and so on.
pub fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n:02}")).collect()
}

/// Logs in users of a server, with accounts made for them.
pub async fn log_in(server: &Server, users: &[String]) -> Result<Vec<Client>> {
    server.register(users).await?;
    Client::connect_all(server, users.iter().map(String::as_str), "r").await
}

/// Lets them into a room one after the other, each under his user name.
pub async fn join_all(room: &str, clients: &[Client]) -> Result<()> {
    for client in clients {
        client.join(room, nick(client)).await?;
    }
    Ok(())
}

/// The nick that [`join_all`] gives.
pub fn nick(client: &Client) -> &str {
    client.jid().split('@').next().unwrap_or_default()
}

/// Waits for something that is looked at again and again.
pub async fn until(what: &str, limit: Duration, done: impl Fn() -> bool) -> Result<()> {
    let begin = Instant::now();
    while !done() {
        if begin.elapsed() > limit {
            bail!("waited {limit:?} in vain: {what}");
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The same, with something that has to be asked for.
pub async fn until_async(
    what: &str,
    limit: Duration,
    done: impl AsyncFn() -> Result<bool>,
) -> Result<()> {
    let begin = Instant::now();
    while !done().await? {
        if begin.elapsed() > limit {
            bail!("waited {limit:?} in vain: {what}");
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Waits until the replica has said yes to `count` set-ups of a room, counted from the wire's last
/// reset.
pub async fn linked(wire: &Wire, room: &str, count: usize) -> Result<()> {
    until(&format!("{room} is linked {count} times"), SOON, || {
        traffic::links(&wire.records(), room) >= count
    })
    .await
}

/// Waits until every client has this message from the room.
pub async fn all_have<'a>(clients: impl IntoIterator<Item = &'a Client>, body: &str) -> Result<()> {
    for client in clients {
        client.wait_for(|r| r.body().as_deref() == Some(body), SOON).await?;
    }
    Ok(())
}
