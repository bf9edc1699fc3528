//! Erlang terms of what crosses the boundary.
//!
//! A JID comes in as a binary, as ejabberd's `{User, Server, Resource}` or as its `#jid{}`, and always goes
//! out as the second. XML is fast_xml's `{xmlel, Name, Attrs, Children}`.

use std::str::from_utf8;
use std::sync::Arc;

use dmuc_core::{Action, Actions, Element, Facts, Incoming, NS, Payload};
use rustler::types::tuple::{get_tuple, make_tuple};
use rustler::{Binary, Encoder, Env, Error, ListIterator, NewBinary, NifResult, Term};

pub(crate) mod atoms {
    rustler::atoms! {
        ok, error, warning, info, debug, undefined, none, xmlel, raw,
        yes, no, unknown, query, wait,
        pass, hold, hold_all, pass_poll, all, refused,
        plain, envelope, setup, ask_support, support_seen, forget_support, fail,
        deliver, replay, report, refuse, result, setup_error, evict, depart, link_over, handled, relay, consent_changed, announce,
        text, number, counter, gauge, document,
    }
}

/// Elements of the dmuc vocabulary nest no deeper than this; what is deeper is left out, and the
/// core finds the element malformed if it needed it.
const DEPTH: usize = 3;

/// A binary that is UTF-8, borrowed.
pub(crate) fn text<'a>(term: Term<'a>) -> NifResult<&'a str> {
    let binary: Binary<'a> = term.decode()?;
    from_utf8(binary.as_slice()).map_err(|_| Error::BadArg)
}

/// Appends a JID to `buffer`.
pub(crate) fn push_jid(term: Term<'_>, buffer: &mut String) -> NifResult<()> {
    if term.is_binary() {
        buffer.push_str(text(term)?);
        return Ok(());
    }
    let parts = get_tuple(term)?;
    let (user, server, resource) = match parts[..] {
        [user, server, resource] => (user, server, resource),
        // The prepared parts of a `#jid{}` are its last.
        [_, _, _, _, user, server, resource] => (user, server, resource),
        _ => return Err(Error::BadArg),
    };
    let (user, server, resource) = (text(user)?, text(server)?, text(resource)?);
    if !user.is_empty() {
        buffer.push_str(user);
        buffer.push('@');
    }
    buffer.push_str(server);
    if !resource.is_empty() {
        buffer.push('/');
        buffer.push_str(resource);
    }
    Ok(())
}

/// A JID of its own.
pub(crate) fn jid(term: Term<'_>) -> NifResult<String> {
    let mut buffer = String::with_capacity(96);
    push_jid(term, &mut buffer)?;
    Ok(buffer)
}

/// Many JIDs in one buffer.
#[derive(Default)]
pub(crate) struct Jids {
    buffer: String,
    ends: Vec<usize>,
}

impl Jids {
    pub fn push(&mut self, term: Term<'_>) -> NifResult<()> {
        push_jid(term, &mut self.buffer)?;
        self.ends.push(self.buffer.len());
        Ok(())
    }

    pub fn from_list(term: Term<'_>) -> NifResult<Self> {
        let mut jids = Jids::default();
        for item in term.decode::<ListIterator>()? {
            jids.push(item)?;
        }
        Ok(jids)
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.buffer[start..*end])
    }
}

impl<'a> FromIterator<&'a str> for Jids {
    fn from_iter<I: IntoIterator<Item = &'a str>>(list: I) -> Self {
        let mut jids = Jids::default();
        for jid in list {
            jids.buffer.push_str(jid);
            jids.ends.push(jids.buffer.len());
        }
        jids
    }
}

/// `{User, Server, Resource}`.
pub(crate) fn ljid<'a>(env: Env<'a>, jid: &str) -> Term<'a> {
    let (bare, resource) = jid.split_once('/').unwrap_or((jid, ""));
    let (user, server) = bare.split_once('@').unwrap_or(("", bare));
    (user, server, resource).encode(env)
}

fn ljids<'a, S: AsRef<str>>(env: Env<'a>, jids: &[S]) -> Term<'a> {
    jids.iter().map(|jid| ljid(env, jid.as_ref())).collect::<Vec<_>>().encode(env)
}

fn bytes<'a>(env: Env<'a>, bytes: &[u8]) -> Term<'a> {
    let mut binary = NewBinary::new(env, bytes.len());
    binary.as_mut_slice().copy_from_slice(bytes);
    binary.into()
}

/// Many stanzas in one binary, each after its length in four bytes: one allocation for a long list.
fn joined<'a>(env: Env<'a>, stanzas: &[Arc<[u8]>]) -> Term<'a> {
    let len = stanzas.iter().map(|stanza| 4 + stanza.len()).sum();
    let mut binary = NewBinary::new(env, len);
    let mut rest = binary.as_mut_slice();
    for stanza in stanzas {
        let (head, tail) = rest.split_at_mut(4);
        // A stanza is a part of an envelope, which has an upper limit.
        head.copy_from_slice(&(stanza.len() as u32).to_be_bytes());
        let (body, tail) = tail.split_at_mut(stanza.len());
        body.copy_from_slice(stanza);
        rest = tail;
    }
    binary.into()
}

/// Reads an element of the dmuc vocabulary. `payloads` says of each child in turn what stanza
/// it carries: `{Facts, From, HasTo, Packed}`, where `Packed` is a binary or `none`, or `none`.
pub(crate) fn element_in(term: Term<'_>, payloads: Term<'_>) -> NifResult<Element<Incoming>> {
    let mut element = read(term, 0)?;
    for (child, payload) in element.children.iter_mut().zip(payloads.decode::<ListIterator>()?) {
        carry(child, payload)?;
    }
    Ok(element)
}

/// The same for an element that carries one stanza itself.
pub(crate) fn carrier_in(term: Term<'_>, payload: Term<'_>) -> NifResult<Element<Incoming>> {
    let mut element = read(term, DEPTH)?;
    carry(&mut element, payload)?;
    Ok(element)
}

fn carry(element: &mut Element<Incoming>, payload: Term<'_>) -> NifResult<()> {
    if payload.is_tuple() {
        let (facts, from, has_to, packed): (u32, &str, bool, Term) = payload.decode()?;
        let packed = packed.decode::<Binary>().ok().map(|packed| packed.as_slice().into());
        let (facts, from) = (Facts(facts), from.to_owned());
        element.children.clear();
        element.payload = Some(Incoming { facts, from, has_to, packed });
    }
    Ok(())
}

fn read(term: Term<'_>, depth: usize) -> NifResult<Element<Incoming>> {
    let parts = get_tuple(term)?;
    let [_, name, attrs, children] = parts[..] else { return Err(Error::BadArg) };
    let mut element = Element::new(text(name)?);
    for attr in attrs.decode::<ListIterator>()? {
        let (name, value): (Term, Term) = attr.decode()?;
        let name = text(name)?;
        if name != "xmlns" {
            element.attrs.push((name.to_owned(), text(value)?.to_owned()));
        }
    }
    if depth < DEPTH {
        for child in children.decode::<ListIterator>()? {
            // Character data is a pair.
            if get_tuple(child)?.len() == 4 {
                element.children.push(read(child, depth + 1)?);
            }
        }
    }
    Ok(element)
}

/// Where a payload of an answer can be had without parsing it.
pub(crate) struct Reuse<'a, 'r> {
    /// Terms that came in with this call.
    pub terms: &'r [Term<'a>],
    /// Which of them a payload is.
    pub token: &'r dyn Fn(&Payload) -> Option<u32>,
}

impl<'a> Reuse<'a, '_> {
    fn token(&self, payload: &Payload) -> Option<usize> {
        (self.token)(payload).map(|token| token as usize).filter(|token| *token < self.terms.len())
    }

    /// The `xmlel` itself, or `{raw, Bytes}`.
    fn child(&self, env: Env<'a>, payload: &Payload) -> Term<'a> {
        match self.token(payload) {
            Some(token) => self.terms[token],
            None => (atoms::raw(), bytes(env, payload.bytes())).encode(env),
        }
    }

    /// The place among the terms of the call, or `{raw, Bytes}`.
    fn reference(&self, env: Env<'a>, payload: &Payload) -> Term<'a> {
        match self.token(payload) {
            Some(token) => token.encode(env),
            None => (atoms::raw(), bytes(env, payload.bytes())).encode(env),
        }
    }
}

fn element_out<'a>(
    env: Env<'a>,
    element: &Element<Payload>,
    top: bool,
    reuse: &Reuse<'a, '_>,
) -> Term<'a> {
    let xmlns = top.then(|| ("xmlns", NS).encode(env));
    let attrs = element.attrs.iter().map(|(name, value)| (name, value).encode(env));
    let attrs: Vec<Term> = xmlns.into_iter().chain(attrs).collect();
    let children: Vec<Term> = match &element.payload {
        Some(payload) => vec![reuse.child(env, payload)],
        None => element.children.iter().map(|c| element_out(env, c, false, reuse)).collect(),
    };
    make_tuple(
        env,
        &[
            atoms::xmlel().encode(env),
            element.name.encode(env),
            attrs.encode(env),
            children.encode(env),
        ],
    )
}

/// `{Wake | undefined, [Action]}`.
pub(crate) fn actions_out<'a>(env: Env<'a>, actions: &Actions, reuse: &Reuse<'a, '_>) -> Term<'a> {
    let relay = (!actions.relays.is_empty()).then(|| relay_out(env, &actions.relays));
    let list = actions.list.iter().map(|a| action_out(env, a, reuse));
    let list: Vec<Term> = relay.into_iter().chain(list).collect();
    match actions.wake {
        Some(wake) => (wake.0, list).encode(env),
        None => (atoms::undefined(), list).encode(env),
    }
}

/// Actions of a call that brought no payloads.
pub(crate) fn actions<'a>(env: Env<'a>, actions: &Actions) -> Term<'a> {
    actions_out(env, actions, &Reuse { terms: &[], token: &|_| None })
}

/// `{relay, [Domain]}`: the element of this call is to be passed on.
fn relay_out<'a>(env: Env<'a>, domains: &[Arc<str>]) -> Term<'a> {
    let domains: Vec<&str> = domains.iter().map(|domain| &**domain).collect();
    (atoms::relay(), domains).encode(env)
}

fn action_out<'a>(env: Env<'a>, action: &Action, reuse: &Reuse<'a, '_>) -> Term<'a> {
    let xml = |body| element_out(env, body, true, reuse);
    match action {
        Action::Plain { payload, to } => {
            (atoms::plain(), reuse.reference(env, payload), ljids(env, to)).encode(env)
        }
        Action::Envelope { to, id, body } => (atoms::envelope(), &**to, id, xml(body)).encode(env),
        Action::Setup { to, id, body } => (atoms::setup(), &**to, id, xml(body)).encode(env),
        Action::AskSupport { domain } => (atoms::ask_support(), &**domain).encode(env),
        Action::SupportSeen { domain } => (atoms::support_seen(), &**domain).encode(env),
        Action::ForgetSupport { domain } => (atoms::forget_support(), &**domain).encode(env),
        Action::Fail { to } => (atoms::fail(), ljids(env, to)).encode(env),
        Action::Deliver { op, to } => (atoms::deliver(), *op, ljids(env, to)).encode(env),
        Action::Replay { stanzas, to } => {
            (atoms::replay(), joined(env, stanzas), ljids(env, to)).encode(env)
        }
        Action::Report { to, id, body } => {
            (atoms::report(), ljid(env, to), id, xml(body)).encode(env)
        }
        Action::Refuse { to, id, condition, dmuc } => {
            (atoms::refuse(), ljid(env, to), id, *condition, *dmuc).encode(env)
        }
        Action::Result { body } => (atoms::result(), xml(body)).encode(env),
        Action::SetupError { condition, dmuc } => {
            (atoms::setup_error(), *condition, *dmuc).encode(env)
        }
        Action::Evict { room, nick, session } => {
            (atoms::evict(), ljid(env, room), nick, ljid(env, session)).encode(env)
        }
        Action::Depart { room, nick, session } => {
            (atoms::depart(), ljid(env, room), nick, ljid(env, session)).encode(env)
        }
        Action::LinkOver { room } => (atoms::link_over(), &**room).encode(env),
        Action::Handled { room, epoch, seq } => {
            (atoms::handled(), &**room, epoch, *seq).encode(env)
        }
        Action::ConsentChanged { room, session } => {
            (atoms::consent_changed(), &**room, &**session).encode(env)
        }
        Action::Announce { room } => (atoms::announce(), ljid(env, room)).encode(env),
    }
}
