//! Stanzas as XML, for each recipient of a broadcast: Prosody's own function takes several times as long
//! and leaves twice as much to the collector.

#![expect(unsafe_code, reason = "Lua's raw interface")]

use mlua::ffi::{self, lua_State};
use mlua::prelude::*;

use crate::inspect::{ATTRIBUTES, Attribute, DEPTH, collect, field, text};

/// `serialize(stanza)`: what `tostring` gives, but for the order of attributes, which is none; nothing for
/// a stanza that is too deep or wide, or is none.
pub fn serialize(lua: &Lua, stanza: LuaTable) -> LuaResult<Option<LuaString>> {
    let mut out = Vec::with_capacity(1024);
    let mut is_whole = false;
    // SAFETY: the walk stays within the stack that it has checked, and leaves it as it was; it holds
    // nothing that would have to be dropped should Lua raise for lack of memory.
    unsafe { lua.exec_raw::<()>(stanza, |state| is_whole = write(state, None, 0, &mut out))? };
    if is_whole { lua.create_string(&out).map(Some) } else { Ok(None) }
}

/// Writes the element at the top of the stack, and leaves it there. `within`: the namespace of the
/// element around it.
unsafe fn write(
    state: *mut lua_State,
    within: Option<&[u8]>,
    depth: usize,
    out: &mut Vec<u8>,
) -> bool {
    // SAFETY: strings are used while the table holds them; the places on the stack are checked.
    unsafe {
        if depth > DEPTH
            || ffi::lua_checkstack(state, 6) == 0
            || ffi::lua_type(state, -1) != ffi::LUA_TTABLE
        {
            return false;
        }
        let table = ffi::lua_gettop(state);
        field(state, table, c"name");
        let Some(name) = text(state, -1) else { return false };
        out.push(b'<');
        out.extend_from_slice(name);
        field(state, table, c"attr");
        let mut attributes: [Attribute<'_>; ATTRIBUTES] = [(&[], &[]); ATTRIBUTES];
        let Some(count) = collect(state, &mut attributes) else { return false };
        let attributes = &attributes[..count];
        let namespace = attributes.iter().find(|(key, _)| *key == b"xmlns").map(|(_, ns)| *ns);
        let mut prefixes = 0;
        for (key, value) in attributes {
            if *key != b"xmlns" || Some(*value) != within {
                attribute(key, value, &mut prefixes, out);
            }
        }
        ffi::lua_settop(state, table);
        let children = ffi::lua_rawlen(state, table);
        if children == 0 {
            out.extend_from_slice(b"/>");
            return true;
        }
        out.push(b'>');
        for n in 1..=children {
            ffi::lua_rawgeti(state, table, n as _);
            let is_whole = match text(state, -1) {
                Some(text) => {
                    escape(text, out);
                    true
                }
                None => write(state, namespace, depth + 1, out),
            };
            ffi::lua_settop(state, table);
            if !is_whole {
                return false;
            }
        }
        out.extend_from_slice(b"</");
        out.extend_from_slice(name);
        out.push(b'>');
        true
    }
}

/// One with a namespace of its own has that before its name, and gets a prefix.
fn attribute(key: &[u8], value: &[u8], prefixes: &mut u32, out: &mut Vec<u8>) {
    out.push(b' ');
    if let Some(at) = key.iter().position(|byte| *byte == 1) {
        *prefixes += 1;
        let prefix = format!("ns{prefixes}");
        out.extend_from_slice(b"xmlns:");
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(b"='");
        escape(&key[..at], out);
        out.extend_from_slice(b"' ");
        out.extend_from_slice(prefix.as_bytes());
        out.push(b':');
        out.extend_from_slice(&key[at + 1..]);
    } else {
        out.extend_from_slice(key);
    }
    out.extend_from_slice(b"='");
    escape(value, out);
    out.push(b'\'');
}

/// As `st.xml_escape`.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|b| matches!(b, b'\'' | b'&' | b'<' | b'>' | b'"')) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(match rest[at] {
            b'\'' => b"&apos;",
            b'"' => b"&quot;",
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            _ => b"&amp;",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}
