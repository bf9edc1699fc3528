//! Options and limits, the same in both servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::history::{History, Spans, Traffic};
use crate::tree::{Mode, TreeOptions};
use crate::{Counters, Millis};

macro_rules! options {
    ($($(#[doc = $doc:literal])* $name:ident: $unit:ident $default:literal, $min:literal ..= $max:literal;)*) => {
        /// Every option. Times are in milliseconds, sizes in bytes.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config { $($(#[doc = $doc])* pub $name: u64,)* }

        impl Default for Config {
            fn default() -> Self {
                Config { $($name: $default,)* }
            }
        }

        /// The options in force. A host may set others while its links are up.
        #[derive(Debug)]
        pub struct Options { $($name: AtomicU64,)* }

        impl Options {
            $($(#[doc = $doc])* pub fn $name(&self) -> u64 {
                self.$name.load(Ordering::Relaxed)
            })*

            /// What is in force now.
            pub fn get(&self) -> Config {
                Config { $($name: self.$name(),)* }
            }

            /// From here on these are in force. What a link has agreed on at its set-up stays with it.
            pub fn set(&self, config: &Config) {
                $(self.$name.store(config.$name, Ordering::Relaxed);)*
            }
        }

        impl From<Config> for Options {
            fn from(config: Config) -> Self {
                Options { $($name: AtomicU64::new(config.$name),)* }
            }
        }

        impl Config {
            /// The value of each option, in the order of [`Config::OPTIONS`].
            pub fn values(&self) -> Vec<u64> {
                vec![$(self.$name,)*]
            }

            /// Name, default, least, most and meaning of every option.
            pub const OPTIONS: &[OptionDef] = &[$(OptionDef {
                name: stringify!($name), unit: Unit::$unit, default: $default, min: $min, max: $max,
                doc: concat!($($doc,)*),
            },)*];

            /// Sets one option.
            pub fn set(&mut self, name: &str, value: u64) -> Result<(), ConfigError> {
                match name {
                    $(stringify!($name) => {
                        if !($min..=$max).contains(&value) {
                            return Err(ConfigError::Range {
                                name: stringify!($name), value, min: $min, max: $max,
                            });
                        }
                        self.$name = value;
                        Ok(())
                    })*
                    _ => Err(ConfigError::Unknown(name.to_owned())),
                }
            }
        }
    };
}

/// What the value of an option counts. In their configuration the servers take times in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Millis,
}

/// An option as documented.
#[derive(Clone, Copy, Debug)]
pub struct OptionDef {
    /// Name, as in both servers' configuration (there with the server's own prefix).
    pub name: &'static str,
    /// What its value counts.
    pub unit: Unit,
    /// Default.
    pub default: u64,
    /// Least value allowed.
    pub min: u64,
    /// Most allowed.
    pub max: u64,
    /// Meaning.
    pub doc: &'static str,
}

options! {
    /// Occupants of a domain in a room from which on a link is set up; for one, plain is as cheap.
    min_occupants: Count 2, 1..=1000;
    /// Longest envelope in bytes; a stanza of more than half of it goes plainly. The replica may ask for less.
    max_envelope_bytes: Bytes 262144, 4096..=10485760;
    /// Copies (expanded) of a link that may wait for an acknowledgement or in its queue.
    max_unacked_copies: Count 1000000, 1000..=100000000;
    /// Bytes of a link that may wait for an acknowledgement or in its queue.
    max_unacked_bytes: Bytes 33554432, 65536..=1073741824;
    /// Bytes that may wait on all links of a host; beyond it a link is given up on
    /// which more than the longest envelope waits.
    max_unacked_bytes_total: Bytes 268435456, 1048576..=68719476736;
    /// Envelopes after which the replica acknowledges at once.
    ack_every: Count 32, 1..=1000;
    /// Longest time for which the replica waits with an acknowledgement.
    ack_delay: Millis 2000, 0..=60000;
    /// Time without acknowledgement after which the primary takes a link for broken.
    ack_timeout: Millis 30000, 5000..=3600000;
    /// Time without acknowledgement after which the primary probes with an empty envelope, so that a
    /// dead stream is noticed by the server.
    probe_after: Millis 10000, 1000..=3600000;
    /// Time for which the primary keeps what waits for a link whose stream is broken. Longer than the
    /// five minutes for which servers refuse to connect again after a failure.
    hold_time: Millis 330000, 0..=3600000;
    /// Time for which the primary waits for the fate of the other envelopes after a refusal.
    fate_timeout: Millis 10000, 100..=600000;
    /// Time for which the primary waits for the answer to a set-up.
    setup_timeout: Millis 30000, 1000..=300000;
    /// Idle time after which the primary probes a link with an empty envelope.
    ping_interval: Millis 60000, 1000..=3600000;
    /// Time for which a domain's yes to the disco#info question is kept.
    support_yes: Millis 86400000, 1000..=604800000;
    /// Time for which a domain's no is kept.
    support_no: Millis 3600000, 1000..=604800000;
    /// Disco questions in flight at once.
    support_in_flight: Count 100, 1..=10000;
    /// Domains whose answer is remembered.
    support_entries: Count 100000, 10..=10000000;
    /// First waiting time after a link failed; it doubles with each failure.
    retry_min: Millis 5000, 100..=3600000;
    /// Longest waiting time after a link failed.
    retry_max: Millis 3600000, 1000..=86400000;
    /// Occupants of one link.
    max_audience: Count 50000, 2..=1000000;
    /// Stanzas that the replica of a link keeps for being replayed by number; 0 turns that off.
    max_slots: Count 20000, 0..=1000000;
    /// Messages among them.
    max_slot_messages: Count 256, 0..=100000;
    /// Bytes of the stanzas kept for one link.
    max_slot_bytes: Bytes 16777216, 0..=4294967296;
    /// Bytes of the stanzas that a replica keeps for all its links, for replay or because their turn in
    /// a room stream has not come.
    max_slot_bytes_total: Bytes 268435456, 0..=68719476736;
    /// Stanzas of which a primary remembers that replicas keep them, each once for each replica, on all
    /// links of a host; some 300 bytes each.
    max_slots_total: Count 1000000, 0..=1000000000;
    /// Links that a replica accepts in all.
    max_links: Count 10000, 1..=1000000;
    /// Links that a replica accepts from one domain.
    max_links_per_domain: Count 2000, 1..=1000000;
    /// Linked domains of a room from which on its casts go by a tree, until there are less than half as
    /// many, if its members may see real JIDs or its owner says so; 0: never; 1: in each room, for tests.
    tree_domains: Count 0, 0..=100000;
    /// Domains to which a room with a tree, and each of its relays, sends the casts of a class.
    tree_fanout: Count 16, 1..=1000;
    /// Domains to which the replica passes casts of a class on, for each room; 0: to none.
    tree_children: Count 16, 0..=1000;
    /// Time after which a room with a tree signs its casts with another key.
    tree_key_age: Millis 86400000, 1000..=604800000;
    /// Casts of a class after which it does.
    tree_key_casts: Count 1000000, 1..=1000000000;
    /// Consent records of one session.
    max_consents_per_session: Count 500, 1..=1000000;
    /// Consent records of a replica.
    max_consents: Count 1000000, 100..=100000000;
    /// Time after which a session's unanswered leave closes its consent record.
    consent_expiry: Millis 600000, 1000..=86400000;
}

/// Why an option was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no such option.
    #[error("unknown option '{0}'")]
    Unknown(String),
    /// Out of range.
    #[error("option '{name}' is {value}, must be from {min} to {max}")]
    Range {
        /// The option.
        name: &'static str,
        /// The value given.
        value: u64,
        /// Least value allowed.
        min: u64,
        /// Most allowed.
        max: u64,
    },
    /// Two options contradict each other.
    #[error("option 'retry_min' ({0}) is above 'retry_max' ({1})")]
    Retry(u64, u64),
}

impl Config {
    /// The defaults with these options set.
    pub fn from_pairs(pairs: &[(&str, u64)]) -> Result<Self, ConfigError> {
        let mut config = Config::default();
        for (name, value) in pairs {
            config.set(name, *value)?;
        }
        if config.retry_min > config.retry_max {
            return Err(ConfigError::Retry(config.retry_min, config.retry_max));
        }
        Ok(config)
    }
}

impl Default for Options {
    fn default() -> Self {
        Config::default().into()
    }
}

/// What the rooms and the replica of one host have in common.
#[derive(Debug, Default)]
pub struct Shared {
    /// Options.
    pub config: Options,
    /// Counters.
    pub counters: Counters,
    /// Links that are up, of rooms; those that are split or ending too.
    links: AtomicU64,
    /// Those of them whose stream is broken.
    splits: AtomicU64,
    /// Links that the replica has.
    accepted: AtomicU64,
    /// Bytes of what has come on links in room streams and waits there for its turn.
    early: AtomicU64,
    /// Bytes that wait on all links, in what is not acknowledged and in queues.
    waiting: AtomicU64,
    /// Slots of the replicas of all links.
    slots: AtomicU64,
    /// What was saved over time.
    history: History,
}

impl Shared {
    /// Whether owners of rooms are asked if servers may learn of each other: what they say matters where
    /// rooms get trees by themselves.
    pub fn asks_owners(&self) -> bool {
        matches!(TreeOptions::of(&self.config).mode, Mode::From(_))
    }

    /// With these options and all counters at zero.
    pub fn new(config: Config) -> Arc<Self> {
        Arc::new(Shared { config: config.into(), ..Shared::default() })
    }

    /// What there is at this moment: name, meaning and number.
    pub fn gauges(&self) -> Vec<(&'static str, &'static str, u64)> {
        let now = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
        vec![
            ("links", "Links of rooms that are up, split or ending.", now(&self.links)),
            ("links_broken", "Those of them whose stream is broken.", now(&self.splits)),
            (
                "links_served",
                "Links that the users of this host are served by.",
                now(&self.accepted),
            ),
            ("waiting_bytes", "Bytes that wait on all links.", self.waiting()),
            ("slots", "Stanzas known to be kept by replicas.", self.slots()),
        ]
    }

    /// Takes note of what was carried so far. To be called every few seconds.
    pub fn sample(&self, now: Millis) {
        self.history.sample(now, self.traffic());
    }

    /// What was carried since the start.
    pub fn traffic(&self) -> Traffic {
        Traffic::total(&self.counters)
    }

    /// What was carried in the last spans of so many minutes, at most so many of them, within a day.
    pub fn spans(&self, now: Millis, minutes: u64, most: usize) -> Spans {
        self.history.spans(now, self.traffic(), minutes, most)
    }

    /// Bytes that wait on all links of the host.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Bytes of what has come to the replica before its turn, on all links.
    pub(crate) fn early(&self) -> u64 {
        self.early.load(Ordering::Relaxed)
    }

    /// Slots of replicas that are in use on all links of the host.
    pub fn slots(&self) -> u64 {
        self.slots.load(Ordering::Relaxed)
    }
}

/// What one link has of something that is counted for the whole host too, as long as this lives.
#[derive(Debug)]
pub(crate) struct Share {
    shared: Arc<Shared>,
    total: fn(&Shared) -> &AtomicU64,
    amount: u64,
}

impl Share {
    /// Bytes that wait.
    pub fn of_waiting(shared: &Arc<Shared>) -> Self {
        Share { shared: shared.clone(), total: |shared| &shared.waiting, amount: 0 }
    }

    /// Slots in use.
    pub fn of_slots(shared: &Arc<Shared>) -> Self {
        Share { shared: shared.clone(), total: |shared| &shared.slots, amount: 0 }
    }

    /// One link that is up.
    pub fn of_link(shared: &Arc<Shared>) -> Self {
        Share::one(shared, |shared| &shared.links)
    }

    /// One link whose stream is broken.
    pub fn of_split(shared: &Arc<Shared>) -> Self {
        Share::one(shared, |shared| &shared.splits)
    }

    /// Bytes that wait for their turn at the replica.
    pub fn of_early(shared: &Arc<Shared>) -> Self {
        Share { shared: shared.clone(), total: |shared| &shared.early, amount: 0 }
    }

    /// One link at the replica.
    pub fn of_accepted(shared: &Arc<Shared>) -> Self {
        Share::one(shared, |shared| &shared.accepted)
    }

    fn one(shared: &Arc<Shared>, total: fn(&Shared) -> &AtomicU64) -> Self {
        let mut share = Share { shared: shared.clone(), total, amount: 0 };
        share.add(1);
        share
    }

    /// One with nothing yet, of the same.
    pub fn another(&self) -> Self {
        Share { shared: self.shared.clone(), total: self.total, amount: 0 }
    }

    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    pub fn owner(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub fn amount(&self) -> u64 {
        self.amount
    }

    pub fn set(&mut self, amount: u64) {
        self.add(amount);
        self.remove(self.amount - amount);
    }

    pub fn add(&mut self, amount: u64) {
        self.amount += amount;
        (self.total)(&self.shared).fetch_add(amount, Ordering::Relaxed);
    }

    pub fn remove(&mut self, amount: u64) {
        self.amount -= amount;
        (self.total)(&self.shared).fetch_sub(amount, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.remove(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_within_their_own_ranges() {
        for option in Config::OPTIONS {
            assert!((option.min..=option.max).contains(&option.default), "{}", option.name);
            Config::default().set(option.name, option.default).expect("default");
        }
    }

    #[test]
    fn other_options_are_in_force_at_once() {
        let shared = Shared::new(Config::default());
        let other = Config::from_pairs(&[("ack_every", 7)]).expect("options");
        shared.config.set(&other);
        assert_eq!(shared.config.ack_every(), 7);
        assert_eq!(shared.config.get(), other);
        assert_eq!(other.values().len(), Config::OPTIONS.len());
    }

    #[test]
    fn a_wrong_option_is_named_in_the_error() {
        let err = Config::from_pairs(&[("ack_every", 0)]).expect_err("range");
        assert_eq!(err.to_string(), "option 'ack_every' is 0, must be from 1 to 1000");
        let err = Config::from_pairs(&[("nope", 0)]).expect_err("unknown");
        assert_eq!(err.to_string(), "unknown option 'nope'");
        assert!(Config::from_pairs(&[("retry_min", 9000), ("retry_max", 8000)]).is_err());
    }
}
