//! A room with occupants on three servers who talk, come and go, while something goes wrong.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dmuc_testkit::{Client, Fault, Kind, Lab, ServerSpec};
use futures::future::{join_all, select};
use futures::pin_mut;
use serde_json::json;
use tokio::time::sleep;

use super::diary::Event;
use super::list;
use super::member::Member;
use super::oracle::{Findings, Orders};
use crate::hostile::tables::is_linked;
use crate::scene::{Pairing, SOON, names, until, until_async};

/// Users of the primary's own server; the first two are the witnesses.
const LOCAL: usize = 4;
/// Users of the replica `b`.
const REMOTE: usize = 10;
/// Of these, the first ones never say anything.
const SILENT: usize = 3;
/// Of these, the last ones come and go.
const MOVING: usize = 2;
/// Users of the third server `c`, whose link is whole.
const THIRD: usize = 3;

/// Time between two messages in the room.
const PACE: Duration = Duration::from_millis(100);

/// Who lives where.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The node that has the room.
    pub home: &'static str,
    /// The nodes of the primary; the witness is at the first.
    pub local: &'static [&'static str],
    /// The nodes of the replica.
    pub remote: &'static [&'static str],
}

impl Layout {
    /// Servers of one node each.
    pub const SINGLE: Self = Self { home: "a", local: &["a"], remote: &["b"] };

    /// The users of each node, in the order of the [`Town`]'s members.
    fn users(&self) -> impl Iterator<Item = (&'static str, String)> {
        let spread = |nodes: &'static [&'static str], prefix, count| {
            nodes.iter().copied().cycle().zip(names(prefix, count))
        };
        spread(self.local, "local", LOCAL)
            .chain(spread(self.remote, "remote", REMOTE))
            .chain(spread(&["c"], "third", THIRD))
    }
}

/// How the servers are set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    /// With dmuc.
    pub dmuc: bool,
    /// With the servers' stock settings of reconnection, and dmuc's own of everything.
    pub stock: bool,
    /// Option `hold_time` in seconds, if not as usual.
    pub hold: Option<u64>,
    /// With what crosses the wire on record, which takes memory.
    pub record: bool,
    /// Without archives: ejabberd's reads all of a room's to add a message, and Prosody's is kept in memory.
    pub forgetful: bool,
    /// With a tree: one of the servers of remote users passes on to the other what is for all.
    pub tree: bool,
}

impl Setup {
    /// With dmuc and short times.
    pub const QUICK: Self =
        Self { dmuc: true, stock: false, hold: None, record: true, forgetful: false, tree: false };

    /// Starts servers `a` (the room's), `b` behind a wire, and `c`.
    pub async fn start(self, name: &str, pairing: Pairing) -> Result<Lab> {
        let spec = |kind, name| self.spec(ServerSpec::new(kind, name));
        let lab = Lab::builder(&format!("{name}-{pairing}"))
            .server(spec(pairing.primary, "a"))
            .server(spec(pairing.replica, "b"))
            .server(spec(Kind::Prosody, "c"))
            .wire("a", "b")
            .start()
            .await?;
        lab.wire("a", "b").set_recording(self.record);
        Ok(lab)
    }

    /// A server as it is to be.
    pub fn spec(self, spec: ServerSpec) -> ServerSpec {
        let mut spec = spec.dmuc(self.dmuc);
        if self.forgetful {
            spec.without.extend(["mod_mam", "muc_mam", "mam"].map(str::to_owned));
        }
        if self.stock {
            if spec.kind == Kind::Ejabberd {
                // What it has when nothing is configured.
                let stock = json!({
                    "s2s_max_retry_delay": 300, "s2s_timeout": 3600, "s2s_dns_timeout": 10,
                    "s2s_dns_retries": 2
                });
                spec.options.extend(stock.as_object().cloned().unwrap_or_default());
            }
        } else {
            spec = spec
                .dmuc_option("ack_timeout", 5)
                .dmuc_option("probe_after", 2)
                .dmuc_option("ping_interval", 5)
                .dmuc_option("retry_min", 1)
                .dmuc_option("setup_timeout", 5)
                .dmuc_option("retry_max", 10)
                .dmuc_option("hold_time", 30);
        }
        if self.tree {
            spec = spec.dmuc_option("tree_domains", 1).dmuc_option("tree_fanout", 1);
        }
        match self.hold {
            Some(seconds) => spec.dmuc_option("hold_time", seconds),
            None => spec,
        }
    }
}

/// The room, its users, and what they do.
pub struct Town<'l> {
    /// The servers.
    pub lab: &'l Lab,
    /// The room's address.
    pub room: String,
    /// Everybody: local users, those of `b`, those of `c`.
    pub members: Vec<Member<'l>>,
    /// The node that has the room.
    home: RefCell<String>,
    begin: Instant,
    /// Whether people talk.
    lively: Cell<bool>,
    /// Whether who is outside may enter: not while the room's server starts, since the witness has to
    /// be the first.
    open: Cell<bool>,
    /// Whether something is broken now.
    broken: Cell<bool>,
    words: Cell<u64>,
    random: RefCell<fastrand::Rng>,
    /// Delays in microseconds of messages from `a` and `c` to users of `c`: while all is whole, and
    /// while something is broken.
    delays: RefCell<[Vec<u64>; 2]>,
}

impl<'l> Town<'l> {
    /// Makes the room and the accounts. What happens by chance follows `seed`.
    pub async fn found(lab: &'l Lab, seed: u64) -> Result<Self> {
        Self::found_as(lab, Layout::SINGLE, seed).await
    }

    /// The same on clusters.
    pub async fn found_as(lab: &'l Lab, layout: Layout, seed: u64) -> Result<Self> {
        let a = lab.server(layout.home);
        let room = a.room("square");
        a.register(&["owner"]).await?;
        let owner = Client::connect(a, "owner", "r").await?;
        // It outlives its occupants and its server, as rooms do that people care for.
        let settings = [("muc#roomconfig_persistentroom", "1")];
        owner.create(&room, "owner", &settings).await?;
        owner.leave(&room, "owner").await?;
        if a.kind() == Kind::Ejabberd {
            a.eval("mnesia:sync_log()").await?;
        }
        let mut members = Vec::new();
        for (server, name) in layout.users() {
            let server = lab.server(server);
            server.register(&[&name]).await?;
            members.push(Member::new(&name, server, &room));
        }
        members[LOCAL + REMOTE..].iter().for_each(Member::measure);
        Ok(Self {
            lab,
            room,
            members,
            home: RefCell::new(layout.home.to_owned()),
            begin: Instant::now(),
            lively: Cell::new(false),
            open: Cell::new(false),
            broken: Cell::new(false),
            words: Cell::new(0),
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            delays: RefCell::default(),
        })
    }

    /// Lets everybody live his life while `story` goes on.
    pub async fn live<T>(&self, story: impl Future<Output = Result<T>>) -> Result<T> {
        // The witness's door is always open.
        let free = Cell::new(true);
        let lives = self.members.iter().enumerate().map(|(n, member)| {
            let open = if n == 0 { &free } else { &self.open };
            member.run(open)
        });
        let lives = join_all(lives);
        let story = async {
            self.witness_is_in().await?;
            until("everybody is in", SOON, || self.all_content()).await?;
            story.await
        };
        let all = async {
            futures::join!(lives, self.bustle());
        };
        pin_mut!(story, all);
        match select(story, all).await {
            futures::future::Either::Left((outcome, _)) => outcome,
            futures::future::Either::Right(_) => bail!("nobody lives for ever"),
        }
    }

    async fn witness_is_in(&self) -> Result<()> {
        until("the witness is in", SOON * 2, || self.members[0].is_inside()).await?;
        self.open.set(true);
        Ok(())
    }

    fn all_content(&self) -> bool {
        self.members.iter().all(Member::is_content)
    }

    /// Users of a server.
    pub fn of<'t>(&'t self, server: &'t str) -> impl Iterator<Item = &'t Member<'l>> {
        self.members.iter().filter(move |member| member.server().name() == server)
    }

    /// A number below `limit`.
    pub fn chance(&self, limit: u64) -> u64 {
        self.random.borrow_mut().u64(..limit)
    }

    /// From now on people talk, or not.
    pub fn set_lively(&self, lively: bool) {
        self.lively.set(lively);
    }

    /// People talk, come and go for so long.
    pub async fn pass(&self, time: Duration) {
        self.set_lively(true);
        sleep(time).await;
    }

    /// Until the room has a whole link with `b`. Whom it serves plainly, loses what plain MUC loses.
    pub async fn linked(&self, patience: Duration) -> Result<()> {
        let home = self.home.borrow().clone();
        let home = self.lab.server(&home);
        let linked = async || Ok(is_linked(home, &self.room, "b.test").await.unwrap_or(false));
        until_async("the room is linked with b", patience, linked).await
    }

    /// Until something that is said is heard by all who are inside: streams are whole too, of which a link
    /// that has just been cut does not know yet.
    pub async fn all_hear(&self, patience: Duration) -> Result<()> {
        let begin = Instant::now();
        let witness = &self.members[0];
        while begin.elapsed() < patience {
            let said = format!("heard {}", self.words_of(witness));
            witness.say(&said)?;
            let said = Event::Message(said);
            let inside = |m: &&Member<'_>| m.is_inside();
            let heard = || self.members.iter().filter(inside).all(|m| m.has_heard(&said));
            if until("", Duration::from_secs(1), heard).await.is_ok() {
                return Ok(());
            }
        }
        bail!("not all have heard what was said")
    }

    /// A fault for so long.
    pub async fn suffer(&self, fault: &Fault, time: Duration) -> Result<()> {
        self.set_lively(true);
        self.broken.set(true);
        let primary = matches!(fault, Fault::Killed(server) if *server == *self.home.borrow());
        if primary {
            self.open.set(false);
        }
        fault.strike(self.lab).await.with_context(|| format!("{fault}"))?;
        if primary {
            self.members.iter().for_each(Member::room_died);
        }
        sleep(time).await;
        fault.mend(self.lab).await.with_context(|| format!("{fault} no longer"))?;
        if primary {
            self.witness_is_in().await?;
        }
        self.broken.set(false);
        Ok(())
    }

    /// The node with the room is killed, and stays away until the room has been opened again by the
    /// witness on his own node and people have talked there for so long.
    pub async fn move_home(&self, time: Duration) -> Result<()> {
        self.set_lively(true);
        self.broken.set(true);
        self.open.set(false);
        let (witness, fault) = (&self.members[0], Fault::Killed(self.home.borrow().clone()));
        fault.strike(self.lab).await?;
        self.members.iter().for_each(Member::room_died);
        // Nobody tells him, since users of a cluster's own nodes have no link.
        witness.give_up();
        self.witness_is_in().await?;
        sleep(time).await;
        fault.mend(self.lab).await?;
        self.broken.set(false);
        self.home.replace(witness.server().name().to_owned());
        Ok(())
    }

    /// Ten times a second somebody does something: most of the time he talks.
    async fn bustle(&self) {
        loop {
            sleep(PACE).await;
            if !self.lively.get() {
                continue;
            }
            // A connection that ends meanwhile is noticed by its owner.
            let _ = self.speak();
            match self.chance(100) {
                0..5 => {
                    let _ = self.anybody().show();
                }
                5..9 => {
                    let member = self.moving();
                    if member.is_content() {
                        member.want(!member.wants());
                    }
                }
                9 => {
                    let member = self.moving();
                    member.set_online(!member.is_online()).await;
                }
                _ => {}
            }
        }
    }

    fn anybody(&self) -> &Member<'l> {
        &self.members[self.chance(self.members.len() as u64) as usize]
    }

    /// Somebody who comes and goes.
    fn moving(&self) -> &Member<'l> {
        let remote = LOCAL + REMOTE - 1 - self.chance(MOVING as u64) as usize;
        match self.chance(3) {
            0 => &self.members[LOCAL - 1],
            _ => &self.members[remote],
        }
    }

    fn speak(&self) -> Result<()> {
        let silent = LOCAL..LOCAL + SILENT;
        let n = loop {
            let n = self.chance(self.members.len() as u64) as usize;
            if !silent.contains(&n) {
                break n;
            }
        };
        self.members[n].say(&self.words_of(&self.members[n]))
    }

    /// Number, server, whether something is broken, and the time.
    fn words_of(&self, member: &Member<'_>) -> String {
        self.words.set(self.words.get() + 1);
        let state = if self.broken.get() { "broken" } else { "whole" };
        let now = self.begin.elapsed().as_micros();
        format!("{} {} {state} {now}", self.words.get(), member.server().name())
    }

    /// Everybody falls silent; when nothing is under way any more, the oracle speaks. `patience` is
    /// how long that may take.
    pub async fn quiet(&self, patience: Duration) -> Result<Findings> {
        self.set_lively(false);
        for member in &self.members {
            member.want(true);
            member.set_online(true).await;
        }
        let begin = Instant::now();
        let witness = &self.members[0];
        let (last, list) = loop {
            let last = format!("quiet {}", self.words_of(witness));
            witness.say(&last)?;
            let last = Event::Message(last);
            let heard = || {
                let inside = |m: &&Member<'_>| m.is_inside();
                self.all_content() && self.members.iter().filter(inside).all(|m| m.has_heard(&last))
            };
            let in_time = until("", Duration::from_secs(1), heard).await.is_ok();
            if in_time || begin.elapsed() >= patience {
                let list = list::occupants(witness.server(), &self.room).await?;
                let believers: Vec<_> = self.believers().collect();
                let equal = list.iter().all(|jid| believers.contains(jid))
                    && believers.iter().all(|jid| list.contains(jid));
                if in_time && equal || begin.elapsed() >= patience {
                    break (last, list);
                }
            }
        };
        ensure!(witness.has_heard(&last), "the witness is deaf");
        self.note_delays();
        Ok(self.judge(&last, &list))
    }

    /// Whom the room takes for an occupant although he is not.
    pub async fn ghosts(&self) -> Result<Vec<String>> {
        let list = list::occupants(self.members[0].server(), &self.room).await?;
        let believers: Vec<_> = self.believers().collect();
        Ok(list.into_iter().filter(|jid| !believers.contains(jid)).collect())
    }

    /// Every session that a user of this domain has had.
    pub fn sessions(&self, domain: &str) -> impl Iterator<Item = String> {
        let of = move |member: &&Member<'_>| member.server().domain() == domain;
        self.members.iter().filter(of).flat_map(Member::sessions)
    }

    fn believers(&self) -> impl Iterator<Item = String> {
        self.members.iter().filter(|member| member.is_inside()).filter_map(Member::jid)
    }

    fn judge(&self, last: &Event, list: &[String]) -> Findings {
        let mut findings = Findings::default();
        let mut deaf = Vec::new();
        {
            let order = self.members[0].diary();
            let orders = Orders::of(&order, last);
            for member in &self.members[1..] {
                findings += orders.judge(member.name(), &member.diary());
                if member.is_inside() && !member.has_heard(last) {
                    findings.deaf += 1;
                    findings.detail(|| format!("{}: is deaf", member.name()));
                    deaf.push(member);
                } else if !member.is_content() {
                    findings.outside += 1;
                    findings.detail(|| format!("{}: does not get in", member.name()));
                }
            }
        }
        let believers: Vec<_> = self.believers().collect();
        for ghost in list.iter().filter(|jid| !believers.contains(jid)) {
            findings.ghosts += 1;
            findings.detail(|| format!("{ghost}: is a ghost"));
        }
        if !findings.is_clean() {
            self.keep_diaries();
        }
        // They notice by themselves, as people do at some time.
        deaf.into_iter().for_each(Member::give_up);
        self.members.iter().for_each(|member| member.turn_over(last));
        findings
    }

    /// Writes what everybody has heard beside the servers' logs.
    fn keep_diaries(&self) {
        let at = self.begin.elapsed().as_secs();
        let diaries: Vec<_> =
            self.members.iter().map(|m| format!("{}: {:#?}\n", m.name(), m.diary())).collect();
        let path = self.lab.dir().join(format!("diaries-{at}.txt"));
        if let Err(error) = std::fs::write(&path, diaries.concat()) {
            println!("{}: {error}", path.display());
        }
    }

    fn note_delays(&self) {
        let mut delays = self.delays.borrow_mut();
        for (body, at) in self.of("c").flat_map(Member::arrivals) {
            let words: Vec<&str> = body.split(' ').collect();
            if let [_, "a" | "c", state, said] = words[..]
                && let Ok(said) = said.parse()
            {
                let delay = (at - self.begin).saturating_sub(Duration::from_micros(said));
                delays[usize::from(state == "broken")].push(delay.as_micros() as u64);
            }
        }
    }

    /// Median, 99th percentile and longest delay in milliseconds of messages to users of `c`: while
    /// all was whole, and while something was broken.
    pub fn delays(&self) -> [Option<[f64; 3]>; 2] {
        let mut delays = self.delays.borrow().clone();
        delays.each_mut().map(|delays| {
            delays.sort_unstable();
            let at =
                |part: f64| delays[((delays.len() - 1) as f64 * part) as usize] as f64 / 1000.0;
            (!delays.is_empty()).then(|| [at(0.5), at(0.99), at(1.0)])
        })
    }
}
