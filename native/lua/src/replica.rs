//! `Replica`, the user domain's side.

use dmuc_core::{Actions, Bounce, Replica};
use mlua::prelude::*;

use crate::SharedHandle;
use crate::decode::{self, facts, millis};
use crate::encode;
use crate::handle::Handle;
use crate::view;

pub struct ReplicaHandle(Handle<Replica>);

/// `is_question_id(id)`: whether an error with this id may be about a report that asks.
pub fn is_question_id(_: &Lua, id: LuaString) -> LuaResult<bool> {
    Ok(dmuc_core::is_question_id(&id.to_str()?))
}

/// `replica(domain, seed, shared)`
pub fn replica(
    _: &Lua,
    (domain, seed, shared): (String, u64, LuaUserDataRef<SharedHandle>),
) -> LuaResult<ReplicaHandle> {
    Ok(ReplicaHandle(Handle::new(Replica::new(&domain, seed, shared.0.clone()))))
}

impl ReplicaHandle {
    /// Calls the core and encodes the actions.
    fn act(&mut self, lua: &Lua, f: impl FnOnce(&mut Replica) -> Actions) -> LuaResult<LuaTable> {
        let actions = self.0.call(f)?;
        // A replica sends no stanza of its own, so no payload can be one of this call.
        encode::actions(lua, &|_| None, &actions)
    }
}

impl LuaUserData for ReplicaHandle {
    fn add_methods<M: LuaUserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("alive", |_, this, ()| Ok(this.0.alive()));
        methods.add_method_mut(
            "outgoing",
            |_, this, (now, session, to, bits): (u64, LuaString, LuaString, u32)| {
                let (session, to) = (session.to_str()?, to.to_str()?);
                this.0.call(|replica| replica.outgoing(millis(now), &session, &to, facts(bits)))
            },
        );
        methods.add_method_mut(
            "incoming",
            |_, this, (now, session, from, bits): (u64, LuaString, LuaString, u32)| {
                let (session, from) = (session.to_str()?, from.to_str()?);
                this.0.call(|replica| replica.incoming(millis(now), &session, &from, facts(bits)))
            },
        );
        methods.add_method_mut("session_closed", |_, this, (now, session): (u64, LuaString)| {
            let session = session.to_str()?;
            this.0.call(|replica| replica.session_closed(millis(now), &session))?;
            Ok(())
        });
        // A list of { room, session, opaque }.
        methods.add_method_mut("consents", |lua, this, ()| {
            let consents = this.0.call(|replica| replica.consents())?;
            let list = lua.create_table_with_capacity(consents.len(), 0)?;
            for (room, session, opaque) in consents {
                list.raw_push(lua.create_sequence_from([&*room, &*session, &*opaque])?)?;
            }
            Ok(list)
        });
        methods.add_method_mut(
            "import_consent",
            |_, this, (now, room, session, opaque): (u64, String, String, Option<String>)| {
                this.0.call(|replica| {
                    replica.import_consent(millis(now), &room, &session, opaque.as_deref())
                })?;
                Ok(())
            },
        );
        methods.add_method_mut("setup", |lua, this, (now, from, link): (u64, String, LuaTable)| {
            let link = decode::element(&link, None)?;
            this.act(lua, |replica| replica.setup(millis(now), &from, &link))
        });
        // An error upon a report that asks, over a server stream from the room's domain.
        methods.add_method_mut("returned", |lua, this, (now, from, id): (u64, String, String)| {
            this.act(lua, |replica| replica.returned(millis(now), &from, &id, Bounce::Refused))
        });
        // envelope(now, from, id, element, payloads): see decode::element.
        methods.add_method_mut(
            "envelope",
            |lua,
             this,
             (now, from, id, envelope, payloads): (u64, String, String, LuaTable, LuaTable)| {
                let envelope = decode::element(&envelope, Some(&payloads))?;
                this.act(lua, |replica| replica.envelope(millis(now), &from, &id, &envelope))
            },
        );
        // cast(now, from, relayed, described, xml): `xml` is its stanza as it came. Among the actions is
        // `relays`, the domains to which all of `relayed` is to be passed on.
        methods.add_method_mut(
            "cast",
            |lua,
             this,
             (now, from, relayed, described, xml): (
                u64,
                String,
                LuaTable,
                Option<LuaTable>,
                LuaString,
            )| {
                let relayed = decode::carrier(&relayed, described.as_ref())?;
                this.act(lua, |replica| replica.cast(millis(now), &from, &relayed, &xml.as_bytes()))
            },
        );
        methods.add_method_mut("tick", |lua, this, now: u64| {
            this.act(lua, |replica| replica.tick(millis(now)))
        });
        methods.add_method_mut("announce", |lua, this, now: u64| {
            this.act(lua, |replica| replica.announce(millis(now)))
        });
        methods.add_method_mut("close", |lua, this, now: u64| {
            this.act(lua, |replica| replica.close(millis(now)))
        });
        methods.add_method_mut("links", |lua, this, now: u64| {
            view::rows(lua, this.0.call(|replica| replica.links(millis(now)))?)
        });
    }
}
