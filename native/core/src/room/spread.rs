//! One event of a room that has trees: what most replicas get alike goes by the room stream, to the
//! room's children only, and everything else in envelopes (`docs/protocol.md`, section 8.1).

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::Room;
use super::compose::{Composer, Ready};
use super::domain::{Domain, State};
use super::limb::lock;
use super::link::{Delivery, Link, Sent, Traffic};
use super::setup::CONTROL_BYTES;
use super::trees::{Grown, acknowledged};
use crate::audience::Scope;
use crate::grouping::Group;
use crate::tree::wire::write_cast;
use crate::tree::{Node, Spread};
use crate::{Action, Class, Counter, Element, Millis, Payload, Shared};

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
    had_full: bool,
}

impl<'a> Desk<'a> {
    fn new(domain: &'a mut Domain) -> Option<Self> {
        let Domain { name, state: State::Linked(link), .. } = domain else { return None };
        let had_full = takes_full(link);
        Some(Desk {
            name,
            idle: Some(link),
            composer: None,
            late: Vec::new(),
            is_over: false,
            is_touched: false,
            had_full,
        })
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

    fn peek(&self) -> Option<&Link> {
        match (&self.composer, &self.idle) {
            (Some(composer), _) => Some(composer.peek()),
            (None, idle) => idle.as_deref(),
        }
    }

    /// Whether it gets casts of a class.
    fn takes(&self, class: Class) -> bool {
        let limb = self.peek().and_then(|link| link.limb.as_ref());
        !self.is_over && limb.is_some_and(|limb| limb.takes(class))
    }
}

/// Whether a replica was told that it takes casts with real JIDs.
fn takes_full(link: &Link) -> bool {
    link.limb.as_ref().is_some_and(|limb| limb.has_full)
}

/// Those of a group who are of one domain: a range of the group, which is in the order of domains.
struct Part {
    domain: usize,
    members: Range<usize>,
    ready: Option<Ready>,
    is_alike: bool,
}

/// Who is shown a presence of whom in an event: any variant, and one that tells the JID. The recipient's own
/// presence counts for both.
type Shown = HashMap<(Arc<str>, bool), [HashSet<usize>; 2]>;

/// How a group goes out by the stream.
struct Choice {
    class: Class,
    only: Option<Class>,
    /// Those who get the cast and have it in the same scope, and their parts of the group.
    alike: Vec<(usize, Option<usize>)>,
    /// Those who get something in its place.
    unlike: Vec<usize>,
    /// By domain.
    places: Vec<Place>,
}

/// Where a domain is in the tree of a class.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    /// The room is its parent.
    Child,
    Below,
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
        let Some(grown) = self.trees.as_ref().and_then(|trees| trees.grown.as_ref()) else {
            return;
        };
        self.numbers.start_event(groups.len());
        let shown = shown(payloads, &groups, |number| self.sessions.get(number).domain);
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
            let mut is_passing = false;
            for number in &group.to {
                let session = self.sessions.get(*number);
                is_passing |= session.passing;
                if payload.facts().is_own_end() || session.passing {
                    gone.push(*number);
                }
            }
            let mut to = group.to;
            to.sort_by_cached_key(|number| self.sessions.get(*number).domain);
            let mut parts: Vec<Part> = Vec::new();
            for (at, number) in to.iter().enumerate() {
                let domain = self.sessions.get(*number).domain;
                match parts.last_mut() {
                    Some(part) if part.domain == domain => part.members.end = at + 1,
                    _ => {
                        let members = at..at + 1;
                        parts.push(Part { domain, members, ready: None, is_alike: false });
                    }
                }
            }
            for Part { domain, members, ready, .. } in &mut parts {
                let Some(desk) = &mut desks[*domain] else { continue };
                let members = &to[members.clone()];
                if desk.is_over {
                    desk.late.push((payload.clone(), members.to_vec()));
                    continue;
                }
                let Some(composer) = desk.composer(shared, now) else { continue };
                match composer.prepare(payload, members, &mut self.sessions) {
                    Some(part) => {
                        composer.turn();
                        *ready = Some(part);
                    }
                    None => {
                        composer.end();
                        composer.flush();
                        desk.is_over = true;
                        desk.late.push((payload.clone(), members.to_vec()));
                    }
                }
            }
            let choice = match is_passing {
                true => None,
                false => choose(payload, grown, &desks, &parts, &shown),
            };
            if let Some(choice) = &choice {
                for (domain, part) in &choice.alike {
                    let composer = desks[*domain].as_mut().and_then(|d| d.composer.as_mut());
                    if let Some(composer) = composer {
                        composer.flush();
                    }
                    if let Some(part) = part {
                        parts[*part].is_alike = true;
                    }
                }
            }
            for Part { domain, members, ready, .. } in parts.iter().filter(|part| !part.is_alike) {
                let composer = desks[*domain].as_mut().and_then(|desk| desk.composer.as_mut());
                if let (Some(composer), Some(ready)) = (composer, ready) {
                    composer.deliver(payload, nth, ready, &self.numbers);
                    composer.depart(payload, &to[members.clone()], &self.sessions);
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
                event.cast(payload, &choice, &mut parts, &mut desks, &mut casts);
            }
        }
        let mut over = Vec::new();
        let mut touched = Vec::new();
        for (number, desk) in desks.into_iter().enumerate() {
            let Some(desk) = desk else { continue };
            if desk.is_touched {
                touched.push((number, desk.had_full));
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
        for (number, had_full) in touched {
            self.watch(number);
            if self.domains[number].link().is_some_and(|link| takes_full(link) != had_full) {
                self.stir(number);
            }
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
        self.stir(number);
    }
}

fn shown(payloads: &[Option<Payload>], groups: &[Group], domain: impl Fn(usize) -> usize) -> Shown {
    let mut shown = Shown::new();
    for group in groups {
        let Some(payload) = &payloads[group.payload as usize] else { continue };
        let facts = payload.facts();
        if facts.is_presence() && !facts.is_error() {
            let key = (payload.nick().clone(), facts.is_unavailable());
            let [any, told] = shown.entry(key).or_default();
            for number in &group.to {
                any.insert(domain(*number));
                if facts.tells_jid() || facts.is_own() {
                    told.insert(domain(*number));
                }
            }
        }
    }
    shown
}

/// Whether a group goes by the stream: only what no domain would be shown otherwise than by this room's
/// own stanzas to it, and what most who take the class get alike.
fn choose(
    payload: &Payload,
    grown: &Grown,
    desks: &[Option<Desk<'_>>],
    parts: &[Part],
    shown: &Shown,
) -> Option<Choice> {
    payload.canonical()?;
    let facts = payload.facts();
    if !facts.is_groupchat() && !facts.is_others_presence() {
        return None;
    }
    let class = if facts.tells_jid() { Class::Full } else { Class::Anonymous };
    let key = (payload.nick().clone(), facts.is_unavailable());
    let shown = shown.get(&key).filter(|_| facts.is_presence());
    let shown = shown.map(|shown| &shown[usize::from(facts.tells_jid())]);
    let sees = |domain: &usize| shown.is_some_and(|shown| shown.contains(domain));
    let link = |domain: usize| desks[domain].as_ref().and_then(Desk::peek).map(acknowledged);
    if !grown.is_tight(class, link) {
        return None;
    }
    let mut places = vec![Place::Outside; desks.len()];
    for (node, parent) in grown.parents[class as usize].places() {
        let place = if parent.is_none() { Place::Child } else { Place::Below };
        *places.get_mut(node.0 as usize)? = place;
    }
    let nobody = RoaringBitmap::new();
    // With the scopes that it has the group in.
    let mut takers: Vec<(usize, Option<usize>, [bool; SCOPES.len()])> = Vec::new();
    let mut alike = [0; SCOPES.len()];
    let mut ready = parts.iter().enumerate().filter(|(_, part)| part.ready.is_some()).peekable();
    for (domain, desk) in desks.iter().enumerate() {
        let part = ready.next_if(|(_, part)| part.domain == domain);
        let Some(desk) = desk.as_ref().filter(|desk| desk.takes(class)) else {
            // Somebody would pass it on there.
            if places[domain] != Place::Outside {
                return None;
            }
            continue;
        };
        // It sees nothing on the way that it is not sent anyway.
        if part.is_none() && !sees(&domain) {
            return None;
        }
        let link = desk.peek()?;
        if !Composer::fits(link, payload) {
            return None;
        }
        let set = part.and_then(|(_, part)| part.ready.as_ref()).map_or(&nobody, |part| &part.set);
        let scopes = SCOPES.map(|scope| *set == *link.audience.seats.scope(scope));
        for (number, is_alike) in alike.iter_mut().zip(scopes) {
            *number += usize::from(is_alike);
        }
        takers.push((domain, part.map(|(at, _)| at), scopes));
    }
    let most = (0..SCOPES.len()).rev().max_by_key(|scope| alike[*scope])?;
    if takers.len() < 2 || 2 * alike[most] <= takers.len() {
        return None;
    }
    let only = match SCOPES[most] {
        Scope::All => None,
        Scope::Class(class) => Some(class),
    };
    let mut choice = Choice { class, only, alike: Vec::new(), unlike: Vec::new(), places };
    for (domain, part, scopes) in takers {
        match scopes[most] {
            true => choice.alike.push((domain, part)),
            false => choice.unlike.push(domain),
        }
    }
    Some(choice)
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
        parts: &mut [Part],
        desks: &mut [Option<Desk<'_>>],
        out: &mut Vec<Action>,
    ) {
        let Some(digest) = payload.canonical() else { return };
        let size = payload.bytes().len();
        let (spread, number) = {
            let mut stream = lock(&self.grown.stream);
            stream.is_direct = self.grown.direct_until.is_some_and(|until| self.now < until);
            let spread = stream.cast(choice.class, choice.only, digest, payload.clone(), size);
            (spread, stream.newest().get(choice.class))
        };
        self.shared.counters.add(Counter::TreeCasts, 1);
        let (shared_body, mut own) = match spread {
            Spread::Tree(carried) => {
                (Some(Arc::new(write_cast(self.room, &carried))), HashMap::new())
            }
            Spread::Each(each) => {
                let bodies = each
                    .into_iter()
                    .map(|(node, carried)| (node, Arc::new(write_cast(self.room, &carried))));
                (None, bodies.collect::<HashMap<Node, Arc<Element<Payload>>>>())
            }
        };
        let alike = choice.alike.iter().map(|(domain, part)| (*domain, *part, true));
        let unlike = choice.unlike.iter().map(|domain| (*domain, None, false));
        let markup = shared_body.as_ref().map(|body| body.markup_len());
        let mut in_all = Traffic::default();
        for (domain, part, is_alike) in alike.chain(unlike) {
            let Some(desk) = &mut desks[domain] else { continue };
            desk.is_touched = true;
            let name = desk.name;
            let Some(link) = desk.link() else { continue };
            let Some(limb) = &link.limb else { continue };
            let body = match &shared_body {
                Some(body) => body.clone(),
                None => match own.remove(&limb.node) {
                    Some(body) => body,
                    None => continue,
                },
            };
            // Without a parent it is a child of the room's.
            let is_child = choice.places[domain] != Place::Below;
            let is_sent = if shared_body.is_some() { is_child } else { is_alike };
            let bytes = (size + markup.unwrap_or_else(|| body.markup_len())) as u64 + CONTROL_BYTES;
            let mut traffic = Traffic::default();
            if is_sent {
                traffic.cost(1, bytes);
                let id = if is_alike { link.id(link.next_seq) } else { link.question_id() };
                out.push(Action::Envelope { to: name.clone(), id, body: body.clone() });
            }
            if is_alike {
                let ready = part.and_then(|part| parts[part].ready.take());
                let to = ready.map(|ready| ready.set).unwrap_or_default();
                let deliveries = match to.is_empty() {
                    true => Vec::new(),
                    false => vec![Delivery { payloads: vec![payload.clone()], to }],
                };
                traffic.copies = deliveries.iter().map(Delivery::copies).sum();
                traffic.copied_bytes = deliveries.iter().map(Delivery::bytes).sum();
                link.push(Sent {
                    seq: link.next_seq,
                    at: self.now,
                    deliveries,
                    departed: Vec::new(),
                    copies: traffic.copies,
                    bytes,
                    fate: None,
                    body,
                    expected: false,
                    cast: Some((choice.class, number)),
                });
            }
            link.traffic += traffic;
            in_all += traffic;
        }
        self.shared.counters.cost(in_all.stanzas, in_all.bytes);
        self.shared.counters.add(Counter::CopiesCarried, in_all.copies);
        self.shared.counters.add(Counter::CarriedBytes, in_all.copied_bytes);
    }
}
