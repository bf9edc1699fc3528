//! The ways in which what a room says gets to many users of one remote server.

use std::fmt;

use anyhow::{Result, ensure};
use dmuc_testkit::{Counters, Kind};

use super::case::Case;
use crate::scene::Pairing;

/// One of the ways that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fanout {
    /// A stanza for each recipient.
    Plain,
    /// Messages with a list of addresses (XEP-0033): ejabberd's `mod_multicast` on both ends.
    Xep0033,
    /// Envelopes.
    Dmuc,
}

impl fmt::Display for Fanout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plain => "plain",
            Self::Xep0033 => "xep0033",
            Self::Dmuc => "dmuc",
        })
    }
}

impl Fanout {
    /// Those that a pairing has. Prosody's rooms address every stanza to one.
    pub fn all(pairing: Pairing) -> Vec<Self> {
        match (pairing.primary, pairing.replica) {
            (Kind::Ejabberd, Kind::Ejabberd) => vec![Self::Plain, Self::Xep0033, Self::Dmuc],
            _ => vec![Self::Plain, Self::Dmuc],
        }
    }

    /// Whether it changes anything in this case. A storm has no message to several.
    pub fn plays(self, case: Case) -> bool {
        self != Self::Xep0033 || !case.is_storm()
    }

    /// Whether what crossed in a counted round went this way.
    pub fn verify(self, case: Case, link: &Counters) -> Result<()> {
        let (addressed, messages) = (link.addressed, link.messages);
        match (self, case) {
            (Self::Xep0033, Case::Message | Case::Limits) => ensure!(
                addressed > 0 && addressed == messages,
                "{addressed} of {messages} messages have XEP-0033 addresses"
            ),
            (Self::Xep0033, Case::Mixed) => {
                ensure!(addressed > 0, "none of {messages} messages has XEP-0033 addresses");
            }
            // ejabberd addresses every presence to one.
            (Self::Xep0033, _) => {}
            (Self::Plain | Self::Dmuc, _) => {
                ensure!(addressed == 0, "{addressed} stanzas have XEP-0033 addresses");
            }
        }
        Ok(())
    }
}
