//! A peer speaks to a server, and hears it.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{Client, Kind, Lab, ServerSpec};

const SOON: Duration = Duration::from_secs(10);

/// A room that exists only in the words of a peer takes in a real user; a stanza with a
/// forged sender gets nowhere.
pub async fn run(kind: Kind) -> Result<()> {
    let lab = Lab::builder(&format!("selftest-hostile-{kind}"))
        .server(ServerSpec::new(kind, "b"))
        .peer("evil")
        .start()
        .await?;
    let outcome = speak(&lab).await;
    lab.finish(outcome).await
}

async fn speak(lab: &Lab) -> Result<()> {
    let (b, evil) = (lab.server("b"), lab.peer("evil"));
    b.register(&["u"]).await?;
    let user = Client::connect(b, "u", "r").await?;

    let room = format!("den@{}", evil.muc());
    evil.set_answer(|stanza| {
        let (Some(to), Some(from)) = (stanza.attr("to"), stanza.attr("from")) else {
            return Vec::new();
        };
        if stanza.name() != "presence" || stanza.attr("type").is_some() {
            return Vec::new();
        }
        vec![format!(
            "<presence from='{to}' to='{from}'><x xmlns='http://jabber.org/protocol/muc#user'>\
             <item affiliation='none' role='participant'/><status code='110'/></x></presence>"
        )]
    });
    user.join(&room, "nick").await?;
    ensure!(evil.received().iter().any(|r| r.attr("to") == format!("{room}/nick")));

    // The text claims a sender that this stream has no right to.
    let to = user.jid();
    evil.send_raw(
        &evil.domain(),
        &b.domain(),
        &format!("<message from='x@other.test' to='{to}'><body>forged</body></message>"),
    )
    .await?;
    evil.send(&format!("<message from='x@{}' to='{to}'><body>honest</body></message>", evil.muc()))
        .await?;
    user.wait_for(|r| r.body().as_deref() == Some("honest"), SOON).await?;
    user.quiet(Duration::from_millis(200)).await;
    ensure!(!user.received().iter().any(|r| r.body().as_deref() == Some("forged")));
    user.disconnect().await.map(drop)
}
