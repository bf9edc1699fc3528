//! A room with its primary, every call of which is watched, and an honest replica beside the hostile
//! peer: whatever that one does, this one's sessions receive exactly what the room sends them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use dmuc_core::{
    Action, Actions, Bounce, Element, Facts, Incoming, Millis, Payload, PayloadIn, Room, Shared,
    Verdict, jid,
};

use crate::heap;
use crate::home::{Home, Said, config};
use crate::sim::{Copy, Muc, ROOM, Stanza};

/// The peer that means ill, or whose wire does.
pub const B: &str = "b.test";
/// The honest one.
pub const C: &str = "c.test";

/// What goes from the primary to a domain.
#[derive(Clone, Debug)]
pub enum Down {
    Plain { to: Arc<str>, number: u64 },
    Envelope { id: String, body: Element<Incoming> },
    Setup { id: String, body: Element<Incoming> },
}

/// Everything but the hostile peer.
pub struct World {
    pub now: Millis,
    pub muc: Muc,
    pub room: Room,
    pub honest: Home,
    /// On the way to B.
    pub down: VecDeque<Down>,
    /// B has been asked whether it speaks dmuc.
    pub asked: bool,
    to_honest: VecDeque<Down>,
    stanzas: BTreeMap<u64, Stanza>,
    /// Copies that the primary holds or has sent on: how many of a stanza to a session.
    held: HashMap<(Arc<str>, u64), i64>,
    wake: Option<Millis>,
}

/// Bytes that a call may allocate: many times what it takes for the few sessions that there are.
pub const MOST_WORK: usize = 4_000_000;

/// What the primary sends to a session that its replica does not know, so that an error comes back.
const NOTHING: &str = "<message from='room@conference.a.test' type='groupchat'/>";

/// As a stanza crosses a wire.
pub fn bytes(number: u64) -> Vec<u8> {
    let padding = if number.is_multiple_of(31) { 5000 } else { 60 };
    format!("{ROOM}/{number:05}/{}", " ".repeat(padding)).into_bytes()
}

/// Its number.
fn number(bytes: &[u8]) -> u64 {
    let text = std::str::from_utf8(bytes).expect("ascii");
    let number = text.split('/').nth(1).and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{text:?} is not of the room"))
}

impl World {
    pub fn new() -> Self {
        let shared = Shared::new(config());
        World {
            now: Millis(1),
            muc: Muc::default(),
            room: Room::new(ROOM, 1, shared).expect("a room"),
            honest: Home::new(C),
            down: VecDeque::new(),
            asked: false,
            to_honest: VecDeque::new(),
            stanzas: BTreeMap::new(),
            held: HashMap::new(),
            wake: None,
        }
    }

    /// What the room has sent.
    pub fn stanza(&self, number: u64) -> Option<&Stanza> {
        self.stanzas.get(&number)
    }

    /// A session of the honest domain enters, under another nick, or leaves.
    pub fn honest_join(&mut self, session: &str, nick: &str) {
        let facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::MUC_X);
        self.honest.outgoing(self.now, session, &format!("{ROOM}/{nick}"), facts);
        let copies = self.muc.join(session, nick);
        self.happen(copies);
    }

    pub fn honest_leave(&mut self, session: &str) {
        let facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::UNAVAILABLE);
        self.honest.outgoing(self.now, session, &format!("{ROOM}/any"), facts);
        let copies = self.muc.leave(session);
        self.happen(copies);
    }

    /// Something happens in the room.
    pub fn happen(&mut self, copies: Vec<Copy>) {
        let mut buffer: Vec<(String, u64, Option<u64>)> = Vec::new();
        for Copy { to, stanza } in copies {
            self.stanzas.insert(stanza.number, stanza.clone());
            match self.room.capture(self.now, &to, stanza.facts) {
                Verdict::Hold => {
                    let known = self.room.recall(&to, stanza.number.into());
                    *self.held.entry((to.as_str().into(), stanza.number)).or_default() += 1;
                    buffer.push((to, stanza.number, known));
                }
                Verdict::Pass | Verdict::PassPoll => {
                    self.route(Down::Plain { to: to.into(), number: stanza.number })
                }
            }
        }
        let mut payloads = Vec::new();
        let mut tokens = HashMap::new();
        let mut held = Vec::new();
        for (to, number, known) in &buffer {
            let token = *tokens.entry(*number).or_insert_with(|| {
                let Stanza { facts, from, .. } = &self.stanzas[number];
                payloads.push(match known {
                    Some(id) => PayloadIn::Known(*id),
                    None => PayloadIn::New {
                        bytes: bytes(*number),
                        facts: *facts,
                        nick: jid::resource(from).unwrap_or_default().to_owned(),
                        digest: (*number).into(),
                    },
                });
                payloads.len() as u32 - 1
            });
            held.push((to.as_str(), token));
        }
        self.call(None, |room, now| room.event(now, payloads, &held));
    }

    /// A call of the core. On behalf of a domain, nobody else is concerned.
    fn call(&mut self, of: Option<&str>, call: impl FnOnce(&mut Room, Millis) -> Actions) {
        let spent = heap::spent();
        let actions = call(&mut self.room, self.now);
        let spent = heap::spent() - spent;
        assert!(spent < MOST_WORK, "{spent} bytes of work in one call");
        self.carry_out(of, actions);
    }

    fn carry_out(&mut self, of: Option<&str>, actions: Actions) {
        self.wake = [self.wake, actions.wake].into_iter().flatten().min();
        let concerns = |domain: &str| assert!(of.is_none_or(|of| of == domain), "{of:?}: {domain}");
        let mut failed = Vec::new();
        for action in actions.list {
            assert!(failed.is_empty() || matches!(action, Action::Fail { .. }), "not the last");
            match action {
                Action::Plain { payload, to } if payload.bytes() == NOTHING.as_bytes() => {
                    for to in to {
                        concerns(jid::domain(&to));
                        assert!(*jid::domain(&to) == *B, "{to} was refused by the honest replica");
                    }
                }
                Action::Plain { payload, to } => {
                    let number = number(payload.bytes());
                    for to in to {
                        concerns(jid::domain(&to));
                        let held = self.held.get_mut(&(to.clone(), number));
                        let held = held.unwrap_or_else(|| panic!("{number} is not for {to}"));
                        *held -= 1;
                        assert!(*held >= 0, "{number} once more to {to}");
                        self.route(Down::Plain { to, number });
                    }
                }
                Action::Envelope { to, id, body } => {
                    concerns(&to);
                    let body = self.incoming(&to, &body);
                    assert!(body.children.len() <= 20_000);
                    self.queue(&to).push_back(Down::Envelope { id, body });
                }
                Action::Setup { to, id, body } => {
                    concerns(&to);
                    let body = self.incoming(&to, &body);
                    self.queue(&to).push_back(Down::Setup { id, body });
                }
                Action::Fail { to } => {
                    for to in to {
                        // It may have been waiting since what another peer has said.
                        assert!(*jid::domain(&to) == *B, "{to} fails for another's sake");
                        failed.push(to);
                    }
                }
                Action::AskSupport { domain } if *domain == *C => {
                    self.call(None, |room, now| room.support(now, C, true));
                }
                Action::AskSupport { .. } => self.asked = true,
                Action::SupportSeen { domain } | Action::ForgetSupport { domain } => {
                    concerns(&domain);
                }
                other => panic!("not an action of a primary: {other:?}"),
            }
        }
        for session in failed {
            let copies = self.muc.kick(&session, true);
            self.happen(copies);
        }
    }

    fn queue(&mut self, domain: &str) -> &mut VecDeque<Down> {
        match domain {
            B => &mut self.down,
            C => &mut self.to_honest,
            other => panic!("{other} is not in the room"),
        }
    }

    fn route(&mut self, down: Down) {
        if let Down::Plain { to, .. } = &down {
            self.queue(jid::domain(&to.clone())).push_back(down);
        }
    }

    /// As the peer's host hands it to the core. Nothing crosses that is for nobody there.
    fn incoming(&self, domain: &str, element: &Element<Payload>) -> Element<Incoming> {
        Element {
            name: element.name.clone(),
            attrs: element.attrs.clone(),
            children: element.children.iter().map(|child| self.incoming(domain, child)).collect(),
            payload: element.payload.as_ref().map(|payload| {
                let number = number(payload.bytes());
                assert!(self.muc.has_sent_to(domain, number), "{number} is not for {domain}");
                let Stanza { facts, from, .. } = &self.stanzas[&number];
                let packed = Some(bytes(number).into());
                Incoming { facts: *facts, from: from.clone(), has_to: false, packed }
            }),
        }
    }

    /// B says something to the room.
    pub fn report(&mut self, body: &Element<Incoming>) {
        self.call(Some(B), |room, now| room.report(now, B, body));
    }

    /// B answers a set-up.
    pub fn result(&mut self, id: &str, body: Option<&Element<Incoming>>) {
        self.call(Some(B), |room, now| room.setup_result(now, B, id, body));
    }

    /// An envelope to B comes back.
    pub fn bounce(&mut self, id: &str, how: Bounce) {
        self.call(Some(B), |room, now| room.bounced(now, B, id, how));
    }

    /// B does or does not speak dmuc.
    pub fn answer(&mut self, yes: bool) {
        self.asked = false;
        self.call(Some(B), |room, now| room.support(now, B, yes));
    }

    /// Time passes: what is due with the primary and the honest replica is done when it is due.
    pub fn pass(&mut self, ms: u64) {
        let until = self.now + ms;
        // What is due now has been called for, and must not be called for again.
        while self.now < until {
            self.settle();
            let next = [self.wake, self.honest.wake].into_iter().flatten().min();
            self.now = next.unwrap_or(until).clamp(self.now + 1, until);
            if self.wake.is_some_and(|at| at <= self.now) {
                self.wake = None;
                let actions = self.room.tick(self.now);
                let is_later = actions.wake.is_none_or(|at| at > self.now);
                assert!(is_later, "woken in the past: {actions:?}");
                self.carry_out(None, actions);
            }
            if self.honest.wake.is_some_and(|at| at <= self.now) {
                let said = self.honest.tick(self.now);
                self.hear_honest(said, None);
            }
        }
        self.settle();
    }

    /// What is on the way between the primary and the honest replica arrives.
    pub fn settle(&mut self) {
        while let Some(down) = self.to_honest.pop_front() {
            let now = self.now;
            match down {
                Down::Plain { to, number } => {
                    let Stanza { from, facts, .. } = self.stanzas[&number].clone();
                    self.honest.incoming(now, &to, &from, facts, &bytes(number));
                }
                Down::Envelope { id, body } => {
                    let said = self.honest.envelope(now, ROOM, &id, &body);
                    self.hear_honest(said, Some(&id));
                }
                Down::Setup { id, body } => {
                    let said = self.honest.setup(now, ROOM, &body);
                    self.hear_honest(said, Some(&id));
                }
            }
        }
    }

    fn hear_honest(&mut self, said: Vec<Said>, id: Option<&str>) {
        for said in said {
            match said {
                Said::Dmuc { body, .. } => {
                    self.call(Some(C), |room, now| room.report(now, C, &body));
                }
                Said::Left { session, .. } => {
                    let copies = self.muc.leave(&session);
                    self.happen(copies);
                }
                Said::Refused { id, .. } => panic!("{id} was refused by the honest replica"),
                Said::Result { body } => {
                    let id = id.expect("a set-up");
                    let body = body.as_ref();
                    self.call(Some(C), |room, now| room.setup_result(now, C, id, body));
                }
            }
        }
    }

    /// The room's occupants as dmuc knows them, and what the honest domain has received.
    pub fn look(&self) {
        let sessions = self.muc.sessions();
        for status in self.room.status() {
            if status.state == "split" || status.state == "draining" {
                // Who comes and goes meanwhile is in the queue.
                continue;
            }
            let there = sessions.iter().filter(|s| jid::domain(s) == status.domain).count();
            assert_eq!(status.occupants, there, "{status:?}");
        }
    }

    /// Whether the honest domain's sessions have received what the room sent them.
    pub fn verdict(&self) {
        for (session, received) in &self.honest.received {
            let mut received = received.iter().map(|bytes| number(bytes));
            for (stay, sent) in self.muc.sent_to(session) {
                assert!(!sent.failed, "{session} was failed");
                let mut list: Vec<u64> = received.by_ref().take(sent.listed).collect();
                let mut listed = sent.stanzas[..sent.listed].to_vec();
                list.sort_unstable();
                listed.sort_unstable();
                assert_eq!(list, listed, "{session}, stay {stay}: the list of occupants");
                for wanted in &sent.stanzas[sent.listed..] {
                    assert_eq!(received.next().as_ref(), Some(wanted), "{session}, stay {stay}");
                }
            }
            assert_eq!(received.next(), None, "{session}: more than was sent");
        }
    }

    /// How many bytes the primary holds.
    pub fn end(self) -> usize {
        let World { room, muc, stanzas, held, .. } = self;
        let with = heap::live();
        drop(room);
        let kept = with.saturating_sub(heap::live());
        drop((muc, stanzas, held));
        assert!(kept < 800_000, "{kept} bytes are kept");
        kept
    }
}
