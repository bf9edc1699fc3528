//! Room trees: casts that replicas pass on to other replicas (`docs/protocol.md`, section 8).
//!
//! A room with occupants on very many servers need not send each cast to all of them. The parts of that
//! are here; [`Room::grow`](crate::Room::grow) and [`Replica::grow`](crate::Replica::grow) turn it on,
//! and without them nothing here is used. Limits are arguments; what is refused or thrown away is told to
//! the caller, who counts it.
//!
//! * At the primary, [`RoomStream`] numbers casts, signs them and says what comes before them,
//!   [`Parents`] is the tree of each class, [`Standings`] what is thought of its relays, and [`Mode`]
//!   says whether there are trees at all.
//! * At a replica, [`Merge`] makes one stream of the casts and the envelopes of the direct link. What is
//!   [`Taken::New`] is passed on.
//! * Both use [`canonical`], a stanza in a form that survives being parsed and written anew;
//!   [`RoomKey`] and [`RoomLock`] for signatures; and [`LinkKey`] for barrier tags.

mod barrier;
mod canonical;
mod cast;
mod gaps;
mod merge;
mod mode;
mod options;
mod parents;
mod sign;
mod standing;
mod stream;
pub(crate) mod wire;

pub use barrier::{LinkKey, Tag};
pub use canonical::{CanonicalError, Digest, MAX_DEPTH, canonical};
pub use cast::{Carried, Cast, Position, Proof};
pub use merge::{Envelope, Merge, MergeLimits, Missing, Next, NotTaken, Source, Taken};
pub use mode::Mode;
pub(crate) use options::TreeOptions;
pub use parents::{Move, Parents, Shape};
pub use sign::{PublicKey, RoomKey, RoomLock, Signature, Stream};
pub use standing::{Patience, Sentence, Standings};
pub use stream::{Place, Repair, RoomStream, Spread, StreamLimits};

/// A replica of a room, by the number that its primary has given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(pub u32);
