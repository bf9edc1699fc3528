//! Stanzas as bytes and back, for those that a replica keeps: several times as fast as XML.
//!
//! An element is `E`, its name, the number of its attributes with each name and value, the number of its
//! children; a child is an element, or `T` and text. Numbers are 32 bits, little-endian; texts have their
//! length before them. The form never leaves this process.

#![expect(unsafe_code, reason = "Lua's raw interface")]

use std::ffi::c_int;

use mlua::ffi::{self, lua_State};
use mlua::prelude::*;

use crate::inspect::{ATTRIBUTES, Attribute, DEPTH, collect, field, text};

/// `pack(stanza)`: nothing for a stanza that is too deep or wide, or is none.
pub fn pack(lua: &Lua, stanza: LuaTable) -> LuaResult<Option<LuaString>> {
    let mut out = Vec::with_capacity(1024);
    let mut is_whole = false;
    // SAFETY: the walk reads fields raw and stays within the stack that it has checked; it holds
    // nothing that would have to be dropped should Lua raise for lack of memory.
    unsafe { lua.exec_raw::<()>(stanza, |state| is_whole = write(state, 0, &mut out))? };
    if is_whole { lua.create_string(&out).map(Some) } else { Ok(None) }
}

/// `unpack(bytes, metatable)`: the stanza that was packed.
pub fn unpack(lua: &Lua, (packed, meta): (LuaString, LuaTable)) -> LuaResult<LuaTable> {
    let bytes = packed.as_bytes();
    let bytes: &[u8] = &bytes;
    // SAFETY: the bytes are held by `packed`; the closure holds nothing to be dropped, should Lua raise
    // for lack of memory.
    let built: Option<LuaTable> = unsafe {
        lua.exec_raw(meta, |state| {
            let mut rest = bytes;
            if read(state, 1, 0, &mut rest).is_none() || !rest.is_empty() {
                ffi::lua_settop(state, 0);
                ffi::lua_pushnil(state);
            } else {
                ffi::lua_remove(state, 1);
            }
        })?
    };
    built.ok_or_else(|| LuaError::runtime("dmuc: not a packed stanza"))
}

fn put_number(out: &mut Vec<u8>, number: usize) {
    // Texts of a stanza are shorter than its limit.
    out.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

fn put(out: &mut Vec<u8>, text: &[u8]) {
    put_number(out, text.len());
    out.extend_from_slice(text);
}

/// Writes the table at the top of the stack, and leaves it there.
unsafe fn write(state: *mut lua_State, depth: usize, out: &mut Vec<u8>) -> bool {
    // SAFETY: as said in `pack`; strings are used while the table holds them.
    unsafe {
        if depth > DEPTH || ffi::lua_checkstack(state, 6) == 0 {
            return false;
        }
        let table = ffi::lua_gettop(state);
        field(state, table, c"name");
        let Some(name) = text(state, -1) else { return false };
        out.push(b'E');
        put(out, name);
        field(state, table, c"attr");
        let mut attributes: [Attribute<'_>; ATTRIBUTES] = [(&[], &[]); ATTRIBUTES];
        let Some(count) = collect(state, &mut attributes) else { return false };
        put_number(out, count);
        for (key, value) in &attributes[..count] {
            put(out, key);
            put(out, value);
        }
        ffi::lua_settop(state, table);
        let children = ffi::lua_rawlen(state, table);
        put_number(out, children as _);
        for n in 1..=children {
            ffi::lua_rawgeti(state, table, n as _);
            let is_whole = match (ffi::lua_type(state, -1), text(state, -1)) {
                (ffi::LUA_TTABLE, _) => write(state, depth + 1, out),
                (_, Some(text)) => {
                    out.push(b'T');
                    put(out, text);
                    true
                }
                _ => false,
            };
            ffi::lua_settop(state, table);
            if !is_whole {
                return false;
            }
        }
        true
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(len)?;
    *rest = left;
    Some(taken)
}

fn take_number(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?)).ok()
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take_number(rest)?;
    take(rest, len)
}

unsafe fn push(state: *mut lua_State, text: &[u8]) {
    // SAFETY: one place, which the caller has checked.
    unsafe { ffi::lua_pushlstring(state, text.as_ptr().cast(), text.len()) };
}

/// Builds the element that the bytes begin with, at the top of the stack.
unsafe fn read(state: *mut lua_State, meta: c_int, depth: usize, rest: &mut &[u8]) -> Option<()> {
    // SAFETY: at most six places at a time, which are checked; raw fields of tables just made.
    unsafe {
        if depth > DEPTH || ffi::lua_checkstack(state, 6) == 0 || take(rest, 1)? != b"E" {
            return None;
        }
        ffi::lua_createtable(state, 0, 3);
        let table = ffi::lua_gettop(state);
        push(state, b"name");
        push(state, take_text(rest)?);
        ffi::lua_rawset(state, table);
        push(state, b"attr");
        let attributes = take_number(rest)?;
        ffi::lua_createtable(state, 0, attributes.min(ATTRIBUTES) as _);
        for _ in 0..attributes {
            push(state, take_text(rest)?);
            push(state, take_text(rest)?);
            ffi::lua_rawset(state, -3);
        }
        ffi::lua_rawset(state, table);
        ffi::lua_createtable(state, 0, 0);
        let tags = ffi::lua_gettop(state);
        let mut elements = 0;
        for n in 1..=take_number(rest)? {
            if rest.first() == Some(&b'E') {
                read(state, meta, depth + 1, rest)?;
                elements += 1;
                ffi::lua_pushvalue(state, -1);
                ffi::lua_rawseti(state, tags, elements);
            } else {
                take(rest, 1)?;
                push(state, take_text(rest)?);
            }
            ffi::lua_rawseti(state, table, n as _);
        }
        push(state, b"tags");
        ffi::lua_insert(state, -2);
        ffi::lua_rawset(state, table);
        ffi::lua_pushvalue(state, meta);
        ffi::lua_setmetatable(state, table);
        Some(())
    }
}
