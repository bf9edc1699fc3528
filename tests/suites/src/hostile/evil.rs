//! What the peer says.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use dmuc_testkit::minidom::Element;
use dmuc_testkit::{Peer, Received, xml};

use crate::scene::SOON;
use crate::traffic::{NS, payload};

/// Sends anything in the name of the peer's domains.
#[derive(Clone, Copy)]
pub struct Evil<'a> {
    peer: &'a Peer,
}

/// Numbers for ids.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl<'a> Evil<'a> {
    pub fn new(peer: &'a Peer) -> Self {
        Evil { peer }
    }

    pub fn peer(&self) -> &'a Peer {
        self.peer
    }

    /// A room of its own.
    pub fn room(&self, name: &str) -> String {
        format!("{name}@{}", self.peer.muc())
    }

    /// From now on whoever asks to enter a room is in, whoever leaves is out.
    pub fn open_rooms(&self) {
        self.peer.set_answer(answer);
    }

    /// An id not used before.
    pub fn id(&self) -> String {
        format!("evil-{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// What has come back for an id.
    pub async fn answer(&self, id: &str) -> Result<Received> {
        self.peer.wait_for(|r| r.attr("id") == id, SOON).await
    }

    /// A set-up with anything in it, and its answer.
    pub async fn offer(&self, from: &str, to: &str, link: &str) -> Result<Received> {
        let id = self.id();
        self.peer
            .send(&format!("<iq type='set' from='{from}' to='{to}' id='{id}'>{link}</iq>"))
            .await?;
        self.answer(&id).await.with_context(|| format!("no answer to {link}"))
    }

    /// A set-up in good form.
    pub async fn set_up(&self, room: &str, epoch: &str, jids: &[&str]) -> Result<Received> {
        self.offer(room, "b.test", &link(epoch, jids)).await
    }

    /// Sends an envelope, or what passes for one; its id.
    pub async fn carry(&self, room: &str, envelope: &str) -> Result<String> {
        let id = self.id();
        let to = "b.test";
        self.peer
            .send(&format!("<message from='{room}' to='{to}' id='{id}'>{envelope}</message>"))
            .await?;
        Ok(id)
    }
}

/// A room service, and a domain that speaks dmuc.
fn answer(stanza: &Element) -> Vec<String> {
    let attr = |name| xml::escape(stanza.attr(name).unwrap_or_default());
    let (from, to, id) = (attr("from"), attr("to"), attr("id"));
    let user = "http://jabber.org/protocol/muc#user";
    match (stanza.name(), stanza.attr("type")) {
        ("presence", None) => vec![format!(
            "<presence from='{to}' to='{from}'><x xmlns='{user}'>\
             <item affiliation='none' role='participant'/><status code='110'/></x></presence>"
        )],
        ("presence", Some("unavailable")) => vec![format!(
            "<presence type='unavailable' from='{to}' to='{from}'><x xmlns='{user}'>\
             <item affiliation='none' role='none'/><status code='110'/></x></presence>"
        )],
        ("iq", Some("get")) => vec![format!(
            "<iq type='result' from='{to}' to='{from}' id='{id}'>\
             <query xmlns='http://jabber.org/protocol/disco#info'>\
             <feature var='{NS}'/></query></iq>"
        )],
        ("iq", Some("set")) => {
            let epoch = payload(stanza).and_then(|link| link.attr("epoch")).unwrap_or_default();
            let link = format!(
                "<link xmlns='{NS}' epoch='{epoch}' max-bytes='262144' slots='0' slot-bytes='0'/>"
            );
            vec![format!("<iq type='result' from='{to}' to='{from}' id='{id}'>{link}</iq>")]
        }
        _ => Vec::new(),
    }
}

/// A set-up in good form.
pub fn link(epoch: &str, jids: &[&str]) -> String {
    let enters: String = jids
        .iter()
        .enumerate()
        .map(|(n, jid)| format!("<enter i='{n}' jid='{}'/>", xml::escape(jid)))
        .collect();
    format!(
        "<link xmlns='{NS}' epoch='{epoch}' stream='s' size='{}' hold='10000' ping='60000' \
         max-bytes='262144'>{enters}</link>",
        jids.len()
    )
}

/// An envelope.
pub fn envelope(epoch: &str, seq: impl std::fmt::Display, ops: &str) -> String {
    format!("<envelope xmlns='{NS}' epoch='{epoch}' seq='{seq}'>{ops}</envelope>")
}

/// A message as a room would carry it.
pub fn message(from: &str, body: &str) -> String {
    format!(
        "<message xmlns='jabber:client' type='groupchat' from='{from}'><body>{body}</body></message>"
    )
}

/// Whether a set-up has been answered by refusing everybody: there is no link.
pub fn is_nothing(answer: &Received) -> bool {
    answer.element.children().any(|link| link.is("link", NS) && link.attr("slots") == Some("0"))
}

/// The dmuc condition of an error.
pub fn condition(answer: &Received) -> Option<String> {
    let error = answer.child("error")?;
    error.children().find(|child| child.ns() == NS).map(|child| child.name().to_owned())
}
