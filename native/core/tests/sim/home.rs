//! A user domain: its sessions, its server, and dmuc's replica while it is loaded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use dmuc_core::{
    Action, Actions, Config, Counter, Element, Facts, Incoming, Millis, Payload, Replica, Shared,
};
use fastrand::Rng;

use super::{Down, ROOM, Stanza, Stream, Up, bytes, incoming, number};

pub struct Home {
    pub name: String,
    pub replica: Option<Replica>,
    pub shared: Arc<Shared>,
    /// What each session has received, by number of the stanza.
    pub received: BTreeMap<String, Vec<u64>>,
    /// Sessions that were told that they are out.
    pub evicted: Vec<String>,
    pub down: Stream<Down>,
    pub up: Stream<Up>,
    /// Its stream has broken at least once.
    pub was_cut: bool,
    /// Nothing passes now, in either direction.
    pub is_severed: bool,
    /// Who takes himself for an occupant.
    pub inside: BTreeSet<String>,
    /// Who has left and not asked again.
    left: BTreeSet<String>,
    /// Who asked and was not heard, and nobody has said so.
    pub unheard: BTreeSet<String>,
    gone: BTreeSet<String>,
    /// Sessions that are there and were sent what only tells whether they are, though their server had
    /// never lost them.
    pub disturbed: BTreeSet<String>,
    has_crashed: bool,
    /// Casts that other replicas pass on to this one, and from whom.
    pub aside: VecDeque<(String, Element<u64>)>,
    /// Casts that this one is to pass on, by stanza.
    pub relays: Vec<(String, Element<u64>)>,
    /// It does not know of trees.
    pub is_older: bool,
    /// It does what it likes with what it is to pass on.
    pub is_hostile: bool,
    betrayals: Rng,
    /// What it has passed on so far.
    old: Vec<Element<u64>>,
    kept: Vec<(Arc<str>, Arc<str>, String)>,
    seed: u64,
    wake: Option<Millis>,
}

impl Home {
    pub fn new(name: &str, seed: u64, options: &[(&str, u64)]) -> Self {
        let shared = Shared::new(Config::from_pairs(options).expect("options"));
        Home {
            name: name.to_owned(),
            replica: Some(Replica::new(name, seed, shared.clone())),
            shared,
            received: BTreeMap::new(),
            evicted: Vec::new(),
            down: Stream::new(),
            up: Stream::new(),
            was_cut: false,
            is_severed: false,
            inside: BTreeSet::new(),
            left: BTreeSet::new(),
            unheard: BTreeSet::new(),
            gone: BTreeSet::new(),
            disturbed: BTreeSet::new(),
            has_crashed: false,
            aside: VecDeque::new(),
            relays: Vec::new(),
            is_older: false,
            is_hostile: false,
            betrayals: Rng::with_seed(seed),
            old: Vec::new(),
            kept: Vec::new(),
            seed,
            wake: None,
        }
    }

    fn new_replica(&mut self) -> Replica {
        self.seed += 1;
        Replica::new(&self.name, self.seed, self.shared.clone())
    }

    /// What becomes of a cast that it is to pass on.
    pub fn betray(&mut self, to: &str, body: Element<u64>) -> Vec<(String, Element<u64>)> {
        if !self.is_hostile {
            return vec![(to.to_owned(), body)];
        }
        self.old.push(body.clone());
        let old = self.old[self.betrayals.usize(..self.old.len())].clone();
        let mut altered = body.clone();
        match self.betrayals.u8(..7) {
            0 => return Vec::new(),
            1 => altered.payload = old.payload,
            2 => altered.attrs = old.attrs.clone(),
            3 => altered.attrs.retain(|(name, _)| name != "tags"),
            4 => {
                for (name, value) in &mut altered.attrs {
                    if name == "n" || name == "other" {
                        *value = (value.parse::<u64>().expect("a number") + 1).to_string();
                    }
                }
            }
            5 => return vec![(to.to_owned(), old), (to.to_owned(), body)],
            _ => {
                // As if it came from the room itself.
                altered.attrs.retain(|(name, _)| name != "signature" && name != "tags");
                altered.attrs.push(("nth".into(), "0".into()));
                altered.payload = old.payload;
            }
        }
        vec![(to.to_owned(), altered)]
    }

    /// A cast arrives from another replica.
    pub fn receive_aside(
        &mut self,
        now: Millis,
        from: &str,
        body: &Element<u64>,
        stanzas: &BTreeMap<u64, Stanza>,
        large: bool,
    ) {
        let stanza = &stanzas[&body.payload.expect("a stanza")];
        let element = Element {
            name: body.name.clone(),
            attrs: body.attrs.clone(),
            children: Vec::new(),
            payload: Some(Incoming {
                facts: stanza.facts,
                from: stanza.from.clone(),
                has_to: false,
                packed: Some(stanza.number.to_be_bytes().into()),
            }),
        };
        if let Some(replica) = &mut self.replica {
            let actions = replica.cast(now, from, &element, &bytes(stanza.number, large));
            self.pass_on(&actions, body);
            self.carry_out(actions, None, stanzas);
        }
    }

    pub fn is_gone(&self, session: &str) -> bool {
        self.gone.contains(session)
    }

    /// It may have missed something: a stream has broken, or was silent for longer than anybody waits.
    pub fn has_missed(&self) -> bool {
        self.was_cut || self.shared.counters.get(Counter::EpochsDead) > 0
    }

    /// A session asks to be in the room under this nick, or to change to it.
    pub fn join(&mut self, now: Millis, session: &str, nick: &str) {
        if self.is_gone(session) {
            return;
        }
        self.received.entry(session.to_owned()).or_default();
        self.left.remove(session);
        let to = format!("{ROOM}/{nick}");
        if let Some(replica) = &mut self.replica {
            replica.outgoing(
                now,
                session,
                &to,
                Facts(Facts::PRESENCE | Facts::NICK | Facts::MUC_X),
            );
        }
        self.up.push_back(Up::Join { session: session.to_owned(), nick: nick.to_owned() });
    }

    /// A session leaves the room.
    pub fn leave(&mut self, now: Millis, session: &str) {
        let facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::UNAVAILABLE);
        if let Some(replica) = &mut self.replica {
            replica.outgoing(now, session, &format!("{ROOM}/any"), facts);
        }
        self.inside.remove(session);
        self.left.insert(session.to_owned());
        self.up.push_back(Up::Leave { session: session.to_owned() });
    }

    /// What cannot be sent to the room comes back, if it is not a leave.
    pub fn bounce_up(&mut self, now: Millis) {
        for up in std::mem::take(&mut self.up) {
            if let (Up::Join { session, nick }, Some(replica)) = (up, &mut self.replica) {
                let facts =
                    Facts(Facts::PRESENCE | Facts::NICK | Facts::ERROR | Facts::NOT_REACHED);
                replica.incoming(now, &session, &format!("{ROOM}/{nick}"), facts);
            }
        }
    }

    /// A session ends: its server sends unavailable for it.
    pub fn close(&mut self, now: Millis, session: &str) {
        if self.received.contains_key(session) && !self.is_gone(session) {
            self.leave(now, session);
            self.gone.insert(session.to_owned());
            if let Some(replica) = &mut self.replica {
                replica.session_closed(now, session);
            }
        }
    }

    /// The module is unloaded in an orderly way: records survive.
    pub fn unload(&mut self, now: Millis) {
        if let Some(mut replica) = self.replica.take() {
            let actions = replica.close(now);
            self.kept = replica.consents();
            self.carry_out(actions, None, &BTreeMap::new());
        }
    }

    /// The module is gone without a word; what others keep of it survives.
    pub fn die(&mut self) {
        if let Some(replica) = self.replica.take() {
            self.kept = replica.consents();
            self.was_cut = true;
        }
    }

    /// The server is killed and starts again; these sessions do not come back.
    pub fn crash(&mut self, gone: &[String]) {
        self.gone.extend(gone.iter().cloned());
        self.inside.clear();
        self.has_crashed = true;
        self.replica = Some(self.new_replica());
    }

    /// The module is loaded.
    pub fn load(&mut self, now: Millis) {
        if self.replica.is_none() {
            let mut replica = self.new_replica();
            for (room, session, record) in std::mem::take(&mut self.kept) {
                if !self.is_gone(&session) {
                    replica.import_consent(now, &room, &session, Some(&record));
                }
            }
            let actions = replica.announce(now);
            self.replica = Some(replica);
            self.carry_out(actions, None, &BTreeMap::new());
        }
    }

    /// A stanza arrives.
    pub fn receive(&mut self, now: Millis, down: Down, stanzas: &BTreeMap<u64, Stanza>) {
        match down {
            Down::Plain { to, number } => {
                let stanza = &stanzas[&number];
                if let Some(replica) = &mut self.replica
                    && stanza.facts.is_presence()
                {
                    replica.incoming(now, &to, &stanza.from, stanza.facts);
                }
                if self.is_gone(&to) && !stanza.facts.is_unavailable() {
                    self.up.push_back(Up::Dead { session: to.clone() });
                }
                self.hand_over(&to, stanza);
            }
            Down::Nothing { to } => {
                if self.is_gone(&to) {
                    self.up.push_back(Up::Dead { session: to });
                } else if !self.has_crashed {
                    self.disturbed.insert(to);
                }
            }
            Down::Envelope { id, body } => match &mut self.replica {
                Some(replica) if body.name == "relayed" => {
                    let payload = body.payload.as_ref().expect("a stanza");
                    let element = incoming(&body, stanzas);
                    let actions = replica.cast(now, ROOM, &element, payload.bytes());
                    let body = Element {
                        name: body.name.clone(),
                        attrs: body.attrs.clone(),
                        children: Vec::new(),
                        payload: Some(number(payload)),
                    };
                    self.pass_on(&actions, &body);
                    self.carry_out(actions, None, stanzas);
                }
                Some(replica) => {
                    let actions = replica.envelope(now, ROOM, &id, &incoming(&body, stanzas));
                    self.carry_out(actions, Some((&id, &body)), stanzas);
                }
                None => self.up.push_back(Up::Error { id }),
            },
            Down::Setup { id, body } => match &mut self.replica {
                Some(replica) => {
                    let actions = replica.setup(now, ROOM, &incoming(&body, stanzas));
                    self.carry_out(actions, Some((&id, &Element::new("link"))), stanzas);
                }
                None => self.up.push_back(Up::Result { id, body: None }),
            },
        }
    }

    fn hand_over(&mut self, session: &str, stanza: &Stanza) {
        if !self.is_gone(session) {
            self.received.entry(session.to_owned()).or_default().push(stanza.number);
            if stanza.facts.is_own_available() && !self.left.contains(session) {
                self.inside.insert(session.to_owned());
            } else if stanza.facts.is_own_end() {
                self.inside.remove(session);
            }
        }
    }

    fn pass_on(&mut self, actions: &Actions, body: &Element<u64>) {
        self.relays.extend(actions.relays.iter().map(|to| (to.to_string(), body.clone())));
    }

    fn carry_out(
        &mut self,
        actions: Actions,
        input: Option<(&str, &Element<Payload>)>,
        stanzas: &BTreeMap<u64, Stanza>,
    ) {
        self.wake = [self.wake, actions.wake].into_iter().flatten().min();
        let answer = |body| Up::Result { id: input.expect("a set-up").0.to_owned(), body };
        for action in actions.list {
            match action {
                Action::Deliver { op, to } => {
                    let body = input.expect("an envelope").1;
                    let payload = body.children[op].payload.as_ref().expect("a payload");
                    for to in to {
                        self.hand_over(&to, &stanzas[&number(payload)]);
                    }
                }
                Action::Replay { stanzas: packed, to } => {
                    for to in to {
                        for stanza in &packed {
                            let number = stanza[..].try_into().map(u64::from_be_bytes);
                            self.hand_over(&to, &stanzas[&number.expect("a number")]);
                        }
                    }
                }
                Action::Report { body, .. } => self.up.push_back(Up::Dmuc { body }),
                Action::Refuse { id, .. } => self.up.push_back(Up::Error { id }),
                Action::Result { mut body } => {
                    if self.is_older {
                        body.attrs.retain(|(name, _)| name != "trees");
                    }
                    self.up.push_back(answer(Some(body)));
                }
                Action::SetupError { .. } => self.up.push_back(answer(None)),
                Action::Evict { session, .. } => {
                    self.inside.remove(&*session);
                    self.evicted.push(session.to_string());
                }
                Action::Depart { session, .. } => {
                    self.up.push_back(Up::Leave { session: session.to_string() });
                }
                Action::Announce { .. } => {
                    self.up.push_back(Up::Dmuc { body: Element::new("announce") });
                }
                Action::ConsentChanged { .. }
                | Action::LinkOver { .. }
                | Action::Handled { .. } => {}
                other => panic!("not an action of a replica: {other:?}"),
            }
        }
    }

    pub fn pass(&mut self, now: Millis) {
        if self.wake.is_some_and(|at| at <= now) {
            self.wake = None;
            if let Some(replica) = &mut self.replica {
                let actions = replica.tick(now);
                self.carry_out(actions, None, &BTreeMap::new());
            }
        }
    }
}
