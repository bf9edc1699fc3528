//! A server with users in the room, and its replica.

use std::sync::Arc;

use dmuc_core::{Action, Actions, Element, Facts, Incoming, Millis, Payload, Replica};

use super::net::{Micros, Processor, Wire};
use super::{Aside, ROOM, number};

/// What goes from the room's server to another.
pub enum Down {
    /// Whether it speaks dmuc.
    Question,
    Plain {
        who: u32,
        number: u32,
    },
    Setup {
        body: Element<Payload>,
    },
    Envelope {
        id: String,
        body: Arc<Element<Payload>>,
    },
}

impl Down {
    /// Whether it is a cast of the room stream.
    pub fn is_cast(&self) -> bool {
        matches!(self, Down::Envelope { body, .. } if body.name == RELAYED)
    }
}

const RELAYED: &str = "relayed";

/// What happens to a replica.
pub enum Input<'a> {
    /// Something comes from the room's server.
    Down(&'a Down),
    /// A cast comes from the server of this number.
    Aside(u32, &'a Aside),
    /// It is time for what is due.
    Tick,
}

/// What goes the other way.
pub enum Up {
    Answer,
    Act { who: u32, act: Act },
    Result { body: Element<Payload> },
    Report { body: Element<Payload> },
}

/// What a user does.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    Join,
    Say,
    Away,
    Leave,
}

pub struct Home {
    pub name: String,
    pub replica: Replica,
    pub down: Wire,
    pub up: Wire,
    pub processor: Processor,
    pub wake: Option<Millis>,
    /// It has vanished.
    pub is_gone: bool,
    /// When it has passed on a cast last.
    pub passed_on: Option<Micros>,
}

/// What comes of an input, in order.
pub enum Outcome {
    /// What has come goes to other replicas.
    Pass(Vec<Arc<str>>),
    /// These get this stanza.
    Hand(u32, Vec<u32>),
    Up(Up),
}

impl Home {
    /// A user does something: what his server takes note of.
    pub fn act(&mut self, now: Millis, session: &str, who: u32, act: Act) {
        let facts = match act {
            Act::Join => Facts::PRESENCE | Facts::NICK | Facts::MUC_X,
            Act::Away => Facts::PRESENCE | Facts::NICK,
            Act::Leave => Facts::PRESENCE | Facts::NICK | Facts::UNAVAILABLE,
            Act::Say => return,
        };
        self.replica.outgoing(now, session, &format!("{ROOM}/n{who}"), Facts(facts));
    }

    /// Something happens, by name of the replica `from` if it comes from one. `facts_of` a stanza, and whom
    /// it is from.
    pub fn take(
        &mut self,
        now: Millis,
        input: Input<'_>,
        from: &str,
        facts_of: impl Fn(u32) -> (Facts, u32),
    ) -> (Vec<Outcome>, Option<Millis>) {
        let down = match input {
            Input::Down(down) => Some(down),
            _ => None,
        };
        let actions = match input {
            Input::Tick => self.replica.tick(now),
            Input::Aside(_, Aside { body, .. }) => self.cast(now, from, body, &facts_of),
            Input::Down(Down::Question) => return (vec![Outcome::Up(Up::Answer)], None),
            Input::Down(Down::Plain { who, number }) => {
                let (facts, from) = facts_of(*number);
                if facts.is_presence() {
                    let (session, from) = (session(*who, &self.name), format!("{ROOM}/n{from}"));
                    self.replica.incoming(now, &session, &from, facts);
                }
                return (vec![Outcome::Hand(*number, vec![*who])], None);
            }
            Input::Down(Down::Setup { body }) => {
                self.replica.setup(now, ROOM, &incoming(body, &facts_of))
            }
            Input::Down(Down::Envelope { body, .. }) if body.name == RELAYED => {
                self.cast(now, ROOM, body, &facts_of)
            }
            Input::Down(Down::Envelope { id, body }) => {
                self.replica.envelope(now, ROOM, id, &incoming(body, &facts_of))
            }
        };
        let wake = actions.wake;
        (carry_out(actions, down), wake)
    }

    fn cast(
        &mut self,
        now: Millis,
        from: &str,
        body: &Element<Payload>,
        facts_of: &impl Fn(u32) -> (Facts, u32),
    ) -> Actions {
        let xml = body.payload.as_ref().expect("a stanza").bytes();
        let cast = received(body, |payload| Incoming {
            packed: Some(payload.bytes().into()),
            ..carried(number(xml), facts_of)
        });
        self.replica.cast(now, from, &cast, xml)
    }
}

fn carry_out(mut actions: Actions, down: Option<&Down>) -> Vec<Outcome> {
    let relays = std::mem::take(&mut actions.relays);
    let mut out = Vec::new();
    if !relays.is_empty() {
        out.push(Outcome::Pass(relays));
    }
    for action in &actions.list {
        match action {
            Action::Deliver { op, to } => {
                let Some(Down::Envelope { body, .. }) = down else { panic!("of no envelope") };
                let payload = body.children[*op].payload.as_ref().expect("a payload");
                out.push(Outcome::Hand(
                    number(payload.bytes()),
                    to.iter().map(|s| who(s)).collect(),
                ));
            }
            Action::Replay { stanzas, to } => {
                let to: Vec<u32> = to.iter().map(|session| who(session)).collect();
                out.extend(stanzas.iter().map(|packed| Outcome::Hand(number(packed), to.clone())));
            }
            Action::Report { body, .. } => out.push(Outcome::Up(Up::Report { body: body.clone() })),
            Action::Result { body } => out.push(Outcome::Up(Up::Result { body: body.clone() })),
            Action::ConsentChanged { .. } | Action::LinkOver { .. } | Action::Handled { .. } => {}
            other => panic!("nothing fails here, and yet: {other:?}"),
        }
    }
    out
}

/// The full JID of a user.
pub fn session(who: u32, server: &str) -> String {
    format!("u{who}@{server}/r")
}

pub fn who(session: &str) -> u32 {
    let user = session.split_once('@').and_then(|(user, _)| user.strip_prefix('u'));
    user.and_then(|number| number.parse().ok()).expect("a session of this room")
}

/// As a host hands over what it has received. What waits, or is kept, is there by its number.
pub fn incoming(
    element: &Element<Payload>,
    facts_of: &impl Fn(u32) -> (Facts, u32),
) -> Element<Incoming> {
    let in_stream = element.attr("nth").is_some();
    let mut all = received(element, |_| unreachable!("it has none itself"));
    let children = element.children.iter().map(|child| {
        received(child, |payload| {
            let number = number(payload.bytes());
            let is_kept = in_stream || child.attr("slot").is_some();
            let packed = is_kept.then(|| number.to_be_bytes().into());
            Incoming { packed, ..carried(number, facts_of) }
        })
    });
    all.children = children.collect();
    all
}

/// An element without its children.
fn received<P>(element: &Element<P>, payload: impl FnOnce(&P) -> Incoming) -> Element<Incoming> {
    Element {
        name: element.name.clone(),
        attrs: element.attrs.clone(),
        children: Vec::new(),
        payload: element.payload.as_ref().map(payload),
    }
}

fn carried(number: u32, facts_of: &impl Fn(u32) -> (Facts, u32)) -> Incoming {
    let (facts, from) = facts_of(number);
    Incoming { facts, from: format!("{ROOM}/n{from}"), has_to: false, packed: None }
}

/// Time at which a home's timer goes off.
pub fn due(at: Millis) -> Micros {
    at.0 * 1000
}
