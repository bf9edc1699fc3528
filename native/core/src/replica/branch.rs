//! A replica's part in the trees of a room: casts that come over other replicas, their place among the
//! envelopes of the direct link, and passing them on (`docs/protocol.md`, section 8).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::envelope::carried;
use super::{GAP, LIMIT, MALFORMED, Refusal, Replica, Says};
use crate::config::Share;
use crate::tree::wire::{Mark, TreeOp, read_cast, read_newest};
use crate::tree::{
    Carried, Envelope, LinkKey, Merge, MergeLimits, Next, NotTaken, Position, Proof, RoomLock,
    Source, Stream, Taken, TreeOptions, canonical,
};
use crate::{Action, Actions, Class, Counter, Element, Incoming, Millis, Shared, ops};

/// Numbers of casts of a class that are remembered as passed on.
const SEEN: usize = 4096;
/// Times that something was missing under one parent, after which the room is told.
const LAPSES: u32 = 3;
/// Bytes of envelopes of a link that wait.
const MAX_WAITING: u64 = 16 << 20;
/// Time after which it is forgotten that something was missing.
const FORGIVEN: u64 = 60_000;

/// An envelope that may have to wait for casts.
#[derive(Debug)]
struct Waiting {
    id: String,
    seq: u64,
    element: Element<Incoming>,
    bytes: u64,
}

/// What is known of a class.
#[derive(Debug, Default)]
struct Way {
    /// Who passes casts on to this domain, and who did so before: something may be on its way.
    parents: [Option<Arc<str>>; 2],
    /// To whom it passes them on, and after which: not what comes late from before the room has named
    /// that domain.
    children: BTreeMap<Arc<str>, u64>,
    /// Casts that were passed on, or were nobody's to pass on to.
    seen: BTreeSet<u64>,
    /// How often something was missing, and when last.
    lapses: (u32, Option<Millis>),
    /// The room was told of this parent, or is to be told.
    is_accused: bool,
    complains: bool,
}

impl Way {
    /// Whether a cast is not known to be passed on already.
    fn see(&mut self, number: u64) -> bool {
        let forgotten = self.seen.len() >= SEEN && self.seen.first().is_some_and(|n| number < *n);
        if forgotten || !self.seen.insert(number) {
            return false;
        }
        if self.seen.len() > SEEN {
            self.seen.pop_first();
        }
        true
    }

    fn parent(&self) -> &str {
        self.parents[0].as_deref().unwrap_or_default()
    }

    /// The room is to be told of the parent, unless it was told already.
    fn accuse(&mut self) -> bool {
        let is_new = self.parents[0].is_some() && !std::mem::replace(&mut self.is_accused, true);
        self.complains |= is_new;
        is_new
    }
}

/// A link whose envelopes lie in a room stream.
#[derive(Debug)]
pub(super) struct Branch {
    merge: Merge<Incoming, Waiting>,
    /// Newest envelope that was taken in, by its number in the stream.
    nth: u64,
    ways: [Way; 2],
    /// Bytes of envelopes that wait, and all that waits.
    envelopes: u64,
    waiting: Share,
    /// The room has broken the form or the order: nothing more of this link is taken.
    is_broken: bool,
}

impl Branch {
    fn new(room: &str, op: &TreeOp, shared: &Arc<Shared>) -> Option<Self> {
        let TreeOp::Stream { name, key, secret, from, has_full } = op else { return None };
        let stream = Stream { room: room.to_owned(), epoch: name.clone() };
        let (lock, key) = (RoomLock::new(key)?, LinkKey::new(*secret));
        let start: (u64, Position) = (0, *from);
        let limits = MergeLimits::default();
        let merge = Merge::new(stream, lock, key, start, *has_full, limits);
        let waiting = Share::of_early(shared);
        let (ways, envelopes) = Default::default();
        Some(Branch { merge, nth: 0, ways, envelopes, waiting, is_broken: false })
    }

    /// What waits is other things than before.
    fn weigh(&mut self) {
        self.waiting.set(self.envelopes + self.merge.bytes() as u64);
    }

    /// When something missing is to be asked for.
    pub fn wake(&self) -> Option<Millis> {
        self.merge.wake().filter(|_| !self.is_broken)
    }

    /// What the next report is to complain of.
    pub fn complaints(&mut self) -> Vec<Class> {
        let mut all = Vec::new();
        for class in Class::ALL {
            if std::mem::take(&mut self.ways[class as usize].complains) {
                all.push(class);
            }
        }
        all
    }
}

impl Replica {
    /// What an envelope has said of this domain's part. Such an operation is the only one of its envelope.
    pub(super) fn take_part(&mut self, room: &str, op: &TreeOp) -> Result<(), Refusal> {
        let most = TreeOptions::of(&self.shared.config).children as usize;
        let link = self.links.get_mut(room).ok_or(MALFORMED)?;
        match op {
            TreeOp::Stream { .. } => {
                let branch = Branch::new(room, op, &self.shared).ok_or(MALFORMED)?;
                link.branch = Some(Box::new(branch));
            }
            TreeOp::Alone => {
                link.branch = None;
                link.untold = true;
            }
            TreeOp::Parent { class, domain } => {
                let way = &mut link.branch.as_mut().ok_or(MALFORMED)?.ways[*class as usize];
                if way.parents[0] != *domain {
                    way.parents.swap(0, 1);
                    way.parents[0].clone_from(domain);
                    way.lapses = (0, None);
                    (way.is_accused, way.complains) = (false, false);
                }
            }
            TreeOp::Child { class, domain, is_gone } => {
                let branch = link.branch.as_mut().ok_or(MALFORMED)?;
                let done = branch.merge.done().get(*class);
                let way = &mut branch.ways[*class as usize];
                if *is_gone {
                    way.children.remove(domain);
                    // The room waits for that.
                    link.untold = true;
                } else if way.children.len() < most && **domain != *self.domain {
                    way.children.insert(domain.clone(), done);
                } else {
                    // The room asks for more than was offered: those it has to serve itself.
                    self.shared.counters.add(Counter::LimitHit, 1);
                }
            }
        }
        Ok(())
    }

    /// An envelope of a link in a room stream: it is taken in, and carried out when its turn comes.
    pub(super) fn take_in_order(
        &mut self,
        now: Millis,
        room: &Arc<str>,
        (id, seq): (&str, u64),
        element: &Element<Incoming>,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let link = self.links.get_mut(room).ok_or(MALFORMED)?;
        let branch = link.branch.as_mut().filter(|branch| !branch.is_broken).ok_or(GAP)?;
        let Mark { nth, place, has_full } = Mark::read(element).ok_or(MALFORMED)?;
        if nth <= branch.nth {
            self.shared.counters.add(Counter::Duplicates, 1);
            link.unreported += 1;
        } else {
            let payloads = element.children.iter().filter_map(|op| op.payload.as_ref());
            if payloads.clone().any(|payload| payload.packed.is_none()) {
                return Err(MALFORMED);
            }
            let packed = payloads.filter_map(|payload| payload.packed.as_ref());
            let bytes = element.markup_len() + packed.map(|packed| packed.len()).sum::<usize>();
            let bytes = bytes as u64;
            let most = self.shared.config.max_slot_bytes_total();
            if branch.envelopes + bytes > MAX_WAITING
                || branch.envelopes > 0 && self.slot_bytes + self.shared.early() + bytes > most
            {
                return Err(LIMIT);
            }
            let content = Waiting { id: id.to_owned(), seq, element: element.clone(), bytes };
            let taken = branch.merge.envelope(now, Envelope { seq: nth, place, has_full, content });
            taken.map_err(|why| match why {
                NotTaken::Gap => GAP,
                NotTaken::Limit => LIMIT,
            })?;
            branch.nth = nth;
            branch.envelopes += bytes;
        }
        self.go_on(now, room, out);
        self.schedule(now, room, element.children.is_empty(), out);
        Ok(())
    }

    /// Carries out what is next, as long as it is there.
    fn go_on(&mut self, now: Millis, room: &Arc<str>, out: &mut Vec<Action>) {
        loop {
            let Some(link) = self.links.get_mut(room) else { return };
            let next_seq = link.next_seq;
            let Some(branch) = link.branch.as_mut().filter(|branch| !branch.is_broken) else {
                return;
            };
            let (done, id) = match branch.merge.next(now) {
                None => {
                    branch.weigh();
                    if let Some(at) = branch.wake() {
                        self.alarm.by(at);
                    }
                    return;
                }
                Some(Next::Cast(cast)) => {
                    let element = as_envelope(cast);
                    (self.carry_out(now, room, &element, next_seq, out), None)
                }
                Some(Next::Envelope(Waiting { id, seq, element, bytes })) => {
                    branch.envelopes -= bytes;
                    let is_last = element.children.iter().any(|op| op.name == "alone");
                    let rest: Vec<Waiting> =
                        if is_last { branch.merge.rest().collect() } else { Vec::new() };
                    // As many casts have come between as the room has counted, or it counts wrongly.
                    let done = match seq == next_seq {
                        true => self.carry_out(now, room, &element, seq, out),
                        false => Err(MALFORMED),
                    };
                    if done.is_ok() {
                        self.take_rest(now, room, rest, out);
                    }
                    (done, Some(id))
                }
            };
            let Err(refusal) = done else { continue };
            if let Some(branch) = self.links.get_mut(room).and_then(|link| link.branch.as_mut()) {
                branch.is_broken = true;
            }
            match id {
                Some(id) => self.refuse(room, id, refusal, out),
                None => self.shared.counters.add(refusal.counter, 1),
            }
        }
    }

    /// Envelopes that have waited behind the one with which the link has left the stream: as if they had
    /// come just now. It may lie in another since one of them.
    fn take_rest(
        &mut self,
        now: Millis,
        room: &Arc<str>,
        rest: Vec<Waiting>,
        out: &mut Vec<Action>,
    ) {
        for Waiting { id, element, .. } in rest {
            if let Some(link) = self.links.get_mut(room) {
                link.has_waited = true;
            }
            if let Err(refusal) = self.take(now, room, &id, &element, out) {
                self.refuse(room, id, refusal, out);
            }
        }
        if let Some(link) = self.links.get_mut(room) {
            link.has_waited = false;
        }
    }

    /// A `<relayed/>` in a message to the own bare domain, from the bare JID of a room or from another
    /// domain that is authenticated on the stream. `xml` is the stanza in it as the host would write it,
    /// with or without a namespace at its root. It is not answered.
    pub fn cast(
        &mut self,
        now: Millis,
        from: &str,
        element: &Element<Incoming>,
        xml: &[u8],
    ) -> Actions {
        let mut out = Vec::new();
        let relays = self.relayed(now, from, element, xml, &mut out).unwrap_or_default();
        Actions { relays, ..self.give(out) }
    }

    fn relayed(
        &mut self,
        now: Millis,
        from: &str,
        element: &Element<Incoming>,
        xml: &[u8],
        out: &mut Vec<Action>,
    ) -> Option<Vec<Arc<str>>> {
        let room = element.attr("room")?;
        let payload = element.payload.as_ref()?;
        let size = payload.packed.as_ref()?.len();
        let is_in_form = carried(room, payload).is_ok();
        let (room, _) = self.links.get_key_value(room).filter(|_| !self.closed && is_in_form)?;
        let room = room.clone();
        let link = self.links.get_mut(&room)?;
        let branch = link.branch.as_mut().filter(|branch| !branch.is_broken)?;
        let class = Class::parse(element.attr("class")?)?;
        let way = &mut branch.ways[class as usize];
        let source = if *from == *room { Source::Primary } else { Source::Relay };
        if source == Source::Primary {
            // As `Link::hear`, beside the branch that is borrowed.
            link.heard = now;
            link.asked = None;
        } else if !way.parents.iter().flatten().any(|parent| **parent == *from) {
            // Nobody is listened to of whom the room has not spoken.
            self.shared.counters.add(Counter::StrayCasts, 1);
            return None;
        }
        let cast = read_cast(element, canonical(xml).ok(), size)?;
        let number = cast.cast.number;
        let kept = self.slot_bytes + self.shared.early();
        let is_next = number <= branch.merge.done().get(class).saturating_add(1);
        if !is_next && kept + size as u64 > self.shared.config.max_slot_bytes_total() {
            self.shared.counters.add(Counter::LimitHit, 1);
            return None;
        }
        let is_signed = matches!(cast.proof, Proof::Signed { .. });
        let may_be_new = !way.seen.contains(&number);
        if !may_be_new {
            self.shared.counters.add(Counter::Duplicates, 1);
        }
        let taken = branch.merge.cast(now, source, cast.clone());
        let is_genuine = match taken {
            Taken::New | Taken::Ahead => true,
            // An envelope has taken its place here, but not further on.
            Taken::Duplicate => may_be_new && is_signed && branch.merge.is_genuine(source, &cast),
            Taken::Stale | Taken::NotEntitled | Taken::Forged => false,
        };
        let way = &mut branch.ways[class as usize];
        if taken == Taken::Forged {
            self.shared.counters.add(Counter::ForgedCasts, 1);
            if way.parents[0].as_deref() == Some(from) && way.accuse() {
                log::warn!("{room}: {from} passes on what the room has not signed");
            }
        }
        let complains = way.complains;
        let passes = is_genuine && is_signed && way.see(number);
        let children = way.children.iter().filter(|(_, after)| passes && number > **after);
        let relays: Vec<Arc<str>> = children.map(|(child, _)| child.clone()).collect();
        self.shared.counters.add(Counter::CastsRelayed, relays.len() as u64);
        self.go_on(now, &room, out);
        if complains {
            self.report(&room, Says::default(), out);
        } else if self.links.get(&room).is_some_and(|link| link.unreported > 0) {
            self.schedule(now, &room, false, out);
        }
        Some(relays)
    }

    /// The room says how far its stream is.
    pub(super) fn newest(
        &mut self,
        now: Millis,
        from: &str,
        element: &Element<Incoming>,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let (newest, question) = read_newest(element).ok_or(MALFORMED)?;
        let link = self.links.get_mut(from).ok_or(super::UNKNOWN_EPOCH)?;
        if self.closed || Some(&*link.epoch) != ops::epoch(element) {
            return Err(super::UNKNOWN_EPOCH);
        }
        link.hear(now);
        if let Some(branch) = &mut link.branch {
            branch.merge.heartbeat(now, newest);
        }
        let room = Arc::from(from);
        self.go_on(now, &room, out);
        if question.is_some() {
            self.report(&room, Says { resume: question, ..Says::default() }, out);
        }
        Ok(())
    }

    /// Asks for what has been missing for long enough.
    pub(super) fn ask_for_missing(&mut self, now: Millis, out: &mut Vec<Action>) {
        let is_due = |branch: &Branch| branch.wake().is_some_and(|at| at <= now);
        let due = self.links.iter().filter(|(_, l)| l.branch.as_deref().is_some_and(is_due));
        let due: Vec<Arc<str>> = due.map(|(room, _)| room.clone()).collect();
        for room in due {
            let Some(branch) = self.links.get_mut(&room).and_then(|link| link.branch.as_mut())
            else {
                continue;
            };
            let missing = branch.merge.ask(now);
            for class in Class::ALL {
                // An answer that does not come says nothing of the parent.
                if branch.merge.has_asked_again(class) || missing.iter().all(|m| m.class != class) {
                    continue;
                }
                let way = &mut branch.ways[class as usize];
                let (lapses, last) = &mut way.lapses;
                if last.is_none_or(|last| now.since(last) > FORGIVEN) {
                    *lapses = 0;
                }
                (*lapses, *last) = (*lapses + 1, Some(now));
                if *lapses >= LAPSES && way.accuse() {
                    log::warn!("{room}: what is to come by {} is missing", way.parent());
                }
            }
            self.shared.counters.add(Counter::CastsMissed, missing.len() as u64);
            let says = Says { missing, ..Says::default() };
            self.report(&room, says, out);
        }
        for branch in self.links.values().filter_map(|link| link.branch.as_deref()) {
            if let Some(at) = branch.wake() {
                self.alarm.by(at);
            }
        }
    }
}

/// A cast of the stream does what an envelope with that one operation would.
fn as_envelope(cast: Carried<Incoming>) -> Element<Incoming> {
    let mut op = Element::new("cast")
        .with("n", cast.cast.number)
        .with_some("class", cast.cast.only.map(Class::as_str));
    op.payload = Some(cast.payload);
    let mut element = Element::new("envelope");
    element.children.push(op);
    element
}
