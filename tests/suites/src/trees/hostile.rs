//! A relay that alters, withholds, repeats, delays and invents.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use super::wood::{REPLICAS, Wood, children};
use crate::hostile::tables::{counters, grown};
use crate::link::quiet;
use crate::scene::all_have;

/// While the relay is not to be trusted.
const MESSAGES: usize = 40;

pub async fn play(wood: &Wood) -> Result<()> {
    let grove = wood.grove("harbour").await?;
    let paths = grove.look("who relays?").await?;
    let hostile = REPLICAS.into_iter().find(|name| !children(&paths, name).is_empty());
    let hostile = hostile.context("nobody relays")?;
    let victims = children(&paths, hostile);
    let room = wood.lab.server("a");
    let before = counters(room).await?;
    let mut known = Vec::new();
    for victim in &victims {
        known.push(counters(wood.lab.server(victim)).await?);
    }
    wood.betrayal.set(Some(hostile));
    for n in 0..MESSAGES {
        grove.local[1].say(&grove.room, &format!("betrayed {n}."))?;
        sleep(Duration::from_millis(150)).await;
    }
    all_have(grove.all(), &format!("betrayed {}.", MESSAGES - 1)).await?;
    quiet(&grove.all().collect::<Vec<_>>()).await;
    grove.check("betrayed", MESSAGES)?;
    for client in grove.all() {
        let heard = client.bodies(&grove.room);
        ensure!(!heard.iter().any(|(_, b)| b.contains("forged")), "{} was deceived", client.jid());
    }
    let after = counters(room).await?;
    ensure!(grown(&before, &after, "complaints") > 0, "nobody has complained of {hostile}");
    let mut forged = 0;
    for (victim, before) in victims.iter().zip(&known) {
        let server = wood.lab.server(victim);
        forged += grown(before, &counters(server).await?, "forged_casts");
        let log = server.log();
        let told =
            log.matches(&format!("{hostile}.test passes on what the room has not signed")).count();
        ensure!(told <= 2, "{victim} has logged it {told} times");
    }
    ensure!(forged > 0, "no forged cast was noticed by {victims:?}");
    println!(
        "  {hostile} betrayed {victims:?}: {forged} forged casts, {} complaints, {} casts repaired",
        grown(&before, &after, "complaints"),
        grown(&before, &after, "casts_repaired")
    );
    let paths = grove.look("whom does it betray now?").await?;
    wood.betrayal.set(None);
    for victim in &victims {
        ensure!(
            !children(&paths, hostile).contains(victim),
            "still a child of {hostile}: {paths:?}"
        );
    }
    Ok(())
}
