//! One event of a room that has trees: what most replicas get alike goes by the room stream, to the
//! room's children only, and everything else in envelopes (`docs/protocol.md`, section 8.1).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::Room;
use super::compose::{Composer, Ready};
use super::domain::{Domain, State};
use super::limb::{SharedStream, lock};
use super::link::{Delivery, Link, Sent, Traffic};
use super::setup::CONTROL_BYTES;
use super::trees::{Grown, Trees, member};
use crate::audience::Scope;
use crate::grouping::Group;
use crate::tree::wire::write_cast;
use crate::tree::{Carried, Node, Spread};
use crate::{Action, Class, Counter, Millis, Payload, Shared};

const SCOPES: [Scope; 3] = [Scope::All, Scope::Class(Class::Anonymous), Scope::Class(Class::Full)];

/// One domain while an event goes out. It gets a [`Composer`] when there is something to write.
struct Desk<'a> {
    name: &'a Arc<str>,
    idle: Option<&'a mut Link>,
    composer: Option<Composer<'a>>,
    /// What has come after something too large for its link.
    late: Vec<(Payload, Vec<usize>)>,
    is_over: bool,
    is_touched: bool,
}

impl<'a> Desk<'a> {
    fn new(domain: &'a mut Domain) -> Option<Self> {
        let Domain { name, state: State::Linked(link), .. } = domain else { return None };
        let (composer, late) = (None, Vec::new());
        Some(Desk { name, idle: Some(link), composer, late, is_over: false, is_touched: false })
    }

    fn composer(&mut self, shared: &'a Shared, now: Millis) -> Option<&mut Composer<'a>> {
        self.is_touched = true;
        if let Some(link) = self.idle.take() {
            self.composer = Some(Composer::new(link, self.name, shared, now));
        }
        self.composer.as_mut()
    }

    fn link(&mut self) -> Option<&mut Link> {
        match (&mut self.composer, &mut self.idle) {
            (Some(composer), _) => Some(composer.link()),
            (None, idle) => idle.as_deref_mut(),
        }
    }

    /// Whether it gets casts of a class of this stream.
    fn takes(&mut self, stream: &SharedStream, class: Class) -> bool {
        let is_over = self.is_over;
        let limb = self.link().and_then(|link| link.limb.as_ref());
        !is_over && limb.is_some_and(|limb| limb.is_in(stream) && limb.takes(class))
    }
}

/// Who is shown a presence of whom in an event: any variant, and one that tells the JID. The recipient's own
/// presence counts for both.
type Shown = HashMap<(Arc<str>, bool), [HashSet<usize>; 2]>;

/// What an event shows to domains beside what their links carry.
struct Sights {
    presences: Shown,
    /// What waits for those whose links are held, by its id.
    queued: HashSet<(usize, u64)>,
}

impl Sights {
    /// Whether a domain is shown all that this payload shows.
    fn has(&self, domain: usize, payload: &Payload) -> bool {
        let facts = payload.facts();
        let key = (payload.nick().clone(), facts.is_unavailable());
        let shown = self.presences.get(&key).filter(|_| facts.is_presence());
        shown.is_some_and(|shown| shown[usize::from(facts.tells_jid())].contains(&domain))
            || self.queued.contains(&(domain, payload.id()))
    }
}

/// How a group goes out by the stream.
struct Choice {
    class: Class,
    only: Option<Class>,
    /// Those who get the cast and have it in the same scope.
    alike: BTreeSet<usize>,
    /// Those who get something in its place.
    unlike: BTreeSet<usize>,
    /// Those of them who are not to see it.
    blind: BTreeSet<usize>,
    /// Relays that may pass it on to somebody who is not to see it.
    wary: BTreeSet<usize>,
}

impl Choice {
    /// Whether a domain passes the cast on to its children.
    fn is_relay(&self, domain: usize) -> bool {
        let takes = self.alike.contains(&domain) || self.unlike.contains(&domain);
        takes && !self.blind.contains(&domain) && !self.wary.contains(&domain)
    }
}

impl Room {
    /// Sends groups of copies while the room has trees.
    pub(super) fn spread(
        &mut self,
        now: Millis,
        payloads: &[Option<Payload>],
        groups: Vec<Group>,
        out: &mut Vec<Action>,
    ) {
        let Some(Trees { grown: Some(grown), queued, .. }) = self.trees.as_deref() else { return };
        self.numbers.start_event(groups.len());
        let sights = sights(payloads, &groups, queued, |number| self.sessions.get(number).domain);
        let shared: &Shared = &self.shared;
        let mut desks: Vec<Option<Desk<'_>>> = self.domains.iter_mut().map(Desk::new).collect();
        for desk in desks.iter_mut().flatten() {
            // Some may have been refused since.
            let is_turning = desk.link().is_some_and(|link| link.is_turning());
            if is_turning && let Some(composer) = desk.composer(shared, now) {
                composer.turn();
            }
        }
        let mut gone = Vec::new();
        let mut casts = Vec::new();
        for (nth, group) in groups.into_iter().enumerate() {
            let Some(payload) = &payloads[group.payload as usize] else { continue };
            let mut parts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            let mut is_passing = false;
            for number in group.to {
                let session = self.sessions.get(number);
                is_passing |= session.passing;
                if payload.facts().is_own_end() || session.passing {
                    gone.push(number);
                }
                parts.entry(session.domain).or_default().push(number);
            }
            let mut ready: BTreeMap<usize, Ready> = BTreeMap::new();
            for (domain, members) in &parts {
                let Some(desk) = &mut desks[*domain] else { continue };
                if desk.is_over {
                    desk.late.push((payload.clone(), members.clone()));
                    continue;
                }
                let Some(composer) = desk.composer(shared, now) else { continue };
                match composer.prepare(payload, members, &mut self.sessions) {
                    Some(part) => {
                        composer.turn();
                        ready.insert(*domain, part);
                    }
                    None => {
                        composer.end();
                        composer.flush();
                        desk.is_over = true;
                        desk.late.push((payload.clone(), members.clone()));
                    }
                }
            }
            let choice = match is_passing {
                true => None,
                false => choose(payload, grown, &mut desks, &ready, &sights),
            };
            if let Some(choice) = &choice {
                for domain in &choice.alike {
                    let composer = desks[*domain].as_mut().and_then(|d| d.composer.as_mut());
                    if let Some(composer) = composer {
                        composer.flush();
                    }
                }
            }
            for (domain, part) in &ready {
                let is_alike = choice.as_ref().is_some_and(|c| c.alike.contains(domain));
                let composer = desks[*domain].as_mut().and_then(|desk| desk.composer.as_mut());
                if let Some(composer) = composer.filter(|_| !is_alike) {
                    composer.deliver(payload, nth, part, &self.numbers);
                    composer.depart(payload, &parts[domain], &self.sessions);
                }
            }
            if let Some(choice) = choice {
                for domain in &choice.unlike {
                    let desk = desks[*domain].as_mut();
                    if let Some(composer) = desk.and_then(|desk| desk.composer(shared, now)) {
                        composer.cover(choice.class);
                    }
                }
                let event = Casting { room: &self.jid, now, shared, grown };
                event.cast(payload, &choice, &ready, &mut desks, &mut casts);
            }
        }
        let mut over = Vec::new();
        let mut touched = Vec::new();
        for (number, desk) in desks.into_iter().enumerate() {
            let Some(desk) = desk else { continue };
            if desk.is_touched {
                touched.push(number);
            }
            if let Some(composer) = desk.composer {
                out.extend(composer.finish());
            }
            if desk.is_over {
                over.push((number, desk.late));
            }
        }
        out.append(&mut casts);
        for (number, late) in over {
            self.too_large(now, number, late);
        }
        for number in touched {
            self.watch(number);
        }
        for number in gone {
            self.forget(number);
        }
    }

    /// A link has ended before something too large; that waits, and what came after it.
    fn too_large(&mut self, now: Millis, number: usize, late: Vec<(Payload, Vec<usize>)>) {
        self.shared.counters.add(Counter::Oversize, 1);
        let domain = &mut self.domains[number];
        let State::Linked(link) = &domain.state else { return };
        let until = now + link.terms.ack_timeout;
        self.alarm.by(until);
        domain.finish(&self.jid, until, "a stanza was too large for an envelope");
        let State::Held(hold) = &mut domain.state else { return };
        for (payload, members) in late {
            for number in members {
                hold.push(&self.sessions.get(number).jid, &payload);
            }
        }
    }
}

fn sights(
    payloads: &[Option<Payload>],
    groups: &[Group],
    queued: &[(usize, Payload)],
    domain: impl Fn(usize) -> usize,
) -> Sights {
    let mut presences = Shown::new();
    let mut note = |payload: &Payload, domain: usize| {
        let facts = payload.facts();
        if facts.is_presence() && !facts.is_error() {
            let key = (payload.nick().clone(), facts.is_unavailable());
            let [any, told] = presences.entry(key).or_default();
            any.insert(domain);
            if facts.tells_jid() || facts.is_own() {
                told.insert(domain);
            }
        }
    };
    for group in groups {
        let Some(payload) = &payloads[group.payload as usize] else { continue };
        group.to.iter().for_each(|number| note(payload, domain(*number)));
    }
    queued.iter().for_each(|(domain, payload)| note(payload, *domain));
    let queued = queued.iter().map(|(domain, payload)| (*domain, payload.id())).collect();
    Sights { presences, queued }
}

/// Whether a group goes by the stream: what most who take the class get alike. Nobody is shown anything
/// that he is not shown by this room's own stanzas to him.
fn choose(
    payload: &Payload,
    grown: &Grown,
    desks: &mut [Option<Desk<'_>>],
    ready: &BTreeMap<usize, Ready>,
    sights: &Sights,
) -> Option<Choice> {
    payload.canonical()?;
    let facts = payload.facts();
    if !facts.is_groupchat() && !facts.is_others_presence() {
        return None;
    }
    let class = if facts.tells_jid() { Class::Full } else { Class::Anonymous };
    let may_see = |domain: usize| ready.contains_key(&domain) || sights.has(domain, payload);
    let nobody = RoaringBitmap::new();
    let mut takers = Vec::new();
    let mut blind = BTreeSet::new();
    let mut alike: [HashSet<usize>; SCOPES.len()] = Default::default();
    for (domain, desk) in desks.iter_mut().enumerate() {
        let Some(desk) = desk.as_mut() else { continue };
        if !desk.takes(&grown.stream, class) {
            continue;
        }
        let link = desk.link()?;
        if !Composer::fits(link, payload) {
            return None;
        }
        takers.push(domain);
        if !may_see(domain) {
            blind.insert(domain);
            continue;
        }
        let set = ready.get(&domain).map_or(&nobody, |part| &part.set);
        for (scope, alike) in SCOPES.into_iter().zip(&mut alike) {
            if *set == *link.audience.seats.scope(scope) {
                alike.insert(domain);
            }
        }
    }
    let most = (0..SCOPES.len()).rev().max_by_key(|scope| alike[*scope].len())?;
    if takers.len() < 2 || 2 * alike[most].len() <= takers.len() {
        return None;
    }
    let only = match SCOPES[most] {
        Scope::All => None,
        Scope::Class(class) => Some(class),
    };
    let (alike, unlike) = takers.into_iter().partition(|domain| alike[most].contains(domain));
    let wary = grown.reach.wary(class, may_see);
    Some(Choice { class, only, alike, unlike, blind, wary })
}

/// What a cast of the stream needs to know of the event that it is part of.
struct Casting<'e> {
    room: &'e str,
    now: Millis,
    shared: &'e Shared,
    grown: &'e Grown,
}

impl Casting<'_> {
    /// Casts a group, of which all that comes before it has been written.
    fn cast(
        &self,
        payload: &Payload,
        choice: &Choice,
        ready: &BTreeMap<usize, Ready>,
        desks: &mut [Option<Desk<'_>>],
        out: &mut Vec<Action>,
    ) {
        let Some(digest) = payload.canonical() else { return };
        let size = payload.bytes().len();
        let (spread, number) = {
            let mut stream = lock(&self.grown.stream);
            let spread = stream.cast(choice.class, choice.only, digest, payload.clone(), size);
            (spread, stream.newest().get(choice.class))
        };
        self.shared.counters.add(Counter::TreeCasts, 1);
        let (carried, mut own) = match spread {
            Spread::Tree(carried) => (Some(carried), HashMap::new()),
            Spread::Each(each) => (None, each.into_iter().collect::<HashMap<Node, _>>()),
        };
        let write = |carried: &Carried<Payload>| Arc::new(write_cast(self.room, carried));
        let signed = carried.as_ref().map(write);
        let parents = &self.grown.parents[choice.class as usize];
        let alike = choice.alike.iter().map(|domain| (domain, true));
        let unlike = choice.unlike.iter().map(|domain| (domain, false));
        for (domain, is_alike) in alike.chain(unlike) {
            let Some(desk) = &mut desks[*domain] else { continue };
            desk.is_touched = true;
            let name = desk.name.clone();
            let Some(link) = desk.link() else { continue };
            let Some(node) = link.limb.as_ref().map(|limb| limb.node) else { continue };
            let is_relay = choice.is_relay(*domain);
            let body = match (&carried, &signed, own.remove(&node)) {
                (_, Some(signed), _) if is_relay => signed.clone(),
                (Some(carried), ..) => write(&lock(&self.grown.stream).direct(node, carried)),
                (None, _, Some(carried)) => write(&carried),
                (None, _, None) => continue,
            };
            let parent = parents.place(member(*domain)).and_then(|(parent, _)| parent);
            let parent = parent.map(|parent| parent.0 as usize);
            let is_fed = signed.is_some() && parent.is_some_and(|parent| choice.is_relay(parent));
            // Whoever does not deliver it gets it only to pass it on.
            let is_sent = !is_fed && (is_alike || signed.is_some() && is_relay);
            if signed.is_some() && is_sent && parent.is_some() {
                self.shared.counters.add(Counter::TreeDetours, 1);
            }
            let bytes = (size + body.markup_len()) as u64 + CONTROL_BYTES;
            let cost = (u64::from(is_sent), if is_sent { bytes } else { 0 });
            link.traffic.cost(cost.0, cost.1);
            self.shared.counters.cost(cost.0, cost.1);
            let mut id = link.question_id();
            if is_alike {
                let to = ready.get(domain).map(|part| part.set.clone()).unwrap_or_default();
                let deliveries = match to.is_empty() {
                    true => Vec::new(),
                    false => vec![Delivery { payloads: vec![payload.clone()], to }],
                };
                let copies = deliveries.iter().map(Delivery::copies).sum();
                let copied_bytes = deliveries.iter().map(Delivery::bytes).sum();
                self.shared.counters.add(Counter::CopiesCarried, copies);
                self.shared.counters.add(Counter::CarriedBytes, copied_bytes);
                link.traffic += Traffic { copies, copied_bytes, ..Traffic::default() };
                let seq = link.next_seq;
                id = link.id(seq);
                link.push(Sent {
                    seq,
                    at: self.now,
                    deliveries,
                    departed: Vec::new(),
                    copies,
                    bytes,
                    fate: None,
                    body: body.clone(),
                    expected: false,
                    cast: Some((choice.class, number)),
                });
            }
            if is_sent {
                out.push(Action::Envelope { to: name, id, body });
            }
        }
    }
}
