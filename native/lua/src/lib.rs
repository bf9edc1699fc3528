//! `dmuc_native`: the protocol core as a Lua module for Prosody.
//!
//! Each function decodes, calls the core once and encodes; what is decided is decided in the
//! core, what is done is done in `lua/mod_dmuc`. [`encode`] and [`decode`] hold the shapes,
//! [`handle`] the guard against panics, [`logs`] the way of log records.

mod crowd;
mod decode;
mod encode;
mod handle;
mod inspect;
mod logs;
mod pack;
mod primary;
mod replica;
mod view;
mod xml;

use std::sync::Arc;

use dmuc_core::{ABI, Config, NS, Shared, Unit};
use mlua::prelude::*;

/// Options and counters of one host, as userdata.
struct SharedHandle(Arc<Shared>);

impl LuaUserData for SharedHandle {
    fn add_methods<M: LuaUserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("counters", |lua, this, ()| {
            lua.create_table_from(this.0.counters.snapshot())
        });
        // set { option = number, … }: other options, for links that are up too.
        methods.add_method("set", |_, this, options: LuaTable| {
            this.0.config.set(&config(&options)?);
            Ok(())
        });
        methods.add_method("overview", |lua, this, ()| view::overview(lua, &this.0));
        // sample(now): takes note of what was carried so far, for the past.
        methods.add_method("sample", |_, this, now: u64| {
            this.0.sample(decode::millis(now));
            Ok(())
        });
        methods.add_method("asks_owners", |_, this, ()| Ok(this.0.asks_owners()));
        methods.add_method("metrics", |lua, this, ()| view::metrics(lua, &this.0));
    }
}

/// `shared { option = number, … }`; an unknown option or one out of range is an error.
fn shared(_: &Lua, options: LuaTable) -> LuaResult<SharedHandle> {
    Ok(SharedHandle(Shared::new(config(&options)?)))
}

fn config(options: &LuaTable) -> LuaResult<Config> {
    let pairs = options.pairs::<String, u64>().collect::<LuaResult<Vec<_>>>()?;
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    Config::from_pairs(&pairs).map_err(LuaError::external)
}

fn info(lua: &Lua, (): ()) -> LuaResult<LuaTable> {
    let info = lua.create_table()?;
    info.set("version", env!("CARGO_PKG_VERSION"))?;
    info.set("abi", ABI)?;
    info.set("ns", NS)?;
    Ok(info)
}

fn options(lua: &Lua, (): ()) -> LuaResult<LuaTable> {
    let list = lua.create_table()?;
    for option in Config::OPTIONS {
        let entry = lua.create_table()?;
        entry.set("name", option.name)?;
        entry.set("time", option.unit == Unit::Millis)?;
        entry.set("default", option.default)?;
        entry.set("min", option.min)?;
        entry.set("max", option.max)?;
        entry.set("doc", option.doc.trim())?;
        list.push(entry)?;
    }
    Ok(list)
}

/// The module's entry point.
///
/// Without `skip_memory_check` every call would ask whether it may raise on lack of memory,
/// which costs more than the calls themselves.
#[mlua::lua_module(name = "dmuc_native", skip_memory_check)]
fn dmuc_native(lua: &Lua) -> LuaResult<LuaTable> {
    logs::install();
    let module = lua.create_table()?;
    module.set("info", lua.create_function(info)?)?;
    module.set("options", lua.create_function(options)?)?;
    module.set("shared", lua.create_function(shared)?)?;
    module.set("support", lua.create_function(primary::support)?)?;
    module.set("room", lua.create_function(primary::room)?)?;
    module.set("replica", lua.create_function(replica::replica)?)?;
    module.set("crowd", lua.create_function(crowd::crowd)?)?;
    module.set("inspect", lua.create_function(inspect::inspect)?)?;
    module.set("pack", lua.create_function(pack::pack)?)?;
    module.set("unpack", lua.create_function(pack::unpack)?)?;
    module.set("serialize", lua.create_function(xml::serialize)?)?;
    module.set("digest", lua.create_function(inspect::of_bytes)?)?;
    module.set("is_envelope_id", lua.create_function(primary::is_envelope_id)?)?;
    module.set("is_question_id", lua.create_function(replica::is_question_id)?)?;
    module.set("owner_field", dmuc_core::OWNER_FIELD)?;
    module.set("owner_label", dmuc_core::OWNER_LABEL)?;
    module.set("columns", lua.create_function(view::columns)?)?;
    module.set("failed", lua.create_function(view::failed)?)?;
    module.set("table", lua.create_function(view::table)?)?;
    module.set("page_file", lua.create_function(view::page_file)?)?;
    module.set("page_document", lua.create_function(view::page_document)?)?;
    module.set("drain_log", lua.create_function(logs::drain)?)?;
    Ok(module)
}
