//! Many full JIDs at once: the occupants of a room for a message to all, and the recipients of what a
//! room has sent. One by one they would each become an object of Lua's and one of the safe interface's.

#![expect(unsafe_code, reason = "Lua's raw interface")]

use mlua::ffi::{self, lua_State};
use mlua::prelude::*;

use crate::inspect::{field, text};

/// Full JIDs in one piece.
#[derive(Default)]
pub struct Jids {
    text: String,
    ends: Vec<usize>,
}

impl Jids {
    fn push(&mut self, jid: &str) {
        self.text.push_str(jid);
        self.ends.push(self.text.len());
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.text[start..*end])
    }
}

impl<'a> FromIterator<&'a str> for Jids {
    fn from_iter<I: IntoIterator<Item = &'a str>>(list: I) -> Self {
        let mut jids = Jids::default();
        list.into_iter().for_each(|jid| jids.push(jid));
        jids
    }
}

/// Remote occupants; after `capture_crowd` those for whom their copy is held.
pub struct Crowd(pub Jids);

impl LuaUserData for Crowd {
    fn add_methods<M: LuaUserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("list", |lua, this, ()| lua.create_sequence_from(this.0.iter()));
    }
}

/// `crowd(room._occupants, prosody.hosts)`: who gets a message to all. The remote ones, if there are any,
/// and a list of the others; nothing if the room is not as it should be.
pub fn crowd(
    lua: &Lua,
    (occupants, hosts): (LuaTable, LuaTable),
) -> LuaResult<(Option<Crowd>, Option<LuaTable>)> {
    let mut look = Look { remote: Jids::default(), domains: Vec::new(), is_whole: true };
    // SAFETY: the walk keeps within the stack that it has checked and changes none of the tables that it
    // goes through; what it has in it to be dropped is not its own.
    let others: LuaTable =
        unsafe { lua.exec_raw((occupants, hosts), |state| look.occupants(state))? };
    if !look.is_whole || look.remote.ends.is_empty() {
        return Ok((None, None));
    }
    Ok((Some(Crowd(look.remote)), Some(others)))
}

struct Look {
    remote: Jids,
    /// Domains seen so far, and whether they are hosts here. There are few.
    domains: Vec<(String, bool)>,
    is_whole: bool,
}

/// Places on the stack.
const OCCUPANTS: i32 = 1;
const HOSTS: i32 = 2;
const OTHERS: i32 = 3;
const OCCUPANT: i32 = 5;
const ENTERED: i32 = 6;
const SESSIONS: i32 = 7;
const SESSION: i32 = 8;
const PRESENCE: i32 = 9;
const ATTRIBUTES: i32 = 10;

impl Look {
    /// Leaves the list of the local ones on the stack, and nothing else.
    unsafe fn occupants(&mut self, state: *mut lua_State) {
        // SAFETY: as said in `crowd`.
        unsafe {
            if ffi::lua_checkstack(state, 16) == 0 {
                self.is_whole = false;
                return;
            }
            ffi::lua_createtable(state, 0, 0);
            let mut count = 0;
            ffi::lua_pushnil(state);
            while self.is_whole && ffi::lua_next(state, OCCUPANTS) != 0 {
                if ffi::lua_type(state, OCCUPANT) == ffi::LUA_TTABLE {
                    field(state, OCCUPANT, c"jid");
                    field(state, OCCUPANT, c"sessions");
                    self.sessions(state, &mut count);
                } else {
                    self.is_whole = false;
                }
                ffi::lua_settop(state, OCCUPANT - 1);
            }
            ffi::lua_settop(state, OTHERS);
            ffi::lua_remove(state, HOSTS);
            ffi::lua_remove(state, OCCUPANTS);
        }
    }

    /// Sessions of one occupant, as occupant.lib gives them to the room's own loop.
    unsafe fn sessions(&mut self, state: *mut lua_State, count: &mut ffi::lua_Integer) {
        // SAFETY: as said in `crowd`; a JID is used while it is a key of the table.
        unsafe {
            if ffi::lua_type(state, SESSIONS) != ffi::LUA_TTABLE {
                self.is_whole = false;
                return;
            }
            ffi::lua_pushnil(state);
            while ffi::lua_next(state, SESSIONS) != 0 {
                let jid = text(state, SESSION).and_then(|jid| std::str::from_utf8(jid).ok());
                let (Some(jid), ffi::LUA_TTABLE) = (jid, ffi::lua_type(state, PRESENCE)) else {
                    self.is_whole = false;
                    return;
                };
                field(state, PRESENCE, c"attr");
                if ffi::lua_type(state, ATTRIBUTES) != ffi::LUA_TTABLE {
                    self.is_whole = false;
                    return;
                }
                field(state, ATTRIBUTES, c"type");
                let is_away = text(state, -1) == Some(b"unavailable");
                if !is_away || text(state, ENTERED) == Some(jid.as_bytes()) {
                    if self.is_remote(state, jid) {
                        self.remote.push(jid);
                    } else {
                        *count += 1;
                        ffi::lua_pushvalue(state, SESSION);
                        ffi::lua_rawseti(state, OTHERS, *count);
                    }
                }
                ffi::lua_settop(state, SESSION);
            }
        }
    }

    /// Whether it is a full JID of a user of another server.
    unsafe fn is_remote(&mut self, state: *mut lua_State, jid: &str) -> bool {
        let Some((local, rest)) = jid.split_once('@') else { return false };
        let Some((domain, _)) = rest.split_once('/') else { return false };
        if local.is_empty() || local.contains('/') || domain.is_empty() {
            return false;
        }
        if let Some((_, is_host)) = self.domains.iter().rev().find(|(known, _)| known == domain) {
            return !is_host;
        }
        // SAFETY: two places, which have been checked.
        let is_host = unsafe {
            ffi::lua_pushlstring(state, domain.as_ptr().cast(), domain.len());
            ffi::lua_rawget(state, HOSTS);
            let is_host = ffi::lua_type(state, -1) != ffi::LUA_TNIL;
            ffi::lua_settop(state, -2);
            is_host
        };
        self.domains.push((domain.to_owned(), is_host));
        !is_host
    }
}

/// Full JIDs of a sequence, and the places in it (from one) where there is something else.
pub fn recipients(lua: &Lua, list: LuaTable) -> LuaResult<(Jids, Vec<usize>)> {
    let (mut jids, mut others, mut is_text) = (Jids::default(), Vec::new(), true);
    // SAFETY: one place beyond the table; a string is used while the table has it.
    unsafe {
        lua.exec_raw::<()>(list, |state| {
            if ffi::lua_checkstack(state, 2) == 0 {
                is_text = false;
                return;
            }
            for n in 1..=ffi::lua_rawlen(state, 1) {
                ffi::lua_rawgeti(state, 1, n as _);
                match text(state, -1).map(std::str::from_utf8) {
                    Some(Ok(jid)) => jids.push(jid),
                    Some(Err(_)) => is_text = false,
                    None => others.push(n),
                }
                ffi::lua_settop(state, 1);
            }
            ffi::lua_settop(state, 0);
        })?;
    }
    if !is_text {
        return Err(LuaError::runtime("dmuc: a recipient is not UTF-8"));
    }
    Ok((jids, others))
}
