//! What has to have crossed the wire for a comparison to mean anything.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use dmuc_testkit::Record;

use super::{Script, Stage};
use crate::traffic::{self, Sorted};

/// That the run proves something: dmuc was there, or was not.
pub fn check(stage: &Stage<'_>, script: &Script, dmuc: bool) -> Result<()> {
    let records = stage.wire().records();
    let links = traffic::links(&records, &stage.room);
    let down = traffic::sort(&records, "b", &stage.room);
    if !dmuc {
        ensure!(links == 0 && down.envelopes == 0, "this run is not plain: {down:?}");
        return Ok(());
    }
    let Sorted { mut casts, envelopes, .. } = down;
    if stage.is_tree() {
        let aside = stage.lab().wire("b", "c").records();
        casts += aside.iter().filter(|r| r.to == "b" && r.xml.contains(&stage.room)).count();
    }
    ensure!(links > 0 && envelopes > 0 && casts > 0, "{links} links, {casts} casts, {down:?}");
    if script.steady {
        ensure!(links == 1, "the link went down: {links} set-ups");
        beside(&records, &stage.room, stage.ended())?;
    }
    Ok(())
}

/// That everything for those in the audience went through the link, and none was refused.
fn beside(records: &[Record], room: &str, ended: &BTreeSet<String>) -> Result<()> {
    let mut audience: BTreeMap<String, String> = BTreeMap::new();
    // A refusal may come for one who has left meanwhile.
    let mut ever: BTreeMap<String, String> = BTreeMap::new();
    // Those who were let in for one stanza although they are not inside: they may be refused.
    let mut passing: BTreeSet<String> = BTreeSet::new();
    let mut up = false;
    for record in records {
        let Some(stanza) = traffic::stanza(record) else { continue };
        let to = stanza.attr("to").unwrap_or_default();
        match traffic::payload(&stanza) {
            Some(payload) if record.to == "a" && to == room => {
                let refused = payload.children().filter(|child| child.name() == "refuse");
                for index in refused.filter_map(|child| child.attr("i")) {
                    audience.remove(index);
                    let over = ever.get(index).is_some_and(|jid| ended.contains(jid));
                    ensure!(over || passing.contains(index), "refused: {}", record.xml);
                }
            }
            Some(payload) if stanza.attr("from") == Some(room) => {
                // Before its first envelope the room may not have had the answer to the set-up.
                up |= payload.name() == "envelope";
                let mut new = BTreeSet::new();
                for op in payload.children() {
                    let index = op.attr("i").unwrap_or_default().to_owned();
                    match op.name() {
                        "enter" => {
                            let jid = op.attr("jid").unwrap_or_default().to_owned();
                            new.insert(index.clone());
                            ever.insert(index.clone(), jid.clone());
                            audience.insert(index, jid);
                        }
                        "leave" => {
                            audience.remove(&index);
                            if new.contains(&index) {
                                passing.insert(index);
                            }
                        }
                        _ => {}
                    }
                }
            }
            Some(_) => {}
            None if record.to == "b" && up => {
                let from = stanza.attr("from").unwrap_or_default();
                let beside = from.split('/').next() == Some(room);
                let inside = audience.values().any(|jid| jid == to);
                ensure!(!(beside && inside), "beside the link: {}", record.xml);
            }
            None => {}
        }
    }
    ensure!(up, "no envelope");
    Ok(())
}
