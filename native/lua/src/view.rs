//! What an operator gets to see. A row is a table with a value for each of `columns()`.

use dmuc_core::Shared;
use dmuc_core::view::{LinkRow, Value, failed as of_failed, overview as of_host, table as written};
use mlua::prelude::*;

/// `columns()`: a list of `{ name, number, doc }`.
pub fn columns(lua: &Lua, (): ()) -> LuaResult<LuaTable> {
    let list = lua.create_table()?;
    for column in LinkRow::COLUMNS {
        let entry = lua.create_table()?;
        entry.raw_set("name", column.name)?;
        entry.raw_set("number", column.number)?;
        entry.raw_set("doc", column.doc.trim())?;
        list.raw_push(entry)?;
    }
    Ok(list)
}

/// `table(rows)`: the rows as text for people.
pub fn table(lua: &Lua, rows: Vec<LuaTable>) -> LuaResult<LuaString> {
    let rows = rows.iter().map(read).collect::<LuaResult<Vec<_>>>()?;
    lua.create_string(written(LinkRow::COLUMNS, &rows))
}

fn read(row: &LuaTable) -> LuaResult<Vec<Value>> {
    let read = |column: &dmuc_core::view::Column| match column.number {
        true => row.raw_get(column.name).map(Value::Number),
        false => row.raw_get(column.name).map(Value::Text),
    };
    LinkRow::COLUMNS.iter().map(read).collect()
}

/// `failed(jid)`: rows for a room whose handle has failed.
pub fn failed(lua: &Lua, room: String) -> LuaResult<LuaTable> {
    rows(lua, vec![of_failed(&room)])
}

/// A list of rows.
pub fn rows(lua: &Lua, links: Vec<LinkRow>) -> LuaResult<LuaTable> {
    let list = lua.create_table_with_capacity(links.len(), 0)?;
    for link in links {
        let row = lua.create_table()?;
        for (column, value) in LinkRow::COLUMNS.iter().zip(link.values()) {
            match value {
                Value::Text(text) => row.raw_set(column.name, text)?,
                Value::Number(number) => row.raw_set(column.name, number)?,
            }
        }
        list.raw_push(row)?;
    }
    Ok(list)
}

/// What is to be said about a host: a list of `{ name, value }`.
pub fn overview(lua: &Lua, shared: &Shared) -> LuaResult<LuaTable> {
    let list = lua.create_table()?;
    for (name, value) in of_host(shared) {
        list.raw_push(lua.create_sequence_from([name, &value])?)?;
    }
    Ok(list)
}

/// A list of `{ kind, name, doc, value }`, where `kind` is "counter" or "gauge".
pub fn metrics(lua: &Lua, shared: &Shared) -> LuaResult<LuaTable> {
    let list = lua.create_table()?;
    let counters = shared.counters.described().into_iter().map(|metric| ("counter", metric));
    let gauges = shared.gauges().into_iter().map(|metric| ("gauge", metric));
    for (kind, (name, doc, value)) in counters.chain(gauges) {
        let entry = lua.create_table()?;
        entry.raw_set("kind", kind)?;
        entry.raw_set("name", name)?;
        entry.raw_set("doc", doc)?;
        entry.raw_set("value", value)?;
        list.raw_push(entry)?;
    }
    Ok(list)
}
