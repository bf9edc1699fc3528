//! What a replica makes of a primary that is silent: it asks, and after long enough it takes the
//! epoch for dead, so that nobody stays in a room that does not speak to him any more.

use std::collections::VecDeque;
use std::sync::Arc;

use super::link::Link;
use super::{Refusal, Replica, Says, UNKNOWN_EPOCH};
use crate::ops::{Report, Resume};
use crate::{Action, Actions, Bounce, Counter, Element, Facts, Incoming, Millis};

/// Time beyond the primary's ping after which it is asked whether it is still there, and after which
/// it is asked again.
const GRACE: u64 = 10_000;
/// Time after a set-up or a resumption after which leaves are repeated that the room seems not to
/// have got.
pub(super) const AGAIN: u64 = 5000;
/// Time for which a join is believed to be answered yet when its link is gone.
pub(super) const ANSWER: u64 = 60_000;
/// Longest ping and hold time that a primary is taken by its word for.
const MOST: u64 = 3_600_000;
/// Time after a leave, or after it was repeated, after which it is repeated if the room has not
/// answered.
const REPEAT: u64 = 30_000;

/// Links that have ended whose last reports are remembered.
const FAREWELLS: usize = 256;

const QUESTION: &str = "dmucq-";

/// Id of a report that asks.
pub(super) fn question_id(epoch: &str) -> String {
    format!("{QUESTION}{epoch}")
}

/// Whether a stanza's id is that of a report that asks: a cheap test before [`Replica::returned`].
pub fn is_question_id(id: &str) -> bool {
    id.starts_with(QUESTION)
}

/// A session that was in a link which is gone, while a presence of its own was under way.
#[derive(Debug)]
pub(super) struct Doubt {
    until: Millis,
    /// Its record's mark: if the room has not let it in since, the presence is lost.
    mark: u64,
}

impl Link {
    fn ping(&self) -> u64 {
        self.ping.clamp(1000, MOST)
    }

    /// When the epoch is dead unless something is heard.
    fn death(&self) -> Millis {
        self.heard + self.hold.min(MOST) + self.ping() + GRACE
    }

    /// When the silence is to be looked at next.
    pub fn next_silence(&self) -> Millis {
        let ask = match self.asked {
            Some(asked) => asked + GRACE.max(self.ping() / 2),
            None => self.heard + self.ping() + GRACE,
        };
        ask.min(self.death()).min(self.repeat.unwrap_or(ask))
    }
}

impl Replica {
    /// A `<resume/>`: how far the link has come. Whoever has left meanwhile leaves again, since the
    /// room may not have got it.
    pub(super) fn resume(
        &mut self,
        now: Millis,
        from: &str,
        element: &Element<Incoming>,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let question = Resume::read(element).ok_or(super::MALFORMED)?;
        if let Some(mut report) = self.farewells.get(from, &question.epoch).filter(|_| !self.closed)
        {
            report.resume = Some(question.n);
            let id = super::report_id(&mut self.rng);
            out.push(Action::Report { to: from.into(), id, body: report.write() });
            return Ok(());
        }
        let (room, _) = self.links.get_key_value(from).ok_or(UNKNOWN_EPOCH)?;
        let room = room.clone();
        let link = self.links.get_mut(&room).ok_or(UNKNOWN_EPOCH)?;
        if self.closed || link.epoch != question.epoch {
            return Err(UNKNOWN_EPOCH);
        }
        link.hear(now);
        // Somebody may yet be entered by what is sent again.
        link.repeat = Some(now + AGAIN);
        self.alarm.by(now + AGAIN);
        self.repeat_leaves(&room, out);
        self.report(&room, Says { resume: Some(question.n), ..Says::default() }, out);
        Ok(())
    }

    /// The one line for the end of a link.
    pub(super) fn tell_down(&self, room: &str, reason: &'static str) {
        log::info!("{room}: link for {} is down: {reason}", self.domain);
    }

    /// Ends a link with a last report. Whoever has left without an answer is not forgotten with it.
    pub(super) fn take_leave(
        &mut self,
        now: Millis,
        room: &Arc<str>,
        says: Says,
        out: &mut Vec<Action>,
    ) {
        for (session, nick) in self.left(room) {
            self.departures.remember(now, room, &session, &nick);
        }
        let report = self.report(room, says, out);
        self.farewells.push(room, report);
        self.remove(room);
    }

    /// The room has spoken to a session about its own stay.
    pub(super) fn answered(&mut self, now: Millis, room: &str, session: &str, facts: Facts) {
        if facts.is_own_end() {
            self.departures.ended(now, room, session);
        } else if facts.is_own_available() {
            // To one that has not asked anew it speaks of a stay that it takes for open.
            match self.consents.get(room, session) {
                Some(record) if record.has_left() => {}
                Some(_) => self.departures.forget(room, session),
                None => self.departures.is_in(now, &room.into(), &session.into()),
            }
        }
    }

    /// A session has left, and the room has a while to answer.
    pub(super) fn expect_answer(&mut self, now: Millis, room: &str) {
        if let Some(link) = self.links.get_mut(room) {
            let at = now + REPEAT;
            link.repeat = Some(link.repeat.map_or(at, |old| old.min(at)));
            self.alarm.by(at);
        }
    }

    /// Whether there was any.
    fn repeat_leaves(&mut self, room: &Arc<str>, out: &mut Vec<Action>) -> bool {
        let left = self.left(room);
        self.shared.counters.add(Counter::LeavesRepeated, left.len() as u64);
        let any = !left.is_empty();
        for (session, nick) in left {
            out.push(Action::Depart { room: room.clone(), nick, session });
        }
        any
    }

    /// Sessions of a link that have left or are gone, and their nicks.
    fn left(&self, room: &Arc<str>) -> Vec<(Arc<str>, String)> {
        let Some(link) = self.links.get(room) else { return Vec::new() };
        let mut left = Vec::new();
        for index in link.audience.seats.all() | &link.refused {
            let Some(session) = link.audience.jid(index) else { continue };
            let nick = match self.consents.get(room, session) {
                Some(record) if record.has_left() => Some(record.nick().to_owned()),
                Some(_) => None,
                None => link.gone.get(&index).cloned(),
            };
            left.extend(nick.map(|nick| (session.clone(), nick)));
        }
        left
    }

    /// Asks the primaries that are silent, and gives up those that have been for too long.
    pub(super) fn listen(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.resolve_doubts(now, false, out);
        let silent: Vec<Arc<str>> = self
            .links
            .iter()
            .filter(|(_, link)| now >= link.next_silence())
            .map(|(room, _)| room.clone())
            .collect();
        for room in silent {
            let Some(link) = self.links.get_mut(&room) else { continue };
            if link.repeat.is_some_and(|at| now >= at) {
                let any = self.repeat_leaves(&room, out);
                if let Some(link) = self.links.get_mut(&room) {
                    link.repeat = any.then(|| now + REPEAT);
                }
                continue;
            }
            if now >= link.death() {
                self.die(now, &room, "its primary is silent", out);
            } else {
                link.asked = Some(now);
                self.report(&room, Says { ask: true, ..Says::default() }, out);
            }
        }
    }

    /// An error upon a report that asks, from the bare JID of a room. `how`: whether it has come over
    /// a server-to-server stream from the room's domain or was made by the own server.
    pub fn returned(&mut self, now: Millis, from: &str, id: &str, how: Bounce) -> Actions {
        let mut out = Vec::new();
        let epoch = id.strip_prefix(QUESTION);
        if let Some((room, link)) = self.links.get_key_value(from)
            && Some(&*link.epoch) == epoch
            && link.asked.is_some()
            && how == Bounce::Refused
        {
            let room = room.clone();
            self.die(now, &room, "its primary does not know it any more", &mut out);
        }
        self.give(out)
    }

    /// Tells a session that the room does not have it any more; its nick if that was news to it. One
    /// with a join under way has an answer to come, for a while.
    pub(super) fn expel(
        &mut self,
        now: Millis,
        room: &Arc<str>,
        session: &Arc<str>,
        out: &mut Vec<Action>,
    ) -> Option<String> {
        let record = self.consents.get(room, session)?;
        if record.is_joining() {
            let (until, mark) = (now + ANSWER, record.mark());
            // A room may take it in and leave it out again and again: that gives it no more time.
            let key = (room.clone(), session.clone());
            let doubt = self.doubts.entry(key).or_insert(Doubt { until, mark });
            if doubt.mark != mark {
                *doubt = Doubt { until, mark };
            }
            self.alarm.by(doubt.until);
            return None;
        }
        self.evict(room, session, out)
    }

    fn evict(
        &mut self,
        room: &Arc<str>,
        session: &Arc<str>,
        out: &mut Vec<Action>,
    ) -> Option<String> {
        let record = self.consents.get(room, session)?;
        let (nick, has_left) = (record.nick().to_owned(), record.has_left());
        self.consents.remove(room, session);
        // A newer link may have taken it in.
        self.lapse(room, session, None);
        let (room, session) = (room.clone(), session.clone());
        if !has_left {
            self.shared.counters.add(Counter::Evicted, 1);
            let (room, nick, session) = (room.clone(), nick.clone(), session.clone());
            out.push(Action::Evict { room, nick, session });
        }
        out.push(Action::ConsentChanged { room, session });
        (!has_left).then_some(nick)
    }

    /// Whoever has waited for an answer since a link was given up, and got none, is out; `all` waits no
    /// longer.
    pub(super) fn resolve_doubts(&mut self, now: Millis, all: bool, out: &mut Vec<Action>) {
        let due = self.doubts.extract_if(.., |_, doubt| all || now >= doubt.until);
        for ((room, session), Doubt { mark, .. }) in due.collect::<Vec<_>>() {
            let record = self.consents.get(&room, &session);
            if record.is_some_and(|record| record.mark() == mark)
                && let Some(nick) = self.evict(&room, &session, out)
            {
                self.departures.remember(now, &room, &session, &nick);
                out.push(Action::Depart { room, nick, session });
            }
        }
        if let Some(at) = self.doubts.values().map(|doubt| doubt.until).min() {
            self.alarm.by(at);
        }
    }

    /// Ends a link without its primary: everybody is told that he is out, and the room too.
    fn die(&mut self, now: Millis, room: &Arc<str>, reason: &'static str, out: &mut Vec<Action>) {
        let mut left = self.left(room);
        // The room may live again, and some be in it already.
        let let_in = self.links.get_mut(room).map(|link| std::mem::take(&mut link.let_in));
        let let_in = let_in.unwrap_or_default();
        let mut served = self.former(room);
        served.retain(|session| !let_in.contains(session));
        self.uncount(room);
        out.push(Action::LinkOver { room: room.clone() });
        self.tell_down(room, reason);
        self.shared.counters.add(Counter::EpochsDead, 1);
        for session in served {
            left.extend(self.expel(now, room, &session, out).map(|nick| (session, nick)));
        }
        for (session, nick) in left {
            self.departures.remember(now, room, &session, &nick);
            out.push(Action::Depart { room: room.clone(), nick, session });
        }
    }
}

/// The last reports of links that have ended, for primaries that have not got them.
#[derive(Debug, Default)]
pub(super) struct Farewells(VecDeque<(Arc<str>, Report)>);

impl Farewells {
    pub fn push(&mut self, room: &Arc<str>, report: Report) {
        self.0.push_back((room.clone(), report));
        if self.0.len() > FAREWELLS {
            self.0.pop_front();
        }
    }

    fn get(&self, room: &str, epoch: &str) -> Option<Report> {
        let of_link = |(of, report): &&(Arc<str>, Report)| **of == *room && report.epoch == epoch;
        self.0.iter().rev().find(of_link).map(|(_, report)| report.clone())
    }
}
