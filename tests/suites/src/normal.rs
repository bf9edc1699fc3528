//! What a client received, in a form that can be compared with another run's.
//!
//! Everything counts, to the last attribute, but for what is different in any two runs of plain MUC:
//!
//! - ids that a server has made up: of stanzas (the tests' own are kept), of `<stanza-id/>`, `<archived/>`,
//!   an archive's `<result/>` and a subscription's `<item/>`, and of `<occupant-id/>`, which is salted for
//!   each room. Those of a room's messages are numbered, wherever they appear, and the numbers count
//! - time stamps of `<delay/>`, and the day on which a room was made
//! - the order of a room's occupants in the list for somebody who enters: the servers' own is that of a
//!   hash table, in Prosody with a seed of the process; for the same reason that of everything in an
//!   answer to disco#info and in a result set (RSM), of the items of one nick with several sessions, and
//!   of what Prosody adds to an invitation
//! - when the answers come to questions that a test asks only to wait for the room ([`WAITING`])
//! - the `<delay/>` of the user's own server on what it sends anew after a resumption: which stanzas were
//!   under way is a matter of milliseconds
//! - the user's own presence, of which sessions that come and go at the same time hear or do not
//!
//! and for one thing that is meant to be different: the feature that says that a server speaks dmuc.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Result;
use dmuc_testkit::minidom::Element;
use dmuc_testkit::minidom::Node;
use dmuc_testkit::{Client, Kind, Received, Server, xml};

use crate::scene::SOON;
use crate::traffic;

/// Whose parts come in the order of a hash table.
const SETS: [&str; 2] = ["http://jabber.org/protocol/disco#info", "http://jabber.org/protocol/rsm"];

const MAM: &str = "urn:xmpp:mam:2";
const MUC_USER: &str = "http://jabber.org/protocol/muc#user";

/// What stands for something that differs in any two runs.
const ANY: &str = "~";

/// Ids that start so are the tests' own (see `Client::fresh_id`).
const OWN_IDS: &str = "kit-";

/// What the ids of such questions begin with.
const WAITING: &str = "waiting-";

/// A client's stanzas, each in normal form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// From the rooms' server, in order.
    pub rooms: Vec<String>,
    /// From everybody else, in order: nothing orders the two with respect to each other.
    pub others: Vec<String>,
}

/// Asks the room something and waits for the answer, which comes after all that it sent before; that
/// this was asked is not compared.
pub async fn wait_for_room(client: &Client, room: &str) -> Result<()> {
    let id = format!("{WAITING}{}", client.fresh_id());
    client.send_xml(&format!(
        "<iq to='{room}' type='get' id='{id}'>\
         <query xmlns='http://jabber.org/protocol/disco#info'/></iq>"
    ))?;
    client.wait_for(|r| r.attr("id") == id, SOON).await.map(drop)
}

/// What each client has heard of rooms of `server`, and of others, in normal form.
pub fn heard_by_all(
    clients: impl Iterator<Item = (String, Vec<Received>)>,
    server: &Server,
) -> BTreeMap<String, Heard> {
    let (muc, lists) = (server.muc(), server.kind() == Kind::Prosody);
    let all: Vec<_> = clients.collect();
    let mut known = Known::default();
    all.iter().for_each(|(_, received)| known.learn(received, &muc));
    all.into_iter().map(|(who, received)| (who, heard(&received, &muc, lists, &known))).collect()
}

/// Brings all that a client received into normal form. `muc` is the domain of the rooms.
/// `lists` for a room of Prosody, which sends such a list also to somebody who is inside: who becomes a
/// moderator, or enters again. Who has blocked a room has not heard that he is out of it; of others than
/// Prosody's the list is then known by its end, the own presence, and by naming each occupant once.
fn heard(received: &[Received], muc: &str, lists: bool, known: &Known) -> Heard {
    let mut heard = Heard::default();
    // What the room under way has sent since its list of occupants may have begun.
    let mut entering: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for stanza in received {
        if stanza.attr("id").starts_with(WAITING) {
            continue;
        }
        let bare = |jid: &str| jid.split('/').next().unwrap_or_default().to_owned();
        if stanza.element.name() == "presence"
            && bare(stanza.attr("from")) == bare(stanza.attr("to"))
        {
            continue;
        }
        let text = stanza_text(&stanza.element, known);
        if xml::domain(stanza.attr("from")) != muc {
            heard.others.push(text);
            continue;
        }
        let occupant = stanza.element.name() == "presence" && stanza.attr("type").is_empty();
        let own = stanza.statuses().contains(&110);
        if occupant && !own {
            entering.push((stanza.attr("from").to_owned(), text));
            continue;
        }
        let again = occupant && own && names_each_once(&entering);
        if lists || !inside || again {
            entering.sort_by(|a, b| a.0.cmp(&b.0));
        }
        heard.rooms.extend(entering.drain(..).map(|(_, text)| text));
        heard.rooms.push(text);
        if occupant && own {
            inside = true;
        } else if ends(stanza) {
            inside = false;
        }
    }
    if lists || !inside {
        entering.sort_by(|a, b| a.0.cmp(&b.0));
    }
    heard.rooms.extend(entering.into_iter().map(|(_, text)| text));
    heard
}

fn names_each_once(list: &[(String, String)]) -> bool {
    let nicks: BTreeSet<&str> = list.iter().map(|(from, _)| from.as_str()).collect();
    nicks.len() == list.len() && list.len() > 2
}

/// Whether this is the room's own end of the recipient's stay.
fn ends(stanza: &Received) -> bool {
    let codes = stanza.statuses();
    let destroyed = stanza
        .element
        .get_child("x", MUC_USER)
        .is_some_and(|x| x.children().any(|child| child.name() == "destroy"));
    stanza.element.name() == "presence"
        && stanza.attr("type") == "unavailable"
        && (destroyed || codes.contains(&110) && !codes.contains(&303))
}

/// The ids that a room has given to its messages, each with a number: theirs in the order of their
/// appearance, which is the same in both runs although they are not.
#[derive(Clone, Debug, Default)]
struct Known(BTreeMap<String, usize>);

impl Known {
    /// Learns those that a client has been told. `muc` is the domain of the rooms.
    fn learn(&mut self, received: &[Received], muc: &str) {
        for stanza in received.iter().filter(|stanza| xml::domain(stanza.attr("from")) == muc) {
            self.look(&stanza.element, muc);
        }
    }

    fn look(&mut self, element: &Element, muc: &str) {
        let named = element.name() == "stanza-id"
            && element.ns() == "urn:xmpp:sid:0"
            && element.attr("by").is_some_and(|by| xml::domain(by) == muc);
        if let Some(id) = element.attr("id").filter(|_| named) {
            let next = self.0.len();
            self.0.entry(id.to_owned()).or_insert(next);
        }
        element.children().for_each(|child| self.look(child, muc));
    }

    fn text(&self, text: &str) -> String {
        self.name(text).unwrap_or_else(|| xml::escape(text))
    }

    fn name(&self, id: &str) -> Option<String> {
        self.0.get(id).map(|number| format!("{ANY}{number}"))
    }
}

/// One stanza in normal form.
fn stanza_text(stanza: &Element, known: &Known) -> String {
    let mut text = String::new();
    write(stanza, "", false, known, &mut text);
    text
}

/// `sorted` for what is a set.
fn write(element: &Element, outer: &str, sorted: bool, known: &Known, out: &mut String) {
    let (name, ns) = (element.name(), element.ns());
    let items = element.children().filter(|child| child.name() == "item").count() > 1;
    let sorted =
        sorted || SETS.contains(&ns.as_str()) || ns == MUC_USER && items || is_invitation(element);
    let _ = write!(out, "<{name}");
    if ns != outer {
        let _ = write!(out, " xmlns='{ns}'");
    }
    let mut attributes: Vec<(String, &str)> = element
        .attrs()
        .iter()
        .map(|((space, name), value)| (format!("{}{name}", prefix(space)), value.as_str()))
        .collect();
    attributes.sort();
    for (key, value) in attributes {
        let numbered = known.name(value).filter(|_| key == "id");
        let value = match &numbered {
            Some(name) => name,
            None if is_made_up(&ns, name, &key, value) => ANY,
            None => value,
        };
        let _ = write!(out, " {key}='{}'", xml::escape(value));
    }
    out.push('>');
    let made = element.attr("var").is_some_and(|var| var.starts_with("muc#roominfo_creation"));
    if sorted {
        let children = element.children().filter(|child| child.attr("var") != Some(traffic::NS));
        let mut texts: Vec<String> =
            children.map(|child| part(child, &ns, (made, true), known)).collect();
        texts.sort();
        out.extend(texts);
        out.push_str(&known.text(&element.text()));
        let _ = write!(out, "</{name}>");
        return;
    }
    for node in element.nodes() {
        match node {
            Node::Element(child) if is_resent(child) => {}
            Node::Element(child) => out.push_str(&part(child, &ns, (false, false), known)),
            Node::Text(text) => out.push_str(&known.text(text)),
        }
    }
    let _ = write!(out, "</{name}>");
}

fn part(element: &Element, outer: &str, (emptied, sorted): (bool, bool), known: &Known) -> String {
    let mut text = String::new();
    match emptied {
        true => {
            let bare = Element::bare(element.name(), element.ns());
            write(&bare, outer, sorted, known, &mut text);
        }
        false => write(element, outer, sorted, known, &mut text),
    }
    text
}

fn prefix(namespace: &str) -> &str {
    match namespace {
        "" => "",
        "http://www.w3.org/XML/1998/namespace" => "xml:",
        _ => "?:",
    }
}

/// Whether this is an invitation through a room.
fn is_invitation(element: &Element) -> bool {
    let x = element.get_child("x", MUC_USER);
    x.is_some_and(|x| x.children().any(|child| child.name() == "invite"))
}

/// What a server adds to what it sends anew after a resumption.
fn is_resent(element: &Element) -> bool {
    let from = element.attr("from").unwrap_or_default();
    element.name() == "delay" && !xml::domain(from).starts_with("conference.")
}

fn is_made_up(ns: &str, element: &str, key: &str, value: &str) -> bool {
    match (element, key) {
        ("message" | "presence" | "iq", "id") => !value.starts_with(OWN_IDS),
        ("stanza-id" | "archived" | "occupant-id", "id") => true,
        ("result", "id") => ns == MAM,
        ("item", "id") => ns == "http://jabber.org/protocol/pubsub#event",
        ("delay", "stamp") => ns == "urn:xmpp:delay",
        _ => false,
    }
}
