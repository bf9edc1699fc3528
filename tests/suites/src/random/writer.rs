//! Makes up a script.

use fastrand::Rng;

use super::script::{Action, FIRST, SESSIONS, sessions_of, user};
use super::words::{self, GONE, HISTORY, LEAVING, ODD, QUESTIONS, SHOWN, VOICE};

/// Writes an action, if it can be done now.
type Act = fn(&mut Writer) -> Option<()>;

/// What may be next, and how often.
const DICE: &[(usize, Act)] = &[
    (14, Writer::join),
    (4, Writer::leave),
    (6, Writer::rejoin),
    (7, Writer::nick),
    (9, Writer::show),
    (18, Writer::say),
    (6, Writer::whisper),
    (7, Writer::judge),
    (7, Writer::affiliation),
    (5, Writer::configure),
    (1, Writer::card),
    (3, Writer::ask),
    (1, Writer::invite),
    (1, Writer::bounce),
    (2, Writer::drop),
    (2, Writer::unload),
    (2, Writer::latency),
    (1, Writer::storm),
];

/// What the room should be like, so that most of what is done has a meaning.
pub struct Writer {
    pub(super) rng: Rng,
    pub(super) actions: Vec<Action>,
    pub(super) inside: Vec<bool>,
    pub(super) nicks: Vec<String>,
    pub(super) affiliations: Vec<&'static str>,
    pub(super) members_only: bool,
    /// Servers that may be with dmuc or without, whether they are, and how often they can yet go.
    modules: Vec<(&'static str, bool, usize)>,
    destroyed: bool,
    counter: usize,
    /// Where those are who act for a while, or anywhere.
    place: Option<&'static str>,
    /// In how many of a hundred cases everybody waits after an action.
    calm: usize,
}

impl Writer {
    pub fn new(rng: Rng, third: bool) -> Self {
        let all = 0..SESSIONS.len();
        Writer {
            rng,
            actions: Vec::new(),
            inside: all.clone().map(|s| FIRST.contains(&s)).collect(),
            nicks: all.clone().map(|s| user(s).to_owned()).collect(),
            affiliations: all.map(|_| "none").collect(),
            members_only: false,
            modules: ["b", "c"][..1 + usize::from(third)].iter().map(|&s| (s, true, 2)).collect(),
            destroyed: false,
            counter: 0,
            place: None,
            calm: 20,
        }
    }

    /// At least so many actions.
    pub fn write(mut self, length: usize) -> Vec<Action> {
        while self.actions.len() < length {
            if self.rng.usize(0..15) == 0 {
                self.place = self.pick(&[None, None, Some("a"), Some("b"), Some("b"), Some("c")]);
                self.calm = self.pick(&[0, 10, 20, 60]);
            }
            if self.modules.iter().any(|module| !module.1) && self.rng.usize(0..8) == 0 {
                self.load();
            }
            let few = self.inside.iter().filter(|inside| **inside).count() < 9;
            let done = match few && self.rng.bool() {
                true => self.join(),
                false => self.something(),
            };
            if done.is_some() && self.rng.usize(0..100) < self.calm {
                self.settle();
            }
        }
        self.actions
    }

    /// One action, if what the dice say can be done.
    fn something(&mut self) -> Option<()> {
        let sum = DICE.iter().map(|(weight, _)| weight).sum();
        let mut number: usize = self.rng.usize(0..sum);
        for (weight, act) in DICE {
            match number.checked_sub(*weight) {
                Some(rest) => number = rest,
                None => return act(self),
            }
        }
        None
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(0..from.len())]
    }

    pub(super) fn number(&mut self) -> usize {
        self.counter += 1;
        self.counter
    }

    /// Whether no other session of the user is inside.
    fn is_alone(&self, s: usize) -> bool {
        sessions_of(s).all(|other| other == s || !self.inside[other])
    }

    fn has_one(s: usize) -> bool {
        sessions_of(s).count() == 1
    }

    /// Puts out those of the user's sessions with that nick, or all.
    pub(super) fn out(&mut self, s: usize, nick: Option<&str>) {
        for other in sessions_of(s) {
            if nick.is_none_or(|nick| nick == self.nicks[other]) {
                self.inside[other] = false;
            }
        }
    }

    /// Somebody inside; the host, who is always, may be left out.
    pub(super) fn insider(&mut self, host: bool) -> Option<usize> {
        let from = usize::from(!host);
        let here = |s: &usize| self.place.is_none_or(|place| SESSIONS[*s].0 == place);
        let inside = |s: &usize| self.inside[*s];
        let all: Vec<usize> = (from..SESSIONS.len()).filter(inside).filter(here).collect();
        self.rng.choice(all)
    }

    fn settle(&mut self) {
        if !matches!(self.actions.last(), Some(Action::Settle) | None) {
            self.actions.push(Action::Settle);
        }
    }

    fn join(&mut self) -> Option<()> {
        let outside = (1..SESSIONS.len()).filter(|&s| !self.inside[s]);
        let here = |s: &usize| self.place.is_none_or(|place| SESSIONS[*s].0 == place);
        let outside: Vec<usize> = outside.filter(here).collect();
        let s = self.rng.choice(outside)?;
        self.enter(s);
        Some(())
    }

    fn enter(&mut self, s: usize) {
        let history = self.pick(HISTORY);
        // Sometimes under a nick that is taken.
        if self.rng.usize(0..10) == 0 && self.is_alone(s) {
            self.actions.push(Action::Join(s, self.nicks[0].clone(), history));
            return;
        }
        // As the user's other session, mostly.
        let other = sessions_of(s).find(|&other| other != s && self.inside[other]);
        if let Some(other) = other {
            self.nicks[s] = match self.rng.usize(0..4) {
                0 => format!("{}{}", user(s), self.number()),
                _ => self.nicks[other].clone(),
            };
        }
        self.actions.push(Action::Join(s, self.nicks[s].clone(), history));
        let banned = self.affiliations[s] == "outcast";
        self.inside[s] = !banned && (!self.members_only || self.is_member(s));
    }

    fn leave(&mut self) -> Option<()> {
        let s = self.insider(false)?;
        let status = self.pick(LEAVING);
        self.actions.push(Action::Leave(s, self.nicks[s].clone(), status));
        self.inside[s] = false;
        Some(())
    }

    fn rejoin(&mut self) -> Option<()> {
        let s = self.insider(false)?;
        let times = self.rng.usize(1..=3);
        self.actions.push(Action::Rejoin(s, self.nicks[s].clone(), times));
        Some(())
    }

    fn nick(&mut self) -> Option<()> {
        let s = self.insider(false).filter(|&s| self.is_alone(s))?;
        if self.rng.usize(0..5) == 0 {
            self.actions.push(Action::Presence(s, self.nicks[0].clone(), ""));
            return Some(());
        }
        self.nicks[s] = format!("{}{}{}", user(s), self.number(), self.pick(ODD));
        let shown = self.pick(&["", SHOWN[1]]);
        self.actions.push(Action::Presence(s, self.nicks[s].clone(), shown));
        Some(())
    }

    fn show(&mut self) -> Option<()> {
        let s = self.insider(true).filter(|&s| Self::has_one(s))?;
        let shown = self.pick(SHOWN);
        self.actions.push(Action::Presence(s, self.nicks[s].clone(), shown));
        Some(())
    }

    fn say(&mut self) -> Option<()> {
        let s = self.insider(true)?;
        let number = self.number();
        let (kind, payload) = match self.rng.usize(0..40) {
            0 => ("normal", VOICE.to_owned()),
            _ => words::said(&mut self.rng, number),
        };
        self.actions.push(Action::Say(s, kind, payload));
        Some(())
    }

    fn whisper(&mut self) -> Option<()> {
        let (s, other) = (self.insider(true)?, self.rng.usize(0..SESSIONS.len()));
        let number = self.number();
        let payload = words::whispered(&mut self.rng, number);
        self.actions.push(Action::Whisper(s, self.nicks[other].clone(), payload));
        Some(())
    }

    fn card(&mut self) -> Option<()> {
        let s = self.rng.usize(0..SESSIONS.len());
        let other = (0..SESSIONS.len()).filter(|&other| Self::has_one(other));
        let other = self.rng.choice(other.collect::<Vec<_>>())?;
        self.actions.push(Action::Card(s, self.nicks[other].clone()));
        Some(())
    }

    fn ask(&mut self) -> Option<()> {
        let s = self.insider(true)?;
        let other = match self.rng.bool() {
            true => s,
            false => self.insider(true)?,
        };
        // Which of two sessions is asked is the server's choice.
        if Self::has_one(other) {
            let question = self.pick(QUESTIONS);
            self.actions.push(Action::Ask(s, self.nicks[other].clone(), other, question));
        }
        Some(())
    }

    fn invite(&mut self) -> Option<()> {
        let s = self.insider(true)?;
        let outside = (1..SESSIONS.len()).filter(|&s| !self.inside[s] && Self::has_one(s));
        let other = self.rng.choice(outside.collect::<Vec<_>>())?;
        self.actions.push(Action::Invite(s, other));
        Some(())
    }

    /// As if what the room has sent could not be delivered.
    fn bounce(&mut self) -> Option<()> {
        let s = self.insider(false)?;
        self.actions.push(Action::Say(s, "error", GONE.to_owned()));
        self.inside[s] = false;
        Some(())
    }

    fn drop(&mut self) -> Option<()> {
        let s = self.insider(false).filter(|&s| self.is_alone(s))?;
        self.settle();
        self.actions.push(Action::Drop(s, self.nicks[s].clone()));
        self.inside[s] = false;
        Some(())
    }

    /// A module goes, for not too long: without it there is nothing to be seen.
    fn unload(&mut self) -> Option<()> {
        let n = self.rng.usize(0..self.modules.len());
        let (server, loaded, often) = self.modules[n];
        if !loaded || often == 0 {
            return None;
        }
        self.modules[n] = (server, false, often - 1);
        if self.rng.bool() {
            self.settle();
        }
        self.actions.push(Action::Loaded(server, false));
        Some(())
    }

    fn load(&mut self) {
        for (server, loaded, _) in self.modules.iter_mut().filter(|module| !module.1) {
            *loaded = true;
            self.actions.push(Action::Loaded(server, true));
        }
        if self.rng.usize(0..4) > 0 {
            // Until the link is up.
            self.actions.push(Action::Pause(1200));
        }
    }

    fn latency(&mut self) -> Option<()> {
        let (server, latency) = (self.pick(&["b", "b", "c"]), self.pick(&[0, 5, 20]));
        self.settle();
        self.actions.push(Action::Latency(server, latency));
        Some(())
    }

    /// Those of one server come one after the other, while the others go on as if nothing were.
    /// Before, the room may end.
    fn storm(&mut self) -> Option<()> {
        if !self.destroyed && self.rng.bool() {
            self.destroyed = true;
            self.destroy();
        }
        let server = self.pick(&["b", "b", "c"]);
        let here = (0..SESSIONS.len()).filter(|&s| SESSIONS[s].0 == server);
        let mut here: Vec<usize> = here.collect();
        for &s in &here {
            if self.inside[s] && self.rng.usize(0..4) > 0 {
                self.actions.push(Action::Leave(s, self.nicks[s].clone(), ""));
                self.inside[s] = false;
            }
        }
        self.place = None;
        for _ in 0..self.rng.usize(0..40) {
            self.say();
        }
        if self.rng.bool() {
            self.settle();
        }
        self.rng.shuffle(&mut here);
        for s in here {
            if !self.inside[s] {
                self.enter(s);
            }
            for _ in 0..self.rng.usize(0..3) {
                let all = [Self::say, Self::nick, Self::show, Self::leave, Self::rejoin];
                self.pick(&all)(self);
            }
        }
        Some(())
    }
}
