//! What each session was sent, and what it got: a stanza more, less or in another place shows, and
//! nothing is kept but a few words for each session.

use dmuc_core::Facts;

/// All that one session has seen, or is to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    count: u64,
    chain: u64,
    /// The list of occupants that comes before the own presence: its order is free.
    list: u64,
    inside: bool,
}

impl Seen {
    /// Takes note of a stanza by its number.
    pub fn note(&mut self, number: u32, facts: Facts) {
        self.count += 1;
        let mixed = mix(u64::from(number) + 1);
        if !self.inside && facts.is_others_presence() {
            self.list = self.list.wrapping_add(mixed);
        } else {
            self.chain = mix(self.chain.wrapping_add(self.list) ^ mixed);
            self.list = 0;
        }
        self.inside |= facts.is_own_available();
        self.inside &= !facts.is_own_end();
    }
}

/// The finaliser of SplitMix64.
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
