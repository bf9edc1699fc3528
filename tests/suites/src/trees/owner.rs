//! Whether servers of occupants may learn of each other, the owner of a room says in its form.

use anyhow::{Context, Result, ensure};
use dmuc_testkit::{Client, Kind, Received};

use super::wood::{Grove, REPLICAS, Wood, egress};
use crate::scene::log_in;

/// As docs/operations.md has it.
const FIELD: &str = "{urn:xmpp:tmp:dmuc:1}show_domains";
const PERSISTENT: (&str, &str) = ("muc#roomconfig_persistentroom", "1");

pub async fn play(wood: &Wood) -> Result<()> {
    // Its occupants do not see real JIDs.
    let grove = wood.gather("council", &[PERSISTENT]).await?;
    let [owner, other] = &grove.local[..] else { anyhow::bail!("two users") };
    one_level(&grove).await?;
    ensure!(value(owner, &grove.room).await?.as_deref() == Some("0"), "nobody has said anything");

    let refused = other.configure(&grove.room, &[(FIELD, "1")]).await?;
    ensure!(refused.attr("type") == "error", "only owners may: {}", refused.xml());
    let answer = owner.configure(&grove.room, &[(FIELD, "perhaps")]).await?;
    // Prosody says nothing of values that it cannot read.
    let is_refused = answer.attr("type") == "error";
    ensure!(is_refused || wood.lab.server("a").kind() == Kind::Prosody);
    ensure!(value(owner, &grove.room).await?.as_deref() == Some("0"), "no owner has said yes");
    one_level(&grove).await?;

    accepted(&owner.configure(&grove.room, &[(FIELD, "1")]).await?)?;
    ensure!(value(owner, &grove.room).await?.as_deref() == Some("1"), "he has said yes");
    grove.settle().await.context("after the owner's yes")?;
    accepted(&owner.configure(&grove.room, &[(FIELD, "false")]).await?)?;
    one_level(&grove).await?;

    // Kept with the room.
    accepted(&owner.configure(&grove.room, &[(FIELD, "true")]).await?)?;
    let room = grove.room.clone();
    drop(grove);
    let server = wood.lab.server("a");
    server.restart().await?;
    let owner = &log_in(server, &["council-a00".to_owned()]).await?[0];
    ensure!(value(owner, &room).await?.as_deref() == Some("1"), "after a restart");
    let destroy = "<query xmlns='http://jabber.org/protocol/muc#owner'><destroy/></query>";
    accepted(&owner.iq(&room, "set", destroy).await?)?;
    // Prosody lets nobody make another one for a month.
    if server.kind() == Kind::Ejabberd {
        owner.create(&room, "council-a00", &[]).await?;
        ensure!(value(owner, &room).await?.as_deref() == Some("0"), "another room of that name");
    }
    Ok(())
}

/// Messages go to each server from the room.
async fn one_level(grove: &Grove<'_>) -> Result<()> {
    grove.until("a tree", |paths| egress(paths) == REPLICAS.len()).await?;
    let paths = grove.look("to each of them").await?;
    ensure!(egress(&paths) == REPLICAS.len() && paths.len() == REPLICAS.len(), "{paths:?}");
    Ok(())
}

/// What the form says.
async fn value(owner: &Client, room: &str) -> Result<Option<String>> {
    let query = "<query xmlns='http://jabber.org/protocol/muc#owner'/>";
    let answer = owner.iq(room, "get", query).await?;
    accepted(&answer)?;
    let xml = answer.xml();
    let Some((_, field)) = xml.split_once(FIELD) else { return Ok(None) };
    let field = field.split_once("</field>").context("a field")?.0;
    let value = field.split_once("<value>").and_then(|(_, rest)| rest.split_once("</value>"));
    Ok(value.map(|(value, _)| value.to_owned()))
}

fn accepted(answer: &Received) -> Result<()> {
    ensure!(answer.attr("type") == "result", "{}", answer.xml());
    Ok(())
}
