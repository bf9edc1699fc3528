//! Who gets in, and what he hears first.

use anyhow::Result;

use super::{enter, jid, leave, message, script, talk, tell};
use crate::oracle::{Script, Stage};

pub const SCRIPTS: &[Script] = &[
    script!(history),
    script!(history_of_the_first).unlinked(),
    script!(history_of_an_empty_room)
        .settings(&[("muc#roomconfig_persistentroom", "1")])
        .unsteady(),
    script!(password),
    script!(members_only),
    script!(full),
    script!(banned_before),
    script!(invitations),
];

const HISTORIES: &[&str] = &[
    "",
    "<history maxstanzas='0'/>",
    "<history maxstanzas='2'/>",
    "<history maxstanzas='1000'/>",
    "<history maxchars='0'/>",
    "<history seconds='100000'/>",
    "<history since='1970-01-01T00:00:00Z'/>",
    "<history since='2099-01-01T00:00:00Z'/>",
    "<history maxstanzas='3' seconds='100000'/>",
];

async fn history(stage: &mut Stage<'_>) -> Result<()> {
    for n in 0..3 {
        talk(stage, &format!("number {n}")).await?;
    }
    stage.log_in("b", "bert").await?;
    for asked in HISTORIES {
        enter(stage, "bert", "bert", asked).await?;
        stage.say("host", "welcome").await?;
        leave(stage, "bert", "bert").await?;
    }
    Ok(())
}

async fn history_of_the_first(stage: &mut Stage<'_>) -> Result<()> {
    stage.log_in("b", "anna").await?;
    tell(stage, "host", "<subject>of old</subject>").await?;
    for n in 0..5 {
        tell(stage, "host", &format!("<body>number {n}</body>")).await?;
    }
    enter(stage, "anna", "anna", "<history maxstanzas='2'/>").await?;
    tell(stage, "host", "<body>alone</body>").await?;
    for who in ["anton", "bert"] {
        stage.log_in("b", who).await?;
        enter(stage, who, who, "<history maxstanzas='3'/>").await?;
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    talk(stage, "all of us").await
}

async fn history_of_an_empty_room(stage: &mut Stage<'_>) -> Result<()> {
    let all = ["anton", "anna", "lena", "host"];
    talk(stage, "before").await?;
    for who in all {
        leave(stage, who, who).await?;
    }
    for who in all {
        enter(stage, who, who, "<history maxstanzas='2'/>").await?;
    }
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    talk(stage, "again").await?;
    talk(stage, "and again").await
}

async fn password(stage: &mut Stage<'_>) -> Result<()> {
    let secret =
        [("muc#roomconfig_passwordprotectedroom", "1"), ("muc#roomconfig_roomsecret", "hush")];
    stage.configure("host", &secret).await?;
    stage.settle().await?;
    talk(stage, "inside already").await?;
    stage.log_in("b", "bert").await?;
    for tried in ["", "<password/>", "<password>noise</password>", "<password>hush</password>"] {
        enter(stage, "bert", "bert", tried).await?;
        talk(stage, "bert?").await?;
    }
    leave(stage, "bert", "bert").await?;
    let open = [("muc#roomconfig_passwordprotectedroom", "0"), ("muc#roomconfig_roomsecret", "")];
    stage.configure("host", &open).await?;
    stage.settle().await?;
    enter(stage, "bert", "bert", "").await?;
    talk(stage, "open").await
}

/// One at a time is put out: several would go in the order of Prosody's hash table.
async fn members_only(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    for (server, who) in [("a", "lena"), ("b", "anna"), ("b", "anton")] {
        let item = format!("jid='{}' affiliation='member'", jid(stage, server, who));
        stage.admin("host", &item).await?;
        stage.settle().await?;
    }
    stage.configure("host", &[("muc#roomconfig_membersonly", "1")]).await?;
    stage.settle().await?;
    talk(stage, "bert is out").await?;
    enter(stage, "bert", "bert", "").await?;
    let bert = jid(stage, "b", "bert");
    for affiliation in ["member", "none", "member"] {
        stage.admin("host", &format!("jid='{bert}' affiliation='{affiliation}'")).await?;
        stage.settle().await?;
        enter(stage, "bert", "bert", "").await?;
        talk(stage, affiliation).await?;
    }
    stage.configure("host", &[("muc#roomconfig_membersonly", "0")]).await?;
    stage.settle().await?;
    stage.admin("host", &format!("jid='{bert}' affiliation='none'")).await?;
    stage.settle().await?;
    stage.arrive(&["carl"]).await?;
    talk(stage, "for all").await
}

async fn full(stage: &mut Stage<'_>) -> Result<()> {
    stage.configure("host", &[("muc#roomconfig_maxusers", "5")]).await?;
    stage.settle().await?;
    for who in ["bert", "carl"] {
        stage.log_in("b", who).await?;
        enter(stage, who, who, "").await?;
        talk(stage, who).await?;
    }
    leave(stage, "bert", "bert").await?;
    enter(stage, "carl", "carl", "").await?;
    talk(stage, "one of them").await
}

async fn banned_before(stage: &mut Stage<'_>) -> Result<()> {
    stage.log_in("b", "bert").await?;
    let bert = jid(stage, "b", "bert");
    for affiliation in ["outcast", "none", "admin", "none", "owner", "member"] {
        let item = format!("jid='{bert}' affiliation='{affiliation}'");
        stage.admin("host", &item).await?;
        stage.settle().await?;
        enter(stage, "bert", "bert", "").await?;
        talk(stage, affiliation).await?;
        leave(stage, "bert", "bert").await?;
    }
    Ok(())
}

async fn invitations(stage: &mut Stage<'_>) -> Result<()> {
    stage.log_in("b", "bert").await?;
    let away = stage.user("carl");
    stage.lab().server("b").register(&[&away]).await?;
    for who in ["host", "anna"] {
        for whom in ["bert", "carl", "anton"] {
            let to = jid(stage, "b", whom);
            let invite = format!(
                "<x xmlns='http://jabber.org/protocol/muc#user'>\
                 <invite to='{to}'><reason>come, {whom}</reason></invite></x>"
            );
            message(stage, who, "normal", "", &invite).await?;
        }
    }
    let host = jid(stage, "a", "host");
    let decline = format!(
        "<x xmlns='http://jabber.org/protocol/muc#user'>\
         <decline to='{host}'><reason>no time</reason></decline></x>"
    );
    message(stage, "bert", "normal", "", &decline).await?;
    // Directly, and through the room.
    let direct = format!("<x xmlns='jabber:x:conference' jid='{}' reason='come'/>", stage.room);
    let (id, to) = (stage["anna"].fresh_id(), jid(stage, "b", "bert"));
    super::send(stage, "anna", &format!("<message to='{to}' id='{id}'>{direct}</message>")).await?;
    message(stage, "anna", "normal", "host", &direct).await?;
    message(stage, "host", "normal", "anton", &direct).await?;
    enter(stage, "bert", "bert", "").await?;
    // Who was off line.
    stage.log_in("b", "carl").await?;
    stage.settle().await?;
    enter(stage, "carl", "carl", "").await?;
    talk(stage, "all here").await
}
