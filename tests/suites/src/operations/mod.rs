//! What an operator does with a server and sees of it: options, commands, metrics, logs.

mod faults;
mod logs;
mod options;
pub mod seen;

use anyhow::Result;
use dmuc_testkit::{Client, Kind, Lab, Server};

use crate::runner::Suite;
use crate::scene::{Pairing, join_all, linked, log_in, names};

/// Pairings in which both servers are in both roles.
const CROSSED: [Pairing; 2] = [
    Pairing { primary: Kind::Ejabberd, replica: Kind::Prosody },
    Pairing { primary: Kind::Prosody, replica: Kind::Ejabberd },
];

pub fn suite() -> Suite {
    let mut suite = Suite::new("operations");
    for pairing in CROSSED {
        suite = suite
            .case(format!("{pairing} seen"), move || seen::run(pairing))
            .case(format!("{pairing} options"), move || options::run(pairing))
            .case(format!("{pairing} log"), move || logs::run(pairing))
            .case(format!("{pairing} faults"), move || faults::run(pairing));
    }
    for kind in [Kind::Ejabberd, Kind::Prosody] {
        suite =
            suite.case(format!("{kind} refuses options"), move || options::refused_at_start(kind));
    }
    suite
}

/// A linked room on `a`, with two users there and four of `b`.
struct Stage {
    room: String,
    local: Vec<Client>,
    remote: Vec<Client>,
}

impl Stage {
    async fn new(lab: &Lab) -> Result<Self> {
        let room = lab.server("a").room("square");
        let local = log_in(lab.server("a"), &names("local", 2)).await?;
        let remote = log_in(lab.server("b"), &names("remote", 4)).await?;
        local[0].create(&room, "local00", &[]).await?;
        join_all(&room, &local[1..]).await?;
        join_all(&room, &remote).await?;
        linked(lab.wire("a", "b"), &room, 1).await?;
        Ok(Stage { room, local, remote })
    }

    async fn say(&self, body: &str) -> Result<()> {
        self.local[0].say(&self.room, body)?;
        crate::scene::all_have(self.local.iter().chain(&self.remote), body).await
    }
}

/// The lines of a log that speak of dmuc at this level, without what the server writes before.
fn lines(server: &Server, level: &str) -> Vec<String> {
    let (file, mark) = match server.kind() {
        Kind::Ejabberd => ("ejabberd.log", format!("[{}]", level.replace("warn", "warning"))),
        Kind::Prosody => ("prosody.log", format!("\t{level}\t")),
    };
    let log = std::fs::read_to_string(server.dir().join(file)).unwrap_or_default();
    let of_dmuc = |line: &&str| match server.kind() {
        Kind::Ejabberd => line.contains("mod_dmuc"),
        Kind::Prosody => line.contains(":dmuc\t"),
    };
    log.lines().filter(|line| line.contains(&mark)).filter(of_dmuc).map(str::to_owned).collect()
}
