//! ejabberd's MucSub: subscribers beside occupants. Prosody has nothing of it, and says so.

use anyhow::Result;

use super::{enter, leave, script, talk, tell};
use crate::oracle::{Script, Stage};

pub const SCRIPTS: &[Script] = &[script!(subscribers), script!(subscribed_occupants)];

const NODES: &[&str] =
    &["messages", "presence", "participants", "subject", "affiliations", "config", "system"];

async fn subscribe(stage: &Stage<'_>, who: &str, nodes: &[&str]) -> Result<()> {
    let nick = who.split('/').next().unwrap_or_default();
    let events: String =
        nodes.iter().map(|node| format!("<event node='urn:xmpp:mucsub:nodes:{node}'/>")).collect();
    let payload =
        format!("<subscribe xmlns='urn:xmpp:mucsub:0' nick='{nick}'>{events}</subscribe>");
    stage[who].iq(&stage.room, "set", &payload).await?;
    stage.settle().await
}

async fn unsubscribe(stage: &Stage<'_>, who: &str) -> Result<()> {
    stage[who].iq(&stage.room, "set", "<unsubscribe xmlns='urn:xmpp:mucsub:0'/>").await?;
    stage.settle().await
}

/// Everything of which a subscriber may hear.
async fn happen(stage: &mut Stage<'_>, what: &str) -> Result<()> {
    talk(stage, what).await?;
    tell(stage, "host", &format!("<subject>{what}</subject>")).await?;
    let carl = super::jid(stage, "b", "carl");
    for affiliation in ["member", "none"] {
        stage.admin("host", &format!("jid='{carl}' affiliation='{affiliation}'")).await?;
        stage.settle().await?;
    }
    stage.configure("host", &[("muc#roomconfig_roomdesc", what)]).await?;
    stage.settle().await
}

/// On line and not inside, on both servers.
async fn subscribers(stage: &mut Stage<'_>) -> Result<()> {
    stage.configure("host", &[("allow_subscription", "1")]).await?;
    stage.log_in("b", "bert").await?;
    stage.log_in("a", "near").await?;
    for who in ["bert", "near"] {
        subscribe(stage, who, NODES).await?;
    }
    happen(stage, "subscribed").await?;
    stage.arrive(&["carl"]).await?;
    leave(stage, "carl", "carl").await?;
    // What a subscriber says without being inside.
    tell(stage, "bert", "<body>from outside</body>").await?;
    unsubscribe(stage, "bert").await?;
    happen(stage, "one less").await
}

/// Who comes in is served as an occupant.
async fn subscribed_occupants(stage: &mut Stage<'_>) -> Result<()> {
    stage.configure("host", &[("allow_subscription", "1")]).await?;
    stage.log_in("b", "bert").await?;
    for who in ["anna", "lena", "bert"] {
        subscribe(stage, who, NODES).await?;
    }
    happen(stage, "subscribed").await?;
    for _ in 0..2 {
        enter(stage, "bert", "bert", "").await?;
        happen(stage, "with bert").await?;
        leave(stage, "bert", "bert").await?;
        happen(stage, "without bert").await?;
    }
    subscribe(stage, "anna", &["messages"]).await?;
    happen(stage, "less for anna").await?;
    for who in ["anna", "lena", "bert"] {
        unsubscribe(stage, who).await?;
    }
    happen(stage, "nobody").await
}
