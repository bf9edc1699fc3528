//! The scripted cases: what every client receives is what it would have received from plain MUC.

mod archive;
mod entering;
mod nicks;
mod payloads;
mod questions;
mod roles;
mod room;
mod sessions;
mod storms;
mod subscribers;
mod unnoticed;

use std::time::Duration;

use anyhow::Result;

use crate::oracle::{Script, Stage, compare};
use crate::runner::Suite;
use crate::scene::PAIRINGS;

/// A script and the function of that name.
macro_rules! script {
    ($name:ident) => {
        crate::oracle::Script::new(stringify!($name), |stage| Box::pin($name(stage)) as _)
    };
}
use script;

/// Groups run in a laboratory of their own: few, since that takes longer to start than a script takes.
pub const GROUPS: &[(&str, &[&[Script]])] = &[
    ("entering", &[entering::SCRIPTS, sessions::REJOINING, sessions::SEVERAL]),
    ("nicks", &[nicks::NICKS, nicks::OUT, roles::ROLES, roles::LARGE]),
    ("room", &[room::SCRIPTS, storms::SCRIPTS]),
    ("payloads", &[payloads::SCRIPTS, questions::SCRIPTS]),
    (
        "unnoticed",
        &[
            unnoticed::BLOCKING,
            unnoticed::IDLE,
            unnoticed::RESUMING,
            unnoticed::LEAVING,
            archive::SCRIPTS,
            subscribers::SCRIPTS,
        ],
    ),
];

pub fn suite() -> Suite {
    let mut suite = Suite::new("transparency");
    for pairing in PAIRINGS {
        for (group, scripts) in GROUPS {
            suite = suite.case(format!("{pairing} {group}"), move || async move {
                compare(pairing, group, |spec| spec, &scripts.concat()).await
            });
        }
        suite = suite.case(format!("{pairing} expiring"), move || {
            compare(pairing, "expiring", unnoticed::impatient, unnoticed::EXPIRING)
        });
    }
    suite
}

/// What everybody should hear from here on.
async fn speak(stage: &Stage<'_>, what: &str) -> Result<()> {
    for who in ["host", "anna"] {
        stage.say(who, &format!("{who}: {what}")).await?;
    }
    Ok(())
}

/// The same from more of them, and presences.
async fn talk_on(stage: &Stage<'_>, what: &str) -> Result<()> {
    for who in ["host", "anna", "lena"] {
        stage.say(who, &format!("{who}: {what}")).await?;
    }
    stage.presence("anton", "anton", &format!("<status>{what}</status>")).await?;
    stage.presence("lena", "lena", &format!("<status>{what}</status>")).await
}

/// The wire slow enough that nobody has an answer before he acts again.
fn slowly(stage: &Stage<'_>) {
    stage.wire().set_latency(Duration::from_millis(50));
}

fn swiftly(stage: &Stage<'_>) {
    stage.wire().set_latency(Duration::ZERO);
}

/// Sends a stanza, and waits until everybody has got what comes of it.
async fn send(stage: &Stage<'_>, who: &str, xml: &str) -> Result<()> {
    stage[who].send_xml(xml)?;
    stage.sent(who).await?;
    stage.settle().await
}

/// A message to the room with this inside.
async fn tell(stage: &Stage<'_>, who: &str, payload: &str) -> Result<()> {
    let id = stage[who].fresh_id();
    let room = &stage.room;
    send(
        stage,
        who,
        &format!("<message type='groupchat' to='{room}' id='{id}'>{payload}</message>"),
    )
    .await
}

/// A message of another type, to the room itself (`nick` empty) or to an occupant.
async fn message(
    stage: &Stage<'_>,
    who: &str,
    kind: &str,
    nick: &str,
    payload: &str,
) -> Result<()> {
    let id = stage[who].fresh_id();
    let to = address(stage, nick);
    send(stage, who, &format!("<message type='{kind}' to='{to}' id='{id}'>{payload}</message>"))
        .await
}

/// An occupant, or the room itself if `nick` is empty.
fn address(stage: &Stage<'_>, nick: &str) -> String {
    match nick {
        "" => stage.room.clone(),
        nick => format!("{}/{nick}", stage.room),
    }
}

/// Asks to enter with something in MUC's element, and waits for what comes of it.
async fn enter(stage: &Stage<'_>, who: &str, nick: &str, payload: &str) -> Result<()> {
    let to = address(stage, nick);
    let muc = "http://jabber.org/protocol/muc";
    send(stage, who, &format!("<presence to='{to}'><x xmlns='{muc}'>{payload}</x></presence>"))
        .await
}

async fn leave(stage: &Stage<'_>, who: &str, nick: &str) -> Result<()> {
    stage.leave(who, nick)?;
    stage.sent(who).await?;
    stage.settle().await
}

/// [`talk_on`], and everybody has heard it.
async fn talk(stage: &Stage<'_>, what: &str) -> Result<()> {
    talk_on(stage, what).await?;
    stage.settle().await
}

/// Somebody's bare address; `server` is that of the account.
fn jid(stage: &Stage<'_>, server: &str, who: &str) -> String {
    format!("{}@{server}.test", stage.user(who))
}
