//! Six servers, and rooms with a tree of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use dmuc_testkit::{Client, Forger, Kind, Lab, Record, ServerSpec};

use crate::link::quiet;
use crate::scene::{all_have, join_all, linked, log_in, names};

/// Servers with remote occupants, in the order in which these enter.
pub const REPLICAS: [&str; 5] = ["b", "c", "d", "e", "f"];
/// Of these, the one that passes nothing on.
pub const NO_RELAY: &str = "f";
/// Children of the room and of each relay.
pub const FANOUT: usize = 2;
/// Users of each server.
const USERS: usize = 2;
/// How long until links, places in the tree and barriers have settled.
const TRIES: usize = 40;

/// The servers.
pub struct Wood {
    /// They and the wires between every two of them.
    pub lab: Lab,
    /// What is made of what a server passes on.
    pub betrayal: Arc<Betrayal>,
}

/// A room of it.
pub struct Grove<'w> {
    pub wood: &'w Wood,
    /// Its address.
    pub room: String,
    /// Two users of `a`, of which the first is the owner.
    pub local: Vec<Client>,
    /// Two users of each replica.
    pub remote: BTreeMap<&'static str, Vec<Client>>,
}

/// How often something with a text has crossed from one server to another.
pub type Paths = BTreeMap<(String, String), usize>;

impl Wood {
    /// The room's server is of this kind, the others of both. Rooms have trees from so many linked domains on.
    pub async fn plant(name: &str, kind: Kind, domains: usize) -> Result<Self> {
        let spec = |kind, name: &str| {
            let children = if name == NO_RELAY { 0 } else { 16 };
            ServerSpec::new(kind, name)
                .dmuc(true)
                .dmuc_option("tree_domains", domains)
                .dmuc_option("tree_fanout", FANOUT)
                .dmuc_option("tree_children", children)
                .dmuc_option("retry_min", 1)
                .dmuc_option("ack_timeout", 5)
                .dmuc_option("probe_after", 2)
        };
        let kinds = [Kind::Prosody, Kind::Ejabberd].into_iter().cycle();
        let builder = Lab::builder(&format!("{name}-{kind}")).server(spec(kind, "a"));
        let builder =
            REPLICAS.iter().zip(kinds).fold(builder, |b, (name, kind)| b.server(spec(kind, name)));
        let lab = builder.wires().start().await?;
        let betrayal = Arc::new(Betrayal::default());
        for wire in lab.wires() {
            wire.set_forger(betrayal.forger());
        }
        Ok(Self { lab, betrayal })
    }

    /// A room with all of them in it, whose casts go by a tree.
    pub async fn grove(&self, name: &str) -> Result<Grove<'_>> {
        let grove = self.gather(name, &[]).await?;
        grove.settle().await?;
        Ok(grove)
    }

    /// A room with all of them in it; `settings` are fields of its form.
    pub async fn gather(&self, name: &str, settings: &[(&str, &str)]) -> Result<Grove<'_>> {
        let a = self.lab.server("a");
        let room = a.room(name);
        let users = |server: &str| names(&format!("{name}-{server}"), USERS);
        let local = log_in(a, &users("a")).await?;
        local[0].create(&room, &format!("{name}-a00"), settings).await?;
        join_all(&room, &local[1..]).await?;
        let mut remote = BTreeMap::new();
        for server in REPLICAS {
            self.lab.wire("a", server).reset();
            let clients = log_in(self.lab.server(server), &users(server)).await?;
            join_all(&room, &clients).await?;
            linked(self.lab.wire("a", server), &room, 1).await?;
            remote.insert(server, clients);
        }
        Ok(Grove { wood: self, room, local, remote })
    }

    /// What crosses from now on is on record.
    pub fn reset(&self) {
        self.lab.wires().iter().for_each(dmuc_testkit::Wire::reset);
    }

    /// What has crossed since.
    pub fn records(&self) -> Vec<Record> {
        self.lab.wires().iter().flat_map(dmuc_testkit::Wire::records).collect()
    }

    /// Where casts with this text have crossed.
    pub fn paths(&self, text: &str) -> Paths {
        let mut paths = Paths::new();
        let is_cast = |r: &&Record| {
            r.xml.contains(text) && (r.xml.contains("<relayed") || r.xml.contains("<envelope"))
        };
        for record in self.records().iter().filter(is_cast) {
            *paths.entry((record.from.clone(), record.to.clone())).or_default() += 1;
        }
        paths
    }
}

impl Grove<'_> {
    /// Everybody.
    pub fn all(&self) -> impl Iterator<Item = &Client> + Clone {
        self.local.iter().chain(self.remote.values().flatten())
    }

    /// Says something, and waits until everybody has it.
    pub async fn say(&self, text: &str) -> Result<()> {
        self.local[1].say(&self.room, text)?;
        all_have(self.all(), text).await
    }

    /// Until messages go by the tree.
    pub async fn settle(&self) -> Result<()> {
        self.until("no tree", |paths| egress(paths) == FANOUT && paths.len() == REPLICAS.len())
            .await
    }

    /// Until messages go such ways.
    pub async fn until(&self, otherwise: &str, is_so: impl Fn(&Paths) -> bool) -> Result<()> {
        let mut paths = Paths::new();
        for n in 0..TRIES {
            self.wood.reset();
            let text = format!("settling {n}.");
            self.say(&text).await?;
            tokio::time::sleep(Duration::from_millis(250)).await;
            paths = self.wood.paths(&text);
            if is_so(&paths) {
                return Ok(());
            }
        }
        bail!("{otherwise} in {}: {paths:?}", self.room)
    }

    /// Where a message goes now.
    pub async fn look(&self, text: &str) -> Result<Paths> {
        self.wood.reset();
        self.say(text).await?;
        quiet(&self.all().collect::<Vec<_>>()).await;
        Ok(self.wood.paths(text))
    }

    /// That everybody has had these, in this order and each once, and nothing else that begins so.
    pub fn check(&self, prefix: &str, count: usize) -> Result<()> {
        self.check_of(self.all(), prefix, count)
    }

    /// That these have.
    pub fn check_of<'c>(
        &self,
        clients: impl IntoIterator<Item = &'c Client>,
        prefix: &str,
        count: usize,
    ) -> Result<()> {
        let expected: Vec<String> = (0..count).map(|n| format!("{prefix} {n}.")).collect();
        for client in clients {
            let heard: Vec<String> =
                client.bodies(&self.room).into_iter().map(|(_, b)| b).collect();
            let heard: Vec<String> = heard.into_iter().filter(|b| b.starts_with(prefix)).collect();
            ensure!(heard == expected, "{} heard {heard:?}", client.jid());
        }
        Ok(())
    }
}

/// How many copies the room's server has sent.
pub fn egress(paths: &Paths) -> usize {
    paths.iter().filter(|((from, _), _)| from == "a").map(|(_, count)| count).sum()
}

/// Who passes on to whom.
pub fn children(paths: &Paths, parent: &str) -> Vec<String> {
    paths.keys().filter(|(from, _)| from == parent).map(|(_, to)| to.clone()).collect()
}

/// One server that is not to be trusted with what it passes on. As stream management counts what
/// crosses, each stanza becomes one.
#[derive(Default)]
pub struct Betrayal {
    by: Mutex<Option<String>>,
    is_on: AtomicBool,
    past: Mutex<Vec<String>>,
}

impl Betrayal {
    /// From now on by this server, or by nobody.
    pub fn set(&self, by: Option<&str>) {
        *self.by.lock().unwrap_or_else(PoisonError::into_inner) = by.map(str::to_owned);
        self.is_on.store(by.is_some(), Ordering::Release);
    }

    fn forger(self: &Arc<Self>) -> Forger {
        let betrayal = self.clone();
        Arc::new(move |from, xml| vec![betrayal.make(from, xml).unwrap_or_else(|| xml.to_owned())])
    }

    fn make(&self, from: &str, xml: &str) -> Option<String> {
        if !self.is_on.load(Ordering::Acquire) || !xml.contains("<relayed") {
            return None;
        }
        let is_his =
            self.by.lock().unwrap_or_else(PoisonError::into_inner).as_deref() == Some(from);
        if !is_his {
            return None;
        }
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.push(xml.to_owned());
        // To the same server: what was for another would not be believed for its address alone.
        let to = attribute(xml, "to")?;
        let mut old = past.iter().rev().filter(|old| attribute(old, "to") == Some(to));
        Some(match past.len() % 5 {
            // Altered.
            0 => xml.replace("betrayed", "forged"),
            // Withheld.
            1 => format!("<message from='{from}.test' to='{to}'/>"),
            // Repeated: an old one in its place.
            2 => old.nth(3).map_or(xml, String::as_str).to_owned(),
            // Too late: the one before it.
            3 => old.nth(1).map_or(xml, String::as_str).to_owned(),
            // Invented, as if it came from the room itself.
            _ => {
                let signature = attribute(xml, "signature")?;
                let (single, double) =
                    (format!("signature='{signature}'"), format!("signature=\"{signature}\""));
                xml.replace("betrayed", "forged")
                    .replace(&single, "nth='0'")
                    .replace(&double, "nth='0'")
            }
        })
    }
}

/// The first attribute of this name.
pub fn attribute<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let begin = xml.find(&format!(" {name}="))? + name.len() + 3;
    let quote = xml[..begin].chars().last()?;
    let length = xml[begin..].find(quote)?;
    Some(&xml[begin..begin + length])
}
