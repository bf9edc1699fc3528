//! The dmuc protocol as state machines.
//!
//! This crate contains the protocol of `docs/protocol.md` and nothing else. It performs no
//! I/O, reads no clock, starts no thread and keeps no global state. It knows no XML stream,
//! no Erlang and no Lua: the shells in `native/nif` and `native/lua` hand it what happened and
//! the time, and carry out the [`Action`]s it gives back, in order.
//!
//! The parts, by the role that uses them:
//!
//! * [`Room`]: the primary's side of one live XEP-0045 room. It watches every stanza that the
//!   room sends to remote sessions and says which of them cross in an envelope.
//! * [`Replica`]: a user domain's side. It keeps who in the domain asked to be in which room
//!   ([`consent`]) and says to whom a carried stanza is to be delivered.
//! * [`Support`]: which domains speak dmuc, shared by the rooms of a MUC service.
//!
//! # Calling contract
//!
//! * Every entry that can change state takes `now`, which must never go backwards, and returns
//!   [`Actions`]. All of its actions must be carried out, in order, before the next call.
//! * When [`Actions::wake`] is set, call `tick` at that time; being late is safe, not calling
//!   is not. Calls that return no [`Actions`] may set a deadline too, which the next one tells; a
//!   `tick` a minute does for those.
//! * Remote input never panics and never fails a call: it is answered, counted
//!   ([`Counters`]) and has no other effect.

mod action;
mod audience;
pub mod config;
pub mod consent;
pub mod counters;
mod element;
mod facts;
mod grouping;
mod history;
pub mod indexes;
pub mod jid;
pub mod ops;
pub mod page;
#[cfg(feature = "planted-faults")]
pub mod planted;
#[cfg(feature = "readers")]
pub mod readers;
mod replica;
mod room;
mod slots;
mod support;
mod time;
pub mod tree;
pub mod view;

pub use action::{Action, Actions};
pub use audience::Class;
pub use config::{Config, ConfigError, Options, Shared, Unit};
pub use counters::{Counter, Counters};
pub use element::{Element, Incoming, Payload, PayloadIn};
pub use facts::Facts;
pub use history::{Spans, Traffic};
pub use ops::is_envelope_id;
pub use replica::{LinkStatus, Replica, is_question_id};
pub use room::{Bounce, DomainStatus, Error, Room, Verdict};
pub use support::{Answer, Support};
pub use time::Millis;

/// Namespace of everything dmuc puts on the wire, and its disco#info feature.
///
/// The `tmp` form follows XEP-0053 section 4 for protocols that have no number yet.
pub const NS: &str = "urn:xmpp:tmp:dmuc:1";

/// The field by which a room's configuration form (XEP-0045 section 10.2) asks the owner what
/// [`Room::may_show_domains`] tells the core, while [`Shared::asks_owners`]; `boolean`, false if nothing
/// has been said. The form is another protocol's, so that the name has its namespace (XEP-0068 section 3.4).
pub const OWNER_FIELD: &str = "{urn:xmpp:tmp:dmuc:1}show_domains";

/// What the owner reads beside it.
pub const OWNER_LABEL: &str =
    "Servers of occupants may learn of each other and pass messages on to each other";

/// Number of the interface between core and wrappers; both sides compare it at load.
pub const ABI: u32 = if cfg!(feature = "wrong-abi") { u32::MAX } else { 9 };
