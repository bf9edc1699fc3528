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
        self.watch(number);
    }

    /// A link that lies in a stream which is no more leaves it: it has been held, or the room has another
    /// stream or none.
    pub(super) fn cut_off(
        &mut self,
        now: Millis,
        trees: &Trees,
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
        self.watch(number);
    }

    /// Links with nobody in their audiences get no casts, until somebody enters.
    pub(super) fn park_deserted(&mut self) {
        for domain in &mut self.domains {
            if let State::Linked(link) = &mut domain.state
                && link.is_deserted()
                && let Some(limb) = &mut link.limb
            {
                limb.park();
            }
        }
    }
}
