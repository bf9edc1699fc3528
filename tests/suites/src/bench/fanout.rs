//! The ways in which what a room says gets to many users of one server.

use std::fmt;

use anyhow::{Result, ensure};
use dmuc_testkit::{Counters, Kind};

use super::case::{Case, Residents};
use super::setup::Setup;
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
    /// Everybody at the room's own server, with plain MUC: what it costs where there is no link.
    Local,
}

impl fmt::Display for Fanout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plain => "plain",
            Self::Xep0033 => "xep0033",
            Self::Dmuc => "dmuc",
            Self::Local => "local",
        })
    }
}

impl Fanout {
    /// Those that a pairing has. Prosody's rooms address every stanza to one.
    pub fn all(pairing: Pairing, setup: Setup) -> Vec<Self> {
        let mut all = match (pairing.primary, pairing.replica) {
            (Kind::Ejabberd, Kind::Ejabberd) => vec![Self::Plain, Self::Xep0033, Self::Dmuc],
            _ => vec![Self::Plain, Self::Dmuc],
        };
        all.extend(setup.local.then_some(Self::Local));
        all
    }

    /// Whether it is measured in this case: a storm has no message to several.
    pub fn plays(self, case: Case) -> bool {
        match self {
            Self::Plain | Self::Dmuc => true,
            Self::Xep0033 => !case.is_storm(),
            Self::Local => case.is_storm(),
        }
    }

    /// The servers of the residents and of the users who are called remote.
    pub fn homes(self, residents: Residents) -> [&'static str; 2] {
        match (self, residents) {
            (Self::Local, _) => ["a", "a"],
            (_, Residents::Local) => ["a", "b"],
            (_, Residents::Third) => ["c", "b"],
        }
    }

    /// Whether what crossed in a counted round went this way.
    pub fn verify(self, case: Case, link: &Counters) -> Result<()> {
        let (addressed, messages) = (link.addressed, link.messages);
        match (self, case) {
            (Self::Local, _) => {
                ensure!(link.stanzas() == 0, "{} stanzas on the link", link.stanzas());
            }
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
