//! What can go wrong with a link or a server, for a time.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::Lab;
use crate::wire::Loss;

/// A fault: [`Fault::strike`] begins it, [`Fault::mend`] ends it. Names are those of servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// All packets between two servers are dropped: nobody is told, connections stay, what was sent
    /// comes when it is over, unless a server gives up before.
    Down(String, String),
    /// All packets from the first to the second are dropped, and those the other way are not.
    OneWay(String, String),
    /// Of the packets between two servers, so many of a hundred are dropped.
    Lossy(String, String, u8),
    /// Everything between two servers takes so much longer, each way.
    Slow(String, String, Duration),
    /// Connections between two servers are reset, new ones work at once.
    Reset(String, String),
    /// Connections between two servers are closed and new ones refused.
    Refused(String, String),
    /// A server's process stands still (SIGSTOP): its connections stay, nothing answers.
    Frozen(String),
    /// A server's process is killed (SIGKILL), and started again at the end.
    Killed(String),
    /// A node leaves its cluster, which ends it, and joins again at the end, without what it knew.
    Left(String),
    /// A server's dmuc is unloaded, and loaded again at the end.
    Unloaded(String),
}

impl Fault {
    /// Begins it.
    pub async fn strike(&self, lab: &Lab) -> Result<()> {
        match self {
            Self::Down(a, b) => lab.wire(a, b).lose_both_ways(Loss::All),
            Self::OneWay(from, to) => lab.wire(from, to).lose(from, Loss::All),
            Self::Lossy(a, b, percent) => lab.wire(a, b).lose_both_ways(Loss::Percent(*percent)),
            Self::Slow(a, b, latency) => {
                lab.wire(a, b).set_latency(*latency);
                Ok(())
            }
            Self::Reset(a, b) => lab.wire(a, b).abort().await,
            Self::Refused(a, b) => {
                lab.wire(a, b).cut().await;
                Ok(())
            }
            Self::Frozen(server) => lab.server(server).freeze().await,
            Self::Killed(server) => lab.server(server).kill().await,
            Self::Left(server) => lab.server(server).leave().await,
            Self::Unloaded(server) => lab.server(server).unload_dmuc().await,
        }
    }

    /// Ends it. A server that was killed accepts connections when this returns.
    pub async fn mend(&self, lab: &Lab) -> Result<()> {
        match self {
            Self::Down(a, b) | Self::OneWay(a, b) | Self::Lossy(a, b, _) => {
                lab.wire(a, b).lose_both_ways(Loss::None)
            }
            Self::Slow(a, b, _) => {
                lab.wire(a, b).set_latency(Duration::ZERO);
                Ok(())
            }
            Self::Reset(..) => Ok(()),
            Self::Refused(a, b) => lab.wire(a, b).heal().await,
            Self::Frozen(server) => lab.server(server).thaw().await,
            Self::Killed(server) => lab.server(server).start().await,
            Self::Left(server) => {
                let server = lab.server(server);
                let others = lab.servers().filter(|other| server.is_beside(other));
                let other = others.into_iter().next().context("no other node")?;
                server.start().await?;
                server.join(other).await
            }
            Self::Unloaded(server) => lab.server(server).load_dmuc().await,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down(a, b) => write!(f, "{a}-{b} down"),
            Self::OneWay(from, to) => write!(f, "{from}->{to} down"),
            Self::Lossy(a, b, percent) => write!(f, "{a}-{b} loses {percent} %"),
            Self::Slow(a, b, latency) => write!(f, "{a}-{b} slower by {latency:?}"),
            Self::Reset(a, b) => write!(f, "{a}-{b} reset"),
            Self::Refused(a, b) => write!(f, "{a}-{b} refused"),
            Self::Frozen(server) => write!(f, "{server} frozen"),
            Self::Killed(server) => write!(f, "{server} killed"),
            Self::Left(server) => write!(f, "{server} out of its cluster"),
            Self::Unloaded(server) => write!(f, "{server} without dmuc"),
        }
    }
}
