//! Everything that one test needs, set up together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;

use crate::ca::Ca;
use crate::dns::View;
use crate::namespace;
use crate::peer::Peer;
use crate::rundir::RunDir;
use crate::server::site::Site;
use crate::server::{Kind, Server, ServerSpec, domains};
use crate::tls::Tls;
use crate::wire::{End, Wire};

/// Laboratories of one process have networks of their own: 127.(10 + n).0.0/16.
static NEXT: AtomicU8 = AtomicU8::new(0);

/// Servers, wires and peers that know each other.
pub struct Lab {
    // Dropped in this order: servers before their name servers, the directory last.
    servers: BTreeMap<String, Server>,
    peers: BTreeMap<String, Peer>,
    wires: Vec<Wire>,
    _views: Vec<View>,
    run: RunDir,
}

/// What is to be in a laboratory.
#[derive(Default)]
pub struct LabBuilder {
    name: String,
    servers: Vec<ServerSpec>,
    peers: Vec<String>,
    wires: Vec<(String, String)>,
}

impl LabBuilder {
    /// A server.
    pub fn server(mut self, spec: ServerSpec) -> Self {
        self.servers.push(spec);
        self
    }

    /// A wire between two servers, by name; between clusters, by the names of their first nodes.
    /// Servers without one reach each other directly.
    pub fn wire(mut self, a: &str, b: &str) -> Self {
        self.wires.push((a.to_owned(), b.to_owned()));
        self
    }

    /// A wire between every two servers.
    pub fn wires(mut self) -> Self {
        let single = self.servers.iter().filter(|spec| spec.cluster.is_none());
        let names: Vec<String> = single.map(|spec| spec.name.clone()).collect();
        for (i, a) in names.iter().enumerate() {
            self.wires.extend(names[i + 1..].iter().map(|b| (a.clone(), b.clone())));
        }
        self
    }

    /// A peer that a test speaks for.
    pub fn peer(mut self, name: &str) -> Self {
        self.peers.push(name.to_owned());
        self
    }

    /// Starts it all; done when every server accepts connections.
    pub async fn start(self) -> Result<Lab> {
        namespace::check()?;
        let run = RunDir::new(&self.name)?;
        let started = self.start_in(&run).await;
        match started {
            Ok((servers, peers, wires, views)) => {
                Ok(Lab { servers, peers, wires, _views: views, run })
            }
            Err(error) => Err(error.context(format!("logs are in {}", run.path().display()))),
        }
    }

    async fn start_in(
        self,
        run: &RunDir,
    ) -> Result<(BTreeMap<String, Server>, BTreeMap<String, Peer>, Vec<Wire>, Vec<View>)> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let network = Network { lab: 10 + number % 200 };
        let ca = Ca::new()?;
        let names = self.servers.iter().map(|spec| &spec.name).chain(&self.peers);
        let index: BTreeMap<String, u8> = names.cloned().zip(1..).collect();
        if index.len() != self.servers.len() + self.peers.len() {
            bail!("two servers or peers of a laboratory have the same name");
        }
        // Of a server that joins a cluster those of the cluster, whose first node comes first or not.
        let mut known: BTreeMap<String, Vec<String>> =
            self.peers.iter().map(|name| (name.clone(), domains(name).into())).collect();
        known.extend(self.servers.iter().map(|spec| (spec.name.clone(), spec.domains())));
        let mut wired = BTreeSet::new();
        for (a, b) in &self.wires {
            let (Some(a), Some(b)) = (index.get(a), index.get(b)) else {
                bail!("a wire between {a} and {b}, which are not both servers");
            };
            wired.extend([(*a, *b), (*b, *a)]);
        }
        let further: BTreeSet<String> =
            self.servers.iter().filter(|s| s.cluster.is_some()).map(|s| s.name.clone()).collect();
        // What `viewer` believes about all names; the wire takes the place of the others. The nodes
        // of a cluster believe the same.
        let names_for = |viewer: u8| -> BTreeMap<String, Ipv4Addr> {
            let mut view = BTreeMap::new();
            for (name, &i) in index.iter().filter(|(name, _)| !further.contains(*name)) {
                let address = match wired.contains(&(viewer, i)) {
                    true => network.wire(viewer, i),
                    false => network.server(i),
                };
                view.extend(known[name].iter().map(|domain| (domain.clone(), address)));
            }
            view
        };

        let mut clusters: BTreeMap<String, Vec<(String, Ipv4Addr)>> = BTreeMap::new();
        let mut joins = Vec::new();
        for spec in &self.servers {
            let nodes = clusters.entry(spec.first_node().to_owned()).or_default();
            nodes.push((spec.name.clone(), network.server(index[&spec.name])));
            if let Some(first) = &spec.cluster {
                let known = self.servers.iter().any(|s| s.name == *first && s.cluster.is_none());
                if !known || spec.kind != Kind::Ejabberd {
                    bail!("{} cannot join {first}", spec.name);
                }
                joins.push((spec.name.clone(), first.clone()));
            }
        }

        let mut tls = BTreeMap::new();
        let mut views = Vec::new();
        let mut servers = BTreeMap::new();
        for spec in self.servers {
            let i = index[&spec.name];
            let dir = run.make(&spec.name)?;
            let first = spec.first_node().to_owned();
            let identity = ca.issue(&spec.domains())?;
            identity.write(&dir)?;
            std::fs::write(dir.join("ca.pem"), ca.pem())?;
            views.push(View::start(&dir, network.resolver(i), &names_for(index[&first]))?);
            tls.insert(spec.name.clone(), Tls::new(&ca, &identity)?);
            let release = Release::of(&spec);
            let site = Site {
                address: network.server(i),
                label: format!("dmuc_{}_{number}", spec.name),
                cluster: format!("dmuc_{first}_{number}"),
                dir,
                short: run.short().to_owned(),
                sysroot: spec.sysroot.clone().or(release.root),
                stage: spec.stage.clone().or(release.stage).filter(|_| !spec.installed),
                owner: spec.installed.then(|| spec.kind.name()),
            };
            servers.insert(spec.name.clone(), Server::new(spec, site)?);
        }
        let mut wires = Vec::new();
        for (a, b) in &self.wires {
            let (i, j) = (index[a], index[b]);
            let end = |name: &str, own: u8, other: u8| End {
                name: name.to_owned(),
                nodes: clusters[name].clone(),
                listen: network.wire(own, other),
                tls: tls[name].clone(),
            };
            wires.push(Wire::start(end(a, i, j), end(b, j, i)).await?);
        }
        let mut peers = BTreeMap::new();
        for name in &self.peers {
            let i = index[name];
            let tls = Tls::new(&ca, &ca.issue(&domains(name))?)?;
            let peer = Peer::start(name, network.server(i), tls, names_for(i)).await?;
            peers.insert(name.clone(), peer);
        }
        try_join_all(servers.values().map(Server::start)).await?;
        for (node, first) in &joins {
            servers[node].join(&servers[first]).await?;
        }
        Ok((servers, peers, wires, views))
    }
}

impl Lab {
    /// A laboratory whose logs go to a directory named after `name`.
    pub fn builder(name: &str) -> LabBuilder {
        LabBuilder { name: name.to_owned(), ..LabBuilder::default() }
    }

    /// A server. Panics if there is none of that name, which is a mistake in the test.
    pub fn server(&self, name: &str) -> &Server {
        self.servers.get(name).unwrap_or_else(|| panic!("no server {name} in this laboratory"))
    }

    /// All servers, by name.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.values()
    }

    /// A peer. Panics if there is none of that name.
    pub fn peer(&self, name: &str) -> &Peer {
        self.peers.get(name).unwrap_or_else(|| panic!("no peer {name} in this laboratory"))
    }

    /// The wire between two servers, in either order. Panics if there is none.
    pub fn wire(&self, a: &str, b: &str) -> &Wire {
        self.wires
            .iter()
            .find(|wire| wire.names() == (a, b) || wire.names() == (b, a))
            .unwrap_or_else(|| panic!("no wire between {a} and {b} in this laboratory"))
    }

    /// All wires.
    pub fn wires(&self) -> &[Wire] {
        &self.wires
    }

    /// Where the logs are.
    pub fn dir(&self) -> &Path {
        self.run.path()
    }

    /// Ends a test: on success everything is deleted; after a failure the logs and what
    /// crossed the wires stay, and the error says where.
    pub async fn finish<T>(self, outcome: Result<T>) -> Result<T> {
        let dir = self.run.path().to_owned();
        let outcome = outcome.with_context(|| format!("logs are in {}", dir.display()));
        match &outcome {
            Ok(_) => self.run.succeeded(),
            Err(_) => self.write_wires()?,
        }
        for server in self.servers.values() {
            server.kill().await?;
        }
        outcome
    }

    /// Writes what crossed every wire to a file in the run's directory.
    pub fn write_wires(&self) -> Result<()> {
        for wire in &self.wires {
            let (a, b) = wire.names();
            let mut text = String::new();
            let records = wire.records();
            let begin = records.first().map(|record| record.at);
            for record in &records {
                let at = begin.map(|begin| record.at - begin).unwrap_or_default();
                text += &format!(
                    "{:10.6} {} -> {}: {}\n",
                    at.as_secs_f64(),
                    record.from,
                    record.to,
                    record.xml
                );
            }
            for fault in wire.faults() {
                text += &format!("fault: {fault}\n");
            }
            std::fs::write(self.run.path().join(format!("wire-{a}-{b}.log")), text)?;
        }
        Ok(())
    }
}

/// The Debian release that a server is from and the dmuc that `cargo xtask` has built for it, by
/// `$DMUC_STAGE` and `$DMUC_DEBIAN`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Release {
    root: Option<PathBuf>,
    stage: Option<PathBuf>,
}

impl Release {
    /// Server `b` is the replica. All others are as the primary, and so is what brings a build of
    /// its own, which was made from the primary's.
    fn of(spec: &ServerSpec) -> Self {
        let replica = spec.first_node() == "b" && spec.stage.is_none();
        let var = |name| std::env::var(name).unwrap_or_default();
        Self::read(&var("DMUC_DEBIAN"), &var("DMUC_STAGE"), replica)
    }

    /// `root:stage,root:stage` of primary and replica; without it, `stage` for both.
    fn read(ends: &str, stage: &str, replica: bool) -> Self {
        let (first, second) = ends.split_once(',').unwrap_or((ends, ends));
        let end = if replica { second } else { first };
        let (root, own) = end.split_once(':').unwrap_or(("", stage));
        let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        Self { root: path(root), stage: path(own) }
    }
}

/// Who has which address.
struct Network {
    lab: u8,
}

impl Network {
    fn server(&self, i: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.lab, 0, i)
    }

    fn resolver(&self, i: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.lab, 255, i)
    }

    /// Where `viewer` finds the wire instead of `other`.
    fn wire(&self, viewer: u8, other: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.lab, viewer, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_both_ends() {
        let release = |root: Option<&str>, stage: Option<&str>| Release {
            root: root.map(PathBuf::from),
            stage: stage.map(PathBuf::from),
        };
        let ends = "/t/root:/t/stage,:/stage";
        assert_eq!(Release::read(ends, "/x", false), release(Some("/t/root"), Some("/t/stage")));
        assert_eq!(Release::read(ends, "/x", true), release(None, Some("/stage")));
        assert_eq!(Release::read("", "/x", true), release(None, Some("/x")));
        assert_eq!(Release::read("", "", false), release(None, None));
    }
}
