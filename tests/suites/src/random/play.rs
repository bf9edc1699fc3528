//! A script on real servers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dmuc_testkit::{Client, Lab, Received, xml};
use futures::future::{Either, select, try_join_all};
use tokio::time::sleep;

use super::Run;
use super::script::{Action, FIRST, SESSIONS, Script, user};
use super::words::VCARD;
use crate::normal;
use crate::scene::{SOON, linked, until};
use crate::traffic;

/// Longest time for one script.
const LIMIT: Duration = Duration::from_secs(120);

/// A laboratory in which one script after the other is played.
pub struct Place<'a> {
    pub lab: &'a Lab,
    /// Whether it has dmuc.
    pub dmuc: bool,
    /// Servers without it at the moment.
    without: RefCell<Vec<&'static str>>,
    /// Where the script is.
    at: RefCell<String>,
}

impl<'a> Place<'a> {
    pub fn new(lab: &'a Lab, dmuc: bool) -> Self {
        Place { lab, dmuc, without: RefCell::default(), at: RefCell::default() }
    }

    /// Plays a script in a room of this name; what everybody has heard.
    pub async fn play(&self, script: &Script, name: &str) -> Result<Run> {
        "the start".clone_into(&mut self.at.borrow_mut());
        let outcome = tokio::time::timeout(LIMIT, self.perform(script, name)).await;
        for server in ["b", "c"] {
            self.lab.wire("a", server).set_latency(Duration::ZERO);
        }
        outcome
            .unwrap_or_else(|_| Err(anyhow::anyhow!("took longer than {LIMIT:?}")))
            .with_context(|| format!("at {}", self.at.borrow()))
    }

    async fn perform(&self, script: &Script, name: &str) -> Result<Run> {
        for server in ["b", "c"] {
            self.lab.wire("a", server).reset();
        }
        self.load("b", true).await?;
        self.load("c", script.third).await?;
        let mut cast = Cast {
            place: self,
            room: self.lab.server("a").room(name),
            name,
            sessions: Vec::new(),
            former: Vec::new(),
            before: None,
        };
        cast.begin().await?;
        for (n, action) in script.actions.iter().enumerate() {
            *self.at.borrow_mut() = format!("{n}: {action}");
            cast.act(action).await?;
        }
        cast.settle().await?;
        cast.end().await
    }

    /// Where there is dmuc at all, loads or unloads it.
    async fn load(&self, server: &'static str, loaded: bool) -> Result<()> {
        if !self.dmuc || loaded != self.without.borrow().contains(&server) {
            return Ok(());
        }
        match loaded {
            true => self.lab.server(server).load_dmuc().await?,
            false => self.lab.server(server).unload_dmuc().await?,
        }
        let mut without = self.without.borrow_mut();
        without.retain(|other| *other != server);
        if !loaded {
            without.push(server);
        }
        Ok(())
    }
}

/// Everybody.
struct Cast<'a> {
    place: &'a Place<'a>,
    name: &'a str,
    room: String,
    sessions: Vec<Client>,
    /// What connections heard that have been dropped.
    former: Vec<(String, Vec<Received>)>,
    /// Who acted last, since the room has answered.
    before: Option<usize>,
}

impl Cast<'_> {
    async fn begin(&mut self) -> Result<()> {
        let lab = self.place.lab;
        try_join_all(["a", "b", "c"].map(|server| {
            let here = |s: &usize| SESSIONS[*s].0 == server;
            let mut users: Vec<String> =
                (0..SESSIONS.len()).filter(here).map(|s| self.account(s)).collect();
            users.dedup();
            async move { lab.server(server).register(&users).await }
        }))
        .await?;
        let logins = (0..SESSIONS.len()).map(|s| self.log_in(s));
        self.sessions = try_join_all(logins).await?;
        self.sessions[0].create(&self.room, user(0), &[]).await?;
        for &s in FIRST.iter().skip(1) {
            self.sessions[s].join(&self.room, user(s)).await?;
        }
        if self.place.dmuc {
            linked(lab.wire("a", "b"), &self.room, 1).await?;
        }
        self.settle().await
    }

    fn account(&self, s: usize) -> String {
        format!("{}-{}", user(s), self.name)
    }

    async fn log_in(&self, s: usize) -> Result<Client> {
        let (server, who) = SESSIONS[s];
        let resource = who.split_once('/').map_or("r", |(_, resource)| resource);
        let server = self.place.lab.server(server);
        let client = Client::connect(server, &self.account(s), resource).await?;
        client.sync().await?;
        Ok(client)
    }

    async fn act(&mut self, action: &Action) -> Result<()> {
        let room = self.room.clone();
        match action {
            Action::Join(s, nick, history) => {
                self.turn(*s).await?;
                self.join(*s, nick, history)?;
                self.sent(*s).await
            }
            Action::Leave(s, nick, status) => {
                self.turn(*s).await?;
                self.leave(*s, nick, status)?;
                self.sent(*s).await
            }
            Action::Rejoin(s, nick, times) => {
                self.turn(*s).await?;
                for _ in 0..*times {
                    self.leave(*s, nick, "")?;
                    self.join(*s, nick, "")?;
                }
                self.sent(*s).await
            }
            Action::Presence(s, nick, payload) => {
                self.turn(*s).await?;
                self.sessions[*s].presence(&format!("{room}/{nick}"), payload)?;
                self.sent(*s).await
            }
            Action::Say(s, kind, payload) => self.message(*s, kind, &room, payload).await,
            Action::Whisper(s, nick, payload) => {
                self.message(*s, "chat", &self.occupant(nick), payload).await
            }
            Action::Role(s, nick, role) => {
                self.admin(*s, &format!("nick='{}' role='{role}'", xml::escape(nick))).await
            }
            Action::Affiliation(s, other, affiliation) => {
                let jid = self.sessions[*other].bare().to_owned();
                self.admin(*s, &format!("jid='{jid}' affiliation='{affiliation}'")).await
            }
            Action::Configure(field, values) => self.configure(field, values).await,
            Action::Card(s, nick) => {
                self.turn(*s).await?;
                self.sessions[*s].iq(&format!("{room}/{nick}"), "get", VCARD).await.map(drop)
            }
            Action::Ask(s, nick, other, question) => self.ask(*s, nick, *other, question).await,
            Action::Invite(s, other) => {
                let jid = self.sessions[*other].bare();
                let payload = format!(
                    "<x xmlns='http://jabber.org/protocol/muc#user'><invite to='{jid}'>\
                     <reason>come</reason></invite></x>"
                );
                self.message(*s, "normal", &room, &payload).await
            }
            Action::Drop(s, nick) => self.break_connection(*s, nick).await,
            Action::Destroy => self.destroy().await,
            Action::Loaded(server, loaded) => self.place.load(server, *loaded).await,
            Action::Latency(server, milliseconds) => {
                let latency = Duration::from_millis(*milliseconds);
                self.place.lab.wire("a", server).set_latency(latency);
                Ok(())
            }
            Action::Pause(milliseconds) => {
                sleep(Duration::from_millis(*milliseconds)).await;
                Ok(())
            }
            Action::Settle => self.settle().await,
        }
    }

    /// The room has what those of other servers did before.
    async fn turn(&mut self, s: usize) -> Result<()> {
        match self.before.replace(s) {
            Some(before) if SESSIONS[before].0 != SESSIONS[s].0 => self.wait_for_room(before).await,
            _ => Ok(()),
        }
    }

    /// Waits until the own server has passed it on.
    async fn sent(&self, s: usize) -> Result<()> {
        self.sessions[s].sync().await
    }

    /// In an attribute.
    fn occupant(&self, nick: &str) -> String {
        format!("{}/{}", self.room, xml::escape(nick))
    }

    fn join(&self, s: usize, nick: &str, history: &str) -> Result<()> {
        self.sessions[s].send_xml(&format!(
            "<presence to='{}'><x xmlns='http://jabber.org/protocol/muc'>{history}</x></presence>",
            self.occupant(nick)
        ))
    }

    fn leave(&self, s: usize, nick: &str, status: &str) -> Result<()> {
        let to = self.occupant(nick);
        self.sessions[s]
            .send_xml(&format!("<presence type='unavailable' to='{to}'>{status}</presence>"))
    }

    async fn message(&mut self, s: usize, kind: &str, to: &str, payload: &str) -> Result<()> {
        self.turn(s).await?;
        let id = self.sessions[s].fresh_id();
        self.sessions[s]
            .send_xml(&format!("<message type='{kind}' to='{to}' id='{id}'>{payload}</message>"))?;
        self.sent(s).await
    }

    /// The room may say no.
    async fn admin(&mut self, s: usize, item: &str) -> Result<()> {
        self.turn(s).await?;
        let query = "http://jabber.org/protocol/muc#admin";
        let reason = "<reason>so &lt;it&gt; is</reason>";
        let payload = format!("<query xmlns='{query}'><item {item}>{reason}</item></query>");
        self.sessions[s].iq(&self.room, "set", &payload).await.map(drop)
    }

    async fn configure(&mut self, field: &str, values: &[String]) -> Result<()> {
        self.turn(0).await?;
        let values: String = values.iter().map(|value| format!("<value>{value}</value>")).collect();
        let query = format!(
            "<query xmlns='http://jabber.org/protocol/muc#owner'>\
             <x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
             <value>http://jabber.org/protocol/muc#roomconfig</value></field>\
             <field var='muc#roomconfig_{field}'>{values}</field></x></query>"
        );
        let answer = self.sessions[0].iq(&self.room, "set", &query).await?;
        ensure!(answer.attr("type") == "result", "{field}: {}", answer.xml());
        Ok(())
    }

    /// The room answers, or asks the other.
    async fn ask(&mut self, s: usize, nick: &str, other: usize, question: &str) -> Result<()> {
        self.turn(s).await?;
        let (client, target) = (&self.sessions[s], &self.sessions[other]);
        target.mark();
        let to = format!("{}/{nick}", self.room);
        let answer = client.iq(&to, "get", question);
        let asked =
            |r: &Received| r.attr("type") == "get" && r.attr("from").starts_with(&self.room);
        let question = target.wait_for(asked, SOON);
        match select(Box::pin(answer), Box::pin(question)).await {
            Either::Left((answer, _)) => answer.map(drop),
            Either::Right((question, answer)) => {
                let question = question?;
                let (to, id) = (xml::escape(question.attr("from")), question.attr("id"));
                target.send_xml(&format!("<iq type='result' to='{to}' id='{id}'/>"))?;
                answer.await.map(drop)
            }
        }
    }

    async fn break_connection(&mut self, s: usize, nick: &str) -> Result<()> {
        self.settle().await?;
        let occupant = format!("{}/{nick}", self.room);
        let inside = |client: &Client| {
            client.transcript().with(|received| {
                let last = received
                    .iter()
                    .rfind(|r| r.element.name() == "presence" && r.attr("from") == occupant);
                last.is_some_and(|r| r.attr("type").is_empty())
            })
        };
        let was = inside(&self.sessions[0]);
        self.sessions[s].abort().await;
        let heard = self.sessions[s].received();
        self.former.push((SESSIONS[s].1.to_owned(), heard));
        // Where the room tells nobody of such roles, there is nothing to see.
        let limit = Duration::from_millis(if was { 1500 } else { 300 });
        until("the end", limit, || was && !inside(&self.sessions[0])).await.ok();
        // What was on its way to the old session is not to meet the new one.
        self.settle().await?;
        self.sessions[s] = self.log_in(s).await?;
        self.settle().await
    }

    async fn destroy(&mut self) -> Result<()> {
        self.settle().await?;
        let query = "<query xmlns='http://jabber.org/protocol/muc#owner'>\
                     <destroy jid='elsewhere@conference.a.test'><reason>enough</reason></destroy></query>";
        self.sessions[0].iq(&self.room, "set", query).await?;
        // ejabberd loses what comes while the room's process ends.
        sleep(Duration::from_millis(500)).await;
        self.settle().await?;
        self.sessions[0].create(&self.room, user(0), &[]).await
    }

    /// See `Stage::settle`.
    async fn settle(&mut self) -> Result<()> {
        self.before = None;
        let live = |s: &usize| self.sessions[*s].ended().is_none();
        let live: Vec<usize> = (0..SESSIONS.len()).filter(live).collect();
        try_join_all(live.iter().map(|&s| self.wait_for_room(s))).await?;
        let disco = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
        let all = live.iter().map(|&s| self.sessions[s].iq(&self.room, "get", disco));
        try_join_all(all).await.map(drop)
    }

    async fn wait_for_room(&self, s: usize) -> Result<()> {
        normal::wait_for_room(&self.sessions[s], &self.room).await
    }

    async fn end(self) -> Result<Run> {
        let mut run = Run { heard: BTreeMap::new(), carried: 0, plain: 0 };
        for server in ["b", "c"] {
            let records = self.place.lab.wire("a", server).records();
            let links = traffic::links(&records, &self.room);
            let sorted = traffic::sort(&records, server, &self.room);
            let linked = links > 0 && sorted.casts > 0;
            let plain = links == 0 && sorted.envelopes == 0;
            let right = if self.place.dmuc { linked || server != "b" } else { plain };
            ensure!(right, "{server}: {links} links, {sorted:?}, dmuc: {}", self.place.dmuc);
            run.carried += sorted.casts + sorted.onlys;
            run.plain += sorted.plain;
        }
        let live = self.sessions.iter().enumerate();
        let live = live.map(|(s, client)| (SESSIONS[s].1.to_owned(), client.received()));
        let former = self.former.into_iter().enumerate();
        let former = former.map(|(nth, (who, old))| (format!("{who} before drop {nth}"), old));
        run.heard = normal::heard_by_all(live.chain(former), self.place.lab.server("a"));
        try_join_all(self.sessions.into_iter().map(Client::disconnect)).await?;
        Ok(run)
    }
}
