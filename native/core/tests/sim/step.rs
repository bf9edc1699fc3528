//! What may happen in a world, for properties of it.

use super::World;

/// One thing that happens. Numbers pick from what there is.
#[derive(Clone, Debug)]
pub enum Step {
    Join(u8, u8),
    /// Every session of a domain that is not in the room, one after the other.
    Storm(u8),
    Leave(u8),
    Close(u8),
    Say(u8),
    Whisper(u8),
    Away(u8),
    Toggle(u8),
    Kick(u8),
    Destroy,
    Down(u8, u8),
    Up(u8, u8),
    Unload(u8),
    Load(u8),
    /// The module is gone without a word.
    Die(u8),
    /// The server of a domain is killed and starts again; its stream breaks, or is there again at once.
    Crash(u8, bool),
    UnloadPrimary,
    LoadPrimary,
    Cut(u8),
    Sever(u8),
    Mend(u8),
    Pass(u16),
    /// So many casts arrive from other replicas, each overtaking so many.
    Aside(u8, u8, u8),
    /// The oldest of those is lost.
    Lose(u8),
}

/// Does all that. `session` gives the home and the JID of a session's number.
pub fn run(world: &mut World, steps: &[Step], session: impl Fn(u8) -> (usize, String)) {
    for step in steps {
        match *step {
            Step::Join(s, nick) => {
                let (home, name) = session(s);
                world.homes[home].join(world.now, &name, &format!("n{nick}"));
            }
            Step::Storm(home) => {
                for s in (0..12).filter(|s| s % 2 == home) {
                    let (home, name) = session(s);
                    if !world.muc.sessions().contains(&name) {
                        world.homes[home].join(world.now, &name, &format!("s{s}"));
                    }
                }
            }
            Step::Leave(s) => {
                let (home, name) = session(s);
                if world.homes[home].received.contains_key(&name) {
                    world.homes[home].leave(world.now, &name);
                }
            }
            Step::Close(s) => {
                let (home, name) = session(s);
                world.homes[home].close(world.now, &name);
            }
            Step::Say(s) => {
                let copies = world.muc.say(&session(s).1);
                world.happen(copies);
            }
            Step::Whisper(s) => {
                let copies = world.muc.whisper(&session(s).1);
                world.happen(copies);
            }
            Step::Away(s) => {
                let copies = world.muc.away(&session(s).1);
                world.happen(copies);
            }
            Step::Toggle(s) => {
                let copies = world.muc.toggle(&session(s).1);
                world.happen(copies);
            }
            Step::Kick(s) => {
                let copies = world.muc.kick(&session(s).1, false);
                world.happen(copies);
            }
            Step::Destroy => {
                let copies = world.muc.destroy();
                world.happen(copies);
            }
            Step::Down(home, n) => {
                for _ in 0..n {
                    world.arrive_down(home.into());
                }
            }
            Step::Up(home, n) => {
                for _ in 0..n {
                    world.arrive_up(home.into());
                }
            }
            Step::Aside(home, n, over) => {
                for _ in 0..n {
                    world.arrive_aside(home.into(), over.into());
                }
            }
            Step::Lose(home) => {
                world.homes[usize::from(home)].aside.pop_front();
            }
            Step::Unload(home) => world.homes[usize::from(home)].unload(world.now),
            Step::Load(home) => world.homes[usize::from(home)].load(world.now),
            Step::Die(home) => world.homes[usize::from(home)].die(),
            Step::Crash(home, breaks) => world.crash(home.into(), breaks),
            Step::UnloadPrimary => world.unload_primary(),
            Step::LoadPrimary => world.load_primary(),
            Step::Cut(home) => world.cut(home.into()),
            Step::Sever(home) => world.sever(home.into()),
            Step::Mend(home) => world.mend(home.into()),
            Step::Pass(ms) => world.pass(ms.into()),
        }
    }
}

/// The network is whole again, and everything has been repeated that will be.
pub fn calm_down(world: &mut World) {
    for home in 0..world.homes.len() {
        world.mend(home);
    }
    for _ in 0..8 {
        world.quiet();
    }
}
