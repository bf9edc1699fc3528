//! A stanza in a form that every server computes alike, whatever it did to the XML on the way.
//!
//! Servers parse what they pass on and write it anew: quotes, prefixes, the order of attributes and
//! the places of entities change. What does not is the tree of elements with their namespaces, their
//! attributes and their text. The hosts walk over the stanza as they hold it and say what they see; all
//! decisions are here, so that two hosts cannot differ in them (`docs/protocol.md`, section 8.2).

use sha2::{Digest as _, Sha256};

/// Elements within elements of one stanza.
pub const MAX_DEPTH: usize = 128;

const CLIENT: &str = "jabber:client";
const SERVER: &str = "jabber:server";
const XML: &str = "http://www.w3.org/XML/1998/namespace";

// Characters that no XML has, so that no text can be taken for the next element.
const OPEN: u8 = 1;
const ATTRIBUTE: u8 = 2;
const TEXT: u8 = 3;
const CLOSE: u8 = 4;
const END: u8 = 0;

/// SHA-256 of a stanza in canonical form.
pub type Digest = [u8; 32];

/// Why a stanza has no canonical form, and cannot be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// A name has a prefix that nothing declares.
    #[error("the prefix '{0}' is not declared")]
    Prefix(String),
    /// One element has the same attribute twice.
    #[error("the attribute '{0}' is there twice")]
    Twice(String),
    /// Deeper than [`MAX_DEPTH`].
    #[error("elements are nested too deep")]
    Deep,
    /// A character that XML does not have.
    #[error("a character that XML does not have")]
    Character,
    /// Elements are closed that were not opened, or the other way round, or there are two stanzas.
    #[error("not one whole element")]
    Unbalanced,
}

/// Namespaces in force within one element.
#[derive(Debug)]
struct Within {
    default: String,
    /// How many prefixes are declared outside of it.
    outside: usize,
}

/// Computes the digest of one stanza, which is described element by element.
///
/// [`Canonical::open`], then the content in its order, then [`Canonical::close`], and at the end
/// [`Canonical::finish`]. After an error the rest may be skipped.
#[derive(Debug, Default)]
pub struct Canonical {
    hash: Sha256,
    within: Vec<Within>,
    prefixes: Vec<(String, String)>,
    in_text: bool,
    after_return: bool,
    is_whole: bool,
}

impl Canonical {
    /// Nothing yet.
    pub fn new() -> Self {
        Canonical::default()
    }

    /// An element begins. Names and attributes are as the host has them: with declarations of
    /// namespaces among the attributes, prefixes as they were written (`xml:lang`), or the namespace
    /// of an attribute before its name and U+0001 between them, as Prosody keeps it. The root may be
    /// without a namespace; it has no `to`, which is not for the host to leave in.
    pub fn open<'a>(
        &mut self,
        name: &str,
        attrs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), CanonicalError> {
        if self.within.len() >= MAX_DEPTH {
            return Err(CanonicalError::Deep);
        }
        if self.is_whole {
            return Err(CanonicalError::Unbalanced);
        }
        let mut default = self.within.last().map_or(CLIENT, |within| &within.default).to_owned();
        let outside = self.prefixes.len();
        let mut others = Vec::new();
        for (attr, value) in attrs {
            match attr.strip_prefix("xmlns") {
                Some("") => default = namespace(value).to_owned(),
                Some(prefix) if prefix.starts_with(':') => {
                    self.prefixes.push((prefix[1..].to_owned(), namespace(value).to_owned()));
                }
                _ => others.push((attr, value)),
            }
        }
        let mut resolved = Vec::with_capacity(others.len());
        for (attr, value) in others {
            let (space, local) = self.resolve(attr, "")?;
            resolved.push((space, local, value));
        }
        resolved.sort_unstable();
        if let Some(pair) =
            resolved.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[0].1 == pair[1].1)
        {
            return Err(CanonicalError::Twice(pair[0].1.to_owned()));
        }
        let (space, local) = self.resolve(name, &default)?;
        let mut token = Vec::with_capacity(64);
        token.push(OPEN);
        words(&mut token, &[space, local])?;
        for (space, local, value) in &resolved {
            token.push(ATTRIBUTE);
            words(&mut token, &[space, local, &blanks(value)])?;
        }
        self.hash.update(&token);
        self.in_text = false;
        self.within.push(Within { default, outside });
        Ok(())
    }

    /// Text, or a part of it: it makes no difference into how many parts it is cut.
    pub fn text(&mut self, text: &str) -> Result<(), CanonicalError> {
        if self.within.is_empty() {
            return Err(CanonicalError::Unbalanced);
        }
        let mut kept = Vec::with_capacity(text.len() + 1);
        for byte in text.bytes() {
            if !is_xml(byte) {
                return Err(CanonicalError::Character);
            }
            // What stands for the end of a line is read as one form whatever was written.
            let second = std::mem::replace(&mut self.after_return, byte == b'\r') && self.in_text;
            if byte == b'\n' && second {
                continue;
            }
            if !std::mem::replace(&mut self.in_text, true) {
                kept.push(TEXT);
            }
            kept.push(if byte == b'\r' { b'\n' } else { byte });
        }
        self.hash.update(&kept);
        Ok(())
    }

    /// The element that was opened last ends.
    pub fn close(&mut self) -> Result<(), CanonicalError> {
        let within = self.within.pop().ok_or(CanonicalError::Unbalanced)?;
        self.prefixes.truncate(within.outside);
        self.in_text = false;
        self.is_whole = self.within.is_empty();
        self.hash.update([CLOSE]);
        Ok(())
    }

    /// The digest of the whole.
    pub fn finish(self) -> Result<Digest, CanonicalError> {
        if !self.is_whole {
            return Err(CanonicalError::Unbalanced);
        }
        Ok(self.hash.finalize().into())
    }

    /// Namespace and local part of a name.
    fn resolve<'a>(
        &'a self,
        name: &'a str,
        default: &'a str,
    ) -> Result<(&'a str, &'a str), CanonicalError> {
        if let Some((space, local)) = name.split_once('\u{1}') {
            return Ok((namespace(space), local));
        }
        let Some((prefix, local)) = name.split_once(':') else { return Ok((default, name)) };
        if prefix == "xml" {
            return Ok((XML, local));
        }
        let declared = self.prefixes.iter().rev().find(|(declared, _)| declared == prefix);
        match declared {
            Some((_, space)) => Ok((space, local)),
            None => Err(CanonicalError::Prefix(prefix.to_owned())),
        }
    }
}

/// A stanza is in `jabber:client` for some servers and in `jabber:server` for others.
fn namespace(name: &str) -> &str {
    if name == SERVER { CLIENT } else { name }
}

/// The value of an attribute as a parser gives it back that reads what a careless writer has written.
fn blanks(value: &str) -> String {
    value.replace("\r\n", " ").replace(['\t', '\n', '\r'], " ")
}

fn is_xml(byte: u8) -> bool {
    byte >= b' ' || matches!(byte, b'\t' | b'\n' | b'\r')
}

fn words(token: &mut Vec<u8>, words: &[&str]) -> Result<(), CanonicalError> {
    for word in words {
        if !word.bytes().all(is_xml) {
            return Err(CanonicalError::Character);
        }
        token.extend_from_slice(word.as_bytes());
        token.push(END);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(`name attr=value`, text, `)`: one step a word.
    fn digest(steps: &[&str]) -> Result<Digest, CanonicalError> {
        let mut canonical = Canonical::new();
        for step in steps {
            match step.strip_prefix('(') {
                Some(element) => {
                    let mut words = element.split(' ');
                    let name = words.next().unwrap_or_default();
                    canonical.open(name, words.filter_map(|word| word.split_once('=')))?;
                }
                None if *step == ")" => canonical.close()?,
                None => canonical.text(step)?,
            }
        }
        canonical.finish()
    }

    #[track_caller]
    fn same(a: &[&str], b: &[&str]) {
        assert_eq!(digest(a).expect("a form"), digest(b).expect("a form"));
    }

    #[track_caller]
    fn different(a: &[&str], b: &[&str]) {
        assert_ne!(digest(a).expect("a form"), digest(b).expect("a form"));
    }

    #[test]
    fn what_servers_write_otherwise_is_the_same() {
        same(&["(message a=1 b=2", ")"], &["(message b=2 a=1", ")"]);
        same(&["(message", ")"], &["(message xmlns=jabber:client", ")"]);
        same(&["(message xmlns=jabber:server", ")"], &["(message xmlns=jabber:client", ")"]);
        same(
            &["(m", "(x xmlns=u", "(y", ")", ")", ")"],
            &["(m", "(x xmlns=u", "(y xmlns=u", ")", ")", ")"],
        );
        same(&["(m", "(p:x xmlns:p=u p:a=1", ")", ")"], &["(m", "(q:x xmlns:q=u q:a=1", ")", ")"]);
        same(
            &["(m", "(p:x xmlns:p=u p:a=1", ")", ")"],
            &["(m xmlns:p=u", "(x xmlns=u u\u{1}a=1", ")", ")"],
        );
        same(
            &["(m xml:lang=en", ")"],
            &["(m http://www.w3.org/XML/1998/namespace\u{1}lang=en", ")"],
        );
        same(&["(m", "a", "b", ")"], &["(m", "ab", ")"]);
        same(&["(m", "", ")"], &["(m", ")"]);
        same(&["(m", "a\r\nb\rc\n", ")"], &["(m", "a\r", "\nb\nc", "\n", ")"]);
        same(&["(m a=x\r\ny\tz", ")"], &["(m a=x\ny\nz", ")"]);
    }

    #[test]
    fn what_a_client_would_see_otherwise_is_different() {
        different(&["(message", "a", ")"], &["(message", "b", ")"]);
        different(&["(m a=1", ")"], &["(m a=2", ")"]);
        different(&["(m a=1", ")"], &["(m b=1", ")"]);
        different(&["(m a=1", ")"], &["(m", ")"]);
        different(&["(m", "(x", ")", ")"], &["(m", "(x xmlns=u", ")", ")"]);
        different(&["(m", "(x xmlns:p=u a=1", ")", ")"], &["(m", "(x xmlns:p=u p:a=1", ")", ")"]);
        different(&["(m", "(x", ")", "(y", ")", ")"], &["(m", "(x", "(y", ")", ")", ")"]);
        different(&["(m", "a", "(x", ")", ")"], &["(m", "(x", ")", "a", ")"]);
        different(&["(m", "a", "(x", ")", "b", ")"], &["(m", "ab", "(x", ")", ")"]);
        different(&["(m", "a\n", "(x", ")", "\n", ")"], &["(m", "a\n", "(x", ")", ")"]);
        different(&["(m", " ", ")"], &["(m", ")"]);
        different(&["(m", "(x", "\r", ")", "\n", ")"], &["(m", "(x", "\r", ")", ")"]);
        different(&["(m a= b=", ")"], &["(m a=", ")"]);
    }

    #[test]
    fn what_is_not_one_element_of_xml_has_no_form() {
        use CanonicalError::*;
        assert_eq!(digest(&["(p:m", ")"]), Err(Prefix("p".into())));
        assert_eq!(digest(&["(m", "(x xmlns:p=u", ")", "(p:y", ")", ")"]), Err(Prefix("p".into())));
        assert_eq!(digest(&["(m a=1 a=2", ")"]), Err(Twice("a".into())));
        assert_eq!(digest(&["(m xmlns:p=u xmlns:q=u p:a=1 q:a=1", ")"]), Err(Twice("a".into())));
        assert_eq!(digest(&["(m", "\u{4}", ")"]), Err(Character));
        assert_eq!(digest(&["(m a=\u{0}", ")"]), Err(Character));
        assert_eq!(digest(&[")"]), Err(Unbalanced));
        assert_eq!(digest(&["(m"]), Err(Unbalanced));
        assert_eq!(digest(&["(m", ")", "(m", ")"]), Err(Unbalanced));
        assert_eq!(digest(&["a"]), Err(Unbalanced));
        assert_eq!(digest(&[]), Err(Unbalanced));
        let deep = vec!["(m"; MAX_DEPTH + 1];
        assert_eq!(digest(&deep), Err(Deep));
    }
}
