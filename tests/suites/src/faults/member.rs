//! A user who wants to be in a room, and whose client does what clients do: it logs in again when its
//! connection ends, enters again when it learns that it is out, and asks again when nobody answers.

use std::cell::{Cell, Ref, RefCell};
use std::time::{Duration, Instant};

use anyhow::Result;
use dmuc_testkit::{Client, Received, Server, xml};
use tokio::time::sleep;

use super::diary::{Diary, End, Event};

/// How long a client waits before it tries again to connect or to enter.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest time for which a question may be stuck on the way.
const STUCK: Duration = Duration::from_secs(90);

/// How long a client waits for the answer when it asks to enter or to leave.
const ANSWER: Duration = Duration::from_secs(10);

/// What it says when it leaves. The room's answer has it too, other news that it is out have not.
const FAREWELL: &str = "farewell";

/// How often a client looks whether something is due.
const TURN: Duration = Duration::from_millis(100);

/// Errors to a message of his own from which a client learns that it is not in the room.
const NOT_INSIDE: [&str; 3] = ["not-acceptable", "item-not-found", "gone"];

/// Where a client is, as it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Outside,
    /// Has asked to enter, perhaps while inside.
    Entering(Instant),
    Inside,
    /// Has asked to leave.
    Leaving(Instant),
}

/// A user.
pub struct Member<'l> {
    name: String,
    server: &'l Server,
    room: String,
    inner: RefCell<Inner>,
    /// Whether he wants to be in the room.
    wanted: Cell<bool>,
    /// Whether he wants to be logged in.
    online: Cell<bool>,
}

struct Inner {
    client: Option<Client>,
    /// How many sessions there have been; each has a resource and a nick of its own.
    sessions: u32,
    place: Place,
    /// Not before this does it try again to enter.
    due: Instant,
    /// The last number that a `<status/>` had.
    last: u64,
    /// What the own presence carries that answers the question to enter.
    asked: Vec<String>,
    /// The same of questions that he has given up since, and when: they may be stuck on the way.
    stuck: Vec<(String, Instant)>,
    /// The `<status/>` of changes of presence, and after how many events of his stay he sent them.
    shown: Vec<(String, usize)>,
    /// The last change of presence that came back: after how many events of his stay he sent it, after
    /// how many it came, and its `<status/>`.
    came_back: Option<(usize, usize, String)>,
    /// The room's server has died since he entered.
    room_died: bool,
    diary: Diary,
    /// Messages heard, by body, with the time; only of who is asked to measure.
    arrivals: Option<Vec<(String, Instant)>>,
}

impl<'l> Member<'l> {
    /// A user of a server who wants to be in a room.
    pub fn new(name: &str, server: &'l Server, room: &str) -> Self {
        let inner = Inner {
            client: None,
            sessions: 0,
            place: Place::Outside,
            due: Instant::now(),
            last: 0,
            asked: Vec::new(),
            stuck: Vec::new(),
            shown: Vec::new(),
            came_back: None,
            room_died: false,
            diary: Diary::default(),
            arrivals: None,
        };
        Self {
            name: name.to_owned(),
            server,
            room: room.to_owned(),
            inner: RefCell::new(inner),
            wanted: Cell::new(true),
            online: Cell::new(true),
        }
    }

    /// His account.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// His server.
    pub fn server(&self) -> &'l Server {
        self.server
    }

    /// Whether he believes to be in the room.
    pub fn is_inside(&self) -> bool {
        let inner = self.inner.borrow();
        inner.diary.open().is_some() && !matches!(inner.place, Place::Leaving(_))
    }

    /// Whether he has what he wants.
    pub fn is_content(&self) -> bool {
        let inner = self.inner.borrow();
        match self.online.get() && self.wanted.get() {
            true => inner.place == Place::Inside,
            false => inner.place == Place::Outside,
        }
    }

    /// The full address of his session.
    pub fn jid(&self) -> Option<String> {
        self.inner.borrow().client.as_ref().map(|client| client.jid().to_owned())
    }

    /// The full addresses of all sessions that he has had.
    pub fn sessions(&self) -> impl Iterator<Item = String> {
        let account = format!("{}@{}", self.name, self.server.domain());
        (1..=self.inner.borrow().sessions).map(move |n| format!("{account}/r{n}"))
    }

    /// Whether he has heard this in the stay that has not ended.
    pub fn has_heard(&self, event: &Event) -> bool {
        let inner = self.inner.borrow();
        inner.diary.open().is_some_and(|stay| stay.heard.iter().rev().any(|e| e == event))
    }

    /// What he has heard.
    pub fn diary(&self) -> Ref<'_, Diary> {
        Ref::map(self.inner.borrow(), |inner| &inner.diary)
    }

    /// The room's server has died, of which he has not been told. What he sends may let him into the
    /// new room, and its list come before he knows.
    pub fn room_died(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.room_died = true;
        inner.diary.blur();
    }

    /// Begins his diary anew after this event.
    pub fn turn_over(&self, last: &Event) {
        self.inner.borrow_mut().diary.turn_over(last);
    }

    /// From now on the times of messages are kept.
    pub fn measure(&self) {
        self.inner.borrow_mut().arrivals.get_or_insert_default();
    }

    /// When which messages came, since the last time.
    pub fn arrivals(&self) -> Vec<(String, Instant)> {
        self.inner.borrow_mut().arrivals.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Says something, if he believes to be inside.
    pub fn say(&self, body: &str) -> Result<()> {
        let inner = self.inner.borrow();
        match &inner.client {
            Some(client) if inner.place == Place::Inside => client.say(&self.room, body).map(drop),
            _ => Ok(()),
        }
    }

    /// Changes his status, if he believes to be inside.
    pub fn show(&self) -> Result<()> {
        let mut inner = self.inner.borrow_mut();
        let to = self.occupant(&inner);
        let status = inner.status();
        let mark = inner.diary.mark();
        inner.shown.push((status.clone(), mark));
        match &inner.client {
            Some(client) if inner.place == Place::Inside => {
                client.presence(&to, &format!("<status>{status}</status>"))
            }
            _ => Ok(()),
        }
    }

    /// From now on he wants to be in the room, or not.
    pub fn want(&self, inside: bool) {
        self.wanted.set(inside);
    }

    /// Whether he wants to be in the room.
    pub fn wants(&self) -> bool {
        self.wanted.get()
    }

    /// Whether he wants to be logged in.
    pub fn is_online(&self) -> bool {
        self.online.get()
    }

    /// From now on he wants to be logged in, or not; logs out without a word.
    pub async fn set_online(&self, online: bool) {
        self.online.set(online);
        if !online {
            let client = self.inner.borrow_mut().client.take();
            if let Some(client) = client {
                client.abort().await;
            }
            self.inner.borrow_mut().closed();
        }
    }

    /// Notices that he is alone, and enters anew at once.
    pub fn give_up(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.out(End::Unanswered);
        inner.due = Instant::now();
    }

    /// Asks to enter although he is inside, as a client does that has its doubts.
    pub fn enter_again(&self) -> Result<()> {
        let mut inner = self.inner.borrow_mut();
        self.enter(&mut inner)
    }

    fn occupant(&self, inner: &Inner) -> String {
        format!("{}/{}", self.room, self.nick(inner))
    }

    fn nick(&self, inner: &Inner) -> String {
        format!("{}-{}", self.name, inner.sessions)
    }

    /// Runs his client; never ends. While `open` does not hold he does not enter.
    pub async fn run(&self, open: &Cell<bool>) {
        loop {
            if !self.online.get() {
                sleep(TURN).await;
                continue;
            }
            let transcript =
                self.inner.borrow().client.as_ref().map(|client| client.transcript().clone());
            let Some(transcript) = transcript else {
                self.log_in().await;
                continue;
            };
            let received = transcript.take(TURN).await;
            let ended = received.is_empty() && transcript.ended().is_some();
            let mut inner = self.inner.borrow_mut();
            // He has logged out meanwhile, and does not read what has still come.
            if inner.client.is_none() {
                continue;
            }
            for stanza in &received {
                self.note(&mut inner, stanza);
            }
            if ended {
                inner.client = None;
                inner.closed();
            } else {
                self.act(&mut inner, open.get());
            }
        }
    }

    async fn log_in(&self) {
        let resource = format!("r{}", self.inner.borrow().sessions + 1);
        match Client::connect(self.server, &self.name, &resource).await {
            Ok(client) => {
                let mut inner = self.inner.borrow_mut();
                inner.sessions += 1;
                inner.client = self.online.get().then_some(client);
                inner.due = Instant::now();
            }
            Err(_) => sleep(AGAIN).await,
        }
    }

    /// Does what is due.
    fn act(&self, inner: &mut Inner, open: bool) {
        let late = |since: Instant| since.elapsed() >= ANSWER;
        let wanted = self.wanted.get();
        let outcome = match inner.place.clone() {
            Place::Outside if wanted && open && inner.due <= Instant::now() => self.enter(inner),
            Place::Entering(since) if open && late(since) => self.enter(inner),
            Place::Inside if !wanted => self.leave(inner),
            Place::Leaving(since) if late(since) => {
                inner.out(End::Unanswered);
                Ok(())
            }
            _ => Ok(()),
        };
        // Nothing can be sent when the connection has ended, which is noticed as well.
        let _ = outcome;
    }

    fn enter(&self, inner: &mut Inner) -> Result<()> {
        let status = inner.status();
        let payload =
            format!("<x xmlns='http://jabber.org/protocol/muc'/><status>{status}</status>");
        let to = self.occupant(inner);
        inner.asked.push(status);
        inner.diary.blur();
        inner.place = Place::Entering(Instant::now());
        match &inner.client {
            Some(client) => client.presence(&to, &payload),
            None => Ok(()),
        }
    }

    fn leave(&self, inner: &mut Inner) -> Result<()> {
        let to = self.occupant(inner);
        inner.place = Place::Leaving(Instant::now());
        match &inner.client {
            Some(client) => client.send_xml(&format!(
                "<presence type='unavailable' to='{}'><status>{FAREWELL}</status></presence>",
                xml::escape(&to)
            )),
            None => Ok(()),
        }
    }

    /// Takes notice of a stanza.
    fn note(&self, inner: &mut Inner, stanza: &Received) {
        let from = stanza.attr("from");
        let (bare, nick) = from.split_once('/').unwrap_or((from, ""));
        if bare != self.room {
            return;
        }
        let own = nick == self.nick(inner);
        match (stanza.element.name(), stanza.attr("type")) {
            ("message", "groupchat") => {
                let history = stanza.element.has_child("delay", "urn:xmpp:delay");
                if let Some(body) = stanza.body().filter(|_| !history) {
                    if let Some(arrivals) = &mut inner.arrivals {
                        arrivals.push((body.clone(), stanza.at));
                    }
                    let asking = !inner.asked.is_empty();
                    inner.diary.message(body, asking);
                    inner.came_back = None;
                } else if stanza.body().is_none()
                    && stanza.child("subject").is_some()
                    && let Some((mark, at, status)) = inner.came_back.take()
                {
                    inner.diary.has_entered(mark, at, status);
                }
            }
            ("message", "error") => {
                let condition = condition(stanza);
                match NOT_INSIDE.contains(&&*condition) && inner.diary.open().is_some() {
                    true => inner.refused(condition),
                    false => inner.bounced(condition),
                }
            }
            ("presence", "error") if own || nick.is_empty() => inner.refused(condition(stanza)),
            ("presence", "") => {
                let status = stanza.child("status").map(|s| s.text()).unwrap_or_default();
                let answered = inner.asked.iter().position(|asked| *asked == status);
                // A change of presence that was sent before he was put out and came after it, or to
                // a room that is a new one: some rooms take that for a join.
                let shown = inner.shown.iter().position(|(shown, _)| own && *shown == status);
                let mark = shown.and_then(|shown| inner.shown.drain(..=shown).next_back());
                let unaware =
                    mark.as_ref().is_some_and(|(_, mark)| inner.diary.has_entered_unaware(*mark));
                let strange = unaware || inner.room_died || inner.diary.open().is_none();
                if own && (answered.is_some() || strange) {
                    inner.room_died = false;
                    inner.asked.drain(..answered.map_or(0, |answered| answered + 1));
                    inner.place = Place::Inside;
                    inner.diary.enter(nick, &status);
                    // The answers to the others come as well.
                    inner.stuck.retain(|(asked, at)| *asked != status && at.elapsed() < STUCK);
                    if !inner.asked.is_empty() || !inner.stuck.is_empty() {
                        inner.diary.blur();
                    }
                } else if !nick.is_empty() {
                    inner.came_back = mark.map(|(status, mark)| (mark, inner.diary.mark(), status));
                    inner.diary.presence(nick, status);
                }
            }
            ("presence", "unavailable") if !nick.is_empty() => {
                inner.diary.gone(nick);
                if own {
                    self.told(inner, stanza);
                }
            }
            _ => {}
        }
    }

    /// The unavailable presence of himself.
    fn told(&self, inner: &mut Inner, stanza: &Received) {
        let muc_user = "http://jabber.org/protocol/muc#user";
        let x = stanza.element.get_child("x", muc_user);
        let destroyed = x.is_some_and(|x| x.has_child("destroy", muc_user));
        match &inner.place {
            Place::Leaving(_) if stanza.child("status").is_some_and(|s| s.text() == FAREWELL) => {
                inner.out(End::Left);
            }
            // The answer to the question may still come.
            Place::Entering(_) => inner.diary.end(End::Told(how(stanza, destroyed))),
            Place::Leaving(_) | Place::Inside | Place::Outside => {
                inner.out(End::Told(how(stanza, destroyed)))
            }
        }
    }
}

fn how(stanza: &Received, destroyed: bool) -> String {
    let codes: Vec<String> =
        stanza.statuses().iter().filter(|code| **code != 110).map(u16::to_string).collect();
    match (destroyed, codes.is_empty()) {
        (true, _) => "destroyed".to_owned(),
        (false, true) => "out".to_owned(),
        (false, false) => codes.join("+"),
    }
}

impl Inner {
    /// A status that nobody has had before.
    fn status(&mut self) -> String {
        self.last += 1;
        format!("{}.{}", self.sessions, self.last)
    }

    fn out(&mut self, end: End) {
        self.diary.end(end);
        self.place = Place::Outside;
        let given_up = self.asked.drain(..).map(|asked| (asked, Instant::now()));
        self.stuck.extend(given_up);
        self.shown.clear();
        self.due = Instant::now() + AGAIN;
    }

    fn closed(&mut self) {
        self.out(End::Closed);
        self.stuck.clear();
    }

    /// A presence of his came back, or a message because he is not inside.
    fn refused(&mut self, condition: String) {
        match self.place {
            Place::Leaving(_) => self.out(End::Unanswered),
            _ => self.out(End::Refused(condition)),
        }
    }

    fn bounced(&mut self, condition: String) {
        *self.diary.bounces.entry(condition).or_default() += 1;
    }
}

/// The condition of an error.
fn condition(stanza: &Received) -> String {
    let error = stanza.child("error");
    let condition = error.and_then(|error| {
        error.children().find(|child| child.ns() == "urn:ietf:params:xml:ns:xmpp-stanzas")
    });
    condition.map_or("error", |condition| condition.name()).to_owned()
}
