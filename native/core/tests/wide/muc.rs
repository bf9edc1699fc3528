//! A XEP-0045 room that keeps no more than it must: who is in it, and the newest presence of each.

use dmuc_core::Facts;

use super::net::Micros;

const PRESENCE: u32 = Facts::PRESENCE | Facts::NICK;
const OWN: u32 = PRESENCE | Facts::CODE_110;
const SAID: u32 = Facts::MESSAGE | Facts::GROUPCHAT | Facts::NICK;

/// A stanza of the room.
#[derive(Debug)]
pub struct Stanza {
    pub facts: Facts,
    /// Number of the occupant that it is from.
    pub who: u32,
    /// Bytes of its XML without `to`.
    pub len: usize,
    pub sent: Micros,
    /// When the last recipient got it.
    pub last: Micros,
    /// Stanzas that the room's server has sent with it.
    pub out: u32,
}

/// A stanza for a session, both by number.
pub type Copy = (u32, u32);

#[derive(Default)]
pub struct Muc {
    pub stanzas: Vec<Stanza>,
    inside: Vec<u32>,
    /// Newest presence of each who has been in it.
    presences: Vec<u32>,
    /// Whether occupants are shown to each other.
    pub shows: bool,
}

impl Muc {
    pub fn occupants(&self) -> &[u32] {
        &self.inside
    }

    fn stanza(&mut self, now: Micros, who: u32, facts: u32, len: usize) -> u32 {
        self.stanzas.push(Stanza { facts: Facts(facts), who, len, sent: now, last: now, out: 0 });
        self.stanzas.len() as u32 - 1
    }

    fn to_all(&self, number: u32, but: Option<u32>, out: &mut Vec<Copy>) {
        let others = self.inside.iter().filter(|who| but != Some(**who));
        out.extend(others.map(|who| (*who, number)));
    }

    pub fn join(&mut self, now: Micros, who: u32) -> Vec<Copy> {
        let mut out = Vec::new();
        let presence = self.stanza(now, who, PRESENCE, 330);
        self.presences.resize(self.presences.len().max(who as usize + 1), 0);
        self.presences[who as usize] = presence;
        if self.shows {
            out.extend(self.inside.iter().map(|other| (who, self.presences[*other as usize])));
            self.to_all(presence, None, &mut out);
        }
        self.inside.push(who);
        out.push((who, self.stanza(now, who, OWN, 360)));
        out
    }

    pub fn say(&mut self, now: Micros, who: u32) -> Vec<Copy> {
        let mut out = Vec::new();
        let message = self.stanza(now, who, SAID, 400);
        self.to_all(message, None, &mut out);
        out
    }

    /// A change of presence.
    pub fn away(&mut self, now: Micros, who: u32) -> Vec<Copy> {
        let mut out = Vec::new();
        let presence = self.stanza(now, who, PRESENCE, 330);
        self.presences[who as usize] = presence;
        self.to_all(presence, Some(who), &mut out);
        out.push((who, self.stanza(now, who, OWN, 360)));
        out
    }

    pub fn leave(&mut self, now: Micros, who: u32) -> Vec<Copy> {
        let mut out = Vec::new();
        self.inside.retain(|inside| *inside != who);
        if self.shows {
            let presence = self.stanza(now, who, PRESENCE | Facts::UNAVAILABLE, 300);
            self.to_all(presence, None, &mut out);
        }
        out.push((who, self.stanza(now, who, OWN | Facts::UNAVAILABLE, 330)));
        out
    }
}
