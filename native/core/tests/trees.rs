//! Room trees in whole: a room and its replicas, of which some pass casts on to others. What each
//! occupant gets is what plain MUC would have sent (`docs/protocol.md`, section 8).

mod sim;

use dmuc_core::Counter;
use proptest::prelude::*;
use sim::World;
use sim::step::{self, Step, calm_down};
use sim::wood::{fill, full, one_of_four, session, wood};

fn calm() -> impl Strategy<Value = Step> {
    let home = 0u8..6;
    prop_oneof![
        3 => (any::<u8>(), 0u8..12).prop_map(|(s, n)| Step::Join(s, n)),
        1 => any::<u8>().prop_map(Step::Leave),
        8 => any::<u8>().prop_map(Step::Say),
        2 => any::<u8>().prop_map(Step::Whisper),
        5 => any::<u8>().prop_map(Step::Away),
        2 => any::<u8>().prop_map(Step::Toggle),
        8 => (home.clone(), 1u8..6).prop_map(|(h, n)| Step::Down(h, n)),
        6 => (home.clone(), 1u8..6).prop_map(|(h, n)| Step::Up(h, n)),
        8 => (home.clone(), 1u8..6, 0u8..3).prop_map(|(h, n, m)| Step::Aside(h, n, m)),
        1 => home.prop_map(Step::Lose),
        2 => (1u16..3000).prop_map(Step::Pass),
    ]
}

fn removing() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => calm(),
        1 => any::<u8>().prop_map(Step::Kick),
        1 => any::<u8>().prop_map(Step::Close),
    ]
}

/// A presence that crosses a kick looks to the replica as if it came after the end of the stay: one that is
/// unloaded in between knows nothing of it any more, with trees or without. So nobody is kicked here.
fn reloading() -> impl Strategy<Value = Step> {
    prop_oneof![
        16 => calm(),
        1 => (0u8..6).prop_map(Step::Unload),
        2 => (0u8..6).prop_map(Step::Load),
    ]
}

fn rough() -> impl Strategy<Value = Step> {
    prop_oneof![14 => reloading(), 1 => (0u8..6).prop_map(Step::Cut)]
}

/// Servers are killed, and modules are gone without a word.
fn crashing() -> impl Strategy<Value = Step> {
    prop_oneof![
        28 => calm(),
        1 => (0u8..6, any::<bool>()).prop_map(|(h, breaks)| Step::Crash(h, breaks)),
        1 => (0u8..6).prop_map(Step::Die),
        2 => (0u8..6).prop_map(Step::Load),
        1 => (0u8..6).prop_map(Step::Cut),
        1 => (1000u16..40_000).prop_map(Step::Pass),
    ]
}

fn severed() -> impl Strategy<Value = Step> {
    prop_oneof![
        18 => calm(),
        1 => (0u8..6).prop_map(Step::Sever),
        2 => (0u8..6).prop_map(Step::Mend),
        1 => (0u8..6).prop_map(Step::Cut),
        1 => (1000u16..40_000).prop_map(Step::Pass),
    ]
}

fn run(world: &mut World, steps: &[Step]) {
    step::run(world, steps, session);
}

/// Times so short that all of them are over in a while.
fn hasty(hold: u64) -> Vec<(&'static str, u64)> {
    let wait = [("ack_timeout", 10_000), ("hold_time", hold)];
    [wait, [("ping_interval", 5000), ("probe_after", 2000)]].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Nothing fails but what is passed on, which is lost and comes in any order: every occupant gets
    /// exactly what the room sent.
    #[test]
    fn on_a_sound_network(steps in prop::collection::vec(removing(), 0..160), seed: u64) {
        let mut world = full(seed, &[]);
        run(&mut world, &steps);
        world.quiet();
        prop_assert_eq!(world.verdict(), Ok(()));
        prop_assert_eq!(world.failed_alive, 0);
        prop_assert_eq!(world.shared.counters.get(Counter::ComposeMismatches), 0);
        for home in &world.homes {
            prop_assert_eq!(home.evicted.len(), 0);
        }
    }

    /// The modules of replicas come and go.
    #[test]
    fn with_replicas_unloaded_and_loaded(
        steps in prop::collection::vec(reloading(), 0..160), seed: u64
    ) {
        let mut world = full(seed, &[]);
        run(&mut world, &steps);
        world.quiet();
        prop_assert_eq!(world.verdict(), Ok(()));
        prop_assert_eq!(world.failed_alive, 0);
    }

    /// Streams between the room and replicas break, those between replicas do not or lose by themselves.
    #[test]
    fn over_broken_streams(steps in prop::collection::vec(rough(), 0..160), seed: u64) {
        let mut world = full(seed, &[("ack_timeout", 10_000)]);
        run(&mut world, &steps);
        world.quiet();
        prop_assert_eq!(world.verdict(), Ok(()));
    }

    /// The same for cuts that are shorter than the hold time: nobody has to leave.
    #[test]
    fn over_cuts_shorter_than_the_hold_time(
        steps in prop::collection::vec(severed(), 0..160), seed: u64
    ) {
        let mut world = full(seed, &hasty(3_600_000));
        run(&mut world, &steps);
        calm_down(&mut world);
        prop_assert_eq!(world.verdict(), Ok(()));
        prop_assert_eq!(world.haunted(), Vec::<String>::new());
        prop_assert_eq!(world.failed_alive, 0);
    }

    /// And for longer ones.
    #[test]
    fn over_networks_that_fail(
        steps in prop::collection::vec(severed(), 0..160), seed: u64, hold in 5000u64..60_000
    ) {
        let mut world = full(seed, &hasty(hold));
        run(&mut world, &steps);
        calm_down(&mut world);
        prop_assert_eq!(world.verdict(), Ok(()));
        prop_assert_eq!(world.haunted(), Vec::<String>::new());
    }

    /// Servers of replicas and their modules are killed, with four sessions each of which two are there at
    /// first: who was in the room does not come back.
    #[test]
    fn with_servers_that_crash(
        steps in prop::collection::vec(crashing(), 0..160), seed: u64, hold in 5000u64..60_000
    ) {
        let mut world = full(seed, &hasty(hold));
        step::run(&mut world, &steps, one_of_four);
        calm_down(&mut world);
        prop_assert_eq!(world.verdict(), Ok(()));
        prop_assert_eq!(world.haunted(), Vec::<String>::new());
    }

    /// The room makes new keys all the time, while links are held and servers are killed.
    #[test]
    fn with_new_keys(
        steps in prop::collection::vec(prop_oneof![crashing(), severed()], 0..160), seed: u64,
        casts in 1u64..30, after in 20_000u64..100_000
    ) {
        let keys = [("tree_key_casts", casts), ("tree_key_age", after)];
        let mut world = wood(seed, &[&hasty(60_000)[..], &keys].concat());
        fill(&mut world);
        step::run(&mut world, &steps, one_of_four);
        calm_down(&mut world);
        prop_assert_eq!(world.verdict(), Ok(()));
        prop_assert_eq!(world.haunted(), Vec::<String>::new());
    }

    /// The same while nothing else fails: everybody gets exactly what the room has sent.
    #[test]
    fn with_new_keys_on_a_sound_network(
        steps in prop::collection::vec(removing(), 0..160), seed: u64, casts in 1u64..30
    ) {
        let mut world = wood(seed, &[("tree_key_casts", casts)]);
        fill(&mut world);
        run(&mut world, &steps);
        world.quiet();
        prop_assert_eq!(world.verdict(), Ok(()));
        prop_assert_eq!(world.failed_alive, 0);
        prop_assert_eq!(world.shared.counters.get(Counter::LinksSplit), 0);
        for home in &world.homes {
            prop_assert_eq!(home.evicted.len(), 0);
            prop_assert_eq!(home.shared.counters.get(Counter::Malformed), 0);
        }
    }

    /// Relays alter, invent, withhold, reorder and repeat what they are to pass on.
    #[test]
    fn with_hostile_relays(
        steps in prop::collection::vec(removing(), 0..160), seed: u64,
        hostile in prop::collection::btree_set(0usize..6, 1..4)
    ) {
        let mut world = full(seed, &[]);
        for home in hostile {
            world.homes[home].is_hostile = true;
        }
        run(&mut world, &steps);
        world.quiet();
        prop_assert_eq!(world.verdict(), Ok(()));
        prop_assert_eq!(world.failed_alive, 0);
        for home in &world.homes {
            prop_assert_eq!(home.evicted.len(), 0);
        }
    }
}

/// Each a walk that a rule was missing for, when it was found.
fn what_others_pass_on_late(steps: &[Step]) -> Result<(), String> {
    let mut world = full(0, &hasty(5000));
    run(&mut world, steps);
    calm_down(&mut world);
    world.verdict()
}

#[test]
fn what_others_pass_on_late_does_not_come_after_the_end_of_a_stay() {
    let steps = [
        Step::Join(0, 0),
        Step::Away(27),
        Step::Toggle(56),
        Step::Cut(2),
        Step::Join(86, 0),
        Step::Pass(26_039),
    ];
    assert_eq!(what_others_pass_on_late(&steps), Ok(()));
}

#[test]
fn what_others_pass_on_late_does_not_come_into_the_next_stay() {
    let steps = [
        Step::Away(0),
        Step::Say(0),
        Step::Down(0, 3),
        Step::Pass(10_000),
        Step::Say(0),
        Step::Pass(7142),
        Step::Cut(2),
        Step::Join(176, 0),
    ];
    assert_eq!(what_others_pass_on_late(&steps), Ok(()));
}

#[test]
fn what_others_pass_on_late_does_not_come_after_an_error_of_the_room() {
    let steps = [
        Step::Sever(3),
        Step::Say(0),
        Step::Pass(2000),
        Step::Mend(3),
        Step::Pass(19_398),
        Step::Sever(0),
        Step::Cut(3),
        Step::Join(63, 0),
    ];
    assert_eq!(what_others_pass_on_late(&steps), Ok(()));
}
