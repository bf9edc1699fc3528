//! Plain MUC as the oracle: the same script without dmuc and with it, and every client must have
//! received the same.

mod crossed;
mod stage;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dmuc_testkit::{Kind, Lab, LabBuilder, ServerSpec, Wire};
use futures::future::{join, join_all, try_join};

pub use self::stage::Stage;
use self::stage::user;
use crate::normal::Heard;
use crate::scene::{Pairing, linked};

/// How many scripts run at the same time, in rooms and with users of their own.
const AT_ONCE: usize = 4;

/// Who has an account from the beginning: making one for each by itself takes its time.
const PEOPLE: [(&str, &[&str]); 3] = [
    ("a", &["host", "lena", "near", "dora"]),
    ("b", &["anna", "anton", "bert", "carl"]),
    ("c", &GUESTS),
];

/// Who is in the room from a third server, if there is one.
const GUESTS: [&str; 2] = ["gabi", "gast"];

/// What a script does; it waits for nothing but the room, so that both runs take the same course.
pub type Play = for<'a> fn(&'a mut Stage<'_>) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// A script, with what the scene is like before.
#[derive(Clone, Copy)]
pub struct Script {
    /// Name of the room, too.
    pub name: &'static str,
    /// Fields of the room's configuration.
    pub settings: &'static [(&'static str, &'static str)],
    /// Whether two users of `b` are there first, so that the link is up when the script starts.
    pub linked: bool,
    /// Whether the link stays up: one set-up, and nothing plain but for those who are not inside.
    pub steady: bool,
    /// Whether it needs the wire for itself.
    pub alone: bool,
    /// The script.
    pub play: Play,
}

impl Script {
    /// A script that starts and ends with a link.
    pub const fn new(name: &'static str, play: Play) -> Self {
        Script { name, settings: &[], linked: true, steady: true, alone: false, play }
    }

    /// With a room of another configuration.
    pub const fn settings(mut self, settings: &'static [(&'static str, &'static str)]) -> Self {
        self.settings = settings;
        self
    }

    /// From an empty room on.
    pub const fn unlinked(mut self) -> Self {
        self.linked = false;
        self.steady = false;
        self
    }

    /// That slows or holds up the wire, looks at all that crosses it, or depends on a pause.
    pub const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// In which the link may go down and up.
    pub const fn unsteady(mut self) -> Self {
        self.steady = false;
        self
    }
}

/// Runs scripts without and with dmuc, and compares.
pub async fn compare(
    pairing: Pairing,
    group: &str,
    change: impl Fn(ServerSpec) -> ServerSpec,
    scripts: &[Script],
) -> Result<()> {
    let change = |spec| roomy(change(spec));
    let plain = pairing.lab_with(&format!("{group}-plain"), |spec| change(spec).dmuc(false));
    let dmuc = pairing.lab_with(group, |spec| change(spec).dmuc_option("retry_min", 1));
    let label = format!("transparency: {pairing} {group}");
    compare_labs((plain, dmuc), scripts, &label).await
}

/// The same in a room with a tree: what goes to all at `b` comes by a third server, which is of this kind.
pub async fn compare_in_a_tree(
    pairing: Pairing,
    third: Kind,
    group: &str,
    scripts: &[Script],
) -> Result<()> {
    let lab = |suffix, dmuc| {
        let spec = move |spec: ServerSpec| {
            let spec = roomy(spec).dmuc(dmuc);
            let spec = spec.dmuc_option("tree_domains", 1).dmuc_option("tree_fanout", 1);
            spec.dmuc_option("retry_min", 1)
        };
        let builder = pairing.lab_with(&format!("{group}-tree{suffix}"), spec);
        builder.server(spec(ServerSpec::new(third, "c"))).wire("a", "c").wire("b", "c")
    };
    let label = format!("trees: {pairing} {group}");
    compare_labs((lab("-plain", false), lab("", true)), scripts, &label).await
}

/// With room for the largest stanza of the scripts.
fn roomy(spec: ServerSpec) -> ServerSpec {
    match spec.kind {
        Kind::Prosody => spec.option("c2s_stanza_size_limit", 524_288),
        Kind::Ejabberd => spec,
    }
}

async fn compare_labs(
    (plain, dmuc): (LabBuilder, LabBuilder),
    scripts: &[Script],
    label: &str,
) -> Result<()> {
    let only = std::env::var("DMUC_SCRIPT").unwrap_or_default();
    let scripts: Vec<Script> =
        scripts.iter().filter(|script| script.name.contains(&only)).copied().collect();
    if scripts.is_empty() {
        return Ok(());
    }
    let (plain, dmuc) = try_join(plain.start(), dmuc.start()).await?;
    let outcome = compare_in(&plain, &dmuc, &scripts, label).await;
    let outcome = dmuc.finish(outcome).await;
    plain.finish(outcome).await
}

async fn compare_in(plain: &Lab, dmuc: &Lab, scripts: &[Script], label: &str) -> Result<()> {
    let mut failures = Vec::new();
    for lab in [plain, dmuc] {
        for (server, people) in PEOPLE {
            let Some(server) = lab.servers().find(|s| s.name() == server) else { continue };
            let of = |script: &Script| people.iter().map(|who| user(who, script.name));
            let users: Vec<String> = scripts.iter().flat_map(of).collect();
            server.register(&users).await?;
        }
    }
    let (alone, together): (Vec<Script>, _) = scripts.iter().partition(|script| script.alone);
    for batch in together.chunks(AT_ONCE).chain(alone.chunks(1)) {
        let outcomes = attempt(plain, dmuc, batch, "").await;
        let differing: Vec<_> = batch
            .iter()
            .zip(outcomes)
            .filter_map(|(script, (outcome, took))| match outcome {
                Ok(()) => {
                    println!("{label}: {}: same ({took:.1} s)", script.name);
                    None
                }
                Err(error) => Some((script, error)),
            })
            .collect();
        if !differing.is_empty() {
            save_wires(plain, dmuc, differing[0].0.name)?;
        }
        // Servers under load race with themselves, without dmuc too; what differs by a fault of ours
        // differs again. It is said in any case.
        for (script, error) in differing {
            let name = script.name;
            println!("{label}: {name}: differs, trying again: {error:#}");
            match attempt(plain, dmuc, &[*script], "-again").await.pop() {
                Some((Err(error), _)) => {
                    save_wires(plain, dmuc, &format!("{name}-again"))?;
                    println!("{label}: {name}: DIFFERS");
                    failures.push(format!("{name}, twice: {error:#}"));
                }
                _ => println!("{label}: {name}: same, the second time"),
            }
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Runs scripts in both laboratories at once, each in a room of its name; how long each took.
async fn attempt(
    plain: &Lab,
    dmuc: &Lab,
    scripts: &[Script],
    suffix: &str,
) -> Vec<(Result<()>, f64)> {
    for lab in [plain, dmuc] {
        lab.wires().iter().for_each(Wire::reset);
        lab.wire("a", "b").set_latency(Duration::ZERO);
    }
    join_all(scripts.iter().map(|script| async move {
        let begin = Instant::now();
        let name = format!("{}{suffix}", script.name);
        let outcome = compare_one(plain, dmuc, script, &name).await;
        (outcome, begin.elapsed().as_secs_f64())
    }))
    .await
}

/// Runs a script in both laboratories at once, in a room of this name.
pub async fn compare_one(plain: &Lab, dmuc: &Lab, script: &Script, name: &str) -> Result<()> {
    let (without, with) =
        join(run(plain, script, name, false), run(dmuc, script, name, true)).await;
    same(&without.context("without dmuc")?, &with.context("with dmuc")?)
}

/// The wires are reset before each batch of scripts: what has crossed in it is kept under a name of one.
fn save_wires(plain: &Lab, dmuc: &Lab, script: &str) -> Result<()> {
    for (lab, name) in [(plain, "plain"), (dmuc, "dmuc")] {
        lab.write_wires()?;
        let file = lab.dir().join("wire-a-b.log");
        std::fs::rename(file, dmuc.dir().join(format!("wire-{script}-{name}.log")))?;
    }
    Ok(())
}

pub type Run = BTreeMap<String, Heard>;

/// The first difference in what each client heard.
pub fn same(without: &Run, with: &Run) -> Result<()> {
    let mut differences = Vec::new();
    for (who, plain) in without {
        let dmuc = with.get(who).with_context(|| format!("{who} is missing"))?;
        for (what, plain, dmuc) in
            [("of the room", &plain.rooms, &dmuc.rooms), ("of others", &plain.others, &dmuc.others)]
        {
            if let Some(difference) = difference(plain, dmuc) {
                differences.push(format!("what {who} got {what}: {difference}"));
            }
        }
    }
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

fn difference(plain: &[String], dmuc: &[String]) -> Option<String> {
    let at = (0..plain.len().max(dmuc.len())).find(|&at| plain.get(at) != dmuc.get(at))?;
    let around = |list: &[String]| -> String {
        let from = at.saturating_sub(1);
        let part = list.get(from..list.len().min(at + 3)).unwrap_or_default();
        part.iter().map(|line| format!("    {}\n", shorten(line))).collect()
    };
    Some(format!(
        "stanza {at} differs ({} and {} stanzas)\n  plain:\n{}  dmuc:\n{}",
        plain.len(),
        dmuc.len(),
        around(plain),
        around(dmuc)
    ))
}

fn shorten(line: &str) -> String {
    match line.char_indices().nth(420) {
        Some((end, _)) => format!("{}… ({} bytes)", &line[..end], line.len()),
        None => line.to_owned(),
    }
}

async fn run(lab: &Lab, script: &Script, name: &str, dmuc: bool) -> Result<Run> {
    let wire = lab.wire("a", "b");
    let mut stage = Stage::new(lab, name);
    stage.log_in("a", "host").await?;
    stage["host"].create(&stage.room, "host", script.settings).await?;
    stage.log_in("a", "lena").await?;
    stage.enter("lena").await?;
    if stage.is_tree() {
        for name in GUESTS {
            stage.log_in("c", name).await?;
            stage.enter(name).await?;
        }
        if dmuc {
            linked(lab.wire("a", "c"), &stage.room, 1).await?;
        }
    }
    if script.linked {
        for name in ["anna", "anton"] {
            stage.log_in("b", name).await?;
            stage.enter(name).await?;
        }
        if dmuc {
            linked(wire, &stage.room, 1).await?;
        }
        stage.settle().await?;
    }
    let played = (script.play)(&mut stage).await;
    wire.flow();
    wire.set_latency(Duration::ZERO);
    played?;
    stage.settle().await?;
    crossed::check(&stage, script, dmuc)?;
    stage.finish().await
}
