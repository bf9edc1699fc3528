//! Packets that get lost, and connections that are reset.
//!
//! A socket filter (classic BPF, `SO_ATTACH_FILTER`) sees each packet that arrives at a socket of the
//! wire before TCP does. What it refuses is gone, as if a router had dropped it: it is not
//! acknowledged, its sender's kernel sends it again, less and less often, and a connection that is
//! being made stays half made. It needs neither rights nor modules of the kernel, unlike netem.
//!
//! The wire stands in the middle and acknowledges what it gets through. So with packets of one
//! direction lost, the sender of the *other* one sees no loss, though nobody hears his peer's
//! acknowledgements: some ten packets still arrive, and the rest waits in the wire.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{SockFilter, SockRef, Socket};

use super::Direction;

/// Which of the packets that one end sends get lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// So many of a hundred, by chance.
    Percent(u8),
    /// All: nothing passes and nobody is told.
    All,
}

// From linux/filter.h.
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_LESS_OR_EQUAL: u16 = 0x05 | 0x20;
const RETURN: u16 = 0x06;
/// SKF_AD_OFF + SKF_AD_RANDOM: not a place in the packet, but a random number.
const RANDOM: u32 = 0xffff_f000 + 56;
const KEEP: u32 = u32::MAX;
const DROP: u32 = 0;

impl Loss {
    fn apply(self, socket: &Socket) -> io::Result<()> {
        let refuse = SockFilter::new(RETURN, 0, 0, DROP);
        match self {
            Self::None => match socket.detach_filter() {
                // There was none.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                outcome => outcome,
            },
            Self::All => socket.attach_filter(&[refuse]),
            Self::Percent(percent) => {
                let bound = u32::MAX / 100 * u32::from(percent.min(100));
                socket.attach_filter(&[
                    SockFilter::new(LOAD_WORD, 0, 0, RANDOM),
                    // "Greater" goes on, the rest is refused.
                    SockFilter::new(JUMP_IF_LESS_OR_EQUAL, 0, 1, bound),
                    SockFilter::new(RETURN, 0, 0, KEEP),
                    refuse,
                ])
            }
        }
    }
}

/// The sockets of a wire.
#[derive(Default)]
pub(crate) struct Sockets(Mutex<State>);

#[derive(Default)]
struct State {
    /// What is lost, by [`Direction`].
    loss: [Loss; 2],
    open: BTreeMap<u64, Open>,
    next: u64,
}

struct Open {
    /// Which way the packets go that arrive here.
    direction: Direction,
    listens: bool,
    socket: Socket,
}

/// Holds a place among the [`Sockets`], and the socket open, until dropped.
pub(super) struct Place {
    sockets: Arc<Sockets>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sockets.state().open.remove(&self.number);
    }
}

impl Sockets {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on packets get lost at this socket too.
    pub(super) fn add<'a>(
        self: &Arc<Self>,
        direction: Direction,
        listens: bool,
        socket: impl Into<SockRef<'a>>,
    ) -> io::Result<Place> {
        let socket = socket.into().try_clone()?;
        let mut state = self.state();
        // A connection has the filter of its listener, as it was when the connection was made.
        state.loss[direction as usize].apply(&socket)?;
        let number = state.next;
        state.next += 1;
        state.open.insert(number, Open { direction, listens, socket });
        Ok(Place { sockets: self.clone(), number })
    }

    pub(super) fn set_loss(&self, direction: Direction, loss: Loss) -> io::Result<()> {
        let mut state = self.state();
        state.loss[direction as usize] = loss;
        let mut concerned = state.open.values().filter(|open| open.direction == direction);
        concerned.try_for_each(|open| loss.apply(&open.socket))
    }

    /// Connections that are open now will be reset (RST) when they are closed.
    pub(super) fn reset_on_close(&self) -> io::Result<()> {
        let state = self.state();
        let mut connections = state.open.values().filter(|open| !open.listens);
        connections.try_for_each(|open| open.socket.set_linger(Some(Duration::ZERO)))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Result, ensure};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    const WAY: Direction = Direction::AtoB;
    const MOMENT: Duration = Duration::from_millis(300);
    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn lost_packets_come_again() -> Result<()> {
        let sockets = Arc::<Sockets>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let _listens = sockets.add(WAY, true, &listener)?;
        let mut near = TcpStream::connect(listener.local_addr()?).await?;
        let (mut far, _) = listener.accept().await?;
        let _far = sockets.add(WAY, false, &far)?;

        let mut byte = [0];
        sockets.set_loss(WAY, Loss::All)?;
        near.write_all(b"x").await?;
        ensure!(timeout(MOMENT, far.read_exact(&mut byte)).await.is_err(), "it came through");
        let another = TcpStream::connect(listener.local_addr()?);
        ensure!(timeout(MOMENT, another).await.is_err(), "a connection came about");
        sockets.set_loss(WAY, Loss::None)?;
        timeout(SOON, far.read_exact(&mut byte)).await??;
        timeout(SOON, TcpStream::connect(listener.local_addr()?)).await??;
        Ok(())
    }

    #[tokio::test]
    async fn some_packets_get_lost() -> Result<()> {
        let sockets = Arc::<Sockets>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut near = TcpStream::connect(listener.local_addr()?).await?;
        near.set_nodelay(true)?;
        let (mut far, _) = listener.accept().await?;
        let _far = sockets.add(WAY, false, &far)?;
        sockets.set_loss(WAY, Loss::Percent(20))?;
        let begin = std::time::Instant::now();
        let mut byte = [0];
        for _ in 0..50 {
            near.write_all(b"x").await?;
            timeout(6 * SOON, far.read_exact(&mut byte)).await??;
        }
        // A segment that is lost comes again after 200 ms; that none of 50 was is one in 70 000.
        // One that is lost again and again comes after a time that doubles each time.
        ensure!(begin.elapsed() >= Duration::from_millis(200), "none was lost");
        Ok(())
    }

    #[tokio::test]
    async fn a_reset_is_none_of_the_ordinary_ends() -> Result<()> {
        let sockets = Arc::<Sockets>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut near = TcpStream::connect(listener.local_addr()?).await?;
        let (far, _) = listener.accept().await?;
        let place = sockets.add(WAY, false, &far)?;
        sockets.reset_on_close()?;
        drop((far, place));
        let read = timeout(SOON, near.read(&mut [0])).await?;
        let kind = read.err().map(|error| error.kind());
        ensure!(kind == Some(io::ErrorKind::ConnectionReset), "{kind:?}");
        Ok(())
    }
}
