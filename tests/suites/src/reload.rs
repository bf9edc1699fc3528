//! dmuc unloaded and loaded again in mid-chat: nothing lost, doubled or out of order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use dmuc_testkit::{Client, Lab, Server};
use tokio::time::sleep;

use crate::runner::Suite;
use crate::scene::{PAIRINGS, Pairing, all_have, join_all, linked, log_in, names, until};
use crate::traffic;

/// Which end loses its module.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Replica,
    Primary,
}

pub fn suite() -> Suite {
    let mut suite = Suite::new("reload");
    for pairing in PAIRINGS {
        for end in [End::Replica, End::Primary] {
            let name = format!("{pairing} {end:?}").to_lowercase();
            suite = suite.case(name, move || run(pairing, end));
        }
    }
    suite
}

async fn run(pairing: Pairing, end: End) -> Result<()> {
    let lab = pairing.lab("reload").start().await?;
    let outcome = play(&lab, end).await;
    lab.finish(outcome).await
}

async fn play(lab: &Lab, end: End) -> Result<()> {
    let (a, b, wire) = (lab.server("a"), lab.server("b"), lab.wire("a", "b"));
    let room = a.room("square");
    let local = log_in(a, &names("local", 2)).await?;
    let remote = log_in(b, &names("remote", 12)).await?;
    local[0].create(&room, "local00", &[]).await?;
    join_all(&room, &local[1..]).await?;
    join_all(&room, &remote).await?;
    linked(wire, &room, 1).await?;

    let everybody: Vec<&Client> = local.iter().chain(&remote).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let (said, outcome) =
        tokio::join!(talk(&everybody, &room, &stop), come_and_go(lab, end, &room, &stop));
    outcome?;
    let said = said?;
    // A last word when all is over, so that everything before it has arrived.
    local[0].say(&room, "last")?;
    all_have(everybody.iter().copied(), "last").await?;

    let order = local[0].bodies(&room);
    ensure!(order.len() == said + 1, "{said} said, the room sent {}", order.len());
    for client in &everybody {
        let got = client.bodies(&room);
        ensure!(got == order, "{}: {}", client.jid(), difference(&order, &got));
        let out = client
            .received()
            .into_iter()
            .find(|r| r.element.name() == "presence" && r.attr("type") == "unavailable");
        ensure!(out.is_none(), "{} heard that somebody is out: {out:?}", client.jid());
    }
    let seen = traffic::sort(&wire.records(), "b", &room);
    ensure!(seen.casts > 0, "{seen:?}");
    let _ = b;
    Ok(())
}

/// Everybody talks in turn until told to stop; how much was said.
async fn talk(everybody: &[&Client], room: &str, stop: &AtomicBool) -> Result<usize> {
    let mut said = 0;
    while !stop.load(Ordering::Relaxed) {
        everybody[said % everybody.len()].say(room, &format!("word {said}"))?;
        said += 1;
        sleep(Duration::from_millis(20)).await;
    }
    Ok(said)
}

/// Twice: away with the module, a while without, back with it, linked again by itself.
async fn come_and_go(lab: &Lab, end: End, room: &str, stop: &AtomicBool) -> Result<()> {
    let server: &Server = lab.server(match end {
        End::Replica => "b",
        End::Primary => "a",
    });
    let wire = lab.wire("a", "b");
    let outcome = async {
        for round in 1..=2 {
            sleep(Duration::from_millis(500)).await;
            server.unload_dmuc().await?;
            let before = wire.records().len();
            sleep(Duration::from_millis(500)).await;
            let plain = traffic::sort(&wire.records()[before..], "b", room).plain;
            ensure!(plain > 0, "no plain copies while the module is away");
            let away = wire.records().len();
            server.load_dmuc().await?;
            linked(wire, room, round + 1).await?;
            if end == End::Replica {
                // Not by the primary's next attempt, which may be an hour away.
                let announced =
                    wire.records()[away..].iter().any(|record| record.xml.contains("<announce"));
                ensure!(announced, "linked again, but the replica has not announced itself");
            }
            let before = wire.records().len();
            until("envelopes again", Duration::from_secs(10), || {
                traffic::sort(&wire.records()[before..], "b", room).casts > 0
            })
            .await?;
        }
        Ok(())
    }
    .await;
    stop.store(true, Ordering::Relaxed);
    outcome
}

/// Where two lists part.
fn difference(order: &[(String, String)], got: &[(String, String)]) -> String {
    let at = order.iter().zip(got).take_while(|(a, b)| a == b).count();
    format!(
        "{} of {} messages; at {at} heard {:?} instead of {:?}",
        got.len(),
        order.len(),
        &got[at..got.len().min(at + 4)],
        &order[at..order.len().min(at + 4)],
    )
}
