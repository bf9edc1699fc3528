//! ejabberd: its configuration, its command line, and expressions run inside of it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};
use tokio::process::Command;

use super::site::Site;
use super::spec::ServerSpec;
use crate::process::output;

fn cookie(site: &Site) -> String {
    if site.owner.is_some() {
        let file = site.outside(&site.state(".erlang.cookie"));
        return std::fs::read_to_string(file).unwrap_or_default().trim().to_owned();
    }
    // Each its own, as in the world: ejabberd derives from it the key by which it knows the answers
    // to its own questions, and would take another server's for them.
    format!("cookie_{}", site.cluster)
}

/// Writes `ejabberd.yml`, in JSON, which is YAML too.
pub fn configure(site: &Site, spec: &ServerSpec, dmuc: bool) -> Result<()> {
    let hosts: Vec<String> = [spec.domain()].into_iter().chain(spec.further_hosts()).collect();
    let mut config = json!({
        "hosts": hosts,
        "loglevel": spec.log_level.as_deref().unwrap_or("info").replace("warn", "warning"),
        "certfiles": [site.conf("both.pem")],
        "ca_file": site.conf("ca.pem"),
        "s2s_cafile": site.conf("ca.pem"),
        "s2s_use_starttls": "required",
        "s2s_dns_timeout": 1,
        "s2s_dns_retries": 1,
        "s2s_timeout": 30,
        "s2s_max_retry_delay": 2,
        "outgoing_s2s_families": ["ipv4"],
        "outgoing_s2s_ipv4_address": site.address.to_string(),
        "auth_method": "internal",
        "auth_password_format": "plain",
        // A node that is to join a cluster has no accounts yet, and would remember that afterwards.
        "auth_cache_missed": false,
        "listen": [
            {
                "port": 5222, "ip": site.address.to_string(), "module": "ejabberd_c2s",
                "max_stanza_size": 524_288, "access": "all", "backlog": 1024
            },
            {
                "port": 5269, "ip": site.address.to_string(), "module": "ejabberd_s2s_in",
                "max_stanza_size": 524_288
            }
        ],
        "modules": {
            "mod_admin_extra": {},
            "mod_blocking": {},
            "mod_caps": {},
            "mod_carboncopy": {},
            "mod_client_state": {},
            "mod_disco": {},
            "mod_mam": { "assume_mam_usage": true, "default": "always" },
            "mod_muc": {
                "hosts": ["conference.@HOST@"],
                "access": "all",
                "access_create": "all",
                "access_persistent": "all",
                "access_mam": "all",
                "history_size": 20,
                "max_users": 5000,
                "max_users_presence": 5000,
                "max_user_conferences": 1000,
                "default_room_options": { "mam": true, "max_users": 5000 }
            },
            "mod_muc_admin": {},
            "mod_offline": {},
            "mod_ping": {},
            "mod_privacy": {},
            "mod_roster": {},
            "mod_stream_mgmt": { "resend_on_timeout": "if_offline" },
            "mod_time": {},
            "mod_version": {}
        }
    });
    // Occupants have ids where the release has a module for it; later ones need none.
    if has_module(site, "mod_muc_occupantid")? {
        config["modules"]["mod_muc_occupantid"] = json!({});
    }
    if spec.http {
        serve(&mut config, site, &spec.domain(), dmuc);
    }
    if spec.stock_limits {
        limit(&mut config);
    }
    for (name, value) in &spec.options {
        merge(&mut config[name.as_str()], value);
    }
    if let Some(modules) = config["modules"].as_object_mut() {
        modules.retain(|name, _| !spec.without.contains(name));
        if dmuc {
            modules.insert("mod_dmuc".into(), Value::Object(spec.dmuc_options.clone()));
        }
    }
    for name in ["both.pem", "ca.pem"] {
        site.hand_over(name)?;
    }
    let file = site.outside(&site.conf("ejabberd.yml"));
    Ok(std::fs::write(file, serde_json::to_string_pretty(&config)?)?)
}

/// HTTP for whoever asks from this machine, as docs/operations.md has it.
fn serve(config: &mut Value, site: &Site, domain: &str, dmuc: bool) {
    let mut handlers = json!({ "/api": "mod_http_api", "/admin": "ejabberd_web_admin" });
    // ejabberd does not start with a handler that is not there.
    if dmuc || site.owner.is_none() {
        handlers["/metrics"] = "mod_dmuc_metrics".into();
    }
    if let Some(listeners) = config["listen"].as_array_mut() {
        listeners.push(json!({
            "port": 5280, "ip": site.address.to_string(), "module": "ejabberd_http",
            "request_handlers": handlers
        }));
    }
    config["modules"]["mod_http_api"] = json!({});
    config["acl"] = json!({ "admin": { "user": [format!("admin@{domain}")] } });
    config["access_rules"] = json!({ "configure": { "allow": "admin" } });
    config["api_permissions"] = json!({
        "dmuc": {
            "from": ["mod_http_api"],
            "who": { "access": { "allow": [{ "ip": "127.0.0.0/8" }] } },
            "what": ["dmuc_status", "dmuc_links", "dmuc_table", "dmuc_counters"]
        },
        "console": { "from": ["ejabberd_ctl"], "who": "all", "what": "*" }
    });
}

/// As in the `ejabberd.yml` that comes with it, in bytes per second. Its listener for servers names
/// the shaper since 23.10; before that nothing limits them.
fn limit(config: &mut Value) {
    config["shaper"] = json!({ "normal": { "rate": 3000, "burst_size": 20_000 }, "fast": 200_000 });
    config["shaper_rules"] =
        json!({ "c2s_shaper": { "none": "admin", "normal": "all" }, "s2s_shaper": "fast" });
    config["listen"][0]["shaper"] = "c2s_shaper".into();
    config["listen"][1]["shaper"] = "s2s_shaper".into();
}

/// Whether the packaged release has a module of this name.
fn has_module(site: &Site, name: &str) -> Result<bool> {
    for entry in std::fs::read_dir(site.multiarch()?)? {
        let entry = entry?;
        let own = entry.file_name().to_string_lossy().starts_with("ejabberd-");
        if own && entry.path().join("ebin").join(name).with_extension("beam").exists() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.as_str()).or_insert(Value::Object(Map::new())), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// The node's name.
pub fn node(site: &Site) -> String {
    match site.owner {
        Some(owner) => format!("{owner}@localhost"),
        None => format!("{}@127.0.0.1", site.label),
    }
}

/// Starts without `ejabberdctl`, which would look for a system user and for other nodes.
pub fn command(site: &Site, spec: &ServerSpec) -> Result<Command> {
    if site.owner.is_some() {
        // What its unit says.
        let mut command = site.enter("/bin/sh");
        command.args(["-c", "/usr/sbin/ejabberdctl foreground"]);
        return Ok(command);
    }
    let mut command = site.enter("erl");
    command
        .args(["-noinput", "-name", &node(site), "-setcookie", &cookie(site)])
        .args(["-kernel", "inet_dist_use_interface", "{127,0,0,1}"])
        .args(["-kernel", "prevent_overlapping_partitions", "false"])
        .arg("-mnesia")
        .arg("dir")
        .arg(format!("{:?}", site.dir.join("spool").display().to_string()))
        .args(&spec.erl_arguments)
        .args(["+P", "250000", "-s", "ejabberd"])
        .env("HOME", &site.dir)
        .env("ERL_LIBS", libs(site)?)
        .env("ERL_CRASH_DUMP", site.dir.join("erl_crash.dump"))
        .env("EJABBERD_CONFIG_PATH", site.dir.join("ejabberd.yml"))
        .env("EJABBERD_LOG_PATH", site.dir.join("ejabberd.log"));
    Ok(command)
}

/// Where it finds its own code and dmuc.
fn libs(site: &Site) -> Result<String> {
    let mut libs = vec![site.multiarch()?];
    libs.extend(site.stage.as_ref().map(|stage| stage.join("erlang")));
    let libs: Vec<String> = libs.iter().map(|path| path.display().to_string()).collect();
    Ok(libs.join(":"))
}

/// What `ejabberdctl` does, which itself looks for a system user: only a package's server has that.
pub async fn ctl(site: &Site, pid: u32, words: &[&str]) -> Result<String> {
    if site.owner.is_some() {
        let mut command = site.beside(pid, "ejabberdctl");
        command.args(words).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        return output(command, "", Duration::from_secs(60)).await;
    }
    // A node that has just gone may still be known by its name.
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let name = format!("ctl{}-{}@127.0.0.1", CALLS.fetch_add(1, Ordering::Relaxed), site.label);
    let mut command = site.beside(pid, "erl");
    command
        .args(["-noinput", "-hidden", "-name", &name])
        .args(["-setcookie", &cookie(site)])
        .args(["-kernel", "inet_dist_use_interface", "{127,0,0,1}"])
        .args(["-s", "ejabberd_ctl", "-extra", &node(site)])
        .args(words)
        .env("HOME", &site.dir)
        .env("ERL_LIBS", libs(site)?);
    output(command, "", Duration::from_secs(60)).await
}

/// Its log files.
pub fn logs(site: &Site) -> Vec<PathBuf> {
    ["ejabberd.log", "error.log", "crash.log"]
        .iter()
        .map(|name| site.outside(&site.log(name)))
        .chain([site.dir.join("output.log")])
        .filter(|path| path.exists())
        .collect()
}

/// A node under load does not let everybody in at once. Who is not let in has not been heard.
async fn call(site: &Site, pid: u32, input: &str) -> Result<String> {
    let mut tries = 5;
    loop {
        let mut command = site.beside(pid, "erl_call");
        let name = if site.owner.is_some() { "-sname" } else { "-name" };
        command.args(["-c", &cookie(site), name, &node(site), "-e"]).env("HOME", site.state(""));
        tries -= 1;
        match output(command, input, Duration::from_secs(120)).await {
            Err(error) if tries > 0 && error.to_string().contains("failed to connect") => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Evaluates an Erlang expression in the node and gives back its value as `~p` prints it.
pub async fn eval(site: &Site, pid: u32, expression: &str) -> Result<String> {
    // The value comes back base64-coded: erl_call prints terms in a way of its own.
    let expression = expression.trim().trim_end_matches('.');
    let input = format!(
        "Result = try begin {expression} end of V -> {{value, V}} \
         catch C:R:S -> {{failed, {{C, R, S}}}} end, \
         {{Tag, Term}} = Result, {{Tag, base64:encode_to_string(unicode:characters_to_binary(\
         io_lib:format(\"~tp\", [Term])))}}.\n"
    );
    let printed = call(site, pid, &input).await?;
    let coded = printed.split('"').nth(1).unwrap_or_default();
    let decoded = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, coded);
    match (printed.contains("{value"), decoded) {
        (true, Ok(value)) => Ok(String::from_utf8_lossy(&value).into_owned()),
        (false, Ok(error)) if printed.contains("{failed") => {
            bail!("{expression}: {}", String::from_utf8_lossy(&error))
        }
        _ => bail!("{expression}: {printed}"),
    }
}

/// Waits until all modules run: the listeners open earlier than that.
pub async fn ready(site: &Site, pid: u32) -> Result<()> {
    let wait = "(fun F() -> case lists:keymember(ejabberd, 1, application:which_applications()) of \
                true -> ready; false -> timer:sleep(10), F() end end)()";
    eval(site, pid, wait).await.map(drop)
}

/// Makes a node that has run alone one of the cluster of another, whose data it takes over.
pub async fn join(site: &Site, pid: u32, other: &Site) -> Result<()> {
    let call = format!("ejabberd_admin:join_cluster(<<{:?}>>)", node(other));
    match eval(site, pid, &call).await?.as_str() {
        "ok" => ready(site, pid).await,
        outcome => bail!("{call}: {outcome}"),
    }
}

/// Takes a node out of its cluster, which ends it. What it knew is gone.
pub async fn leave(site: &Site, pid: u32) -> Result<()> {
    let call = format!("ejabberd_admin:leave_cluster(<<{:?}>>)", node(site));
    match eval(site, pid, &call).await?.as_str() {
        "ok" => Ok(()),
        outcome => bail!("{call}: {outcome}"),
    }
}

/// Makes accounts; the password is the user's name. They are on disk afterwards, which they
/// would otherwise be only some minutes later, and not after a kill.
pub async fn register(site: &Site, pid: u32, domain: &str, users: &[String]) -> Result<()> {
    let mut list = String::new();
    for user in users {
        write!(list, "{}<<{user:?}>>", if list.is_empty() { "" } else { "," })?;
    }
    let result = eval(
        site,
        pid,
        &format!(
            "Failed = [U || U <- [{list}], not lists:member(\
             ejabberd_auth:try_register(U, <<\"{domain}\">>, U), [ok, {{error, exists}}])], \
             mnesia:sync_log(), [dets:sync(T) || T <- dets:all()], Failed"
        ),
    )
    .await?;
    if result != "[]" {
        bail!("ejabberd did not take the accounts {result}");
    }
    Ok(())
}
