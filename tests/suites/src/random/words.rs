//! What is said and shown.

use fastrand::Rng;

/// What a joiner wants of the history. Nothing that a second more or less would change.
pub const HISTORY: &[&str] = &[
    "",
    "",
    "",
    "<history maxstanzas='0'/>",
    "<history maxstanzas='1'/>",
    "<history maxstanzas='7'/>",
    "<history maxstanzas='50'/>",
    "<history maxchars='0'/>",
    "<history seconds='86400'/>",
    "<history since='1970-01-01T00:00:00Z'/>",
];

/// What goes with presence in the room.
pub const SHOWN: &[&str] = &[
    "",
    "<show>away</show>",
    "<show>dnd</show><status>not now</status>",
    "<status>here</status>",
    "<status xml:lang='de'>hier</status><status>here</status>",
    "<priority>-5</priority><show>xa</show>",
    "<idle xmlns='urn:xmpp:idle:1' since='2020-02-02T02:02:02Z'/>",
    "<x xmlns='vcard-temp:x:update'><photo>0123456789abcdef</photo></x>",
];

/// What goes with leaving.
pub const LEAVING: &[&str] =
    &["", "", "<status>bye</status>", "<status>gone &lt;fishing&gt; \u{1f3a3}</status>"];

/// What his server answers for an occupant.
pub const VCARD: &str = "<vCard xmlns='vcard-temp'/>";

/// What an occupant is asked.
pub const QUESTIONS: &[&str] = &[
    "<ping xmlns='urn:xmpp:ping'/>",
    "<query xmlns='http://jabber.org/protocol/disco#info'/>",
    "<query xmlns='jabber:iq:version'/>",
];

/// Ends of nicks.
pub const ODD: &[&str] = &["", "", "", "\u{f6}", " \u{2603}", "'s", " &"];

/// Type and payload of something said in the room, different each time by its number.
pub fn said(rng: &mut Rng, number: usize) -> (&'static str, String) {
    let body = format!("<body>word {number}</body>");
    let (groupchat, earlier) = ("groupchat", format!("kit-{}", number / 2));
    let payload = match rng.usize(0..24) {
        0 => "<composing xmlns='http://jabber.org/protocol/chatstates'/>".to_owned(),
        1 => "<paused xmlns='http://jabber.org/protocol/chatstates'/>\
              <no-store xmlns='urn:xmpp:hints'/>"
            .to_owned(),
        2 => body + "<active xmlns='http://jabber.org/protocol/chatstates'/>",
        3 => format!("{body}<replace xmlns='urn:xmpp:message-correct:0' id='{earlier}'/>"),
        4 => format!(
            "<reactions xmlns='urn:xmpp:reactions:0' id='{earlier}'><reaction>\u{1f44d}</reaction>\
             <reaction>\u{1f469}\u{200d}\u{1f680}</reaction></reactions><store xmlns='urn:xmpp:hints'/>"
        ),
        5 => body + "<markable xmlns='urn:xmpp:chat-markers:0'/>",
        6 => format!("<displayed xmlns='urn:xmpp:chat-markers:0' id='{earlier}'/>"),
        7 => format!("{body}<origin-id xmlns='urn:xmpp:sid:0' id='origin-{number}'/>"),
        8 => format!("<body>{number} &lt;&amp;&gt;'\"\n\t\u{202e}\u{e000} \u{1f600}</body>"),
        9 => format!("{body}<body xml:lang='de'>Wort {number}</body><thread>t{number}</thread>"),
        10 => format!(
            "{body}<html xmlns='http://jabber.org/protocol/xhtml-im'>\
             <body xmlns='http://www.w3.org/1999/xhtml'><p>word <em>{number}</em></p></body></html>"
        ),
        11 => format!("{body}<stanza-id xmlns='urn:xmpp:sid:0' id='x' by='somebody@a.test'/>"),
        12 => body + "<x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x>",
        13 => format!("<body>{}</body>", format!("{number} ").repeat(rng.usize(100..3000))),
        14 => {
            let many: String = (0..rng.usize(10..200)).map(|n| format!("<n{n}/>")).collect();
            format!("{body}<many xmlns='urn:example:many'>{many}</many>")
        }
        15 => format!("<subject>about {number}</subject>{body}"),
        16 => format!("<subject>subject {number}</subject>"),
        17 => "<subject/>".to_owned(),
        18 => return ("chat", body),
        _ => body,
    };
    (groupchat, payload)
}

/// Payload of a private message.
pub fn whispered(rng: &mut Rng, number: usize) -> String {
    let x = "<x xmlns='http://jabber.org/protocol/muc#user'/>";
    match rng.usize(0..6) {
        0 => format!("<composing xmlns='http://jabber.org/protocol/chatstates'/>{x}"),
        1 => format!("<body>whisper {number}</body><request xmlns='urn:xmpp:receipts'/>{x}"),
        2 => format!("<body>whisper {number}</body>"),
        _ => format!("<body>whisper {number}</body>{x}"),
    }
}

/// Asks for a voice.
pub const VOICE: &str = "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
     <value>http://jabber.org/protocol/muc#request</value></field>\
     <field var='muc#role' type='list-single'><value>participant</value></field></x>";

/// As a client's server would say that it is no longer there.
pub const GONE: &str =
    "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
