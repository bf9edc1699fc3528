//! A laboratory for dmuc: real ejabberd and Prosody servers, real clients, and the
//! wire between the servers, on one machine and out of everybody's way.
//!
//! - [`Lab`] holds servers, wires and peers together; start there.
//! - [`Server`] is one ejabberd or Prosody process that can be frozen, killed and restarted.
//! - [`Wire`] sits on the link between two servers, reads everything and can cut it.
//! - [`Fault`] is what can go wrong with a link or a server, for a time.
//! - [`Client`] is a user's client that remembers everything it ever received.
//! - [`Crowd`] is many users who only listen and count.
//! - [`Peer`] is a hostile server that says on a server link whatever a test wants.
//!
//! Everything runs in a private network namespace, see [`namespace`].

pub mod ca;
pub mod client;
pub mod crowd;
pub mod dns;
pub mod fault;
pub mod framing;
pub mod lab;
pub mod meter;
pub mod namespace;
pub mod peer;
pub mod process;
pub mod rundir;
pub mod selftest;
pub mod server;
pub mod tls;
pub mod transcript;
pub mod usage;
pub mod wire;
pub mod xml;

pub use client::{Client, ClientOptions, Received};
pub use crowd::Crowd;
pub use fault::Fault;
pub use lab::{Lab, LabBuilder};
pub use peer::Peer;
pub use server::{Kind, Server, ServerSpec};
pub use tokio_xmpp::minidom::{self, Element};
pub use transcript::Transcript;
pub use usage::Usage;
pub use wire::{Counters, Direction, Forger, Loss, Record, Wire};
