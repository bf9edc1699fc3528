//! The wire between two servers: it reads all that crosses, and can be cut.
//!
//! Each server's view of names leads to the wire instead of to the other server. The wire
//! has both servers' certificates, so STARTTLS and SASL EXTERNAL work on both sides as if
//! nothing stood between. It passes the bytes on unchanged and notes every stanza.
//!
//! What it does to a link, by what a server notices:
//!
//! | | open connections | new ones | what was under way |
//! |---|---|---|---|
//! | [`Wire::cut`] | are closed | are refused | is lost |
//! | [`Wire::abort`] | are reset | pass | is lost |
//! | [`Wire::lose`] | stay, packets are dropped | wait | comes late, by the sender's kernel |
//! | [`Wire::stall`] | stay, bytes wait in the wire | wait | comes late, all at once |
//! | [`Wire::set_latency`] | stay | pass | comes late |
//!
//! With [`Wire::set_forger`] it can do worse: what a server sends is what the forger makes of it.

mod ledger;
mod packets;
mod relay;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use self::ledger::Ledger;
pub use self::ledger::{Counters, Record};
pub use self::packets::Loss;
use self::packets::{Place, Sockets};
use self::relay::relay;
use crate::framing::Frame;
use crate::tls::Tls;

/// Which way along a wire: the first named server is `a`, the second `b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the first server to the second.
    AtoB,
    /// From the second server to the first.
    BtoA,
}

impl Direction {
    /// The other way.
    pub fn reverse(self) -> Self {
        match self {
            Self::AtoB => Self::BtoA,
            Self::BtoA => Self::AtoB,
        }
    }
}

/// One end of a wire.
#[derive(Clone)]
pub struct End {
    /// The server's name.
    pub name: String,
    /// Where the server really is, by its name; of a cluster, each node.
    pub nodes: Vec<(String, Ipv4Addr)>,
    /// Where the wire listens in the place of the *other* server, for this one.
    pub listen: Ipv4Addr,
    /// TLS as this server.
    pub tls: Tls,
}

/// How the wire treats what passes, changeable at any time.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Behaviour {
    pub(crate) latency: Duration,
    pub(crate) stalled: bool,
    pub(crate) closed_book: bool,
}

/// What all connections of a wire share.
pub(crate) struct Shared {
    pub(crate) ends: [End; 2],
    pub(crate) ledger: Ledger,
    pub(crate) behaviour: watch::Sender<Behaviour>,
    pub(crate) sockets: Arc<Sockets>,
    /// Which node connections of a node go to, by name.
    pub(crate) aims: std::sync::Mutex<BTreeMap<String, String>>,
    pub(crate) forger: std::sync::Mutex<Option<Forger>>,
}

/// From the name of a server and a stanza that it sends to what crosses instead, in this order. The default
/// namespace is the stream's.
pub type Forger = Arc<dyn Fn(&str, &str) -> Vec<String> + Send + Sync>;

/// The running half of a wire, absent while it is cut.
struct Live {
    stop: watch::Sender<bool>,
    acceptors: Vec<JoinHandle<()>>,
}

/// A wire between two servers.
pub struct Wire {
    shared: Arc<Shared>,
    live: Mutex<Option<Live>>,
}

impl Wire {
    /// Lays a wire between `a` and `b`, whole.
    pub async fn start(a: End, b: End) -> Result<Self> {
        let ledger = Ledger::new([a.name.clone(), b.name.clone()]);
        let (behaviour, _) = watch::channel(Behaviour::default());
        let sockets = Arc::default();
        let (aims, forger) = Default::default();
        let shared = Arc::new(Shared { ends: [a, b], ledger, behaviour, sockets, aims, forger });
        let wire = Self { shared, live: Mutex::new(None) };
        wire.heal().await?;
        Ok(wire)
    }

    /// The names of the servers at its ends.
    pub fn names(&self) -> (&str, &str) {
        (&self.shared.ends[0].name, &self.shared.ends[1].name)
    }

    /// From now on the connections that node `from` opens lead to node `to` of the other end, as
    /// long as that one listens. Otherwise they lead to the first node that does.
    pub fn aim(&self, from: &str, to: &str) {
        let mut aims = self.shared.aims.lock().unwrap_or_else(PoisonError::into_inner);
        aims.insert(from.to_owned(), to.to_owned());
    }

    /// Closes all connections and refuses new ones. Nothing passes after this returns.
    pub async fn cut(&self) {
        if let Some(live) = self.live.lock().await.take() {
            let _ = live.stop.send(true);
            for acceptor in live.acceptors {
                // An acceptor that panicked is gone as well.
                let _ = acceptor.await;
            }
        }
    }

    /// Lets connections through (again).
    pub async fn heal(&self) -> Result<()> {
        let mut slot = self.live.lock().await;
        if slot.is_some() {
            return Ok(());
        }
        let (stop, stopped) = watch::channel(false);
        let mut acceptors = Vec::new();
        for direction in [Direction::AtoB, Direction::BtoA] {
            let address = self.shared.end(direction).listen;
            let listener = listen(address)
                .await
                .with_context(|| format!("the wire cannot listen on {address}"))?;
            let place = self.shared.sockets.add(direction, true, &listener)?;
            let shared = self.shared.clone();
            acceptors.push(tokio::spawn(accept(
                shared,
                direction,
                (listener, place),
                stopped.clone(),
            )));
        }
        *slot = Some(Live { stop, acceptors });
        Ok(())
    }

    /// Cuts and heals at once: the servers lose their connections and can make new ones.
    pub async fn interrupt(&self) -> Result<()> {
        self.cut().await;
        self.heal().await
    }

    /// Resets all connections (RST); new ones are let through at once.
    pub async fn abort(&self) -> Result<()> {
        self.shared.sockets.reset_on_close()?;
        self.interrupt().await
    }

    /// Loses packets that server `from` sends, from now on. Connections stay open and nobody is
    /// told; what is lost is sent again by the sender's kernel, in intervals that double.
    pub fn lose(&self, from: &str, loss: Loss) -> Result<()> {
        let direction = self.direction(from).with_context(|| format!("{from} is not at it"))?;
        self.shared.sockets.set_loss(direction, loss).context("cannot lose packets")
    }

    /// The same both ways. All of them is a link that is down, none one that is up again.
    pub fn lose_both_ways(&self, loss: Loss) -> Result<()> {
        let (a, b) = self.names();
        self.lose(a, loss)?;
        self.lose(b, loss)
    }

    /// Holds everything back while connections stay open, as a server that
    /// does not read. Nothing is lost, and all of it goes on at once; for lost packets see
    /// [`Wire::lose`].
    pub fn stall(&self) {
        self.shared.behaviour.send_modify(|b| b.stalled = true);
    }

    /// Lets go what [`Wire::stall`] holds back.
    pub fn flow(&self) {
        self.shared.behaviour.send_modify(|b| b.stalled = false);
    }

    /// Delays everything by this much, each way.
    pub fn set_latency(&self, latency: Duration) {
        self.shared.behaviour.send_modify(|b| b.latency = latency);
    }

    /// On later connections the forger decides what crosses. What it makes is not on record.
    pub fn set_forger(&self, forger: Forger) {
        *self.shared.forger.lock().unwrap_or_else(PoisonError::into_inner) = Some(forger);
    }

    /// Keeps the stanzas themselves (the default), or only counts them.
    pub fn set_recording(&self, recording: bool) {
        self.shared.ledger.set_recording(recording);
    }

    /// Reads what crosses (the default), or passes the bytes of later connections on as they come:
    /// TLS then runs from server to server, only `raw_bytes` and `connections` are counted, and
    /// such a connection cannot be slowed. For measuring times, where reading would cost.
    pub fn set_reading(&self, reading: bool) {
        self.shared.behaviour.send_modify(|b| b.closed_book = !reading);
    }

    /// What server `from` has sent over this wire since the last reset.
    pub fn sent_by(&self, from: &str) -> Counters {
        match self.direction(from) {
            Some(direction) => self.shared.ledger.counters(direction),
            None => Counters::default(),
        }
    }

    /// What has crossed both ways since the last reset.
    pub fn counters(&self) -> Counters {
        self.shared.ledger.counters(Direction::AtoB) + self.shared.ledger.counters(Direction::BtoA)
    }

    /// Every stanza since the last reset, in the order in which they passed.
    pub fn records(&self) -> Vec<Record> {
        self.shared.ledger.records()
    }

    /// What went wrong on connections of this wire, for the log.
    pub fn faults(&self) -> Vec<String> {
        self.shared.ledger.faults()
    }

    /// Starts counting from nothing and forgets the stanzas so far.
    pub fn reset(&self) {
        self.shared.ledger.reset();
    }

    fn direction(&self, from: &str) -> Option<Direction> {
        let [a, b] = &self.shared.ends;
        if a.name == from {
            Some(Direction::AtoB)
        } else if b.name == from {
            Some(Direction::BtoA)
        } else {
            None
        }
    }
}

impl Shared {
    /// What becomes of a chunk that server `from` has sent and that has these frames in it.
    fn forged(forger: &Forger, from: &str, frames: &[Frame]) -> Vec<u8> {
        let mut out = String::new();
        for frame in frames {
            match frame {
                Frame::Element { xml, .. } if frame.is_stanza() => out.extend(forger(from, xml)),
                Frame::Header { xml, .. } | Frame::Element { xml, .. } => out += xml,
                Frame::Space(count) => out += &" ".repeat(*count),
                Frame::Footer => out += "</stream:stream>",
            }
        }
        out.into_bytes()
    }

    /// The end that `direction` leads away from.
    pub(crate) fn end(&self, direction: Direction) -> &End {
        match direction {
            Direction::AtoB => &self.ends[0],
            Direction::BtoA => &self.ends[1],
        }
    }

    /// Where a connection from `opener` may lead, best first.
    fn targets(&self, direction: Direction, opener: IpAddr) -> Vec<SocketAddr> {
        let near = &self.end(direction).nodes;
        let mut far: Vec<_> = self.end(direction.reverse()).nodes.iter().collect();
        let aims = self.aims.lock().unwrap_or_else(PoisonError::into_inner);
        // Only ejabberd says from which address it connects, and only that may have several nodes.
        let opener = match &near[..] {
            [only] => Some(only),
            _ => near.iter().find(|(_, address)| *address == opener),
        };
        if let Some(aim) = opener.and_then(|(name, _)| aims.get(name)) {
            far.sort_by_key(|(name, _)| name != aim);
        }
        far.into_iter().map(|(_, address)| (*address, 5269).into()).collect()
    }
}

/// A program that is just being started has the sockets of this one until it runs, so that the old
/// listener may outlive its end for a moment.
const FORKED: Duration = Duration::from_secs(10);

async fn listen(address: Ipv4Addr) -> io::Result<TcpListener> {
    let start = Instant::now();
    loop {
        match TcpListener::bind((address, 5269)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && start.elapsed() < FORKED => {
                // The kernel tells nobody when it is free.
                sleep(Duration::from_millis(10)).await;
            }
            outcome => return outcome,
        }
    }
}

async fn accept(
    shared: Arc<Shared>,
    direction: Direction,
    (listener, place): (TcpListener, Place),
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((socket, opener)) = accepted else { continue };
                let shared = shared.clone();
                connections.spawn(async move {
                    let targets = shared.targets(direction, opener.ip());
                    if let Err(fault) = relay(&shared, direction, socket, &targets).await {
                        shared.ledger.fault(direction, &fault);
                    }
                });
            }
        }
    }
    drop((listener, place));
    connections.shutdown().await;
}
