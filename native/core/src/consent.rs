//! Who in the own domain asked to be in which room.
//!
//! Consent runs from a session's join presence to the room's own end of *that* join or the end of
//! the session. A room answers a session's presences in the order it got them, so a record is a
//! queue of stays: what the room says concerns the oldest stay until that has ended. A join sent
//! after an unavailable therefore opens a new stay that the older answer does not close.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::{Facts, Millis, jid};

/// Stays of one session in one room that may be open at once; a client that leaves and joins
/// more often before the room answers is served plainly.
const MAX_STAYS: usize = 8;

/// One stay of a session in a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stay {
    /// Available presences that the room has not answered. Each is a join if the room gets it while
    /// the session is no occupant.
    pending: u32,
    /// The room has said yes.
    joined: bool,
    /// The session has sent unavailable.
    left: bool,
}

/// A session's consent for a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    stays: VecDeque<Stay>,
    nick: String,
    /// The room has let it in, or confirmed that it is in.
    welcomed: bool,
    /// The number of the last welcome; before that of the record itself. None is given twice.
    mark: u64,
}

impl Record {
    /// The session's newest nick in the room.
    pub fn nick(&self) -> &str {
        &self.nick
    }

    /// Whether the session has a join under way that the room has not answered.
    pub fn is_joining(&self) -> bool {
        self.stays.iter().any(|stay| stay.pending > 0 && !stay.left)
    }

    /// Whether the session has left all its stays.
    pub fn has_left(&self) -> bool {
        self.stays.iter().all(|stay| stay.left)
    }

    /// Whether the session is known to take itself for an occupant: the room has let it in, and not
    /// out, and it has not left. Of a record that nobody has kept up for a while that is known only
    /// when the room has spoken to the session again.
    pub fn is_inside(&self) -> bool {
        self.welcomed && self.stays.back().is_some_and(|stay| stay.joined && !stay.left)
    }

    /// The session has sent a presence to the room.
    fn outgoing(&mut self, nick: &str, facts: Facts) {
        if facts.is_unavailable() {
            if let Some(stay) = self.stays.back_mut() {
                stay.left = true;
            }
            return;
        }
        let stays = self.stays.len();
        match self.stays.back_mut() {
            Some(stay) if !stay.left => {
                stay.pending = stay.pending.saturating_add(1);
                if stay.joined {
                    // A change of nick or of presence; the room's answer tells the nick.
                    return;
                }
            }
            _ if stays < MAX_STAYS => {
                self.stays.push_back(Stay { pending: 1, ..Stay::default() });
            }
            _ => return,
        }
        self.nick = nick.to_owned();
    }

    /// The room has sent a presence to the session. `mark` is the number of a welcome, if it is one.
    fn incoming(&mut self, nick: &str, facts: Facts, mark: u64) {
        if facts.is_error() {
            // The own server makes one for a newer stay while the end of an older is still to come.
            let asking = self.stays.iter().position(|stay| stay.pending > 0);
            let at = asking.unwrap_or(0);
            let Some(stay) = self.stays.get_mut(at) else { return };
            stay.pending = stay.pending.saturating_sub(1);
            if !stay.joined && stay.pending == 0 {
                self.stays.remove(at);
            }
            return;
        }
        let Some(stay) = self.stays.front_mut() else { return };
        if facts.is_own_available() {
            stay.pending = stay.pending.saturating_sub(1);
            stay.joined = true;
            (self.welcomed, self.mark) = (true, mark);
            if !stay.left {
                self.nick = nick.to_owned();
            }
        } else if facts.is_own_end() {
            if stay.pending > 0 && !stay.left {
                // The room had not seen these presences when it ended the stay: to it they are joins.
                stay.joined = false;
            } else {
                self.stays.pop_front();
            }
        }
    }

    /// Tells this record, and what the room has said of it, from every other: it changes when the room
    /// says that the session is in.
    pub fn mark(&self) -> u64 {
        self.mark
    }

    fn pack(&self) -> String {
        let mut text = String::new();
        for stay in &self.stays {
            let flags = u8::from(stay.joined) + 2 * u8::from(stay.left);
            text.push_str(&format!("{}.{flags} ", stay.pending));
        }
        text.push('/');
        text.push_str(&self.nick);
        text
    }

    fn unpack(text: &str) -> Option<Self> {
        let (stays, nick) = text.split_once('/')?;
        let stays = stays
            .split_whitespace()
            .take(MAX_STAYS)
            .map(|stay| {
                let (pending, flags) = stay.split_once('.')?;
                let flags: u8 = flags.parse().ok()?;
                Some(Stay {
                    pending: pending.parse().ok()?,
                    joined: flags & 1 != 0,
                    left: flags & 2 != 0,
                })
            })
            .collect::<Option<VecDeque<_>>>()?;
        let welcomed = stays.iter().any(|stay| stay.joined);
        Some(Record { stays, nick: nick.to_owned(), welcomed, mark: 0 })
    }
}

/// The consent records of a domain.
#[derive(Debug, Default)]
pub struct Consents {
    of_session: HashMap<Arc<str>, HashMap<Arc<str>, Entry>>,
    /// The sessions with a record for a room.
    of_room: HashMap<Arc<str>, HashSet<Arc<str>>>,
    count: usize,
    /// Records that only wait for the room's answer to a leave.
    leaving: VecDeque<(Millis, Arc<str>, Arc<str>)>,
    /// Marks given so far.
    marks: u64,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    /// Since when all stays have been left.
    left_at: Option<Millis>,
}

/// How many records there may be.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// In all.
    pub in_all: usize,
    /// Of one session.
    pub of_session: usize,
}

/// What an observed presence did to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// There is a record, new or changed.
    Changed,
    /// There is no record any more.
    Closed,
    /// A record was wanted but the table is full.
    Full,
}

impl Consents {
    /// A local session has sent a presence to `to`, a room's occupant JID or bare JID.
    pub fn outgoing(
        &mut self,
        now: Millis,
        session: &str,
        to: &str,
        facts: Facts,
        most: Most,
    ) -> Change {
        let (room, nick) = (jid::bare(to), jid::resource(to));
        if facts.is_unavailable() {
            // To the bare JID as well: ejabberd and Prosody take both as leaving.
            let Some(entry) = self.entry(room, session) else { return Change::None };
            entry.record.outgoing("", facts);
            return self.note_leaving(now, room, session);
        }
        let Some(nick) = nick.filter(|_| facts.is_presence() && facts.0 & Facts::TYPE == 0) else {
            return Change::None;
        };
        if let Some(entry) = self.entry(room, session) {
            let before = entry.record.clone();
            entry.record.outgoing(nick, facts);
            if entry.record == before {
                return Change::None;
            }
            return self.note_leaving(now, room, session);
        }
        let of_session = self.of_session.get(session).map_or(0, HashMap::len);
        if self.count >= most.in_all || of_session >= most.of_session {
            return Change::Full;
        }
        self.marks += 1;
        let mut record = Record { mark: self.marks, ..Record::default() };
        record.outgoing(nick, facts);
        self.put(room, session, Entry { record, left_at: None });
        Change::Changed
    }

    /// Takes note of when a session has left its last stay, if that is new.
    pub fn note_leaving(&mut self, now: Millis, room: &str, session: &str) -> Change {
        let Some(entry) = self.entry(room, session) else { return Change::None };
        if !entry.record.has_left() {
            entry.left_at = None;
        } else if entry.left_at.is_none() {
            entry.left_at = Some(now);
            self.leaving.push_back((now, room.into(), session.into()));
        }
        Change::Changed
    }

    /// A room has sent a presence to a local session, plainly or carried.
    pub fn incoming(&mut self, session: &str, from: &str, facts: Facts) -> Change {
        let (room, nick) = (jid::bare(from), jid::resource(from).unwrap_or_default());
        self.marks += 1;
        let mark = self.marks;
        let Some(entry) = self.entry(room, session) else { return Change::None };
        let before = entry.record.clone();
        entry.record.incoming(nick, facts, mark);
        if entry.record.stays.is_empty() {
            self.remove(room, session);
            Change::Closed
        } else if entry.record == before {
            Change::None
        } else {
            Change::Changed
        }
    }

    /// The session is over; returns the rooms whose records went with it, and its nick in each.
    pub fn session_closed(&mut self, session: &str) -> Vec<(Arc<str>, String)> {
        let rooms = self.of_session.remove(session).unwrap_or_default();
        self.count -= rooms.len();
        for room in rooms.keys() {
            self.forget(room, session);
        }
        rooms.into_iter().map(|(room, entry)| (room, entry.record.nick)).collect()
    }

    /// The record of a session for a room.
    pub fn get(&self, room: &str, session: &str) -> Option<&Record> {
        self.of_session.get(session)?.get(room).map(|entry| &entry.record)
    }

    /// Sessions that take themselves for occupants of a room.
    pub fn inside(&self, room: &str) -> impl Iterator<Item = &Arc<str>> {
        let sessions = self.of_room.get(room).into_iter().flatten();
        sessions.filter(|session| self.get(room, session).is_some_and(Record::is_inside))
    }

    /// Removes a record; whether there was one.
    pub fn remove(&mut self, room: &str, session: &str) -> bool {
        let Some(rooms) = self.of_session.get_mut(session) else { return false };
        let there = rooms.remove(room).is_some();
        if rooms.is_empty() {
            self.of_session.remove(session);
        }
        if there {
            self.count -= 1;
            self.forget(room, session);
        }
        there
    }

    fn forget(&mut self, room: &str, session: &str) {
        if let Some(sessions) = self.of_room.get_mut(room) {
            sessions.remove(session);
            if sessions.is_empty() {
                self.of_room.remove(room);
            }
        }
    }

    /// A record in a form that survives: opaque, about as long as the nick.
    pub fn export(&self, room: &str, session: &str) -> Option<String> {
        self.get(room, session).map(Record::pack)
    }

    /// Takes a record that [`Consents::export`] gave; false if it is not in that form.
    pub fn import(&mut self, now: Millis, room: &str, session: &str, packed: &str) -> bool {
        let Some(mut record) = Record::unpack(packed).filter(|record| !record.stays.is_empty())
        else {
            return false;
        };
        self.marks += 1;
        let same = self.get(room, session).filter(|old| old.welcomed == record.welcomed);
        record.mark = same.map_or(self.marks, Record::mark);
        self.remove(room, session);
        self.put(room, session, Entry { record, left_at: None });
        self.note_leaving(now, room, session);
        true
    }

    /// Nobody has looked for a while: sessions may have left, and rooms may have put them out.
    pub fn mistrust(&mut self) {
        let entries = self.of_session.values_mut().flat_map(HashMap::values_mut);
        entries.for_each(|entry| entry.record.welcomed = false);
    }

    /// Every (room, session, record).
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, &Record)> {
        self.of_session.iter().flat_map(|(session, rooms)| {
            rooms.iter().map(move |(room, entry)| (room, session, &entry.record))
        })
    }

    /// Every room that has let somebody in. (There are records of other JIDs that got a directed
    /// presence too; nothing tells them apart before the answer.)
    pub fn rooms(&self) -> HashSet<Arc<str>> {
        let joined = |record: &Record| record.stays.iter().any(|stay| stay.joined);
        self.iter()
            .filter(|(_, _, record)| joined(record))
            .map(|(room, _, _)| room.clone())
            .collect()
    }

    /// Closes records whose leave has not been answered for `expiry` milliseconds: (room, session,
    /// nick).
    pub fn expire(&mut self, now: Millis, expiry: u64) -> Vec<(Arc<str>, Arc<str>, String)> {
        let mut closed = Vec::new();
        while let Some((at, room, session)) =
            self.leaving.pop_front_if(|(at, _, _)| now.since(*at) >= expiry)
        {
            if let Some(entry) = self.entry(&room, &session).filter(|e| e.left_at == Some(at)) {
                let nick = std::mem::take(&mut entry.record.nick);
                self.remove(&room, &session);
                closed.push((room, session, nick));
            }
        }
        closed
    }

    /// When [`Consents::expire`] may next find something.
    pub fn next_expiry(&self, expiry: u64) -> Option<Millis> {
        self.leaving.front().map(|(at, _, _)| *at + expiry)
    }

    fn entry(&mut self, room: &str, session: &str) -> Option<&mut Entry> {
        self.of_session.get_mut(session)?.get_mut(room)
    }

    fn put(&mut self, room: &str, session: &str, entry: Entry) {
        let (room, session): (Arc<str>, Arc<str>) = (room.into(), session.into());
        self.of_room.entry(room.clone()).or_default().insert(session.clone());
        if self.of_session.entry(session).or_default().insert(room, entry).is_none() {
            self.count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Most = Most { in_all: 10, of_session: 10 };
    const S: &str = "u@b.test/r";
    const NICK: &str = "room@c.a.test/n";
    const ROOM: &str = "room@c.a.test";
    const JOIN: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::MUC_X);
    const LEAVE: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::UNAVAILABLE);
    const YES: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::CODE_110);
    const END: Facts = Facts(LEAVE.0 | Facts::CODE_110);
    const ERROR: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::ERROR);

    fn out(consents: &mut Consents, facts: Facts) -> Change {
        consents.outgoing(Millis(0), S, NICK, facts, TEN)
    }

    #[test]
    fn consent_runs_from_the_join_to_the_rooms_own_end() {
        let mut c = Consents::default();
        assert_eq!(out(&mut c, JOIN), Change::Changed);
        assert_eq!(c.incoming(S, NICK, YES), Change::Changed);
        assert_eq!(out(&mut c, LEAVE), Change::Changed);
        assert!(c.get(ROOM, S).is_some(), "the room has not answered yet");
        assert_eq!(c.incoming(S, NICK, END), Change::Closed);
        assert!(c.get(ROOM, S).is_none());
    }

    #[test]
    fn a_record_that_nobody_has_kept_up_does_not_say_who_is_inside() {
        let mut c = Consents::default();
        out(&mut c, JOIN);
        c.incoming(S, NICK, YES);
        assert_eq!(c.inside(ROOM).count(), 1);
        let packed = c.export(ROOM, S).expect("a record");
        let mut c = Consents::default();
        assert!(c.import(Millis(0), ROOM, S, &packed));
        assert_eq!(c.inside(ROOM).count(), 1, "from a node that is there");
        c.mistrust();
        assert_eq!(c.inside(ROOM).count(), 0);
        c.incoming(S, NICK, YES);
        assert_eq!(c.inside(ROOM).count(), 1);
    }

    #[test]
    fn an_older_end_does_not_close_a_newer_join() {
        let mut c = Consents::default();
        for facts in [JOIN, LEAVE, JOIN] {
            out(&mut c, facts);
        }
        c.incoming(S, NICK, YES);
        assert_eq!(c.incoming(S, NICK, END), Change::Changed);
        assert!(c.get(ROOM, S).expect("the second join").is_joining());
        c.incoming(S, NICK, YES);
        assert!(!c.get(ROOM, S).expect("joined").is_joining());
    }

    #[test]
    fn a_failed_join_closes_and_a_failed_nick_change_does_not() {
        let mut c = Consents::default();
        out(&mut c, JOIN);
        assert_eq!(c.incoming(S, NICK, ERROR), Change::Closed);
        out(&mut c, JOIN);
        c.incoming(S, NICK, YES);
        out(&mut c, JOIN);
        c.incoming(S, NICK, ERROR);
        assert!(c.get(ROOM, S).is_some());
    }

    #[test]
    fn of_two_joins_sent_at_once_one_may_fail() {
        let mut c = Consents::default();
        out(&mut c, JOIN);
        out(&mut c, JOIN);
        c.incoming(S, NICK, ERROR);
        assert!(c.get(ROOM, S).is_some());
        c.incoming(S, NICK, ERROR);
        assert!(c.get(ROOM, S).is_none());
    }

    #[test]
    fn a_presence_that_crosses_a_kick_is_a_join() {
        let mut c = Consents::default();
        out(&mut c, JOIN);
        c.incoming(S, NICK, YES);
        out(&mut c, JOIN);
        assert_eq!(c.incoming(S, NICK, END), Change::Changed);
        assert!(c.get(ROOM, S).expect("the presence on its way").is_joining());
        c.incoming(S, NICK, YES);
        assert_eq!(c.incoming(S, NICK, END), Change::Closed);
    }

    #[test]
    fn a_nick_change_is_not_an_end_and_its_new_nick_is_kept() {
        let mut c = Consents::default();
        out(&mut c, JOIN);
        c.incoming(S, NICK, YES);
        assert_eq!(c.incoming(S, NICK, Facts(END.0 | Facts::CODE_303)), Change::None);
        c.incoming(S, "room@c.a.test/new", YES);
        assert_eq!(c.get(ROOM, S).map(Record::nick), Some("new"));
    }

    #[test]
    fn an_unanswered_leave_expires_unless_a_join_follows() {
        let mut c = Consents::default();
        out(&mut c, JOIN);
        out(&mut c, LEAVE);
        assert_eq!(c.next_expiry(10), Some(Millis(10)));
        out(&mut c, JOIN);
        assert!(c.expire(Millis(10), 10).is_empty());
        c.outgoing(Millis(20), S, NICK, LEAVE, TEN);
        assert_eq!(c.expire(Millis(30), 10).len(), 1);
        assert_eq!(c.count, 0);
    }

    #[test]
    fn records_survive_and_are_bounded() {
        let mut c = Consents::default();
        for facts in [JOIN, LEAVE, JOIN] {
            out(&mut c, facts);
        }
        c.incoming(S, NICK, YES);
        let packed = c.export(ROOM, S).expect("record");
        let mut d = Consents::default();
        assert!(d.import(Millis(0), ROOM, S, &packed));
        assert_eq!(d.export(ROOM, S), c.export(ROOM, S));
        assert!(!d.import(Millis(0), ROOM, S, "nonsense"));
        let one = Most { in_all: 1, of_session: 10 };
        assert_eq!(d.outgoing(Millis(0), "v@b.test/r", NICK, JOIN, one), Change::Full);
        let one_each = Most { in_all: 10, of_session: 1 };
        let other = "other@c.a.test/n";
        assert_eq!(d.outgoing(Millis(0), S, other, JOIN, one_each), Change::Full);
        assert_eq!(d.session_closed(S), [(ROOM.into(), "n".to_owned())]);
        assert_eq!(d.outgoing(Millis(0), "v@b.test/r", NICK, JOIN, one), Change::Changed);
    }

    #[test]
    fn a_plain_presence_to_a_bare_jid_asks_for_nothing() {
        let mut c = Consents::default();
        assert_eq!(c.outgoing(Millis(0), S, ROOM, JOIN, TEN), Change::None);
    }
}
