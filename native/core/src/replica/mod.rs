//! A user domain's side: consent, links of remote rooms, and who is to get what.

mod branch;
mod departures;
mod envelope;
mod herald;
mod link;
mod silence;
mod slots;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use fastrand::Rng;
use roaring::RoaringBitmap;

use self::departures::Departures;
use self::envelope::{Taking, What, check};
use self::herald::Herald;
use self::link::Link;
pub use self::silence::is_question_id;
use self::silence::{Doubt, Farewells};
use self::slots::Slots;
use crate::audience::Audience;
use crate::config::Share;
use crate::consent::{Change, Consents, Most, Record};
use crate::ops::{self, LinkAccept, LinkOffer, Op, Report};
use crate::time::Alarm;
use crate::tree::Missing;
use crate::tree::wire::NEWEST;
use crate::view::LinkRow;
use crate::{Action, Actions, Counter, Element, Facts, Incoming, Millis, Shared, indexes, jid};

/// Rooms to which the replica announces itself in one go.
const ANNOUNCE_BATCH: usize = 50;
/// Time between two such batches.
const ANNOUNCE_PAUSE: u64 = 1000;

/// A link, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Bare JID of the room.
    pub room: String,
    /// Epoch of the link.
    pub epoch: String,
    /// Sessions served.
    pub occupants: u64,
    /// Newest link sequence number.
    pub seq: u64,
    /// Stanzas kept for replay.
    pub slots: u64,
    /// Bytes of them.
    pub slot_bytes: u64,
}

/// All links of a user domain with remote rooms.
#[derive(Debug)]
pub struct Replica {
    domain: Arc<str>,
    shared: Arc<Shared>,
    rng: Rng,
    consents: Consents,
    links: HashMap<Arc<str>, Link>,
    /// Links by the domain of their rooms.
    per_domain: HashMap<Arc<str>, usize>,
    /// What is kept in the slots of all links.
    slot_bytes: u64,
    announcing: VecDeque<Arc<str>>,
    announce_at: Option<Millis>,
    herald: Herald,
    /// Who was told that he is out, while the room may not know.
    departures: Departures,
    /// By room and session.
    doubts: BTreeMap<(Arc<str>, Arc<str>), Doubt>,
    farewells: Farewells,
    alarm: Alarm,
    closed: bool,
}

/// Why an envelope is not taken.
struct Refusal {
    condition: &'static str,
    dmuc: &'static str,
    counter: Counter,
}

/// Nobody reads it: only a report that asks is recognised when it comes back.
fn report_id(rng: &mut Rng) -> String {
    (0..6).map(|_| rng.alphanumeric()).collect()
}

/// What a report says beside how far the link has come.
#[derive(Clone, Default)]
struct Says {
    /// Answers this question for resumption.
    resume: Option<u64>,
    /// Asks whether the link is still there.
    ask: bool,
    bye: bool,
    /// Casts of the room stream that it has not got.
    missing: Vec<Missing>,
}

const UNKNOWN_EPOCH: Refusal =
    Refusal { condition: "item-not-found", dmuc: "unknown-epoch", counter: Counter::UnknownEpochs };
const GAP: Refusal =
    Refusal { condition: "unexpected-request", dmuc: "gap", counter: Counter::Gaps };
const MALFORMED: Refusal =
    Refusal { condition: "bad-request", dmuc: "malformed", counter: Counter::Malformed };
const LIMIT: Refusal =
    Refusal { condition: "resource-constraint", dmuc: "limit", counter: Counter::LimitHit };

impl Replica {
    /// A domain without links. `seed` should be random.
    pub fn new(domain: &str, seed: u64, shared: Arc<Shared>) -> Self {
        Replica {
            domain: domain.into(),
            shared,
            rng: Rng::with_seed(seed),
            consents: Consents::default(),
            links: HashMap::new(),
            per_domain: HashMap::new(),
            slot_bytes: 0,
            announcing: VecDeque::new(),
            announce_at: None,
            herald: Herald::default(),
            departures: Departures::default(),
            doubts: BTreeMap::new(),
            farewells: Farewells::default(),
            alarm: Alarm::default(),
            closed: false,
        }
    }

    /// A local session has sent a presence to a remote JID. True if a consent record changed.
    pub fn outgoing(&mut self, now: Millis, session: &str, to: &str, facts: Facts) -> bool {
        let size = |n| usize::try_from(n).unwrap_or(usize::MAX);
        let most = Most {
            in_all: size(self.shared.config.max_consents()),
            of_session: size(self.shared.config.max_consents_per_session()),
        };
        let change = self.consents.outgoing(now, session, to, facts, most);
        if facts.is_unavailable() && change == Change::Changed {
            self.alarm.by(now + self.shared.config.consent_expiry());
        }
        if change == Change::Full {
            self.shared.counters.add(Counter::LimitHit, 1);
        }
        if facts.is_unavailable() {
            let room = jid::bare(to);
            self.expect_answer(now, room);
            let nick = match self.consents.get(room, session) {
                Some(record) => Some(record.nick()),
                // The answer to something older may have closed it while a join was under way.
                None if self.links.contains_key(room) => jid::resource(to),
                None => None,
            };
            if let Some(nick) = nick {
                self.departures.left(now, room, session, nick);
            }
        } else {
            self.departures.postpone(now, jid::bare(to), session);
        }
        change == Change::Changed
    }

    /// A remote JID has sent a presence to a local session, outside a link. True if a consent
    /// record changed or went.
    pub fn incoming(&mut self, now: Millis, session: &str, from: &str, facts: Facts) -> bool {
        self.answered(now, jid::bare(from), session, facts);
        let room = jid::bare(from);
        if facts.is_presence()
            && !facts.is_not_reached()
            && let Some(link) = self.links.get_mut(room).filter(|link| link.branch.is_some())
        {
            // Its primary has given this link up, for this session at least; what others may still pass
            // on of it would come after what comes plainly.
            link.lapse(session, None);
        }
        if facts.is_own_available()
            && let Some(link) = self.links.get_mut(room)
        {
            // Until the first envelope it may be the primary of the link that sends plainly.
            let is_new = link.next_seq == 1;
            let is_named = link.index_of.contains_key(session);
            if is_named && !is_new {
                link.let_in.insert(session.into());
            } else if is_new && !is_named && self.consents.get(room, session).is_some() {
                link.welcomed.insert(session.into());
            }
        } else if facts.is_own_available() && self.consents.get(room, session).is_some() {
            self.herald.entered(now, room);
        }
        match self.consents.incoming(session, from, facts) {
            Change::Closed => {
                self.lapse(jid::bare(from), session, None);
                true
            }
            Change::Changed => {
                self.may_have_left(now, jid::bare(from), session);
                true
            }
            Change::None | Change::Full => false,
        }
    }

    /// A refused join may leave nothing but a stay that has been left, of which the room may not know.
    fn may_have_left(&mut self, now: Millis, room: &str, session: &str) {
        self.consents.note_leaving(now, room, session);
        if self.consents.get(room, session).is_some_and(Record::has_left) {
            self.expect_answer(now, room);
        }
    }

    /// A local session is over. Returns the rooms for which it had a record.
    pub fn session_closed(&mut self, now: Millis, session: &str) -> Vec<Arc<str>> {
        let mut rooms = Vec::new();
        for (room, nick) in self.consents.session_closed(session) {
            self.departures.left(now, &room, session, &nick);
            self.lapse(&room, session, Some(nick));
            self.expect_answer(now, &room);
            rooms.push(room);
        }
        rooms
    }

    /// A local session is over and nobody has told the room: a node of the cluster was lost. The room
    /// is told now.
    pub fn session_lost(&mut self, now: Millis, room: &str, session: &str) -> Actions {
        let mut out = Vec::new();
        if let Some(record) = self.consents.get(room, session) {
            let nick = record.nick().to_owned();
            self.consents.remove(room, session);
            self.departures.left(now, room, session, &nick);
            self.lapse(room, session, Some(nick.clone()));
            self.expect_answer(now, room);
            let (room, session): (Arc<str>, Arc<str>) = (room.into(), session.into());
            let changed = Action::ConsentChanged { room: room.clone(), session: session.clone() };
            out.extend([changed, Action::Depart { room, nick, session }]);
        }
        self.give(out)
    }

    fn lapse(&mut self, room: &str, session: &str, nick: Option<String>) {
        if let Some(link) = self.links.get_mut(room) {
            link.lapse(session, nick);
        }
    }

    /// A record in a form to be kept elsewhere.
    pub fn consent(&self, room: &str, session: &str) -> Option<String> {
        self.consents.export(room, session)
    }

    /// All records in that form: (room, session, record).
    pub fn consents(&self) -> Vec<(Arc<str>, Arc<str>, String)> {
        self.consents
            .iter()
            .filter_map(|(room, session, _)| {
                Some((room.clone(), session.clone(), self.consents.export(room, session)?))
            })
            .collect()
    }

    /// Takes a record from elsewhere; `None` removes it. False if it is not a record. Who is in a
    /// room again, or on the way, is not told to leave it any more.
    pub fn import_consent(
        &mut self,
        now: Millis,
        room: &str,
        session: &str,
        record: Option<&str>,
    ) -> bool {
        match record {
            Some(record) => {
                let taken = self.consents.import(now, room, session, record);
                match self.consents.get(room, session) {
                    Some(record) if record.has_left() => {}
                    Some(record) if record.is_inside() => self.departures.is_back(room, session),
                    Some(_) => self.departures.postpone(now, room, session),
                    None => {}
                }
                taken
            }
            None => {
                if self.consents.remove(room, session) {
                    self.lapse(room, session, None);
                }
                true
            }
        }
    }

    /// Sessions that a set-up or an envelope lets in and of which there is no record here: on a
    /// cluster another node may have one, which is then to be imported first.
    pub fn unknown_sessions(&self, from: &str, element: &Element<Incoming>) -> Vec<String> {
        element
            .children
            .iter()
            .filter(|child| child.name == "enter")
            .filter_map(|child| child.attr("jid"))
            .filter(|jid| jid::is_session(jid) && self.consents.get(from, jid).is_none())
            .map(str::to_owned)
            .collect()
    }

    /// A set-up IQ with a `<link/>`, from the bare JID of a room.
    pub fn setup(&mut self, now: Millis, from: &str, element: &Element<Incoming>) -> Actions {
        let mut out = Vec::new();
        if let Err(refusal) = self.set_up(now, from, element, &mut out) {
            self.shared.counters.add(refusal.counter, 1);
            let Refusal { condition, dmuc, .. } = refusal;
            out.push(Action::SetupError { condition, dmuc });
        }
        self.give(out)
    }

    fn set_up(
        &mut self,
        now: Millis,
        from: &str,
        element: &Element<Incoming>,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let offer = LinkOffer::read(element).ok_or(MALFORMED)?;
        let config = &self.shared.config;
        if !jid::is_room(from) {
            return Err(MALFORMED);
        }
        if self.closed {
            return Err(LIMIT);
        }
        let known = self.links.contains_key(from);
        let domain = jid::domain(from);
        let of_domain = self.per_domain.get(domain).copied().unwrap_or(0);
        if !known
            && (self.links.len() as u64 >= config.max_links()
                || of_domain as u64 >= config.max_links_per_domain())
        {
            return Err(LIMIT);
        }
        if u64::from(offer.size) > config.max_audience()
            || element.children.len() as u64 > config.max_audience()
        {
            return Err(LIMIT);
        }
        let mut link = Link {
            epoch: offer.epoch.clone(),
            audience: Audience::default(),
            index_of: HashMap::new(),
            lapsed: RoaringBitmap::new(),
            gone: HashMap::new(),
            refused: RoaringBitmap::new(),
            refusals: VecDeque::new(),
            untold: false,
            refusal_count: 0,
            barred: HashMap::new(),
            next_seq: 1,
            slots: Slots::default(),
            unreported: 0,
            report_due: None,
            size: offer.size,
            unconfirmed: BTreeSet::new(),
            heard: now,
            let_in: HashSet::new(),
            welcomed: HashSet::new(),
            hold: offer.hold,
            ping: offer.ping,
            asked: None,
            repeat: Some(now + silence::AGAIN),
            has_slots: false,
            branch: None,
            has_waited: false,
            since: now,
            copies: 0,
            stanzas: 2,
            _counted: Share::of_accepted(&self.shared),
        };
        for child in &element.children {
            match Op::read(child, 0) {
                Some(Op::Enter { index, jid, class })
                    if *jid::domain(&jid) == *self.domain
                        && !link.index_of.contains_key(&jid)
                        && link.audience.admit(index, jid.clone(), class) =>
                {
                    link.index_of.insert(jid, index);
                }
                _ => return Err(MALFORMED),
            }
        }
        let refused: RoaringBitmap = link
            .audience
            .jids()
            .filter(|(_, jid)| self.consents.get(from, jid).is_none())
            .map(|(index, _)| index)
            .collect();
        let room: Arc<str> = from.into();
        // Only who may have to be told in the end: set-ups may follow each other without end. Among
        // them who was in the room before it had a link with this domain, or before its server died.
        let former = self.former(from);
        let with_records = former.iter().filter(|s| self.consents.get(from, s).is_some());
        let inside = with_records.chain(self.consents.inside(from));
        link.unconfirmed =
            inside.filter(|session| !link.index_of.contains_key(*session)).cloned().collect();
        if !link.unconfirmed.is_empty() {
            log::debug!("{from}: not named yet: {:?}", link.unconfirmed);
        }
        self.departures.set_up(now, &room, &link.index_of, out);
        for session in refused.iter().filter_map(|index| link.audience.jid(index)) {
            self.departures.is_in(now, &room, session);
        }
        let mut accept = LinkAccept {
            epoch: offer.epoch,
            max_bytes: self.shared.config.max_envelope_bytes(),
            slots: 0,
            slot_bytes: self.shared.config.max_slot_bytes(),
            trees: Some(self.shared.config.tree_children()),
            refused: refused.clone(),
        };
        self.shared.counters.add(Counter::Withheld, refused.len());
        // Nothing is kept for a room in which nobody here asked to be.
        let is_all = link.unconfirmed.is_empty() || link.audience.bound() >= link.size;
        if is_all && refused.len() == link.audience.seats.all().len() {
            self.links.insert(room.clone(), link);
            *self.per_domain.entry(domain.into()).or_default() += usize::from(!known);
            self.confirm(now, &room, out);
            self.remove(&room);
            out.push(Action::LinkOver { room });
            self.shared.counters.add(Counter::NoConsent, 1);
            out.push(Action::Result { body: accept.write() });
            return Ok(());
        }
        for index in &refused {
            link.audience.seats.leave(index);
        }
        link.refused = refused;
        self.shared.counters.add(Counter::LinksAccepted, 1);
        log::info!(
            "{from}: link for {} is up: {} sessions",
            self.domain,
            link.audience.seats.all().len()
        );
        self.alarm.by(link.next_silence());
        if !known {
            *self.per_domain.entry(domain.into()).or_default() += 1;
        }
        self.herald.knows(domain);
        if self.slot_bytes < self.shared.config.max_slot_bytes_total() {
            accept.slots = self.shared.config.max_slots();
        }
        link.has_slots = accept.slots > 0;
        self.links.insert(room.clone(), link);
        self.confirm(now, &room, out);
        out.push(Action::Result { body: accept.write() });
        Ok(())
    }

    /// Ends what there was of a link with this room: whom it served.
    fn former(&mut self, room: &str) -> Vec<Arc<str>> {
        let Some(old) = self.links.remove(room) else { return Vec::new() };
        self.slot_bytes -= old.slots.bytes();
        let seats = old.audience.seats.all();
        let seated = seats.iter().filter_map(|index| old.audience.jid(index).cloned());
        seated.chain(old.unconfirmed).chain(old.welcomed).collect()
    }

    /// Once all occupants of the new epoch are known: whoever was in the old one, is not in the
    /// new one and has not asked anew is told that he is out.
    fn confirm(&mut self, now: Millis, room: &Arc<str>, out: &mut Vec<Action>) {
        let Some(link) = self.links.get_mut(room) else { return };
        if link.unconfirmed.is_empty() || link.audience.bound() < link.size {
            return;
        }
        for session in std::mem::take(&mut link.unconfirmed) {
            self.expel(now, room, &session, out);
        }
    }

    /// An `<envelope/>` or a `<resume/>` in a message from the bare JID of a room to the own bare domain.
    pub fn envelope(
        &mut self,
        now: Millis,
        from: &str,
        id: &str,
        element: &Element<Incoming>,
    ) -> Actions {
        #[cfg(feature = "planted-faults")]
        crate::planted::envelope(from, ops::place(element, id));
        let mut out = Vec::new();
        let taken = match element.name.as_str() {
            "resume" => self.resume(now, from, element, &mut out),
            NEWEST => self.newest(now, from, element, &mut out),
            _ => self.take(now, from, id, element, &mut out),
        };
        if let Err(refusal) = taken {
            let room = Arc::from(from);
            self.departures.contact(now, &room, &mut out);
            log::debug!("{room}: envelope refused: {}", refusal.dmuc);
            self.refuse(&room, id.to_owned(), refusal, &mut out);
        }
        self.give(out)
    }

    /// Answers an envelope that is not taken.
    fn refuse(&self, room: &Arc<str>, id: String, refusal: Refusal, out: &mut Vec<Action>) {
        let Refusal { condition, dmuc, counter } = refusal;
        self.shared.counters.add(counter, 1);
        out.push(Action::Refuse { to: room.clone(), id, condition, dmuc });
    }

    fn take(
        &mut self,
        now: Millis,
        from: &str,
        id: &str,
        element: &Element<Incoming>,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let (epoch, seq) = ops::place(element, id).ok_or(MALFORMED)?;
        if self.closed {
            return Err(UNKNOWN_EPOCH);
        }
        let (room, _) = self.links.get_key_value(from).ok_or(UNKNOWN_EPOCH)?;
        let room = room.clone();
        let link = self.links.get_mut(&room).ok_or(UNKNOWN_EPOCH)?;
        #[cfg(feature = "planted-faults")]
        let (epoch, seq) = crate::planted::accepted((epoch, &link.epoch), (seq, link.next_seq));
        if link.epoch != epoch {
            return Err(UNKNOWN_EPOCH);
        }
        link.hear(now);
        link.let_in.clear();
        if link.branch.is_some() {
            return self.take_in_order(now, &room, (id, seq), element, out);
        }
        if seq < link.next_seq {
            self.shared.counters.add(Counter::Duplicates, 1);
            link.unreported += 1;
        } else if seq > link.next_seq {
            return Err(GAP);
        } else {
            self.carry_out(now, &room, element, seq, out)?;
        }
        self.schedule(now, &room, element.children.is_empty(), out);
        Ok(())
    }

    /// Carries out the next envelope, or what stands for one, if all of it is in order.
    fn carry_out(
        &mut self,
        now: Millis,
        room: &Arc<str>,
        element: &Element<Incoming>,
        seq: u64,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let link = self.links.get_mut(room).ok_or(UNKNOWN_EPOCH)?;
        let config = &self.shared.config;
        let most = usize::try_from(config.max_audience()).unwrap_or(usize::MAX);
        check(link, &self.domain, room, element, most, link.has_slots)?;
        let plan = Taking { link, total: &mut self.slot_bytes, shared: &self.shared, seq }.apply(
            &self.consents,
            room,
            element,
        );
        link.next_seq = seq + 1;
        link.unreported += 1;
        link.stanzas += 1;
        self.shared.counters.add(Counter::EnvelopesReceived, 1);
        self.deliver(now, room, element, plan.deliveries, seq, out);
        self.confirm(now, room, out);
        if plan.has_left {
            self.expect_answer(now, room);
        }
        for session in plan.strangers {
            self.departures.is_in(now, room, &session);
        }
        if plan.end {
            self.tell_down(room, "the room has ended it");
            self.take_leave(now, room, Says::default(), out);
            out.push(Action::LinkOver { room: room.clone() });
            return Ok(());
        }
        if let Some(link) = self.links.get(room) {
            let (room, epoch) = (room.clone(), link.epoch.clone());
            out.push(Action::Handled { room, epoch, seq });
        }
        if let Some(part) = plan.part {
            self.take_part(room, &part)?;
        }
        Ok(())
    }

    fn deliver(
        &mut self,
        now: Millis,
        room: &Arc<str>,
        element: &Element<Incoming>,
        deliveries: Vec<(What, RoaringBitmap)>,
        seq: u64,
        out: &mut Vec<Action>,
    ) {
        let mut ended: HashSet<Arc<str>> = HashSet::new();
        let link_waits =
            self.links.get(room).is_some_and(|link| link.branch.is_some() || link.has_waited);
        for (what, set) in deliveries {
            let Some(link) = self.links.get_mut(room) else { continue };
            if !ended.is_empty() {
                link.lapse_in(&set, &ended);
            }
            let unserved = &set & &link.lapsed;
            for index in unserved.iter() {
                link.refuse(seq, index, false);
                if let Some(session) = link.audience.jid(index) {
                    self.departures.is_in(now, room, session);
                }
            }
            let withheld = &set & &link.refused;
            self.shared.counters.add(Counter::Withheld, withheld.len());
            let to: Vec<Arc<str>> = (set - withheld)
                .iter()
                .filter_map(|index| link.audience.jid(index).cloned())
                .collect();
            if to.is_empty() {
                continue;
            }
            let op = match what {
                What::Carried(op) => op,
                What::Replayed(stanzas) => {
                    let copies = (stanzas.len() * to.len()) as u64;
                    self.shared.counters.add(Counter::CopiesDelivered, copies);
                    link.copies += copies;
                    out.push(Action::Replay { stanzas, to });
                    continue;
                }
            };
            let Some(payload) = &element.children[op].payload else { continue };
            self.shared.counters.add(Counter::CopiesDelivered, to.len() as u64);
            link.copies += to.len() as u64;
            if payload.facts.concerns_consent() {
                for session in &to {
                    self.answered(now, room, session, payload.facts);
                    match self.consents.incoming(session, &payload.from, payload.facts) {
                        Change::Closed => {
                            ended.insert(session.clone());
                        }
                        Change::Changed => self.may_have_left(now, room, session),
                        Change::None | Change::Full => continue,
                    }
                    out.push(Action::ConsentChanged {
                        room: room.clone(),
                        session: session.clone(),
                    });
                }
            }
            out.push(match (&payload.packed, link_waits) {
                // What has waited is not the host's any more.
                (Some(packed), true) => {
                    Action::Replay { stanzas: vec![packed.as_ref().into()], to }
                }
                _ => Action::Deliver { op, to },
            });
        }
        for session in ended {
            self.lapse(room, &session, None);
        }
        // Places left in this envelope were needed until here.
        if let Some(link) = self.links.get_mut(room) {
            for child in &element.children {
                if child.name == "leave"
                    && let Some(index) = child.attr("i").and_then(indexes::number)
                {
                    link.forget(index);
                }
            }
        }
    }

    /// Reports now or later.
    fn schedule(&mut self, now: Millis, room: &Arc<str>, at_once: bool, out: &mut Vec<Action>) {
        let config = &self.shared.config;
        let Some(link) = self.links.get_mut(room) else { return };
        if at_once || link.untold || link.unreported >= config.ack_every() {
            self.report(room, Says::default(), out);
        } else if link.report_due.is_none() {
            let due = now + config.ack_delay();
            link.report_due = Some(due);
            self.alarm.by(due);
        }
    }

    fn report(&mut self, room: &Arc<str>, says: Says, out: &mut Vec<Action>) -> Report {
        let Some(link) = self.links.get_mut(room) else { return Report::default() };
        link.unreported = 0;
        link.stanzas += 1;
        link.report_due = None;
        link.untold = false;
        let (refused, ack) = link.account();
        let dropped = link.slots.take_dropped();
        let Says { resume, ask, bye, missing } = says;
        let complaints = link.branch.as_mut().map(|branch| branch.complaints()).unwrap_or_default();
        let id = match ask {
            true => silence::question_id(&link.epoch),
            false => report_id(&mut self.rng),
        };
        let epoch = link.epoch.clone();
        let report = Report { epoch, ack, refused, dropped, resume, ask, bye, missing, complaints };
        out.push(Action::Report { to: room.clone(), id, body: report.write() });
        report
    }

    fn remove(&mut self, room: &str) {
        if self.links.contains_key(room) {
            self.former(room);
            self.uncount(room);
        }
    }

    fn uncount(&mut self, room: &str) {
        let domain = jid::domain(room);
        if let Some(count) = self.per_domain.get_mut(domain) {
            *count -= 1;
            if *count == 0 {
                self.per_domain.remove(domain);
            }
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Millis) -> Actions {
        self.alarm.ring();
        let mut out = Vec::new();
        let expiry = self.shared.config.consent_expiry();
        for (room, session, nick) in self.consents.expire(now, expiry) {
            self.lapse(&room, &session, Some(nick));
            out.push(Action::ConsentChanged { room, session });
        }
        if let Some(at) = self.consents.next_expiry(expiry) {
            self.alarm.by(at);
        }
        // Woken for one, it reports for all that are nearly due, and is not woken for each of thousands.
        let slack = self.shared.config.ack_delay() / 8;
        let due: Vec<Arc<str>> = self
            .links
            .iter()
            .filter(|(_, link)| link.report_due.is_some_and(|due| due <= now + slack))
            .map(|(room, _)| room.clone())
            .collect();
        for room in due {
            self.report(&room, Says::default(), &mut out);
        }
        self.ask_for_missing(now, &mut out);
        self.listen(now, &mut out);
        let idle = expiry;
        let deserted: Vec<Arc<str>> = self
            .links
            .iter()
            .filter(|(_, link)| link.is_deserted() && now.since(link.heard) >= idle)
            .map(|(room, _)| room.clone())
            .collect();
        for room in deserted {
            self.tell_down(&room, "nobody here is in the room");
            self.take_leave(now, &room, Says { bye: true, ..Says::default() }, &mut out);
        }
        for link in self.links.values() {
            self.alarm.by(link.next_silence());
            if let Some(due) = link.report_due {
                self.alarm.by(due);
            }
            if link.is_deserted() {
                self.alarm.by(link.heard + idle);
            }
        }
        self.departures.tick(now, &mut out);
        for room in self.herald.due(now) {
            if !self.per_domain.contains_key(jid::domain(&room)) {
                out.push(Action::Announce { room });
            }
        }
        if self.announce_at.is_some_and(|at| at <= now) {
            self.announce_batch(now, &mut out);
        } else if let Some(at) = self.announce_at {
            self.alarm.by(at);
        }
        self.give(out)
    }

    /// The module has been loaded: tells the rooms in which sessions are that this domain speaks
    /// dmuc, some at once and the rest by and by. The records that it has been given so far may be out
    /// of date.
    pub fn announce(&mut self, now: Millis) -> Actions {
        self.consents.mistrust();
        let mut rooms: Vec<Arc<str>> = self.consents.rooms().into_iter().collect();
        rooms.sort();
        self.announcing = rooms.into();
        let mut out = Vec::new();
        self.announce_batch(now, &mut out);
        self.give(out)
    }

    fn announce_batch(&mut self, now: Millis, out: &mut Vec<Action>) {
        for _ in 0..ANNOUNCE_BATCH {
            let Some(room) = self.announcing.pop_front() else { break };
            if !self.links.contains_key(&room) && jid::is_room(&room) {
                self.herald.knows(jid::domain(&room));
                out.push(Action::Announce { room });
            }
        }
        self.announce_at = (!self.announcing.is_empty()).then(|| now + ANNOUNCE_PAUSE);
        if let Some(at) = self.announce_at {
            self.alarm.by(at);
        }
    }

    /// The module is unloaded: takes leave of every room, with the number of the last envelope
    /// handled. Later envelopes are refused. Consent records stay and can be read, but whoever waits to
    /// be told that he is out would never hear it from who is loaded next, and is told now.
    pub fn close(&mut self, now: Millis) -> Actions {
        self.closed = true;
        let mut out = Vec::new();
        let mut rooms: Vec<Arc<str>> = self.links.keys().cloned().collect();
        rooms.sort();
        for room in rooms {
            self.tell_down(&room, "dmuc is unloaded here");
            self.report(&room, Says { bye: true, ..Says::default() }, &mut out);
            self.remove(&room);
        }
        self.resolve_doubts(now, true, &mut out);
        self.give(out)
    }

    /// One row for each link, by room.
    pub fn links(&self, now: Millis) -> Vec<LinkRow> {
        let mut all: Vec<LinkRow> =
            self.links.iter().map(|(room, link)| link.row(now, room)).collect();
        all.sort_by(|a, b| a.room.cmp(&b.room));
        all
    }

    /// All links.
    pub fn status(&self) -> Vec<LinkStatus> {
        let mut all: Vec<LinkStatus> = self
            .links
            .iter()
            .map(|(room, link)| LinkStatus {
                room: room.to_string(),
                epoch: link.epoch.clone(),
                occupants: link.audience.seats.all().len(),
                seq: link.next_seq - 1,
                slots: link.slots.len(),
                slot_bytes: link.slots.bytes(),
            })
            .collect();
        all.sort_by(|a, b| a.room.cmp(&b.room));
        all
    }

    fn give(&mut self, list: Vec<Action>) -> Actions {
        for at in [self.departures.next(), self.herald.next()].into_iter().flatten() {
            self.alarm.by(at);
        }
        Actions { list, relays: Vec::new(), wake: self.alarm.take() }
    }
}
