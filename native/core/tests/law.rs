//! The law: what a domain delivers to each occupant is what the room sent to that occupant.

mod sim;

use dmuc_core::Counter;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use sim::World;
use sim::step::{self, Step, calm_down};

const DOMAINS: &[&str] = &["b.test", "c.test"];

/// Three users with two sessions each, at each domain; the third has a nick of his own for each.
fn session(n: u8) -> (usize, String) {
    let (home, user, resource) = (n % 2, (n / 2) % 3, (n / 6) % 2);
    (home.into(), format!("u{user}@{}/r{resource}", DOMAINS[usize::from(home)]))
}

/// Without removals by the room.
fn peaceful() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<u8>(), 0u8..7).prop_map(|(s, n)| Step::Join(s, n)),
        2 => any::<u8>().prop_map(Step::Leave),
        1 => any::<u8>().prop_map(Step::Close),
        6 => any::<u8>().prop_map(Step::Say),
        2 => any::<u8>().prop_map(Step::Whisper),
        3 => any::<u8>().prop_map(Step::Away),
        2 => any::<u8>().prop_map(Step::Toggle),
        8 => (0u8..2, 1u8..6).prop_map(|(h, n)| Step::Down(h, n)),
        8 => (0u8..2, 1u8..6).prop_map(|(h, n)| Step::Up(h, n)),
        2 => (1u16..3000).prop_map(Step::Pass),
    ]
}

fn calm() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => peaceful(),
        1 => any::<u8>().prop_map(Step::Kick),
        1 => Just(Step::Destroy),
    ]
}

fn reloading() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => calm(),
        1 => (0u8..2).prop_map(Step::Unload),
        2 => (0u8..2).prop_map(Step::Load),
    ]
}

fn rough() -> impl Strategy<Value = Step> {
    prop_oneof![12 => reloading(), 1 => (0u8..2).prop_map(Step::Cut)]
}

/// The network fails, for longer or shorter.
fn severed(step: impl Strategy<Value = Step>) -> impl Strategy<Value = Step> {
    prop_oneof![
        16 => step,
        1 => (0u8..2).prop_map(Step::Sever),
        2 => (0u8..2).prop_map(Step::Mend),
        1 => (0u8..2).prop_map(Step::Cut),
        1 => (1000u16..40_000).prop_map(Step::Pass),
    ]
}

/// A presence that crosses a kick looks to the replica as if it came after the end of the stay; what
/// it refuses then would be repaired by a primary that is still there. So nobody is kicked here.
fn unloading_primary() -> impl Strategy<Value = Step> {
    prop_oneof![12 => peaceful(), 1 => Just(Step::UnloadPrimary), 2 => Just(Step::LoadPrimary)]
}

/// Many who come and go in rooms that are linked, so that there is much to be replayed.
fn storming() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => reloading(),
        1 => (0u8..2).prop_map(Step::Storm),
        2 => any::<u8>().prop_map(Step::Leave),
        1 => (0u8..2, 20u8..60).prop_map(|(h, n)| Step::Down(h, n)),
        1 => (0u8..2, 20u8..60).prop_map(|(h, n)| Step::Up(h, n)),
    ]
}

fn options() -> Vec<(&'static str, u64)> {
    vec![("ack_every", 3), ("ack_delay", 500), ("retry_min", 1000), ("max_envelope_bytes", 4096)]
}

/// So short a patience that nothing is still waiting when [`World::quiet`] returns.
fn impatient() -> Vec<(&'static str, u64)> {
    [options(), vec![("ack_timeout", 10_000)]].concat()
}

fn run(world: &mut World, steps: &[Step]) {
    world.large = true;
    step::run(world, steps, session);
}

/// Times so short that all of them are over in a while.
fn hasty(hold: u64) -> Vec<(&'static str, u64)> {
    let times = vec![
        ("ack_timeout", 10_000),
        ("hold_time", hold),
        ("ping_interval", 5000),
        ("probe_after", 2000),
    ];
    [options(), times].concat()
}

/// A world in which all this has happened and everything has arrived.
fn live(steps: &[Step], seed: u64, options: &[(&str, u64)]) -> World {
    let mut world = World::new(seed, DOMAINS, options);
    run(&mut world, steps);
    world.quiet();
    world
}

/// The same in a room that is linked with both domains.
fn from_a_link(steps: Vec<Step>) -> Vec<Step> {
    let mut all = vec![Step::Join(0, 0), Step::Join(2, 1), Step::Join(1, 2), Step::Join(3, 3)];
    for _ in 0..4 {
        all.extend([Step::Up(0, 9), Step::Up(1, 9), Step::Down(0, 60), Step::Down(1, 60)]);
    }
    all.extend(steps);
    all
}

/// 256 cases each, or `PROPTEST_CASES`; a failing case is kept beside this file.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// Nothing fails: every occupant gets exactly what the room sent, whatever the interleaving.
    #[test]
    fn on_a_sound_network(steps in prop::collection::vec(calm(), 0..120), seed: u64) {
        let world = live(&steps, seed, &options());
        prop_assert_eq!(world.verdict(), Ok(()));
        prop_assert_eq!(world.failed, 0);
        prop_assert_eq!(world.shared.counters.get(Counter::ComposeMismatches), 0);
        for home in &world.homes {
            prop_assert_eq!(home.evicted.len(), 0);
        }
    }

    /// The replica's module comes and goes: still exactly that, and nobody is told out.
    #[test]
    fn with_replicas_unloaded_and_loaded(
        steps in prop::collection::vec(reloading(), 0..120), seed: u64
    ) {
        let world = live(&steps, seed, &options());
        prop_assert_eq!(world.verdict(), Ok(()));
        prop_assert_eq!(world.failed, 0);
    }

    /// There is too little room for slots, at both ends or at the replica alone: what is missing comes
    /// in full, and never anything else in its place.
    #[test]
    fn with_little_room_for_slots(
        steps in prop::collection::vec(storming(), 0..120), seed: u64,
        slots in 0u64..40, messages in 0u64..4, total in 0u64..40
    ) {
        let room = vec![
            ("max_slots", slots),
            ("max_slot_messages", messages),
            // The stanzas of the simulation have eight bytes each.
            ("max_slot_bytes_total", 8 * total),
        ];
        let world = live(&from_a_link(steps), seed, &[options(), room].concat());
        prop_assert_eq!(world.verdict(), Ok(()));
        prop_assert_eq!(world.failed, 0);
        prop_assert_eq!(world.shared.counters.get(Counter::ComposeMismatches), 0);
    }

    /// Storms in which streams break.
    #[test]
    fn with_storms_over_broken_streams(
        steps in prop::collection::vec(
            prop_oneof![12 => storming(), 1 => (0u8..2).prop_map(Step::Cut)], 0..120
        ), seed: u64, total in 0u64..40
    ) {
        let room = vec![("max_slot_bytes_total", 8 * total)];
        let world = live(&from_a_link(steps), seed, &[impatient(), room].concat());
        prop_assert_eq!(world.verdict(), Ok(()));
    }

    /// The primary's module comes and goes while all replicas stay.
    #[test]
    fn with_the_primary_unloaded_and_loaded(
        steps in prop::collection::vec(unloading_primary(), 0..120), seed: u64
    ) {
        let world = live(&steps, seed, &options());
        prop_assert_eq!(world.verdict(), Ok(()));
        prop_assert_eq!(world.failed, 0);
    }

    /// The network fails and comes back: whoever is in the room has everything and is known to be in,
    /// and all others know that they are out.
    #[test]
    fn over_networks_that_fail(
        steps in prop::collection::vec(severed(peaceful()), 0..120), seed: u64, hold in 5000u64..60_000
    ) {
        let mut world = World::new(seed, DOMAINS, &hasty(hold));
        run(&mut world, &from_a_link(steps));
        calm_down(&mut world);
        prop_assert_eq!(world.verdict(), Ok(()));
        prop_assert_eq!(world.haunted(), Vec::<String>::new());
    }

    /// The same with removals by the room. A leave that crosses one and is lost leaves no trace, so that
    /// there may be ghosts, as in plain MUC; but nobody is deaf.
    #[test]
    fn over_networks_that_fail_with_removals(
        steps in prop::collection::vec(severed(calm()), 0..120), seed: u64, hold in 5000u64..60_000
    ) {
        let mut world = World::new(seed, DOMAINS, &hasty(hold));
        run(&mut world, &from_a_link(steps));
        calm_down(&mut world);
        let deaf: Vec<String> =
            world.haunted().into_iter().filter(|who| who.ends_with("inside true")).collect();
        prop_assert_eq!(deaf, Vec::<String>::new());
        let verdict = world.verdict();
        let ghost = |why: &String| why.ends_with("still in the room");
        prop_assert!(verdict.is_ok() || verdict.as_ref().is_err_and(ghost), "{verdict:?}");
    }

    /// Cuts that are shorter than the hold time cost nobody anything that went in the link.
    #[test]
    fn over_cuts_shorter_than_the_hold_time(
        steps in prop::collection::vec(severed(peaceful()), 0..120), seed: u64
    ) {
        let mut world = World::new(seed, DOMAINS, &hasty(3_600_000));
        run(&mut world, &from_a_link(steps));
        calm_down(&mut world);
        prop_assert_eq!(world.verdict(), Ok(()));
        prop_assert_eq!(world.haunted(), Vec::<String>::new());
        prop_assert_eq!(world.failed_alive, 0);
    }

    /// Streams break: whoever missed something is out of the room, all others have everything.
    #[test]
    fn over_broken_streams(steps in prop::collection::vec(rough(), 0..120), seed: u64) {
        let world = live(&steps, seed, &impatient());
        prop_assert_eq!(world.verdict(), Ok(()));
    }
}

#[test]
fn a_link_carries_a_broadcast_once() {
    let mut world = World::new(1, DOMAINS, &options());
    for n in 0..3 {
        world.homes[0].join(world.now, &format!("u{n}@b.test/r"), &format!("n{n}"));
    }
    world.quiet();
    let before = world.homes[0].shared.counters.get(Counter::EnvelopesReceived);
    for _ in 0..20 {
        let copies = world.muc.say("u0@b.test/r");
        world.happen(copies);
    }
    assert_eq!(world.homes[0].down.len(), 20, "one stanza for each message");
    world.quiet();
    let after = world.homes[0].shared.counters.get(Counter::EnvelopesReceived);
    assert!((20..=22).contains(&(after - before)), "{}", after - before);
    assert_eq!(world.verdict(), Ok(()));
}

/// Defects that the law has to find.
#[cfg(feature = "planted-faults")]
mod planted {
    use dmuc_core::planted::{Defect, plant};
    use proptest::test_runner::{TestCaseError, TestError, TestRunner};

    use super::*;

    /// How many cases it may take.
    const CASES: u32 = 4000;

    fn is_found(defect: Defect) {
        let config = ProptestConfig { cases: CASES, failure_persistence: None, ..config() };
        let mut runner = TestRunner::new(config);
        let steps = prop::collection::vec(severed(peaceful()), 0..120);
        let outcome = runner.run(&(steps, any::<u64>()), |(steps, seed)| {
            plant(Some(defect));
            let mut world = World::new(seed, DOMAINS, &hasty(3_600_000));
            run(&mut world, &from_a_link(steps));
            calm_down(&mut world);
            let (verdict, haunted) = (world.verdict(), world.haunted());
            plant(None);
            match (verdict, haunted.first()) {
                (Ok(()), None) if world.failed_alive == 0 => Ok(()),
                (verdict, haunted) => Err(TestCaseError::fail(format!(
                    "{verdict:?} {haunted:?} {}",
                    world.failed_alive
                ))),
            }
        });
        match outcome {
            Err(TestError::Fail(why, (steps, _))) => {
                println!("{defect:?}: found with {} steps: {why}", steps.len());
            }
            other => panic!("{defect:?} was not found: {other:?}"),
        }
    }

    #[test]
    fn an_acknowledgement_that_is_off_by_one_is_found() {
        is_found(Defect::Acknowledgement);
    }

    #[test]
    fn a_window_that_is_not_checked_is_found() {
        is_found(Defect::Window);
    }

    /// The network of the law brings nothing out of order; a stream that is given up may.
    #[test]
    fn an_epoch_that_is_ignored_is_found() {
        let verdict = |defect| {
            plant(defect);
            let mut world = World::new(0, DOMAINS, &options());
            run(&mut world, &from_a_link(vec![Step::Say(0)]));
            let old = world.homes[0].down.front().cloned().expect("an envelope");
            world.quiet();
            run(&mut world, &[Step::Unload(0), Step::Load(0)]);
            world.settle();
            world.homes[0].down.push_back(old);
            world.quiet();
            plant(None);
            world.verdict()
        };
        assert_eq!(verdict(None), Ok(()));
        let why = verdict(Some(Defect::Epoch)).expect_err("an old envelope is delivered again");
        println!("Epoch: found: {why}");
    }
}

#[test]
fn who_enters_while_the_module_is_off_is_not_disturbed_when_it_is_loaded() {
    use Step::*;
    let steps = [
        Join(0, 0),
        Join(1, 0),
        Join(50, 1),
        Up(0, 2),
        Leave(0),
        Unload(0),
        // The room lets him in over a link that is no more.
        Join(188, 0),
        Down(0, 1),
        Load(0),
        Down(0, 4),
        Up(0, 3),
        Say(32),
        Unload(0),
        Load(0),
        Leave(0),
        Join(0, 0),
    ];
    let world = live(&steps, 0, &options());
    assert_eq!(world.verdict(), Ok(()));
}
