//! A room with occupants on a hundred servers and other rooms with wicked names, in a browser. The files and
//! the document are the core's; what is drawn is looked at by a script in the page.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use dmuc_core::page::{Query, Report, Response, document, file};
use dmuc_core::view::LinkRow;
use dmuc_core::{Config, Millis, Shared};
use dmuc_testkit::rundir::RunDir;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::browser::{Browser, DESK, NIGHT, PHONE, PHONE_NIGHT, TABLET};

const ROOM: &str = "town@conference.a.test";
/// As no server lets it be: each piece of it would do something if it were not text.
const WICKED: &str =
    "<script>window.wicked=1</script>\"'><img src=x onerror=\"window.wicked=1\">&amp;@x.test";
const PROBE: &str = include_str!("probe.js");

pub async fn run() -> Result<()> {
    let dir = RunDir::new("page-drawn")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    let host = Arc::new(Host::new());
    let serving = tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let host = host.clone();
            // A browser that goes away in the middle is none of our business.
            tokio::spawn(async move { host.answer(stream).await.ok() });
        }
    });
    let outcome = play(&dir, port).await;
    serving.abort();
    if outcome.is_ok() {
        dir.succeeded();
    }
    outcome
}

async fn play(dir: &RunDir, port: u16) -> Result<()> {
    let browser = Browser::new(dir.path(), "page.test", "127.0.0.1");
    let url = |room: &str, probe: &str| {
        let coded: String = room.bytes().map(|byte| format!("%{byte:02x}")).collect();
        format!("http://page.test:{port}/{probe}#room={coded}")
    };
    for screen in [DESK, NIGHT, TABLET, PHONE, PHONE_NIGHT] {
        let elements = browser.elements(&url(ROOM, "?probe"), screen).await?;
        let (_, found) =
            elements.split_once("id=\"probe\">").context("the probe has not come to an end")?;
        let found = found.split("</pre>").next().unwrap_or_default();
        let found: Vec<Value> = serde_json::from_str(found).with_context(|| found.to_owned())?;
        ensure!(found.is_empty(), "{}: {found:#?}", screen.name);
        browser.picture(&url(ROOM, ""), screen, "hundred").await?;
    }
    let elements = browser.elements(&url(WICKED, ""), DESK).await?;
    ensure!(elements.contains("&lt;script&gt;window.wicked"), "{elements}");
    browser.picture(&url(WICKED, ""), PHONE, "wicked").await
}

/// What there is to be seen.
struct Host {
    shared: Arc<Shared>,
    rows: Vec<LinkRow>,
}

impl Host {
    fn new() -> Self {
        let mut rows: Vec<LinkRow> = (0..100).map(row).collect();
        rows.push(LinkRow { room: WICKED.to_owned(), peer: WICKED.to_owned(), ..row(1) });
        rows.extend((0..300).map(|n| {
            let row = row(n % 90 + 10);
            LinkRow { room: format!("project-{n}@conference.a.test"), ..row }
        }));
        Host { shared: Shared::new(Config::default()), rows }
    }

    async fn answer(&self, mut stream: TcpStream) -> Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head);
        let target = head.split(' ').nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let response = self.response(path.trim_start_matches('/'), query);
        let mut text = format!(
            "HTTP/1.1 {} X\r\nContent-Length: {}\r\nConnection: close\r\n",
            response.status,
            response.body.len()
        );
        for (name, value) in response.headers() {
            text += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{text}\r\n{}", response.body).as_bytes()).await?;
        Ok(())
    }

    fn response(&self, name: &str, query: &str) -> Response {
        match name {
            "data.json" => {
                let value = |name: &str| {
                    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                    pairs.find(|(known, _)| *known == name).map(|(_, value)| plain(value))
                };
                let (room, filter) = (value("room"), value("filter"));
                let query = Query {
                    room: room.as_deref().unwrap_or_default(),
                    filter: filter.as_deref().unwrap_or_default(),
                    above: Some("../"),
                };
                let report = Report { host: "a.test", shared: Ok(&self.shared), rows: &self.rows };
                document(Millis(0), &query, &[report])
            }
            "probe.js" => Response { body: PROBE.into(), ..file("page.js") },
            "" if query == "probe" => {
                let page = file("");
                let script = "<script type=\"module\" src=\"probe.js\"></script></head>";
                Response { body: page.body.replace("</head>", script).into(), ..page }
            }
            name => file(name),
        }
    }
}

/// One of a hundred servers: two of them cut off, every eleventh without dmuc.
fn row(n: i64) -> LinkRow {
    let (state, reason) = match n {
        3 | 9 => ("split", "the stream is broken; held for 318 s at most"),
        5 => ("setting up", "set-up under way, for 28 s at most"),
        _ if n % 11 == 10 => ("plain", "does not speak dmuc; tried again in 3155 s"),
        _ => ("linked", "linked"),
    };
    let carried =
        if ["plain", "setting up"].contains(&state) { 0 } else { (n * 7919) % 90_000 + 40 };
    let occupants = (n * 31) % 58 + 2;
    let saved = carried - carried / occupants;
    let name = if n % 17 == 4 { "chat.faculty-of-long-names.university" } else { "server" };
    LinkRow {
        role: "primary".to_owned(),
        room: ROOM.to_owned(),
        peer: format!("{name}-{n:02}.example.org"),
        state: state.to_owned(),
        occupants,
        apart: i64::from(n % 19 == 1),
        seq: 12,
        unacked: 0,
        round_trip: if carried == 0 { -1 } else { (n * 37) % 400 + 2 },
        waiting: if state == "split" { 36 } else { 0 },
        waiting_bytes: if state == "split" { 11_160 } else { 0 },
        up: if state == "linked" { 4000 + n * 997 } else { -1 },
        retry: -1,
        carried,
        carried_bytes: carried * 412,
        saved,
        saved_bytes: saved * 380,
        reason: reason.to_owned(),
        ..LinkRow::default()
    }
}

/// A value of an address.
fn plain(coded: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = coded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let digits = String::from_utf8_lossy(&digits).into_owned();
                u8::from_str_radix(&digits, 16).unwrap_or(b'?')
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
