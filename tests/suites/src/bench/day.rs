//! What a room sees of a day, made up from a seed.

use fastrand::Rng;

/// Users who come for a while, beside those who stay.
pub const GUESTS: usize = 5;

/// The same day each time.
const SEED: u64 = 33;

/// Who does something: a remote user by his number, or the owner, who is local.
pub type Actor = Option<usize>;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message to the room, with so many bytes of text.
    Message(Actor, usize),
    /// Somebody's status changes.
    Status(Actor),
    /// A guest, by his number among the remote users, comes.
    Join(usize),
    /// He goes.
    Leave(usize),
    /// A remote user changes his nick and says something, with so many bytes of text.
    Nick(usize, usize),
    /// A private message to a remote occupant.
    Whisper(Actor, usize),
}

/// A hundred things in a room with k remote users: 60 messages, 25 changes of status, 5 guests who
/// come and go, 3 changes of nick, after each of which one of the messages follows at once, 2 private
/// messages. Half of what can be done by anybody is done by the owner.
pub fn day(k: usize) -> Vec<Event> {
    let mut rng = Rng::with_seed(SEED);
    let mut kinds: Vec<u8> = (0..97).collect();
    rng.shuffle(&mut kinds);
    let mut visits = (0..GUESTS).flat_map(|n| [Event::Join(k + n), Event::Leave(k + n)]);
    let event = |kind| {
        let actor = rng.bool().then(|| rng.usize(0..k));
        // Short ones are more frequent than long ones.
        let length = 10 << rng.u32(0..7);
        match kind {
            0..57 => Event::Message(actor, length),
            57..60 => Event::Nick(rng.usize(0..k), length),
            60..85 => Event::Status(actor),
            85..87 => Event::Whisper(actor, (actor.unwrap_or(0) + 1 + rng.usize(0..k - 1)) % k),
            _ => visits.next().unwrap_or(Event::Status(actor)),
        }
    };
    kinds.into_iter().map(event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_what_it_is_said_to_have() {
        for k in [2, 10, 1000] {
            let day = day(k);
            let count = |wanted: fn(&Event) -> bool| day.iter().filter(|e| wanted(e)).count();
            assert_eq!(count(|e| matches!(e, Event::Message(..) | Event::Nick(..))), 60);
            assert_eq!(count(|e| matches!(e, Event::Status(_))), 25);
            assert_eq!(count(|e| matches!(e, Event::Join(_))), GUESTS);
            assert_eq!(count(|e| matches!(e, Event::Leave(_))), GUESTS);
            assert_eq!(count(|e| matches!(e, Event::Nick(..))), 3);
            let whispers = |e: &Event| matches!(e, Event::Whisper(by, to) if *by != Some(*to));
            assert_eq!(count(whispers), 2, "one's own nick is no other's");
        }
    }
}
