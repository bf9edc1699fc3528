//! Room trees on six servers of both kinds: a room at one, occupants at all, replicas that pass casts on.

mod barriers;
mod broken;
mod fanout;
mod hostile;
mod owner;
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

/// Pairings of the scripts of `transparency`, and the kind of the server that passes on. Each group of scripts
/// is played in one of them, and in both if its name is asked for by `$DMUC_CASE`.
const SCRIPTED: [(Pairing, Kind); 2] = [
    (Pairing { primary: Kind::Ejabberd, replica: Kind::Ejabberd }, Kind::Prosody),
    (Pairing { primary: Kind::Prosody, replica: Kind::Prosody }, Kind::Ejabberd),
];

pub fn suite() -> Suite {
    let mut suite = Suite::new("trees");
    for kind in [Kind::Ejabberd, Kind::Prosody] {
        suite = suite
            .case(format!("{kind} whole"), move || whole(kind))
            .case(format!("{kind} broken"), move || broken(kind))
            .case(format!("{kind} owner"), move || owner(kind));
    }
    let all = std::env::var_os("DMUC_CASE").is_some();
    for (at, (pairing, third)) in SCRIPTED.into_iter().enumerate() {
        let setup = Setup { tree: true, ..Setup::QUICK };
        if all || at == 0 {
            suite = suite.long_case(format!("{pairing} faults"), cases::LIMIT, move || {
                cases::run(pairing, setup)
            });
        }
        let groups = GROUPS.iter().enumerate().filter(|(n, _)| all || n % SCRIPTED.len() == at);
        for (_, (group, scripts)) in groups {
            suite = suite.case(format!("{pairing} {group}"), move || async move {
                compare_in_a_tree(pairing, third, group, &scripts.concat()).await
            });
        }
    }
    suite
}

async fn whole(kind: Kind) -> Result<()> {
    let wood = Wood::plant("trees-whole", kind, 1).await?;
    let outcome = async {
        fanout::play(&wood).await?;
        barriers::play(&wood).await?;
        hostile::play(&wood).await
    };
    let outcome = outcome.await;
    wood.lab.finish(outcome).await
}

async fn broken(kind: Kind) -> Result<()> {
    let wood = Wood::plant("trees-broken", kind, 1).await?;
    let outcome = broken::play(&wood).await;
    wood.lab.finish(outcome).await
}

async fn owner(kind: Kind) -> Result<()> {
    let wood = Wood::plant("trees-owner", kind, 3).await?;
    let outcome = owner::play(&wood).await;
    wood.lab.finish(outcome).await
}
