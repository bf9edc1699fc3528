//! What an operator gets to see. A row is the list of its values, in the order of `columns/0`.

use dmuc_core::Millis;
use dmuc_core::page::{self, Query, Report, Response};
use dmuc_core::view::{LinkRow, Value, failed as of_failed, overview as of_host, table as written};
use rustler::{Encoder, Env, Error, ListIterator, NifResult, ResourceArc, Term};

use crate::SharedHandle;
use crate::replica::ReplicaHandle;
use crate::room::RoomHandle;
use crate::terms::{atoms, text};

/// `[{Name, text | number, Meaning}]`.
#[rustler::nif]
fn columns(env: Env<'_>) -> Term<'_> {
    let kind = |number| if number { atoms::number() } else { atoms::text() };
    let all = LinkRow::COLUMNS.iter();
    all.map(|column| (column.name, kind(column.number), column.doc.trim()))
        .collect::<Vec<_>>()
        .encode(env)
}

/// `[{Name, Value}]` of what is to be said about a virtual host.
#[rustler::nif]
fn overview(shared: ResourceArc<SharedHandle>) -> Vec<(&'static str, String)> {
    of_host(&shared.0)
}

/// `[{counter | gauge, Name, Meaning, Value}]`.
#[rustler::nif]
fn metrics(env: Env<'_>, shared: ResourceArc<SharedHandle>) -> Term<'_> {
    let counters = shared.0.counters.described().into_iter();
    let counters = counters.map(|(name, doc, value)| (atoms::counter(), name, doc, value));
    let gauges = shared.0.gauges().into_iter();
    let gauges = gauges.map(|(name, doc, value)| (atoms::gauge(), name, doc, value));
    counters.chain(gauges).collect::<Vec<_>>().encode(env)
}

/// Rows, one for each domain with occupants.
#[rustler::nif(schedule = "DirtyCpu")]
fn room_links(env: Env<'_>, room: ResourceArc<RoomHandle>, now: u64) -> Term<'_> {
    rows(env, room.0.lock().links(Millis(now)))
}

/// Rows, one for each link.
#[rustler::nif(schedule = "DirtyCpu")]
fn replica_links(env: Env<'_>, replica: ResourceArc<ReplicaHandle>, now: u64) -> Term<'_> {
    rows(env, replica.0.lock().links(Millis(now)))
}

/// Rows for a room whose handle has failed.
#[rustler::nif]
fn failed<'a>(env: Env<'a>, room: &str) -> Term<'a> {
    rows(env, vec![of_failed(room)])
}

fn rows(env: Env<'_>, links: Vec<LinkRow>) -> Term<'_> {
    let value = |value| match value {
        Value::Text(text) => text.encode(env),
        Value::Number(number) => number.encode(env),
    };
    let row = |link: LinkRow| link.values().into_iter().map(value).collect::<Vec<_>>();
    links.into_iter().map(row).collect::<Vec<_>>().encode(env)
}

/// Rows as text for people.
#[rustler::nif(schedule = "DirtyCpu")]
fn table(rows: Term<'_>) -> NifResult<String> {
    let rows = rows.decode::<ListIterator>()?.map(row).collect::<NifResult<Vec<_>>>()?;
    Ok(written(LinkRow::COLUMNS, &rows))
}

fn row(term: Term<'_>) -> NifResult<Vec<Value>> {
    let values = term.decode::<ListIterator>()?.zip(LinkRow::COLUMNS);
    let values = values
        .map(|(value, column)| match column.number {
            true => value.decode().map(Value::Number),
            false => text(value).map(|text| Value::Text(text.to_owned())),
        })
        .collect::<NifResult<Vec<_>>>()?;
    if values.len() == LinkRow::COLUMNS.len() { Ok(values) } else { Err(Error::BadArg) }
}

/// `{Status, Headers, Body}` for a file of the page, or `document` if that is what has this name.
#[rustler::nif]
fn page_file<'a>(env: Env<'a>, name: &str) -> Term<'a> {
    if name == page::DOCUMENT {
        atoms::document().encode(env)
    } else {
        response(env, &page::file(name))
    }
}

/// The same with what the page draws, of a virtual host and its rows.
#[rustler::nif(schedule = "DirtyCpu")]
#[allow(clippy::too_many_arguments)]
fn page_document<'a>(
    env: Env<'a>,
    shared: ResourceArc<SharedHandle>,
    now: u64,
    host: &str,
    above: &str,
    room: Term<'a>,
    filter: Term<'a>,
    rows: Term<'a>,
) -> NifResult<Term<'a>> {
    let rows = rows
        .decode::<ListIterator>()?
        .map(|term| LinkRow::from_values(row(term)?).ok_or(Error::BadArg))
        .collect::<NifResult<Vec<_>>>()?;
    // From the address; what is no text names no room.
    let query = Query {
        room: text(room).unwrap_or_default(),
        filter: text(filter).unwrap_or_default(),
        above: Some(above),
    };
    let report = Report { host, shared: Ok(&shared.0), rows: &rows };
    Ok(response(env, &page::document(Millis(now), &query, &[report])))
}

fn response<'a>(env: Env<'a>, response: &Response) -> Term<'a> {
    let headers: Vec<_> = response.headers().collect();
    (response.status, headers, &*response.body).encode(env)
}

/// Takes note of what was carried so far, for the past.
#[rustler::nif]
fn sample(shared: ResourceArc<SharedHandle>, now: u64) -> rustler::Atom {
    shared.0.sample(Millis(now));
    atoms::ok()
}
