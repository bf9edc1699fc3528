//! Links and servers fail while people talk: nothing lost, nobody haunted.
//!
//! [`town`] is the room and its people, [`member`] what a client does, [`diary`] what it has heard,
//! and [`oracle`] says whether that is right.

pub mod cases;
pub mod cuts;
mod diary;
pub mod list;
mod member;
pub mod oracle;
pub mod soak;
pub mod town;

pub use self::cases::suite;
