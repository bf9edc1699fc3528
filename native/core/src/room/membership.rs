//! Which links lie in the room stream (`docs/protocol.md`, section 8.7).

use super::Room;
use super::compose::Composer;
use super::domain::State;
use super::limb::{Limb, lock};
use super::trees::Trees;
use crate::tree::wire::TreeOp;
use crate::tree::{LinkKey, Node};
use crate::{Action, Millis};

impl Room {
    /// A link that may lie in the stream does from here on, and one that has left it is forgotten there.
    pub(super) fn join_stream(
        &mut self,
        now: Millis,
        trees: &mut Trees,
        number: usize,
        out: &mut Vec<Action>,
    ) {
        let domain = &mut self.domains[number];
        let State::Linked(link) = &mut domain.state else { return };
        if let Some(seq) = link.limb.as_ref().and_then(|limb| limb.leaving())
            && link.sent.front().is_none_or(|sent| sent.seq > seq)
        {
            link.limb = None;
        }
        let Some(grown) = &trees.grown else { return };
        if link.limb.is_some() || link.trees.is_none() || link.ended {
            return;
        }
        trees.nodes += 1;
        let node = Node(trees.nodes);
        let secret = trees.key("link", &format!("{} {}", link.epoch, trees.nodes));
        let mut composer = Composer::new(link, &domain.name, &self.shared, now);
        composer.flush();
        let has_full = composer.is_full();
        let mut stream = lock(&grown.stream);
        let from = stream.newest();
        let (name, key) = (grown.epoch.clone(), stream.public());
        composer.tree(TreeOp::Stream { name, key, secret, from, has_full });
        out.extend(composer.finish());
        stream.join(node, LinkKey::new(secret), 0, has_full);
        drop(stream);
        link.limb = Some(Box::new(Limb::new(grown.stream.clone(), node, has_full)));
        // The same envelopes may have taken somebody out of the audience.
        trees.stale.insert(number);
        self.watch(number);
    }

    /// A link that lies in a stream which is no more leaves it: it has been held, or the room has another
    /// stream or none.
    pub(super) fn cut_off(
        &mut self,
        now: Millis,
        trees: &mut Trees,
        number: usize,
        out: &mut Vec<Action>,
    ) {
        let domain = &mut self.domains[number];
        let State::Linked(link) = &mut domain.state else { return };
        let is_old = |limb: &Limb| {
            let current = trees.grown.as_ref().map(|grown| &grown.stream);
            limb.leaving().is_none() && current.is_none_or(|stream| !limb.is_in(stream))
        };
        if !link.limb.as_deref().is_some_and(is_old) {
            return;
        }
        let mut composer = Composer::new(link, &domain.name, &self.shared, now);
        composer.tree(TreeOp::Alone);
        out.extend(composer.finish());
        let seq = link.next_seq - 1;
        if let Some(limb) = &mut link.limb {
            limb.leave(seq);
        }
        // As with `join_stream`.
        trees.stale.insert(number);
        self.watch(number);
    }

    /// Whether there is nothing to do for [`Self::cut_off`], [`Self::join_stream`] and
    /// [`Self::park_deserted`].
    pub(super) fn is_in_stream(&self, trees: &Trees, number: usize) -> bool {
        let State::Linked(link) = &self.domains[number].state else { return true };
        match &link.limb {
            None => trees.grown.is_none() || link.trees.is_none() || link.ended,
            Some(limb) if limb.leaving().is_none() => {
                trees.grown.as_ref().is_some_and(|grown| limb.is_in(&grown.stream))
                    && (!link.is_deserted() || limb.is_parked())
            }
            Some(limb) => {
                let oldest = link.sent.front().map(|sent| sent.seq);
                oldest.zip(limb.leaving()).is_some_and(|(oldest, seq)| oldest <= seq)
            }
        }
    }

    /// A link with nobody in its audience gets no casts, until somebody enters.
    pub(super) fn park_deserted(&mut self, number: usize) {
        if let State::Linked(link) = &mut self.domains[number].state
            && link.is_deserted()
            && let Some(limb) = &mut link.limb
        {
            limb.park();
        }
    }
}
