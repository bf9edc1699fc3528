//! Finding in a client's stream the few things that a measurement wants, without parsing it.

use memchr::memchr;

/// What a client has heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A presence with status 110: its own.
    Own,
    /// The text of a mark, in a body or in the status of a presence.
    Mark(u32),
    /// Something with an error in it; the beginning of that.
    Error(String),
}

/// The text that a client notices.
pub fn mark(number: u32) -> String {
    format!("mark-{number}.")
}

/// Bytes after a `<` that decide what it begins: `<status>mark-4294967295.`.
const ENOUGH: usize = 24;

/// What is looked for, fed with bytes as they arrive.
#[derive(Default)]
pub struct Scanner {
    /// What has not been looked at yet.
    pending: Vec<u8>,
    /// Messages and presences begun so far.
    pub stanzas: u64,
}

impl Scanner {
    /// Takes in `bytes` and tells what is in them.
    pub fn push(&mut self, bytes: &[u8], mut heard: impl FnMut(Heard)) {
        self.pending.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let Some(found) = memchr(b'<', &self.pending[at..]) else {
                at = self.pending.len();
                break;
            };
            at += found;
            let rest = &self.pending[at..];
            if rest.len() < ENOUGH {
                break;
            }
            if begins(rest, b"<presence") || begins(rest, b"<message") {
                self.stanzas += 1;
            } else if let Some(thing) = read(rest) {
                heard(thing);
            }
            at += 1;
        }
        self.pending.drain(..at);
    }
}

fn begins(rest: &[u8], tag: &[u8]) -> bool {
    rest.starts_with(tag) && matches!(rest.get(tag.len()), Some(b' ' | b'>' | b'/'))
}

fn read(rest: &[u8]) -> Option<Heard> {
    if begins(rest, b"<error") {
        let begin = &rest[..rest.len().min(300)];
        return Some(Heard::Error(String::from_utf8_lossy(begin).into_owned()));
    }
    if let Some(code) = rest.strip_prefix(b"<status code=") {
        return code.get(1..4).is_some_and(|code| code == b"110").then_some(Heard::Own);
    }
    let text = rest.strip_prefix(b"<body>mark-").or(rest.strip_prefix(b"<status>mark-"))?;
    let end = memchr(b'.', &text[..text.len().min(ENOUGH)])?;
    std::str::from_utf8(&text[..end]).ok()?.parse().ok().map(Heard::Mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "<presence from='r@m/a'><x><status code='110'/></x></presence>\
        <message from='r@m/a'><body>mark-17.</body></message><presence/>\
        <presence><status>mark-4294967295.</status></presence><presences/><message/>\
        <message type='error'><error type='cancel'/></message><iq/><body>mark-x.</body></stream>";

    #[test]
    fn the_same_is_found_however_it_arrives() {
        for chunk in 1..STREAM.len() {
            let (mut scanner, mut heard) = (Scanner::default(), Vec::new());
            for bytes in STREAM.as_bytes().chunks(chunk) {
                scanner.push(bytes, |thing| heard.push(thing));
            }
            assert_eq!(scanner.stanzas, 6, "chunks of {chunk}");
            assert_eq!(heard[..3], [Heard::Own, Heard::Mark(17), Heard::Mark(u32::MAX)]);
            assert!(matches!(&heard[3..], [Heard::Error(text)] if text.starts_with("<error")));
        }
    }
}
