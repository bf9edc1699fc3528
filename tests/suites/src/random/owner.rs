//! What the host decides, and now and then somebody else.

use super::script::{Action, SESSIONS, sessions_of};
use super::writer::Writer;

impl Writer {
    /// Kicks and roles, now and then by somebody who may not.
    pub(super) fn judge(&mut self) -> Option<()> {
        let other = self.insider(false)?;
        let roles = ["none", "none", "none", "visitor", "participant", "moderator"];
        let role = self.pick(&roles);
        let by = match self.rng.usize(0..5) {
            0 if role == "none" => self.insider(true)?,
            _ => 0,
        };
        let nick = self.nicks[other].clone();
        self.actions.push(Action::Role(by, nick.clone(), role));
        let admin = |s: usize| self.affiliations[s] == "admin";
        if role == "none" && (by == 0 || admin(by) && !admin(other)) {
            self.out(other, Some(&nick));
        }
        Some(())
    }

    pub(super) fn affiliation(&mut self) -> Option<()> {
        let other = self.rng.usize(1..SESSIONS.len());
        // Of several nicks of one user Prosody takes any first.
        let mut nicks = sessions_of(other).filter(|&s| self.inside[s]).map(|s| &self.nicks[s]);
        let first = nicks.next();
        if nicks.any(|nick| Some(nick) != first) {
            return None;
        }
        let affiliation = match self.affiliations[other] {
            "outcast" => "none",
            _ => self.pick(&["none", "member", "admin", "member", "outcast"]),
        };
        self.actions.push(Action::Affiliation(0, other, affiliation));
        for s in sessions_of(other) {
            self.affiliations[s] = affiliation;
        }
        if affiliation == "outcast" || self.members_only && affiliation == "none" {
            self.out(other, None);
        }
        Some(())
    }

    /// Nothing that concerns several occupants at once: Prosody tells of them in the order of a hash
    /// table.
    pub(super) fn configure(&mut self) -> Option<()> {
        let switch = self.pick(&["0", "1"]);
        let (field, value) = match self.rng.usize(0..9) {
            0 | 1 => ("whois", "anyone"),
            2 => ("whois", "moderators"),
            3 | 4 => ("moderatedroom", switch),
            5 => ("changesubject", switch),
            6 => ("publicroom", switch),
            7 if self.members_only => ("membersonly", "0"),
            _ => {
                let name = format!("name {}", self.number());
                self.actions.push(Action::Configure("roomname", vec![name]));
                return Some(());
            }
        };
        self.members_only &= field != "membersonly";
        self.actions.push(Action::Configure(field, vec![value.to_owned()]));
        Some(())
    }

    pub(super) fn is_member(&self, s: usize) -> bool {
        s == 0 || ["member", "admin"].contains(&self.affiliations[s])
    }

    /// Another room, with other rules while the host is alone.
    pub(super) fn destroy(&mut self) {
        self.actions.push(Action::Destroy);
        self.inside.iter_mut().skip(1).for_each(|inside| *inside = false);
        self.affiliations.fill("none");
        self.members_only = self.rng.usize(0..3) == 0;
        if self.members_only {
            self.actions.push(Action::Configure("membersonly", vec!["1".to_owned()]));
        }
        let all = ["moderator", "participant", "visitor"];
        let shown = &all[..self.rng.usize(1..=3)];
        let shown = shown.iter().map(|&role| role.to_owned()).collect();
        self.actions.push(Action::Configure("presencebroadcast", shown));
    }
}
