//! A user's client that remembers all it ever received.
//!
//! It is built on the stream layer of tokio-xmpp (`xmlstream`, and its SASL) and not on
//! `tokio_xmpp::Client`, for two reasons. That one gives out `Stanza`, into which it has
//! parsed what came: unknown attributes, and stanzas that it finds malformed, are gone,
//! while a test must see exactly what the server sent. And it reconnects and resumes by
//! itself, while a test must know of every connection. The stream layer can carry any type
//! that reads XML; we let it carry [`Element`], which is the XML itself.

mod login;
mod worker;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_xmpp::minidom::Element;

use self::worker::Order;
use crate::server::Server;
pub use crate::transcript::Received;
use crate::transcript::Transcript;
use crate::xml;

/// How long to wait for an answer that is due.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How many logins a server is asked to do at the same time.
const AT_ONCE: usize = 50;

/// What a client wants besides its account.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// Turns stream management on, so that the session can be resumed.
    pub stream_management: bool,
    /// Sends no initial presence: the session gets no messages to the bare address.
    pub invisible: bool,
}

/// A connected client.
pub struct Client {
    jid: String,
    address: SocketAddr,
    transcript: Transcript,
    orders: mpsc::UnboundedSender<Order>,
    worker: JoinHandle<()>,
    resumption: Option<Resumption>,
    next_id: std::sync::atomic::AtomicU64,
}

/// What is needed to resume a session after the connection broke.
#[derive(Clone, Debug)]
struct Resumption {
    id: String,
}

impl Client {
    /// Logs in as `user` (whose password is the same) with `resource`, and sends initial
    /// presence.
    pub async fn connect(server: &Server, user: &str, resource: &str) -> Result<Self> {
        Self::connect_with(server, user, resource, ClientOptions::default()).await
    }

    /// [`Client::connect`] with options.
    pub async fn connect_with(
        server: &Server,
        user: &str,
        resource: &str,
        options: ClientOptions,
    ) -> Result<Self> {
        let bare = format!("{user}@{}", server.domain());
        let address = server.c2s();
        let what = || format!("{bare}/{resource} cannot log in");
        let mut stream = login::authenticate(address, &bare).await.with_context(what)?;
        let jid = login::bind(&mut stream, resource).await.with_context(what)?;
        let resumption = match options.stream_management {
            true => Some(Resumption { id: login::enable(&mut stream).await.with_context(what)? }),
            false => None,
        };
        let client = Self::run(jid, address, stream, resumption, Transcript::new(&bare), 0);
        if !options.invisible {
            client.send_xml("<presence/>")?;
        }
        Ok(client)
    }

    /// [`Client::connect`] for many users at once, in their order.
    pub async fn connect_all<'a>(
        server: &Server,
        users: impl IntoIterator<Item = &'a str>,
        resource: &str,
    ) -> Result<Vec<Self>> {
        let logins: Vec<_> =
            users.into_iter().map(|user| Self::connect(server, user, resource)).collect();
        futures::stream::iter(logins).buffered(AT_ONCE).try_collect().await
    }

    fn run(
        jid: String,
        address: SocketAddr,
        stream: login::Stream,
        resumption: Option<Resumption>,
        transcript: Transcript,
        handled: u32,
    ) -> Self {
        let (orders, queue) = mpsc::unbounded_channel();
        let handled = resumption.as_ref().map(|_| handled);
        let worker = tokio::spawn(worker::run(stream, queue, transcript.clone(), handled));
        let next_id = Default::default();
        Self { jid, address, transcript, orders, worker, resumption, next_id }
    }

    /// The full address that the server gave.
    pub fn jid(&self) -> &str {
        &self.jid
    }

    /// The address without resource.
    pub fn bare(&self) -> &str {
        self.jid.split('/').next().unwrap_or_default()
    }

    /// All that was received; waiting and looking are there.
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// Everything received so far, in order.
    pub fn received(&self) -> Vec<Received> {
        self.transcript.received()
    }

    /// See [`Transcript::mark`].
    pub fn mark(&self) {
        self.transcript.mark();
    }

    /// See [`Transcript::clear`].
    pub fn clear(&self) {
        self.transcript.clear();
    }

    /// See [`Transcript::wait_for`].
    pub async fn wait_for(
        &self,
        wanted: impl Fn(&Received) -> bool,
        limit: Duration,
    ) -> Result<Received> {
        self.transcript.wait_for(wanted, limit).await
    }

    /// See [`Transcript::quiet`].
    pub async fn quiet(&self, still: Duration) {
        self.transcript.quiet(still).await;
    }

    /// Why the connection ended, if it has.
    pub fn ended(&self) -> Option<String> {
        self.transcript.ended()
    }

    /// The bodies of all groupchat messages from a room, history too, with the nick of each.
    pub fn bodies(&self, room: &str) -> Vec<(String, String)> {
        self.transcript.with(|received| {
            let from = |r: &Received| match r.attr("from").split_once('/') {
                Some((bare, nick)) if bare == room => Some(nick.to_owned()),
                None if r.attr("from") == room => Some(String::new()),
                _ => None,
            };
            received
                .iter()
                .filter(|r| r.element.name() == "message" && r.attr("type") == "groupchat")
                .filter_map(|r| Some((from(r)?, r.body()?)))
                .collect()
        })
    }

    /// Sends any element.
    pub fn send(&self, element: Element) -> Result<()> {
        self.orders.send(Order::Send(element)).map_err(|_| anyhow!("{} is not connected", self.jid))
    }

    /// Sends a stanza given as text; the namespace `jabber:client` need not be declared.
    pub fn send_xml(&self, xml: &str) -> Result<()> {
        self.send(xml::parse(xml, "jabber:client")?)
    }

    /// Sends an iq of `type` get or set with this payload and waits for its answer, which
    /// may be an error.
    pub async fn iq(&self, to: &str, kind: &str, payload: &str) -> Result<Received> {
        let id = self.fresh_id();
        self.send_xml(&format!(
            "<iq to='{}' type='{kind}' id='{id}'>{payload}</iq>",
            xml::escape(to)
        ))?;
        self.wait_for(|r| r.element.name() == "iq" && r.attr("id") == id, PATIENCE).await
    }

    /// An id that this client has not used before.
    pub fn fresh_id(&self) -> String {
        let number = self.next_id.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        format!("kit-{number}")
    }

    /// Enters a room and waits until it is in. See [`Client::create`] for a new room.
    pub async fn join(&self, room: &str, nick: &str) -> Result<()> {
        // What an earlier stay in the room has left is no answer to this.
        self.mark();
        self.ask_to_join(room, nick)?;
        let me = format!("{room}/{nick}");
        let occupants = format!("{room}/");
        let answer = self
            .wait_for(
                |r| {
                    let entered = r.attr("from").starts_with(&occupants)
                        && r.attr("type").is_empty()
                        && r.statuses().contains(&110);
                    r.element.name() == "presence" && entered || r.is("presence", "error", &me)
                },
                PATIENCE,
            )
            .await?;
        if answer.attr("type") == "error" {
            bail!("{} is not let into {room}: {}", self.jid, answer.xml());
        }
        Ok(())
    }

    /// Sends the presence that asks to enter a room, and does not wait.
    pub fn ask_to_join(&self, room: &str, nick: &str) -> Result<()> {
        self.send_xml(&format!(
            "<presence to='{}/{}'><x xmlns='http://jabber.org/protocol/muc'/></presence>",
            xml::escape(room),
            xml::escape(nick)
        ))
    }

    /// Makes a room that others can enter at once: enters it and, where the server locks new
    /// rooms, accepts its default configuration; `settings` are fields of that form.
    pub async fn create(&self, room: &str, nick: &str, settings: &[(&str, &str)]) -> Result<()> {
        self.join(room, nick).await?;
        let answer = self.configure(room, settings).await?;
        match answer.attr("type") {
            "result" => Ok(()),
            _ => bail!("{room} does not take its configuration: {}", answer.xml()),
        }
    }

    /// Sends a room's configuration form with these fields; its answer, which may be an error.
    pub async fn configure(&self, room: &str, settings: &[(&str, &str)]) -> Result<Received> {
        let mut fields = String::new();
        for (name, value) in settings {
            write!(
                fields,
                "<field var='{}'><value>{}</value></field>",
                xml::escape(name),
                xml::escape(value)
            )?;
        }
        let form = format!(
            "<query xmlns='http://jabber.org/protocol/muc#owner'>\
             <x xmlns='jabber:x:data' type='submit'>\
             <field var='FORM_TYPE'>\
             <value>http://jabber.org/protocol/muc#roomconfig</value></field>\
             {fields}</x></query>"
        );
        self.iq(room, "set", &form).await
    }

    /// Leaves a room and waits for the room's answer.
    pub async fn leave(&self, room: &str, nick: &str) -> Result<()> {
        self.mark();
        self.send_xml(&format!(
            "<presence type='unavailable' to='{}/{}'/>",
            xml::escape(room),
            xml::escape(nick)
        ))?;
        let me = format!("{room}/{nick}");
        self.wait_for(|r| r.is("presence", "unavailable", &me), PATIENCE).await.map(drop)
    }

    /// Sends a message to a room, with an id of its own, which it gives back.
    pub fn say(&self, room: &str, body: &str) -> Result<String> {
        let id = self.fresh_id();
        self.send_xml(&format!(
            "<message type='groupchat' to='{}' id='{id}'><body>{}</body></message>",
            xml::escape(room),
            xml::escape(body)
        ))?;
        Ok(id)
    }

    /// Sends presence to an occupant or a room with some payload (`<show/>`, `<status/>`).
    pub fn presence(&self, to: &str, payload: &str) -> Result<()> {
        self.send_xml(&format!("<presence to='{}'>{payload}</presence>", xml::escape(to)))
    }

    /// Waits until the server has dealt with everything sent so far (by asking it a question).
    pub async fn sync(&self) -> Result<()> {
        let domain = self.bare().split('@').nth(1).unwrap_or_default().to_owned();
        self.iq(&domain, "get", "<query xmlns='http://jabber.org/protocol/disco#info'/>")
            .await
            .map(drop)
    }

    /// Ends the stream and the connection properly.
    pub async fn disconnect(self) -> Result<Transcript> {
        let (done, closed) = oneshot::channel();
        let _ = self.orders.send(Order::Close(done));
        // A worker that is gone has closed too.
        let _ = closed.await;
        Ok(self.transcript.clone())
    }

    /// Closes the connection without a word. The session may still be resumed.
    pub async fn abort(&self) {
        let (done, closed) = oneshot::channel();
        let _ = self.orders.send(Order::Abort(done));
        let _ = closed.await;
    }

    /// Resumes the session of stream management on a new connection, after
    /// [`Client::abort`] or a broken connection. The transcript goes on.
    pub async fn resume(&mut self) -> Result<()> {
        self.abort().await;
        let Some(resumption) = self.resumption.clone() else {
            bail!("{} has no stream management", self.jid);
        };
        let handled = self.transcript.handled();
        let mut stream = login::authenticate(self.address, self.bare()).await?;
        login::resume(&mut stream, &resumption.id, handled).await?;
        self.transcript.reopen();
        let transcript = self.transcript.clone();
        *self = Self::run(
            self.jid.clone(),
            self.address,
            stream,
            Some(resumption),
            transcript,
            handled,
        );
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.worker.abort();
    }
}
