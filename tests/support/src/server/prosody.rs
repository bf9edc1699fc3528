//! Prosody: its configuration, its command line, and commands given to its shell.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use super::site::Site;
use super::spec::ServerSpec;
use crate::process::output;

const MODULES: &[&str] = &[
    "admin_shell",
    "blocklist",
    "carbons",
    "csi_simple",
    "disco",
    "mam",
    "offline",
    "pep",
    "ping",
    "posix",
    "private",
    "roster",
    "s2s_auth_certs",
    "saslauth",
    "smacks",
    "time",
    "tls",
    "vcard4",
    "version",
];

const COMPONENT_MODULES: &[&str] = &["muc_mam"];

/// Writes `prosody.cfg.lua`.
pub fn configure(site: &Site, spec: &ServerSpec, dmuc: bool) -> Result<()> {
    let limits = spec.stock_limits.then_some("limits");
    let modules = |names: &[&str], dmuc: bool| {
        let mut names: Vec<&str> =
            names.iter().copied().filter(|n| !spec.without.iter().any(|w| w == n)).collect();
        names.extend(dmuc.then_some("dmuc"));
        lua(&Value::from(names))
    };
    let text = |path: PathBuf| lua(&Value::from(path.display().to_string()));
    let path = |name: &str| text(site.conf(name));
    let address = lua(&Value::from(site.address.to_string()));
    let mut config = String::new();
    let c = &mut config;
    if site.owner.is_some() {
        writeln!(c, "pidfile = \"/run/prosody/prosody.pid\"")?;
    } else {
        writeln!(c, "data_path = {}", path("data"))?;
        writeln!(c, "admin_socket = {}", text(socket(site)))?;
        writeln!(c, "pidfile = {}", path("prosody.pid"))?;
        writeln!(c, "run_as_root = true")?;
    }
    let level = spec.log_level.as_deref().unwrap_or("debug");
    writeln!(c, "log = {{ {level} = {} }}", text(site.log("prosody.log")))?;
    if let Some(stage) = &site.stage {
        let plugins = stage.join("prosody").display().to_string();
        writeln!(c, "plugin_paths = {{ {} }}", lua(&plugins.into()))?;
    }
    writeln!(c, "interfaces = {{ {address} }}")?;
    writeln!(c, "c2s_ports = {{ 5222 }}; s2s_ports = {{ 5269 }}")?;
    writeln!(c, "c2s_direct_tls_ports = {{}}; s2s_direct_tls_ports = {{}}")?;
    writeln!(c, "use_ipv6 = false")?;
    writeln!(c, "network_settings = {{ tcp_backlog = 1024 }}")?;
    writeln!(
        c,
        "ssl = {{ certificate = {}, key = {}, cafile = {} }}",
        path("cert.pem"),
        path("key.pem"),
        path("ca.pem")
    )?;
    writeln!(c, "c2s_require_encryption = false; allow_unencrypted_plain_auth = true")?;
    writeln!(c, "s2s_require_encryption = true; s2s_secure_auth = true")?;
    writeln!(c, "authentication = \"internal_plain\"; storage = \"internal\"")?;
    writeln!(c, "archive_expires_after = \"never\"")?;
    // The modules that Prosody would load unasked; dialback would make up for a refused
    // certificate.
    writeln!(c, "modules_disabled = {{ \"s2s_bidi\", \"dialback\" }}")?;
    if spec.stock_limits {
        // As in the configuration that comes with it.
        writeln!(
            c,
            "limits = {{ c2s = {{ rate = \"10kb/s\" }}, s2sin = {{ rate = \"30kb/s\" }} }}"
        )?;
    }
    if spec.http {
        writeln!(
            c,
            "http_ports = {{ 5280 }}; http_interfaces = {{ {address} }}; https_ports = {{}}"
        )?;
        writeln!(c, "statistics = \"internal\"; statistics_interval = \"manual\"")?;
        writeln!(c, "openmetrics_allow_cidr = \"127.0.0.0/8\"")?;
        writeln!(c, "admins = {{ {} }}", lua(&format!("admin@{}", spec.domain()).into()))?;
    }
    // lua-unbound, where it is installed, wants no loopback resolver and no .test by itself.
    writeln!(
        c,
        "unbound = {{ resolvconf = true, options = {{ [\"do-not-query-localhost:\"] = \"no\", \
         [\"local-zone:\"] = \"test. transparent\", [\"module-config:\"] = \"iterator\" }} }}"
    )?;
    for (name, value) in &spec.options {
        writeln!(c, "{name} = {}", lua(value))?;
    }
    for (name, value) in &spec.dmuc_options {
        writeln!(c, "dmuc_{name} = {}", lua(value))?;
    }
    let http = spec.http.then_some("http_openmetrics");
    let all: Vec<&str> = MODULES.iter().copied().chain(limits).chain(http).collect();
    // A component inherits some of the global modules (TLS, SASL), and none of a host's.
    writeln!(c, "modules_enabled = {}", modules(&all, false))?;
    for host in [spec.domain()].into_iter().chain(spec.further_hosts()) {
        writeln!(c, "VirtualHost {}", lua(&host.into()))?;
        let page: &[&str] = if spec.http && dmuc { &["http_dmuc"] } else { &[] };
        writeln!(c, "  modules_enabled = {}", modules(page, dmuc))?;
    }
    writeln!(c, "Component {} \"muc\"", lua(&spec.muc().into()))?;
    writeln!(c, "  modules_enabled = {}", modules(COMPONENT_MODULES, dmuc))?;
    writeln!(c, "  muc_log_by_default = true; muc_log_presences = false")?;
    writeln!(c, "  max_history_messages = 100; restrict_room_creation = false")?;
    if site.owner.is_none() {
        std::fs::create_dir_all(site.dir.join("data"))?;
    }
    for name in ["cert.pem", "key.pem", "ca.pem"] {
        site.hand_over(name)?;
    }
    Ok(std::fs::write(site.outside(&site.conf("prosody.cfg.lua")), config)?)
}

/// A value in Lua's notation.
fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => {
            let mut quoted = String::from("\"");
            for c in s.chars() {
                match c {
                    '"' | '\\' => quoted.extend(['\\', c]),
                    '\n' => quoted.push_str("\\n"),
                    c => quoted.push(c),
                }
            }
            quoted.push('"');
            quoted
        }
        Value::Array(items) => {
            format!("{{ {} }}", items.iter().map(lua).collect::<Vec<_>>().join(", "))
        }
        Value::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("[{}] = {}", lua(&name.as_str().into()), lua(value)))
                .collect();
            format!("{{ {} }}", members.join(", "))
        }
    }
}

/// Where its shell listens.
fn socket(site: &Site) -> PathBuf {
    site.short.join(format!("{}.sock", site.label))
}

/// Starts in the foreground.
pub fn command(site: &Site) -> Command {
    let mut command = site.enter("/usr/bin/prosody");
    if site.owner.is_some() {
        // What its unit says.
        command.arg("-F");
        return command;
    }
    command
        .arg("--config")
        .arg(site.dir.join("prosody.cfg.lua"))
        .arg("-F")
        .env("LUA_CPATH", cpath(site))
        .env("HOME", &site.dir);
    command
}

/// Waits until it answers somebody: its ports are open as soon as the first module wants them, and what
/// comes is read when all hosts and modules are loaded and the shell's socket is there.
pub async fn ready(c2s: SocketAddr, domain: &str, limit: Duration) -> Result<()> {
    let asked = async {
        let mut stream = TcpStream::connect(c2s).await?;
        let header = format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
             version='1.0' to='{domain}'>"
        );
        stream.write_all(header.as_bytes()).await?;
        stream.read_u8().await
    };
    timeout(limit, asked).await.with_context(|| format!("no answer after {limit:?}"))??;
    Ok(())
}

/// `LUA_CPATH`: dmuc's library, and then (`;;`) where Lua looks by itself.
fn cpath(site: &Site) -> String {
    let dmuc = site.stage.as_ref().map(|stage| format!("{}/lua/5.4/?.so", stage.display()));
    dmuc.unwrap_or_default() + ";;"
}

/// Its log files.
pub fn logs(site: &Site) -> Vec<PathBuf> {
    [site.outside(&site.log("prosody.log")), site.dir.join("output.log")]
        .into_iter()
        .filter(|path| path.exists())
        .collect()
}

/// Runs a command in the shell of the running server and gives back what it printed.
pub async fn shell(site: &Site, pid: u32, command: &str) -> Result<String> {
    let mut prosodyctl = site.beside(pid, "prosodyctl");
    prosodyctl
        .arg("--config")
        .arg(site.conf("prosody.cfg.lua"))
        .args(["shell", command])
        .env("HOME", site.state(""));
    output(prosodyctl, "", Duration::from_secs(60)).await
}

/// Makes accounts as files, which Prosody reads at every login; the password is the user's
/// name. For the server of a package by its own command, so that they are its user's.
pub async fn register(site: &Site, pid: Option<u32>, domain: &str, users: &[String]) -> Result<()> {
    if let (Some(_), Some(pid)) = (site.owner, pid) {
        for user in users {
            let mut prosodyctl = site.beside(pid, "prosodyctl");
            prosodyctl.args(["register", user, domain, user]);
            output(prosodyctl, "", Duration::from_secs(60)).await?;
        }
        return Ok(());
    }
    let accounts = site.dir.join("data").join(escape(domain)).join("accounts");
    std::fs::create_dir_all(&accounts)?;
    for user in users {
        if user.contains(|c: char| c.is_control() || c == '"' || c == '\\') {
            bail!("{user:?} is no user name");
        }
        let account = format!("return {{ [\"password\"] = \"{user}\"; }};\n");
        std::fs::write(accounts.join(format!("{}.dat", escape(user))), account)?;
    }
    Ok(())
}

/// Prosody's own way of making a file name.
fn escape(name: &str) -> String {
    name.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() {
            escaped.push(byte.into());
        } else {
            let _ = write!(escaped, "%{byte:02x}");
        }
        escaped
    })
}
