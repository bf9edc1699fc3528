//! The cache of answers to the disco#info question.

use dmuc_core::{Answer, Millis, Support};
use parking_lot::Mutex;
use rustler::{Atom, Encoder, Env, NifResult, Resource, ResourceArc, Term};

use crate::SharedHandle;
use crate::terms::{atoms, jid};

pub(crate) struct SupportHandle(Mutex<Support>);

#[rustler::resource_impl]
impl Resource for SupportHandle {}

impl std::panic::RefUnwindSafe for SupportHandle {}

type Handle = ResourceArc<SupportHandle>;

#[rustler::nif]
fn support_new(seed: u64, shared: ResourceArc<SharedHandle>) -> Handle {
    ResourceArc::new(SupportHandle(Mutex::new(Support::new(seed, shared.0.clone()))))
}

#[rustler::nif]
fn support_ask(support: Handle, now: u64, domain: &str, room: Term) -> NifResult<Atom> {
    Ok(match support.0.lock().ask(Millis(now), domain, &jid(room)?) {
        Answer::Yes => atoms::yes(),
        Answer::No => atoms::no(),
        Answer::Query => atoms::query(),
        Answer::Wait => atoms::wait(),
    })
}

/// `Yes` is a boolean, or `unknown` after an error or a time-out; gives the rooms that wait.
#[rustler::nif]
fn support_answered(support: Handle, now: u64, domain: &str, yes: Term) -> Vec<String> {
    support.0.lock().answered(Millis(now), domain, yes.decode().ok())
}

/// A domain to be asked now, or `undefined`.
#[rustler::nif]
fn support_next_question<'a>(env: Env<'a>, support: Handle) -> Term<'a> {
    match support.0.lock().next_question() {
        Some(domain) => domain.encode(env),
        None => atoms::undefined().encode(env),
    }
}

#[rustler::nif]
fn support_announced(support: Handle, now: u64, domain: &str) -> Atom {
    support.0.lock().announced(Millis(now), domain);
    atoms::ok()
}

#[rustler::nif]
fn support_forget(support: Handle, domain: &str) -> Atom {
    support.0.lock().forget(domain);
    atoms::ok()
}

/// `{Yes, RemainingMs}` or `undefined`.
#[rustler::nif]
fn support_export<'a>(env: Env<'a>, support: Handle, now: u64, domain: &str) -> Term<'a> {
    match support.0.lock().export(Millis(now), domain) {
        Some(answer) => answer.encode(env),
        None => atoms::undefined().encode(env),
    }
}

#[rustler::nif]
fn support_import(support: Handle, now: u64, domain: &str, yes: bool, remaining: u64) -> Atom {
    support.0.lock().import(Millis(now), domain, yes, remaining);
    atoms::ok()
}
