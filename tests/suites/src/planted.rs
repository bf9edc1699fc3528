//! That the oracle sees what it is for: wrong behaviour, planted in the core for rooms of certain
//! names, is a difference, and without it there is none.

use anyhow::{Result, bail, ensure};
use dmuc_testkit::Kind;
use futures::future::try_join;

use crate::native::stage;
use crate::oracle::{Script, Stage, compare_one};
use crate::runner::Suite;
use crate::scene::Pairing;

use Kind::{Ejabberd, Prosody};

/// A fault, the kinds of primary and replica, and a script in which it matters. Each has the name of
/// its room.
const FAULTS: &[(Kind, Kind, Script)] = &[
    // At the replica: one too many gets a cast.
    (Ejabberd, Prosody, Script::new("surplus", |stage| Box::pin(show(stage)))),
    // At the primary, after its own check: two operations of an envelope change places.
    (Ejabberd, Prosody, Script::new("swapped", |stage| Box::pin(change_nicks(stage)))),
    (Prosody, Ejabberd, Script::new("swapped", |stage| Box::pin(change_nicks(stage)))),
    // At the replica: who becomes a moderator is taken for what he was.
    (Prosody, Ejabberd, Script::new("classless", |stage| Box::pin(promote(stage)))),
];

pub fn suite() -> Suite {
    let mut suite = Suite::new("planted");
    for &(primary, replica, script) in FAULTS {
        let pairing = Pairing { primary, replica };
        suite = suite.case(format!("{pairing} {}", script.name), move || found(pairing, script));
    }
    suite
}

async fn found(pairing: Pairing, script: Script) -> Result<()> {
    let name = format!("planted-{}", script.name);
    let faulty = stage("-planted-faults")?;
    let plain = pairing.lab_with(&format!("{name}-plain"), |spec| spec.dmuc(false));
    let planted = pairing.lab_with(&name, |spec| {
        let mut spec = spec.dmuc_option("retry_min", 1);
        spec.stage = Some(faulty.clone());
        spec
    });
    let (plain, planted) = try_join(plain.start(), planted.start()).await?;
    let both = async {
        // In any other room the same script on the same build shows that it is the fault.
        compare_one(&plain, &planted, &script, "ordinary").await?;
        let Err(error) = compare_one(&plain, &planted, &script, script.name).await else {
            bail!("nobody has noticed: {}", script.name);
        };
        let error = format!("{error:#}");
        println!(
            "  {pairing}: found as it should be: {}",
            error.lines().next().unwrap_or_default()
        );
        ensure!(error.contains("differs ("), "{error}");
        Ok(())
    };
    let outcome = both.await;
    let outcome = planted.finish(outcome).await;
    plain.finish(outcome).await
}

/// Carl's presence goes to all but him, and they are enough that to name him is shorter than to name
/// them.
async fn show(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl", "dora", "emil", "fred"]).await?;
    for who in ["anna", "lena", "carl"] {
        stage.presence(who, who, "<show>away</show>").await?;
        stage.say(who, "away").await?;
    }
    Ok(())
}

/// The old nick goes before the new one comes.
async fn change_nicks(stage: &mut Stage<'_>) -> Result<()> {
    stage.presence("lena", "helena", "").await?;
    stage.presence("anna", "hanna", "").await?;
    stage.say("anton", "who is who?").await
}

/// Every other, so that to name their class is shorter than to name them.
async fn promote(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl", "dora", "emil", "fred", "gina", "hugo", "ida"]).await?;
    for who in ["anna", "bert", "dora", "fred", "hugo"] {
        stage.admin("host", &format!("nick='{who}' role='moderator'")).await?;
    }
    for n in 0..4 {
        stage.presence("lena", "lena", &format!("<status>{n}</status>")).await?;
        stage.say("lena", "look").await?;
    }
    Ok(())
}
