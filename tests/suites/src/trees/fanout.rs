//! The room sends each message to as many servers as its fan-out says.

use anyhow::{Result, ensure};

use super::wood::{FANOUT, NO_RELAY, REPLICAS, Wood, children, egress};
use crate::link::quiet;
use crate::scene::all_have;

const MESSAGES: usize = 20;

pub async fn play(wood: &Wood) -> Result<()> {
    let grove = wood.grove("square").await?;
    wood.reset();
    let all: Vec<_> = grove.all().collect();
    for n in 0..MESSAGES {
        // Senders of all servers in turn.
        all[(n * 5) % all.len()].say(&grove.room, &format!("message {n}."))?;
        all_have(all.iter().copied(), &format!("message {n}.")).await?;
    }
    quiet(&all).await;
    grove.check("message", MESSAGES)?;
    let paths = wood.paths(">message ");
    println!("  casts of {MESSAGES} messages: {paths:?}");
    ensure!(egress(&paths) == FANOUT * MESSAGES, "of {MESSAGES} messages: {paths:?}");
    ensure!(
        paths.values().sum::<usize>() == REPLICAS.len() * MESSAGES,
        "once to each server: {paths:?}"
    );
    ensure!(children(&paths, NO_RELAY).is_empty(), "it does not relay: {paths:?}");
    Ok(())
}
