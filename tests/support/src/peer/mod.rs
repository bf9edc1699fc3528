//! A server that says what a test wants: the hostile one.
//!
//! It is nobody's idea of a whole server. It has a certificate that the others trust, opens
//! authenticated streams to them, sends any text on these, and takes down what they send
//! to it. The stanzas that a real server would answer of itself it answers only as told.

mod pipe;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncWriteExt, WriteHalf, split};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsStream;
use tokio_xmpp::minidom::Element;

use self::pipe::Pipe;
use crate::framing::Frame;
use crate::tls::Tls;
use crate::transcript::{Received, Transcript};
use crate::xml;

/// Gives the answers to a received stanza.
type Answer = dyn Fn(&Element) -> Vec<String> + Send + Sync;

/// A peer with the domains `NAME.test` and `conference.NAME.test`.
pub struct Peer {
    core: Arc<Core>,
    listener: JoinHandle<()>,
}

struct Core {
    name: String,
    address: Ipv4Addr,
    tls: Tls,
    routes: BTreeMap<String, Ipv4Addr>,
    transcript: Transcript,
    answer: std::sync::Mutex<Option<Arc<Answer>>>,
    streams: Mutex<HashMap<(String, String), Outgoing>>,
}

/// A stream that a peer opened; raw text goes out on it.
struct Outgoing {
    write: WriteHalf<TlsStream<TcpStream>>,
    reader: JoinHandle<()>,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Peer {
    /// Listens on `address`; `routes` says where the servers of other domains are.
    pub async fn start(
        name: &str,
        address: Ipv4Addr,
        tls: Tls,
        routes: BTreeMap<String, Ipv4Addr>,
    ) -> Result<Self> {
        let listener = TcpListener::bind((address, 5269)).await.context("a peer cannot listen")?;
        let core = Arc::new(Core {
            name: name.to_owned(),
            address,
            tls,
            routes,
            transcript: Transcript::new(name),
            answer: std::sync::Mutex::default(),
            streams: Mutex::default(),
        });
        let listener = tokio::spawn(accept(core.clone(), listener));
        Ok(Self { core, listener })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Its domain.
    pub fn domain(&self) -> String {
        format!("{}.test", self.core.name)
    }

    /// The domain that its rooms would have.
    pub fn muc(&self) -> String {
        format!("conference.{}.test", self.core.name)
    }

    /// What other servers have sent to it, whichever domain it was for, and what came back
    /// on the streams that it opened itself.
    pub fn transcript(&self) -> &Transcript {
        &self.core.transcript
    }

    /// Everything received so far.
    pub fn received(&self) -> Vec<Received> {
        self.core.transcript.received()
    }

    /// See [`Transcript::wait_for`].
    pub async fn wait_for(
        &self,
        wanted: impl Fn(&Received) -> bool,
        limit: Duration,
    ) -> Result<Received> {
        self.core.transcript.wait_for(wanted, limit).await
    }

    /// From now on, whatever comes is answered with the stanzas that `answer` gives.
    pub fn set_answer(&self, answer: impl Fn(&Element) -> Vec<String> + Send + Sync + 'static) {
        *self.core.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(answer));
    }

    /// Sends a stanza, on a stream from the domain in its `from` to the domain in its `to`.
    pub async fn send(&self, stanza: &str) -> Result<()> {
        self.core.send(stanza).await
    }

    /// Sends any text on the stream from one of its domains to another server's, whatever
    /// addresses the text itself claims.
    pub async fn send_raw(&self, from: &str, to: &str, text: &str) -> Result<()> {
        self.core.send_raw(from, to, text).await
    }

    /// Closes the streams that it opened.
    pub async fn hang_up(&self) {
        self.core.streams.lock().await.clear();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Core {
    async fn send(self: &Arc<Self>, stanza: &str) -> Result<()> {
        let element = xml::parse(stanza, "jabber:server")?;
        let from = xml::domain(element.attr("from").context("a stanza without from")?);
        let to = xml::domain(element.attr("to").context("a stanza without to")?);
        self.send_raw(from, to, stanza).await
    }

    async fn send_raw(self: &Arc<Self>, from: &str, to: &str, text: &str) -> Result<()> {
        let mut streams = self.streams.lock().await;
        let key = (from.to_owned(), to.to_owned());
        if streams.get(&key).is_none_or(|stream| stream.reader.is_finished()) {
            let opened =
                self.open(from, to).await.with_context(|| format!("no stream {from} -> {to}"))?;
            streams.insert(key.clone(), opened);
        }
        let stream = streams.get_mut(&key).context("a stream just opened")?;
        stream.write.write_all(text.as_bytes()).await?;
        Ok(stream.write.flush().await?)
    }

    async fn open(self: &Arc<Self>, from: &str, to: &str) -> Result<Outgoing> {
        let server =
            self.routes.get(to).with_context(|| format!("{to} is not in the laboratory"))?;
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.address, 0).into())?;
        let socket = socket.connect(SocketAddr::from((*server, 5269))).await?;
        let pipe = pipe::open(&self.tls, socket, from, to).await?;
        let (read, write) = split(pipe.into_inner());
        // A fresh framer would start at a stream header; this one goes on inside the stream.
        let mut pipe = Pipe::inside(read)?;
        let core = self.clone();
        let reader = tokio::spawn(async move {
            while let Ok(Some(Frame::Element { xml: text, .. })) = pipe.next().await {
                core.take(&text);
            }
        });
        Ok(Outgoing { write, reader })
    }

    fn take(self: &Arc<Self>, text: &str) {
        let Ok(element) = xml::parse(text, "jabber:server") else { return };
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answers = answer.map(|answer| answer(&element)).unwrap_or_default();
        self.transcript.push(element);
        if !answers.is_empty() {
            let core = self.clone();
            tokio::spawn(async move {
                for answer in answers {
                    // A server that went away gets no answer.
                    let _ = core.send(&answer).await;
                }
            });
        }
    }
}

async fn accept(core: Arc<Core>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let core = core.clone();
        connections.spawn(async move {
            let mut pipe = pipe::accept(&core.tls, socket).await?;
            while let Some(Frame::Element { xml: text, .. }) = pipe.next().await? {
                core.take(&text);
            }
            anyhow::Ok(())
        });
    }
}
