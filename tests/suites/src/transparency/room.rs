//! What becomes of the room itself.

use std::time::Duration;

use anyhow::Result;

use super::{enter, jid, leave, message, script, talk, tell};
use crate::oracle::{Script, Stage};

pub const SCRIPTS: &[Script] = &[
    script!(configuration),
    script!(subjects),
    script!(presences),
    script!(reasons),
    script!(absent),
    script!(hidden_roles).settings(&[("muc#roomconfig_presencebroadcast", "moderator")]),
    script!(roles_hidden_and_shown),
    script!(voice_request).settings(&[("muc#roomconfig_moderatedroom", "1")]),
    script!(private_messages_off),
    script!(destroyed_for_good).unsteady(),
];

/// Changes a field that not every server has: its refusal is as good as its consent.
async fn configure(stage: &Stage<'_>, field: &str, value: &str) -> Result<()> {
    let query = format!(
        "<query xmlns='http://jabber.org/protocol/muc#owner'>\
         <x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
         <value>http://jabber.org/protocol/muc#roomconfig</value></field>\
         <field var='{field}'><value>{value}</value></field></x></query>"
    );
    stage["host"].iq(&stage.room, "set", &query).await?;
    stage.settle().await
}

async fn configuration(stage: &mut Stage<'_>) -> Result<()> {
    for (field, value) in [
        ("muc#roomconfig_roomname", "A room & more"),
        ("muc#roomconfig_roomdesc", "ünïcödé"),
        ("muc#roomconfig_publicroom", "0"),
        ("muc#roomconfig_publicroom", "1"),
        ("muc#roomconfig_persistentroom", "1"),
        ("muc#roomconfig_moderatedroom", "1"),
        ("muc#roomconfig_moderatedroom", "0"),
        ("muc#roomconfig_whois", "anyone"),
        ("muc#roomconfig_whois", "moderators"),
        ("muc#roomconfig_enablelogging", "1"),
        ("muc#roomconfig_enablelogging", "0"),
        ("muc#roomconfig_enablearchiving", "0"),
        ("muc#roomconfig_enablearchiving", "1"),
        ("mam", "0"),
        ("mam", "1"),
        ("muc#roomconfig_changesubject", "1"),
    ] {
        let value = value.replace('&', "&amp;");
        configure(stage, field, &value).await?;
        talk(stage, field).await?;
    }
    stage.arrive(&["bert"]).await
}

async fn subjects(stage: &mut Stage<'_>) -> Result<()> {
    for change in ["1", "0"] {
        stage.configure("host", &[("muc#roomconfig_changesubject", change)]).await?;
        stage.settle().await?;
        for who in ["host", "anna", "lena"] {
            tell(stage, who, &format!("<subject>{who}: {change}</subject>")).await?;
            tell(stage, who, "<subject>not</subject><body>a subject</body>").await?;
            tell(stage, who, "<subject>not</subject><thread>a subject</thread>").await?;
            stage.log_in("b", &format!("{who}{change}")).await?;
            enter(stage, &format!("{who}{change}"), "new", "").await?;
            tell(stage, who, "<subject/>").await?;
            leave(stage, &format!("{who}{change}"), "new").await?;
        }
    }
    tell(stage, "host", "<subject>a &lt;b&gt; &amp; c\n d</subject>").await?;
    stage.arrive(&["bert"]).await
}

async fn presences(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    for payload in [
        "<show>away</show><status>to lunch</status>",
        "",
        "<show>dnd</show><status xml:lang='de'>weg</status><status xml:lang='en'>gone</status>",
        // Not caps: the server of each recipient would ask through the room, whenever it gets to it.
        "<priority>-5</priority><show>xa</show><e xmlns='urn:example:e'/>",
        "<x xmlns='vcard-temp:x:update'><photo>0123</photo></x>",
    ] {
        for who in ["bert", "lena"] {
            stage.presence(who, who, payload).await?;
            stage.settle().await?;
        }
    }
    // Twice the same, as clients do it.
    for who in ["bert", "bert", "lena", "lena"] {
        stage.presence(who, who, "<show>away</show>").await?;
    }
    stage.settle().await?;
    for who in ["bert", "lena"] {
        let to = super::address(stage, who);
        let left =
            format!("<presence type='unavailable' to='{to}'><status>bye</status></presence>");
        super::send(stage, who, &left).await?;
        talk(stage, "without one").await?;
        enter(stage, who, who, "").await?;
    }
    talk(stage, "all are back").await
}

/// By whom and why.
async fn reasons(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    let (anna, bert) = (jid(stage, "b", "anna"), jid(stage, "b", "bert"));
    stage.admin("host", &format!("jid='{anna}' affiliation='admin'")).await?;
    stage.settle().await?;
    for who in ["host", "anna"] {
        for change in [
            "nick='bert' role='visitor'".to_owned(),
            "nick='bert' role='moderator'".to_owned(),
            "nick='bert' role='participant'".to_owned(),
            format!("jid='{bert}' affiliation='member'"),
            format!("jid='{bert}' affiliation='none'"),
            "nick='bert' role='none'".to_owned(),
            format!("jid='{bert}' affiliation='outcast'"),
            format!("jid='{bert}' affiliation='none'"),
        ] {
            let payload = format!(
                "<query xmlns='http://jabber.org/protocol/muc#admin'>\
                 <item {change}><reason>{who} &amp; &lt;co&gt;</reason></item></query>"
            );
            stage[who].iq(&stage.room, "set", &payload).await?;
            stage.settle().await?;
            stage.presence("bert", "bert", "").await?;
            stage.settle().await?;
        }
    }
    talk(stage, "later").await
}

/// Of somebody who is not inside.
async fn absent(stage: &mut Stage<'_>) -> Result<()> {
    stage.log_in("b", "bert").await?;
    for whom in [("b", "bert"), ("b", "carl"), ("a", "dora")] {
        let jid = jid(stage, whom.0, whom.1);
        for affiliation in ["member", "admin", "outcast", "none"] {
            let item = format!("jid='{jid}' affiliation='{affiliation}'");
            stage.admin("host", &item).await?;
            stage.settle().await?;
            talk(stage, affiliation).await?;
        }
    }
    // By who may not, of whom there is not, and of the owner.
    let query = "http://jabber.org/protocol/muc#admin";
    for (who, item) in [
        ("anna", "nick='anton' role='none'"),
        ("anna", "nick='host' role='none'"),
        ("host", "nick='nobody' role='none'"),
        ("anna", "jid='nobody@b.test' affiliation='outcast'"),
    ] {
        let payload = format!("<query xmlns='{query}'><item {item}/></query>");
        stage[who].iq(&stage.room.clone(), "set", &payload).await?;
        stage.settle().await?;
    }
    talk(stage, "nothing has happened").await
}

/// From the beginning, so that nobody vanishes together with others: Prosody tells of them in the
/// order of its hash table.
async fn hidden_roles(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    shown(stage, "").await?;
    for role in ["moderator", "participant", "visitor", "participant"] {
        stage.admin("host", &format!("nick='bert' role='{role}'")).await?;
        stage.settle().await?;
        shown(stage, role).await?;
    }
    leave(stage, "bert", "bert").await
}

/// Moderators all but one, whose role is hidden and shown.
async fn roles_hidden_and_shown(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    for who in ["lena", "anna", "anton"] {
        stage.admin("host", &format!("nick='{who}' role='moderator'")).await?;
        stage.settle().await?;
    }
    for (role, others) in [("participant", "visitor"), ("visitor", "participant")] {
        stage.admin("host", &format!("nick='bert' role='{role}'")).await?;
        stage.settle().await?;
        for shown_to in [others.to_owned(), "participant</value><value>visitor".to_owned()] {
            let value = format!("moderator</value><value>{shown_to}");
            stage.configure("host", &[("muc#roomconfig_presencebroadcast", &value)]).await?;
            stage.settle().await?;
            shown(stage, role).await?;
        }
    }
    Ok(())
}

/// Everybody acts, and one changes his nick, and somebody comes and goes.
async fn shown(stage: &mut Stage<'_>, what: &str) -> Result<()> {
    talk(stage, what).await?;
    for nick in ["bertram", "bert"] {
        stage.presence("bert", nick, "").await?;
        stage.settle().await?;
        stage.presence("bert", nick, "<show>away</show>").await?;
        stage.settle().await?;
    }
    stage.log_in("b", "carl").await?;
    enter(stage, "carl", "carl", "").await?;
    leave(stage, "carl", "carl").await?;
    stage.log_out("carl").await
}

async fn voice_request(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    stage.admin("host", "nick='bert' role='visitor'").await?;
    stage.admin("host", "nick='anna' role='moderator'").await?;
    stage.settle().await?;
    tell(stage, "bert", "<body>may I?</body>").await?;
    let form = |fields: &str| {
        format!(
            "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
             <value>http://jabber.org/protocol/muc#request</value></field>\
             <field var='muc#role' type='list-single'><value>participant</value></field>{fields}</x>"
        )
    };
    message(stage, "bert", "normal", "", &form("")).await?;
    let jid = stage["bert"].jid().to_owned();
    let granted = form(&format!(
        "<field var='muc#jid'><value>{jid}</value></field>\
         <field var='muc#roomnick'><value>bert</value></field>\
         <field var='muc#request_allow'><value>true</value></field>"
    ));
    message(stage, "anna", "normal", "", &granted).await?;
    tell(stage, "bert", "<body>thank you</body>").await?;
    talk(stage, "later").await
}

async fn private_messages_off(stage: &mut Stage<'_>) -> Result<()> {
    let fields = [("allow_private_messages", "0"), ("muc#roomconfig_allowpm", "none")];
    for (field, value) in fields {
        configure(stage, field, value).await?;
        for (who, nick) in [("anna", "anton"), ("anna", "lena"), ("lena", "anna")] {
            message(stage, who, "chat", nick, "<body>psst</body>").await?;
        }
    }
    talk(stage, "aloud").await
}

async fn destroyed_for_good(stage: &mut Stage<'_>) -> Result<()> {
    talk(stage, "before").await?;
    let owner = "http://jabber.org/protocol/muc#owner";
    let query = format!("<query xmlns='{owner}'><destroy/></query>");
    stage["anna"].iq(&stage.room.clone(), "set", &query).await?;
    stage.settle().await?;
    stage["host"].iq(&stage.room.clone(), "set", &query).await?;
    // ejabberd loses what comes while the room's process ends.
    tokio::time::sleep(Duration::from_millis(500)).await;
    stage.settle().await?;
    message(stage, "anna", "chat", "lena", "<body>are you there?</body>").await?;
    tell(stage, "anna", "<body>is this still a room?</body>").await
}
