//! What happens in a room while it is measured.

use std::collections::BTreeMap;
use std::iter::once;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dmuc_testkit::crowd::{Heard, mark};

use super::case::Case;
use super::day::{Actor, Event, day};
use super::side::{Round, Side};

/// How many of a storm's joiners are the later ones, whose bytes are counted by themselves.
const LATER: usize = 10;

/// Messages that are sent at once where rates are limited.
pub const VOLLEY: usize = 5;

impl Side {
    /// One broadcast of the owner to all; how long it took to the last remote recipient.
    pub async fn broadcast(&mut self, case: Case, k: usize, room: &str) -> Result<Duration> {
        let text = self.next_mark();
        let begin = Instant::now();
        match case {
            Case::Presence => {
                let status = format!("<status>{text}</status>");
                self.owner.presence(&format!("{room}/owner"), &status)?;
            }
            _ => drop(self.owner.say(room, &text)?),
        }
        self.heard_by(0..k, begin).await
    }

    /// Several messages without a pause; how long until the last recipient had the last one.
    pub async fn volley(&mut self, k: usize, room: &str) -> Result<Duration> {
        let begin = Instant::now();
        for _ in 0..VOLLEY {
            let text = self.next_mark();
            self.owner.say(room, &text)?;
        }
        self.heard_by(0..k, begin).await
    }

    /// All of them join, one after the other or together.
    pub async fn storm(
        &mut self,
        case: Case,
        k: usize,
        room: &str,
        counted: bool,
        round: &mut Round,
    ) -> Result<()> {
        // The later ones by themselves only where nobody looks at the time.
        let later = if counted { LATER.min(k / 2) } else { 0 };
        let begin = Instant::now();
        let entered = self.remote.enter(room, 0..k - later, case.at_once(k)).await?;
        let last = entered.into_iter().max().context("nobody joins")?;
        round.last.push(last - begin);
        if later > 0 {
            self.settle(true).await;
            let bytes = || self.lab.wire("a", "b").counters().raw_bytes;
            let before = bytes();
            self.remote.enter(room, k - later..k, 1).await?;
            self.settle(true).await;
            round.later = Some((bytes() - before) as f64 / later as f64);
        }
        Ok(())
    }

    /// A day, each event when all have heard of the one before; how long each took.
    pub async fn day(&mut self, k: usize, room: &str) -> Result<Vec<Duration>> {
        let mut nicks = BTreeMap::new();
        let mut durations = Vec::new();
        for event in day(k) {
            let took = self.event(event, k, room, &mut nicks).await;
            durations.push(took.with_context(|| format!("{event:?}"))?);
        }
        Ok(durations)
    }

    /// `nicks` are those of users who have changed theirs.
    async fn event(
        &mut self,
        event: Event,
        k: usize,
        room: &str,
        nicks: &mut BTreeMap<usize, String>,
    ) -> Result<Duration> {
        let text = self.next_mark();
        let status = format!("<status>{text}</status>");
        let begin = Instant::now();
        let address = |crowd: &Self, n: usize| {
            let nick = nicks.get(&n).map_or(crowd.remote.name(n), String::as_str);
            format!("{room}/{nick}")
        };
        match event {
            Event::Message(by, length) => {
                let message = groupchat(room, &text, length);
                self.send(by, &message).await?;
                self.heard_by(0..k, begin).await
            }
            Event::Status(by) => {
                let to = by.map_or(format!("{room}/owner"), |n| address(self, n));
                let presence = format!("<presence to='{to}'><show>away</show>{status}</presence>");
                self.send(by, &presence).await?;
                self.heard_by(0..k, begin).await
            }
            Event::Join(guest) => {
                let x = "<x xmlns='http://jabber.org/protocol/muc'/>";
                let to = address(self, guest);
                let presence = format!("<presence to='{to}'>{x}{status}</presence>");
                self.send(Some(guest), &presence).await?;
                self.heard_by((0..k).chain(once(guest)), begin).await
            }
            Event::Leave(guest) => {
                let to = address(self, guest);
                let presence =
                    format!("<presence type='unavailable' to='{to}'>{status}</presence>");
                self.send(Some(guest), &presence).await?;
                self.heard_by((0..k).chain(once(guest)), begin).await
            }
            Event::Nick(n, length) => {
                let nick = nicks.entry(n).or_insert_with(|| self.remote.name(n).to_owned());
                nick.push_str("-2");
                let presence = format!("<presence to='{room}/{nick}'/>");
                self.send(Some(n), &presence).await?;
                // ejabberd shows the presence from before the change, so that there is no mark in it.
                self.send(Some(n), &groupchat(room, &text, length)).await?;
                self.heard_by(0..k, begin).await
            }
            Event::Whisper(by, to) => {
                let message = format!(
                    "<message type='chat' to='{}'><body>{text}</body>\
                     <x xmlns='http://jabber.org/protocol/muc#user'/></message>",
                    address(self, to)
                );
                self.send(by, &message).await?;
                self.heard_by(once(to), begin).await
            }
        }
    }

    async fn send(&mut self, by: Actor, xml: &str) -> Result<()> {
        match by {
            Some(n) => self.remote.send(n, xml).await,
            None => self.owner.send_xml(xml).map(drop),
        }
    }

    fn next_mark(&mut self) -> String {
        self.marks += 1;
        mark(self.marks)
    }

    /// Waits until these have heard the last mark; how long after `begin` the last of them did.
    async fn heard_by(
        &mut self,
        who: impl IntoIterator<Item = usize>,
        begin: Instant,
    ) -> Result<Duration> {
        Ok(self.remote.all_hear(&Heard::Mark(self.marks), who).await? - begin)
    }
}

/// A message to the room.
fn groupchat(room: &str, text: &str, length: usize) -> String {
    let rest = " said".repeat(length / 5);
    format!("<message type='groupchat' to='{room}'><body>{text}{rest}</body></message>")
}
