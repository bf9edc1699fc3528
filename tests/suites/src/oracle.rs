//! Plain MUC as the oracle: the same script without dmuc and with it, and every client must have
//! received the same.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use dmuc_testkit::{Client, ClientOptions, Lab, Record, ServerSpec, Transcript};
use futures::future::{try_join, try_join_all};

use crate::normal::{self, Heard, WAITING};
use crate::scene::{Pairing, SOON, linked, until};
use crate::traffic::{self, Sorted};

/// What a script does; it waits for nothing but the room, so that both runs take the same course.
pub type Play = for<'a> fn(&'a mut Stage<'_>) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// A script, with what the scene is like before.
#[derive(Clone, Copy)]
pub struct Script {
    /// Name of the room, too.
    pub name: &'static str,
    /// Fields of the room's configuration.
    pub settings: &'static [(&'static str, &'static str)],
    /// Whether two users of `b` are there first, so that the link is up when the script starts.
    pub linked: bool,
    /// Whether the link stays up: one set-up, and nothing plain but for those who are not inside.
    pub steady: bool,
    /// The script.
    pub play: Play,
}

impl Script {
    /// A script that starts and ends with a link.
    pub const fn new(name: &'static str, play: Play) -> Self {
        Script { name, settings: &[], linked: true, steady: true, play }
    }

    /// With a room of another configuration.
    pub const fn settings(mut self, settings: &'static [(&'static str, &'static str)]) -> Self {
        self.settings = settings;
        self
    }

    /// From an empty room on.
    pub const fn unlinked(mut self) -> Self {
        self.linked = false;
        self.steady = false;
        self
    }

    /// In which the link may go down and up.
    pub const fn unsteady(mut self) -> Self {
        self.steady = false;
        self
    }
}

/// Runs scripts without and with dmuc, and compares.
pub async fn compare(
    pairing: Pairing,
    group: &str,
    change: impl Fn(ServerSpec) -> ServerSpec,
    scripts: &[Script],
) -> Result<()> {
    let change = |spec: ServerSpec| {
        let spec = change(spec);
        match spec.kind {
            dmuc_testkit::Kind::Prosody => spec.option("c2s_stanza_size_limit", 524_288),
            dmuc_testkit::Kind::Ejabberd => spec,
        }
    };
    let plain = pairing.lab_with(&format!("{group}-plain"), |spec| change(spec).dmuc(false));
    let dmuc = pairing.lab_with(group, |spec| change(spec).dmuc_option("retry_min", 1000));
    let (plain, dmuc) = try_join(plain.start(), dmuc.start()).await?;
    let outcome = compare_in(&plain, &dmuc, scripts).await;
    let outcome = dmuc.finish(outcome).await;
    plain.finish(outcome).await
}

async fn compare_in(plain: &Lab, dmuc: &Lab, scripts: &[Script]) -> Result<()> {
    let mut failures = Vec::new();
    for script in scripts {
        let Err(error) = attempt(plain, dmuc, script, script.name).await else { continue };
        save_wires(plain, dmuc, script.name)?;
        // Servers under load race with themselves, without dmuc too; what differs by a fault of ours
        // differs again. It is said in any case.
        println!("differs, trying again: {}: {error:#}", script.name);
        let again = format!("{}-again", script.name);
        if let Err(error) = attempt(plain, dmuc, script, &again).await {
            save_wires(plain, dmuc, &again)?;
            failures.push(format!("{}, twice: {error:#}", script.name));
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Runs a script in both laboratories, in a room of this name.
pub async fn attempt(plain: &Lab, dmuc: &Lab, script: &Script, name: &str) -> Result<()> {
    let (without, with) =
        futures::join!(run(plain, script, name, false), run(dmuc, script, name, true));
    same(&without.context("without dmuc")?, &with.context("with dmuc")?)
}

/// The wires are reset before each script: what has crossed in this one is kept under its name.
fn save_wires(plain: &Lab, dmuc: &Lab, script: &str) -> Result<()> {
    for (lab, name) in [(plain, "plain"), (dmuc, "dmuc")] {
        lab.write_wires()?;
        let file = lab.dir().join("wire-a-b.log");
        std::fs::rename(file, dmuc.dir().join(format!("wire-{script}-{name}.log")))?;
    }
    Ok(())
}

type Run = BTreeMap<String, Heard>;

fn same(without: &Run, with: &Run) -> Result<()> {
    let mut differences = Vec::new();
    for (who, plain) in without {
        let dmuc = with.get(who).with_context(|| format!("{who} is missing"))?;
        for (what, plain, dmuc) in
            [("of the room", &plain.rooms, &dmuc.rooms), ("of others", &plain.others, &dmuc.others)]
        {
            if let Some(difference) = difference(plain, dmuc) {
                differences.push(format!("what {who} got {what}: {difference}"));
            }
        }
    }
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

fn difference(plain: &[String], dmuc: &[String]) -> Option<String> {
    let at = (0..plain.len().max(dmuc.len())).find(|&at| plain.get(at) != dmuc.get(at))?;
    let around = |list: &[String]| -> String {
        let from = at.saturating_sub(1);
        let part = list.get(from..list.len().min(at + 3)).unwrap_or_default();
        part.iter().map(|line| format!("    {}\n", shorten(line))).collect()
    };
    Some(format!(
        "stanza {at} differs ({} and {} stanzas)\n  plain:\n{}  dmuc:\n{}",
        plain.len(),
        dmuc.len(),
        around(plain),
        around(dmuc)
    ))
}

fn shorten(line: &str) -> String {
    match line.char_indices().nth(420) {
        Some((end, _)) => format!("{}… ({} bytes)", &line[..end], line.len()),
        None => line.to_owned(),
    }
}

async fn run(lab: &Lab, script: &Script, name: &str, dmuc: bool) -> Result<Run> {
    let wire = lab.wire("a", "b");
    wire.reset();
    wire.set_latency(Duration::ZERO);
    let mut stage = Stage {
        lab,
        script: name.to_owned(),
        room: lab.server("a").room(name),
        people: BTreeMap::new(),
        former: BTreeMap::new(),
        notes: Vec::new(),
        underway: Cell::new(false),
        ended: BTreeSet::new(),
        stalled: Cell::new(false),
    };
    stage.log_in("a", "host").await?;
    stage["host"].create(&stage.room, "host", script.settings).await?;
    stage.log_in("a", "lena").await?;
    stage.enter("lena").await?;
    if script.linked {
        for name in ["anna", "anton"] {
            stage.log_in("b", name).await?;
            stage.enter(name).await?;
        }
        if dmuc {
            linked(wire, &stage.room, 1).await?;
        }
        stage.settle().await?;
    }
    let played = (script.play)(&mut stage).await;
    wire.flow();
    wire.set_latency(Duration::ZERO);
    played?;
    stage.settle().await?;
    check_traffic(&stage, script, dmuc)?;
    stage.finish().await
}

/// That the run proves something: dmuc was there, or was not.
fn check_traffic(stage: &Stage<'_>, script: &Script, dmuc: bool) -> Result<()> {
    let records = stage.lab.wire("a", "b").records();
    let links = traffic::links(&records, &stage.room);
    let down = traffic::sort(&records, "b", &stage.room);
    if !dmuc {
        ensure!(links == 0 && down.envelopes == 0, "this run is not plain: {down:?}");
        return Ok(());
    }
    let Sorted { casts, envelopes, .. } = down;
    ensure!(links > 0 && envelopes > 0 && casts > 0, "{links} links, {down:?}");
    if script.steady {
        ensure!(links == 1, "the link went down: {links} set-ups");
        beside(&records, &stage.room, &stage.ended)?;
    }
    Ok(())
}

/// That everything for those in the audience went through the link, and none was refused.
fn beside(records: &[Record], room: &str, ended: &BTreeSet<String>) -> Result<()> {
    let mut audience: BTreeMap<String, String> = BTreeMap::new();
    // A refusal may come for one who has left meanwhile.
    let mut ever: BTreeMap<String, String> = BTreeMap::new();
    // Those who were let in for one stanza although they are not inside: they may be refused.
    let mut passing: BTreeSet<String> = BTreeSet::new();
    let mut up = false;
    for record in records {
        let Some(stanza) = traffic::stanza(record) else { continue };
        let to = stanza.attr("to").unwrap_or_default();
        match traffic::payload(&stanza) {
            Some(payload) if record.to == "a" && to == room => {
                let refused = payload.children().filter(|child| child.name() == "refuse");
                for index in refused.filter_map(|child| child.attr("i")) {
                    audience.remove(index);
                    let over = ever.get(index).is_some_and(|jid| ended.contains(jid));
                    ensure!(over || passing.contains(index), "refused: {}", record.xml);
                }
            }
            Some(payload) if stanza.attr("from") == Some(room) => {
                // Before its first envelope the room may not have had the answer to the set-up.
                up |= payload.name() == "envelope";
                let mut new = BTreeSet::new();
                for op in payload.children() {
                    let index = op.attr("i").unwrap_or_default().to_owned();
                    match op.name() {
                        "enter" => {
                            let jid = op.attr("jid").unwrap_or_default().to_owned();
                            new.insert(index.clone());
                            ever.insert(index.clone(), jid.clone());
                            audience.insert(index, jid);
                        }
                        "leave" => {
                            audience.remove(&index);
                            if new.contains(&index) {
                                passing.insert(index);
                            }
                        }
                        _ => {}
                    }
                }
            }
            Some(_) => {}
            None if record.to == "b" && up => {
                let from = stanza.attr("from").unwrap_or_default();
                let beside = from.split('/').next() == Some(room);
                let inside = audience.values().any(|jid| jid == to);
                ensure!(!(beside && inside), "beside the link: {}", record.xml);
            }
            None => {}
        }
    }
    ensure!(up, "no envelope");
    Ok(())
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
    /// The wire between the servers.
    pub fn wire(&self) -> &'a dmuc_testkit::Wire {
        self.lab.wire("a", "b")
    }

    /// The servers.
    pub fn lab(&self) -> &'a Lab {
        self.lab
    }

    /// The user name of somebody: other scripts have other users of that name.
    pub fn user(&self, who: &str) -> String {
        format!("{}-{}", who.split('/').next().unwrap_or_default(), self.script)
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
        let client = &self[who];
        let id = format!("{WAITING}{}", client.fresh_id());
        client.send_xml(&format!(
            "<iq to='{}' type='get' id='{id}'>\
             <query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
            self.room
        ))?;
        client.wait_for(|r| r.attr("id") == id, SOON).await.map(drop)
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
    async fn finish(mut self) -> Result<Run> {
        let muc = self.lab.server("a").muc();
        let lists = self.lab.server("a").kind() == dmuc_testkit::Kind::Prosody;
        let mut run = Run::new();
        for (who, client) in &self.people {
            run.insert(who.clone(), normal::heard(&client.received(), &muc, lists));
        }
        for (who, transcript) in &self.former {
            run.insert(who.clone(), normal::heard(&transcript.received(), &muc, lists));
        }
        let notes = std::mem::take(&mut self.notes);
        run.insert("notes".into(), Heard { rooms: notes, others: Vec::new() });
        for client in std::mem::take(&mut self.people).into_values() {
            client.disconnect().await?;
        }
        Ok(run)
    }
}
