//! What an operator gets to see. A row is a table with a value for each of `columns()`.

use dmuc_core::Shared;
use dmuc_core::page::{self, Query, Report, Response};
use dmuc_core::view::{LinkRow, Value, failed as of_failed, overview as of_host, table as written};
use mlua::prelude::*;

use crate::SharedHandle;
use crate::decode::millis;

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

/// `page_file(name)`: `{ status, headers, body }`, or nothing if that is the name of the document.
pub fn page_file(lua: &Lua, name: LuaString) -> LuaResult<Option<LuaTable>> {
    let name = name.to_string_lossy();
    if name == page::DOCUMENT { Ok(None) } else { response(lua, &page::file(&name)).map(Some) }
}

/// `page_document(now, room, filter, reports)`: the same with what the page draws. A report is
/// `{ host, shared, rows }` or, of a host where dmuc is off, `{ host, off }`.
pub fn page_document(
    lua: &Lua,
    (now, room, filter, reports): (u64, LuaString, LuaString, Vec<LuaTable>),
) -> LuaResult<LuaTable> {
    let mut hosts = Vec::with_capacity(reports.len());
    for report in &reports {
        let host: String = report.raw_get("host")?;
        let shared = match report.raw_get::<Option<String>>("off")? {
            Some(reason) => Err(reason),
            None => Ok(report.raw_get::<LuaUserDataRef<SharedHandle>>("shared")?.0.clone()),
        };
        let rows: Option<Vec<LuaTable>> = report.raw_get("rows")?;
        let rows = rows.unwrap_or_default();
        let rows = rows.iter().map(|row| {
            let row = LinkRow::from_values(read(row)?);
            row.ok_or_else(|| LuaError::runtime("dmuc: no row"))
        });
        hosts.push((host, shared, rows.collect::<LuaResult<Vec<_>>>()?));
    }
    let reports: Vec<Report<'_>> = hosts
        .iter()
        .map(|(host, shared, rows)| {
            let shared = shared.as_deref().map_err(String::as_str);
            Report { host, shared, rows }
        })
        .collect();
    // From the address; what is no text names no room.
    let (room, filter) = (room.to_string_lossy(), filter.to_string_lossy());
    let query = Query { room: &room, filter: &filter, above: None };
    response(lua, &page::document(millis(now), &query, &reports))
}

fn response(lua: &Lua, response: &Response) -> LuaResult<LuaTable> {
    let table = lua.create_table()?;
    table.raw_set("status", response.status)?;
    table.raw_set("headers", lua.create_table_from(response.headers())?)?;
    table.raw_set("body", &*response.body)?;
    Ok(table)
}
