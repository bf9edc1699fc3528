//! What the core asks of its host.

use std::sync::Arc;

use crate::{Element, Millis, Payload};

/// One thing to do. The shells give each the name in brackets.
#[derive(Clone, Debug)]
pub enum Action {
    /// \[plain\] Send this stanza of the room to each of these as plain MUC would.
    Plain {
        /// The stanza, without `to`.
        payload: Payload,
        /// Full JIDs.
        to: Vec<Arc<str>>,
    },
    /// \[envelope\] Send `<message type='normal'>` from the room to a replica.
    Envelope {
        /// Bare domain of the replica.
        to: Arc<str>,
        /// The stanza's id; errors that carry it go to [`crate::Room::bounced`].
        id: String,
        /// The `<envelope/>`, or a `<resume/>`.
        body: Arc<Element<Payload>>,
    },
    /// \[setup\] Send `<iq type='set'>` from the room; the answer goes to
    /// [`crate::Room::setup_result`].
    Setup {
        /// Bare domain of the replica.
        to: Arc<str>,
        /// Names the question for the answer.
        id: String,
        /// The `<link/>`.
        body: Element<Payload>,
    },
    /// \[ask_support\] Ask [`crate::Support`] about this domain for this room.
    AskSupport {
        /// A domain with occupants in the room.
        domain: Arc<str>,
    },
    /// \[support_seen\] This domain has shown that it speaks dmuc: tell [`crate::Support`].
    SupportSeen {
        /// The domain.
        domain: Arc<str>,
    },
    /// \[forget_support\] The cached answer about this domain was wrong.
    ForgetSupport {
        /// The domain.
        domain: Arc<str>,
    },
    /// \[fail\] Make the room believe that a stanza to each of these has bounced. Comes after all
    /// others: what the room sends upon it must not overtake them.
    Fail {
        /// Full JIDs of occupants.
        to: Vec<Arc<str>>,
    },
    /// \[deliver\] Hand the payload of one operation to local sessions, as if each had come alone.
    Deliver {
        /// Position of the operation among the envelope's children.
        op: usize,
        /// Full JIDs of local sessions.
        to: Vec<Arc<str>>,
    },
    /// \[replay\] Hand these stanzas to local sessions, each session all of them in this order, as if
    /// each had come alone.
    Replay {
        /// As they were in [`crate::Incoming::packed`].
        stanzas: Vec<Arc<[u8]>>,
        /// Full JIDs of local sessions.
        to: Vec<Arc<str>>,
    },
    /// \[report\] Send `<message type='normal'>` from the own domain to the room.
    Report {
        /// Bare JID of the room.
        to: Arc<str>,
        /// The stanza's id.
        id: String,
        /// The `<report/>`.
        body: Element<Payload>,
    },
    /// \[refuse\] Answer an envelope with `<message type='error'>`.
    Refuse {
        /// Bare JID of the room.
        to: Arc<str>,
        /// The envelope's id.
        id: String,
        /// Defined condition of RFC 6120 section 8.3.3.
        condition: &'static str,
        /// Condition in the dmuc namespace.
        dmuc: &'static str,
    },
    /// \[result\] Answer the set-up with `<iq type='result'>`.
    Result {
        /// The `<link/>`.
        body: Element<Payload>,
    },
    /// \[setup_error\] Answer the set-up with `<iq type='error'>`.
    SetupError {
        /// Defined condition of RFC 6120 section 8.3.3.
        condition: &'static str,
        /// Condition in the dmuc namespace.
        dmuc: &'static str,
    },
    /// \[evict\] Tell a local session that it is out of a room (XEP-0045 status 110 and 333).
    Evict {
        /// Bare JID of the room.
        room: Arc<str>,
        /// The session's nick there.
        nick: String,
        /// Full JID of the session.
        session: Arc<str>,
    },
    /// \[depart\] Send the room an unavailable presence from a session of the own domain, which may
    /// be gone: the room may not have got the one that the session has sent, or there was none.
    Depart {
        /// Bare JID of the room.
        room: Arc<str>,
        /// The session's nick there.
        nick: String,
        /// Full JID of the session.
        session: Arc<str>,
    },
    /// \[link_over\] There is no link with this room any more, and neither end has said so in an
    /// envelope or a report: forget what is kept of it.
    LinkOver {
        /// Bare JID of the room.
        room: Arc<str>,
    },
    /// \[handled\] The link has come this far: what to tell the room should this core fail.
    Handled {
        /// Bare JID of the room.
        room: Arc<str>,
        /// Epoch of the link.
        epoch: String,
        /// Newest envelope that was carried out.
        seq: u64,
    },
    /// \[consent_changed\] A consent record is new, changed or gone: copy it to where it survives.
    ConsentChanged {
        /// Bare JID of the room.
        room: Arc<str>,
        /// Full JID of the session.
        session: Arc<str>,
    },
    /// \[announce\] Send `<announce/>` from the own domain to the room.
    Announce {
        /// Bare JID of the room.
        room: Arc<str>,
    },
}

/// What one call gives back.
#[derive(Clone, Debug, Default)]
pub struct Actions {
    /// To be carried out in this order.
    pub list: Vec<Action>,
    /// Only of [`crate::Replica::cast`]: bare domains to which the same `<relayed/>` is to be passed on at
    /// once, in one `<message type='normal'>` from the own domain to each (`docs/protocol.md`, section 8.7).
    pub relays: Vec<Arc<str>>,
    /// When to call `tick`, if that moved forward.
    pub wake: Option<Millis>,
}
