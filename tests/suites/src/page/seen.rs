//! The page of real servers, with a room that has a linked, a split and a plain domain.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use dmuc_testkit::{Kind, Lab, Server, ServerSpec};
use serde_json::Value;

use super::browser::{Browser, DESK, NIGHT, PHONE, PHONE_NIGHT};
use super::web::{Answer, basic, get};
use crate::scene::{SOON, all_have, join_all, linked, log_in, names, until_async};

/// What the address of the page must neither decode twice nor take for anything but a name.
const NAME: &str = "%3cb%3e${square}#?+x";

/// Whom [`Page::is_protected`] asks as.
pub const ACCOUNTS: [&str; 2] = ["admin", "user"];

pub async fn run(kind: Kind) -> Result<()> {
    let other = match kind {
        Kind::Ejabberd => Kind::Prosody,
        Kind::Prosody => Kind::Ejabberd,
    };
    let lab = Lab::builder(&format!("page-{kind}"))
        .server(ServerSpec::new(kind, "a").dmuc(true).http())
        .server(ServerSpec::new(other, "b").dmuc(true).http())
        .server(ServerSpec::prosody("c").dmuc(true))
        .server(ServerSpec::prosody("d"))
        .wire("a", "b")
        .wire("a", "c")
        .wire("a", "d")
        .start()
        .await?;
    let outcome = play(&lab).await;
    lab.finish(outcome).await
}

async fn play(lab: &Lab) -> Result<()> {
    let (a, b) = (lab.server("a"), lab.server("b"));
    let room = a.room(NAME);
    for server in [a, b] {
        server.register(&ACCOUNTS).await?;
    }
    let local = log_in(a, &names("local", 1)).await?;
    local[0].create(&room, "local00", &[]).await?;
    let mut remote = Vec::new();
    for (name, count) in [("b", 4), ("c", 2), ("d", 2)] {
        let users = log_in(lab.server(name), &names(name, count)).await?;
        join_all(&room, &users).await?;
        remote.extend(users);
    }
    linked(lab.wire("a", "b"), &room, 1).await?;
    linked(lab.wire("a", "c"), &room, 1).await?;
    // So many that more is saved than the set-ups cost.
    for n in 0..60 {
        local[0].say(&room, &format!("message {n}"))?;
    }
    all_have(&remote, "message 59").await?;

    for server in [a, b] {
        let page = Page::of(server);
        page.is_protected(&room)
            .await
            .with_context(|| format!("{} of {}", page.path, page.host))?;
    }
    lab.wire("a", "c").cut().await;
    local[0].say(&room, "during")?;
    primary(&Page::of(a), &room).await?;
    replica(&Page::of(b), &room).await?;
    drawn(lab, &room).await?;
    if a.kind() == Kind::Prosody {
        Page::of(a).is_for_this_machine().await?;
        Page::of(a).is_throttled().await?;
        Page::of(a).forgets(a).await?;
    }
    away(b).await
}

/// Where a server has it.
pub struct Page {
    address: SocketAddr,
    host: String,
    path: String,
}

impl Page {
    pub fn of(server: &Server) -> Self {
        let path = match server.kind() {
            Kind::Ejabberd => format!("/admin/server/{}/dmuc/", server.domain()),
            Kind::Prosody => "/dmuc/".to_owned(),
        };
        Page { address: (server.address(), 5280).into(), host: server.domain(), path }
    }

    pub async fn get(&self, name: &str, headers: &[(&str, String)]) -> Result<Answer> {
        get(self.address, &self.host, &format!("{}{name}", self.path), headers).await
    }

    /// What the page draws, as the admin gets it.
    pub async fn document(&self, room: &str) -> Result<Value> {
        let coded: String = room.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let name = format!("data.json?room={coded}&filter=");
        let answer = self.get(&name, &[basic("admin", "admin")]).await?;
        ensure!(answer.status == 200, "{answer:?}");
        ensure!(answer.header("Content-Type") == Some("application/json"), "{answer:?}");
        serde_json::from_str(&answer.body).with_context(|| answer.body.clone())
    }

    /// That it is for the admin, and for nobody else.
    pub async fn is_protected(&self, room: &str) -> Result<()> {
        let domain = &self.host;
        let strangers = [
            vec![],
            vec![basic("admin", "wrong")],
            // Its password is right.
            vec![basic("user", "user")],
            vec![basic(&format!("user@{domain}"), "user")],
            vec![basic("admin@elsewhere.test", "admin")],
            vec![basic("nobody", "")],
            vec![("Authorization", "Basic =".to_owned())],
        ];
        for headers in &strangers {
            let answer = self.get("data.json", headers).await?;
            ensure!(answer.status == 401, "{headers:?}: {answer:?}");
            let asks = answer.header("WWW-Authenticate").unwrap_or_default();
            ensure!(asks.to_lowercase().starts_with("basic realm="), "{headers:?}: {answer:?}");
            ensure!(!answer.body.contains("rooms") && !answer.body.contains(room), "{answer:?}");
        }
        for name in ["", "page.js", "page.css", "nothing"] {
            let answer = self.get(name, &[]).await?;
            ensure!(answer.status == 401 && answer.body.len() < 500, "{name}: {answer:?}");
        }
        let admin = [basic("admin", "admin")];
        for (name, kind) in [
            ("", "text/html; charset=utf-8"),
            ("page.js", "text/javascript; charset=utf-8"),
            ("page.css", "text/css; charset=utf-8"),
        ] {
            let answer = self.get(name, &admin).await?;
            ensure!(answer.status == 200 && answer.body.len() > 1000, "{name}: {answer:?}");
            ensure!(answer.header("Content-Type") == Some(kind), "{name}: {answer:?}");
            let policy = answer.header("Content-Security-Policy").unwrap_or_default();
            ensure!(policy.starts_with("default-src 'none';"), "{name}: {answer:?}");
            ensure!(answer.header("Access-Control-Allow-Origin").is_none(), "{name}: {answer:?}");
        }
        ensure!(self.get("nothing", &admin).await?.status == 404, "there is something");
        let bare = self.path.trim_end_matches('/');
        let moved = get(self.address, &self.host, bare, &admin).await?;
        let to = moved.header("Location").unwrap_or_default();
        ensure!(moved.status == 301 && to.ends_with("dmuc/"), "{moved:?}");
        Ok(())
    }

    /// In clear text it answers nobody else, and over a proxy's TLS it does.
    async fn is_for_this_machine(&self) -> Result<()> {
        let far = ("X-Forwarded-For", "203.0.113.9".to_owned());
        let tls = ("X-Forwarded-Proto", "https".to_owned());
        let admin = basic("admin", "admin");
        let answer = self.get("data.json", &[far.clone(), admin.clone()]).await?;
        ensure!(answer.status == 403 && !answer.body.contains("rooms"), "{answer:?}");
        let answer = self.get("data.json", &[far, tls, admin]).await?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    }

    async fn is_throttled(&self) -> Result<()> {
        let from = |far: &str| {
            [("X-Forwarded-For", far.to_owned()), ("X-Forwarded-Proto", "https".to_owned())]
        };
        let mut refused = 0;
        for n in 0..15 {
            let [far, tls] = from("203.0.113.10");
            let name = format!("guess{n}");
            let answer = self.get("data.json", &[far, tls, basic("admin", &name)]).await?;
            refused += usize::from(answer.status == 429);
            ensure!([401, 429].contains(&answer.status), "{answer:?}");
        }
        ensure!((1..=5).contains(&refused), "{refused} of 15 refused unread");
        let [far, tls] = from("203.0.113.10");
        // The right password of an account that has not been here before.
        let answer = self.get("data.json", &[far, tls, basic("local00", "local00")]).await?;
        ensure!(answer.status == 429 && answer.header("Retry-After").is_some(), "{answer:?}");
        let [far, tls] = from("203.0.113.11");
        let answer = self.get("data.json", &[far, tls, basic("admin", "admin")]).await?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    }

    /// A password that has been right is not taken any more once there is another.
    async fn forgets(&self, server: &Server) -> Result<()> {
        let account = format!("admin@{}", self.host);
        server.shell(&format!("user:password({account:?}, \"another\")")).await?;
        let old = self.get("data.json", &[basic("admin", "admin")]).await?;
        ensure!(old.status == 401, "{old:?}");
        let new = self.get("data.json", &[basic("admin", "another")]).await?;
        ensure!(new.status == 200, "{new:?}");
        Ok(())
    }
}

/// The room's own server tells of all three domains.
async fn primary(page: &Page, room: &str) -> Result<()> {
    let states = async || {
        let told = page.document(room).await?;
        let links = told["room"]["links"].as_array().cloned().unwrap_or_default();
        let state = |link: &Value| format!("{} {}", link["peer"], link["state"]).replace('"', "");
        anyhow::Ok(links.iter().map(state).collect::<Vec<_>>())
    };
    let expected = ["c.test split", "b.test linked", "d.test plain"];
    until_async("the states of all", SOON, async || Ok(states().await? == expected)).await?;
    let told = page.document(room).await?;
    let link = &told["room"]["links"][1];
    ensure!(link["occupants"] == 4 && link["carried"].as_i64() > Some(80), "{link}");
    ensure!(link["saved_bytes"].as_i64() > Some(1000), "{link}");
    ensure!(told["room"]["occupants"] == 8 && told["room"]["role"] == "primary", "{told}");
    let listed = &told["rooms"]["list"][0];
    ensure!(listed["room"] == room && told["rooms"]["found"] == 1, "{told}");
    // It has just begun, so all is in the newest span.
    let spans = told["hour"]["spans"].as_array().context("no past")?;
    let carried: i64 = spans.iter().filter_map(|span| span[0].as_i64()).sum();
    ensure!(carried > 80 && told["total"][0].as_i64() >= Some(carried), "{told}");
    ensure!(told["hosts"][0]["about"]["version"].is_string(), "{told}");
    Ok(())
}

/// The server of the four tells of its own link.
async fn replica(page: &Page, room: &str) -> Result<()> {
    let told = page.document(room).await?;
    let links = told["room"]["links"].as_array().context("no links")?;
    ensure!(links.len() == 1 && told["room"]["role"] == "replica", "{told}");
    ensure!(links[0]["state"] == "linked" && links[0]["occupants"] == 4, "{told}");
    ensure!(links[0]["carried"].as_i64() > Some(80), "{told}");
    Ok(())
}

/// What a browser makes of it.
async fn drawn(lab: &Lab, room: &str) -> Result<()> {
    for (name, words) in [
        ("a", &["c.test", ">split<", "b.test", ">linked<", "d.test", ">plain<"][..]),
        ("b", &["room on conference.a.test", ">linked<", "4 occupants"]),
    ] {
        let server = lab.server(name);
        let page = Page::of(server);
        let address = server.address().to_string();
        let browser = Browser::new(lab.dir(), &page.host, &address);
        let coded: String = room.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let url = format!("http://admin:admin@{}:5280{}#room={coded}", page.host, page.path);
        let elements = browser.elements(&url, DESK).await?;
        for word in words.iter().chain(&[room, "saved in the last hour"]) {
            ensure!(elements.contains(word), "no {word} in {elements}");
        }
        let kind = server.kind();
        for screen in [DESK, NIGHT, PHONE, PHONE_NIGHT] {
            browser.picture(&url, screen, &format!("{kind}-{name}-room")).await?;
        }
        let url = url.split('#').next().unwrap_or_default();
        browser.picture(url, PHONE, &format!("{kind}-{name}")).await?;
    }
    Ok(())
}

/// Without the module there is nothing to see.
async fn away(server: &Server) -> Result<()> {
    server.unload_dmuc().await?;
    let answer = Page::of(server).get("", &[basic("admin", "admin")]).await?;
    let expected = match server.kind() {
        Kind::Ejabberd => 404,
        Kind::Prosody => 503,
    };
    ensure!(answer.status == expected && !answer.body.contains("page.js"), "{answer:?}");
    Ok(())
}
