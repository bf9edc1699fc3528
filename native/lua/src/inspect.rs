//! What a stanza is, read off Prosody's table in one walk: its facts, and a digest of its content.
//!
//! A room tells the same occupants to every joiner, each time in new tables. So this is the one place
//! where each copy is looked at whole, and it is written on Lua's raw interface: the safe one would
//! cost more than plain MUC does.

#![expect(unsafe_code, reason = "Lua's raw interface")]

use std::ffi::{CStr, c_int};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::slice;

use dmuc_core::Facts;
use mlua::ffi::{self, lua_State};
use mlua::prelude::*;
use once_cell::sync::Lazy;
use siphasher::sip128::{Hasher128, SipHasher13};

/// Deeper stanzas are for [`of_bytes`].
pub const DEPTH: usize = 100;
/// Elements with more attributes as well.
pub const ATTRIBUTES: usize = 24;

/// Of this process alone: digests never leave it, so that nobody can look for two stanzas of one
/// digest.
static KEY: Lazy<SipHasher13> = Lazy::new(|| {
    // The standard library's hashers have the system's randomness.
    let half = |n: u8| RandomState::new().hash_one(n);
    SipHasher13::new_with_keys(half(0), half(1))
});

/// A digest as Lua has it.
pub fn string(lua: &Lua, digest: u128) -> LuaResult<LuaString> {
    lua.create_string(digest.to_ne_bytes())
}

/// A digest that comes back.
pub fn number(digest: &LuaString) -> LuaResult<u128> {
    let bytes = digest.as_bytes();
    let bytes = bytes.as_ref().try_into().map_err(|_| LuaError::runtime("dmuc: no digest"))?;
    Ok(u128::from_ne_bytes(bytes))
}

/// `digest(bytes)`: of a stanza's XML without `to`, where [`inspect`] gives none.
pub fn of_bytes(lua: &Lua, bytes: LuaString) -> LuaResult<LuaString> {
    let mut hasher = *KEY;
    put(&mut hasher, b'B', &bytes.as_bytes());
    string(lua, hasher.finish128().as_u128())
}

/// `inspect(stanza)`: facts and digest; nothing for a stanza that is too deep or wide for this.
///
/// Two stanzas have one digest if and only if they have the same names, attributes (`to` and the
/// namespace at the top left out), text and children in the same order.
pub fn inspect(lua: &Lua, stanza: LuaTable) -> LuaResult<(Option<u32>, Option<LuaString>)> {
    let mut walk = Walk { hasher: *KEY, facts: 0, is_whole: true };
    // SAFETY: the walk leaves the stack as it was, keeps within what it has checked, and holds
    // nothing that would have to be dropped should Lua raise.
    unsafe { lua.exec_raw::<()>(stanza, |state| walk.element(state, 0, Place::Top))? };
    if !walk.is_whole {
        return Ok((None, None));
    }
    Ok((Some(walk.facts), Some(string(lua, walk.hasher.finish128().as_u128())?)))
}

/// Where an element stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Top,
    /// A child of the stanza.
    Child,
    /// A child of XEP-0045's `<x/>` for users.
    OfUser,
    Deeper,
}

struct Walk {
    hasher: SipHasher13,
    facts: u32,
    is_whole: bool,
}

/// Name and value, owned by Lua while the table is on the stack.
pub type Attribute<'a> = (&'a [u8], &'a [u8]);

fn put(hasher: &mut SipHasher13, tag: u8, text: &[u8]) {
    hasher.write_u64(text.len() as u64 ^ u64::from(tag) << 56);
    hasher.write(text);
}

impl Walk {
    /// Takes in the table at the top of the stack.
    unsafe fn element(&mut self, state: *mut lua_State, depth: usize, place: Place) {
        // SAFETY: as said in `inspect`; every pointer into a string is used while the string is
        // held by the table that it was read from.
        unsafe {
            if depth > DEPTH || ffi::lua_checkstack(state, 6) == 0 {
                self.is_whole = false;
                return;
            }
            let table = ffi::lua_gettop(state);
            field(state, table, c"name");
            let Some(name) = text(state, -1) else { return self.give_up(state, table) };
            put(&mut self.hasher, b'E', name);
            field(state, table, c"attr");
            let mut attributes: [Attribute<'_>; ATTRIBUTES] = [(&[], &[]); ATTRIBUTES];
            let Some(count) = collect(state, &mut attributes) else {
                return self.give_up(state, table);
            };
            let attributes = &mut attributes[..count];
            attributes.sort_unstable();
            for (key, value) in attributes.iter() {
                if place != Place::Top || !matches!(*key, b"to" | b"xmlns") {
                    put(&mut self.hasher, b'A', key);
                    put(&mut self.hasher, b'=', value);
                }
            }
            let within = self.learn(name, attributes, place);
            // Name and attributes.
            ffi::lua_settop(state, table);
            for n in 1..=ffi::lua_rawlen(state, table) {
                ffi::lua_rawgeti(state, table, n as _);
                match ffi::lua_type(state, -1) {
                    ffi::LUA_TTABLE => self.element(state, depth + 1, within),
                    ffi::LUA_TSTRING => match text(state, -1) {
                        Some(text) => put(&mut self.hasher, b'T', text),
                        None => self.is_whole = false,
                    },
                    _ => self.is_whole = false,
                }
                ffi::lua_settop(state, table);
                if !self.is_whole {
                    return;
                }
            }
            self.hasher.write_u8(b'/');
        }
    }

    unsafe fn give_up(&mut self, state: *mut lua_State, table: c_int) {
        self.is_whole = false;
        // SAFETY: what was there before.
        unsafe { ffi::lua_settop(state, table) };
    }

    /// Facts of one element; where its children stand.
    fn learn(&mut self, name: &[u8], attributes: &[Attribute<'_>], place: Place) -> Place {
        let get = |key: &[u8]| attributes.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
        match place {
            Place::Top => {
                self.facts |= stanza_facts(name, get(b"type"));
                if get(b"from").is_some_and(|from| from.contains(&b'/')) {
                    self.facts |= Facts::NICK;
                }
                Place::Child
            }
            Place::Child => match (name, get(b"xmlns")) {
                (b"x", Some(b"http://jabber.org/protocol/muc#user")) => Place::OfUser,
                (b"x", Some(b"http://jabber.org/protocol/muc")) => {
                    self.facts |= Facts::MUC_X;
                    Place::Deeper
                }
                _ => Place::Deeper,
            },
            Place::OfUser => {
                self.facts |= match (name, get(b"code")) {
                    (b"status", Some(b"110")) => Facts::CODE_110,
                    (b"status", Some(b"303")) => Facts::CODE_303,
                    (b"item", _) if get(b"jid").is_some() => Facts::ITEM_JID,
                    (b"destroy", _) => Facts::DESTROY,
                    _ => 0,
                };
                Place::Deeper
            }
            Place::Deeper => Place::Deeper,
        }
    }
}

/// Kind and type, as `facts` in xml.lib.lua has them.
fn stanza_facts(name: &[u8], kind: Option<&[u8]>) -> u32 {
    let bits = match name {
        b"presence" => Facts::PRESENCE,
        b"iq" => Facts::IQ,
        _ => Facts::MESSAGE,
    };
    bits | match (bits, kind) {
        (_, None) => 0,
        (_, Some(b"error")) => Facts::ERROR,
        (Facts::PRESENCE, Some(b"unavailable")) => Facts::UNAVAILABLE,
        (Facts::PRESENCE, Some(_)) => Facts::OTHER,
        (Facts::MESSAGE, Some(b"groupchat")) => Facts::GROUPCHAT,
        _ => 0,
    }
}

/// Puts a field of the table on the stack.
pub unsafe fn field(state: *mut lua_State, table: c_int, name: &CStr) {
    // SAFETY: two places, which the caller has checked.
    unsafe {
        ffi::lua_pushstring(state, name.as_ptr());
        ffi::lua_rawget(state, table);
    }
}

/// The string at this place of the stack; nothing if it is none.
pub unsafe fn text<'a>(state: *mut lua_State, at: c_int) -> Option<&'a [u8]> {
    // SAFETY: a string stays what and where it is while something refers to it.
    unsafe {
        if ffi::lua_type(state, at) != ffi::LUA_TSTRING {
            return None;
        }
        let mut len = 0;
        let start = ffi::lua_tolstring(state, at, &mut len);
        (!start.is_null()).then(|| slice::from_raw_parts(start.cast(), len))
    }
}

/// All fields of the table at the top of the stack; how many. Nothing if they are too many or are not
/// strings.
pub unsafe fn collect<'a>(state: *mut lua_State, into: &mut [Attribute<'a>]) -> Option<usize> {
    // SAFETY: the table is not changed meanwhile; `lua_next` takes two places.
    unsafe {
        if ffi::lua_type(state, -1) != ffi::LUA_TTABLE {
            return None;
        }
        let mut count = 0;
        ffi::lua_pushnil(state);
        while ffi::lua_next(state, -2) != 0 {
            *into.get_mut(count)? = (text(state, -2)?, text(state, -1)?);
            count += 1;
            ffi::lua_pop(state, 1);
        }
        Some(count)
    }
}
