//! A primary that has its replica keep more than it can, and has it replay what is not there.

use anyhow::{Result, ensure};
use dmuc_testkit::Received;

use super::evil::{envelope, message};
use super::tables::{counters, grown, memory};
use super::{Limits, Scene};
use crate::scene::SOON;

/// Options of the case.
pub const LIMITS: Limits = &[("max_slots", 20), ("max_slot_bytes_total", 20_000)];

/// Stanzas to be kept, far more than there is room for.
const FLOOD: u64 = 4000;
/// Of this size.
const BODY: usize = 4000;
/// By how much the process may have grown between two floods, in KiB: a fraction of one.
const MARGIN: u64 = 6 * 1024;

pub async fn play(scene: &Scene) -> Result<()> {
    let (evil, member) = (scene.evil(), scene.member.jid());
    let den = evil.room("den");
    let boss = format!("{den}/boss");
    scene.member.join(&den, "m").await?;
    let answer = evil.set_up(&den, "e1", &[member]).await?;
    ensure!(answer.xml().contains("slots='20'") || answer.xml().contains("slots=\"20\""));
    scene.clear().await;
    let before = counters(scene.b()).await?;
    let kept = |slot: u64, body: &str| {
        format!("<only i='0' slot='{slot}'>{}</only>", message(&boss, body))
    };
    // Of these the first twenty are kept.
    let mut seq = 1;
    let mut expected = Vec::new();
    for slot in 1..=30 {
        evil.carry(&den, &envelope("e1", seq, &kept(slot, &format!("slot {slot}")))).await?;
        expected.push(format!("slot {slot}"));
        seq += 1;
    }
    let says = |what: &'static str| move |r: &Received| r.xml().contains(what);
    evil.peer().wait_for(says("<dropped"), SOON).await?;
    evil.carry(&den, &envelope("e1", seq, "<replay i='0' slots='3-4 1'/>")).await?;
    expected.extend(["slot 3", "slot 4", "slot 1"].map(str::to_owned));
    scene.heard(&expected).await?;

    // One of them is not there: nothing of that envelope comes, nor of the next.
    scene.clear().await;
    let ops = format!("{}<replay i='0' slots='2 25'/>", kept(31, "with it"));
    evil.carry(&den, &envelope("e1", seq + 1, &ops)).await?;
    evil.peer().wait_for(says("missing"), SOON).await?;
    evil.carry(&den, &envelope("e1", seq + 2, "<replay i='0' slots='2'/>")).await?;
    let again = format!("<leave i='0'/><enter i='1' jid='{member}'/><replay i='1' slots='2'/>");
    let again = envelope("e1", seq + 3, &again);
    evil.carry(&den, &again.replacen(" seq=", " refusals='1' seq=", 1)).await?;
    scene.heard(&["slot 2".to_owned()]).await?;
    seq += 4;

    // Much to be kept, for nobody.
    let mut sizes = Vec::new();
    for round in 0..3 {
        for n in 0..FLOOD / 50 {
            let first = 100 + (round * FLOOD) + n * 50;
            let stanza = message(&boss, &"x".repeat(BODY));
            let ops: String = (first..first + 50)
                .map(|slot| format!("<cast n='1' except='1' slot='{slot}'>{stanza}</cast>"))
                .collect();
            evil.carry(&den, &envelope("e1", seq, &ops)).await?;
            seq += 1;
        }
        evil.carry(&den, &envelope("e1", seq, "")).await?;
        let ack = [format!("ack='{seq}'"), format!("ack=\"{seq}\"")];
        let acked = |r: &Received| ack.iter().any(|ack| r.xml().contains(ack));
        evil.peer().wait_for(acked, SOON * 2).await?;
        seq += 1;
        sizes.push(memory(scene.b()).await?);
    }
    println!("  {} with slots flooded: {sizes:?} KiB", scene.b().kind());
    ensure!(sizes[2] < sizes[1] + MARGIN, "{sizes:?}");
    scene.heard(&["slot 2".to_owned()]).await?;
    let after = counters(scene.b()).await?;
    ensure!(grown(&before, &after, "slots_dropped") >= 3 * FLOOD, "{after:?}");
    ensure!(grown(&before, &after, "slots_missing") == 1, "{after:?}");
    Ok(())
}
