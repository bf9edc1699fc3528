//! Room trees on six servers of both kinds: a room at one, occupants at all, replicas that pass casts on.

mod barriers;
mod broken;
mod fanout;
mod hostile;
mod wood;

use anyhow::Result;
use dmuc_testkit::Kind;

use self::wood::Wood;
use crate::faults::cases;
use crate::faults::town::Setup;
use crate::oracle::compare_in_a_tree;
use crate::runner::Suite;
use crate::scene::Pairing;
use crate::transparency::GROUPS;

/// Pairings of the scripts of `transparency`, and the kind of the server that passes on.
const SCRIPTED: [(Pairing, Kind); 2] = [
    (Pairing { primary: Kind::Ejabberd, replica: Kind::Ejabberd }, Kind::Prosody),
    (Pairing { primary: Kind::Prosody, replica: Kind::Prosody }, Kind::Ejabberd),
];

pub fn suite() -> Suite {
    let mut suite = Suite::new("trees");
    for kind in [Kind::Ejabberd, Kind::Prosody] {
        suite = suite
            .case(format!("{kind} whole"), move || whole(kind))
            .case(format!("{kind} broken"), move || broken(kind));
    }
    for (pairing, third) in SCRIPTED {
        let setup = Setup { tree: true, ..Setup::QUICK };
        suite = suite.long_case(format!("{pairing} faults"), cases::LIMIT, move || {
            cases::run(pairing, setup)
        });
        for (group, scripts) in GROUPS {
            suite = suite.case(format!("{pairing} {group}"), move || async move {
                compare_in_a_tree(pairing, third, group, &scripts.concat()).await
            });
        }
    }
    suite
}

async fn whole(kind: Kind) -> Result<()> {
    let wood = Wood::plant("trees-whole", kind).await?;
    let outcome = async {
        fanout::play(&wood).await?;
        barriers::play(&wood).await?;
        hostile::play(&wood).await
    };
    let outcome = outcome.await;
    wood.lab.finish(outcome).await
}

async fn broken(kind: Kind) -> Result<()> {
    let wood = Wood::plant("trees-broken", kind).await?;
    let outcome = broken::play(&wood).await;
    wood.lab.finish(outcome).await
}
