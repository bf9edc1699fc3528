//! People of both servers in a room on each of them.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use dmuc_testkit::{Client, Lab};
use tokio::time::sleep;

use crate::operations::seen::people;
use crate::page::seen::{ACCOUNTS, Page};
use crate::scene::{all_have, join_all, linked, log_in, names};
use crate::traffic;

/// Two users of `a` and three of `b`, all of them in a room on either.
pub struct People {
    clients: Vec<Client>,
    /// The room on `a` and the one on `b`.
    pub rooms: [String; 2],
}

/// How long they talk before and after whatever happens.
const A_WHILE: Duration = Duration::from_secs(1);

impl People {
    /// Logs them in and lets them into new rooms of this name.
    pub async fn gather(lab: &Lab, room: &str) -> Result<Self> {
        let (a, b) = (lab.server("a"), lab.server("b"));
        lab.wire("a", "b").reset();
        let mut clients = log_in(a, &names("anna", 2)).await?;
        clients.extend(log_in(b, &names("bert", 3)).await?);
        let rooms = [a.room(room), b.room(room)];
        for (room, owner) in rooms.iter().zip([0, 2]) {
            clients[owner].create(room, crate::scene::nick(&clients[owner]), &[]).await?;
            join_all(room, &clients[..owner]).await?;
            join_all(room, &clients[owner + 1..]).await?;
        }
        Ok(Self { clients, rooms })
    }

    /// Waits until both rooms are linked.
    pub async fn linked(&self, lab: &Lab) -> Result<()> {
        for room in &self.rooms {
            linked(lab.wire("a", "b"), room, 1).await?;
        }
        Ok(())
    }

    /// Both rooms are seen at both servers: by the commands, and on the page by an admin and by nobody
    /// else.
    pub async fn seen(&self, lab: &Lab) -> Result<()> {
        for server in [lab.server("a"), lab.server("b")] {
            server.register(&ACCOUNTS).await?;
            let page = Page::of(server);
            page.is_protected(&self.rooms[0]).await?;
            // Those of each room who are users of the other server.
            for (room, occupants) in self.rooms.iter().zip([3, 2]) {
                people(server, room, occupants).await?;
                let told = page.document(room).await?;
                let links = &told["room"]["links"];
                let [link] = links.as_array().map(Vec::as_slice).unwrap_or_default() else {
                    bail!("{links}");
                };
                ensure!(link["state"] == "linked" && link["occupants"] == occupants, "{link}");
            }
        }
        Ok(())
    }

    /// Each of them says something in each room and all hear it, in as many stanzas as there are
    /// recipients on the other server.
    pub async fn plainly(&self, lab: &Lab) -> Result<()> {
        self.talk(&AtomicBool::new(true)).await?;
        for (room, to) in self.rooms.iter().zip(["b", "a"]) {
            let seen = traffic::sort(&lab.wire("a", "b").records(), to, room);
            ensure!(seen.plain > 0 && seen.envelopes == 0 && seen.control == 0, "{seen:?}");
        }
        Ok(())
    }

    /// They talk before, while and after something is done, and each hears everything once and in
    /// one order, over links before and after.
    pub async fn talk_during(
        &self,
        lab: &Lab,
        what: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let stop = AtomicBool::new(false);
        let happens = async {
            let outcome = async {
                sleep(A_WHILE).await;
                let before = self.casts(lab);
                ensure!(before.iter().all(|casts| *casts > 0), "no casts: {before:?}");
                what.await?;
                let then = self.casts(lab);
                sleep(A_WHILE).await;
                let after = self.casts(lab);
                ensure!(then[0] < after[0] && then[1] < after[1], "{then:?}, {after:?}");
                Ok(())
            }
            .await;
            stop.store(true, Ordering::Relaxed);
            outcome
        };
        let (said, outcome) = tokio::join!(self.talk(&stop), happens);
        outcome.and(said)
    }

    /// Envelopes' casts so far from each room to the other server.
    fn casts(&self, lab: &Lab) -> [usize; 2] {
        let records = lab.wire("a", "b").records();
        [("b", &self.rooms[0]), ("a", &self.rooms[1])]
            .map(|(to, room)| traffic::sort(&records, to, room).casts)
    }

    /// They talk in turns, at least once each in either room, until told to stop.
    async fn talk(&self, stop: &AtomicBool) -> Result<()> {
        let mut said = Vec::new();
        let turns = 2 * self.clients.len();
        while said.len() < turns || !stop.load(Ordering::Relaxed) {
            let turn = said.len();
            let body = format!("word {turn}");
            self.clients[(turn / 2) % self.clients.len()].say(&self.rooms[turn % 2], &body)?;
            said.push(body);
            sleep(Duration::from_millis(20)).await;
        }
        for (at, room) in self.rooms.iter().enumerate() {
            let last = format!("last in {at}");
            self.clients[2 * at].say(room, &last)?;
            all_have(&self.clients, &last).await?;
            // One who is at home in the room.
            let order = self.clients[2 * at].bodies(room);
            let count = said.iter().skip(at).step_by(2).count() + 1;
            ensure!(order.len() == count, "{count} said in {room}, {} heard", order.len());
            for client in &self.clients {
                let got = client.bodies(room);
                ensure!(got == order, "{} heard {got:?}, not {order:?}", client.jid());
            }
        }
        for client in &self.clients {
            let out = client
                .received()
                .into_iter()
                .find(|r| r.element.name() == "presence" && r.attr("type") == "unavailable");
            ensure!(out.is_none(), "{}: {out:?}", client.jid());
        }
        Ok(())
    }
}
