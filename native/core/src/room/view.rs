//! What a room shows of its links.

use super::Room;
use super::domain::{Domain, Hold, State};
use super::session::Seat;
use crate::view::{LinkRow, known, signed};
use crate::{Millis, Options};

impl Room {
    /// One row for each domain with occupants or a link.
    pub fn links(&self, now: Millis) -> Vec<LinkRow> {
        let all = self.domains.iter().enumerate();
        all.filter(|(_, domain)| domain.occupants > 0 || domain.link().is_some())
            .map(|(number, domain)| self.row(now, number, domain))
            .collect()
    }

    fn row(&self, now: Millis, number: usize, domain: &Domain) -> LinkRow {
        let link = domain.link();
        let (queued, queued_bytes) = match &domain.state {
            State::Held(hold) => (hold.queue.len() as u64, hold.queued.amount()),
            _ => (0, 0),
        };
        let mut traffic = domain.past;
        if let Some(link) = link {
            traffic += link.traffic;
        }
        let apart = |session: &usize| self.sessions.get(*session).seat == Seat::Refused;
        let up = link.filter(|link| link.counted.is_some());
        LinkRow {
            role: "primary".to_owned(),
            room: self.jid.to_string(),
            peer: domain.name.to_string(),
            state: domain.state_name().to_owned(),
            occupants: signed(domain.occupants as u64),
            apart: signed(
                self.sessions.of_domain(number).iter().filter(|s| apart(s)).count() as u64
            ),
            epoch: link.map(|link| link.epoch.to_string()).unwrap_or_default(),
            seq: known(link.map(|link| link.next_seq - 1)),
            unacked: known(link.map(|link| link.sent.len() as u64)),
            round_trip: known(link.and_then(|link| link.round_trip)),
            waiting: signed(link.map_or(0, |link| link.copies) + queued),
            waiting_bytes: signed(link.map_or(0, |link| link.bytes.amount()) + queued_bytes),
            up: known(up.map(|link| now.since(link.up_since) / 1000)),
            retry: known(domain.retry(&self.shared.config).map(|at| at.since(now).div_ceil(1000))),
            carried: signed(traffic.copies),
            carried_bytes: signed(traffic.copied_bytes),
            saved: signed(traffic.copies) - signed(traffic.stanzas),
            saved_bytes: signed(traffic.copied_bytes) - signed(traffic.bytes),
            reason: domain.why(now, &self.shared.config),
        }
    }
}

impl Domain {
    /// When a link is tried again, if one is wanted.
    fn retry(&self, options: &Options) -> Option<Millis> {
        match self.state {
            State::Plain { retry } if self.occupants as u64 >= options.min_occupants() => {
                Some(retry)
            }
            _ => None,
        }
    }

    /// Why it is in this state, and for how long at most.
    fn why(&self, now: Millis, options: &Options) -> String {
        let left = |until: &Millis| until.since(now).div_ceil(1000);
        let reason = self.reason;
        match &self.state {
            State::Plain { .. } if (self.occupants as u64) < options.min_occupants() => {
                format!("too few occupants ({} of {})", self.occupants, options.min_occupants())
            }
            State::Plain { retry } if *retry > now => {
                format!("{reason}; tried again in {} s", left(retry))
            }
            State::Plain { .. } => format!("{reason}; tried again soon"),
            State::Asking { until } => format!("{reason}, for {} s at most", left(until)),
            State::SettingUp { until, .. } => format!("{reason}, for {} s at most", left(until)),
            State::Linked(_) => reason.to_owned(),
            State::Held(Hold { until, split, .. }) => match split {
                Some(_) => format!("{reason}; held for {} s at most", left(until)),
                None => format!("{reason}; ends within {} s", left(until)),
            },
        }
    }
}
