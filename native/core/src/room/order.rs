//! Which operations of an envelope come first, where no recipient can tell.

use super::link::Delivery;
use crate::Payload;
use crate::ops::Op;
use crate::slots::block;

/// How far an operation is brought forward: a room casts one event once for each class.
const FARTHEST: usize = 8;

/// Lets what is for one session come before what is for several others, as long as everybody gets his
/// own in the order of the room.
///
/// Somebody who enters waits for his own presence, and a replica would first show him to everyone else
/// who is in the room: between two that enter one after the other lies the time of that.
pub(super) fn singles_first(ops: &mut [Op<Payload>], deliveries: &mut [Delivery]) {
    let mut delivery = 0;
    for from in 0..ops.len() {
        if !delivers(&ops[from]) {
            continue;
        }
        let single = deliveries.get(delivery).filter(|single| single.to.len() == 1);
        if let Some(index) = single.and_then(|single| single.to.min()) {
            let ahead = (1..=FARTHEST.min(from).min(delivery))
                .take_while(|back| {
                    let to = &deliveries[delivery - back].to;
                    to.len() > 1 && !to.contains(index) && may_swap(&ops[from - back], &ops[from])
                })
                .count();
            ops[from - ahead..=from].rotate_right(1);
            deliveries[delivery - ahead..=delivery].rotate_right(1);
        }
        delivery += 1;
    }
}

fn delivers(op: &Op<Payload>) -> bool {
    matches!(op, Op::Cast { .. } | Op::Only { .. } | Op::Replay { .. })
}

/// Whether `second`, which has no recipient in common with `first`, can come before it: numbers of slots
/// ascend in their block, and what is replayed is there.
fn may_swap(first: &Op<Payload>, second: &Op<Payload>) -> bool {
    if !delivers(first) {
        return false;
    }
    let given = |op: &Op<Payload>| match op {
        Op::Cast { slot, .. } | Op::Only { slot, .. } => *slot,
        _ => None,
    };
    match (given(first), given(second), second) {
        (Some(first), Some(second), _) => block(first) != block(second),
        (Some(first), None, Op::Replay { slots, .. }) => {
            slots.ranges().all(|(least, most)| !(least..=most).contains(&first))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use roaring::RoaringBitmap;

    use super::*;
    use crate::Facts;
    use crate::audience::Scope;

    /// Payloads have the position of their operation as their id.
    fn ordered(ops: Vec<(Op<u8>, &[u32])>) -> Vec<u64> {
        let payload = |id: usize| Payload::new(id as u64, Vec::new(), Facts(0), "", 0);
        let (mut written, mut deliveries) = (Vec::new(), Vec::new());
        for (id, (op, to)) in ops.into_iter().enumerate() {
            written.push(match op {
                Op::Cast { scope, except, number, slot, .. } => {
                    Op::Cast { scope, except, number, slot, payload: payload(id) }
                }
                Op::Only { indexes, slot, .. } => Op::Only { indexes, slot, payload: payload(id) },
                Op::Replay { indexes, slots } => Op::Replay { indexes, slots },
                Op::Leave { index } => Op::Leave { index },
                _ => panic!("not in these tests"),
            });
            if !to.is_empty() {
                let to = to.iter().copied().collect();
                deliveries.push(Delivery { payloads: vec![payload(id)], to });
            }
        }
        singles_first(&mut written, &mut deliveries);
        let order: Vec<u64> = deliveries.iter().map(|d| d.payloads[0].id()).collect();
        let payloads = written.iter().filter_map(|op| match op {
            Op::Cast { payload, .. } | Op::Only { payload, .. } => Some(payload.id()),
            _ => None,
        });
        let others: Vec<u64> = payloads.collect();
        let is_same = others.iter().all(|id| order.contains(id))
            && order.iter().filter(|id| others.contains(id)).eq(others.iter());
        assert!(is_same, "operations {others:?} are not in the order of deliveries {order:?}");
        order
    }

    fn cast(slot: Option<u64>) -> Op<u8> {
        Op::Cast { scope: Scope::All, except: RoaringBitmap::new(), number: 1, slot, payload: 0 }
    }

    fn only(to: u32, slot: Option<u64>) -> Op<u8> {
        Op::Only { indexes: [to].into_iter().collect(), slot, payload: 0 }
    }

    fn replay(to: u32, slot: u64) -> Op<u8> {
        Op::Replay {
            indexes: [to].into_iter().collect(),
            slots: crate::slots::SlotList::from_iter([slot]),
        }
    }

    const OTHERS: &[u32] = &[0, 1, 2];

    #[test]
    fn who_enters_gets_his_own_before_others_see_him() {
        let event = vec![
            (replay(9, 1), &[9][..]),
            (cast(Some(7)), OTHERS),
            (cast(None), OTHERS),
            (only(9, None), &[9]),
            (replay(9, 2), &[9]),
        ];
        assert_eq!(ordered(event), [0, 3, 4, 1, 2]);
    }

    #[test]
    fn everybody_gets_his_own_in_order() {
        let event = vec![(cast(None), &[0, 1, 9][..]), (only(9, None), &[9])];
        assert_eq!(ordered(event), [0, 1]);
        let event = vec![(only(8, None), &[8][..]), (only(9, None), &[9])];
        assert_eq!(ordered(event), [0, 1], "nobody waits long");
    }

    #[test]
    fn slots_keep_their_order_and_are_there_when_they_are_named() {
        assert_eq!(ordered(vec![(cast(Some(7)), OTHERS), (only(9, Some(8)), &[9])]), [0, 1]);
        assert_eq!(ordered(vec![(cast(Some(7)), OTHERS), (replay(9, 7), &[9])]), [0, 1]);
        let other = (1 << crate::slots::BLOCK_BITS) + 1;
        assert_eq!(ordered(vec![(cast(Some(7)), OTHERS), (only(9, Some(other)), &[9])]), [1, 0]);
    }

    #[test]
    fn nothing_passes_a_change_of_the_audience() {
        let event =
            vec![(cast(None), OTHERS), (Op::Leave { index: 1 }, &[][..]), (only(9, None), &[9])];
        assert_eq!(ordered(event), [0, 2]);
    }
}
