//! Figures from rounds.

use std::time::Duration;

use anyhow::{Context, Result};
use dmuc_testkit::Kind;
use serde::{Deserialize, Serialize};

use super::case::Case;
use super::fanout::Fanout;
use super::setup::{Collector, Setup};
use super::side::Round;
use crate::scene::Pairing;

/// One case of one pairing.
#[derive(Debug, Deserialize, Serialize)]
pub struct Row {
    /// The server with the room.
    pub primary: String,
    /// The server with the remote occupants.
    pub replica: String,
    /// The release of the primary.
    pub primary_version: String,
    /// The release of the replica.
    pub replica_version: String,
    /// What was done.
    pub case: String,
    /// Remote occupants; in a storm as many residents are in the room already.
    pub k: usize,
    /// Where those live.
    pub residents: String,
    /// Domains that the remote occupants are spread over, in one server process.
    pub spread: u16,
    /// The mode of Prosody's collector, if there is a Prosody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prosody_gc: Option<String>,
    /// Addresses that an XEP-0033 message may have, if that is not the server's own limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<u16>,
    /// A stanza for each recipient.
    pub plain: Figures,
    /// Messages with lists of addresses, between servers that can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xep0033: Option<Figures>,
    /// Envelopes.
    pub dmuc: Figures,
    /// No link: everybody at the room's own server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<Figures>,
}

/// What one side has used.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Figures {
    /// Stanzas on the link, both ways.
    pub link_stanzas: u64,
    /// Bytes on the socket, TLS included, both ways.
    pub link_bytes: u64,
    /// Bytes of XML in those stanzas.
    pub link_xml_bytes: u64,
    /// Bytes on the socket for each of the last joiners of a storm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_bytes_per_later_joiner: Option<u64>,
    /// Stanzas that the remote users received.
    pub delivered: u64,
    /// Processor time of the primary, for each of those.
    pub primary_cpu_us_per_copy: f64,
    /// Processor time of the replica, for each of those.
    pub replica_cpu_us_per_copy: f64,
    /// Time to the last recipient of a broadcast, or until the last joiner of a storm was in.
    pub last_p50_ms: f64,
    /// The same.
    pub last_p99_ms: f64,
    /// Resident memory of the primary afterwards.
    pub primary_rss_bytes: u64,
    /// Resident memory of the replica afterwards.
    pub replica_rss_bytes: u64,
    /// Least and most of the timed rounds: processor time of primary and replica, and time to the
    /// last.
    #[serde(skip)]
    pub spread: [(f64, f64); 3],
}

impl Row {
    /// From the rounds of all sides.
    pub fn new(
        pairing: Pairing,
        [primary_version, replica_version]: [String; 2],
        setup: Setup,
        case: Case,
        k: usize,
        sides: &[(Fanout, Rounds)],
    ) -> Result<Self> {
        let of = |wanted| {
            let side = sides.iter().find(|(fanout, _)| *fanout == wanted);
            side.map(|(_, rounds)| rounds.figures())
        };
        Ok(Self {
            primary: pairing.primary.to_string(),
            replica: pairing.replica.to_string(),
            primary_version,
            replica_version,
            case: case.name(),
            k,
            residents: setup.residents.name(),
            prosody_gc: [pairing.primary, pairing.replica]
                .contains(&Kind::Prosody)
                .then(|| setup.collector.map_or("stock".to_owned(), Collector::name)),
            addresses: setup.addresses,
            spread: setup.spread,
            plain: of(Fanout::Plain).context("no plain side")?,
            xep0033: of(Fanout::Xep0033),
            dmuc: of(Fanout::Dmuc).context("no side with dmuc")?,
            local: of(Fanout::Local),
        })
    }

    /// What each side has used, with its name.
    pub fn sides(&self) -> impl Iterator<Item = (Fanout, &Figures)> {
        let xep0033 = self.xep0033.as_ref().map(|figures| (Fanout::Xep0033, figures));
        [(Fanout::Plain, &self.plain)]
            .into_iter()
            .chain(xep0033)
            .chain([(Fanout::Dmuc, &self.dmuc)])
            .chain(self.local.as_ref().map(|figures| (Fanout::Local, figures)))
    }
}

impl Figures {
    /// These as a part of others: stanzas, bytes, processor time of primary and replica, median
    /// and 99th percentile of the time to the last.
    pub fn ratios(&self, of: &Self) -> [f64; 6] {
        let figures = |f: &Self| {
            [
                f.link_stanzas as f64,
                f.link_bytes as f64,
                f.primary_cpu_us_per_copy,
                f.replica_cpu_us_per_copy,
                f.last_p50_ms,
                f.last_p99_ms,
            ]
        };
        let (own, of) = (figures(self), figures(of));
        std::array::from_fn(|n| own[n] / of[n])
    }
}

/// The rounds of one side.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// With the wire read: what crossed.
    pub counted: Round,
    /// With TLS from server to server: processor and time.
    pub timed: Vec<Round>,
}

impl Rounds {
    fn figures(&self) -> Figures {
        let per_copy = |end: usize| -> Vec<f64> {
            let copies = |round: &Round| round.delivered.max(1) as f64;
            self.timed
                .iter()
                .map(|round| round.cpu[end].as_secs_f64() * 1e6 / copies(round))
                .collect()
        };
        let (primary, replica) = (per_copy(0), per_copy(1));
        let last: Vec<f64> =
            self.timed.iter().flat_map(|round| &round.last).map(milliseconds).collect();
        let rss = |end: usize| self.timed.iter().map(|round| round.rss[end]).max().unwrap_or(0);
        Figures {
            link_stanzas: self.counted.link.stanzas(),
            link_bytes: self.counted.link.raw_bytes,
            link_xml_bytes: self.counted.link.stanza_bytes,
            link_bytes_per_later_joiner: self.counted.later.map(|bytes| bytes.round() as u64),
            delivered: self.counted.delivered,
            primary_cpu_us_per_copy: rounded(percentile(&primary, 50.0)),
            replica_cpu_us_per_copy: rounded(percentile(&replica, 50.0)),
            last_p50_ms: rounded(percentile(&last, 50.0)),
            last_p99_ms: rounded(percentile(&last, 99.0)),
            primary_rss_bytes: rss(0),
            replica_rss_bytes: rss(1),
            spread: [primary, replica, last]
                .map(|values| (percentile(&values, 0.0), percentile(&values, 100.0))),
        }
    }
}

fn milliseconds(duration: &Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The value below or at which so many of a hundred are (nearest rank).
fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        for (percent, value) in [(0.0, 1.0), (50.0, 100.0), (99.0, 198.0), (100.0, 200.0)] {
            assert_eq!(percentile(&values, percent), value, "{percent}");
        }
        assert_eq!(percentile(&[], 50.0), 0.0);
    }
}
