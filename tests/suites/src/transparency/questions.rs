//! Questions to the room and through it, and what is wrong.

use anyhow::Result;
use dmuc_testkit::Received;
use futures::future::try_join;

use super::{address, message, script, talk};
use crate::oracle::{Script, Stage};
use crate::scene::SOON;

pub const SCRIPTS: &[Script] =
    &[script!(of_the_room), script!(of_occupants), script!(self_ping), script!(errors)];

const DISCO: &str = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
const PING: &str = "<ping xmlns='urn:xmpp:ping'/>";
const VCARD: &str = "<vCard xmlns='vcard-temp'/>";
const VERSION: &str = "<query xmlns='jabber:iq:version'/>";

async fn ask(stage: &Stage<'_>, who: &str, nick: &str, payload: &str) -> Result<()> {
    stage[who].iq(&address(stage, nick), "get", payload).await?;
    stage.settle().await
}

async fn of_the_room(stage: &mut Stage<'_>) -> Result<()> {
    stage.log_in("b", "bert").await?;
    let node = "<query xmlns='http://jabber.org/protocol/disco#info' \
                node='http://jabber.org/protocol/muc#traffic'/>";
    let nick = "<query xmlns='http://jabber.org/protocol/disco#info' node='x-roomuser-item'/>";
    for who in ["host", "anna", "bert"] {
        for payload in [
            DISCO,
            node,
            nick,
            PING,
            VCARD,
            "<query xmlns='jabber:iq:register'/>",
            "<unknown xmlns='urn:example:unknown'/>",
        ] {
            ask(stage, who, "", payload).await?;
        }
        for affiliation in ["owner", "member", "outcast"] {
            let admin = "http://jabber.org/protocol/muc#admin";
            let list =
                format!("<query xmlns='{admin}'><item affiliation='{affiliation}'/></query>");
            ask(stage, who, "", &list).await?;
        }
    }
    let card = "<vCard xmlns='vcard-temp'><FN>The room</FN><PHOTO><TYPE>image/png</TYPE>\
                <BINVAL>aGVsbG8=</BINVAL></PHOTO></vCard>";
    for who in ["anna", "host"] {
        stage[who].iq(&stage.room.clone(), "set", card).await?;
        stage.settle().await?;
    }
    ask(stage, "anna", "", VCARD).await?;
    stage.arrive(&["carl"]).await?;
    talk(stage, "later").await
}

/// Asks an occupant, who answers with this.
async fn asked(
    stage: &Stage<'_>,
    (who, whom): (&str, &str),
    question: &str,
    kind: &str,
    answer: &str,
) -> Result<()> {
    stage[whom].mark();
    let answering = async {
        let question = stage[whom].wait_for(|r: &Received| r.attr("type") == "get", SOON).await?;
        let (to, id) = (question.attr("from"), question.attr("id"));
        let answer = format!("<iq type='{kind}' to='{to}' id='{id}'>{answer}</iq>");
        stage[whom].send_xml(&answer)
    };
    try_join(stage[who].iq(&address(stage, whom), "get", question), answering).await?;
    stage.settle().await
}

async fn of_occupants(stage: &mut Stage<'_>) -> Result<()> {
    let version = "<query xmlns='jabber:iq:version'><name>kit</name><version>1</version></query>";
    let disco = "<query xmlns='http://jabber.org/protocol/disco#info'>\
                 <identity category='client' type='pc'/><feature var='urn:xmpp:ping'/></query>";
    let refusal = "<error type='cancel'>\
                   <feature-not-implemented xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    for pair in [("anna", "host"), ("host", "anna"), ("anna", "anton"), ("lena", "anton")] {
        asked(stage, pair, VERSION, "result", version).await?;
        asked(stage, pair, DISCO, "result", disco).await?;
        asked(stage, pair, "<time xmlns='urn:xmpp:time'/>", "error", refusal).await?;
        asked(stage, pair, PING, "result", "").await?;
        // The account's server answers that.
        ask(stage, pair.0, pair.1, VCARD).await?;
    }
    stage.log_in("b", "bert").await?;
    for (who, nick) in [("anna", "nobody"), ("bert", "anna"), ("bert", "nobody")] {
        for payload in [VERSION, VCARD, PING] {
            ask(stage, who, nick, payload).await?;
        }
    }
    talk(stage, "later").await
}

/// XEP-0410.
async fn self_ping(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    for n in 0..3 {
        for who in ["bert", "host"] {
            ask(stage, who, who, PING).await?;
        }
        ask(stage, "bert", "nobody", PING).await?;
        match n {
            0 => stage.kick("host", "bert").await?,
            1 => stage.enter("bert").await?,
            _ => {}
        }
        stage.settle().await?;
        talk(stage, "later").await?;
    }
    stage.presence("bert", "bertram", "").await?;
    stage.settle().await?;
    ask(stage, "bert", "bertram", PING).await?;
    ask(stage, "bert", "bert", PING).await
}

async fn errors(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    stage.log_in("b", "carl").await?;
    let body = "<body>hm</body>";
    for (who, kind, nick) in [
        ("anna", "chat", "nobody"),
        ("host", "chat", "nobody"),
        ("anna", "groupchat", "anton"),
        ("anna", "headline", "anton"),
        ("anna", "normal", "anton"),
        ("carl", "chat", "anna"),
        ("carl", "groupchat", ""),
        ("carl", "chat", ""),
        ("anna", "chat", "anna"),
    ] {
        message(stage, who, kind, nick, body).await?;
    }
    let error = "<error type='cancel'>\
                 <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    // An occupant who cannot be reached is put out.
    for nick in ["host", ""] {
        message(stage, "bert", "error", nick, error).await?;
        talk(stage, "bert?").await?;
        stage.enter("bert").await?;
        stage.settle().await?;
    }
    let to = address(stage, "bert");
    super::send(stage, "bert", &format!("<presence type='error' to='{to}'>{error}</presence>"))
        .await?;
    talk(stage, "bert?").await
}
