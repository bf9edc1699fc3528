//! One side of the comparison: servers of one way to fan out, and their users.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dmuc_testkit::client::PATIENCE;
use dmuc_testkit::{Client, Crowd, Kind, Lab, ServerSpec, Usage, wire};
use tokio::time::sleep;

use super::case::{Case, HISTORY};
use super::fanout::Fanout;
use super::setup::Setup;
use crate::scene::Pairing;

/// After this without a stanza everything has arrived.
const STILL: Duration = Duration::from_millis(400);

/// The same where figures are rough anyway: each round waits three times.
const STILL_QUICK: Duration = Duration::from_millis(150);

/// A limited server reads what it may read in a second or less at once.
const STILL_LIMITED: Duration = Duration::from_secs(2);

/// Longer than a replica waits with an acknowledgement.
const ACKNOWLEDGED: Duration = Duration::from_millis(2300);

/// What one round has shown.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// Stanzas and bytes on the link; of the stanzas and their XML nothing in a timed round.
    pub link: wire::Counters,
    /// Bytes on the socket for each of the last joiners; in a counted round of a storm.
    pub later: Option<f64>,
    /// Stanzas that the remote users received.
    pub delivered: u64,
    /// Processor time of primary and replica.
    pub cpu: [Duration; 2],
    /// Memory of primary and replica afterwards, in bytes.
    pub rss: [u64; 2],
    /// Time to the last recipient, of each broadcast; or of a whole storm.
    pub last: Vec<Duration>,
}

/// Primary `a`, replica `b`, and for residents elsewhere `c`; with users.
pub struct Side {
    fanout: Fanout,
    quick: bool,
    /// After so long without a stanza everything has arrived.
    still: Duration,
    pub(super) lab: Lab,
    pub(super) owner: Client,
    residents: Crowd,
    pub(super) remote: Crowd,
    rooms: usize,
    pub(super) marks: u32,
}

impl Side {
    /// Starts servers and logs in users.
    pub async fn start(
        pairing: Pairing,
        fanout: Fanout,
        setup: Setup,
        resident: usize,
        remote: usize,
    ) -> Result<Self> {
        let change = |spec: ServerSpec| setup.configure(spec, fanout);
        let builder = pairing.lab_with(&format!("bench-{fanout}"), change);
        let homes = fanout.homes(setup.residents);
        let builder = match homes.contains(&"c") {
            true => builder.server(change(ServerSpec::new(pairing.primary, "c"))),
            false => builder,
        };
        let lab = builder.start().await?;
        // Counters are enough, and half a million stanzas are many.
        lab.wire("a", "b").set_recording(false);
        let users = async {
            setup.verify(&lab).await?;
            let (a, [of_residents, of_remote]) =
                (lab.server("a"), homes.map(|name| lab.server(name)));
            a.register(&["owner"]).await?;
            let owner = Client::connect(a, "owner", "r").await?;
            let residents = Crowd::log_in(of_residents, "resident", resident).await?;
            Ok((owner, residents, Crowd::log_in(of_remote, "remote", remote).await?))
        };
        match users.await {
            Ok((owner, residents, remote)) => {
                let quick = setup.quick;
                let still = match setup.stock_limits {
                    true => STILL_LIMITED,
                    false if quick => STILL_QUICK,
                    false => STILL,
                };
                let (rooms, marks) = (0, 0);
                let mut side =
                    Self { fanout, quick, still, lab, owner, residents, remote, rooms, marks };
                match side.negotiate(setup.spread).await {
                    Ok(()) => Ok(side),
                    Err(error) => side.lab.finish(Err(error)).await,
                }
            }
            Err(error) => lab.finish(Err(error)).await,
        }
    }

    /// How it gets to the remote users what the room says.
    pub fn fanout(&self) -> Fanout {
        self.fanout
    }

    /// Releases of primary and replica.
    pub async fn versions(&self) -> Result<[String; 2]> {
        Ok([self.lab.server("a").version().await?, self.lab.server("b").version().await?])
    }

    /// Waits until `mod_multicast` has found the other one, for which it asks only when there is a
    /// message to send; before that it sends plainly. It remembers the answer for a day.
    async fn negotiate(&mut self, spread: u16) -> Result<()> {
        if self.fanout != Fanout::Xep0033 {
            return Ok(());
        }
        // Users are at the domains in turn.
        let k = usize::from(spread).max(2);
        let room = self.open(Case::Message, k).await?;
        let begin = Instant::now();
        loop {
            self.lab.wire("a", "b").reset();
            self.broadcast(Case::Message, k, &room).await?;
            self.settle(false).await;
            let link = self.lab.wire("a", "b").sent_by("a");
            if link.addressed == u64::from(spread) && link.messages == link.addressed {
                return self.close(&room).await;
            }
            ensure!(
                begin.elapsed() < PATIENCE,
                "{} of {} messages to {spread} domains have XEP-0033 addresses after {PATIENCE:?}: \
                 mod_multicast is not in use",
                link.addressed,
                link.messages
            );
        }
    }

    /// The laboratory, to end it.
    pub fn into_lab(self) -> Lab {
        self.lab
    }

    /// From now on the wire does not read what crosses. Only while there is no room: the servers
    /// connect anew, which is done when this returns.
    pub async fn stop_reading(&mut self) -> Result<()> {
        let wire = self.lab.wire("a", "b");
        wire.set_reading(false);
        wire.interrupt().await?;
        // ejabberd loses what is sent while it still takes leave of the old connection.
        sleep(Duration::from_millis(500)).await;
        let room = self.open(Case::Message, 2).await?;
        self.close(&room).await
    }

    /// Plays a case once in a room of its own; `counted` takes its time so that everything on the
    /// link is seen, acknowledgements too.
    pub async fn round(&mut self, case: Case, k: usize, counted: bool) -> Result<Round> {
        let room = self.open(case, k).await?;
        let mut round = self.begin().await?;
        match case {
            _ if case.is_storm() => self.storm(case, k, &room, counted, &mut round).await?,
            Case::Mixed => round.last = self.day(k, &room).await?,
            Case::Limits => round.last.push(self.volley(k, &room).await?),
            _ => {
                for _ in 0..Case::broadcasts(k, self.quick) {
                    round.last.push(self.broadcast(case, k, &room).await?);
                }
            }
        }
        // A counted storm has settled already.
        self.settle(counted && !case.is_storm()).await;
        self.end(&mut round).await?;
        if counted {
            self.fanout.verify(case, &round.link)?;
        }
        self.close(&room).await?;
        Ok(round)
    }

    /// A new room with those in it who are there before the measurement. They enter without seeing
    /// each other, which is quick, and is the same later on.
    async fn open(&mut self, case: Case, k: usize) -> Result<String> {
        self.rooms += 1;
        let room = self.lab.server("a").room(&format!("room{}", self.rooms));
        let hidden = [("muc#roomconfig_presencebroadcast", "moderator")];
        self.owner.create(&room, "owner", &hidden).await?;
        if case.is_storm() {
            self.residents.enter(&room, 0..k, 32).await?;
            self.reveal(&room).await?;
            self.speak(&room, case.history()).await?;
        } else {
            self.remote.enter(&room, 0..k, 32).await?;
            if case == Case::Mixed {
                self.reveal(&room).await?;
                self.speak(&room, 0).await?;
            }
            // Whatever is done only once is done.
            for _ in 0..3 {
                self.broadcast(case, k, &room).await?;
            }
        }
        self.settle(false).await;
        Ok(room)
    }

    /// The room gets a subject, without which Prosody sends a joiner none, and a history.
    async fn speak(&self, room: &str, lines: usize) -> Result<()> {
        self.owner.send_xml(&format!(
            "<message type='groupchat' to='{room}'><subject>A storm</subject></message>"
        ))?;
        self.owner.wait_for(|r| r.child("subject").is_some(), PATIENCE).await?;
        for n in 0..lines {
            let body = format!("Line {n} of what was said before.");
            self.owner.say(room, &body)?;
            self.owner.wait_for(|r| r.body().as_deref() == Some(&body), PATIENCE).await?;
        }
        Ok(())
    }

    /// From now on the presence of every occupant is shown to all who come.
    async fn reveal(&self, room: &str) -> Result<()> {
        let server = self.lab.server("a");
        if server.kind() == Kind::Prosody {
            // Its form would send everybody's presence to everybody, and takes the two lengths of
            // the history, of which the lesser counts, in no order.
            let set = format!(
                "> local data = prosody.hosts[\"{}\"].modules.muc.get_room_from_jid(\"{room}\")\
                 ._data; data.presence_broadcast = nil; data.history_length = {HISTORY}; \
                 data.default_history_messages = {HISTORY}",
                server.muc()
            );
            return server.shell(&set).await.map(drop);
        }
        let roles = ["moderator", "participant", "visitor"];
        let values: String = roles.iter().map(|role| format!("<value>{role}</value>")).collect();
        let form = format!(
            "<query xmlns='http://jabber.org/protocol/muc#owner'>\
             <x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
             <value>http://jabber.org/protocol/muc#roomconfig</value></field>\
             <field var='muc#roomconfig_presencebroadcast'>{values}</field></x></query>"
        );
        let answer = self.owner.iq(room, "set", &form).await?;
        ensure!(answer.attr("type") == "result", "{room}: {}", answer.xml());
        Ok(())
    }

    async fn begin(&mut self) -> Result<Round> {
        self.remote.forget();
        self.residents.forget();
        let [primary, replica] = self.usage().await?;
        self.lab.wire("a", "b").reset();
        let mut round = Round { cpu: [primary.cpu, replica.cpu], ..Round::default() };
        round.delivered = self.remote.stanzas();
        Ok(round)
    }

    async fn end(&self, round: &mut Round) -> Result<()> {
        let usage = self.usage().await?;
        for (n, usage) in usage.into_iter().enumerate() {
            round.cpu[n] = usage.cpu - round.cpu[n];
            round.rss[n] = usage.rss;
        }
        round.delivered = self.remote.stanzas() - round.delivered;
        round.link = self.lab.wire("a", "b").counters();
        Ok(())
    }

    async fn usage(&self) -> Result<[Usage; 2]> {
        Ok([self.lab.server("a").usage().await?, self.lab.server("b").usage().await?])
    }

    /// Waits until everything has arrived.
    pub(super) async fn settle(&self, acknowledged: bool) {
        tokio::join!(self.remote.quiet(self.still), self.residents.quiet(self.still));
        if acknowledged {
            sleep(ACKNOWLEDGED).await;
        }
    }

    /// Ends the room, which costs less than everybody's leave.
    async fn close(&mut self, room: &str) -> Result<()> {
        let destroy = "<query xmlns='http://jabber.org/protocol/muc#owner'><destroy/></query>";
        let answer = self.owner.iq(room, "set", destroy).await?;
        ensure!(answer.attr("type") == "result", "{room}: {}", answer.xml());
        self.settle(false).await;
        // ejabberd loses what reaches a room while its process ends.
        sleep(Duration::from_millis(200)).await;
        self.owner.clear();
        Ok(())
    }
}
