//! Sessions that come and go, as plain MUC has it.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use dmuc_testkit::Received;
use futures::future::try_join;

use crate::oracle::{Script, Stage, compare};
use crate::runner::Suite;
use crate::scene::{PAIRINGS, SOON};

/// A script and the function of that name.
macro_rules! script {
    ($name:ident) => {
        Script::new(stringify!($name), |stage| Box::pin($name(stage)) as _)
    };
}

const REJOINING: &[Script] = &[
    script!(rejoin),
    script!(rejoin_often),
    // More stays at once than a consent record holds: served plainly, and none the worse.
    script!(rejoin_too_often).unsteady(),
    script!(rejoin_as_another),
    script!(leave_before_the_answer),
    script!(at_set_up).unlinked(),
];
const SEVERAL: &[Script] = &[script!(one_nick), script!(two_nicks), script!(whispers)];
const NICKS: &[Script] = &[script!(nick_changes), script!(nick_swaps), script!(nick_conflicts)];
const OUT: &[Script] = &[
    script!(kick_and_rejoin),
    script!(kick_across_presence),
    script!(ban),
    script!(drop_out),
    // The end of a session is the end of its consent: what the room still has for it goes plainly.
    script!(replaced).unsteady(),
    script!(destroyed).unsteady(),
];
const ROLES: &[Script] = &[
    script!(moderator),
    script!(whois),
    script!(voice).settings(&[("muc#roomconfig_moderatedroom", "1")]),
];
const LARGE: &[Script] = &[script!(large).unsteady()];

const GROUPS: &[(&str, &[Script])] = &[
    ("rejoining", REJOINING),
    ("several sessions", SEVERAL),
    ("nicks", NICKS),
    ("put out", OUT),
    ("roles", ROLES),
    ("large", LARGE),
];

pub fn suite() -> Suite {
    let mut suite = Suite::new("sessions");
    for pairing in PAIRINGS {
        for (group, scripts) in GROUPS {
            suite = suite.case(format!("{pairing} {group}"), move || {
                compare(pairing, "sessions", |spec| spec, scripts)
            });
        }
    }
    suite
}

/// What everybody should hear from here on.
async fn talk(stage: &Stage<'_>, what: &str) -> Result<()> {
    for who in ["host", "anna"] {
        stage.say(who, &format!("{who}: {what}")).await?;
    }
    Ok(())
}

/// The wire slow enough that nobody has an answer before he acts again.
fn slowly(stage: &Stage<'_>) {
    stage.wire().set_latency(Duration::from_millis(50));
}

fn swiftly(stage: &Stage<'_>) {
    stage.wire().set_latency(Duration::ZERO);
}

async fn rejoin(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    slowly(stage);
    stage.leave("bert", "bert")?;
    stage.ask("bert", "bert")?;
    stage.sent("bert").await?;
    talk(stage, "at once").await?;
    stage.settle().await?;
    talk(stage, "later").await?;
    stage.leave("bert", "bert")?;
    stage.sent("bert").await?;
    talk(stage, "gone").await
}

async fn rejoin_often(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    slowly(stage);
    rejoin_at_once(stage, 5).await?;
    // With the room's answers coming in between.
    swiftly(stage);
    for n in 0..5 {
        stage.leave("bert", "bert")?;
        stage.ask("bert", "bert")?;
        stage.sent("bert").await?;
        stage.say("anna", &format!("between {n}")).await?;
    }
    stage.settle().await?;
    talk(stage, "inside").await?;
    stage.leave("bert", "bert")?;
    stage.sent("bert").await?;
    talk(stage, "gone").await
}

async fn rejoin_too_often(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    slowly(stage);
    rejoin_at_once(stage, 12).await?;
    rejoin_at_once(stage, 1).await?;
    stage.leave("bert", "bert")?;
    stage.sent("bert").await?;
    talk(stage, "gone").await
}

async fn rejoin_at_once(stage: &Stage<'_>, times: usize) -> Result<()> {
    for _ in 0..times {
        stage.leave("bert", "bert")?;
        stage.ask("bert", "bert")?;
    }
    stage.sent("bert").await?;
    talk(stage, "at once").await?;
    stage.settle().await?;
    talk(stage, "later").await?;
    stage.settle().await
}

async fn rejoin_as_another(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl"]).await?;
    slowly(stage);
    stage.leave("bert", "bert")?;
    stage.ask("bert", "bertram")?;
    stage.sent("bert").await?;
    talk(stage, "bertram").await?;
    // Another takes the nick before the room has answered.
    stage.presence("carl", "bert", "").await?;
    stage.leave("bert", "bertram")?;
    stage.ask("bert", "bert")?;
    stage.ask("bert", "carl")?;
    stage.sent("bert").await?;
    talk(stage, "carl").await?;
    stage.settle().await?;
    talk(stage, "later").await
}

async fn leave_before_the_answer(stage: &mut Stage<'_>) -> Result<()> {
    for who in ["bert", "carl", "dora"] {
        stage.log_in("b", who).await?;
    }
    slowly(stage);
    stage.ask("bert", "bert")?;
    stage.leave("bert", "bert")?;
    stage.sent("bert").await?;
    stage.say("anna", "bert was here").await?;
    stage.ask("carl", "carl")?;
    stage.leave("carl", "carl")?;
    stage.ask("carl", "carl")?;
    stage.sent("carl").await?;
    stage.say("anna", "carl is here").await?;
    // A join that fails, left, and one that succeeds.
    stage.ask("dora", "anna")?;
    stage.leave("dora", "anna")?;
    stage.ask("dora", "dora")?;
    stage.sent("dora").await?;
    stage.settle().await?;
    talk(stage, "later").await
}

/// The domain gets its link while its users come and go.
async fn at_set_up(stage: &mut Stage<'_>) -> Result<()> {
    for who in ["anna", "bert", "carl", "dora"] {
        stage.log_in("b", who).await?;
    }
    slowly(stage);
    for who in ["anna", "bert", "carl", "dora"] {
        stage.ask(who, who)?;
        stage.sent(who).await?;
        stage.say("host", &format!("{who}?")).await?;
    }
    // At least some of this falls between the question and the answer of the set-up.
    for n in 0..10 {
        stage.leave("bert", "bert")?;
        stage.ask("bert", "bert")?;
        stage.sent("bert").await?;
        stage.presence("carl", &format!("carl{n}"), "").await?;
        stage.say("anna", &format!("message {n}")).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stage.leave("dora", "dora")?;
    stage.sent("dora").await?;
    stage.settle().await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    talk(stage, "later").await
}

async fn one_nick(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert/one", "bert/two"]).await?;
    talk(stage, "two").await?;
    stage.presence("bert/two", "bert", "<show>away</show>").await?;
    stage.settle().await?;
    stage.log_in("b", "bert/three").await?;
    stage.enter("bert/three").await?;
    // When the first of them leaves, Prosody shows one of the others, by the order of a hash table.
    stage.presence("bert/three", "bert", "<show>away</show>").await?;
    stage.say("bert/one", "from one").await?;
    stage.say("bert/three", "from three").await?;
    stage.settle().await?;
    stage.leave("bert/one", "bert")?;
    stage.sent("bert/one").await?;
    talk(stage, "without one").await?;
    // The same again: were it another, what is shown would depend on whom Prosody has chosen.
    stage.presence("bert/two", "bert", "<show>away</show>").await?;
    stage.settle().await?;
    slowly(stage);
    stage.leave("bert/three", "bert")?;
    stage.ask("bert/three", "bert")?;
    stage.sent("bert/three").await?;
    talk(stage, "three is back").await?;
    stage.settle().await?;
    // The nick changes for all of them, or for the one who asked.
    stage.presence("bert/two", "bertram", "").await?;
    stage.settle().await?;
    talk(stage, "bertram").await?;
    stage.leave("bert/three", "bert")?;
    stage.sent("bert/three").await?;
    stage.settle().await?;
    talk(stage, "without three").await?;
    stage.leave("bert/two", "bertram")?;
    stage.sent("bert/two").await?;
    stage.settle().await?;
    talk(stage, "nobody").await?;
    // All of them at once, out in one go.
    for who in ["bert/one", "bert/two", "bert/three"] {
        stage.enter(who).await?;
    }
    stage.settle().await?;
    stage.kick("host", "bert").await?;
    talk(stage, "all out").await
}

async fn two_nicks(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert/one"]).await?;
    stage.log_in("b", "bert/two").await?;
    stage.ask("bert/two", "other")?;
    stage.sent("bert/two").await?;
    stage.settle().await?;
    talk(stage, "both").await?;
    stage.say("bert/one", "one").await?;
    stage.say("bert/two", "two").await?;
    stage.presence("bert/one", "bert", "<show>away</show>").await?;
    stage.presence("bert/two", "other", "<show>xa</show>").await?;
    stage.whisper("bert/one", "other", "to myself").await?;
    stage.settle().await?;
    stage.presence("bert/two", "another", "").await?;
    stage.settle().await?;
    stage.kick("host", "another").await?;
    stage.settle().await?;
    talk(stage, "one").await?;
    stage.ask("bert/two", "other")?;
    stage.sent("bert/two").await?;
    stage.settle().await?;
    slowly(stage);
    stage.leave("bert/one", "bert")?;
    stage.ask("bert/one", "bert")?;
    stage.sent("bert/one").await?;
    talk(stage, "again").await?;
    stage.settle().await?;
    stage.leave("bert/one", "bert")?;
    stage.sent("bert/one").await?;
    talk(stage, "two").await?;
    stage.settle().await?;
    for (who, own) in [("bert/one", &["bert"][..]), ("bert/two", &["other", "another"])] {
        for stanza in stage[who].received() {
            let nick = stanza.attr("from").rsplit('/').next().unwrap_or_default();
            let false_110 = stanza.statuses().contains(&110) && !own.contains(&nick);
            ensure!(!false_110, "{who} takes {} for his own", stanza.xml());
        }
    }
    Ok(())
}

async fn whispers(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert/one", "bert/two", "carl"]).await?;
    stage.whisper("host", "carl", "from over there").await?;
    stage.whisper("carl", "host", "to over there").await?;
    stage.whisper("carl", "anna", "to here").await?;
    stage.whisper("anna", "bert", "to both of you").await?;
    stage.settle().await?;
    stage.say("host", "between").await?;
    stage.whisper("bert/two", "anna", "from one of us").await?;
    stage.whisper("anna", "nobody", "to nobody").await?;
    stage.settle().await?;
    // Whether one is still inside, and whether another is (XEP-0410).
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    stage["carl"].iq(&format!("{}/carl", stage.room), "get", ping).await?;
    for (who, whom) in [("anna", "carl"), ("host", "anna"), ("anna", "host")] {
        stage[whom].mark();
        let answer = async {
            let asked = |r: &Received| r.xml().contains("urn:xmpp:ping") && r.attr("type") == "get";
            let question = stage[whom].wait_for(asked, SOON).await?;
            let (to, id) = (question.attr("from"), question.attr("id"));
            stage[whom].send_xml(&format!("<iq type='result' to='{to}' id='{id}'/>"))
        };
        let occupant = format!("{}/{whom}", stage.room);
        try_join(stage[who].iq(&occupant, "get", ping), answer).await?;
    }
    slowly(stage);
    stage.leave("carl", "carl")?;
    stage.sent("carl").await?;
    stage.whisper("anna", "carl", "to one who has left").await?;
    stage.whisper("carl", "anna", "from one who has left").await?;
    stage.settle().await?;
    stage.whisper("host", "carl", "to one who has left").await
}

async fn nick_changes(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl"]).await?;
    slowly(stage);
    for n in 0..6 {
        stage.say("anna", &format!("anna {n}")).await?;
        stage.presence("bert", &format!("bert{n}"), "").await?;
        stage.say("host", &format!("host {n}")).await?;
        stage.say("bert", &format!("bert {n}")).await?;
        stage.presence("anna", &format!("anna{n}"), "<show>chat</show>").await?;
        stage.presence("lena", &format!("lena{n}"), "").await?;
        stage.say("carl", &format!("carl {n}")).await?;
    }
    stage.settle().await?;
    // To a new nick and away, to a new nick and back.
    stage.presence("bert", "berta", "").await?;
    stage.leave("bert", "berta")?;
    stage.sent("bert").await?;
    stage.presence("carl", "carla", "").await?;
    stage.leave("carl", "carla")?;
    stage.ask("carl", "carl")?;
    stage.sent("carl").await?;
    stage.settle().await?;
    talk(stage, "later").await
}

async fn nick_swaps(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl", "dora"]).await?;
    slowly(stage);
    for (who, nick) in [
        ("bert", "free"),
        ("carl", "bert"),
        ("dora", "carl"),
        ("bert", "dora"),
        ("anna", "free"),
        ("carl", "dora"),
        ("dora", "bert"),
        ("anton", "carl"),
    ] {
        stage.presence(who, nick, "").await?;
        stage.say(who, &format!("I want to be {nick}")).await?;
    }
    stage.settle().await?;
    for who in ["bert", "carl", "dora", "anna", "anton"] {
        stage.say(who, "who am I?").await?;
    }
    Ok(())
}

async fn nick_conflicts(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    stage.log_in("b", "carl").await?;
    for nick in ["anna", "host"] {
        stage.ask("carl", nick)?;
        stage.sent("carl").await?;
        stage.presence("bert", nick, "").await?;
    }
    stage.settle().await?;
    talk(stage, "nothing new").await?;
    slowly(stage);
    stage.ask("carl", "anna")?;
    stage.ask("carl", "carl")?;
    stage.presence("carl", "anna", "").await?;
    stage.say("carl", "here").await?;
    stage.presence("bert", "carl", "").await?;
    stage.leave("bert", "bert")?;
    stage.ask("bert", "anna")?;
    stage.sent("bert").await?;
    talk(stage, "bert is out").await?;
    stage.settle().await?;
    stage.ask("bert", "bert")?;
    stage.sent("bert").await?;
    talk(stage, "bert is back").await
}

fn kicked(stanza: &Received) -> bool {
    stanza.attr("type") == "unavailable" && stanza.statuses().contains(&110)
}

async fn kick_and_rejoin(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl"]).await?;
    for _ in 0..3 {
        stage["bert"].mark();
        stage.kick("host", "bert").await?;
        stage["bert"].wait_for(kicked, SOON).await?;
        stage.ask("bert", "bert")?;
        stage.sent("bert").await?;
        talk(stage, "bert is back").await?;
        stage.settle().await?;
    }
    // Two at once, one of whom comes back.
    stage.kick("host", "bert").await?;
    stage.kick("host", "carl").await?;
    stage.say("host", "out").await?;
    stage.settle().await?;
    stage.ask("carl", "carl")?;
    stage.sent("carl").await?;
    stage.settle().await?;
    talk(stage, "carl is back").await
}

/// What bert does, the room gets when he is out already.
async fn kick_across_presence(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    for n in 0..4 {
        stage.stall().await?;
        stage.kick("host", "bert").await?;
        match n {
            0 => stage.presence("bert", "bert", "<show>away</show>").await?,
            1 => stage.say("bert", "am I here?").await?,
            2 => {
                stage.leave("bert", "bert")?;
                stage.ask("bert", "bert")?;
                stage.sent("bert").await?;
            }
            _ => {
                stage.leave("bert", "bert")?;
                stage.sent("bert").await?;
            }
        }
        stage.flow();
        stage.settle().await?;
        talk(stage, &format!("after {n}")).await?;
        stage.settle().await?;
        stage.ask("bert", "bert")?;
        stage.sent("bert").await?;
        stage.settle().await?;
        talk(stage, &format!("back after {n}")).await?;
        stage.settle().await?;
    }
    Ok(())
}

async fn ban(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert/one", "bert/two", "carl"]).await?;
    let jid = format!("{}@b.test", stage.user("bert"));
    stage.admin("host", &format!("jid='{jid}' affiliation='outcast'")).await?;
    talk(stage, "out").await?;
    stage.ask("bert/one", "bert")?;
    stage.sent("bert/one").await?;
    stage.settle().await?;
    stage.admin("host", &format!("jid='{jid}' affiliation='none'")).await?;
    stage.ask("bert/one", "bert")?;
    stage.sent("bert/one").await?;
    stage.settle().await?;
    talk(stage, "back").await?;
    slowly(stage);
    // Ban against a message, a change of presence and a join.
    stage.stall().await?;
    stage.admin("host", &format!("jid='{jid}' affiliation='outcast'")).await?;
    stage.say("bert/one", "am I here?").await?;
    stage.presence("bert/one", "bert", "<show>away</show>").await?;
    stage.ask("bert/two", "bert")?;
    stage.sent("bert/two").await?;
    stage.flow();
    stage.settle().await?;
    talk(stage, "out").await
}

async fn drop_out(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl"]).await?;
    stage["host"].mark();
    stage["host"].quiet(Duration::from_millis(100)).await;
    stage.drop_out("bert").await?;
    let gone = format!("{}/bert", stage.room);
    stage["host"].wait_for(|r| r.is("presence", "unavailable", &gone), SOON).await?;
    talk(stage, "bert is gone").await?;
    // What was on its way to the old session is not to meet the new one.
    stage.settle().await?;
    stage.log_in("b", "bert").await?;
    stage.enter("bert").await?;
    talk(stage, "bert is back").await?;
    stage.settle().await?;
    stage["host"].mark();
    stage.log_out("bert").await?;
    stage["host"].wait_for(|r| r.is("presence", "unavailable", &gone), SOON).await?;
    talk(stage, "bert is gone").await
}

/// A new connection takes the place of the old one: the room hears of the end, then of the join.
async fn replaced(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    for n in 0..2 {
        stage["host"].mark();
        stage.replace("b", "bert").await?;
        if n == 0 {
            let gone = format!("{}/bert", stage.room);
            stage["host"].wait_for(|r| r.is("presence", "unavailable", &gone), SOON).await?;
        }
        stage.ask("bert", "bert")?;
        stage.sent("bert").await?;
        stage.settle().await?;
        talk(stage, "the new one").await?;
        stage.settle().await?;
    }
    Ok(())
}

async fn destroyed(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    talk(stage, "before").await?;
    stage.settle().await?;
    let owner = "http://jabber.org/protocol/muc#owner";
    let query = format!(
        "<query xmlns='{owner}'><destroy jid='{}'><reason>enough</reason></destroy></query>",
        stage.lab().server("a").room("elsewhere")
    );
    stage["host"].iq(&stage.room.clone(), "set", &query).await?;
    // ejabberd loses what comes while the room's process ends.
    tokio::time::sleep(Duration::from_millis(500)).await;
    stage.settle().await?;
    // The same name, another room.
    stage["host"].create(&stage.room, "host", &[]).await?;
    for who in ["anna", "bert"] {
        stage.enter(who).await?;
    }
    stage.settle().await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    talk(stage, "after").await
}

/// No real JID of the room's own server crosses to `b` but while somebody there may see it.
/// Looks at what crossed since there were `since` records.
fn secret(stage: &Stage<'_>, since: usize, yes: bool) -> Result<()> {
    let told = stage
        .wire()
        .records()
        .into_iter()
        .skip(since)
        .find(|record| record.to == "b" && record.xml.contains("@a.test/"));
    match (yes, told) {
        (true, Some(record)) => bail!("a real JID crossed: {}", record.xml),
        (false, None) => bail!("no real JID crossed"),
        _ => Ok(()),
    }
}

/// Everybody shows himself, and somebody comes.
async fn show(stage: &mut Stage<'_>, round: usize) -> Result<()> {
    for who in ["lena", "anna", "bert"] {
        stage.presence(who, who, &format!("<status>round {round}</status>")).await?;
    }
    let (near, far) = (format!("near{round}"), format!("far{round}"));
    stage.log_in("a", &near).await?;
    stage.enter(&near).await?;
    stage.log_in("b", &far).await?;
    stage.enter(&far).await?;
    stage.settle().await?;
    stage.leave(&near, &near)?;
    stage.sent(&near).await?;
    stage.leave(&far, &far)?;
    stage.sent(&far).await?;
    stage.settle().await
}

async fn moderator(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert", "carl"]).await?;
    show(stage, 0).await?;
    secret(stage, 0, true)?;
    stage.admin("host", "nick='bert' role='moderator'").await?;
    stage.settle().await?;
    show(stage, 1).await?;
    secret(stage, 0, false)?;
    stage.kick("bert", "carl").await?;
    stage.settle().await?;
    stage.admin("host", "nick='bert' role='participant'").await?;
    stage.settle().await?;
    let since = stage.wire().records().len();
    show(stage, 2).await?;
    secret(stage, since, true)?;
    // By affiliation, and another with him.
    for who in ["bert", "anna"] {
        let jid = format!("{}@b.test", stage.user(who));
        stage.admin("host", &format!("jid='{jid}' affiliation='admin'")).await?;
    }
    stage.settle().await?;
    show(stage, 3).await?;
    let jid = format!("{}@b.test", stage.user("bert"));
    stage.admin("host", &format!("jid='{jid}' affiliation='none'")).await?;
    show(stage, 4).await?;
    // Up and down while he and others act.
    slowly(stage);
    for n in 0..4 {
        let role = ["moderator", "participant"][n % 2];
        stage.admin("host", &format!("nick='bert' role='{role}'")).await?;
        stage.presence("bert", "bert", &format!("<status>{n}</status>")).await?;
        stage.presence("lena", "lena", &format!("<status>{n}</status>")).await?;
        stage.settle().await?;
    }
    Ok(())
}

async fn whois(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    show(stage, 0).await?;
    secret(stage, 0, true)?;
    for (round, whois) in [(1, "anyone"), (2, "moderators")] {
        let settings = [("muc#roomconfig_whois", whois)];
        stage.configure("host", &settings).await?;
        stage.settle().await?;
        show(stage, round).await?;
    }
    Ok(())
}

async fn voice(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    for role in ["visitor", "participant", "visitor", "moderator", "visitor"] {
        stage.say("bert", &format!("before {role}")).await?;
        stage.settle().await?;
        stage.admin("host", &format!("nick='bert' role='{role}'")).await?;
        stage.say("bert", &format!("as {role}")).await?;
        stage.settle().await?;
    }
    let jid = format!("{}@b.test", stage.user("bert"));
    for affiliation in ["member", "owner", "none"] {
        stage.admin("host", &format!("jid='{jid}' affiliation='{affiliation}'")).await?;
        stage.settle().await?;
    }
    talk(stage, "later").await
}

/// A message that no envelope can take, in the midst of others.
async fn large(stage: &mut Stage<'_>) -> Result<()> {
    stage.arrive(&["bert"]).await?;
    let body = "0123456789abcdef".repeat(300_000 / 16);
    for round in 0..2 {
        for n in 0..5 {
            stage.say("anna", &format!("{round}: before {n}")).await?;
            stage.say("host", &format!("{round}: before {n}")).await?;
        }
        let sender = ["host", "anna"][round];
        stage.say(sender, &body).await?;
        for n in 0..5 {
            stage.presence("bert", "bert", &format!("<status>{round} {n}</status>")).await?;
            stage.say("anna", &format!("{round}: after {n}")).await?;
            stage.say("host", &format!("{round}: after {n}")).await?;
        }
        stage.settle().await?;
        // Time for a new link.
        for n in 0..10 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            talk(stage, &format!("{round}: {n}")).await?;
        }
    }
    Ok(())
}
