//! What is done, as a seed has it.

use super::writer::Writer;

/// Sessions, with their servers.
pub const SESSIONS: &[(&str, &str)] = &[
    ("a", "host"),
    ("a", "ada"),
    ("a", "alf"),
    ("a", "amy"),
    ("b", "bea"),
    ("b", "ben"),
    ("b", "bob"),
    ("b", "bob/two"),
    ("b", "bud"),
    ("b", "bo"),
    ("c", "cat"),
    ("c", "cy"),
    ("c", "cy/two"),
    ("c", "coco"),
];

/// Who is in the room first.
pub const FIRST: &[usize] = &[0, 1, 4, 5];

/// What a user of a session is called.
pub fn user(session: usize) -> &'static str {
    let who = SESSIONS[session].1;
    who.split('/').next().unwrap_or(who)
}

/// The sessions of the same user.
pub fn sessions_of(session: usize) -> impl Iterator<Item = usize> {
    (0..SESSIONS.len()).filter(move |&other| user(other) == user(session))
}

/// One step. Numbers are those of sessions, texts nicks, unless it is said otherwise.
#[derive(Clone, Debug)]
pub enum Action {
    /// With this child of its `<x/>`.
    Join(usize, String, &'static str),
    /// With this payload.
    Leave(usize, String, &'static str),
    /// Leaves and enters, so often.
    Rejoin(usize, String, usize),
    /// Presence to a nick, the own or another, with this payload.
    Presence(usize, String, &'static str),
    /// Type and payload of a message to the room.
    Say(usize, &'static str, String),
    /// To a nick, with this payload.
    Whisper(usize, String, String),
    /// Role of a nick.
    Role(usize, String, &'static str),
    /// Affiliation of a user.
    Affiliation(usize, usize, &'static str),
    /// A field of the configuration and its values.
    Configure(&'static str, Vec<String>),
    /// Asks for the card of a nick.
    Card(usize, String),
    /// A question to a nick, which that session would answer, and its payload.
    Ask(usize, String, usize, &'static str),
    /// Through the room, to a user.
    Invite(usize, usize),
    /// The connection breaks, and there is a new one.
    Drop(usize, String),
    /// The room ends, and another one has its name.
    Destroy,
    /// A server is with dmuc, in the run with dmuc, or without it.
    Loaded(&'static str, bool),
    /// Milliseconds that the wire between `a` and this server takes.
    Latency(&'static str, u64),
    /// Milliseconds in which nobody does anything.
    Pause(u64),
    Settle,
}

impl Action {
    /// Who acts, if it is somebody.
    fn actor(&self) -> Option<usize> {
        match self {
            Action::Join(s, ..)
            | Action::Leave(s, ..)
            | Action::Rejoin(s, ..)
            | Action::Presence(s, ..)
            | Action::Say(s, ..)
            | Action::Whisper(s, ..)
            | Action::Role(s, ..)
            | Action::Affiliation(s, ..)
            | Action::Ask(s, ..)
            | Action::Card(s, ..)
            | Action::Invite(s, ..)
            | Action::Drop(s, ..) => Some(*s),
            Action::Configure(..) | Action::Destroy => Some(0),
            Action::Loaded(..) | Action::Latency(..) | Action::Pause(_) | Action::Settle => None,
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{self:?}");
        let (text, more) = match text.char_indices().nth(200) {
            Some((end, _)) => (&text[..end], "…"),
            None => (&*text, ""),
        };
        match self.actor() {
            Some(s) => write!(f, "{}: {text}{more}", SESSIONS[s].1),
            None => write!(f, "{text}{more}"),
        }
    }
}

/// A script.
#[derive(Clone)]
pub struct Script {
    pub seed: u64,
    /// Whether `c` has dmuc.
    pub third: bool,
    pub actions: Vec<Action>,
}

impl Script {
    pub fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let third = rng.usize(0..4) > 0;
        let length = rng.usize(100..=300);
        Script { seed, third, actions: Writer::new(rng, third).write(length) }
    }

    /// The first actions.
    pub fn beginning(&self, length: usize) -> Self {
        let actions = self.actions.iter().take(length).cloned().collect();
        Script { actions, ..*self }
    }
}
