//! What a stanza may have inside, and the names it may come from.

use std::fmt::Write as _;

use anyhow::Result;
use dmuc_testkit::xml;

use super::{enter, leave, message, script, talk, tell};
use crate::oracle::{Script, Stage};

pub const SCRIPTS: &[Script] = &[
    script!(kinds),
    script!(spoofed),
    script!(bodies),
    script!(long),
    script!(many),
    script!(odd_names),
    // ejabberd refuses it as it reads it, before the room and so beside the link.
    script!(emoji_nick).unsteady(),
];

const KINDS: &[&str] = &[
    "<body>correct</body><replace xmlns='urn:xmpp:message-correct:0' id='kit-1'/>",
    "<reactions xmlns='urn:xmpp:reactions:0' id='x'><reaction>👍🏽</reaction><reaction>🏳️‍🌈</reaction>\
     </reactions><store xmlns='urn:xmpp:hints'/>",
    "<composing xmlns='http://jabber.org/protocol/chatstates'/>",
    "<paused xmlns='http://jabber.org/protocol/chatstates'/><no-store xmlns='urn:xmpp:hints'/>",
    "<displayed xmlns='urn:xmpp:chat-markers:0' id='x'/>",
    "<body>mark me</body><markable xmlns='urn:xmpp:chat-markers:0'/>\
     <request xmlns='urn:xmpp:receipts'/><origin-id xmlns='urn:xmpp:sid:0' id='mine'/>",
    "<received xmlns='urn:xmpp:receipts' id='x'/>",
    "<retract xmlns='urn:xmpp:message-retract:1' id='x'/><body>gone</body>\
     <fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:message-retract:1'/>",
    "<body>http://x.test/</body><x xmlns='jabber:x:oob'><url>http://x.test/</url></x>",
    "<body>bold</body><html xmlns='http://jabber.org/protocol/xhtml-im'>\
     <body xmlns='http://www.w3.org/1999/xhtml'><p>a <b>bold</b> tail</p></body></html>",
    "<body xml:lang='de'>hallo</body><body xml:lang='en'>hello</body><thread parent='p'>t</thread>",
    "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'><key rid='2'>AA==</key>\
     </header></encrypted><encryption xmlns='urn:xmpp:eme:0' namespace='x' name='OMEMO'/>",
    "",
];

async fn kinds(stage: &mut Stage<'_>) -> Result<()> {
    for kind in KINDS {
        for who in ["lena", "anna"] {
            tell(stage, who, kind).await?;
        }
        message(stage, "anna", "chat", "lena", kind).await?;
        message(stage, "lena", "chat", "anna", kind).await?;
    }
    stage.arrive(&["bert"]).await
}

/// What only a room or a server should say.
async fn spoofed(stage: &mut Stage<'_>) -> Result<()> {
    let room = stage.room.clone();
    let user = "http://jabber.org/protocol/muc#user";
    for payload in [
        format!("<stanza-id xmlns='urn:xmpp:sid:0' by='{room}' id='spoofed'/>"),
        "<stanza-id xmlns='urn:xmpp:sid:0' by='other.test' id='spoofed'/>".to_owned(),
        "<occupant-id xmlns='urn:xmpp:occupant-id:0' id='spoofed'/>".to_owned(),
        format!("<delay xmlns='urn:xmpp:delay' from='{room}' stamp='2001-01-01T00:00:00Z'/>"),
        format!("<x xmlns='{user}'><status code='110'/></x>"),
        "<addresses xmlns='http://jabber.org/protocol/address'>\
         <address type='to' jid='x@y.test'/></addresses>"
            .to_owned(),
    ] {
        for who in ["lena", "anna"] {
            tell(stage, who, &format!("<body>spoofed</body>{payload}")).await?;
            stage.presence(who, who, &payload).await?;
            stage.settle().await?;
        }
    }
    Ok(())
}

async fn bodies(stage: &mut Stage<'_>) -> Result<()> {
    for body in [
        "",
        " ",
        "  around  ",
        "line\nline\ttab\n",
        "a]]>b <![CDATA[c]]> &amp; \"d\" 'e'",
        "\u{1F469}\u{200D}\u{1F469}\u{200D}\u{1F467} \u{10FFFD}",
        "e\u{301} \u{202E}left\u{202C} \u{2028} \u{FEFF} \u{AD}",
        "\u{85}\u{A0}\u{3000}",
        "/me does",
    ] {
        for who in ["lena", "anna"] {
            let body = xml::escape(body);
            tell(stage, who, &format!("<body>{body}</body>")).await?;
        }
    }
    // Character references.
    tell(stage, "anna", "<body>a&#13;b&#10;c&#9;d&#x1F600;</body>").await?;
    tell(stage, "lena", "<body>a&#13;b&#10;c&#9;d&#x1F600;</body><x xmlns='u:x' a='&#10;&#9;'/>")
        .await
}

/// As long as an envelope still takes it; see `large` for more.
async fn long(stage: &mut Stage<'_>) -> Result<()> {
    for body in ["x".repeat(120_000), "&amp;".repeat(20_000), "\u{1F600}".repeat(25_000)] {
        for who in ["lena", "anna"] {
            tell(stage, who, &format!("<body>{body}</body>")).await?;
            message(stage, who, "chat", "anton", &format!("<body>{body}</body>")).await?;
            stage.presence(who, who, &format!("<status>{body}</status>")).await?;
            stage.settle().await?;
        }
    }
    stage.arrive(&["bert"]).await
}

async fn many(stage: &mut Stage<'_>) -> Result<()> {
    let mut wide = String::from("<body>wide</body>");
    for n in 0..400 {
        let _ = write!(wide, "<e{n} xmlns='urn:example:{}' a='{n}'>t<b/>u</e{n}>", n % 7);
    }
    let deep = |levels: usize| {
        format!(
            "<body>deep</body>{}x{}",
            "<d xmlns='urn:example:deep'>".repeat(levels),
            "</d>".repeat(levels)
        )
    };
    let prefixed = "<body>prefixed</body><p:a xmlns:p='urn:example:p' xmlns:q='urn:example:q' \
                    q:b='1' b='2'><p:c/><c xmlns='urn:example:c'><p:d q:e='3'/></c></p:a>";
    for payload in [wide.as_str(), &deep(30), prefixed] {
        for who in ["lena", "anna"] {
            tell(stage, who, payload).await?;
        }
        message(stage, "lena", "chat", "anna", payload).await?;
        message(stage, "anna", "chat", "lena", payload).await?;
        stage.presence("anton", "anton", payload).await?;
        stage.settle().await?;
        stage.presence("lena", "lena", payload).await?;
        stage.settle().await?;
    }
    stage.arrive(&["bert"]).await
}

const NICKS: &[&str] = &[
    "with space",
    "a/b@c",
    "O&apos;Neill &amp; &lt;sons&gt; &quot;",
    "ΣΊΣΥΦΟΣ",
    "שלום",
    "ＦＵＬＬ",
    "Anna",
    "e\u{301}",
    "ß",
];

async fn odd_names(stage: &mut Stage<'_>) -> Result<()> {
    for who in ["bert/phone ☎ & <more>", "carl/a/b@c", "dora/ΣΊΣ"] {
        stage.log_in("b", who).await?;
        stage.enter(who).await?;
        stage.settle().await?;
        tell(stage, who, "<body>here</body>").await?;
        stage.whisper("host", who.split('/').next().unwrap_or_default(), "you").await?;
        stage.settle().await?;
    }
    stage.log_in("b", "emil").await?;
    for nick in NICKS {
        named(stage, "emil", nick).await?;
    }
    talk(stage, "later").await
}

async fn emoji_nick(stage: &mut Stage<'_>) -> Result<()> {
    stage.log_in("b", "emil").await?;
    named(stage, "emil", "\u{1F469}\u{200D}\u{1F467}").await?;
    talk(stage, "later").await
}

/// Somebody is there under a nick, is spoken to, and another takes one like it.
async fn named(stage: &Stage<'_>, who: &str, nick: &str) -> Result<()> {
    enter(stage, who, nick, "").await?;
    tell(stage, who, "<body>here</body>").await?;
    message(stage, "lena", "chat", nick, "<body>you</body>").await?;
    message(stage, "anna", "chat", nick, "<body>you</body>").await?;
    stage.presence("lena", &format!("{nick} too"), "").await?;
    stage.settle().await?;
    leave(stage, who, nick).await
}
