//! One event of a room that has trees: what most replicas get alike goes by the room stream, to the
//! room's children only, and everything else in envelopes (`docs/protocol.md`, section 8.1).

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::Room;
use super::compose::{Composer, Ready};
use super::domain::{Domain, State};
use super::limb::{SharedStream, lock};
use super::link::{Delivery, Link, Sent, Stance, Traffic};
use super::setup::CONTROL_BYTES;
use super::trees::{Grown, Trees};
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
    /// What the link was like before something was written.
    before: Option<Stance>,
}

impl<'a> Desk<'a> {
    fn new(domain: &'a mut Domain) -> Option<Self> {
        let Domain { name, state: State::Linked(link), .. } = domain else { return None };
        Some(Desk {
            name,
            idle: Some(link),
            composer: None,
            late: Vec::new(),
            is_over: false,
            is_touched: false,
            before: None,
        })
    }

    fn composer(&mut self, shared: &'a Shared, now: Millis) -> Option<&mut Composer<'a>> {
        self.is_touched = true;
        if let Some(link) = self.idle.take() {
            self.before = Some(link.stance());
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

    /// Whether it gets casts of a class of this stream.
    fn takes(&self, stream: &SharedStream, class: Class) -> bool {
        let limb = self.peek().and_then(|link| link.limb.as_ref());
        !self.is_over && limb.is_some_and(|limb| limb.is_in(stream) && limb.takes(class))
    }
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

/// What an event shows to domains beside what their links carry.
struct Sights {
    presences: Shown,
    /// What waits for those whose links are held: domains by its id.
    queued: HashMap<u64, Vec<usize>>,
}

impl Sights {
    /// The domains that are shown all that this payload shows.
    fn of(&self, payload: &Payload) -> impl Iterator<Item = usize> {
        let facts = payload.facts();
        let key = (payload.nick().clone(), facts.is_unavailable());
        let shown = self.presences.get(&key).filter(|_| facts.is_presence());
        let shown = shown.map(|shown| &shown[usize::from(facts.tells_jid())]);
        let queued = self.queued.get(&payload.id());
        shown.into_iter().flatten().chain(queued.into_iter().flatten()).copied()
    }
}

/// How a group goes out by the stream.
struct Choice {
    class: Class,
    only: Option<Class>,
    /// Those who get the cast and have it in the same scope, and their parts of the group.
    alike: Vec<(usize, Option<usize>)>,
    /// Those who get something in its place.
    unlike: Vec<usize>,
    /// By domain: whether it passes the cast on to its children. It takes casts, and neither is it not to
    /// see this one, nor may it pass it on to somebody who is not to.
    relays: Vec<bool>,
    /// By domain: who passes casts on to it.
    parents: Vec<Option<usize>>,
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
                false => choose(payload, grown, &desks, &parts, &sights),
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
                touched.push((number, desk.before));
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
        for (number, before) in touched {
            self.watch(number);
            let link = self.domains[number].link();
            if before.is_some_and(|before| link.is_none_or(|link| link.stance() != before)) {
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
    let mut of = HashMap::<u64, Vec<usize>>::new();
    for (domain, payload) in queued {
        of.entry(payload.id()).or_default().push(*domain);
    }
    Sights { presences, queued: of }
}

/// Whether a group goes by the stream: what most who take the class get alike. Nobody is shown anything
/// that he is not shown by this room's own stanzas to him.
fn choose(
    payload: &Payload,
    grown: &Grown,
    desks: &[Option<Desk<'_>>],
    parts: &[Part],
    sights: &Sights,
) -> Option<Choice> {
    payload.canonical()?;
    let facts = payload.facts();
    if !facts.is_groupchat() && !facts.is_others_presence() {
        return None;
    }
    let class = if facts.tells_jid() { Class::Full } else { Class::Anonymous };
    let mut ready = parts.iter().enumerate().filter(|(_, part)| part.ready.is_some()).peekable();
    let mut may_see = vec![false; desks.len()];
    let prepared = parts.iter().filter(|part| part.ready.is_some()).map(|part| part.domain);
    for domain in prepared.chain(sights.of(payload)) {
        may_see[domain] = true;
    }
    let nobody = RoaringBitmap::new();
    // With the scopes that it has the group in.
    let mut takers: Vec<(usize, Option<usize>, [bool; SCOPES.len()])> = Vec::new();
    let mut alike = [0; SCOPES.len()];
    for (domain, desk) in desks.iter().enumerate() {
        let part = ready.next_if(|(_, part)| part.domain == domain);
        let Some(desk) = desk.as_ref().filter(|desk| desk.takes(&grown.stream, class)) else {
            continue;
        };
        let link = desk.peek()?;
        if !Composer::fits(link, payload) {
            return None;
        }
        if !may_see[domain] {
            takers.push((domain, None, [false; SCOPES.len()]));
            continue;
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
    let mut parents = vec![None; desks.len()];
    for (node, parent) in grown.parents[class as usize].places() {
        *parents.get_mut(node.0 as usize)? = parent.map(|parent| parent.0 as usize);
    }
    let relays = vec![false; desks.len()];
    let mut choice = Choice { class, only, alike: Vec::new(), unlike: Vec::new(), relays, parents };
    for (domain, part, scopes) in takers {
        choice.relays[domain] = may_see[domain];
        match scopes[most] {
            true => choice.alike.push((domain, part)),
            false => choice.unlike.push(domain),
        }
    }
    for domain in grown.reach.wary(class, |domain| may_see[domain]) {
        choice.relays[domain] = false;
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
        let (carried, mut own) = match spread {
            Spread::Tree(carried) => (Some(carried), HashMap::new()),
            Spread::Each(each) => (None, each.into_iter().collect::<HashMap<Node, _>>()),
        };
        let write = |carried: &Carried<Payload>| Arc::new(write_cast(self.room, carried));
        let signed = carried.as_ref().map(|carried| {
            let body = write(carried);
            let markup = body.markup_len();
            (body, markup)
        });
        let alike = choice.alike.iter().map(|(domain, part)| (*domain, *part, true));
        let unlike = choice.unlike.iter().map(|domain| (*domain, None, false));
        let mut in_all = Traffic::default();
        for (domain, part, is_alike) in alike.chain(unlike) {
            let Some(desk) = &mut desks[domain] else { continue };
            desk.is_touched = true;
            let name = desk.name;
            let Some(link) = desk.link() else { continue };
            let Some(node) = link.limb.as_ref().map(|limb| limb.node) else { continue };
            let is_relay = choice.relays[domain];
            let (body, markup) = match (&carried, &signed) {
                (_, Some((body, markup))) if is_relay => (body.clone(), *markup),
                (carried, _) => {
                    let body = match carried {
                        Some(carried) => write(&lock(&self.grown.stream).direct(node, carried)),
                        None => match own.remove(&node) {
                            Some(carried) => write(&carried),
                            None => continue,
                        },
                    };
                    let markup = body.markup_len();
                    (body, markup)
                }
            };
            let parent = choice.parents[domain];
            let is_fed = signed.is_some() && parent.is_some_and(|parent| choice.relays[parent]);
            // Whoever does not deliver it gets it only to pass it on.
            let is_sent = !is_fed && (is_alike || signed.is_some() && is_relay);
            if signed.is_some() && is_sent && parent.is_some() {
                self.shared.counters.add(Counter::TreeDetours, 1);
            }
            let bytes = (size + markup) as u64 + CONTROL_BYTES;
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
