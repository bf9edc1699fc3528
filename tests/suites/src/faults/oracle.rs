//! Whether everybody has heard what he should have.
//!
//! **The law.** The room's own order is what a witness heard, a user of the primary's own server. From
//! his own presence to the end of his stay each occupant heard that order: nothing missing, nothing
//! twice, nothing out of place. Whoever is told that he is out, or learns it by an error, or goes away
//! himself, has heard an unbroken part of it up to some point, and so has who is let in again with list
//! and history by a presence of his own before he learns that he was out; whoever leaves and is
//! answered, all up to his leave; and whoever believes to be inside, all of it. After he is told, he
//! hears no more.
//!
//! What is looked at ends with the last message of all: something that was sent after it may be heard by
//! one already and be on its way to another.
//!
//! When the room's server is killed the witness enters a new room, with a new order. A stay belongs
//! to the one in which its beginning was heard.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::AddAssign;

use super::diary::{Diary, End, Event, Start, Stay};

/// What the oracle has found, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Stays looked at.
    pub stays: u64,
    /// Events that were heard where they belong.
    pub heard: u64,
    /// Messages that somebody should have heard and has not.
    pub lost: u64,
    /// Presences, the same.
    pub lost_presences: u64,
    /// Events heard twice.
    pub doubled: u64,
    /// Events heard after one that the room sent later.
    pub swapped: u64,
    /// Events that the room never sent, or not to him.
    pub foreign: u64,
    /// Messages heard after he was told that he is out.
    pub strays: u64,
    /// Stays that ended by being told so, by how.
    pub told: BTreeMap<String, u64>,
    /// Stays that ended with an error to a stanza of his own, by condition.
    pub refused: BTreeMap<String, u64>,
    /// Own stanzas that came back otherwise, by condition.
    pub bounced: BTreeMap<String, u64>,
    /// Occupants in the room's list who are not there.
    pub ghosts: u64,
    /// Users who believe to be inside and do not hear.
    pub deaf: u64,
    /// Users who want to be inside, know that they are not, and do not get in.
    pub outside: u64,
    /// The first few of what is wrong, in words.
    pub details: Vec<String>,
}

/// How many details are kept.
const DETAILS: usize = 12;

impl Findings {
    /// Whether the law holds.
    pub fn is_clean(&self) -> bool {
        self.wrong() == 0
    }

    /// How much is wrong.
    pub fn wrong(&self) -> u64 {
        [
            self.lost,
            self.lost_presences,
            self.doubled,
            self.swapped,
            self.foreign,
            self.strays,
            self.ghosts,
            self.deaf,
            self.outside,
        ]
        .iter()
        .sum()
    }

    /// How many stays ended because somebody was told.
    pub fn told_out(&self) -> u64 {
        self.told.values().sum()
    }

    /// Adds a detail, if there is still room.
    pub fn detail(&mut self, text: impl FnOnce() -> String) {
        if self.details.len() < DETAILS {
            self.details.push(text());
        }
    }

    fn lose(&mut self, event: &Event) {
        match event.is_message() {
            true => self.lost += 1,
            false => self.lost_presences += 1,
        }
    }
}

impl AddAssign for Findings {
    fn add_assign(&mut self, other: Self) {
        self.stays += other.stays;
        self.heard += other.heard;
        self.lost += other.lost;
        self.lost_presences += other.lost_presences;
        self.doubled += other.doubled;
        self.swapped += other.swapped;
        self.foreign += other.foreign;
        self.strays += other.strays;
        self.ghosts += other.ghosts;
        self.deaf += other.deaf;
        self.outside += other.outside;
        add(&mut self.told, other.told);
        add(&mut self.refused, other.refused);
        add(&mut self.bounced, other.bounced);
        other.details.into_iter().for_each(|detail| self.detail(|| detail));
    }
}

fn add(to: &mut BTreeMap<String, u64>, from: BTreeMap<String, u64>) {
    for (name, number) in from {
        *to.entry(name).or_default() += number;
    }
}

/// The orders of a room, one for each time it came to life.
pub struct Orders<'d> {
    orders: Vec<Order<'d>>,
    last: &'d Event,
}

struct Order<'d> {
    events: &'d [Event],
    continued: bool,
    /// The witness has gone, perhaps with the room's server: it may have sent something more.
    ended: bool,
    /// Where each event is, the first time.
    places: HashMap<&'d Event, usize>,
}

impl<'d> Orders<'d> {
    /// As the witness heard them, up to the last event.
    pub fn of(witness: &'d Diary, last: &'d Event) -> Self {
        let order = |stay: &'d Stay| {
            let events = until(&stay.heard, last);
            let mut places = HashMap::new();
            for (n, event) in events.iter().enumerate() {
                places.entry(event).or_insert(n);
            }
            let (continued, ended) = (stay.start == Start::Continued, stay.end != End::In);
            Order { events, continued, ended, places }
        };
        Self { orders: witness.stays.iter().map(order).collect(), last }
    }

    /// Judges all stays of an occupant.
    pub fn judge(&self, who: &str, diary: &Diary) -> Findings {
        let mut findings = Findings { strays: diary.strays.len() as u64, ..Findings::default() };
        for stray in &diary.strays {
            findings.detail(|| format!("{who}: was told that he is out, and hears {stray:?}"));
        }
        add(&mut findings.bounced, diary.bounces.clone());
        for stay in &diary.stays {
            findings.stays += 1;
            match &stay.end {
                End::Told(how) => *findings.told.entry(how.clone()).or_default() += 1,
                End::Unaware => *findings.told.entry("unaware".to_owned()).or_default() += 1,
                End::Refused(how) => *findings.refused.entry(how.clone()).or_default() += 1,
                _ => {}
            }
            self.judge_stay(stay, &mut findings);
        }
        findings
    }

    fn judge_stay(&self, stay: &Stay, findings: &mut Findings) {
        let Some((order, start, begun)) = self.place(stay) else { return };
        let missing = BTreeSet::new();
        let mut walk = Walk { stay, order, start, begun, next: start, missing, blurred: false };
        for (n, event) in until(&stay.heard, self.last).iter().enumerate() {
            walk.blurred = stay.blurred.is_some_and(|blurred| n >= blurred);
            walk.hear(event, findings);
        }
        walk.missing.retain(|&n| !stay.early.contains(&order.events[n]));
        for &n in &walk.missing {
            findings.lose(&order.events[n]);
        }
        if let Some(&first) = walk.missing.first() {
            let (count, event) = (walk.missing.len(), &order.events[first]);
            findings.detail(|| walk.told(&format!("has not heard {count}, such as {event:?}")));
        }
        if stay.end == End::In && walk.next < order.events.len() {
            let blurred = stay.blurred.is_some();
            let rest = order.events[walk.next..].iter();
            let mut rest = rest.filter(|event| !blurred || event.is_message()).peekable();
            if let Some(first) = rest.peek() {
                findings.detail(|| walk.told(&format!("hears nothing more since {first:?}")));
            }
            rest.for_each(|event| findings.lose(event));
        }
    }

    /// In which order, from where on, and whether the witness was there before him.
    fn place(&self, stay: &Stay) -> Option<(&Order<'d>, usize, bool)> {
        match &stay.start {
            Start::Continued => self.orders.first().filter(|o| o.continued).map(|o| (o, 0, true)),
            Start::Joined(status) => {
                let joined = Event::Presence(stay.nick.clone(), status.clone());
                let own =
                    self.orders.iter().find_map(|o| Some((o, o.places.get(&joined)? + 1, true)));
                // If not: from the first that both have heard.
                own.or_else(|| {
                    let first = |o: &'_ Order<'d>| {
                        stay.heard.iter().find_map(|event| o.places.get(event).copied())
                    };
                    self.orders.iter().find_map(|o| Some((o, first(o)?, false)))
                })
            }
        }
    }
}

/// The events up to this one.
fn until<'e>(events: &'e [Event], last: &Event) -> &'e [Event] {
    let end = events.iter().position(|event| event == last);
    end.map_or(events, |end| &events[..=end])
}

/// Along an order with what somebody has heard.
struct Walk<'w> {
    stay: &'w Stay,
    order: &'w Order<'w>,
    start: usize,
    /// Whether he has heard something that the witness has heard too.
    begun: bool,
    /// What he is to hear next.
    next: usize,
    /// What he has not heard, though something later.
    missing: BTreeSet<usize>,
    /// Whether his presences are not on record.
    blurred: bool,
}

impl Walk<'_> {
    fn hear(&mut self, event: &Event, findings: &mut Findings) {
        let events = self.order.events;
        let farewell = matches!(event, Event::Gone(nick, _) if *nick == self.stay.nick);
        // Who is told out hears of himself what others hear, and perhaps not what came before; so does
        // who asked to leave just before that, or when there is no such room any more.
        if farewell && (self.stay.end != End::Left || !self.order.places.contains_key(event)) {
            return;
        }
        if events.get(self.next) == Some(event) {
            self.begun = true;
            self.next += 1;
            findings.heard += 1;
            return;
        }
        let ahead = match self.order.places.get(event) {
            Some(&n) if n < self.next => {
                let later = events[self.next..].iter().position(|other| other == event);
                later.map(|n| n + self.next)
            }
            n => n.copied(),
        };
        if let Some(ahead) = ahead {
            let audible = |n: &usize| !self.blurred || events[*n].is_message();
            self.missing.extend((self.next..ahead).filter(audible));
            self.next = ahead + 1;
            findings.heard += 1;
            return;
        }
        let behind = (self.start..self.next).rev().find(|&n| events[n] == *event);
        match behind {
            Some(n) if self.missing.remove(&n) => {
                findings.swapped += 1;
                findings.detail(|| self.told(&format!("hears too late {event:?}")));
            }
            Some(_) => {
                findings.doubled += 1;
                findings.detail(|| self.told(&format!("hears twice {event:?}")));
            }
            // What the witness was not yet there to hear, or not any more.
            None if !self.begun || self.order.ended && self.next == events.len() => {}
            None => {
                findings.foreign += 1;
                findings
                    .detail(|| self.told(&format!("hears what the room never sent: {event:?}")));
            }
        }
    }

    fn told(&self, what: &str) -> String {
        format!("{} ({:?}): {what}", self.stay.nick, self.stay.end)
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} heard, {} + {} lost, {} doubled, {} out of order, {} ghosts, {} deaf; \
             told out {:?}, by an error {:?}",
            self.heard,
            self.lost,
            self.lost_presences,
            self.doubled,
            self.swapped,
            self.ghosts,
            self.deaf,
            self.told,
            self.refused,
        )?;
        for (name, number) in
            [("foreign", self.foreign), ("strays", self.strays), ("outside", self.outside)]
        {
            if number > 0 {
                write!(f, "; {number} {name}")?;
            }
        }
        Ok(())
    }
}
