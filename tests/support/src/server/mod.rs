//! One server of the laboratory: a real one, as Debian packages it.

mod ejabberd;
mod prosody;
pub(crate) mod site;
mod spec;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::sleep;

pub(crate) use self::spec::domains;
pub use self::spec::{Kind, ServerSpec};
use crate::process::{self, Process};
use crate::usage::Usage;
use site::Site;

/// How long a server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server process, or the place for one while it is down.
#[derive(Debug)]
pub struct Server {
    spec: ServerSpec,
    site: Site,
    process: Mutex<Option<Process>>,
    /// Accounts that were made.
    accounts: Mutex<BTreeSet<String>>,
}

impl Server {
    pub(crate) fn new(spec: ServerSpec, site: Site) -> Result<Self> {
        let server = Self { spec, site, process: Mutex::new(None), accounts: Mutex::default() };
        server.configure(server.spec.dmuc)?;
        Ok(server)
    }

    /// What was asked for.
    pub fn spec(&self) -> &ServerSpec {
        &self.spec
    }

    /// Which program it is.
    pub fn kind(&self) -> Kind {
        self.spec.kind
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The domain of its users.
    pub fn domain(&self) -> String {
        self.spec.domain()
    }

    /// The domain of its rooms.
    pub fn muc(&self) -> String {
        self.spec.muc()
    }

    /// The address of a room.
    pub fn room(&self, name: &str) -> String {
        format!("{name}@{}", self.muc())
    }

    /// The loopback address that it listens on.
    pub fn address(&self) -> Ipv4Addr {
        self.site.address
    }

    /// Where clients connect.
    pub fn c2s(&self) -> SocketAddr {
        (self.site.address, 5222).into()
    }

    /// Where servers connect.
    pub fn s2s(&self) -> SocketAddr {
        (self.site.address, 5269).into()
    }

    /// Its directory, with configuration, data and logs.
    pub fn dir(&self) -> &std::path::Path {
        &self.site.dir
    }

    /// Its log files.
    pub fn logs(&self) -> Vec<PathBuf> {
        match self.spec.kind {
            Kind::Ejabberd => ejabberd::logs(&self.site),
            Kind::Prosody => prosody::logs(&self.site),
        }
    }

    /// The text of all its logs.
    pub fn log(&self) -> String {
        let text = |path: PathBuf| {
            let bytes = std::fs::read(&path).unwrap_or_default();
            format!("== {}\n{}\n", path.display(), String::from_utf8_lossy(&bytes))
        };
        self.logs().into_iter().map(text).collect()
    }

    /// The last lines of its log, for errors.
    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn configure(&self, dmuc: bool) -> Result<()> {
        match self.spec.kind {
            Kind::Ejabberd => ejabberd::configure(&self.site, &self.spec, dmuc),
            Kind::Prosody => prosody::configure(&self.site, &self.spec, dmuc),
        }
    }

    /// Starts it and waits until clients and servers can connect and all modules are loaded.
    pub async fn start(&self) -> Result<()> {
        let mut slot = self.process.lock().await;
        if slot.is_some() {
            bail!("{} runs already", self.name());
        }
        let command = match self.spec.kind {
            Kind::Ejabberd => ejabberd::command(&self.site, &self.spec)?,
            Kind::Prosody => prosody::command(&self.site),
        };
        let mut process = Process::spawn(command, &self.site.dir.join("output.log"))?;
        let begin = Instant::now();
        for address in [self.c2s(), self.s2s()] {
            while TcpStream::connect(address).await.is_err() {
                if let Some(status) = process.ended()? {
                    bail!("{} ended while starting ({status}):\n{}", self.name(), self.log_tail());
                }
                if begin.elapsed() > PATIENCE {
                    bail!(
                        "{} does not listen after {PATIENCE:?}:\n{}",
                        self.name(),
                        self.log_tail()
                    );
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
        match self.spec.kind {
            Kind::Ejabberd => ejabberd::ready(&self.site, process.pid()).await?,
            Kind::Prosody => {
                prosody::ready(self.c2s(), &self.domain(), PATIENCE).await.with_context(|| {
                    format!("{} does not answer:\n{}", self.name(), self.log_tail())
                })?
            }
        }
        *slot = Some(process);
        Ok(())
    }

    /// Stops it and starts it again with dmuc enabled in its configuration, or not.
    pub async fn restart_with_dmuc(&self, enabled: bool) -> Result<()> {
        self.stop().await?;
        self.configure(enabled)?;
        self.start().await
    }

    /// Runs a program beside it as root, with the files that it sees; what that printed.
    pub async fn run_beside(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.site.beside(self.pid().await?, program);
        command.args(arguments).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        process::output(command, "", PATIENCE).await
    }

    /// The process id, while it runs.
    pub async fn pid(&self) -> Result<u32> {
        let slot = self.process.lock().await;
        Ok(slot.as_ref().with_context(|| format!("{} does not run", self.name()))?.pid())
    }

    /// What it has used of the machine so far, with the processes that it started.
    pub async fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid().await?)
    }

    /// Ends it as an administrator would, and waits for that.
    pub async fn stop(&self) -> Result<()> {
        let mut slot = self.process.lock().await;
        let Some(mut process) = slot.take() else { return Ok(()) };
        match self.spec.kind {
            // SIGTERM would end the Erlang machine, but faster than ejabberd likes.
            Kind::Ejabberd => {
                self.eval_in(process.pid(), "init:stop()").await?;
            }
            Kind::Prosody => process.signal(Signal::SIGTERM)?,
        }
        if process.wait(PATIENCE).await.is_err() {
            process.kill().await?;
            bail!("{} did not stop in {PATIENCE:?} and was killed", self.name());
        }
        Ok(())
    }

    /// Ends it at once, as a power cut would.
    pub async fn kill(&self) -> Result<()> {
        if let Some(mut process) = self.process.lock().await.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// Stops it and starts it again.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start().await
    }

    /// Whether the process is there, frozen or not.
    pub async fn is_running(&self) -> bool {
        match self.process.lock().await.as_mut() {
            Some(process) => matches!(process.ended(), Ok(None)),
            None => false,
        }
    }

    /// Makes this ejabberd, which has run alone so far, a node of the cluster of another.
    pub async fn join(&self, other: &Server) -> Result<()> {
        ejabberd::join(&self.site, self.pid().await?, &other.site)
            .await
            .with_context(|| format!("{} does not join {}", self.name(), other.name()))
    }

    /// Takes this node out of its cluster as an administrator would, and waits for its end, which
    /// belongs to that. After a start it is alone, without data.
    pub async fn leave(&self) -> Result<()> {
        let mut slot = self.process.lock().await;
        let mut process = slot.take().with_context(|| format!("{} does not run", self.name()))?;
        ejabberd::leave(&self.site, process.pid()).await?;
        process.wait(PATIENCE).await.map(drop)
    }

    /// Whether both are nodes of one cluster.
    pub fn is_beside(&self, other: &Server) -> bool {
        self.name() != other.name() && self.spec.first_node() == other.spec.first_node()
    }

    /// Halts it: connections stay open, nothing answers.
    pub async fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP).await
    }

    /// Lets it go on after [`Server::freeze`].
    pub async fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT).await
    }

    /// Sends a signal.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        let slot = self.process.lock().await;
        slot.as_ref().with_context(|| format!("{} does not run", self.name()))?.signal(signal)
    }

    /// Makes accounts; each one's password is its name. Accounts that exist stay.
    pub async fn register<S: AsRef<str>>(&self, users: &[S]) -> Result<()> {
        self.register_at(&self.domain(), users).await
    }

    /// The same at one of its domains.
    pub async fn register_at<S: AsRef<str>>(&self, domain: &str, users: &[S]) -> Result<()> {
        // One at a time: ejabberd does not let in two who ask at once.
        let mut accounts = self.accounts.lock().await;
        let users: Vec<String> = users.iter().map(|user| user.as_ref().to_owned()).collect();
        let account = |user: &String| format!("{user}@{domain}");
        let users: Vec<String> =
            users.into_iter().filter(|user| !accounts.contains(&account(user))).collect();
        if users.is_empty() {
            return Ok(());
        }
        match self.spec.kind {
            Kind::Ejabberd => {
                let pid = self.pid().await?;
                ejabberd::register(&self.site, pid, domain, &users).await?;
            }
            Kind::Prosody => {
                let pid = self.pid().await.ok();
                prosody::register(&self.site, pid, domain, &users).await?;
            }
        }
        accounts.extend(users.iter().map(account));
        Ok(())
    }

    /// Its release, as it says itself.
    pub async fn version(&self) -> Result<String> {
        let answer = match self.spec.kind {
            Kind::Ejabberd => self.eval("binary_to_list(ejabberd_option:version())").await?,
            Kind::Prosody => self.shell("> prosody.version").await?,
        };
        let mut words = answer.split(|c: char| c == '"' || c.is_whitespace());
        let version = words.rfind(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        Ok(version.with_context(|| format!("no version in {answer:?}"))?.to_owned())
    }

    /// Evaluates an Erlang expression in ejabberd; the value as `~p` prints it.
    pub async fn eval(&self, expression: &str) -> Result<String> {
        let pid = self.pid().await?;
        self.eval_in(pid, expression).await
    }

    async fn eval_in(&self, pid: u32, expression: &str) -> Result<String> {
        match self.spec.kind {
            Kind::Ejabberd => ejabberd::eval(&self.site, pid, expression).await,
            Kind::Prosody => bail!("{} is no ejabberd", self.name()),
        }
    }

    /// Runs a command in Prosody's shell; what it printed. `>` before it makes it Lua.
    pub async fn shell(&self, command: &str) -> Result<String> {
        match self.spec.kind {
            Kind::Ejabberd => bail!("{} is no Prosody", self.name()),
            Kind::Prosody => prosody::shell(&self.site, self.pid().await?, command).await,
        }
    }

    /// Loads dmuc into the running server, as an administrator would.
    pub async fn load_dmuc(&self) -> Result<()> {
        self.set_dmuc(true).await
    }

    /// Unloads dmuc from the running server.
    pub async fn unload_dmuc(&self) -> Result<()> {
        self.set_dmuc(false).await
    }

    async fn set_dmuc(&self, enabled: bool) -> Result<()> {
        self.configure(enabled)?;
        match self.spec.kind {
            Kind::Ejabberd => {
                let reload = self.eval("ejabberd_config:reload()").await?;
                let loaded = format!("gen_mod:is_loaded(<<\"{}\">>, mod_dmuc)", self.domain());
                if self.eval(&loaded).await? != enabled.to_string() {
                    bail!(
                        "mod_dmuc is not as asked after a reload ({reload}):\n{}",
                        self.log_tail()
                    );
                }
            }
            Kind::Prosody => {
                let verb = if enabled { "load" } else { "unload" };
                for host in [self.domain(), self.muc()] {
                    let call = format!("module:{verb}(\"dmuc\", \"{host}\")");
                    self.shell(&call).await.with_context(|| format!("{call} failed"))?;
                }
            }
        }
        Ok(())
    }

    /// Gives it other options of dmuc in its configuration file, of which it knows nothing yet.
    pub fn write_options(&self, options: &[(&str, serde_json::Value)]) -> Result<()> {
        let mut spec = self.spec.clone();
        let all = options.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        spec.dmuc_options = all.collect();
        match spec.kind {
            Kind::Ejabberd => ejabberd::configure(&self.site, &spec, true),
            Kind::Prosody => prosody::configure(&self.site, &spec, true),
        }
    }

    /// Makes it read its configuration file again, as an administrator would; what it says.
    pub async fn reload_config(&self) -> Result<String> {
        match self.spec.kind {
            Kind::Ejabberd => self.command(&["reload_config"]).await,
            Kind::Prosody => self.shell("config:reload()").await,
        }
    }

    /// Runs a command as `ejabberdctl` does; what it prints. One that fails is an error.
    pub async fn command(&self, words: &[&str]) -> Result<String> {
        match self.spec.kind {
            Kind::Ejabberd => ejabberd::ctl(&self.site, self.pid().await?, words).await,
            Kind::Prosody => bail!("{} is no ejabberd", self.name()),
        }
    }

    /// Whether dmuc is loaded now.
    pub async fn has_dmuc(&self) -> Result<bool> {
        match self.spec.kind {
            Kind::Ejabberd => {
                let call = format!("gen_mod:is_loaded(<<\"{}\">>, mod_dmuc)", self.domain());
                Ok(self.eval(&call).await? == "true")
            }
            Kind::Prosody => {
                let call = format!(
                    "> require\"core.modulemanager\".is_loaded(\"{}\", \"dmuc\")",
                    self.domain()
                );
                Ok(self.shell(&call).await?.contains("true"))
            }
        }
    }
}
