//! What is due: probes, time-outs, new attempts, and the end of watching.

use super::Room;
use super::compose::Composer;
use super::domain::{Hold, State};
use super::link::Link;
use super::repair::next_beat;
use super::session::Seat;
use crate::{Action, Actions, Counter, Millis, Options};

const UNACKNOWLEDGED: &str = "the replica has stopped acknowledging";

impl Room {
    /// Does what is due.
    pub fn tick(&mut self, now: Millis) -> Actions {
        self.alarm.ring();
        let mut out = Vec::new();
        for number in 0..self.domains.len() {
            self.tick_domain(now, number, &mut out);
        }
        if self.trees.is_some() {
            self.improve(now, &mut out);
        }
        self.fail_some(now, &mut out);
        if let Some(at) = self.fail_at {
            self.alarm.by(at);
        }
        self.try_candidates(now, &mut out);
        self.give(now, out)
    }

    pub(super) fn tick_domain(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        if self.domains[number].failing > 0 {
            self.release_failing(now, number);
        }
        let config = &self.shared.config;
        let domain = &mut self.domains[number];
        match &mut domain.state {
            State::Plain { .. } => self.consider(now, number),
            State::Asking { until } if now >= *until => {
                domain.state = State::Plain { retry: now + config.retry_max().min(60_000) };
                domain.reason = "no answer whether it speaks dmuc";
                self.consider(now, number);
            }
            State::SettingUp { until, .. } if now >= *until => {
                self.set_up_failed(now, number, "set-up unanswered", out)
            }
            State::Held(hold) if now >= hold.until && (hold.is_over || hold.split.is_some()) => {
                self.give_up(now, number, out)
            }
            State::Held(hold) if now >= hold.until => self.split(now, number, UNACKNOWLEDGED, out),
            State::Asking { until } | State::SettingUp { until, .. } => self.alarm.by(*until),
            State::Held(hold) => {
                self.alarm.by(hold.until);
                self.ask(now, number, out);
            }
            State::Linked(link) => {
                if unanswered(link).is_some_and(|at| now >= at + link.terms.ack_timeout) {
                    return self.split(now, number, UNACKNOWLEDGED, out);
                }
                if now + slack(link, config) >= probe_time(link, config) {
                    if link.audience.seats.all().is_empty() && link.sent.is_empty() {
                        return self.end(now, number, "no occupants left", out);
                    }
                    if !self.probe_in_stream(now, number, out) {
                        self.probe(now, number, out);
                    }
                    return;
                }
                self.beat(now, number, out);
                self.watch(number);
            }
        }
    }

    /// Sends an envelope, if only an empty one.
    pub(super) fn probe(&mut self, now: Millis, number: usize, out: &mut Vec<Action>) {
        let domain = &mut self.domains[number];
        if let State::Linked(link) = &mut domain.state {
            out.extend(Composer::new(link, &domain.name, &self.shared, now).probe());
            self.stir(number);
            self.watch(number);
            // In a room where nobody speaks, probes are all that may wait.
            self.check_buffer(now, number, out);
        }
    }

    /// Wakes up when a link is to be probed or given up.
    pub(super) fn watch(&mut self, number: usize) {
        let config = &self.shared.config;
        if let State::Linked(link) = &self.domains[number].state {
            self.alarm.by(probe_time(link, config));
            if let Some(at) = next_beat(link) {
                self.alarm.by(at);
            }
            if let Some(at) = unanswered(link) {
                self.alarm.by(at + link.terms.ack_timeout);
            }
        }
    }

    /// A room that did not take the word for it keeps the occupant: serve it plainly.
    pub(super) fn release_failing(&mut self, now: Millis, number: usize) {
        for session in self.sessions.of_domain(number) {
            let session = self.sessions.get_mut(session);
            if let Seat::Failing(until) = session.seat {
                if now >= until {
                    session.seat = Seat::Refused;
                    self.domains[number].failing -= 1;
                } else {
                    self.alarm.by(until);
                }
            }
        }
    }

    /// Ends a link in an orderly way.
    pub(super) fn end(
        &mut self,
        now: Millis,
        number: usize,
        reason: &'static str,
        out: &mut Vec<Action>,
    ) {
        let domain = &mut self.domains[number];
        if let State::Linked(link) = &mut domain.state {
            let mut composer = Composer::new(link, &domain.name, &self.shared, now);
            composer.end();
            out.extend(composer.finish());
            log::info!("{}: link with {} is down: {reason}", self.jid, domain.name);
            domain.past += link.traffic;
            self.shared.counters.add(Counter::LinksDown, 1);
            domain.last_epoch = domain.link().map(|link| link.epoch.clone());
            domain.state = State::Plain { retry: now };
            domain.reason = reason;
            self.stir(number);
            self.unseat(number);
        }
    }

    /// dmuc stops watching: every link ends and everything that waits goes plainly.
    pub fn close(&mut self, now: Millis) -> Actions {
        self.closed = true;
        let mut out = Vec::new();
        for number in 0..self.domains.len() {
            self.abandon(now, number, &mut out);
            self.end(now, number, "the room is no longer watched", &mut out);
            // Nobody will be here to hear of other fates; on a sound stream there are none.
            match &mut self.domains[number].state {
                State::Held(Hold { split: Some(_), .. }) => self.give_up(now, number, &mut out),
                State::Held(hold) => {
                    hold.link.sent.retain(|sent| sent.fate.is_some());
                    self.settle(now, number, &mut out);
                }
                _ => {}
            }
        }
        self.fail_at = None;
        self.fail_some(now, &mut out);
        self.stir_all();
        self.give(now, out)
    }
}

/// Since when the replica is to say something that it has not said.
fn unanswered(link: &Link) -> Option<Millis> {
    let asked = link.limb.as_ref().and_then(|limb| limb.asked).map(|(_, at)| at);
    link.sent.front().map(|sent| sent.at).into_iter().chain(asked).min()
}

/// When a link wants a probe: sooner if something on it is not acknowledged.
fn probe_time(link: &Link, config: &Options) -> Millis {
    let wait = link.last_sent + probe_wait(link, config);
    // Casts that come from others are newer than what was sent last.
    let oldest = link.sent.front().map_or(wait, |oldest| oldest.at + probe_wait(link, config));
    wait.max(oldest).min(link.last_sent + link.terms.ping_interval)
}

fn probe_wait(link: &Link, config: &Options) -> u64 {
    let ping = link.terms.ping_interval;
    let wait = if link.sent.is_empty() { ping } else { config.probe_after() };
    wait.min(ping)
}

/// How much earlier a link is probed if the room is awake anyway: it wakes for all links of which one
/// is due, and not for each of thousands by itself.
fn slack(link: &Link, config: &Options) -> u64 {
    probe_wait(link, config) / 16
}
