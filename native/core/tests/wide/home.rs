//! A server with users in the room, and its replica.

use dmuc_core::{Action, Actions, Element, Facts, Incoming, Millis, Payload, Replica};

use super::net::{Micros, Processor, Wire};
use super::{ROOM, number};

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
        body: std::sync::Arc<Element<Payload>>,
    },
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
}

/// What comes of an input, in order.
pub enum Outcome {
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

    /// A stanza arrives, or with `None` it is time for what is due. `facts_of` a stanza, and whom it is
    /// from.
    pub fn take(
        &mut self,
        now: Millis,
        down: Option<&Down>,
        facts_of: impl Fn(u32) -> (Facts, u32),
    ) -> (Vec<Outcome>, Option<Millis>) {
        let actions = match down {
            None => self.replica.tick(now),
            Some(Down::Question) => return (vec![Outcome::Up(Up::Answer)], None),
            Some(Down::Plain { who, number }) => {
                let (facts, from) = facts_of(*number);
                if facts.is_presence() {
                    let (session, from) = (session(*who, &self.name), format!("{ROOM}/n{from}"));
                    self.replica.incoming(now, &session, &from, facts);
                }
                return (vec![Outcome::Hand(*number, vec![*who])], None);
            }
            Some(Down::Setup { body }) => self.replica.setup(now, ROOM, &incoming(body, &facts_of)),
            Some(Down::Envelope { id, body }) => {
                self.replica.envelope(now, ROOM, id, &incoming(body, &facts_of))
            }
        };
        (carry_out(&actions, down), actions.wake)
    }
}

fn carry_out(actions: &Actions, down: Option<&Down>) -> Vec<Outcome> {
    let mut out = Vec::new();
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

fn who(session: &str) -> u32 {
    let user = session.split_once('@').and_then(|(user, _)| user.strip_prefix('u'));
    user.and_then(|number| number.parse().ok()).expect("a session of this room")
}

/// As a host hands over what it has received.
pub fn incoming(
    element: &Element<Payload>,
    facts_of: &impl Fn(u32) -> (Facts, u32),
) -> Element<Incoming> {
    Element {
        name: element.name.clone(),
        attrs: element.attrs.clone(),
        children: element.children.iter().map(|child| incoming(child, facts_of)).collect(),
        payload: element.payload.as_ref().map(|payload| {
            let number = number(payload.bytes());
            let (facts, from) = facts_of(number);
            Incoming {
                facts,
                from: format!("{ROOM}/n{from}"),
                has_to: false,
                packed: element.attr("slot").map(|_| number.to_be_bytes().into()),
            }
        }),
    }
}

/// Time at which a home's timer goes off.
pub fn due(at: Millis) -> Micros {
    at.0 * 1000
}
