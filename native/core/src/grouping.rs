//! Merging the copies of one event of a room without changing any recipient's order.

/// A stanza and those who get it at this place of the event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// Number of the payload in the call.
    pub payload: u32,
    /// Numbers of the sessions, in the room's order.
    pub to: Vec<usize>,
}

/// Groups copies `(session, payload)`.
///
/// Groups stand in order of first appearance. A copy joins a group of its payload only if that
/// group comes after the last one its recipient is in, else it opens a new one: so a nick change,
/// which sends two stanzas to each in turn, becomes two groups, and no recipient sees anything in
/// another order than the room's.
pub(crate) fn group(copies: &[(usize, u32)]) -> Vec<Group> {
    let sessions = copies.iter().map(|(session, _)| session + 1).max().unwrap_or(0);
    let payloads = copies.iter().map(|(_, payload)| *payload as usize + 1).max().unwrap_or(0);
    // One above the last group of each session; 0 is none.
    let mut last = vec![0usize; sessions];
    let mut of_payload: Vec<Vec<usize>> = vec![Vec::new(); payloads];
    let mut groups: Vec<Group> = Vec::new();
    for &(session, payload) in copies {
        let candidates = &mut of_payload[payload as usize];
        // Candidates ascend; the first that is after the session's last group.
        let at = candidates.partition_point(|group| *group < last[session]);
        let group = match candidates.get(at) {
            Some(group) => *group,
            None => {
                groups.push(Group { payload, to: Vec::new() });
                candidates.push(groups.len() - 1);
                groups.len() - 1
            }
        };
        groups[group].to.push(session);
        last[session] = group + 1;
    }
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_nick_change_becomes_two_groups() {
        let copies: Vec<_> = (0..5).flat_map(|session| [(session, 0), (session, 1)]).collect();
        let groups = group(&copies);
        assert_eq!(
            groups.iter().map(|g| (g.payload, g.to.len())).collect::<Vec<_>>(),
            [(0, 5), (1, 5)]
        );
    }

    #[test]
    fn the_same_stanza_twice_is_not_merged() {
        assert_eq!(group(&[(0, 0), (0, 0)]).len(), 2);
    }

    proptest! {
        #[test]
        fn every_recipient_keeps_the_rooms_order(
            copies in proptest::collection::vec((0usize..6, 0u32..5), 0..60)
        ) {
            let groups = group(&copies);
            for session in 0..6 {
                let sent: Vec<u32> =
                    copies.iter().filter(|(s, _)| *s == session).map(|(_, p)| *p).collect();
                let got: Vec<u32> =
                    groups.iter().filter(|g| g.to.contains(&session)).map(|g| g.payload).collect();
                prop_assert_eq!(sent, got);
            }
        }
    }
}
