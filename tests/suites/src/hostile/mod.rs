//! A server that means ill: it reaches nobody, fills nothing up, and is counted.
//!
//! The peer `evil` hosts rooms and has occupants as it likes. What it sends comes over authenticated
//! streams; an honest room on server `a` shows that its victim `b` goes on serving others.

mod bounds;
mod carriers;
mod envelopes;
mod evil;
mod reports;
mod setups;
mod slots;
pub mod tables;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Result, ensure};
use dmuc_testkit::{Client, Kind, Lab, Server, ServerSpec};

use self::evil::Evil;
use crate::runner::Suite;
use crate::scene::{all_have, linked, log_in};

type Play = for<'a> fn(&'a Scene) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

pub fn suite() -> Suite {
    let cases: [(&str, Limits, Play); 9] = [
        ("envelopes", &[], |scene| Box::pin(envelopes::garbage(scene))),
        ("strangers", &[], |scene| Box::pin(envelopes::strangers(scene))),
        ("after leaving", &[], |scene| Box::pin(envelopes::after_leaving(scene))),
        ("carriers", &[], |scene| Box::pin(carriers::play(scene))),
        ("set-ups", &[], |scene| Box::pin(setups::play(scene))),
        ("reports", &[("retry_min", 1), ("retry_max", 1)], |scene| Box::pin(reports::play(scene))),
        ("limits", bounds::LIMITS, |scene| Box::pin(bounds::limits(scene))),
        ("slots", slots::LIMITS, |scene| Box::pin(slots::play(scene))),
        ("floods", &[], |scene| Box::pin(bounds::floods(scene))),
    ];
    let mut suite = Suite::new("hostile");
    for kind in [Kind::Ejabberd, Kind::Prosody] {
        for (name, limits, play) in cases {
            suite = suite.case(format!("{kind} {name}"), move || run(kind, name, limits, play));
        }
    }
    suite
}

/// Options of `b`.
type Limits = &'static [(&'static str, u64)];

/// Users of `b` and what they are in.
struct Scene {
    lab: Lab,
    /// In the room of evil and in the honest one.
    member: Client,
    /// In the honest room.
    neighbour: Client,
    /// In no room.
    stranger: Client,
    /// On `a`, in the honest room.
    host: Client,
}

async fn run(kind: Kind, name: &str, limits: Limits, play: Play) -> Result<()> {
    let spec = limits.iter().fold(ServerSpec::new(kind, "b").dmuc(true), |spec, (name, value)| {
        spec.dmuc_option(name, *value)
    });
    let lab = Lab::builder(&format!("hostile-{}-{kind}", name.replace(' ', "-")))
        .server(ServerSpec::prosody("a").dmuc(true))
        .server(spec)
        .wire("a", "b")
        .peer("evil")
        .start()
        .await?;
    match Scene::new(lab).await {
        Ok(scene) => {
            let mut outcome = play(&scene).await;
            if outcome.is_ok() {
                outcome = scene.serves("still here").await;
            }
            scene.lab.finish(outcome).await
        }
        Err((lab, error)) => lab.finish(Err(error)).await,
    }
}

impl Scene {
    async fn new(lab: Lab) -> Result<Self, (Lab, anyhow::Error)> {
        match enter(&lab).await {
            Ok((host, [member, neighbour, stranger])) => {
                Ok(Scene { lab, member, neighbour, stranger, host })
            }
            Err(error) => Err((lab, error)),
        }
    }

    fn b(&self) -> &Server {
        self.lab.server("b")
    }

    fn evil(&self) -> Evil<'_> {
        Evil::new(self.lab.peer("evil"))
    }

    fn users(&self) -> [&Client; 3] {
        [&self.member, &self.neighbour, &self.stranger]
    }

    /// Everybody forgets what came so far.
    async fn clear(&self) {
        for user in self.users() {
            user.quiet(Duration::from_millis(200)).await;
            user.clear();
        }
    }

    /// Since [`Scene::clear`] the member got these bodies in this order and nothing else, and the
    /// others got nothing.
    async fn heard(&self, bodies: &[String]) -> Result<()> {
        if let Some(last) = bodies.last() {
            all_have([&self.member], last).await?;
        }
        for user in self.users() {
            user.quiet(Duration::from_millis(500)).await;
            let got: Vec<_> = user.received();
            let expected: &[String] = if user.jid() == self.member.jid() { bodies } else { &[] };
            let list: Vec<String> = got.iter().map(|r| r.body().unwrap_or_default()).collect();
            ensure!(
                list == expected,
                "{} got what it should not, or not what it should:\n{}",
                user.jid(),
                got.iter().map(|r| r.xml()).collect::<Vec<_>>().join("\n")
            );
        }
        Ok(())
    }

    /// The honest room is heard as ever, each message once.
    async fn serves(&self, text: &str) -> Result<()> {
        let room = self.lab.server("a").room("square");
        self.host.say(&room, text)?;
        for user in [&self.member, &self.neighbour] {
            all_have([user], text).await?;
            user.quiet(Duration::from_millis(200)).await;
            let count = user.bodies(&room).iter().filter(|(_, body)| body == text).count();
            ensure!(count == 1, "{} heard it {count} times", user.jid());
        }
        Ok(())
    }
}

async fn enter(lab: &Lab) -> Result<(Client, [Client; 3])> {
    let (a, b) = (lab.server("a"), lab.server("b"));
    let host = log_in(a, &["host".to_owned()]).await?.remove(0);
    let users = ["member", "neighbour", "stranger"].map(str::to_owned);
    let users = log_in(b, &users).await?;
    let Ok(users) = <[Client; 3]>::try_from(users) else { anyhow::bail!("three log in") };
    let square = a.room("square");
    host.create(&square, "host", &[]).await?;
    users[0].join(&square, "member").await?;
    users[1].join(&square, "neighbour").await?;
    linked(lab.wire("a", "b"), &square, 1).await?;
    Evil::new(lab.peer("evil")).open_rooms();
    Ok((host, users))
}
