//! An XML stream of a server link, from header to authentication, in both roles.

use std::collections::VecDeque;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::framing::{Frame, Framer};
use crate::tls::Tls;
use crate::xml::escape;

/// A connection and the frames that were read from it.
pub(super) struct Pipe<S> {
    io: S,
    framer: Framer,
    frames: VecDeque<Frame>,
}

impl<S: AsyncRead + Unpin> Pipe<S> {
    pub(super) fn new(io: S) -> Self {
        Self { io, framer: Framer::new(), frames: VecDeque::new() }
    }

    /// For a stream whose header is over already.
    pub(super) fn inside(io: S) -> Result<Self> {
        let mut pipe = Self::new(io);
        pipe.framer.push(header("", "", "").as_bytes())?;
        Ok(pipe)
    }

    /// The next frame that is more than white space; nothing at the end of the connection.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.frames.pop_front() {
                Some(Frame::Space(_)) => {}
                Some(frame) => return Ok(Some(frame)),
                None => match self.io.read(&mut buffer).await {
                    Ok(0) | Err(_) => return Ok(None),
                    Ok(length) => self.frames.extend(self.framer.push(&buffer[..length])?),
                },
            }
        }
    }

    async fn header(&mut self) -> Result<Vec<(String, String)>> {
        match self.next().await?.context("the connection ended")? {
            Frame::Header { attributes, .. } => Ok(attributes),
            other => bail!("expected a stream header, got {other:?}"),
        }
    }

    async fn element(&mut self) -> Result<(String, String)> {
        match self.next().await?.context("the connection ended")? {
            Frame::Element { name, xml } => Ok((name, xml)),
            other => bail!("expected an element, got {other:?}"),
        }
    }

    async fn expect(&mut self, wanted: &str) -> Result<String> {
        match self.element().await? {
            (name, xml) if name == wanted => Ok(xml),
            (_, xml) => bail!("expected <{wanted}/>, got {xml}"),
        }
    }

    fn restart(&mut self) {
        self.framer = Framer::new();
    }

    pub(super) fn into_inner(self) -> S {
        self.io
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Pipe<S> {
    async fn send(&mut self, xml: &str) -> Result<()> {
        self.io.write_all(xml.as_bytes()).await?;
        Ok(self.io.flush().await?)
    }
}

fn header(from: &str, to: &str, id: &str) -> String {
    format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
         xmlns:stream='http://etherx.jabber.org/streams' version='1.0' from='{}' to='{}'{id}>",
        escape(from),
        escape(to)
    )
}

/// Opens a stream as `from` to the server of `to` and authenticates.
pub(super) async fn open(
    tls: &Tls,
    socket: TcpStream,
    from: &str,
    to: &str,
) -> Result<Pipe<TlsStream<TcpStream>>> {
    socket.set_nodelay(true)?;
    let mut pipe = Pipe::new(socket);
    pipe.send(&header(from, to, "")).await?;
    pipe.header().await?;
    pipe.expect("features").await?;
    pipe.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await?;
    pipe.expect("proceed").await?;
    let name = ServerName::try_from(to.to_owned())?;
    let socket = tls.connector.connect(name, pipe.into_inner()).await?;
    let mut pipe = Pipe::new(TlsStream::from(socket));
    pipe.send(&header(from, to, "")).await?;
    pipe.header().await?;
    let features = pipe.expect("features").await?;
    if !features.contains("EXTERNAL") {
        bail!("{to} does not take our certificate: {features}");
    }
    pipe.send(&format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>{}</auth>",
        BASE64_STANDARD.encode(from)
    ))
    .await?;
    pipe.expect("success").await?;
    pipe.restart();
    pipe.send(&header(from, to, "")).await?;
    pipe.header().await?;
    pipe.expect("features").await?;
    Ok(pipe)
}

/// Accepts a stream and lets the other server authenticate.
pub(super) async fn accept(tls: &Tls, socket: TcpStream) -> Result<Pipe<TlsStream<TcpStream>>> {
    socket.set_nodelay(true)?;
    let mut pipe = Pipe::new(socket);
    answer_header(
        &mut pipe,
        "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>",
    )
    .await?;
    pipe.expect("starttls").await?;
    pipe.send("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await?;
    let mut pipe = Pipe::new(TlsStream::from(tls.acceptor.accept(pipe.into_inner()).await?));
    answer_header(
        &mut pipe,
        "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
         <mechanism>EXTERNAL</mechanism></mechanisms>",
    )
    .await?;
    pipe.expect("auth").await?;
    pipe.restart();
    pipe.send("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").await?;
    answer_header(&mut pipe, "").await?;
    Ok(pipe)
}

async fn answer_header<S: AsyncRead + AsyncWrite + Unpin>(
    pipe: &mut Pipe<S>,
    features: &str,
) -> Result<()> {
    let attributes = pipe.header().await?;
    let get = |wanted: &str| {
        attributes.iter().find(|(name, _)| name == wanted).map_or("", |(_, value)| value.as_str())
    };
    let header = header(get("to"), get("from"), " id='peer'");
    pipe.send(&format!("{header}<stream:features>{features}</stream:features>")).await
}
