//! From the core's actions to Lua tables.
//!
//! An action is `{ name, field = value, … }`, with the names of [`Action`]; the list of a call is
//! a sequence with `wake` beside it. An element is `{ name, attr, children… }` as
//! `{ name = "cast", attr = { n = "1" }, [1] = child, … }`, or with `payload` in place of children:
//! a number is the position of a payload in the arguments of this very call, a string is XML.

use dmuc_core::{Action, Actions, Element, Payload};
use mlua::prelude::*;

/// Finds a payload among those of the call, counting from zero.
type Token<'a> = &'a dyn Fn(&Payload) -> Option<u32>;

fn payload(lua: &Lua, token: Token<'_>, payload: &Payload) -> LuaResult<LuaValue> {
    match token(payload) {
        Some(index) => (u64::from(index) + 1).into_lua(lua),
        None => Ok(LuaValue::String(lua.create_string(payload.bytes())?)),
    }
}

fn element(lua: &Lua, token: Token<'_>, from: &Element<Payload>) -> LuaResult<LuaTable> {
    let to = lua.create_table_with_capacity(from.children.len(), 3)?;
    to.raw_set("name", from.name.as_str())?;
    let attr = lua.create_table_with_capacity(0, from.attrs.len() + 1)?;
    for (name, value) in &from.attrs {
        attr.raw_set(name.as_str(), value.as_str())?;
    }
    to.raw_set("attr", attr)?;
    for child in &from.children {
        to.raw_push(element(lua, token, child)?)?;
    }
    if let Some(carried) = &from.payload {
        to.raw_set("payload", payload(lua, token, carried)?)?;
    }
    Ok(to)
}

fn jids(lua: &Lua, jids: &[std::sync::Arc<str>]) -> LuaResult<LuaTable> {
    lua.create_sequence_from(jids.iter().map(|jid| &**jid))
}

fn action(lua: &Lua, token: Token<'_>, from: &Action) -> LuaResult<LuaTable> {
    let to = lua.create_table()?;
    let name = match from {
        Action::Plain { payload: carried, to: recipients } => {
            to.raw_set("payload", payload(lua, token, carried)?)?;
            to.raw_set("to", jids(lua, recipients)?)?;
            "plain"
        }
        Action::Envelope { to: domain, id, body } => {
            to.raw_set("to", &**domain)?;
            to.raw_set("id", id.as_str())?;
            to.raw_set("body", element(lua, token, body)?)?;
            "envelope"
        }
        Action::Setup { to: domain, id, body } => {
            to.raw_set("to", &**domain)?;
            to.raw_set("id", id.as_str())?;
            to.raw_set("body", element(lua, token, body)?)?;
            "setup"
        }
        Action::AskSupport { domain } => {
            to.raw_set("domain", &**domain)?;
            "ask_support"
        }
        Action::SupportSeen { domain } => {
            to.raw_set("domain", &**domain)?;
            "support_seen"
        }
        Action::ForgetSupport { domain } => {
            to.raw_set("domain", &**domain)?;
            "forget_support"
        }
        Action::Fail { to: occupants } => {
            to.raw_set("to", jids(lua, occupants)?)?;
            "fail"
        }
        Action::Deliver { op, to: sessions } => {
            to.raw_set("op", *op + 1)?;
            to.raw_set("to", jids(lua, sessions)?)?;
            "deliver"
        }
        Action::Replay { stanzas, to: sessions } => {
            let stanzas = stanzas.iter().map(|stanza| lua.create_string(stanza));
            to.raw_set(
                "stanzas",
                lua.create_sequence_from(stanzas.collect::<LuaResult<Vec<_>>>()?)?,
            )?;
            to.raw_set("to", jids(lua, sessions)?)?;
            "replay"
        }
        Action::Report { to: room, id, body } => {
            to.raw_set("to", &**room)?;
            to.raw_set("id", id.as_str())?;
            to.raw_set("body", element(lua, token, body)?)?;
            "report"
        }
        Action::Refuse { to: room, id, condition, dmuc } => {
            to.raw_set("to", &**room)?;
            to.raw_set("id", id.as_str())?;
            to.raw_set("condition", *condition)?;
            to.raw_set("dmuc", *dmuc)?;
            "refuse"
        }
        Action::Result { body } => {
            to.raw_set("body", element(lua, token, body)?)?;
            "result"
        }
        Action::SetupError { condition, dmuc } => {
            to.raw_set("condition", *condition)?;
            to.raw_set("dmuc", *dmuc)?;
            "setup_error"
        }
        Action::Evict { room, nick, session } => {
            to.raw_set("room", &**room)?;
            to.raw_set("nick", nick.as_str())?;
            to.raw_set("session", &**session)?;
            "evict"
        }
        Action::Depart { room, nick, session } => {
            to.raw_set("room", &**room)?;
            to.raw_set("nick", nick.as_str())?;
            to.raw_set("session", &**session)?;
            "depart"
        }
        Action::LinkOver { room } => {
            to.raw_set("room", &**room)?;
            "link_over"
        }
        Action::Handled { room, epoch, seq } => {
            to.raw_set("room", &**room)?;
            to.raw_set("epoch", epoch.as_str())?;
            to.raw_set("seq", *seq)?;
            "handled"
        }
        Action::ConsentChanged { room, session } => {
            to.raw_set("room", &**room)?;
            to.raw_set("session", &**session)?;
            "consent_changed"
        }
        Action::Announce { room } => {
            to.raw_set("room", &**room)?;
            "announce"
        }
    };
    to.raw_set(1, name)?;
    Ok(to)
}

/// Encodes what a call gave back.
pub fn actions(lua: &Lua, token: Token<'_>, from: &Actions) -> LuaResult<LuaTable> {
    let to = lua.create_table_with_capacity(from.list.len(), 1)?;
    for each in &from.list {
        to.raw_push(action(lua, token, each)?)?;
    }
    if !from.relays.is_empty() {
        to.raw_set("relays", jids(lua, &from.relays)?)?;
    }
    if let Some(wake) = from.wake {
        to.raw_set("wake", wake.0)?;
    }
    Ok(to)
}
