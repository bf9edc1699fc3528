//! Leaves that a room may not have got.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::silence::{AGAIN, ANSWER};
use crate::{Action, Millis};

/// Shortest time between two leaves of a session if the room has been heard in between.
const CONTACT: u64 = 5000;
/// First waiting time before a leave is repeated; it doubles.
const REPEAT: u64 = 30_000;
/// Longest.
const REPEAT_MOST: u64 = 3_600_000;
/// Time after which a leave that nobody has answered is not repeated any more.
const REPEAT_END: u64 = 86_400_000;
/// Time for which a leave is kept in mind that the room seems to have got.
const IN_MIND: u64 = 600_000;
/// Leaves of each kind that are remembered.
const MOST: usize = 100_000;

/// Leaves that are repeated until the room answers.
#[derive(Debug, Default)]
pub(super) struct Departures {
    of_room: HashMap<Arc<str>, OfRoom>,
    count: usize,
    settled: Settled,
}

#[derive(Debug)]
struct OfRoom {
    sessions: HashMap<Arc<str>, Departure>,
    since: Millis,
    /// When they were told last.
    last: Millis,
    next: Millis,
    wait: u64,
}

#[derive(Debug)]
struct Departure {
    nick: String,
    /// The session has asked to be in again: until then the room may answer.
    asked: Option<Millis>,
}

impl Departures {
    /// A session is out, and its room may not know.
    pub fn remember(&mut self, now: Millis, room: &Arc<str>, session: &Arc<str>, nick: &str) {
        self.settled.remove(room, session);
        if self.count >= MOST {
            return;
        }
        let of_room = self.of_room.entry(room.clone()).or_insert_with(|| OfRoom {
            sessions: HashMap::new(),
            since: now,
            last: now,
            next: now + REPEAT,
            wait: 2 * REPEAT,
        });
        let departure = Departure { nick: nick.to_owned(), asked: None };
        if of_room.sessions.insert(session.clone(), departure).is_none() {
            self.count += 1;
        }
    }

    /// A session has sent that it leaves.
    pub fn left(&mut self, now: Millis, room: &str, session: &str, nick: &str) {
        if self.open(room, session).is_none() {
            self.settled.put(now, room, session, nick.to_owned());
        }
    }

    /// The session asks to be in again, and a leave would take it out.
    pub fn postpone(&mut self, now: Millis, room: &str, session: &str) {
        self.settled.remove(room, session);
        if let Some(departure) = self.open(room, session) {
            departure.asked = Some(now + ANSWER);
        }
    }

    /// The session is in the room again, as another node of the cluster has seen.
    pub fn is_back(&mut self, room: &str, session: &str) {
        self.settled.remove(room, session);
        self.forget(room, session);
    }

    /// The room says that the session is out. It may speak of an older stay than the one that was left.
    pub fn ended(&mut self, now: Millis, room: &str, session: &str) {
        let Some(departure) = self.open(room, session) else { return };
        let nick = std::mem::take(&mut departure.nick);
        self.settled.put(now, room, session, nick);
        self.forget(room, session);
    }

    /// The room takes a session for an occupant that is not one by what it has sent. If its leave is
    /// still in mind, the room has not got it.
    pub fn is_in(&mut self, now: Millis, room: &Arc<str>, session: &Arc<str>) {
        if let Some(nick) = self.settled.remove(room, session) {
            self.remember(now, room, session, &nick);
            if let Some(of_room) = self.of_room.get_mut(room) {
                of_room.next = of_room.next.min(now + AGAIN);
            }
        }
    }

    /// The room knows, or the session is in it again.
    pub fn forget(&mut self, room: &str, session: &str) {
        let Some(of_room) = self.of_room.get_mut(room) else { return };
        if of_room.sessions.remove(session).is_some() {
            self.count -= 1;
        }
        if of_room.sessions.is_empty() {
            self.of_room.remove(room);
        }
    }

    /// The room has named its occupants: those it takes for some leave at once, the others are known
    /// to be out.
    pub fn set_up(
        &mut self,
        now: Millis,
        room: &Arc<str>,
        named: &HashMap<Arc<str>, u32>,
        out: &mut Vec<Action>,
    ) {
        let Some(of_room) = self.of_room.get_mut(room) else { return };
        let before = of_room.sessions.len();
        of_room.sessions.retain(|session, _| named.contains_key(session));
        self.count -= before - of_room.sessions.len();
        of_room.next = now + REPEAT;
        of_room.depart(now, room, out);
        if of_room.sessions.is_empty() {
            self.of_room.remove(room);
        }
    }

    /// The room's server has sent something: it can be reached.
    pub fn contact(&mut self, now: Millis, room: &Arc<str>, out: &mut Vec<Action>) {
        if let Some(of_room) = self.of_room.get_mut(room)
            && now.since(of_room.last) >= CONTACT
        {
            of_room.depart(now, room, out);
        }
    }

    /// Repeats those that are due.
    pub fn tick(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.settled.expire(now);
        let count = &mut self.count;
        self.of_room.retain(|room, of_room| {
            if now.since(of_room.since) >= REPEAT_END {
                *count -= of_room.sessions.len();
                return false;
            }
            if now >= of_room.next {
                of_room.next = now + of_room.wait;
                of_room.wait = (2 * of_room.wait).min(REPEAT_MOST);
                of_room.depart(now, room, out);
            }
            true
        });
    }

    /// When [`Departures::tick`] may have something to do.
    pub fn next(&self) -> Option<Millis> {
        self.of_room.values().map(|of_room| of_room.next).chain(self.settled.next()).min()
    }

    fn open(&mut self, room: &str, session: &str) -> Option<&mut Departure> {
        self.of_room.get_mut(room)?.sessions.get_mut(session)
    }
}

impl OfRoom {
    fn depart(&mut self, now: Millis, room: &Arc<str>, out: &mut Vec<Action>) {
        self.last = now;
        let is_due = |departure: &Departure| departure.asked.is_none_or(|until| now >= until);
        let due = self.sessions.iter().filter(|(_, departure)| is_due(departure));
        let mut sessions: Vec<_> = due.map(|(session, due)| (session, &due.nick)).collect();
        sessions.sort();
        out.extend(sessions.into_iter().map(|(session, nick)| Action::Depart {
            room: room.clone(),
            nick: nick.clone(),
            session: session.clone(),
        }));
    }
}

/// Leaves that rooms seem to know of. What a session sent before may have reached a room that the leave
/// did not reach, and its record is closed by the answer to something older: so each is kept in mind.
#[derive(Debug, Default)]
struct Settled {
    of_session: HashMap<Arc<str>, HashMap<Arc<str>, Leave>>,
    /// Rooms and sessions, each pair once: whoever leaves a room again and again takes no place of
    /// anybody else's.
    order: BTreeMap<Order, (Arc<str>, Arc<str>)>,
    puts: u64,
}

/// When, and which of that time.
type Order = (Millis, u64);
/// Its place, and the nick.
type Leave = (Order, String);

impl Settled {
    fn put(&mut self, now: Millis, room: &str, session: &str, nick: String) {
        self.remove(room, session);
        if self.order.len() >= MOST {
            self.drop_oldest();
        }
        self.puts += 1;
        let (at, room, session): (_, Arc<str>, Arc<str>) =
            ((now, self.puts), room.into(), session.into());
        self.order.insert(at, (room.clone(), session.clone()));
        self.of_session.entry(session).or_default().insert(room, (at, nick));
    }

    /// The nick, if there is one.
    fn remove(&mut self, room: &str, session: &str) -> Option<String> {
        let rooms = self.of_session.get_mut(session)?;
        let (at, nick) = rooms.remove(room)?;
        if rooms.is_empty() {
            self.of_session.remove(session);
        }
        self.order.remove(&at);
        Some(nick)
    }

    fn drop_oldest(&mut self) {
        if let Some((room, session)) = self.order.first_key_value().map(|(_, of)| of.clone()) {
            self.remove(&room, &session);
        }
    }

    fn expire(&mut self, now: Millis) {
        while self.next().is_some_and(|at| now >= at) {
            self.drop_oldest();
        }
    }

    fn next(&self) -> Option<Millis> {
        self.order.first_key_value().map(|((at, _), _)| *at + IN_MIND)
    }
}
