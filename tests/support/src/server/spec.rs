//! What a test says about a server that it wants.

use std::path::PathBuf;

use serde_json::{Map, Value};

/// Which server program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// ejabberd, an Erlang program.
    Ejabberd,
    /// Prosody, a Lua program.
    Prosody,
}

impl Kind {
    /// What it is called, as its Debian package and its user are.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ejabberd => "ejabberd",
            Self::Prosody => "prosody",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "ejabberd" => Ok(Self::Ejabberd),
            "prosody" => Ok(Self::Prosody),
            _ => Err(anyhow::anyhow!("{name} is neither ejabberd nor prosody")),
        }
    }
}

/// A server to start. The server named `a` serves `a.test` and `conference.a.test`.
#[derive(Clone, Debug)]
pub struct ServerSpec {
    /// Which program.
    pub kind: Kind,
    /// Its name, the first label of its domain unless it is a further node of a cluster.
    pub name: String,
    /// The first node of the ejabberd cluster that it joins as soon as both run.
    pub cluster: Option<String>,
    /// Further domains with users, and with rooms where that is ejabberd: `h1.b.test` and so on. Of a
    /// server that is alone.
    pub hosts: usize,
    /// Whether dmuc is enabled in its configuration at the start.
    pub dmuc: bool,
    /// Options of dmuc, by their name in the documentation (without the `dmuc_` of Prosody).
    pub dmuc_options: Map<String, Value>,
    /// Further options: merged into ejabberd's configuration (objects are merged member by
    /// member, everything else is replaced), or written as global options of Prosody.
    pub options: Map<String, Value>,
    /// Whether it has the rate limits of the configuration that comes with it, and not none.
    pub stock_limits: bool,
    /// Modules not to load, by the server's own name for them.
    pub without: Vec<String>,
    /// Further arguments of ejabberd's Erlang machine.
    pub erl_arguments: Vec<String>,
    /// Whether it listens for HTTP, for its API and its metrics.
    pub http: bool,
    /// From which level on it writes its log: `debug`, `info`, `warn`; else the laboratory's choice.
    pub log_level: Option<String>,
    /// The root of another Debian release to take the server from instead of this machine's.
    pub sysroot: Option<PathBuf>,
    /// Whether it is started as its Debian package starts it, with what is installed there.
    pub installed: bool,
    /// A build of dmuc other than the one in `$DMUC_STAGE`.
    pub stage: Option<PathBuf>,
}

impl ServerSpec {
    /// A server without dmuc.
    pub fn new(kind: Kind, name: &str) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            cluster: None,
            hosts: 0,
            dmuc: false,
            dmuc_options: Map::new(),
            options: Map::new(),
            stock_limits: false,
            without: Vec::new(),
            erl_arguments: Vec::new(),
            http: false,
            log_level: None,
            sysroot: None,
            installed: false,
            stage: None,
        }
    }

    /// An ejabberd without dmuc.
    pub fn ejabberd(name: &str) -> Self {
        Self::new(Kind::Ejabberd, name)
    }

    /// A Prosody without dmuc.
    pub fn prosody(name: &str) -> Self {
        Self::new(Kind::Prosody, name)
    }

    /// As a further node of the cluster whose first node is named `first`.
    pub fn in_cluster_of(mut self, first: &str) -> Self {
        self.cluster = Some(first.to_owned());
        self
    }

    /// With so many further domains of users.
    pub fn hosts(mut self, count: usize) -> Self {
        self.hosts = count;
        self
    }

    /// With dmuc enabled, or not.
    pub fn dmuc(mut self, enabled: bool) -> Self {
        self.dmuc = enabled;
        self
    }

    /// With an option of dmuc.
    pub fn dmuc_option(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.dmuc_options.insert(name.to_owned(), value.into());
        self
    }

    /// With an option of the server's own.
    pub fn option(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.options.insert(name.to_owned(), value.into());
        self
    }

    /// With the rate limits of the configuration that comes with it, or with none.
    pub fn stock_limits(mut self, limited: bool) -> Self {
        self.stock_limits = limited;
        self
    }

    /// Without one of the modules that would be loaded.
    pub fn without(mut self, module: &str) -> Self {
        self.without.push(module.to_owned());
        self
    }

    /// With HTTP on port 5280: metrics at `/metrics`, ejabberd's commands below `/api` and its web admin at
    /// `/admin`, dmuc's page in Prosody at `/dmuc`; and with the user `admin` as its admin.
    pub fn http(mut self) -> Self {
        self.http = true;
        self
    }

    /// With arguments of ejabberd's Erlang machine; Prosody has none.
    pub fn erl_arguments(mut self, arguments: &[&str]) -> Self {
        self.erl_arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// With a log from this level on: `debug`, `info` or `warn`.
    pub fn log_level(mut self, level: &str) -> Self {
        self.log_level = Some(level.to_owned());
        self
    }

    /// From another Debian release, unpacked in this directory.
    pub fn sysroot(mut self, root: impl Into<PathBuf>) -> Self {
        self.sysroot = Some(root.into());
        self
    }

    /// As its Debian package starts it: by its own user, with configuration, data and logs where the
    /// package has them, and with no dmuc but what is installed in this root. Which is written to.
    pub fn installed(mut self, root: impl Into<PathBuf>) -> Self {
        self.installed = true;
        self.sysroot(root)
    }

    /// The name of its cluster's first node; its own if it is alone.
    pub fn first_node(&self) -> &str {
        self.cluster.as_deref().unwrap_or(&self.name)
    }

    /// Its domain, where its users are.
    pub fn domain(&self) -> String {
        format!("{}.test", self.first_node())
    }

    /// The domain of its rooms.
    pub fn muc(&self) -> String {
        format!("conference.{}.test", self.first_node())
    }

    /// All domains that lead to it and that its certificate names, of services which it does not
    /// run as well.
    pub fn domains(&self) -> Vec<String> {
        let hosts = self.further_hosts().flat_map(|host| services(&host));
        domains(self.first_node()).into_iter().chain(hosts).collect()
    }

    /// The further domains of its users.
    pub fn further_hosts(&self) -> impl Iterator<Item = String> {
        let domain = self.domain();
        (1..=self.hosts).map(move |n| format!("h{n}.{domain}"))
    }
}

/// The domains of a server or peer: users, rooms, and the service that ejabberd's `mod_multicast`
/// (XEP-0033) would be.
pub(crate) fn domains(name: &str) -> [String; 3] {
    services(&format!("{name}.test"))
}

fn services(domain: &str) -> [String; 3] {
    [domain.to_owned(), format!("conference.{domain}"), format!("multicast.{domain}")]
}
