//! From Prosody's stanza tables to the core's elements.

use dmuc_core::{Element, Facts, Incoming, Millis, NS};
use mlua::prelude::*;

/// The vocabulary is two levels deep; what is deeper is not ours.
const DEPTH: usize = 3;

/// A time from Lua.
pub fn millis(now: u64) -> Millis {
    Millis(now)
}

/// Facts from Lua.
pub fn facts(bits: u32) -> Facts {
    Facts(bits)
}

/// Reads `{ facts, from, has_to, packed }`, what the wrapper says about a carried stanza.
fn incoming(described: &LuaTable) -> LuaResult<Incoming> {
    Ok(Incoming {
        facts: facts(described.raw_get(1)?),
        from: described.raw_get(2)?,
        has_to: described.raw_get(3)?,
        packed: described
            .raw_get::<Option<LuaString>>(4)?
            .map(|packed| packed.as_bytes().as_ref().into()),
    })
}

fn read(table: &LuaTable, depth: usize) -> LuaResult<Element<Incoming>> {
    let mut element = Element::new(&table.raw_get::<LuaString>("name")?.to_str()?);
    table.raw_get::<LuaTable>("attr")?.for_each(|name: LuaString, value: LuaString| {
        let name = name.to_str()?;
        if &*name != "xmlns" {
            element.attrs.push((name.to_owned(), value.to_str()?.to_owned()));
        }
        Ok(())
    })?;
    if depth < DEPTH {
        for child in table.raw_get::<LuaTable>("tags")?.sequence_values::<LuaTable>() {
            let child = child?;
            // What a later version or an extension adds in its own namespace means nothing here.
            if child
                .raw_get::<LuaTable>("attr")?
                .raw_get::<Option<LuaString>>("xmlns")?
                .is_some_and(|ns| ns == NS)
            {
                element.children.push(read(&child, depth + 1)?);
            }
        }
    }
    Ok(element)
}

/// Reads a dmuc element off a stanza. `payloads[n]` describes the stanza that the n-th child
/// carries; every child must then be of our namespace, so that the numbers stay in step.
pub fn element(table: &LuaTable, payloads: Option<&LuaTable>) -> LuaResult<Element<Incoming>> {
    let mut element = read(table, 0)?;
    if let Some(payloads) = payloads {
        for (n, child) in element.children.iter_mut().enumerate() {
            if let Some(described) = payloads.raw_get::<Option<LuaTable>>(n + 1)? {
                child.payload = Some(incoming(&described)?);
                child.children.clear();
            }
        }
    }
    Ok(element)
}

/// The same for an element that carries one stanza itself.
pub fn carrier(table: &LuaTable, described: Option<&LuaTable>) -> LuaResult<Element<Incoming>> {
    let mut element = read(table, DEPTH)?;
    element.payload = described.map(incoming).transpose()?;
    Ok(element)
}
