//! Which domains speak dmuc (XEP-0030 answers), shared by the rooms of a MUC service.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use fastrand::Rng;

use crate::{Counter, Millis, Shared};

/// Rooms that wait for one answer; more are told no and ask again later.
const MAX_WAITING: usize = 10_000;

/// What is known about a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It speaks dmuc.
    Yes,
    /// It does not, or could not be asked.
    No,
    /// Not known: the caller must ask it now and report to [`Support::answered`].
    Query,
    /// Not known, and the question is under way: the room will be named by [`Support::answered`].
    Wait,
}

#[derive(Debug)]
enum Entry {
    Known {
        yes: bool,
        until: Millis,
    },
    /// Asked, or in the queue to be asked.
    Open {
        rooms: HashSet<String>,
        asked: bool,
    },
}

/// The answers to the disco#info questions of a MUC service.
#[derive(Debug)]
pub struct Support {
    shared: Arc<Shared>,
    rng: Rng,
    entries: HashMap<String, Entry>,
    in_flight: u64,
    queue: VecDeque<String>,
}

impl Support {
    /// An empty cache. `seed` should be random; it only spreads expiry.
    pub fn new(seed: u64, shared: Arc<Shared>) -> Self {
        Support {
            shared,
            rng: Rng::with_seed(seed),
            entries: HashMap::new(),
            in_flight: 0,
            queue: VecDeque::new(),
        }
    }

    /// Whether `domain` speaks dmuc, on behalf of `room`.
    pub fn ask(&mut self, now: Millis, domain: &str, room: &str) -> Answer {
        match self.entries.get_mut(domain) {
            Some(Entry::Known { yes, until }) if now < *until => {
                return if *yes { Answer::Yes } else { Answer::No };
            }
            Some(Entry::Open { rooms, .. }) => {
                if rooms.len() >= MAX_WAITING && !rooms.contains(room) {
                    self.shared.counters.add(Counter::LimitHit, 1);
                    return Answer::No;
                }
                rooms.insert(room.to_owned());
                return Answer::Wait;
            }
            _ => {}
        }
        if !self.make_room(now, domain) {
            self.shared.counters.add(Counter::LimitHit, 1);
            return Answer::No;
        }
        let asked = self.in_flight < self.shared.config.support_in_flight();
        let rooms = HashSet::from([room.to_owned()]);
        self.entries.insert(domain.to_owned(), Entry::Open { rooms, asked });
        if asked {
            self.in_flight += 1;
            Answer::Query
        } else {
            self.queue.push_back(domain.to_owned());
            Answer::Wait
        }
    }

    /// The answer has come: whether the feature is there, or `None` for an error or no answer.
    /// Returns the rooms that wait for it, to be told through [`crate::Room::support`].
    pub fn answered(&mut self, now: Millis, domain: &str, yes: Option<bool>) -> Vec<String> {
        let rooms = match self.entries.remove(domain) {
            Some(Entry::Open { rooms, asked }) => {
                if asked {
                    self.in_flight -= 1;
                } else {
                    self.queue.retain(|queued| queued != domain);
                }
                rooms.into_iter().collect()
            }
            _ => Vec::new(),
        };
        // No answer at all says little: the domain may just be starting.
        let keep = match yes {
            Some(true) => self.shared.config.support_yes(),
            Some(false) => self.shared.config.support_no(),
            None => self.shared.config.support_no().min(self.shared.config.retry_min() * 2),
        };
        let until = now + self.jitter(keep);
        self.entries.insert(domain.to_owned(), Entry::Known { yes: yes == Some(true), until });
        rooms
    }

    /// The next domain to ask, when questions waited for [`crate::Config::support_in_flight`].
    /// Call after [`Support::answered`] until there is none.
    pub fn next_question(&mut self) -> Option<String> {
        if self.in_flight >= self.shared.config.support_in_flight() {
            return None;
        }
        let domain = self.queue.pop_front()?;
        if let Some(Entry::Open { asked, .. }) = self.entries.get_mut(&domain) {
            *asked = true;
            self.in_flight += 1;
        }
        Some(domain)
    }

    /// The domain has said by itself that it speaks dmuc. Rooms that wait are still named by
    /// [`Support::answered`].
    pub fn announced(&mut self, now: Millis, domain: &str) {
        if !matches!(self.entries.get(domain), Some(Entry::Open { .. }))
            && self.make_room(now, domain)
        {
            let until = now + self.jitter(self.shared.config.support_yes());
            self.entries.insert(domain.to_owned(), Entry::Known { yes: true, until });
        }
    }

    /// A link with the domain was refused: ask anew next time.
    pub fn forget(&mut self, domain: &str) {
        if matches!(self.entries.get(domain), Some(Entry::Known { .. })) {
            self.entries.remove(domain);
        }
    }

    /// A known answer and the milliseconds for which it is still good.
    pub fn export(&self, now: Millis, domain: &str) -> Option<(bool, u64)> {
        match self.entries.get(domain) {
            Some(Entry::Known { yes, until }) if now < *until => Some((*yes, until.since(now))),
            _ => None,
        }
    }

    /// Takes an answer from another node, unless a question is under way here.
    pub fn import(&mut self, now: Millis, domain: &str, yes: bool, remaining: u64) {
        if !matches!(self.entries.get(domain), Some(Entry::Open { .. }))
            && self.make_room(now, domain)
        {
            let until = now + remaining.min(self.shared.config.support_yes());
            self.entries.insert(domain.to_owned(), Entry::Known { yes, until });
        }
    }

    /// Up to a tenth less, so that answers got together do not expire together.
    fn jitter(&mut self, ms: u64) -> u64 {
        ms - self.rng.u64(0..=ms / 10)
    }

    fn make_room(&mut self, now: Millis, domain: &str) -> bool {
        let most = self.shared.config.support_entries() as usize;
        if self.entries.len() >= most && !self.entries.contains_key(domain) {
            self.entries.retain(|_, entry| match entry {
                Entry::Known { until, .. } => now < *until,
                Entry::Open { .. } => true,
            });
            if self.entries.len() >= most {
                let known = |entry: &Entry| matches!(entry, Entry::Known { .. });
                let victim = self.entries.iter().find(|(_, e)| known(e)).map(|(d, _)| d.clone());
                self.entries.remove(&victim.unwrap_or_default());
            }
        }
        self.entries.len() < most || self.entries.contains_key(domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn support(pairs: &[(&str, u64)]) -> Support {
        Support::new(1, Shared::new(Config::from_pairs(pairs).expect("options")))
    }

    #[test]
    fn one_question_serves_all_rooms_that_wait() {
        let mut support = support(&[]);
        let now = Millis(0);
        assert_eq!(support.ask(now, "b.test", "r1"), Answer::Query);
        assert_eq!(support.ask(now, "b.test", "r2"), Answer::Wait);
        let mut rooms = support.answered(now, "b.test", Some(true));
        rooms.sort();
        assert_eq!(rooms, ["r1", "r2"]);
        assert_eq!(support.ask(now, "b.test", "r3"), Answer::Yes);
    }

    #[test]
    fn yes_and_no_expire_at_their_own_time() {
        let mut support = support(&[("support_yes", 100_000), ("support_no", 10_000)]);
        support.ask(Millis(0), "y.test", "r");
        support.ask(Millis(0), "n.test", "r");
        support.answered(Millis(0), "y.test", Some(true));
        support.answered(Millis(0), "n.test", Some(false));
        assert_eq!(support.ask(Millis(8_999), "n.test", "r"), Answer::No);
        assert_eq!(support.ask(Millis(10_000), "n.test", "r"), Answer::Query);
        assert_eq!(support.ask(Millis(89_999), "y.test", "r"), Answer::Yes);
        assert_eq!(support.ask(Millis(100_000), "y.test", "r"), Answer::Query);
    }

    #[test]
    fn questions_in_flight_are_capped_and_the_rest_asked_later() {
        let mut support = support(&[("support_in_flight", 1)]);
        let now = Millis(0);
        assert_eq!(support.ask(now, "a.test", "r"), Answer::Query);
        assert_eq!(support.ask(now, "b.test", "r"), Answer::Wait);
        assert_eq!(support.next_question(), None);
        support.answered(now, "a.test", None);
        assert_eq!(support.next_question().as_deref(), Some("b.test"));
        assert_eq!(support.answered(now, "b.test", Some(true)), ["r"]);
        assert_eq!(support.next_question(), None);
    }

    #[test]
    fn the_cache_is_bounded() {
        let mut support = support(&[("support_entries", 10), ("support_no", 1000)]);
        for n in 0..10 {
            support.ask(Millis(0), &format!("d{n}.test"), "r");
            support.answered(Millis(0), &format!("d{n}.test"), Some(false));
        }
        for n in 0..10 {
            let asked = support.ask(Millis(1), &format!("x{n}.test"), "r");
            assert_eq!(asked, Answer::Query, "an answer gives way");
        }
        assert_eq!(support.entries.len(), 10);
        assert_eq!(support.ask(Millis(2), "y.test", "r"), Answer::No, "a question does not");
        assert_eq!(support.shared.counters.get(Counter::LimitHit), 1);
    }

    #[test]
    fn a_refused_link_clears_the_answer_and_an_announcement_sets_it() {
        let mut support = support(&[]);
        let now = Millis(0);
        support.announced(now, "b.test");
        assert_eq!(support.export(now, "b.test").map(|(yes, _)| yes), Some(true));
        support.forget("b.test");
        assert_eq!(support.export(now, "b.test"), None);
        support.import(now, "b.test", true, 5);
        assert_eq!(support.ask(Millis(4), "b.test", "r"), Answer::Yes);
        assert_eq!(support.ask(Millis(5), "b.test", "r"), Answer::Query);
    }
}
