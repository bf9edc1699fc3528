//! The side of a user domain.

use dmuc_core::{Bounce, Facts, Millis, Replica};
use parking_lot::Mutex;
use rustler::{Atom, Binary, Encoder, Env, NifResult, Resource, ResourceArc, Term};

use crate::SharedHandle;
use crate::terms::{actions, atoms, carrier_in, element_in, jid};

pub(crate) struct ReplicaHandle(pub Mutex<Replica>);

#[rustler::resource_impl]
impl Resource for ReplicaHandle {}

impl std::panic::RefUnwindSafe for ReplicaHandle {}

type Handle = ResourceArc<ReplicaHandle>;

#[rustler::nif]
fn replica_new(domain: &str, seed: u64, shared: ResourceArc<SharedHandle>) -> Handle {
    ResourceArc::new(ReplicaHandle(Mutex::new(Replica::new(domain, seed, shared.0.clone()))))
}

/// Whether the consent record changed.
#[rustler::nif]
fn replica_outgoing(
    replica: Handle,
    now: u64,
    session: Term,
    to: Term,
    facts: u32,
) -> NifResult<bool> {
    let (session, to) = (jid(session)?, jid(to)?);
    Ok(replica.0.lock().outgoing(Millis(now), &session, &to, Facts(facts)))
}

/// Whether the consent record changed.
#[rustler::nif]
fn replica_incoming(
    replica: Handle,
    now: u64,
    session: Term,
    from: Term,
    facts: u32,
) -> NifResult<bool> {
    let (session, from) = (jid(session)?, jid(from)?);
    Ok(replica.0.lock().incoming(Millis(now), &session, &from, Facts(facts)))
}

/// The rooms whose records went with the session.
#[rustler::nif]
fn replica_session_closed(replica: Handle, now: u64, session: Term) -> NifResult<Vec<String>> {
    let session = jid(session)?;
    let rooms = replica.0.lock().session_closed(Millis(now), &session);
    Ok(rooms.iter().map(|room| room.to_string()).collect())
}

/// What is to be done about the end of a session whose node was lost.
#[rustler::nif]
fn replica_session_lost<'a>(
    env: Env<'a>,
    replica: Handle,
    now: u64,
    room: Term<'a>,
    session: Term<'a>,
) -> NifResult<Term<'a>> {
    let (room, session) = (jid(room)?, jid(session)?);
    Ok(actions(env, &replica.0.lock().session_lost(Millis(now), &room, &session)))
}

/// The opaque record, or `undefined`.
#[rustler::nif]
fn replica_consent<'a>(
    env: Env<'a>,
    replica: Handle,
    room: Term<'a>,
    session: Term<'a>,
) -> NifResult<Term<'a>> {
    let (room, session) = (jid(room)?, jid(session)?);
    Ok(match replica.0.lock().consent(&room, &session) {
        Some(record) => record.encode(env),
        None => atoms::undefined().encode(env),
    })
}

/// `undefined` deletes the record.
#[rustler::nif]
fn replica_import_consent(
    replica: Handle,
    now: u64,
    room: Term,
    session: Term,
    record: Term,
) -> NifResult<Atom> {
    let (room, session) = (jid(room)?, jid(session)?);
    let record = if record.is_atom() { None } else { Some(crate::terms::text(record)?) };
    replica.0.lock().import_consent(Millis(now), &room, &session, record);
    Ok(atoms::ok())
}

/// Sessions named by a set-up or envelope of which there is no record here.
#[rustler::nif]
fn replica_unknown_sessions(
    replica: Handle,
    room: Term,
    body: (Term, Term),
) -> NifResult<Vec<String>> {
    let (room, body) = (jid(room)?, element_in(body.0, body.1)?);
    Ok(replica.0.lock().unknown_sessions(&room, &body))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn replica_setup<'a>(
    env: Env<'a>,
    replica: Handle,
    now: u64,
    from: Term<'a>,
    body: (Term<'a>, Term<'a>),
) -> NifResult<Term<'a>> {
    let (from, body) = (jid(from)?, element_in(body.0, body.1)?);
    Ok(actions(env, &replica.0.lock().setup(Millis(now), &from, &body)))
}

/// An error upon a report that asks, over a server stream from the room's domain.
#[rustler::nif(schedule = "DirtyCpu")]
fn replica_returned<'a>(
    env: Env<'a>,
    replica: Handle,
    now: u64,
    from: Term<'a>,
    id: &str,
) -> NifResult<Term<'a>> {
    let from = jid(from)?;
    Ok(actions(env, &replica.0.lock().returned(Millis(now), &from, id, Bounce::Refused)))
}

/// `Body` is `{Xmlel, Payloads}`.
#[rustler::nif]
fn replica_envelope<'a>(
    env: Env<'a>,
    replica: Handle,
    now: u64,
    from: Term<'a>,
    id: &str,
    body: (Term<'a>, Term<'a>),
) -> NifResult<Term<'a>> {
    envelope(env, &replica, now, from, id, body)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn replica_envelope_dirty<'a>(
    env: Env<'a>,
    replica: Handle,
    now: u64,
    from: Term<'a>,
    id: &str,
    body: (Term<'a>, Term<'a>),
) -> NifResult<Term<'a>> {
    envelope(env, &replica, now, from, id, body)
}

fn envelope<'a>(
    env: Env<'a>,
    replica: &Handle,
    now: u64,
    from: Term<'a>,
    id: &str,
    body: (Term<'a>, Term<'a>),
) -> NifResult<Term<'a>> {
    let (from, body) = (jid(from)?, element_in(body.0, body.1)?);
    Ok(actions(env, &replica.0.lock().envelope(Millis(now), &from, id, &body)))
}

/// `Relayed` is `{Xmlel, Payload}`, and `Xml` the stanza in it as this server writes it.
#[rustler::nif]
fn replica_cast<'a>(
    env: Env<'a>,
    replica: Handle,
    now: u64,
    from: Term<'a>,
    relayed: (Term<'a>, Term<'a>),
    xml: Binary<'a>,
) -> NifResult<Term<'a>> {
    let (from, relayed) = (jid(from)?, carrier_in(relayed.0, relayed.1)?);
    Ok(actions(env, &replica.0.lock().cast(Millis(now), &from, &relayed, xml.as_slice())))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn replica_tick(env: Env<'_>, replica: Handle, now: u64) -> Term<'_> {
    actions(env, &replica.0.lock().tick(Millis(now)))
}

/// Announcements to the rooms in which local sessions are; later ticks give the rest.
#[rustler::nif(schedule = "DirtyCpu")]
fn replica_announce(env: Env<'_>, replica: Handle, now: u64) -> Term<'_> {
    actions(env, &replica.0.lock().announce(Millis(now)))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn replica_close(env: Env<'_>, replica: Handle, now: u64) -> Term<'_> {
    actions(env, &replica.0.lock().close(Millis(now)))
}
