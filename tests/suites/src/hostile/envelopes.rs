//! A primary that carries what it has no business to.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dmuc_testkit::{Received, xml};

use super::Scene;
use super::evil::{condition, envelope, is_nothing, message};
use super::tables::{counters, grown, links};
use crate::scene::SOON;

const NOBODY: &str = "stranger@b.test/r";

/// Envelopes before any set-up and of all wrong forms: each is refused, none is delivered, and what is
/// in order arrives once between them.
pub async fn garbage(scene: &Scene) -> Result<()> {
    let (evil, member) = (scene.evil(), scene.member.jid());
    let den = evil.room("den");
    scene.member.join(&den, "m").await?;
    scene.clear().await;
    let before = counters(scene.b()).await?;
    let boss = format!("{den}/boss");
    let honest =
        |n: usize| format!("<only i='0'>{}</only>", message(&boss, &format!("honest {n}")));

    let early = evil.carry(&den, &envelope("e1", 1, &honest(0))).await?;
    let answer = evil.answer(&early).await?;
    ensure!(condition(&answer).as_deref() == Some("unknown-epoch"), "{}", answer.xml());

    let answer = evil.set_up(&den, "e1", &[member]).await?;
    ensure!(answer.attr("type") == "result", "{}", answer.xml());
    let mut expected = Vec::new();
    let mut seq = 1;
    for (n, (form, wanted)) in forms(&den).into_iter().enumerate() {
        let id = evil.carry(&den, &form.replace("SEQ", &seq.to_string())).await?;
        let answer = evil.answer(&id).await.with_context(|| format!("no answer to {form}"))?;
        let got = condition(&answer);
        let form: String = form.chars().take(300).collect();
        ensure!(got.as_deref() == Some(wanted), "{got:?} and not {wanted} for {form}");
        if n % 10 == 0 {
            evil.carry(&den, &envelope("e1", seq, &honest(n))).await?;
            // The same again, as after a broken stream.
            evil.carry(&den, &envelope("e1", seq, &honest(n))).await?;
            expected.push(format!("honest {n}"));
            seq += 1;
        }
    }
    evil.carry(&den, &envelope("e1", 0, &honest(0))).await?;
    evil.carry(&den, &envelope("e1", seq, &honest(9999))).await?;
    expected.push("honest 9999".into());
    scene.heard(&expected).await?;

    let after = counters(scene.b()).await?;
    let all = forms(&den);
    for (condition, counter) in
        [("malformed", "malformed"), ("gap", "gaps"), ("unknown-epoch", "unknown_epochs")]
    {
        let sent = all.iter().filter(|form| form.1 == condition).count() as u64;
        let counted = grown(&before, &after, counter);
        let early = u64::from(condition == "unknown-epoch");
        ensure!(counted == sent + early, "{counter}: {counted} for {sent}");
    }
    let duplicates = grown(&before, &after, "duplicates");
    ensure!(duplicates == expected.len() as u64, "{duplicates} duplicates counted");
    ensure!(links(scene.b()).await? == 2, "the honest link and this one");
    Ok(())
}

/// Envelopes for a link of epoch e1 with the one index 0, each to be refused with this condition; SEQ
/// is the number due.
fn forms(den: &str) -> Vec<(String, &'static str)> {
    const BAD: &str = "malformed";
    let boss = format!("{den}/boss");
    let stolen = message(&boss, "stolen");
    let cast = format!("<cast n='1'>{stolen}</cast>");
    let mut forms = vec![
        (envelope("e2", 1, &cast), "unknown-epoch"),
        (envelope("E1", "SEQ", &cast), "unknown-epoch"),
        (envelope("e1", "SEQ0", &cast), "gap"),
        (envelope("e1", "9223372036854775807", &cast), "gap"),
        (envelope("e1", "4294967296", &cast), "gap"),
        (envelope("e1", "SEQ", &"<leave i='0'/>".repeat(20_001)), "limit"),
        (envelope("", "SEQ", &cast), BAD),
        (envelope(&"e".repeat(65), "SEQ", &cast), BAD),
        (envelope(&"e".repeat(5000), "SEQ", &cast), BAD),
        (envelope("e 1", "SEQ", &cast), BAD),
        (envelope("e1", "SEQ", &cast).replace(" epoch='e1'", ""), BAD),
        (envelope("e1", "SEQ", &cast).replace(" seq='SEQ'", ""), BAD),
    ];
    for seq in ["", "-1", "+1", "01", "0x1", "1e3", "1.0", " 1", "9223372036854775808"] {
        forms.push((envelope("e1", seq, &cast), BAD));
    }
    forms.push((envelope("e1", "9".repeat(5000), &cast), BAD));
    // Operations without payload.
    for op in [
        "<enter i='0' jid='stranger@b.test/r'/>",
        "<enter i='2' jid='stranger@b.test/r'/>",
        "<enter i='4294967295' jid='stranger@b.test/r'/>",
        "<enter i='-1' jid='stranger@b.test/r'/>",
        "<enter i='x' jid='stranger@b.test/r'/>",
        "<enter jid='stranger@b.test/r'/>",
        "<enter i='1'/>",
        "<enter i='1' jid=''/>",
        "<enter i='1' jid='b.test'/>",
        "<enter i='1' jid='stranger@b.test'/>",
        "<enter i='1' jid='host@a.test/r'/>",
        "<enter i='1' jid='x@conference.b.test/r'/>",
        "<enter i='1' jid='member@b.test/r'/>",
        "<enter i='1' jid='stranger@b.test/r'/><enter i='2' jid='stranger@b.test/r'/>",
        "<enter i='1' jid='stranger@b.test/r' class='owner'/>",
        "<enter i='1' jid='stranger@b.test/r'/><enter i='3' jid='neighbour@b.test/r'/>",
        "<leave i='1'/>",
        "<leave i='4294967295'/>",
        "<leave i='18446744073709551616'/>",
        "<leave/>",
        "<class i='1' class='full'/>",
        "<class i='0'/>",
        "<class i='0' class='owner'/>",
        "<replay i='0' slots='1'/>",
        "<replay i='0' slots='0-18446744073709551615'/>",
        "<drop slots='0-18446744073709551615'/>",
        "<replay i='0' slots=''/>",
        "<replay i='0' slots='0'/>",
        "<replay i='0'/>",
        "<replay slots='1'/>",
        "<replay i='1' slots='1'/>",
        "<drop slots='1'/>",
        "<drop/>",
        "<cast n='1'/>",
        "<only i='0'/>",
        "<end/><end/>",
        "<end/><leave i='0'/>",
        "<nonsense/>",
        "<link epoch='e1' size='1'/>",
        "<report epoch='e1' ack='1'/>",
    ] {
        forms.push((envelope("e1", "SEQ", op), BAD));
    }
    forms.push((envelope("e1", "SEQ", &envelope("e1", "SEQ", &cast)), BAD));
    forms.push((envelope("e1", "SEQ", &format!("<end/>{cast}")), BAD));
    let kept = format!("<only i='0' slot='7'>{stolen}</only>");
    forms.push((envelope("e1", "SEQ", &format!("{kept}{kept}")), BAD));
    forms.push((envelope("e1", "SEQ", &format!("<replay i='0' slots='7'/>{kept}")), BAD));
    let storm = format!("<replay i='0' slots='{}'/>", ["7"; 3000].join(" "));
    forms.push((envelope("e1", "SEQ", &format!("{kept}{}", storm.repeat(67))), "limit"));
    // What begins or ends a stay, or is for one alone, is not kept.
    for stanza in [
        format!(
            "<message xmlns='jabber:client' type='chat' from='{boss}'><body>stolen</body></message>"
        ),
        format!("<presence xmlns='jabber:client' type='unavailable' from='{boss}'/>"),
        format!(
            "<presence xmlns='jabber:client' from='{boss}'>\
             <x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x></presence>"
        ),
    ] {
        forms.push((envelope("e1", "SEQ", &format!("<only i='0' slot='7'>{stanza}</only>")), BAD));
    }
    // Operations around a payload.
    for op in [
        "cast",
        "cast n=''",
        "cast n='-1'",
        "cast n='99999999999999999999'",
        "cast n='1' class='owner'",
        "cast n='1' except='0-4294967294'",
        "cast n='1' except='1'",
        "cast n='1' except='0 0'",
        "cast n='1' slot='-1'",
        "cast n='1' slot='99999999999999999999'",
        "cast n='1' slot='0'",
        // Beyond the last block.
        "cast n='1' slot='68719476736'",
        "only",
        "only i=''",
        "only i='0-4294967294'",
        "only i='0-18446744073709551615'",
        "only i='1'",
        "only i='0 0'",
        "only i='1 0'",
        "only i='0,1'",
        "only i='*'",
        "only i='0' slot='x'",
        "leave i='0'",
        "end",
    ] {
        let name = op.split(' ').next().unwrap_or_default();
        forms.push((envelope("e1", "SEQ", &format!("<{op}>{stolen}</{name}>")), BAD));
    }
    // Payloads.
    let with = |attributes: &str| {
        format!("<message xmlns='jabber:client' {attributes}><body>stolen</body></message>")
    };
    let from = format!("from='{boss}'");
    let mut payloads = vec![
        String::new(),
        format!("{stolen}{stolen}"),
        "stolen".into(),
        stolen.replace("jabber:client", "jabber:server"),
        stolen.replace("jabber:client", "urn:example"),
        stolen.replace(" xmlns='jabber:client'", ""),
        stolen.replace("<message", "<massage").replace("</message", "</massage"),
        cast.clone(),
        with(""),
        with("type='groupchat'"),
        with(&format!("{from} to='member@b.test/r'")),
        with(&format!("{from} to='stranger@b.test/r'")),
        with(&format!("{from} to='host@a.test/r'")),
        format!("<iq xmlns='jabber:client' type='get' {from}><q xmlns='x'/></iq>"),
        format!("<iq xmlns='jabber:client' id='1' {from}><q xmlns='x'/></iq>"),
        format!("<iq xmlns='jabber:client' id='1' type='take' {from}><q xmlns='x'/></iq>"),
    ];
    for from in [
        "other@conference.evil.test/boss",
        "other@conference.evil.test",
        "conference.evil.test",
        "den@evil.test/boss",
        "den@conference.b.test/boss",
        "square@conference.a.test/host",
        "square@conference.a.test",
        "host@a.test/r",
        "neighbour@b.test/r",
        "member@b.test",
        "b.test",
        "",
        "@",
        "@conference.evil.test/boss",
        "den@/boss",
        "den@conference.evil.test/",
        "den@conference.evil.test@conference.evil.test/boss",
    ] {
        payloads.push(with(&format!("from='{}'", xml::escape(from))));
    }
    for payload in payloads {
        forms.push((envelope("e1", "SEQ", &format!("<cast n='1'>{payload}</cast>")), BAD));
    }
    forms
}

/// Envelopes in good form that let in those who never asked: they are refused one by one, and only the
/// member hears.
pub async fn strangers(scene: &Scene) -> Result<()> {
    let (evil, member) = (scene.evil(), scene.member.jid());
    let den = evil.room("den");
    scene.member.join(&den, "m").await?;
    scene.clear().await;
    let before = counters(scene.b()).await?;
    let answer = evil.set_up(&den, "e1", &[NOBODY, member, "nobody@b.test/x"]).await?;
    ensure!(answer.attr("type") == "result", "{}", answer.xml());
    ensure!(
        answer.xml().contains("i=\"0 2\"") || answer.xml().contains("i='0 2'"),
        "{}",
        answer.xml()
    );

    let boss = format!("{den}/boss");
    let cast = |n: u32| format!("<cast n='{n}'>{}</cast>", message(&boss, &format!("cast {n}")));
    evil.carry(&den, &envelope("e1", 1, &cast(1))).await?;
    let ops = format!("<enter i='3' jid='neighbour@b.test/r'/>{}", cast(2));
    evil.carry(&den, &envelope("e1", 2, &ops)).await?;
    let report = |r: &Received| r.element.name() == "message" && r.xml().contains("<refuse");
    let report = evil.peer().wait_for(report, SOON).await?;
    ensure!(
        report.xml().contains("seq=\"2\"") || report.xml().contains("seq='2'"),
        "{}",
        report.xml()
    );
    // Presences of a stay that nobody asked for open no consent.
    let joined = format!(
        "<only i='0 3'><presence xmlns='jabber:client' from='{den}/you'>\
         <x xmlns='http://jabber.org/protocol/muc#user'>\
         <item affiliation='owner' role='moderator'/><status code='110'/></x></presence></only>"
    );
    evil.carry(&den, &envelope("e1", 3, &joined)).await?;
    evil.carry(&den, &envelope("e1", 4, &cast(3))).await?;
    let only = format!("<only i='0-3'>{}</only>", message(&boss, "for all"));
    evil.carry(&den, &envelope("e1", 5, &only)).await?;
    let expected = ["cast 1", "cast 2", "cast 3", "for all"].map(str::to_owned);
    scene.heard(&expected).await?;
    let after = counters(scene.b()).await?;
    ensure!(grown(&before, &after, "withheld") > 0, "{after:?}");
    Ok(())
}

/// Who has left and been told so is reached no more, in this epoch and the next.
pub async fn after_leaving(scene: &Scene) -> Result<()> {
    let (evil, member) = (scene.evil(), scene.member.jid());
    let den = evil.room("den");
    let boss = format!("{den}/boss");
    scene.member.join(&den, "m").await?;
    evil.set_up(&den, "e1", &[member]).await?;
    let only = |body: &str| format!("<only i='0'>{}</only>", message(&boss, body));
    scene.clear().await;
    evil.carry(&den, &envelope("e1", 1, &only("inside"))).await?;
    scene.heard(&["inside".to_owned()]).await?;
    scene.member.leave(&den, "m").await?;
    scene.clear().await;
    evil.carry(&den, &envelope("e1", 2, &only("outside"))).await?;
    evil.peer().wait_for(|r| r.xml().contains("<refuse"), SOON).await?;
    evil.carry(&den, &envelope("e1", 3, &only("outside again"))).await?;
    let again = format!("<leave i='0'/><enter i='1' jid='{member}'/>{}", only("in anew"));
    evil.carry(&den, &envelope("e1", 4, &again.replace("i='0'>", "i='1'>"))).await?;
    evil.peer().transcript().clear();
    let answer = evil.set_up(&den, "e2", &[member]).await?;
    ensure!(is_nothing(&answer), "{}", answer.xml());
    // A room that still names him has not got his leave, for all that is known. Its answer is plain.
    let again = |r: &Received| r.is("presence", "unavailable", member);
    evil.peer().wait_for(again, SOON).await?;
    scene.member.quiet(Duration::from_millis(500)).await;
    for got in scene.member.received() {
        ensure!(got.is("presence", "unavailable", &format!("{den}/m")), "{}", got.xml());
    }
    scene.clear().await;
    scene.heard(&[]).await
}
