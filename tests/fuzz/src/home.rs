//! A replica with its sessions, every call of which is watched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dmuc_core::{
    Action, Actions, Bounce, Config, Element, Facts, Incoming, Millis, Replica, Shared, jid,
};

use crate::heap;
use crate::people::People;
use crate::world::MOST_WORK;

/// Refusals that one report may tell, see docs/protocol.md.
const MAX_REFUSALS: usize = 1000;

/// A user domain. What it delivers is counted; what it says to rooms is given back.
pub struct Home {
    pub domain: &'static str,
    pub shared: Arc<Shared>,
    pub replica: Replica,
    /// Bytes of stanzas delivered, by session.
    pub received: BTreeMap<Arc<str>, Vec<Vec<u8>>>,
    /// When the replica wants to be called.
    pub wake: Option<Millis>,
    pub people: People,
    sessions: BTreeSet<String>,
    /// Stanzas that may yet be replayed, which are then told by their bytes alone.
    ends: BTreeSet<Vec<u8>>,
    seed: u64,
}

/// What a replica says to a room.
#[derive(Clone, Debug)]
pub enum Said {
    Dmuc {
        to: Arc<str>,
        body: Element<Incoming>,
    },
    Refused {
        id: String,
    },
    Result {
        body: Option<Element<Incoming>>,
    },
    /// An unavailable presence in the name of a session.
    Left {
        to: Arc<str>,
        session: Arc<str>,
    },
}

/// Small limits, so that a short input reaches all of them.
pub fn config() -> Config {
    Config {
        ack_every: 4,
        max_audience: 6,
        max_slots: 8,
        max_slot_messages: 3,
        max_slot_bytes: 2048,
        max_slot_bytes_total: 3000,
        max_links: 3,
        max_links_per_domain: 2,
        max_consents_per_session: 3,
        max_consents: 14,
        max_unacked_copies: 60,
        max_unacked_bytes: 30_000,
        max_envelope_bytes: 8192,
        tree_children: 2,
        retry_min: 1000,
        ..Config::default()
    }
}

/// Whether who gets this is out of the room.
fn is_end(facts: Facts) -> bool {
    facts.is_own_end() || facts.is_presence() && facts.is_error()
}

/// Whether a record says that the room has let the session in, and that it has not left.
fn is_in(record: &str) -> bool {
    let stays = record.split_once('/').map_or("", |(stays, _)| stays);
    stays.split_whitespace().any(|stay| stay.ends_with(".1"))
}

/// What carries no stanza of its own.
pub fn wordless<P>(element: &Element<P>) -> Element<Incoming> {
    Element {
        name: element.name.clone(),
        attrs: element.attrs.clone(),
        children: element.children.iter().map(wordless).collect(),
        payload: None,
    }
}

impl Home {
    pub fn new(domain: &'static str) -> Self {
        let shared = Shared::new(config());
        Home {
            domain,
            replica: Replica::new(domain, 1, shared.clone()),
            shared,
            received: BTreeMap::new(),
            wake: None,
            people: People::default(),
            sessions: BTreeSet::new(),
            ends: BTreeSet::new(),
            seed: 1,
        }
    }

    /// A session sends a presence to a remote JID.
    pub fn outgoing(&mut self, now: Millis, session: &str, to: &str, facts: Facts) {
        self.sessions.insert(session.to_owned());
        self.people.outgoing(session, to, facts);
        self.replica.outgoing(now, session, to, facts);
        self.look();
    }

    /// A stanza comes plainly.
    pub fn incoming(&mut self, now: Millis, session: &str, from: &str, facts: Facts, bytes: &[u8]) {
        if facts.is_presence() {
            self.replica.incoming(now, session, from, facts);
            self.people.incoming(session, from, facts);
        }
        if self.sessions.contains(session) {
            self.received.entry(session.into()).or_default().push(bytes.to_vec());
        }
        self.look();
    }

    /// A session ends.
    pub fn close_session(&mut self, now: Millis, session: &str) {
        self.sessions.remove(session);
        self.people.closed(session);
        self.replica.session_closed(now, session);
        let records = self.replica.consents();
        assert!(records.iter().all(|(_, of, _)| **of != *session), "{session} is gone");
    }

    /// A record of consent from another node of a cluster.
    pub fn import(&mut self, now: Millis, room: &str, session: &str, record: Option<&str>) {
        if self.sessions.contains(session)
            && self.replica.import_consent(now, room, session, record)
        {
            self.people.import(room, session, record.is_some());
        }
    }

    /// The module is unloaded and loaded: records survive.
    pub fn reload(&mut self, now: Millis) -> Vec<Said> {
        let actions = self.replica.close(now);
        let mut said = self.carry_out(actions, None);
        assert!(self.replica.status().is_empty());
        let records = self.replica.consents();
        self.seed += 1;
        self.replica = Replica::new(self.domain, self.seed, self.shared.clone());
        for (room, session, record) in records {
            let is_record = self.replica.import_consent(now, &room, &session, Some(&record));
            assert!(is_record, "{record:?} was exported");
            assert_eq!(self.replica.consent(&room, &session), Some(record));
        }
        let actions = self.replica.announce(now);
        said.extend(self.carry_out(actions, None));
        said
    }

    /// A set-up arrives.
    pub fn setup(&mut self, now: Millis, from: &str, body: &Element<Incoming>) -> Vec<Said> {
        let actions = self.replica.setup(now, from, body);
        let answers = actions
            .list
            .iter()
            .filter(|action| matches!(action, Action::Result { .. } | Action::SetupError { .. }));
        assert_eq!(answers.count(), 1, "an IQ has one answer");
        self.carry_out(actions, Some((from, body)))
    }

    /// What may be delivered later than it came.
    fn remember(&mut self, body: &Element<Incoming>) {
        let payloads = body.children.iter().filter_map(|child| child.payload.as_ref());
        let ends = payloads.filter(|payload| is_end(payload.facts));
        self.ends.extend(ends.filter_map(|end| end.packed.as_deref()).map(<[u8]>::to_vec));
    }

    /// An envelope arrives.
    pub fn envelope(
        &mut self,
        now: Millis,
        from: &str,
        id: &str,
        body: &Element<Incoming>,
    ) -> Vec<Said> {
        self.remember(body);
        let had: BTreeSet<&String> = self
            .sessions
            .iter()
            .filter(|session| self.replica.consent(from, session).is_some())
            .collect();
        let spent = heap::spent();
        let actions = self.replica.envelope(now, from, id, body);
        let spent = heap::spent() - spent;
        assert!(spent < MOST_WORK, "{spent} bytes of work for one envelope");
        let mut last: BTreeMap<&str, bool> = BTreeMap::new();
        for action in &actions.list {
            let (to, is_end) = match action {
                Action::Deliver { op, to } => {
                    let payload = body.children[*op].payload.as_ref();
                    (to, payload.is_some_and(|payload| is_end(payload.facts)))
                }
                Action::Replay { to, stanzas } => {
                    (to, stanzas.last().is_some_and(|stanza| self.ends.contains(&**stanza)))
                }
                _ => continue,
            };
            for to in to {
                assert!(had.contains(&to.to_string()), "{to} has not asked");
                last.insert(to, is_end);
            }
        }
        for (session, is_end) in last {
            let has = self.replica.consent(from, session).is_some();
            assert!(
                has || is_end,
                "{session} got something after the end of its stay: {body:?} {:?}",
                actions.list
            );
        }
        // What has waited may be carried out, or refused, because of this one.
        let waits = body.attr("nth").is_some();
        // A room that can be reached is told again who has left it.
        let mut others =
            actions.list.iter().filter(|action| !matches!(action, Action::Depart { .. }));
        let refused = others.clone().any(|action| matches!(action, Action::Refuse { .. }));
        let acted = others.any(|action| !matches!(action, Action::Refuse { .. }));
        assert!(waits || !(refused && acted), "refused and yet acted on: {actions:?}");
        self.carry_out(actions, Some((from, body)))
    }

    /// A cast of a room stream; to how many others it goes on.
    pub fn cast(
        &mut self,
        now: Millis,
        from: &str,
        body: &Element<Incoming>,
        xml: &[u8],
    ) -> (usize, Vec<Said>) {
        self.remember(body);
        let spent = heap::spent();
        let actions = self.replica.cast(now, from, body, xml);
        let spent = heap::spent() - spent;
        assert!(spent < MOST_WORK, "{spent} bytes of work for one cast");
        let relays = actions.relays.len();
        assert!(relays as u64 <= self.shared.config.tree_children(), "{relays} children");
        let room = body.attr("room").unwrap_or_default().to_owned();
        (relays, self.carry_out(actions, Some((&room, body))))
    }

    /// A question to a room comes back.
    pub fn returned(&mut self, now: Millis, from: &str, id: &str, how: Bounce) -> Vec<Said> {
        let actions = self.replica.returned(now, from, id, how);
        self.carry_out(actions, None)
    }

    /// It is this time.
    pub fn tick(&mut self, now: Millis) -> Vec<Said> {
        let mut said = Vec::new();
        // What has been done may leave something else to be done, but not without end.
        for _ in 0..4 {
            self.wake = None;
            let actions = self.replica.tick(now);
            said.extend(self.carry_out(actions, None));
            if self.wake.is_none_or(|at| at > now) {
                return said;
            }
        }
        panic!("woken in the past, again and again: {:?}", self.wake);
    }

    fn carry_out(
        &mut self,
        actions: Actions,
        input: Option<(&str, &Element<Incoming>)>,
    ) -> Vec<Said> {
        self.wake = [self.wake, actions.wake].into_iter().flatten().min();
        let mut said = Vec::new();
        for action in actions.list {
            match action {
                Action::Deliver { op, to } => {
                    let (room, body) = input.expect("only an envelope delivers");
                    let payload = body.children[op].payload.as_ref().expect("carried");
                    assert_eq!(jid::bare(&payload.from), room, "a stanza of another room");
                    assert!(!payload.has_to);
                    let bytes = payload.packed.clone().unwrap_or_default().to_vec();
                    self.deliver(room, &to, &[bytes]);
                    for to in to.iter().filter(|_| payload.facts.is_presence()) {
                        self.people.incoming(to, &payload.from, payload.facts);
                    }
                }
                Action::Replay { stanzas, to } => {
                    let (room, _) = input.expect("only an envelope replays");
                    let stanzas: Vec<Vec<u8>> = stanzas.iter().map(|s| s.to_vec()).collect();
                    for stanza in &stanzas {
                        let of = stanza.split(|byte| *byte == b'/').next().unwrap_or_default();
                        assert_eq!(of, room.as_bytes(), "a stanza kept for another room");
                    }
                    self.deliver(room, &to, &stanzas);
                }
                Action::Report { to, body, .. } => {
                    let told = body.children.iter().filter(|child| child.name == "refuse").count();
                    let most = MAX_REFUSALS.min(4 * self.shared.config.max_audience() as usize);
                    assert!(told <= most, "{told} refusals");
                    said.push(Said::Dmuc { to, body: wordless(&body) });
                }
                Action::Announce { room } => {
                    said.push(Said::Dmuc { to: room, body: Element::new("announce") });
                }
                Action::Refuse { id, .. } => said.push(Said::Refused { id }),
                Action::Result { body } => said.push(Said::Result { body: Some(wordless(&body)) }),
                Action::SetupError { .. } => said.push(Said::Result { body: None }),
                Action::Evict { room, session, .. } => {
                    assert!(self.people.consents(&room, &session), "{session} was never in {room}");
                    self.people.import(&room, &session, false);
                }
                Action::Depart { room, session, .. } => {
                    assert_eq!(jid::domain(&session), self.domain, "not ours");
                    let record = self.replica.consent(&room, &session).unwrap_or_default();
                    let is_in = is_in(&record) && !self.people.is_imported(&room, &session);
                    assert!(!is_in, "{session} is in {room}: {record}");
                    said.push(Said::Left { to: room, session });
                }
                Action::ConsentChanged { .. }
                | Action::LinkOver { .. }
                | Action::Handled { .. } => {}
                other => panic!("not an action of a replica: {other:?}"),
            }
        }
        self.look();
        said
    }

    fn deliver(&mut self, room: &str, to: &[Arc<str>], stanzas: &[Vec<u8>]) {
        let mut once = BTreeSet::new();
        for session in to {
            assert_eq!(jid::domain(session), self.domain, "not ours");
            assert!(once.insert(session), "twice to {session}");
            assert!(self.sessions.contains(&**session), "{session} is gone");
            assert!(self.people.consents(room, session), "{session} is not in {room}");
            let received = self.received.entry(session.clone()).or_default();
            received.extend(stanzas.iter().cloned());
        }
    }

    /// Whether all is within its limits.
    fn look(&self) {
        let config = &self.shared.config;
        let status = self.replica.status();
        assert!(status.len() as u64 <= config.max_links());
        let mut of_domain: BTreeMap<&str, u64> = BTreeMap::new();
        let mut bytes = 0;
        for link in &status {
            assert!(link.occupants <= config.max_audience() && link.slots <= config.max_slots());
            assert!(link.slot_bytes <= config.max_slot_bytes());
            *of_domain.entry(jid::domain(&link.room)).or_default() += 1;
            bytes += link.slot_bytes;
        }
        assert!(bytes <= config.max_slot_bytes_total());
        assert!(of_domain.values().all(|links| *links <= config.max_links_per_domain()));
    }
}
