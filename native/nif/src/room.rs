//! The primary's side of a live room.

use dmuc_core::{Bounce, Facts, Millis, PayloadIn, Room, Verdict};
use parking_lot::Mutex;
use rustler::{
    Atom, Binary, Encoder, Env, Error, ListIterator, NifResult, Resource, ResourceArc, Term,
};

use crate::terms::{Jids, Reuse, actions, actions_out, atoms, element_in, jid, text};
use crate::{SharedHandle, digest};

pub(crate) struct RoomHandle(pub Mutex<Room>, Mutex<Jids>);

#[rustler::resource_impl]
impl Resource for RoomHandle {}

impl std::panic::RefUnwindSafe for RoomHandle {}

type Handle = ResourceArc<RoomHandle>;

/// `{ok, Room}` or `{error, Text}`. `Secret` is 32 random bytes.
#[rustler::nif]
fn room_new<'a>(
    env: Env<'a>,
    room: Term<'a>,
    seed: u64,
    secret: Binary<'a>,
    shared: ResourceArc<SharedHandle>,
) -> NifResult<Term<'a>> {
    let secret = secret.as_slice().try_into().map_err(|_| Error::BadArg)?;
    Ok(match Room::new(&jid(room)?, seed, shared.0.clone()) {
        Ok(mut room) => {
            room.grow(secret);
            let handle = RoomHandle(Mutex::new(room), Mutex::default());
            (atoms::ok(), ResourceArc::new(handle)).encode(env)
        }
        Err(reason) => (atoms::error(), reason.to_string()).encode(env),
    })
}

/// `pass`, `pass_poll`, or what to hold: `hold` if `Stanza`, which is without `to`, is `none`, else
/// `{hold, Digest, Id}`, with the id of an equal stanza that need not be encoded, or `undefined`.
/// `hold_all` in place of `hold` if everything for this domain is held until the room's next call of
/// another function.
#[rustler::nif]
fn room_capture<'a>(
    env: Env<'a>,
    room: Handle,
    now: u64,
    to: Term<'a>,
    facts: u32,
    stanza: Term<'a>,
) -> NifResult<Term<'a>> {
    let (to, facts) = (jid(to)?, Facts(facts));
    let mut room = room.0.lock();
    match room.capture(Millis(now), &to, facts) {
        Verdict::Pass => return Ok(atoms::pass().encode(env)),
        Verdict::PassPoll => return Ok(atoms::pass_poll().encode(env)),
        Verdict::Hold => {}
    }
    let hold = match room.holds_all(dmuc_core::jid::domain(&to)) {
        true => atoms::hold_all(),
        false => atoms::hold(),
    };
    if stanza.is_atom() {
        return Ok(hold.encode(env));
    }
    let name = digest::of(stanza);
    let known = room.recall(&to, name);
    let known = known.map_or_else(|| atoms::undefined().encode(env), |id| id.encode(env));
    Ok((hold, digest::out(env, name), known).encode(env))
}

/// Which copies of one stanza to hold: `all`, `none`, or a boolean for each recipient. Those to hold are
/// remembered for `room_event_captured`.
#[rustler::nif]
fn room_capture_many<'a>(
    env: Env<'a>,
    room: Handle,
    now: u64,
    to: Term<'a>,
    facts: u32,
) -> NifResult<Term<'a>> {
    let jids = Jids::from_list(to)?;
    let list: Vec<&str> = jids.iter().collect();
    let held = room.0.lock().capture_many(Millis(now), &list, Facts(facts));
    if held.iter().all(|held| !held) {
        return Ok(atoms::none().encode(env));
    }
    if held.iter().all(|held| *held) {
        *room.1.lock() = jids;
        return Ok(atoms::all().encode(env));
    }
    let chosen = list.iter().zip(&held).filter(|(_, held)| **held);
    *room.1.lock() = chosen.map(|(jid, _)| *jid).collect();
    Ok(held.encode(env))
}

/// `Payloads` is `[{Bytes, Facts, Nick, Digest, Xmlel} | {known, Id}]`, `Copies` is `[{Index, [Jid]}]` in the room's order.
#[rustler::nif]
fn room_event<'a>(
    env: Env<'a>,
    room: Handle,
    now: u64,
    payloads: Term<'a>,
    copies: Term<'a>,
) -> NifResult<Term<'a>> {
    event(env, &room, now, payloads, copies)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn room_event_dirty<'a>(
    env: Env<'a>,
    room: Handle,
    now: u64,
    payloads: Term<'a>,
    copies: Term<'a>,
) -> NifResult<Term<'a>> {
    event(env, &room, now, payloads, copies)
}

fn event<'a>(
    env: Env<'a>,
    room: &Handle,
    now: u64,
    payloads: Term<'a>,
    copies: Term<'a>,
) -> NifResult<Term<'a>> {
    let mut terms = Vec::new();
    let mut stanzas = Vec::new();
    for payload in payloads.decode::<ListIterator>()? {
        let (stanza, term) = payload_in(payload)?;
        stanzas.push(stanza);
        terms.push(term);
    }
    let mut jids = Jids::default();
    let mut indexes = Vec::new();
    for run in copies.decode::<ListIterator>()? {
        let (index, to): (u32, ListIterator) = run.decode()?;
        if index as usize >= terms.len() {
            return Err(Error::BadArg);
        }
        for jid in to {
            jids.push(jid)?;
            indexes.push(index);
        }
    }
    let copies: Vec<(&str, u32)> = jids.iter().zip(indexes).collect();
    Ok(run_event(env, room, now, stanzas, &terms, &copies))
}

/// The event that consists of one stanza to those whom `room_capture_many` has said to hold.
#[rustler::nif]
fn room_event_captured<'a>(
    env: Env<'a>,
    room: Handle,
    now: u64,
    payload: Term<'a>,
) -> NifResult<Term<'a>> {
    event_captured(env, &room, now, payload)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn room_event_captured_dirty<'a>(
    env: Env<'a>,
    room: Handle,
    now: u64,
    payload: Term<'a>,
) -> NifResult<Term<'a>> {
    event_captured(env, &room, now, payload)
}

fn event_captured<'a>(
    env: Env<'a>,
    room: &Handle,
    now: u64,
    payload: Term<'a>,
) -> NifResult<Term<'a>> {
    let (stanza, term) = payload_in(payload)?;
    let jids = std::mem::take(&mut *room.1.lock());
    let copies: Vec<(&str, u32)> = jids.iter().map(|jid| (jid, 0)).collect();
    Ok(run_event(env, room, now, vec![stanza], &[term], &copies))
}

fn run_event<'a>(
    env: Env<'a>,
    room: &Handle,
    now: u64,
    stanzas: Vec<PayloadIn>,
    terms: &[Term<'a>],
    copies: &[(&str, u32)],
) -> Term<'a> {
    let mut room = room.0.lock();
    let result = room.event(Millis(now), stanzas, copies);
    let token = |payload: &dmuc_core::Payload| room.token_of(payload);
    actions_out(env, &result, &Reuse { terms, token: &token })
}

/// A payload, and what it is in the host's XML.
fn payload_in<'a>(payload: Term<'a>) -> NifResult<(PayloadIn, Term<'a>)> {
    if let Ok((_, id)) = payload.decode::<(Atom, u64)>() {
        return Ok((PayloadIn::Known(id), payload));
    }
    let (bytes, facts, nick, name, xmlel): (Binary, u32, Term, Binary, Term) = payload.decode()?;
    let stanza = PayloadIn::New {
        bytes: bytes.as_slice().to_vec(),
        facts: Facts(facts),
        nick: text(nick)?.to_owned(),
        digest: digest::back(name)?,
    };
    Ok((stanza, xmlel))
}

/// `Yes` is a boolean, or another atom for no answer.
#[rustler::nif(schedule = "DirtyCpu")]
fn room_support<'a>(env: Env<'a>, room: Handle, now: u64, domain: &str, yes: Term<'a>) -> Term<'a> {
    actions(env, &room.0.lock().support(Millis(now), domain, yes.decode::<bool>().ok()))
}

/// `Body` is `{Xmlel, Payloads}`, `undefined`, or `{refused, [Condition]}` for an error.
#[rustler::nif(schedule = "DirtyCpu")]
fn room_setup_result<'a>(
    env: Env<'a>,
    room: Handle,
    now: u64,
    domain: &str,
    id: &str,
    body: Term<'a>,
) -> NifResult<Term<'a>> {
    if let Ok((tag, conditions)) = body.decode::<(Atom, Vec<&str>)>()
        && tag == atoms::refused()
    {
        let now = Millis(now);
        return Ok(actions(env, &room.0.lock().setup_refused(now, domain, id, &conditions)));
    }
    let body = match body.decode::<(Term, Term)>() {
        Ok((xmlel, payloads)) => Some(element_in(xmlel, payloads)?),
        Err(_) => None,
    };
    Ok(actions(env, &room.0.lock().setup_result(Millis(now), domain, id, body.as_ref())))
}

#[rustler::nif]
fn room_report<'a>(
    env: Env<'a>,
    room: Handle,
    now: u64,
    domain: &str,
    body: (Term<'a>, Term<'a>),
) -> NifResult<Term<'a>> {
    let body = element_in(body.0, body.1)?;
    Ok(actions(env, &room.0.lock().report(Millis(now), domain, &body)))
}

/// `Fate` is `refused` or `unknown`.
#[rustler::nif(schedule = "DirtyCpu")]
fn room_bounced<'a>(
    env: Env<'a>,
    room: Handle,
    now: u64,
    domain: &str,
    id: &str,
    fate: Atom,
) -> Term<'a> {
    let fate = if fate == atoms::refused() { Bounce::Refused } else { Bounce::Unknown };
    actions(env, &room.0.lock().bounced(Millis(now), domain, id, fate))
}

#[rustler::nif]
fn room_occupants_asked(room: Handle) -> Atom {
    room.0.lock().occupants_asked();
    atoms::ok()
}

#[rustler::nif(schedule = "DirtyCpu")]
fn room_occupants<'a>(env: Env<'a>, room: Handle, now: u64, jids: Term) -> NifResult<Term<'a>> {
    let jids = Jids::from_list(jids)?;
    let jids: Vec<&str> = jids.iter().collect();
    Ok(actions(env, &room.0.lock().occupants(Millis(now), &jids)))
}

/// A session that may not be an occupant has sent a presence without the `<x/>` of those who enter.
#[rustler::nif]
fn room_unasked<'a>(
    env: Env<'a>,
    room: Handle,
    now: u64,
    session: Term<'a>,
) -> NifResult<Term<'a>> {
    Ok(actions(env, &room.0.lock().unasked(Millis(now), &jid(session)?)))
}

/// What the owner has said; `room_tick` carries it out.
#[rustler::nif]
fn room_may_show_domains(room: Handle, may_show: bool) -> Atom {
    room.0.lock().may_show_domains(may_show);
    atoms::ok()
}

#[rustler::nif(schedule = "DirtyCpu")]
fn room_tick(env: Env<'_>, room: Handle, now: u64) -> Term<'_> {
    actions(env, &room.0.lock().tick(Millis(now)))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn room_close(env: Env<'_>, room: Handle, now: u64) -> Term<'_> {
    actions(env, &room.0.lock().close(Millis(now)))
}
