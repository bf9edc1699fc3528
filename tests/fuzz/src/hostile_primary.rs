//! A replica whose rooms mean ill. Its sessions are honest.

use std::sync::LazyLock;

use dmuc_core::tree::RoomKey;
use dmuc_core::{Bounce, Element, Facts, Incoming, Millis};

use crate::home::{Home, Said};
use crate::script::Script;
use crate::{flood, heap, invent};

const DOMAIN: &str = "b.test";
const ROOMS: &[&str] =
    &["r@c.a.test", "s@c.a.test", "t@c.a.test", "r@c.z.test", "s@c.z.test", "not-a-room"];
const SESSIONS: &[&str] =
    &["u@b.test/1", "u@b.test/2", "v@b.test/1", "w@b.test/1", "x@b.test/1", "y@b.test/1"];
const JOIN: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::MUC_X);
const LEAVE: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::UNAVAILABLE);

/// A public key, as it is written: whose it is, is no matter.
static KEY: LazyLock<String> = LazyLock::new(|| {
    RoomKey::new(&[1; 32]).public().iter().map(|byte| format!("{byte:02x}")).collect()
});

/// What the attacker remembers of a link.
#[derive(Clone, Debug, Default)]
struct View {
    epoch: u64,
    seq: u64,
    bound: u64,
    slot: u64,
    /// Envelopes since the link lies in a room stream; casts of each class so far.
    nth: Option<u64>,
    casts: [u64; 2],
}

/// A replica and those who attack it.
struct Scene {
    now: Millis,
    home: Home,
    views: Vec<View>,
    stanzas: u64,
    last: Option<(usize, Element<Incoming>)>,
}

/// One input.
pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let mut scene = Scene::new();
    if !script.once_in(4) {
        scene.link(0);
    }
    while script.goes_on() {
        scene.step(&mut script);
    }
    scene.end();
}

/// The beginning of an input once, the rest over and over.
pub fn flood(data: &[u8]) {
    flood::repeat(|rounds| {
        let mut script = Script::short(data);
        let mut scene = Scene::new();
        scene.link(0);
        for _ in 0..script.below(16) {
            scene.step(&mut script);
        }
        let passes = 50 * u64::from(script.once_in(2));
        for _ in 0..rounds {
            let mut script = script.clone();
            while script.goes_on() {
                scene.step(&mut script);
            }
            scene.pass(passes);
            scene.home.received.clear();
        }
        scene.end()
    });
}

impl Scene {
    fn new() -> Self {
        let views = vec![View::default(); ROOMS.len()];
        let home = Home::new(DOMAIN);
        Scene { now: Millis(1), home, views, stanzas: 0, last: None }
    }

    /// A link in good order, with half of the sessions.
    fn link(&mut self, room: usize) {
        for session in &SESSIONS[..3] {
            self.home.outgoing(self.now, session, &format!("{}/{session}", ROOMS[room]), JOIN);
        }
        let mut body = self.offer(room, 3);
        for (index, session) in SESSIONS[..3].iter().enumerate() {
            body.children.push(enter(&index.to_string(), session));
        }
        self.set_up(room, &body);
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let now = self.now;
        let room = [0, 0, 0, 0, 1, 2, 3, 4, 5][script.below(9)];
        let session = *script.of(SESSIONS);
        let occupant = format!("{}/n{}", ROOMS[room], script.below(3));
        match script.below(24) {
            0 | 1 => self.home.outgoing(now, session, &occupant, JOIN),
            2 => self.home.outgoing(now, session, &occupant, LEAVE),
            3 => self.home.close_session(now, session),
            4 => {
                let facts = invent::facts(script);
                self.home.incoming(now, session, &occupant, facts, &[]);
            }
            5 => self.pass(u64::from(script.byte()) << script.below(12)),
            6 => {
                let said = self.home.reload(now);
                self.hear(said);
            }
            7 => {
                let record = script.text();
                let record = (!script.once_in(3)).then_some(&*record);
                self.home.import(now, ROOMS[room], session, record);
            }
            8 | 9 => {
                let body = self.invented_offer(script, room);
                self.set_up(room, &body);
            }
            12 => {
                let View { epoch, seq, .. } = self.views[room];
                let body = Element::new("resume").with("epoch", format!("e{epoch}"));
                self.send(room, &body.with("n", invent::number(script, seq)));
            }
            13 if script.once_in(4) => {
                let id = format!("dmucq-e{}", self.views[room].epoch);
                let how = *script.of(&[Bounce::Refused, Bounce::Unknown]);
                let said = self.home.returned(now, ROOMS[room], &id, how);
                self.hear(said);
            }
            14 if script.once_in(2) => self.tell_part(script, room),
            15 | 16 if self.views[room].nth.is_some() => self.cast(script, room),
            10 => {
                if let Some((room, mut body)) = self.last.clone() {
                    invent::alter(script, &mut body);
                    self.send(room, &body);
                }
            }
            11 => {
                if let Some((_, body)) = self.last.clone() {
                    self.send(room, &body);
                }
            }
            _ => {
                let body = self.invented_envelope(script, room);
                self.send(room, &body);
                self.last = Some((room, body));
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now + ms;
        if self.home.wake.is_some_and(|at| at <= self.now) {
            let said = self.home.tick(self.now);
            self.hear(said);
        }
    }

    fn offer(&mut self, room: usize, size: u64) -> Element<Incoming> {
        let view = &mut self.views[room];
        *view = View { epoch: view.epoch + 1, bound: size, ..View::default() };
        Element::new("link")
            .with("epoch", format!("e{}", view.epoch))
            .with("stream", "s")
            .with("size", size)
            .with("hold", 1)
            .with("ping", 1)
            .with("max-bytes", 8192)
    }

    fn invented_offer(&mut self, script: &mut Script<'_>, room: usize) -> Element<Incoming> {
        let count = script.below(8);
        let unnamed = script.below(8) / 6;
        let mut body = self.offer(room, (count + unnamed) as u64);
        self.views[room].bound = count as u64;
        for index in 0..count {
            let index = if script.once_in(32) { script.below(9) } else { index };
            body.children.push(enter(&index.to_string(), script.of::<&str>(SESSIONS)));
        }
        if script.once_in(4) {
            let at = script.below(body.attrs.len());
            body.attrs[at].1 = invent::number(script, count as u64);
        }
        body
    }

    fn set_up(&mut self, room: usize, body: &Element<Incoming>) {
        let said = self.home.setup(self.now, ROOMS[room], body);
        self.hear(said);
    }

    fn invented_envelope(&mut self, script: &mut Script<'_>, room: usize) -> Element<Incoming> {
        let View { epoch, seq, .. } = self.views[room];
        let epoch = if script.once_in(32) { epoch.saturating_sub(1) } else { epoch };
        let mut body = Element::new("envelope").with("epoch", format!("e{epoch}"));
        body = match script.once_in(16) {
            true => body.with("seq", invent::number(script, seq)),
            false => body.with("seq", seq + 1),
        };
        if script.once_in(4) {
            body = body.with("refusals", invent::number(script, 3));
        }
        body = self.place(script, room, body);
        for _ in 0..=script.below(6) {
            let op = self.operation(script, room);
            body.children.push(op);
        }
        if script.once_in(32) {
            invent::alter(script, &mut body);
        }
        body
    }

    fn operation(&mut self, script: &mut Script<'_>, room: usize) -> Element<Incoming> {
        let kind = script.below(16);
        if kind < 3 {
            let view = &mut self.views[room];
            view.bound += 1;
            let index = view.bound - 1;
            let op = enter(&index.to_string(), script.of::<&str>(SESSIONS));
            return if script.once_in(4) { op.with("class", invent::class(script)) } else { op };
        }
        let bound = self.views[room].bound;
        match kind {
            3 | 4 => Element::new("leave").with("i", invent::indexes(script, bound)),
            5 => {
                let op = Element::new("class").with("i", invent::indexes(script, bound));
                op.with("class", invent::class(script))
            }
            6 | 7 => {
                let i = invent::indexes(script, bound);
                Element::new("replay").with("i", i).with("slots", invent::slots(script))
            }
            8 => Element::new("drop").with("slots", invent::slots(script)),
            9 if script.once_in(4) => Element::new("end"),
            n => {
                self.stanzas += 1;
                let other = ROOMS[(room + 1) % ROOMS.len()];
                let payload = invent::payload(script, ROOMS[room], other, self.stanzas);
                let mut op = match n % 2 {
                    0 => Element::new("only").with("i", invent::indexes(script, bound)),
                    _ => {
                        let op = Element::new("cast").with("n", self.stanzas);
                        match script.below(4) {
                            0 => op.with("except", invent::indexes(script, bound)),
                            1 => op.with("class", invent::class(script)),
                            _ => op,
                        }
                    }
                };
                match script.below(8) {
                    0 => op = op.with("slot", invent::number(script, 3)),
                    1..=4 => {
                        let view = &mut self.views[room];
                        view.slot += 1 + script.below(8) as u64 / 6;
                        op = op.with("slot", view.slot);
                    }
                    _ => {}
                }
                op.payload = Some(payload);
                op
            }
        }
    }

    /// Where an envelope lies in the room stream, if its link lies in one.
    fn place(
        &self,
        script: &mut Script<'_>,
        room: usize,
        body: Element<Incoming>,
    ) -> Element<Incoming> {
        let View { nth: Some(nth), casts, .. } = self.views[room] else { return body };
        let mut position = || {
            let mut near = |n: u64| match script.below(8) {
                0 => invent::number(script, n),
                1 => (n + 1).to_string(),
                _ => n.to_string(),
            };
            format!("{} {}", near(casts[0]), near(casts[1]))
        };
        let (after, covers) = (position(), position());
        let body = body.with("nth", nth + 1).with("after", after);
        let body = if script.once_in(4) { body.with("covers", covers) } else { body };
        if script.once_in(6) { body.with("full", script.below(3)) } else { body }
    }

    /// Tells the replica of its part in a tree.
    fn tell_part(&mut self, script: &mut Script<'_>, room: usize) {
        let View { epoch, seq, .. } = self.views[room];
        let body = Element::new("envelope").with("epoch", format!("e{epoch}")).with("seq", seq + 1);
        let mut body = self.place(script, room, body);
        let neighbour = *script.of(&["p.test", "q.test", "r.test", DOMAIN, "u@p.test", ""]);
        let kind = *script.of(&["stream", "stream", "parent", "child", "child", "orphan", "alone"]);
        let op = Element::new(kind);
        body.children.push(match kind {
            "stream" => op
                .with("name", "s")
                .with("key", KEY.as_str())
                .with("secret", "07".repeat(32))
                .with("from", "0 0")
                .with_some("full", script.once_in(2).then_some(1)),
            "alone" => op,
            _ => op.with("class", invent::class(script)).with("domain", neighbour),
        });
        let before = self.views[room].seq;
        self.send(room, &body);
        let view = &mut self.views[room];
        if view.seq > before {
            match kind {
                "stream" => (view.nth, view.casts) = (Some(0), [0; 2]),
                "alone" => view.nth = None,
                _ => {}
            }
        }
    }

    /// A cast of the stream, from the room or from others. What others pass on nobody has signed.
    fn cast(&mut self, script: &mut Script<'_>, room: usize) {
        self.stanzas += 1;
        let View { nth, casts, .. } = self.views[room];
        let class = script.below(2);
        let from = *script.of(&[ROOMS[room], ROOMS[room], ROOMS[room], "p.test", "q.test"]);
        let number = match script.below(8) {
            0 => invent::number(script, casts[class]),
            n => (casts[class] + 1 + n as u64 / 6).to_string(),
        };
        let mut body = Element::new("relayed")
            .with("room", ROOMS[room])
            .with("stream", if script.once_in(16) { "t" } else { "s" })
            .with("class", ["anonymous", "full"][class])
            .with("n", number)
            .with("other", if script.once_in(4) { casts[1 - class] + 1 } else { casts[1 - class] });
        body = match script.below(4) {
            0 => body.with("signature", "5".repeat(128)).with("tags", "6".repeat(32)),
            1 => body.with("nth", invent::number(script, nth.unwrap_or(0))),
            _ => body.with("nth", nth.unwrap_or(0)),
        };
        let other = ROOMS[(room + 1) % ROOMS.len()];
        body.payload = Some(invent::payload(script, ROOMS[room], other, self.stanzas));
        if script.once_in(16) {
            invent::alter(script, &mut body);
        }
        let (relays, said) = self.home.cast(self.now, from, &body, b"<message/>");
        assert_eq!(relays, 0, "nobody has signed it");
        self.hear(said);
        let view = &mut self.views[room];
        view.casts[class] += u64::from(from == ROOMS[room]);
        // Each counts as an envelope.
        let status = self.home.replica.status();
        if let Some(link) = status.iter().find(|link| link.room == ROOMS[room]) {
            view.seq = link.seq;
        }
    }

    /// Sends an envelope. If it was taken, the next number is another.
    fn send(&mut self, room: usize, body: &Element<Incoming>) {
        let said = self.home.envelope(self.now, ROOMS[room], "dmuc-x.1", body);
        let refused = said.iter().any(|said| matches!(said, Said::Refused { .. }));
        self.hear(said);
        let view = &mut self.views[room];
        let is_next = body.attr("seq") == Some(&(view.seq + 1).to_string());
        if is_next && !refused {
            view.seq += 1;
            view.nth = view.nth.map(|nth| nth + 1);
        } else if is_next {
            // What it said did not happen.
            let status = self.home.replica.status();
            if let Some(link) = status.iter().find(|link| link.room == ROOMS[room]) {
                view.seq = link.seq;
            }
            view.bound = view.bound.saturating_sub(entering(body));
        }
    }

    fn hear(&mut self, said: Vec<Said>) {
        for said in said {
            match said {
                Said::Dmuc { to, body } => {
                    assert!(ROOMS.contains(&&*to), "{to} was never heard of");
                    assert!(body.markup_len() < 300_000, "{} bytes", body.markup_len());
                }
                Said::Left { to, .. } => assert!(ROOMS.contains(&&*to), "{to} has nobody"),
                Said::Refused { .. } | Said::Result { .. } => {}
            }
        }
    }

    /// Whatever was said, what is kept is little: how many bytes that is.
    fn end(self) -> usize {
        let Home { replica, people, received, .. } = self.home;
        let with = heap::live();
        drop(replica);
        let kept = with.saturating_sub(heap::live());
        drop((people, received));
        assert!(kept < 400_000, "{kept} bytes were kept");
        kept
    }
}

fn enter(index: &str, session: &str) -> Element<Incoming> {
    Element::new("enter").with("i", index).with("jid", session)
}

fn entering(body: &Element<Incoming>) -> u64 {
    body.children.iter().filter(|child| child.name == "enter").count() as u64
}
