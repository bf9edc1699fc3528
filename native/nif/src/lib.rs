//! dmuc-core as a NIF for ejabberd.
//!
//! Every function decodes its terms, calls the core once and encodes what comes back; nothing
//! is decided here. Handles are resources behind a lock, so that a call from the wrong process
//! waits instead of racing. A panic in the core reaches Erlang as the error `nif_panicked`;
//! the caller then drops the handle, which may hold half a change.
//!
//! Calls whose work grows with a room rather than with one of its events run on dirty
//! schedulers; `event` and `envelope` come in both kinds and the caller chooses by size.

mod digest;
mod logger;
mod replica;
mod room;
mod support;
mod terms;
mod view;

use std::sync::Arc;

use dmuc_core::{ABI, Config, Shared};
use rustler::{Encoder, Env, NifResult, Resource, ResourceArc, Term};

/// Options and counters of one virtual host.
pub(crate) struct SharedHandle(pub Arc<Shared>);

#[rustler::resource_impl]
impl Resource for SharedHandle {}

impl std::panic::RefUnwindSafe for SharedHandle {}

/// Version and ABI of this library, to be compared with the wrapper's own.
#[rustler::nif]
fn info() -> (&'static str, u32) {
    (env!("CARGO_PKG_VERSION"), ABI)
}

/// Namespace of everything dmuc puts on the wire.
#[rustler::nif]
fn namespace() -> &'static str {
    dmuc_core::NS
}

/// Every option as `{Name, Default, Min, Max, Doc}`.
#[rustler::nif]
fn options<'a>(env: Env<'a>) -> Term<'a> {
    let all: Vec<_> =
        Config::OPTIONS.iter().map(|o| (o.name, o.default, o.min, o.max, o.doc.trim())).collect();
    all.encode(env)
}

/// `{ok, Shared}` or `{error, Text}`.
#[rustler::nif]
fn shared_new<'a>(env: Env<'a>, pairs: Vec<(&str, u64)>) -> Term<'a> {
    match Config::from_pairs(&pairs) {
        Ok(config) => {
            (terms::atoms::ok(), ResourceArc::new(SharedHandle(Shared::new(config)))).encode(env)
        }
        Err(reason) => (terms::atoms::error(), reason.to_string()).encode(env),
    }
}

/// Other options for links that may be up: `ok` or `{error, Text}`, and then nothing has changed.
#[rustler::nif]
fn shared_set<'a>(
    env: Env<'a>,
    shared: ResourceArc<SharedHandle>,
    pairs: Vec<(&str, u64)>,
) -> Term<'a> {
    match Config::from_pairs(&pairs) {
        Ok(config) => {
            shared.0.config.set(&config);
            terms::atoms::ok().encode(env)
        }
        Err(reason) => (terms::atoms::error(), reason.to_string()).encode(env),
    }
}

/// Whether the owners of rooms are asked.
#[rustler::nif]
fn asks_owners(shared: ResourceArc<SharedHandle>) -> bool {
    shared.0.asks_owners()
}

/// `{Name, Label}` of the field by which they are.
#[rustler::nif]
fn owner_field() -> (&'static str, &'static str) {
    (dmuc_core::OWNER_FIELD, dmuc_core::OWNER_LABEL)
}

/// `[{Name, Value}]` of all counters.
#[rustler::nif]
fn counters(shared: ResourceArc<SharedHandle>) -> Vec<(&'static str, u64)> {
    shared.0.counters.snapshot()
}

/// Whether an id has the form of an envelope's.
#[rustler::nif]
fn is_envelope_id(id: &str) -> bool {
    dmuc_core::is_envelope_id(id)
}

/// Whether a stanza with this id may be a report that asks, or an error upon one.
#[rustler::nif]
fn is_question_id(id: &str) -> bool {
    dmuc_core::is_question_id(id)
}

/// Takes at most `most` waiting log records, and the number of records lost since the last call.
/// Those at debug are collected from here on if `debug`.
#[rustler::nif]
fn log_drain(most: usize, debug: bool) -> NifResult<(Vec<(rustler::Atom, String)>, u64)> {
    logger::level(debug);
    Ok(logger::drain(most))
}

fn load(_env: Env, _info: Term) -> bool {
    logger::install();
    true
}

rustler::init!("mod_dmuc_nif", load = load);
