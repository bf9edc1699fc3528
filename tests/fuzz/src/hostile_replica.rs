//! A room one of whose replicas means ill.

use dmuc_core::{Bounce, Element, Incoming};

use crate::script::Script;
use crate::world::{B, C, Down, World};
use crate::{flood, invent};

/// What the attacker has read.
#[derive(Default)]
struct View {
    epoch: String,
    seq: u64,
    /// Refusals that it has told.
    refusals: u64,
    /// Questions for resumption that it has got.
    questions: u64,
    setup: String,
    ids: Vec<String>,
    last: Option<Element<Incoming>>,
}

struct Scene {
    world: World,
    view: View,
}

/// One input.
pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let mut scene = Scene::new(!script.once_in(4));
    while script.goes_on() {
        scene.step(&mut script);
        scene.world.look();
    }
    scene.world.verdict();
    scene.world.end();
}

/// The beginning of an input once, the rest over and over.
pub fn flood(data: &[u8]) {
    flood::repeat(|rounds| {
        let mut script = Script::short(data);
        let mut scene = Scene::new(true);
        for _ in 0..script.below(16) {
            scene.step(&mut script);
        }
        let passes = 50 * u64::from(script.once_in(2));
        for _ in 0..rounds {
            let mut script = script.clone();
            while script.goes_on() {
                scene.step(&mut script);
            }
            scene.world.pass(passes);
        }
        scene.world.end()
    });
}

/// One of four sessions of a domain.
pub fn session(n: usize, domain: &str) -> String {
    format!("u{}@{domain}/r{}", n % 3, n / 3)
}

impl Scene {
    fn new(linked: bool) -> Self {
        let mut scene = Scene { world: World::new(), view: View::default() };
        for n in 0..2 {
            scene.world.honest_join(&session(n, C), &format!("c{n}"));
        }
        scene.world.settle();
        if linked {
            for n in 0..3 {
                let copies = scene.world.muc.join(&session(n, B), &format!("b{n}"));
                scene.world.happen(copies);
            }
            scene.world.answer(true);
            scene.read();
            let body = scene.accept(8, 4096);
            let id = scene.view.setup.clone();
            scene.world.result(&id, Some(&body));
            scene.world.settle();
        }
        scene
    }

    /// Takes what the primary has sent.
    fn read(&mut self) {
        for down in self.world.down.drain(..) {
            match down {
                Down::Envelope { id, body } if body.name == "resume" => {
                    self.view.questions += 1;
                    self.view.ids.push(id);
                }
                Down::Envelope { id, .. } => {
                    let seq = id.split_once('.').and_then(|(_, seq)| seq.parse().ok());
                    self.view.seq = seq.unwrap_or(0);
                    self.view.ids.push(id);
                }
                Down::Setup { id, body } => {
                    self.view.epoch = body.attr("epoch").unwrap_or_default().to_owned();
                    self.view.setup = id;
                    self.view.seq = 0;
                    self.view.refusals = 0;
                    self.view.questions = 0;
                }
                Down::Plain { .. } => {}
            }
            if self.view.ids.len() > 20 {
                self.view.ids.remove(0);
            }
        }
    }

    fn accept(&self, slots: u64, bytes: u64) -> Element<Incoming> {
        Element::new("link")
            .with("epoch", &self.view.epoch)
            .with("max-bytes", 8192)
            .with("slots", slots)
            .with("slot-bytes", bytes)
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let n = script.below(4);
        let (mine, theirs) = (session(n, B), session(n, C));
        let world = &mut self.world;
        match script.below(28) {
            0 | 1 => {
                let copies = world.muc.join(&mine, &format!("b{}", script.below(4)));
                world.happen(copies);
            }
            2 => {
                let copies = world.muc.leave(&mine);
                world.happen(copies);
            }
            3 => world.honest_join(&theirs, &format!("c{}", script.below(4))),
            4 => world.honest_leave(&theirs),
            5 => act(script, world, &theirs),
            6 | 7 => act(script, world, &mine),
            8 => world.pass(u64::from(script.byte()) << script.below(12)),
            9 => world.answer(!script.once_in(4)),
            10 | 11 => {
                let bound = 3;
                let mut body = self.accept(script.below(9) as u64, 1 << script.below(14));
                if script.once_in(2) {
                    let i = invent::indexes(script, bound);
                    body.children.push(Element::new("refuse").with("i", i));
                }
                if script.once_in(4) {
                    invent::alter(script, &mut body);
                }
                let body = (!script.once_in(8)).then_some(&body);
                self.world.result(&self.view.setup, body);
            }
            12 | 13 => {
                let how = *script.of(&[Bounce::Refused, Bounce::Unknown]);
                let id = match script.below(8) {
                    0 => format!("{}.{}", self.view.epoch, invent::number(script, 5)),
                    _ if self.view.ids.is_empty() => script.text(),
                    _ => script.of(&self.view.ids).clone(),
                };
                world.bounce(&id, how);
            }
            14 => world.report(&Element::new("announce")),
            15 => {
                if let Some(mut body) = self.view.last.clone() {
                    invent::alter(script, &mut body);
                    world.report(&body);
                }
            }
            16 => {
                if let Some(body) = &self.view.last {
                    world.report(body);
                }
            }
            _ => {
                let body = self.invented(script);
                self.world.report(&body);
                self.view.last = Some(body);
            }
        }
        self.read();
        self.world.settle();
    }

    fn invented(&mut self, script: &mut Script<'_>) -> Element<Incoming> {
        let View { epoch, seq, .. } = &self.view;
        let mut body = Element::new("report").with("epoch", epoch);
        body = match script.below(4) {
            0 => body.with("ack", invent::number(script, *seq)),
            1 => body.with("ack", seq / 2),
            2 => body.with("ack", 0),
            _ => body.with("ack", seq),
        };
        match script.below(8) {
            0 => body = body.with("resume", invent::number(script, self.view.questions)),
            1 | 2 => body = body.with("resume", self.view.questions),
            3 => body.children.push(Element::new("ask")),
            _ => {}
        }
        for _ in 0..script.below(6) {
            let child = match script.below(8) {
                0 if script.once_in(4) => Element::new("bye"),
                0..=3 => Element::new("dropped").with("slots", invent::slots(script)),
                _ => {
                    let number = match script.once_in(8) {
                        true => invent::number(script, self.view.refusals),
                        false => {
                            self.view.refusals += 1;
                            self.view.refusals.to_string()
                        }
                    };
                    let refuse = Element::new("refuse")
                        .with("n", number)
                        .with("seq", invent::number(script, self.view.seq))
                        .with("i", script.below(12));
                    refuse.with_some("reason", script.once_in(2).then_some("missing"))
                }
            };
            body.children.push(child);
        }
        body
    }
}

/// Somebody does something in the room.
pub fn act(script: &mut Script<'_>, world: &mut World, session: &str) {
    let copies = match script.below(8) {
        0 => world.muc.whisper(session),
        1 => world.muc.toggle(session),
        2 => world.muc.kick(session, false),
        3 | 4 => world.muc.away(session),
        5 if script.once_in(8) => world.muc.destroy(),
        _ => world.muc.say(session),
    };
    world.happen(copies);
}
