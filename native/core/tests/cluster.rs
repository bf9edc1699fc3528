//! A user domain of several nodes, each with a replica of its own that knows the same records.

mod sim;

use dmuc_core::{Action, Facts, Millis, Replica, Shared};
use sim::scene::{B, linked, user};
use sim::{ROOM, World};

const JOIN: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::MUC_X);
const YES: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::CODE_110);
const LEAVE: Facts = Facts(Facts::PRESENCE | Facts::NICK | Facts::UNAVAILABLE);

fn replica(world: &mut World) -> &mut Replica {
    world.homes[0].replica.as_mut().expect("loaded")
}

fn departures(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Depart { .. })).count()
}

/// What another node knows of a session after it has sent and got these presences.
fn elsewhere(session: &str, presences: &[(bool, Facts)]) -> String {
    let mut other = Replica::new(B, 9, Shared::new(Default::default()));
    for (out, facts) in presences {
        let nick = format!("{ROOM}/n");
        match out {
            true => other.outgoing(Millis(0), session, &nick, *facts),
            false => other.incoming(Millis(0), session, &nick, *facts),
        };
    }
    other.consent(ROOM, session).expect("a record")
}

#[test]
fn the_room_is_told_of_a_session_that_went_with_its_node() {
    let mut world = linked(4, &[]);
    let (now, lost) = (world.now, user(1));
    let told = replica(&mut world).session_lost(now, ROOM, &lost);
    assert!(matches!(
        &told.list[..],
        [Action::ConsentChanged { .. }, Action::Depart { session, nick, .. }]
            if **session == *lost && nick == "n1"
    ));
    assert_eq!(replica(&mut world).consent(ROOM, &lost), None);
    let again = replica(&mut world).session_lost(now, ROOM, &lost);
    assert!(again.list.is_empty(), "once");

    // That leave got lost.
    let mut later = now;
    let repeated = (0..60).any(|_| {
        later = later + 1000;
        departures(&replica(&mut world).tick(later).list) == 1
    });
    assert!(repeated, "the leave is repeated");
}

#[test]
fn who_is_back_by_another_node_is_not_told_to_leave() {
    // How often three sessions leave within two hours, of which one has this record by then.
    let leaves = |record: Option<String>| {
        let mut world = linked(3, &[("ping_interval", 10_000), ("hold_time", 20_000)]);
        let mut now = world.now;
        let replica = replica(&mut world);
        // The primary is silent, and the link is given up.
        let given_up = (0..120).any(|_| {
            now = now + 1000;
            departures(&replica.tick(now).list) == 3
        });
        assert!(given_up);
        if let Some(record) = record {
            assert!(replica.import_consent(now, ROOM, &user(0), Some(&record)));
        }
        (0..7200)
            .map(|_| {
                now = now + 1000;
                departures(&replica.tick(now).list)
            })
            .sum::<usize>()
    };
    let all = leaves(None);
    let each = all / 3;
    assert!(each >= 5, "{all}");
    let inside = elsewhere(&user(0), &[(true, JOIN), (false, YES)]);
    assert_eq!(leaves(Some(inside)), 2 * each);
    // Not before its question can be answered.
    let asking = elsewhere(&user(0), &[(true, JOIN)]);
    let asks = leaves(Some(asking));
    assert!(2 * each < asks && asks < all, "{asks} of {all}");
    let left = elsewhere(&user(0), &[(true, JOIN), (false, YES), (true, LEAVE)]);
    assert!(leaves(Some(left)) >= all);
}
