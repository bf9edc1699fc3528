//! What the victim says about itself.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use dmuc_testkit::{Kind, Server};

use crate::view;

/// Counters of dmuc, hosts added up.
pub async fn counters(server: &Server) -> Result<BTreeMap<String, u64>> {
    let text = match server.kind() {
        // {<<"name">>,<<"1">>} for each.
        Kind::Ejabberd => {
            let call = format!(
                "[io_lib:format(\"~ts: ~ts~n\", [N, V]) || {{N, V}} <- \
                 mod_dmuc:dmuc_counters(<<\"{}\">>)]",
                server.domain()
            );
            server.eval(&format!("iolist_to_binary({call})")).await?.replace("\\n", "\n")
        }
        Kind::Prosody => server.shell("dmuc:counters()").await?,
    };
    let mut counters = BTreeMap::new();
    for line in text.lines() {
        let line = line.trim_matches(|c: char| !c.is_alphanumeric());
        let Some((name, value)) = line.rsplit_once(": ") else { continue };
        let name = name.rsplit(|c: char| c != '_' && !c.is_alphanumeric()).next();
        if let (Some(name), Ok(value)) = (name, value.parse::<u64>()) {
            *counters.entry(name.to_owned()).or_default() += value;
        }
    }
    Ok(counters)
}

/// How much each of these has grown between two looks.
pub fn grown(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, name: &str) -> u64 {
    let get = |all: &BTreeMap<String, u64>| all.get(name).copied().unwrap_or_default();
    get(after) - get(before)
}

/// Links that it holds as a replica.
pub async fn links(server: &Server) -> Result<usize> {
    Ok(view::links(server).await?.iter().filter(|link| link["role"] == "replica").count())
}

/// Whether the room of this server has a whole link with a user domain.
pub async fn is_linked(server: &Server, room: &str, domain: &str) -> Result<bool> {
    let links = view::links(server).await?;
    let mut own = links.iter().filter(|link| link["role"] == "primary");
    Ok(own.any(|l| l["room"] == room && l["peer"] == domain && l["state"] == "linked"))
}

/// Rows of ejabberd's tables for links and consents; Prosody has none.
pub async fn rows(server: &Server) -> Result<Option<(usize, usize)>> {
    if server.kind() == Kind::Prosody {
        return Ok(None);
    }
    let mut sizes = Vec::new();
    for table in ["dmuc_owner", "dmuc_consent"] {
        let text = server.eval(&format!("mnesia:table_info({table}, size)")).await?;
        sizes.push(text.trim().parse().with_context(|| format!("{table}: {text}"))?);
    }
    Ok(Some((sizes[0], sizes[1])))
}

/// Memory of the process after it has tidied up, in KiB.
pub async fn memory(server: &Server) -> Result<u64> {
    match server.kind() {
        Kind::Ejabberd => {
            let call = "lists:foreach(fun erlang:garbage_collect/1, processes()), done";
            server.eval(call).await?;
        }
        Kind::Prosody => {
            server.shell("> collectgarbage() and collectgarbage()").await?;
        }
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid().await?))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let digits: String = line.chars().filter(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}
