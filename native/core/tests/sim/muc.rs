//! A model of a XEP-0045 room: what it sends to whom, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use dmuc_core::{Facts, jid};

use super::{ROOM, Stanza};

/// One stanza to one session.
#[derive(Debug)]
pub struct Copy {
    pub to: String,
    pub stanza: Stanza,
}

/// What the room has sent to one stay of a session.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    pub stanzas: Vec<u64>,
    /// How many of the first are the list of occupants, in which the order is free.
    pub listed: usize,
    /// The room has ended the stay because a stanza came back.
    pub failed: bool,
    /// A stream broke with a plain stanza for it: as in plain MUC, it may see what comes between that
    /// and the room's hearing of it.
    pub lost_plainly: bool,
}

#[derive(Debug)]
struct Occupant {
    session: String,
    nick: String,
    moderator: bool,
    stay: u64,
    /// His newest presence, without and with his real JID.
    presence: [Stanza; 2],
}

#[derive(Debug, Default)]
pub struct Muc {
    occupants: Vec<Occupant>,
    sent: BTreeMap<String, BTreeMap<u64, Sent>>,
    next: u64,
    stays: u64,
    history: Vec<Stanza>,
    /// Which stanzas have gone to which domain.
    crossed: BTreeSet<(String, u64)>,
    /// Presences without a JID, of which the next has it.
    variants: BTreeSet<u64>,
    /// Of whose domain's user a presence is: he is shown his own.
    about: BTreeMap<u64, String>,
}

const PRESENCE: u32 = Facts::PRESENCE | Facts::NICK;
const SAID: u32 = Facts::MESSAGE | Facts::GROUPCHAT | Facts::NICK;
const GONE: u32 = PRESENCE | Facts::UNAVAILABLE;

impl Muc {
    pub fn sessions(&self) -> Vec<String> {
        self.occupants.iter().map(|o| o.session.clone()).collect()
    }

    pub fn sent_to(&self, session: &str) -> BTreeMap<u64, Sent> {
        self.sent.get(session).cloned().unwrap_or_default()
    }

    /// A stream has broken with this plain stanza to `session` on the way.
    pub fn lost(&mut self, session: &str, number: u64) {
        for sent in self.sent.get_mut(session).into_iter().flat_map(BTreeMap::values_mut) {
            sent.lost_plainly |= sent.stanzas.contains(&number);
        }
    }

    /// Whether anything sent plainly to this session was lost.
    pub fn has_lost_plainly(&self, session: &str) -> bool {
        self.sent.get(session).is_some_and(|stays| stays.values().any(|sent| sent.lost_plainly))
    }

    /// Whether the room has not ended this stay.
    pub fn is_live(&self, stay: u64) -> bool {
        self.occupants.iter().any(|o| o.stay == stay)
    }

    /// Whether the room has sent this to anybody of a domain.
    pub fn has_sent_to(&self, domain: &str, number: u64) -> bool {
        self.crossed.contains(&(domain.to_owned(), number))
    }

    /// Whether it has sent a domain this or, with the JID, what this shows without.
    pub fn has_shown(&self, domain: &str, number: u64) -> bool {
        let is_variant = self.variants.contains(&number);
        self.has_sent_to(domain, number)
            || is_variant && (number..number + 3).any(|n| self.has_sent_to(domain, n))
            || self.about.get(&number).is_some_and(|about| about == domain)
    }

    fn find(&self, session: &str) -> Option<usize> {
        self.occupants.iter().position(|o| o.session == session)
    }

    fn stanza(&mut self, nick: &str, facts: u32) -> Stanza {
        self.next += 1;
        Stanza { number: self.next, from: format!("{ROOM}/{nick}"), facts: Facts(facts) }
    }

    fn send(&mut self, out: &mut Vec<Copy>, to: usize, stanza: &Stanza) {
        let Occupant { session, stay, .. } = &self.occupants[to];
        let (session, stay) = (session.clone(), *stay);
        self.record(out, &session, stay, stanza);
    }

    fn record(&mut self, out: &mut Vec<Copy>, session: &str, stay: u64, stanza: &Stanza) {
        let sent = self.sent.entry(session.to_owned()).or_default().entry(stay).or_default();
        sent.stanzas.push(stanza.number);
        self.crossed.insert((jid::domain(session).to_owned(), stanza.number));
        out.push(Copy { to: session.to_owned(), stanza: stanza.clone() });
    }

    /// One presence about `nick` to all but `session` in the variant that each may see.
    fn publish(&mut self, out: &mut Vec<Copy>, nick: &str, facts: u32, but: &str) {
        let variants = [self.stanza(nick, facts), self.stanza(nick, facts | Facts::ITEM_JID)];
        self.variants.insert(variants[0].number);
        for variant in &variants {
            self.about.insert(variant.number, jid::domain(but).to_owned());
        }
        if let Some(at) = self.find(but) {
            self.occupants[at].presence = variants.clone();
        }
        for to in 0..self.occupants.len() {
            if self.occupants[to].session != but {
                let variant = &variants[usize::from(self.occupants[to].moderator)];
                self.send(out, to, &variant.clone());
            }
        }
    }

    /// A join, or a nick change of an occupant.
    pub fn join(&mut self, session: &str, nick: &str) -> Vec<Copy> {
        let mut out = Vec::new();
        let taken = self
            .occupants
            .iter()
            .any(|o| o.nick == nick && jid::bare(&o.session) != jid::bare(session));
        if taken {
            // An error belongs to the stay there is, or to none.
            let stanza = self.stanza(nick, PRESENCE | Facts::ERROR);
            match self.find(session) {
                Some(at) => self.send(&mut out, at, &stanza),
                None => {
                    self.stays += 1;
                    self.record(&mut out, session, self.stays, &stanza);
                }
            }
            return out;
        }
        if let Some(at) = self.find(session) {
            return self.rename(at, nick);
        }
        self.stays += 1;
        let presence = [self.stanza(nick, PRESENCE), self.stanza(nick, PRESENCE)];
        let mine = Occupant {
            session: session.to_owned(),
            nick: nick.to_owned(),
            moderator: self.occupants.is_empty(),
            stay: self.stays,
            presence,
        };
        self.occupants.push(mine);
        let at = self.occupants.len() - 1;
        self.list(&mut out, at);
        let stay = self.occupants[at].stay;
        if let Some(sent) = self.sent.get_mut(session).and_then(|stays| stays.get_mut(&stay)) {
            sent.listed = sent.stanzas.len();
        }
        self.publish(&mut out, nick, PRESENCE, session);
        let own = self.stanza(nick, PRESENCE | Facts::CODE_110 | Facts::ITEM_JID);
        self.send(&mut out, at, &own);
        let history: Vec<Stanza> = self.history.iter().rev().take(3).rev().cloned().collect();
        for stanza in history {
            self.send(&mut out, at, &stanza);
        }
        out
    }

    /// The presences of all the others, as everybody has got them.
    fn list(&mut self, out: &mut Vec<Copy>, to: usize) {
        let variant = usize::from(self.occupants[to].moderator);
        for other in 0..self.occupants.len() {
            if other != to {
                let stanza = self.occupants[other].presence[variant].clone();
                self.send(out, to, &stanza);
            }
        }
    }

    fn rename(&mut self, at: usize, nick: &str) -> Vec<Copy> {
        let mut out = Vec::new();
        let old = std::mem::replace(&mut self.occupants[at].nick, nick.to_owned());
        let session = self.occupants[at].session.clone();
        let gone = [
            self.stanza(&old, GONE | Facts::CODE_303),
            self.stanza(&old, GONE | Facts::CODE_303 | Facts::ITEM_JID),
            self.stanza(&old, GONE | Facts::CODE_303 | Facts::CODE_110),
        ];
        let here = [
            self.stanza(nick, PRESENCE),
            self.stanza(nick, PRESENCE | Facts::ITEM_JID),
            self.stanza(nick, PRESENCE | Facts::CODE_110),
        ];
        self.occupants[at].presence = [here[0].clone(), here[1].clone()];
        self.variants.extend([gone[0].number, here[0].number]);
        for stanza in gone.iter().chain(&here) {
            self.about.insert(stanza.number, jid::domain(&session).to_owned());
        }
        // ejabberd sends both to each occupant in turn.
        for to in 0..self.occupants.len() {
            let variant = if self.occupants[to].session == session {
                2
            } else {
                usize::from(self.occupants[to].moderator)
            };
            self.send(&mut out, to, &gone[variant]);
            self.send(&mut out, to, &here[variant]);
        }
        out
    }

    /// A message of `session` to all.
    pub fn say(&mut self, session: &str) -> Vec<Copy> {
        let mut out = Vec::new();
        if let Some(at) = self.find(session) {
            let nick = self.occupants[at].nick.clone();
            // With the time of day, for those who come later.
            let delayed = self.stanza(&nick, SAID);
            self.history.push(delayed);
            let stanza = self.stanza(&nick, SAID);
            for to in 0..self.occupants.len() {
                self.send(&mut out, to, &stanza);
            }
        }
        out
    }

    /// A private message to one session.
    pub fn whisper(&mut self, session: &str) -> Vec<Copy> {
        let mut out = Vec::new();
        if let Some(at) = self.find(session) {
            let stanza = self.stanza("someone", Facts::MESSAGE | Facts::NICK);
            self.send(&mut out, at, &stanza);
        }
        out
    }

    /// The session becomes a moderator, or is one no more.
    pub fn toggle(&mut self, session: &str) -> Vec<Copy> {
        let mut out = Vec::new();
        if let Some(at) = self.find(session) {
            self.occupants[at].moderator ^= true;
            let nick = self.occupants[at].nick.clone();
            self.publish(&mut out, &nick, PRESENCE, session);
            let own = self.stanza(&nick, PRESENCE | Facts::CODE_110 | Facts::ITEM_JID);
            self.send(&mut out, at, &own);
            if self.occupants[at].moderator {
                self.list(&mut out, at);
            }
        }
        out
    }

    /// A presence that changes nothing but itself.
    pub fn away(&mut self, session: &str) -> Vec<Copy> {
        let mut out = Vec::new();
        if let Some(at) = self.find(session) {
            let nick = self.occupants[at].nick.clone();
            self.publish(&mut out, &nick, PRESENCE, session);
            let own = self.stanza(&nick, PRESENCE | Facts::CODE_110 | Facts::ITEM_JID);
            self.send(&mut out, at, &own);
        }
        out
    }

    /// The session leaves.
    pub fn leave(&mut self, session: &str) -> Vec<Copy> {
        self.kick(session, false)
    }

    /// The session is removed; `failed` if because a stanza to it came back.
    pub fn kick(&mut self, session: &str, failed: bool) -> Vec<Copy> {
        let mut out = Vec::new();
        if let Some(at) = self.find(session) {
            let nick = self.occupants[at].nick.clone();
            let last = !self.occupants.iter().any(|o| o.nick == nick && o.session != session);
            if last {
                self.publish(&mut out, &nick, GONE, session);
            }
            let own = self.stanza(&nick, GONE | Facts::CODE_110);
            self.send(&mut out, at, &own);
            let stay = self.occupants.remove(at).stay;
            if failed
                && let Some(sent) =
                    self.sent.get_mut(session).and_then(|stays| stays.get_mut(&stay))
            {
                sent.failed = true;
            }
        }
        out
    }

    /// The room is destroyed: each hears it from his own nick.
    pub fn destroy(&mut self) -> Vec<Copy> {
        let mut out = Vec::new();
        for at in 0..self.occupants.len() {
            let nick = self.occupants[at].nick.clone();
            let stanza = self.stanza(&nick, GONE | Facts::DESTROY);
            self.send(&mut out, at, &stanza);
        }
        self.occupants.clear();
        out
    }
}
