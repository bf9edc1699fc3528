//! A native library that is missing, does not fit or fails: the server says so, and rooms go on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dmuc_testkit::{Client, Kind, Lab, Server, ServerSpec};

use crate::runner::Suite;
use crate::scene::{SOON, all_have, join_all, linked, log_in, names, until};
use crate::traffic;

const KINDS: [Kind; 2] = [Kind::Ejabberd, Kind::Prosody];

/// What is wrong with the library of a server, and a word of what its log is to say.
#[derive(Clone, Copy, Debug)]
enum Unfit {
    Missing,
    NoLibrary,
    WrongAbi,
}

/// Where the core is made to panic.
#[derive(Clone, Copy, Debug)]
enum Panic {
    Capture,
    Event,
    Envelope,
}

pub fn suite() -> Suite {
    let mut suite = Suite::new("native");
    for kind in KINDS {
        for unfit in [Unfit::Missing, Unfit::NoLibrary, Unfit::WrongAbi] {
            let name = format!("{kind} {unfit:?}").to_lowercase();
            suite = suite.case(name, move || without(kind, unfit));
        }
        for panic in [Panic::Capture, Panic::Event, Panic::Envelope] {
            let name = format!("{kind} panic in {panic:?}").to_lowercase();
            suite = suite.case(name, move || panicking(kind, panic));
        }
    }
    suite
}

/// The builds that `cargo xtask test` has made, next to each other.
pub fn stage(variant: &str) -> Result<PathBuf> {
    let stage = PathBuf::from(std::env::var_os("DMUC_STAGE").context("no DMUC_STAGE")?);
    let dir = stage.with_file_name(format!("stage{variant}"));
    ensure!(dir.is_dir(), "{} is not there: run this through cargo xtask", dir.display());
    Ok(dir)
}

/// The stage with other libraries: none, or a text.
fn spoiled(unfit: Unfit) -> Result<PathBuf> {
    if let Unfit::WrongAbi = unfit {
        return stage("-wrong-abi");
    }
    let from = stage("")?;
    let to = from.with_file_name(format!("stage-{unfit:?}").to_lowercase());
    copy(&from, &to, unfit)?;
    Ok(to)
}

fn copy(from: &Path, to: &Path, unfit: Unfit) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("a file without name")?);
        if path.is_dir() {
            copy(&path, &target, unfit)?;
        } else if path.extension().is_none_or(|extension| extension != "so") {
            std::fs::copy(&path, &target)?;
        } else if let Unfit::NoLibrary = unfit {
            std::fs::write(&target, "this is no library\n")?;
        }
    }
    Ok(())
}

/// Both roles of `b`, and `a` as it should be.
async fn lab(name: &str, kind: Kind, stage: PathBuf) -> Result<Lab> {
    let mut spec = ServerSpec::new(kind, "b").dmuc(true);
    spec.stage = Some(stage);
    let name = name.replace(' ', "-").to_lowercase();
    Lab::builder(&format!("native-{name}-{kind}"))
        .server(ServerSpec::prosody("a").dmuc(true))
        .server(spec)
        .wire("a", "b")
        .start()
        .await
}

async fn without(kind: Kind, unfit: Unfit) -> Result<()> {
    let lab = lab(&format!("{unfit:?}"), kind, spoiled(unfit)?).await?;
    let outcome = plain(&lab, unfit).await;
    lab.finish(outcome).await
}

/// Rooms on both servers with users of both: joins, five messages, leaves.
async fn plain(lab: &Lab, unfit: Unfit) -> Result<()> {
    let (a, b) = (lab.server("a"), lab.server("b"));
    let locals = log_in(a, &names("anna", 3)).await?;
    let others = log_in(b, &names("bert", 3)).await?;
    let everybody: Vec<&Client> = locals.iter().chain(&others).collect();
    for (server, owner, rest) in [(a, 0, 1..6), (b, 3, 0..6)] {
        let room = server.room("square");
        everybody[owner].create(&room, crate::scene::nick(everybody[owner]), &[]).await?;
        for client in rest.filter(|n| *n != owner).map(|n| everybody[n]) {
            client.join(&room, crate::scene::nick(client)).await?;
        }
        let mut said = Vec::new();
        for n in 0..5 {
            say(&everybody, n, &room, &mut said).await?;
        }
        heard(&everybody, &room, &said).await?;
        for client in &everybody {
            client.leave(&room, crate::scene::nick(client)).await?;
        }
        for to in ["a", "b"] {
            let seen = traffic::sort(&lab.wire("a", "b").records(), to, &room);
            ensure!(seen.envelopes == 0, "{seen:?}");
        }
    }
    let errors = errors(b);
    let [error] = &errors[..] else {
        anyhow::bail!("{} errors:\n{}", errors.len(), errors.join("\n"))
    };
    let word = match unfit {
        Unfit::Missing if b.kind() == Kind::Prosody => "not installed",
        Unfit::Missing => "No such file",
        Unfit::NoLibrary => ".so",
        Unfit::WrongAbi => "4294967295",
    };
    ensure!(error.contains(word), "{error}");
    ensure!(error.contains("rooms work"), "{error}");
    Ok(())
}

async fn panicking(kind: Kind, panic: Panic) -> Result<()> {
    let lab = lab(&format!("panic {panic:?}"), kind, stage("-planted-faults")?).await?;
    let outcome = fail(&lab, panic).await;
    lab.finish(outcome).await
}

/// The room that fails, and another one on the same server, with local and remote users.
async fn fail(lab: &Lab, panic: Panic) -> Result<()> {
    let (a, b, wire) = (lab.server("a"), lab.server("b"), lab.wire("a", "b"));
    // The primary fails at the room's own server; the replica at the other.
    let (home, away) = match panic {
        Panic::Envelope => (a, b),
        _ => (b, a),
    };
    let rooms = match panic {
        Panic::Envelope => [home.room("panic-envelope"), home.room("other")],
        _ => [home.room("square"), home.room("other")],
    };
    let local = log_in(home, &names("local", 2)).await?;
    let remote = log_in(away, &names("remote", 4)).await?;
    let everybody: Vec<&Client> = local.iter().chain(&remote).collect();
    for room in &rooms {
        local[0].create(room, "local00", &[]).await?;
        join_all(room, &local[1..]).await?;
        join_all(room, &remote).await?;
        linked(wire, room, 1).await?;
    }

    let mut said: [Vec<String>; 2] = Default::default();
    for n in 0..12 {
        if n == 4 {
            trouble(panic, away, &rooms[0], &everybody, &mut said[0]).await?;
        }
        for (room, said) in rooms.iter().zip(&mut said) {
            say(&everybody, n, room, said).await?;
        }
    }
    for (room, said) in rooms.iter().zip(&said) {
        heard(&everybody, room, said).await?;
    }
    for client in &everybody {
        // The guest has gone of his own will.
        let out = client
            .received()
            .into_iter()
            .find(|r| r.attr("type") == "unavailable" && !r.attr("from").ends_with("/late"));
        ensure!(out.is_none(), "{}: {out:?}", client.jid());
    }
    // The other room is linked still, or again where the whole host had to begin anew.
    if !matches!(panic, Panic::Envelope) {
        wire.reset();
        say(&everybody, 0, &rooms[1], &mut said[1]).await?;
        let seen = traffic::sort(&wire.records(), away.name(), &rooms[1]);
        ensure!(seen.casts == 1 && seen.plain == 0, "{seen:?}");
    }
    until("the fault in the log", SOON, || !errors(b).is_empty()).await?;
    let errors = errors(b);
    ensure!(errors.len() == 1, "{} errors:\n{}", errors.len(), errors.join("\n"));
    Ok(())
}

/// Makes the core panic; in the replica that needs nothing more than talking on.
async fn trouble(
    panic: Panic,
    away: &Server,
    room: &str,
    everybody: &[&Client],
    said: &mut Vec<String>,
) -> Result<()> {
    match panic {
        Panic::Capture => {
            // The panic is about whoever comes now; and he is in all the same.
            let late = log_in(away, &["panic-capture".to_owned()]).await?.remove(0);
            late.join(room, "late").await?;
            everybody[2].say(room, "with a guest")?;
            all_have(everybody.iter().copied().chain([&late]), "with a guest").await?;
            said.push("with a guest".into());
            late.quiet(Duration::from_millis(300)).await;
            let count = late.bodies(room).iter().filter(|m| m.1 == "with a guest").count();
            ensure!(count == 1, "the guest heard it {count} times");
        }
        Panic::Event => {
            for body in ["just before", "panic in event", "just after"] {
                everybody[2].say(room, body)?;
                said.push(body.into());
            }
            all_have(everybody.iter().copied(), "just after").await?;
        }
        Panic::Envelope => {}
    }
    Ok(())
}

/// One of them says something, all hear it.
async fn say(everybody: &[&Client], n: usize, room: &str, said: &mut Vec<String>) -> Result<()> {
    // Not what they have heard in the other room.
    let body = format!("message {n} of {} in {room}", said.len());
    everybody[n % everybody.len()].say(room, &body)?;
    all_have(everybody.iter().copied(), &body).await?;
    said.push(body);
    Ok(())
}

/// Everybody has heard all of this, in this order and once.
async fn heard(everybody: &[&Client], room: &str, said: &[String]) -> Result<()> {
    for client in everybody {
        client.quiet(Duration::from_millis(300)).await;
        let got: Vec<String> = client.bodies(room).into_iter().map(|message| message.1).collect();
        ensure!(got == said, "{} heard {got:?}, not {said:?}", client.jid());
    }
    Ok(())
}

/// What the server's log has of errors about dmuc.
fn errors(server: &Server) -> Vec<String> {
    let (file, mark) = match server.kind() {
        Kind::Ejabberd => ("ejabberd.log", "[error]"),
        Kind::Prosody => ("prosody.log", "\terror\t"),
    };
    let log = std::fs::read_to_string(server.dir().join(file)).unwrap_or_default();
    log.lines()
        .filter(|line| line.contains(mark) && line.contains("dmuc"))
        .map(str::to_owned)
        .collect()
}
