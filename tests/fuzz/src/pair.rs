//! A room and a replica, both honest, and a wire between them that means ill: it loses, repeats,
//! reorders, alters and invents. Its ends keep their promises to everybody else, and to their users.

use std::collections::VecDeque;

use dmuc_core::{Bounce, Element, Facts, Incoming};

use crate::home::{Home, Said};
use crate::hostile_replica::{act, session};
use crate::invent;
use crate::script::Script;
use crate::sim::{ROOM, Stanza};
use crate::world::{B, C, Down, World, bytes};

/// What goes from B to the room.
#[derive(Clone, Debug)]
enum Up {
    Join { session: String, nick: String },
    Leave { session: String },
    Report { body: Element<Incoming> },
    Result { id: String, body: Option<Element<Incoming>> },
    Refused { id: String },
}

struct Scene {
    world: World,
    home: Home,
    up: VecDeque<Up>,
    /// What has crossed, to be repeated.
    seen: Vec<Down>,
}

/// One input.
pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let mut scene =
        Scene { world: World::new(), home: Home::new(B), up: VecDeque::new(), seen: Vec::new() };
    scene.world.honest_join(&session(0, C), "c0");
    scene.world.honest_join(&session(1, C), "c1");
    for n in 0..3 {
        scene.join(&session(n, B), &format!("b{n}"));
    }
    if !script.once_in(4) {
        scene.flow(100);
    }
    while script.goes_on() {
        scene.step(&mut script);
        scene.world.settle();
        scene.world.look();
    }
    scene.flow(1000);
    scene.world.verdict();
    scene.world.end();
}

impl Scene {
    fn join(&mut self, session: &str, nick: &str) {
        let facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::MUC_X);
        self.home.outgoing(self.world.now, session, &format!("{ROOM}/{nick}"), facts);
        self.up.push_back(Up::Join { session: session.to_owned(), nick: nick.to_owned() });
    }

    fn leave(&mut self, session: &str) {
        let facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::UNAVAILABLE);
        self.home.outgoing(self.world.now, session, &format!("{ROOM}/any"), facts);
        self.up.push_back(Up::Leave { session: session.to_owned() });
    }

    /// The wire does its work for a while.
    fn flow(&mut self, most: usize) {
        for _ in 0..most {
            if self.world.asked {
                self.world.answer(true);
            }
            self.world.settle();
            if !self.arrive_up() && !self.arrive_down() {
                break;
            }
        }
    }

    fn arrive_down(&mut self) -> bool {
        let Some(down) = self.world.down.pop_front() else { return false };
        if self.seen.len() < 64 {
            self.seen.push(down.clone());
        }
        self.receive(down);
        true
    }

    fn receive(&mut self, down: Down) {
        let now = self.world.now;
        match down {
            Down::Plain { to, number } => {
                let Some(Stanza { from, facts, .. }) = self.world.stanza(number).cloned() else {
                    return;
                };
                self.home.incoming(now, &to, &from, facts, &bytes(number));
            }
            Down::Envelope { id, body } => {
                let said = self.home.envelope(now, ROOM, &id, &body);
                self.hear(said, &id);
            }
            Down::Setup { id, body } => {
                let said = self.home.setup(now, ROOM, &body);
                self.hear(said, &id);
            }
        }
    }

    fn hear(&mut self, said: Vec<Said>, id: &str) {
        for said in said {
            self.up.push_back(match said {
                Said::Dmuc { body, .. } => Up::Report { body },
                Said::Left { session, .. } => Up::Leave { session: session.to_string() },
                Said::Refused { id, .. } => Up::Refused { id },
                Said::Result { body } => Up::Result { id: id.to_owned(), body },
            });
        }
    }

    fn arrive_up(&mut self) -> bool {
        let Some(up) = self.up.pop_front() else { return false };
        let world = &mut self.world;
        match up {
            Up::Join { session, nick } => {
                let copies = world.muc.join(&session, &nick);
                world.happen(copies);
            }
            Up::Leave { session } => {
                let copies = world.muc.leave(&session);
                world.happen(copies);
            }
            Up::Report { body } => world.report(&body),
            Up::Result { id, body } => world.result(&id, body.as_ref()),
            Up::Refused { id } => world.bounce(&id, Bounce::Refused),
        }
        true
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let n = script.below(4);
        let (ours, theirs) = (session(n, B), session(n, C));
        match script.below(28) {
            0 | 1 => self.join(&ours, &format!("b{}", script.below(4))),
            2 => self.leave(&ours),
            3 => {
                self.leave(&ours);
                self.home.close_session(self.world.now, &ours);
            }
            4 => self.world.honest_join(&theirs, &format!("c{}", script.below(4))),
            5 => self.world.honest_leave(&theirs),
            6..=8 => act(script, &mut self.world, &ours),
            9 => act(script, &mut self.world, &theirs),
            10 => {
                self.world.pass(u64::from(script.byte()) << script.below(12));
                if self.home.wake.is_some_and(|at| at <= self.world.now) {
                    let said = self.home.tick(self.world.now);
                    self.hear(said, "");
                }
            }
            11 => {
                let said = self.home.reload(self.world.now);
                self.hear(said, "");
            }
            12..=14 => self.flow(1 + script.below(16)),
            15 | 16 => {
                self.arrive_down();
            }
            17 => {
                self.arrive_up();
            }
            _ => self.tamper(script),
        }
    }

    fn tamper(&mut self, script: &mut Script<'_>) {
        let (down, up) = (&mut self.world.down, &mut self.up);
        match script.below(11) {
            10 => {
                let epoch = self.home.replica.status().first().map(|link| link.epoch.clone());
                let id = format!("dmucq-{}", epoch.unwrap_or_default());
                let how = *script.of(&[Bounce::Refused, Bounce::Unknown]);
                let said = self.home.returned(self.world.now, ROOM, &id, how);
                self.hear(said, "");
            }
            0 => {
                // Lost, and the primary's server says so.
                if let Some(Down::Envelope { id, .. }) = down.pop_front() {
                    self.world.bounce(&id, Bounce::Unknown);
                }
            }
            1 => {
                down.pop_front();
            }
            2 if !matches!(up.front(), Some(Up::Join { .. } | Up::Leave { .. })) => {
                up.pop_front();
            }
            3 if down.len() > 1 => {
                let at = script.below(down.len().min(8));
                down.swap(0, at);
            }
            4 if up.len() > 1 => {
                let at = script.below(up.len().min(8));
                up.swap(0, at);
            }
            5 if !self.seen.is_empty() => {
                let again = script.of(&self.seen).clone();
                self.receive(again);
            }
            6 => {
                if let Some(Up::Report { body }) = up.front().cloned() {
                    up.push_front(Up::Report { body });
                }
            }
            7 => {
                if let Some(Down::Envelope { body, .. } | Down::Setup { body, .. }) =
                    down.front_mut()
                {
                    invent::alter(script, body);
                }
            }
            8 => {
                if let Some(Up::Report { body } | Up::Result { body: Some(body), .. }) =
                    up.front_mut()
                {
                    invent::alter(script, body);
                }
            }
            _ => self.world.answer(!script.once_in(4)),
        }
    }
}
