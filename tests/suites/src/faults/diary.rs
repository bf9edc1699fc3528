//! What an occupant's client has heard of a room, as far as the oracle looks at it.

use std::collections::BTreeMap;

/// One thing that a room tells all its occupants, in the words of everybody who hears it. Bodies and
/// the `<status/>` of presences are never used twice, so each of these is unique.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A message, by its body.
    Message(String),
    /// A presence: nick and status.
    Presence(String, String),
    /// Somebody has left: nick, and the status that he had last.
    Gone(String, String),
}

impl Event {
    /// Whether it is a message.
    pub fn is_message(&self) -> bool {
        matches!(self, Self::Message(_))
    }
}

/// How a stay began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the own presence (status 110), which carried this `<status/>`.
    Joined(String),
    /// Before the record was last begun anew.
    Continued,
}

/// How a stay ended, as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It has not: the user believes to be in the room.
    In,
    /// He asked to leave and got the answer.
    Left,
    /// He was told that he is out: status codes of the unavailable presence, or `destroyed`.
    Told(String),
    /// A stanza of his own came back with an error upon which clients enter anew: its condition.
    Refused(String),
    /// He asked to enter again while inside, and was let in.
    Again,
    /// He was put out and did not hear of it; a change of presence that he sent then let him in again,
    /// with the list of occupants.
    Unaware,
    /// He asked to leave and heard nothing for so long that he left.
    Unanswered,
    /// His own connection ended.
    Closed,
}

/// From the own presence to the end.
#[derive(Clone, Debug)]
pub struct Stay {
    /// The nick.
    pub nick: String,
    /// How it began.
    pub start: Start,
    /// What was heard, in order, without what a room tells those who enter.
    pub heard: Vec<Event>,
    /// After so many events only messages are on record: he has asked to enter again, and presences
    /// may be of the list that answers this.
    pub blurred: Option<usize>,
    /// Messages that have overtaken the own presence.
    pub early: Vec<Event>,
    /// He has been told a presence once more, as in the list for those who enter, after so many events.
    pub repeated: Option<usize>,
    /// How it ended.
    pub end: End,
}

impl Stay {
    /// Presences after so many events may be of the list for those who enter, in any order.
    fn blur_since(&mut self, mark: usize) {
        let mut since = self.heard.split_off(mark);
        since.retain(Event::is_message);
        self.heard.append(&mut since);
        self.blurred = Some(self.blurred.map_or(mark, |n| n.min(mark)));
    }
}

/// All stays of one user since the record was begun.
#[derive(Debug, Default)]
pub struct Diary {
    /// In order; only the last can be open.
    pub stays: Vec<Stay>,
    /// Messages heard after he was told out and before he entered again.
    pub strays: Vec<String>,
    /// Own stanzas that came back with another error, by condition.
    pub bounces: BTreeMap<String, u64>,
    /// Messages since he has asked to enter.
    early: Vec<Event>,
    /// The status of each occupant heard of.
    statuses: BTreeMap<String, String>,
}

impl Diary {
    /// The stay that has not ended.
    pub fn open(&self) -> Option<&Stay> {
        self.stays.last().filter(|stay| stay.end == End::In)
    }

    fn open_mut(&mut self) -> Option<&mut Stay> {
        self.stays.last_mut().filter(|stay| stay.end == End::In)
    }

    /// A stay begins.
    pub fn enter(&mut self, nick: &str, status: &str) {
        let mut early = std::mem::take(&mut self.early);
        // Of several answers any may be the one that the message has overtaken.
        early.extend(self.open().into_iter().flat_map(|stay| stay.early.iter().cloned()));
        self.end(End::Again);
        self.stays.push(Stay {
            nick: nick.to_owned(),
            start: Start::Joined(status.to_owned()),
            heard: Vec::new(),
            early,
            blurred: None,
            repeated: None,
            end: End::In,
        });
        self.statuses.insert(nick.to_owned(), status.to_owned());
    }

    /// He asks to enter while inside, or has asked more than once.
    pub fn blur(&mut self) {
        if let Some(stay) = self.open_mut() {
            stay.blurred.get_or_insert(stay.heard.len());
        }
    }

    /// How many events of the open stay have been heard.
    pub fn mark(&self) -> usize {
        self.open().map_or(0, |stay| stay.heard.len())
    }

    /// His own presence, which he sent after so many events. Whether it has let him in again, since he
    /// had been put out: a list has come before it.
    pub fn has_entered_unaware(&mut self, mark: usize) -> bool {
        let Some(stay) = self.open_mut().filter(|s| s.repeated.is_some_and(|n| n >= mark)) else {
            return false;
        };
        stay.blur_since(mark.min(stay.heard.len()));
        self.end(End::Unaware);
        true
    }

    /// The subject has come, as to who enters: his own presence with this status, after `at` events, has
    /// let him in again. He sent it after `mark` events.
    pub fn has_entered(&mut self, mark: usize, at: usize, status: String) {
        let Some(stay) = self.open_mut().filter(|stay| mark <= at && at <= stay.heard.len()) else {
            return;
        };
        // The presence itself may not be on record.
        let heard = stay.heard.split_off((at + 1).min(stay.heard.len()));
        stay.blur_since(mark);
        let (nick, start) = (stay.nick.clone(), Start::Joined(status));
        self.end(End::Unaware);
        let (early, blurred, repeated) = (Vec::new(), None, None);
        self.stays.push(Stay { nick, start, heard, early, blurred, repeated, end: End::In });
    }

    /// The open stay ends, if there is one.
    pub fn end(&mut self, end: End) {
        let gone = matches!(end, End::Left | End::Told(_) | End::Unanswered | End::Closed);
        if let Some(stay) = self.open_mut() {
            stay.end = end;
        }
        if gone {
            self.statuses.clear();
        }
    }

    /// A message that is not history. `asking`: he has asked to enter. Prosody lets what is newest
    /// overtake the rest when a stream opens, so that a message may come before the answer.
    pub fn message(&mut self, body: String, asking: bool) {
        // What comes after an error of his own server, or after he has left without an answer, is
        // not the room's fault: it has not told him that he is out.
        let told = self.stays.last().is_some_and(|s| matches!(s.end, End::Left | End::Told(_)));
        match self.open_mut() {
            Some(stay) => stay.heard.push(Event::Message(body)),
            None if asking => self.early.push(Event::Message(body)),
            None if told => self.strays.push(body),
            None => {}
        }
    }

    /// An available presence.
    pub fn presence(&mut self, nick: &str, status: String) {
        let before = self.statuses.insert(nick.to_owned(), status.clone());
        let Some(stay) = self.open_mut() else { return };
        if before.as_ref() == Some(&status) {
            stay.repeated = Some(stay.heard.len());
        }
        if stay.blurred.is_none() {
            stay.heard.push(Event::Presence(nick.to_owned(), status));
        }
    }

    /// An unavailable presence of an occupant.
    pub fn gone(&mut self, nick: &str) {
        let status = self.statuses.remove(nick).unwrap_or_default();
        if let Some(stay) = self.open_mut().filter(|stay| stay.blurred.is_none()) {
            stay.heard.push(Event::Gone(nick.to_owned(), status));
        }
    }

    /// Begins the record anew: of an open stay only what came after `last` remains, and nothing of
    /// the others.
    pub fn turn_over(&mut self, last: &Event) {
        let open = self.stays.pop().filter(|stay| stay.end == End::In);
        self.stays.clear();
        self.strays.clear();
        self.bounces.clear();
        if let Some(mut stay) = open {
            // Who has not heard it is somewhere else.
            let Some(last) = stay.heard.iter().rposition(|event| event == last) else { return };
            stay.heard.drain(..=last);
            stay.blurred = stay.blurred.map(|n| n.saturating_sub(last + 1));
            stay.start = Start::Continued;
            self.stays.push(stay);
        }
    }
}
