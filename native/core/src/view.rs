//! What an operator gets to see: links, and a host as a whole. Both servers show it as it is here.
//!
//! A link is a row of named values, the same names for both roles. Hosts give rows on to machines as they
//! are, and to people as [`table`] writes them.

use crate::{Config, Counter, Shared, Unit};

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Words; empty if there are none.
    Text(String),
    /// A number; in columns that say so -1 for one that is not known.
    Number(i64),
}

/// What a column holds.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name, for machines and people.
    pub name: &'static str,
    /// Whether its values are numbers.
    pub number: bool,
    /// Whether -1 stands for a number that is not known, or that there is none.
    pub partial: bool,
    /// Whether people are shown it.
    pub shown: bool,
    /// Its meaning.
    pub doc: &'static str,
}

macro_rules! columns {
    (@is text) => { false };
    (@is number) => { true };
    (@is maybe) => { true };
    (@partial maybe) => { true };
    (@partial $kind:ident) => { false };
    (@is shown) => { true };
    (@is hidden) => { false };
    (@type text) => { String };
    (@type number) => { i64 };
    (@type maybe) => { i64 };
    (@read text $value:expr) => { match $value { Value::Text(text) => text, Value::Number(_) => return None } };
    (@read $kind:ident $value:expr) => { match $value { Value::Number(number) => number, Value::Text(_) => return None } };
    (@value text $value:expr) => { Value::Text($value) };
    (@value number $value:expr) => { Value::Number($value) };
    (@value maybe $value:expr) => { Value::Number($value) };
    ($($(#[doc = $doc:literal])* $name:ident: $kind:ident $shown:ident,)*) => {
        /// A link, or a domain of a room that has none.
        #[derive(Clone, Debug, Default)]
        pub struct LinkRow { $($(#[doc = $doc])* pub $name: columns!(@type $kind),)* }

        impl LinkRow {
            /// The columns, in their order.
            pub const COLUMNS: &[Column] = &[$(Column {
                name: stringify!($name), number: columns!(@is $kind),
                partial: columns!(@partial $kind), shown: columns!(@is $shown), doc: concat!($($doc,)*),
            },)*];

            /// The values, in that order.
            pub fn values(self) -> Vec<Value> {
                vec![$(columns!(@value $kind self.$name),)*]
            }

            /// A row of these values, if there is one of the right kind for each column.
            pub fn from_values(values: Vec<Value>) -> Option<Self> {
                let mut values = values.into_iter();
                let row = LinkRow { $($name: columns!(@read $kind values.next()?),)* };
                values.next().is_none().then_some(row)
            }
        }
    };
}

columns! {
    /// `primary` if the room is here, `replica` if its occupants are.
    role: text shown,
    /// Bare JID of the room.
    room: text shown,
    /// The domain at the other end.
    peer: text shown,
    /// `plain`, `asking`, `setting up`, `linked`, `split` or `draining`; at the replica `linked` or
    /// `silent`.
    state: text shown,
    /// Occupants of the replica's domain, by session; at the replica those that the link serves.
    occupants: number shown,
    /// Of these, sessions that are served plainly although there is a link.
    apart: number hidden,
    /// Names the link from its set-up to its end.
    epoch: text hidden,
    /// Number of the newest envelope.
    seq: maybe shown,
    /// Envelopes that are not acknowledged.
    unacked: maybe shown,
    /// Milliseconds of a round trip: from a set-up, an empty envelope or a question to its answer, or
    /// from an envelope to its acknowledgement if that was faster.
    round_trip: maybe shown,
    /// Copies that wait, for an acknowledgement or for the link.
    waiting: number shown,
    /// Bytes of them; at the replica of the stanzas kept for replay.
    waiting_bytes: number shown,
    /// Seconds since the link came up.
    up: maybe hidden,
    /// Seconds until a link is tried again.
    retry: maybe hidden,
    /// Copies that the links with this domain carried.
    carried: number hidden,
    /// Bytes of them without the `to` of each; the replica does not know, and says 0.
    carried_bytes: number hidden,
    /// Stanzas by which the links with this domain were fewer than the copies that they carried.
    saved: number shown,
    /// The same in bytes, at least; the replica does not know, and says 0.
    saved_bytes: number shown,
    /// Why it is in this state.
    reason: text shown,
}

/// What there is to say of a room whose core has failed.
pub fn failed(room: &str) -> LinkRow {
    LinkRow {
        role: "primary".to_owned(),
        room: room.to_owned(),
        state: "plain".to_owned(),
        seq: -1,
        unacked: -1,
        round_trip: -1,
        up: -1,
        retry: -1,
        reason: "internal error, see the log".to_owned(),
        ..LinkRow::default()
    }
}

/// A number that may be unknown.
pub(crate) fn known(value: Option<u64>) -> i64 {
    value.map_or(-1, signed)
}

pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Name and value of what is to be said about a host as a whole.
pub fn overview(shared: &Shared) -> Vec<(&'static str, String)> {
    let of = |counter| signed(shared.counters.get(counter));
    let saved = of(Counter::CopiesCarried) - of(Counter::LinkStanzas);
    let saved_bytes = of(Counter::CarriedBytes) - of(Counter::LinkBytes);
    let mut all = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    all.extend(shared.gauges().into_iter().map(|(name, _, value)| (name, value.to_string())));
    all.push(("saved", saved.to_string()));
    all.push(("saved_bytes", saved_bytes.to_string()));
    all.push(("options", changed(&shared.config.get())));
    all
}

/// Options that are not as they are by default.
fn changed(config: &Config) -> String {
    let set = Config::OPTIONS.iter().zip(config.values());
    let set: Vec<String> = set
        .filter(|(option, value)| option.default != *value)
        .map(|(option, value)| match option.unit {
            Unit::Millis => format!("{} {value} ms", option.name),
            _ => format!("{} {value}", option.name),
        })
        .collect();
    if set.is_empty() { "defaults".to_owned() } else { set.join(", ") }
}

/// Rows as text, with a line of names above them: those columns of `columns` that people are shown.
pub fn table(columns: &[Column], rows: &[Vec<Value>]) -> String {
    let cell = |value: &Value, column: &Column| match value {
        Value::Text(text) if text.is_empty() => "-".to_owned(),
        Value::Text(text) => text.clone(),
        Value::Number(-1) if column.partial => "-".to_owned(),
        Value::Number(number) => number.to_string(),
    };
    let shown = |n: &usize| columns[*n].shown;
    let shown: Vec<usize> = (0..columns.len()).filter(shown).collect();
    let names = shown.iter().map(|n| columns[*n].name.to_owned()).collect();
    let mut lines: Vec<Vec<String>> = vec![names];
    lines.extend(
        rows.iter().map(|row| shown.iter().map(|n| cell(&row[*n], &columns[*n])).collect()),
    );
    let width =
        |place: usize| lines.iter().map(|line| line[place].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..shown.len()).map(width).collect();
    let written = lines.iter().map(|line| {
        let cells = line.iter().zip(&shown).zip(&widths).map(|((cell, n), width)| {
            if columns[*n].number { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    written.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_of_names_and_numbers_to_the_right() {
        let row = |room: &str, occupants| {
            LinkRow { room: room.to_owned(), occupants, round_trip: -1, ..LinkRow::default() }
                .values()
        };
        let text = table(LinkRow::COLUMNS, &[row("r@m.test", 7), row("long@m.test", 4711)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("role  room         peer"), "{text}");
        assert!(lines[1].starts_with("-     r@m.test     -"), "{text}");
        let ends = |line: usize, word: &str| lines[line].find(word).map(|at| at + word.len());
        assert_eq!(ends(0, "occupants"), ends(1, " 7"), "{text}");
        assert_eq!(ends(0, "occupants"), ends(2, "4711"), "{text}");
        assert!(!lines[0].contains("epoch"), "{text}");
    }

    #[test]
    fn an_overview_names_the_options_that_are_set() {
        let shared = Shared::new(Config::default());
        let options = |shared: &Shared| overview(shared).pop().expect("options").1;
        assert_eq!(options(&shared), "defaults");
        let other = [("ack_delay", 500), ("ack_every", 4)];
        shared.config.set(&Config::from_pairs(&other).expect("options"));
        assert_eq!(options(&shared), "ack_every 4, ack_delay 500 ms");
    }
}
