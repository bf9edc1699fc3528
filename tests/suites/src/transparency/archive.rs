//! What has a lasting name: messages in the archive, their authors, and what becomes of them later.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use dmuc_testkit::Received;

use super::{enter, leave, script, send, talk, tell};
use crate::oracle::{Script, Stage};

pub const SCRIPTS: &[Script] =
    &[script!(archive), script!(occupant_ids), script!(moderation), script!(retraction)];

const SID: &str = "urn:xmpp:sid:0";
const HERE: &[&str] = &["host", "lena", "anna", "anton"];

/// Asks for something to be changed; a refusal is an answer, too.
async fn set(stage: &Stage<'_>, who: &str, payload: &str) -> Result<Received> {
    let answer = stage[who].iq(&stage.room, "set", payload).await?;
    stage.settle().await?;
    Ok(answer)
}

/// Body and id of what the room has named, as one of them has heard it.
fn named(stage: &Stage<'_>, who: &str) -> Vec<(String, String)> {
    let name = |stanza: &Received| {
        let id = stanza.element.get_child("stanza-id", SID)?;
        (id.attr("by") == Some(&stage.room))
            .then(|| Some((stanza.body()?, id.attr("id")?.to_owned())))?
    };
    stage[who].received().iter().filter_map(name).collect()
}

/// Ids differ from run to run: here is what has to be said of them.
async fn archive(stage: &mut Stage<'_>) -> Result<()> {
    for n in 0..3 {
        for who in HERE {
            tell(stage, who, &format!("<body>{who} {n}</body>")).await?;
        }
        talk(stage, "between").await?;
    }
    let ids = named(stage, "host");
    for who in HERE {
        let same = named(stage, who) == ids;
        stage.note(format!("{who} knows the {} ids of the others: {same}", ids.len()));
    }
    stage.log_in("b", "bert").await?;
    for (who, asked) in [
        ("host", ""),
        ("anna", ""),
        ("bert", ""),
        ("anna", "<set xmlns='http://jabber.org/protocol/rsm'><max>2</max><before/></set>"),
        ("anna", "<set xmlns='http://jabber.org/protocol/rsm'><max>2</max></set>"),
    ] {
        stage[who].mark();
        let before = stage[who].received().len();
        set(stage, who, &format!("<query xmlns='urn:xmpp:mam:2' queryid='q'>{asked}</query>"))
            .await?;
        let found: Vec<String> = stage[who].received()[before..]
            .iter()
            .filter_map(|r| r.element.get_child("result", "urn:xmpp:mam:2"))
            .filter_map(|result| result.attr("id").map(str::to_owned))
            .filter(|found| ids.iter().any(|(_, id)| id == found))
            .collect();
        stage.note(format!("{who} finds {} of them", found.len()));
    }
    enter(stage, "bert", "bert", "<history maxstanzas='5'/>").await?;
    let old = named(stage, "bert").into_iter().filter(|name| ids.contains(name)).count();
    stage.note(format!("history has {old} of them"));
    Ok(())
}

/// XEP-0421: an occupant's id is the same for all, on every stanza, and on his return.
async fn occupant_ids(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    talk(stage, "before").await?;
    stage.presence("bert", "bertram", "").await?;
    tell(stage, "bert", "<body>another</body>").await?;
    leave(stage, "bert", "bertram").await?;
    enter(stage, "bert", "robert", "").await?;
    tell(stage, "bert", "<body>yet another</body>").await?;
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for who in HERE {
        for stanza in stage[who].received() {
            let id = stanza.element.get_child("occupant-id", "urn:xmpp:occupant-id:0");
            let nick = stanza.attr("from").rsplit('/').next().unwrap_or_default();
            let one = if nick.contains("bert") { "bert" } else { nick };
            if let Some(id) = id.and_then(|id| id.attr("id")) {
                ids.entry(one.to_owned()).or_default().insert(id.to_owned());
            }
        }
    }
    for (nick, ids) in ids {
        stage.note(format!("{nick} has {} ids", ids.len()));
    }
    Ok(())
}

/// XEP-0425, in both of its versions.
async fn moderation(stage: &mut Stage<'_>) -> Result<()> {
    for n in 0..4 {
        for who in ["anna", "lena"] {
            tell(stage, who, &format!("<body>{who}: something bad {n}</body>")).await?;
        }
    }
    let ids = named(stage, "host");
    for (n, (_, id)) in ids.iter().enumerate() {
        let retract = "<retract xmlns='urn:xmpp:message-retract:1'/>";
        let old = "<retract xmlns='urn:xmpp:message-retract:0'/>";
        let payload = match n % 4 {
            0 | 1 => format!(
                "<moderate xmlns='urn:xmpp:message-moderate:1' id='{id}'>{retract}\
                 <reason>too bad</reason></moderate>"
            ),
            _ => format!(
                "<apply-to xmlns='urn:xmpp:fasten:0' id='{id}'>\
                 <moderate xmlns='urn:xmpp:message-moderate:0'>{old}\
                 <reason>too bad</reason></moderate></apply-to>"
            ),
        };
        // Only a moderator may.
        for who in ["anna", "host"] {
            set(stage, who, &payload).await?;
        }
    }
    let unknown = "<moderate xmlns='urn:xmpp:message-moderate:1' id='nothing'>\
                   <retract xmlns='urn:xmpp:message-retract:1'/></moderate>";
    set(stage, "host", unknown).await?;
    stage.arrive(&["bert"]).await?;
    talk(stage, "later").await
}

/// XEP-0424: by who has said it, and by another.
async fn retraction(stage: &mut Stage<'_>) -> Result<()> {
    for who in ["anna", "lena"] {
        tell(stage, who, "<body>a mistake</body>").await?;
    }
    for (_, id) in named(stage, "host") {
        for who in ["anna", "lena"] {
            let retract = format!(
                "<retract xmlns='urn:xmpp:message-retract:1' id='{id}'/><body>gone</body>\
                 <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:message-retract:1'/>"
            );
            tell(stage, who, &retract).await?;
            let reaction = format!(
                "<reactions xmlns='urn:xmpp:reactions:0' id='{id}'><reaction>👍</reaction></reactions>"
            );
            tell(stage, who, &reaction).await?;
        }
    }
    let room = stage.room.clone();
    send(
        stage,
        "anna",
        &format!("<message type='groupchat' to='{room}'><body>no id</body></message>"),
    )
    .await?;
    stage.arrive(&["bert"]).await
}
