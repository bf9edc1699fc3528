//! The scene of a script, and what its people do.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow, bail, ensure};
use dmuc_testkit::{Client, ClientOptions, Lab, Transcript};
use futures::future::try_join_all;

use super::Run;
use crate::normal::{self, Heard};
use crate::scene::{SOON, until};

/// The user name of somebody in a script.
pub fn user(who: &str, script: &str) -> String {
    format!("{}-{script}", who.split('/').next().unwrap_or_default())
}

/// Where a script plays: a room of server `a`, and those who are there.
///
/// Who acts does so through [`Stage`], which waits until the own server has passed it on. So the room
/// gets everything in the order of the script, although nobody waits for the room's answers.
pub struct Stage<'a> {
    lab: &'a Lab,
    script: String,
    /// The room.
    pub room: String,
    people: BTreeMap<String, Client>,
    /// What those heard who are no longer connected.
    former: BTreeMap<String, Transcript>,
    notes: Vec<String>,
    /// Something from `b` may still be on its way to the room.
    underway: Cell<bool>,
    /// Sessions that are over: what is still on the way to them may be refused.
    ended: BTreeSet<String>,
    stalled: Cell<bool>,
}

impl std::ops::Index<&str> for Stage<'_> {
    type Output = Client;

    fn index(&self, who: &str) -> &Client {
        self.people.get(who).unwrap_or_else(|| panic!("{who} is not logged in"))
    }
}

impl<'a> Stage<'a> {
    /// A room of this name, in which nobody is yet.
    pub fn new(lab: &'a Lab, name: &str) -> Self {
        Stage {
            lab,
            script: name.to_owned(),
            room: lab.server("a").room(name),
            people: BTreeMap::new(),
            former: BTreeMap::new(),
            notes: Vec::new(),
            underway: Cell::new(false),
            ended: BTreeSet::new(),
            stalled: Cell::new(false),
        }
    }

    /// Addresses of sessions that are over.
    pub fn ended(&self) -> &BTreeSet<String> {
        &self.ended
    }

    /// The wire between the servers.
    pub fn wire(&self) -> &'a dmuc_testkit::Wire {
        self.lab.wire("a", "b")
    }

    /// The servers.
    pub fn lab(&self) -> &'a Lab {
        self.lab
    }

    /// Whether there is a third server, by which what is for all comes to `b`.
    pub fn is_tree(&self) -> bool {
        self.lab.servers().any(|server| server.name() == "c")
    }

    /// The user name of somebody: other scripts have other users of that name.
    pub fn user(&self, who: &str) -> String {
        user(who, &self.script)
    }

    /// Logs somebody in. `anna/phone` is Anna with that resource; `anna` has the resource `r`.
    pub async fn log_in(&mut self, server: &str, who: &str) -> Result<()> {
        self.log_in_with(server, who, ClientOptions::default()).await
    }

    /// [`Stage::log_in`] with options.
    pub async fn log_in_with(
        &mut self,
        server: &str,
        who: &str,
        options: ClientOptions,
    ) -> Result<()> {
        let server = self.lab.server(server);
        let user = self.user(who);
        server.register(&[&user]).await?;
        let resource = who.split_once('/').map_or("r", |(_, resource)| resource);
        let client = Client::connect_with(server, &user, resource, options).await?;
        client.sync().await?;
        ensure!(self.people.insert(who.to_owned(), client).is_none(), "two of {who}");
        Ok(())
    }

    /// Logs in users of `b` and lets them into the room, each under his own name.
    pub async fn arrive(&mut self, who: &[&str]) -> Result<()> {
        for who in who {
            self.log_in("b", who).await?;
            self.enter(who).await?;
        }
        self.settle().await
    }

    /// Enters the room under the own name, and waits for that.
    pub async fn enter(&self, who: &str) -> Result<()> {
        self.turn(who).await?;
        self[who].join(&self.room, who.split('/').next().unwrap_or_default()).await
    }

    /// Asks to enter under a nick; nothing more.
    pub fn ask(&self, who: &str, nick: &str) -> Result<()> {
        self[who].ask_to_join(&self.room, nick)
    }

    /// Leaves; nothing more.
    pub fn leave(&self, who: &str, nick: &str) -> Result<()> {
        self[who].send_xml(&format!("<presence type='unavailable' to='{}/{nick}'/>", self.room))
    }

    /// Sends presence to the room, under an old or a new nick.
    pub async fn presence(&self, who: &str, nick: &str, payload: &str) -> Result<()> {
        self.turn(who).await?;
        self[who].presence(&format!("{}/{nick}", self.room), payload)?;
        self.sent(who).await
    }

    /// Says something in the room.
    pub async fn say(&self, who: &str, body: &str) -> Result<()> {
        self.turn(who).await?;
        self[who].say(&self.room, body)?;
        self.sent(who).await
    }

    /// Sends a private message to an occupant.
    pub async fn whisper(&self, who: &str, nick: &str, body: &str) -> Result<()> {
        self.turn(who).await?;
        let id = self[who].fresh_id();
        self[who].send_xml(&format!(
            "<message type='chat' to='{}/{nick}' id='{id}'><body>{body}</body>\
             <x xmlns='http://jabber.org/protocol/muc#user'/></message>",
            self.room
        ))?;
        self.sent(who).await
    }

    /// Waits until the own server has dealt with what somebody sent.
    pub async fn sent(&self, who: &str) -> Result<()> {
        self.underway.set(self.underway.get() || self.is_remote(who));
        self[who].sync().await
    }

    fn is_remote(&self, who: &str) -> bool {
        self[who].bare().ends_with("@b.test")
    }

    /// Before one of `a` acts: the room has what those of `b` sent before, which has a longer way.
    async fn turn(&self, who: &str) -> Result<()> {
        if self.is_remote(who) || !self.underway.get() || self.stalled.get() {
            return Ok(());
        }
        self.underway.set(false);
        self.wait_for_room("anna").await
    }

    /// Holds back what crosses; the room has everything that was sent before.
    pub async fn stall(&self) -> Result<()> {
        self.turn("host").await?;
        self.stalled.set(true);
        self.wire().stall();
        Ok(())
    }

    /// Lets it go.
    pub fn flow(&self) {
        self.stalled.set(false);
        self.underway.set(true);
        self.wire().flow();
    }

    /// Changes a role or an affiliation: attributes of the `<item/>`.
    pub async fn admin(&self, who: &str, item: &str) -> Result<()> {
        self.turn(who).await?;
        let query = "http://jabber.org/protocol/muc#admin";
        let payload = format!("<query xmlns='{query}'><item {item}/></query>");
        let answer = self[who].iq(&self.room, "set", &payload).await?;
        ensure!(answer.attr("type") == "result", "{item}: {}", answer.xml());
        Ok(())
    }

    /// Changes the room's configuration.
    pub async fn configure(&self, who: &str, settings: &[(&str, &str)]) -> Result<()> {
        self.turn(who).await?;
        let fields: String = settings
            .iter()
            .map(|(name, value)| format!("<field var='{name}'><value>{value}</value></field>"))
            .collect();
        let query = format!(
            "<query xmlns='http://jabber.org/protocol/muc#owner'>\
             <x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
             <value>http://jabber.org/protocol/muc#roomconfig</value></field>{fields}</x></query>"
        );
        let answer = self[who].iq(&self.room, "set", &query).await?;
        ensure!(answer.attr("type") == "result", "{settings:?}: {}", answer.xml());
        Ok(())
    }

    /// Puts an occupant out.
    pub async fn kick(&self, who: &str, nick: &str) -> Result<()> {
        self.admin(who, &format!("nick='{nick}' role='none'")).await
    }

    /// Asks the room a question. Its answer comes after everything that it sent before.
    pub async fn ask_room(&self, who: &str) -> Result<()> {
        let disco = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
        self[who].iq(&self.room, "get", disco).await.map(drop)
    }

    /// Waits until the room has dealt with everything and everybody has got all of it: after the first
    /// round it has got what they sent, after the second they have what it sent.
    pub async fn settle(&self) -> Result<()> {
        self.settle_but(&[]).await
    }

    /// [`Stage::settle`] without some, who ask nothing.
    pub async fn settle_but(&self, but: &[&str]) -> Result<()> {
        let live: Vec<&String> = self
            .people
            .iter()
            .filter(|(who, client)| client.ended().is_none() && !but.contains(&who.as_str()))
            .map(|(who, _)| who)
            .collect();
        try_join_all(live.iter().map(|who| self.wait_for_room(who))).await?;
        try_join_all(live.iter().map(|who| self.ask_room(who))).await.map(drop)
    }

    /// [`Stage::ask_room`] that leaves no trace.
    async fn wait_for_room(&self, who: &str) -> Result<()> {
        normal::wait_for_room(&self[who], &self.room).await
    }

    /// A fact that has to be the same in both runs.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Somebody's client, to be changed.
    pub fn client(&mut self, who: &str) -> Result<&mut Client> {
        self.people.get_mut(who).ok_or_else(|| anyhow!("{who} is not logged in"))
    }

    /// Logs somebody out as it should be.
    pub async fn log_out(&mut self, who: &str) -> Result<()> {
        let Some(client) = self.people.remove(who) else { bail!("{who} is not logged in") };
        self.ended.insert(client.jid().to_owned());
        let transcript = client.disconnect().await?;
        self.keep(who, transcript)
    }

    /// Breaks somebody's connection; there is no session to go on with.
    pub async fn drop_out(&mut self, who: &str) -> Result<()> {
        let Some(client) = self.people.remove(who) else { bail!("{who} is not logged in") };
        self.ended.insert(client.jid().to_owned());
        client.abort().await;
        self.keep(who, client.transcript().clone())
    }

    /// Logs somebody in anew, with the same resource.
    pub async fn replace(&mut self, server: &str, who: &str) -> Result<()> {
        let Some(old) = self.people.remove(who) else { bail!("{who} is not logged in") };
        self.ended.insert(old.jid().to_owned());
        self.log_in(server, who).await?;
        until("the old connection ends", SOON, || old.ended().is_some()).await?;
        self.keep(who, old.transcript().clone())
    }

    fn keep(&mut self, who: &str, transcript: Transcript) -> Result<()> {
        let nth = self.former.keys().filter(|key| key.starts_with(who)).count();
        self.former.insert(format!("{who} before {nth}"), transcript);
        Ok(())
    }

    /// Ends it: what everybody has heard.
    pub async fn finish(mut self) -> Result<Run> {
        let people = self.people.iter().map(|(who, client)| (who.clone(), client.received()));
        let former = self.former.iter().map(|(who, old)| (who.clone(), old.received()));
        let mut run = normal::heard_by_all(people.chain(former), self.lab.server("a"));
        let notes = std::mem::take(&mut self.notes);
        run.insert("notes".into(), Heard { rooms: notes, others: Vec::new() });
        for client in std::mem::take(&mut self.people).into_values() {
            client.disconnect().await?;
        }
        Ok(run)
    }
}
