//! One connection through a wire.

use std::net::SocketAddr;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes, split,
};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::rustls::pki_types::ServerName;

use super::packets::Place;
use super::{Direction, Shared};
use crate::framing::{Frame, Framer};
use crate::meter::Metered;

/// How many chunks may wait in one direction before the sender is held back.
const QUEUE: usize = 256;

/// How much is read at once.
const CHUNK: usize = 64 * 1024;

/// Carries one connection until it ends. `direction` is that of the server who opened it.
pub(super) async fn relay(
    shared: &Shared,
    direction: Direction,
    near: TcpStream,
    targets: &[SocketAddr],
) -> Result<()> {
    let opener = shared.end(direction);
    let listener = shared.end(direction.reverse());
    // Before the handshakes, which can get lost as well.
    let _near = shared.sockets.add(direction, false, &near)?;
    let (far, _far) = connect(shared, direction, targets).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let mut near = Metered::new(near, shared.ledger.raw(direction));
    let mut far = Metered::new(far, shared.ledger.raw(direction.reverse()));

    if shared.behaviour.borrow().closed_book {
        shared.ledger.connected(direction);
        // How a connection ends that nobody reads is the servers' affair.
        let _ = copy_bidirectional_with_sizes(&mut near, &mut far, CHUNK, CHUNK).await;
        return Ok(());
    }
    let Some(domain) = until_proceed(shared, direction, &mut near, &mut far).await? else {
        return Ok(());
    };
    let name = ServerName::try_from(domain).context("no domain in the stream header")?;
    let near = listener.tls.acceptor.accept(near);
    let far = opener.tls.connector.connect(name, far);
    let (near, far) = tokio::try_join!(near, far).context("TLS")?;
    shared.ledger.connected(direction);

    // Authentication ends with a new stream in both directions.
    let restarted = AtomicBool::new(false);
    let (near_read, near_write) = split(near);
    let (far_read, far_write) = split(far);
    let forth = pump(shared, direction, &restarted, false, near_read, far_write);
    let back = pump(shared, direction.reverse(), &restarted, true, far_read, near_write);
    tokio::try_join!(forth, back)?;
    Ok(())
}

/// Connects to the first that listens.
async fn connect(
    shared: &Shared,
    direction: Direction,
    targets: &[SocketAddr],
) -> Result<(TcpStream, Place)> {
    for target in targets {
        let socket = TcpSocket::new_v4()?;
        // From another address than the server's own, or a server could not tell them apart
        // in its log.
        socket.bind((shared.end(direction.reverse()).listen, 0).into())?;
        let place = shared.sockets.add(direction.reverse(), false, &socket)?;
        if let Ok(stream) = socket.connect(*target).await {
            return Ok((stream, place));
        }
    }
    bail!("the other server does not listen")
}

/// Passes on the negotiation in the clear. Gives back the domain that the opener wants,
/// or nothing when the stream ends without TLS.
async fn until_proceed(
    shared: &Shared,
    direction: Direction,
    near: &mut (impl AsyncRead + AsyncWrite + Unpin),
    far: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Option<String>> {
    let (mut near_framer, mut far_framer) = (Framer::new(), Framer::new());
    let (mut near_buffer, mut far_buffer) = ([0; 4096], [0; 4096]);
    let mut domain = None;
    loop {
        tokio::select! {
            read = near.read(&mut near_buffer) => {
                let bytes = &near_buffer[..read?];
                if bytes.is_empty() {
                    return Ok(None);
                }
                let frames = near_framer.push(bytes)?;
                for frame in &frames {
                    if let Frame::Header { attributes, .. } = frame {
                        let to = attributes.iter().find(|(name, _)| name == "to");
                        domain = to.map(|(_, value)| value.clone());
                    }
                }
                if frames.iter().any(Frame::is_stanza) {
                    bail!("a stanza before TLS");
                }
                shared.ledger.note(direction, frames);
                far.write_all(bytes).await?;
            }
            read = far.read(&mut far_buffer) => {
                let bytes = &far_buffer[..read?];
                if bytes.is_empty() {
                    return Ok(None);
                }
                let frames = far_framer.push(bytes)?;
                let proceed = frames
                    .iter()
                    .any(|f| matches!(f, Frame::Element { name, .. } if name == "proceed"));
                shared.ledger.note(direction.reverse(), frames);
                near.write_all(bytes).await?;
                if proceed {
                    return Ok(domain);
                }
            }
        }
    }
}

/// Carries one direction to its end.
async fn pump(
    shared: &Shared,
    direction: Direction,
    restarted: &AtomicBool,
    answers: bool,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> Result<()> {
    let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(QUEUE);
    let forger = shared.forger.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let read = async move {
        let mut framer = Framer::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = match from.read(&mut buffer).await {
                // A server that closes without TLS's own goodbye has closed all the same.
                Ok(0) | Err(_) => return anyhow::Ok(()),
                Ok(length) => length,
            };
            let bytes = &buffer[..length];
            if !answers && restarted.swap(false, Ordering::AcqRel) {
                framer = Framer::new();
            }
            let frames = framer.push(bytes)?;
            let success = answers
                && frames
                    .iter()
                    .any(|f| matches!(f, Frame::Element { name, .. } if name == "success"));
            if success {
                framer = Framer::new();
                restarted.store(true, Ordering::Release);
            }
            let passed = match &forger {
                Some(forger) => Shared::forged(forger, &shared.end(direction).name, &frames),
                None => bytes.to_vec(),
            };
            shared.ledger.note(direction, frames);
            if queue.send((Instant::now(), passed)).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async move {
        let mut behaviour = shared.behaviour.subscribe();
        while let Some((at, bytes)) = queued.recv().await {
            let latency = behaviour.borrow().latency;
            if !latency.is_zero() {
                sleep_until(at + latency).await;
            }
            // The sender of the watch lives as long as the wire.
            let _ = behaviour.wait_for(|b| !b.stalled).await;
            to.write_all(&bytes).await?;
            if queued.is_empty() {
                to.flush().await?;
            }
        }
        // The other side may be gone already.
        let _ = to.shutdown().await;
        anyhow::Ok(())
    };
    tokio::try_join!(read, write)?;
    Ok(())
}
