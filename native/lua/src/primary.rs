//! `Room` and `Support`, the primary's side.

use dmuc_core::{Actions, Answer, Bounce, PayloadIn, Room, Support, Verdict};
use mlua::prelude::*;

use crate::SharedHandle;
use crate::crowd::{Crowd, recipients};
use crate::decode::{self, facts, millis};
use crate::encode;
use crate::handle::Handle;
use crate::inspect;
use crate::view;

/// `is_envelope_id(id)`: whether an error with this id may be about an envelope.
pub fn is_envelope_id(_: &Lua, id: LuaString) -> LuaResult<bool> {
    Ok(dmuc_core::is_envelope_id(&id.to_str()?))
}

pub struct SupportHandle(Handle<Support>);

/// `support(seed, shared)`
pub fn support(
    _: &Lua,
    (seed, shared): (u64, LuaUserDataRef<SharedHandle>),
) -> LuaResult<SupportHandle> {
    Ok(SupportHandle(Handle::new(Support::new(seed, shared.0.clone()))))
}

impl LuaUserData for SupportHandle {
    fn add_methods<M: LuaUserDataMethods<Self>>(methods: &mut M) {
        methods.add_method_mut("ask", |_, this, (now, domain, room): (u64, String, String)| {
            Ok(match this.0.call(|support| support.ask(millis(now), &domain, &room))? {
                Answer::Yes => "yes",
                Answer::No => "no",
                Answer::Query => "query",
                Answer::Wait => "wait",
            })
        });
        methods.add_method_mut(
            "answered",
            |_, this, (now, domain, yes): (u64, String, Option<bool>)| {
                this.0.call(|support| support.answered(millis(now), &domain, yes))
            },
        );
        methods.add_method_mut("announced", |_, this, (now, domain): (u64, String)| {
            this.0.call(|support| support.announced(millis(now), &domain))?;
            Ok(())
        });
        methods.add_method_mut("next_question", |_, this, ()| this.0.call(Support::next_question));
        methods.add_method_mut("forget", |_, this, domain: String| {
            this.0.call(|support| support.forget(&domain))
        });
    }
}

/// Reads what is held, `{ bytes, facts, nicks, digests }`, each a sequence: see buffer.lib.lua. In `bytes`
/// the id that `capture` has told stands for the XML of a payload that the core has.
fn payloads(lua: &Lua, buffer: &LuaTable) -> LuaResult<Vec<PayloadIn>> {
    let all = |name| buffer.raw_get::<LuaTable>(name);
    let (bytes, bits, nicks, digests) =
        (all("bytes")?, all("facts")?, all("nicks")?, all("digests")?);
    let mut payloads = Vec::with_capacity(bytes.raw_len());
    for n in 1..=bytes.raw_len() {
        payloads.push(match bytes.raw_get(n)? {
            LuaValue::String(bytes) => PayloadIn::New {
                bytes: bytes.as_bytes().to_vec(),
                facts: facts(bits.raw_get(n)?),
                nick: nicks.raw_get(n)?,
                digest: inspect::number(&digests.raw_get(n)?)?,
            },
            id => PayloadIn::Known(u64::from_lua(id, lua)?),
        });
    }
    Ok(payloads)
}

/// Who is to get which payload, counted from zero, for those who are told to `f`: `{ to, position, crowds }`.
/// Where `to` has no JID, there is a crowd in its place.
fn with_copies<R>(
    lua: &Lua,
    buffer: &LuaTable,
    payloads: usize,
    f: impl FnOnce(&[(&str, u32)]) -> LuaResult<R>,
) -> LuaResult<R> {
    let (jids, places) = recipients(lua, buffer.raw_get("to")?)?;
    let positions: Vec<u32> = buffer.raw_get("position")?;
    let total = jids.iter().count() + places.len();
    if total != positions.len() || positions.iter().any(|n| *n == 0 || *n as usize > payloads) {
        return Err(LuaError::runtime("dmuc: a copy names no payload"));
    }
    let crowds: LuaTable = buffer.raw_get("crowds")?;
    let crowds: Vec<LuaUserDataRef<Crowd>> =
        places.iter().map(|place| crowds.raw_get(*place)).collect::<LuaResult<_>>()?;
    let (mut jids, mut crowds) = (jids.iter(), places.iter().zip(&crowds).peekable());
    let mut copies = Vec::with_capacity(total);
    for (n, position) in positions.iter().enumerate() {
        match crowds.next_if(|(place, _)| **place == n + 1) {
            Some((_, crowd)) => copies.extend(crowd.0.iter().map(|jid| (jid, position - 1))),
            None => copies.extend(jids.next().map(|jid| (jid, position - 1))),
        }
    }
    f(&copies)
}

pub struct RoomHandle(Handle<Room>);

/// `room(jid, seed, secret, shared)`; the secret is 32 random bytes.
pub fn room(
    _: &Lua,
    (jid, seed, secret, shared): (String, u64, LuaString, LuaUserDataRef<SharedHandle>),
) -> LuaResult<RoomHandle> {
    let secret = secret.as_bytes().as_ref().try_into();
    let secret = secret.map_err(|_| LuaError::runtime("dmuc: a secret has 32 bytes"))?;
    let mut room = Room::new(&jid, seed, shared.0.clone()).map_err(LuaError::external)?;
    room.grow(secret);
    Ok(RoomHandle(Handle::new(room)))
}

impl RoomHandle {
    /// Calls the core and encodes the actions. The arguments hold no payloads that could be named.
    fn act(&mut self, lua: &Lua, f: impl FnOnce(&mut Room) -> Actions) -> LuaResult<LuaTable> {
        let actions = self.0.call(f)?;
        encode::actions(lua, &|_| None, &actions)
    }
}

impl LuaUserData for RoomHandle {
    fn add_methods<M: LuaUserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("alive", |_, this, ()| Ok(this.0.alive()));
        // capture(now, to, facts, digest): 0: pass; 1: hold; 2: pass, and an event is due. With 1 comes the
        // id of an equal payload that the core has, if it has one.
        methods.add_method_mut(
            "capture",
            |_, this, (now, to, bits, digest): (u64, LuaString, u32, LuaString)| {
                let (to, facts) = (to.to_str()?, facts(bits));
                let digest = inspect::number(&digest)?;
                this.0.call(|room| match room.capture(millis(now), &to, facts) {
                    Verdict::Pass => (0, None),
                    Verdict::Hold => (1, room.recall(&to, digest)),
                    Verdict::PassPoll => (2, None),
                })
            },
        );
        // capture_crowd(now, crowd, facts): keeps in it those whose copies are held; a list of the others,
        // if there are any.
        methods.add_method_mut(
            "capture_crowd",
            |lua, this, (now, mut crowd, bits): (u64, LuaUserDataRefMut<Crowd>, u32)| {
                let to: Vec<&str> = crowd.0.iter().collect();
                let held = this.0.call(|room| room.capture_many(millis(now), &to, facts(bits)))?;
                if held.iter().all(|held| *held) {
                    return Ok(None);
                }
                let of = |wanted| {
                    let all = to.iter().zip(&held);
                    all.filter(move |(_, held)| **held == wanted).map(|(jid, _)| *jid)
                };
                let passed = lua.create_sequence_from(of(false))?;
                let kept = of(true).collect();
                crowd.0 = kept;
                Ok(Some(passed))
            },
        );
        // event(now, held): see `payloads` and `with_copies`.
        methods.add_method_mut("event", |lua, this, (now, buffer): (u64, LuaTable)| {
            let payloads = payloads(lua, &buffer)?;
            let actions = with_copies(lua, &buffer, payloads.len(), |copies| {
                this.0.call(|room| room.event(millis(now), payloads, copies))
            })?;
            let room = this.0.get()?;
            encode::actions(lua, &|payload| room.token_of(payload), &actions)
        });
        methods.add_method_mut(
            "support",
            |lua, this, (now, domain, yes): (u64, String, Option<bool>)| {
                this.act(lua, |room| room.support(millis(now), &domain, yes))
            },
        );
        methods.add_method_mut(
            "setup_result",
            |lua, this, (now, domain, id, answer): (u64, String, String, Option<LuaTable>)| {
                let answer = answer.map(|table| decode::element(&table, None)).transpose()?;
                this.act(lua, |room| room.setup_result(millis(now), &domain, &id, answer.as_ref()))
            },
        );
        // setup_refused(now, domain, id, conditions): it was answered with an error.
        methods.add_method_mut(
            "setup_refused",
            |lua, this, (now, domain, id, conditions): (u64, String, String, Vec<String>)| {
                let conditions: Vec<&str> = conditions.iter().map(String::as_str).collect();
                this.act(lua, |room| room.setup_refused(millis(now), &domain, &id, &conditions))
            },
        );
        methods.add_method_mut(
            "report",
            |lua, this, (now, domain, report): (u64, String, LuaTable)| {
                let report = decode::element(&report, None)?;
                this.act(lua, |room| room.report(millis(now), &domain, &report))
            },
        );
        methods.add_method_mut(
            "bounced",
            |lua, this, (now, domain, id, refused): (u64, String, String, bool)| {
                let bounce = if refused { Bounce::Refused } else { Bounce::Unknown };
                this.act(lua, |room| room.bounced(millis(now), &domain, &id, bounce))
            },
        );
        methods.add_method_mut("occupants", |lua, this, (now, jids): (u64, Vec<LuaString>)| {
            let jids = jids.iter().map(LuaString::to_str).collect::<LuaResult<Vec<_>>>()?;
            let jids: Vec<&str> = jids.iter().map(|jid| &**jid).collect();
            this.act(lua, |room| room.occupants(millis(now), &jids))
        });
        // May be called at any time; tick() carries it out.
        methods.add_method_mut("may_show_domains", |_, this, may_show: bool| {
            this.0.call(|room| room.may_show_domains(may_show))
        });
        methods.add_method_mut("tick", |lua, this, now: u64| {
            this.act(lua, |room| room.tick(millis(now)))
        });
        methods.add_method_mut("close", |lua, this, now: u64| {
            this.act(lua, |room| room.close(millis(now)))
        });
        methods.add_method_mut("links", |lua, this, now: u64| {
            view::rows(lua, this.0.call(|room| room.links(millis(now)))?)
        });
    }
}
