//! A stanza in a form that every server computes alike, whatever it did to the XML on the way.
//!
//! Servers parse what they pass on and write it anew: quotes, prefixes, the order of attributes and
//! the places of entities change. What does not is the tree of elements with their namespaces, their
//! attributes and their text. Hosts hand over the stanza as they would write it; what of it counts is
//! decided here, so that two hosts cannot differ in it (`docs/protocol.md`, section 8.2).

use rxml::error::EndOrError;
use rxml::{Event, Options, Parse, Parser, WithOptions};
use sha2::{Digest as _, Sha256};

/// Elements within elements of one stanza.
pub const MAX_DEPTH: usize = 128;
/// Bytes of a name or of the value of an attribute.
const MAX_TOKEN: usize = 65_536;

const CLIENT: &str = "jabber:client";
const SERVER: &str = "jabber:server";
/// Around the stanza, which need not say what its namespace is.
const AROUND: [&[u8]; 2] = [b"<s xmlns='jabber:client'>", b"</s>"];

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
    /// It is not XML, or of a kind that XMPP does not have (RFC 6120, section 11.1), or a name or a value
    /// is too long.
    #[error("{0}")]
    Xml(String),
    /// A carriage return, or a tab or the end of a line in the value of an attribute: some servers keep what
    /// others read as a space, or as the end of a line (XML 1.0, sections 2.11 and 3.3.3).
    #[error("white space that servers read differently")]
    Space,
    /// Deeper than [`MAX_DEPTH`].
    #[error("elements are nested too deep")]
    Deep,
    /// Not one element, or something beside it.
    #[error("not one whole element")]
    Unbalanced,
}

impl From<rxml::Error> for CanonicalError {
    fn from(error: rxml::Error) -> Self {
        CanonicalError::Xml(error.to_string())
    }
}

/// The digest of one stanza in canonical form. `xml` is the stanza as the host writes it, without `to`; its
/// root may be without a namespace.
pub fn canonical(xml: &[u8]) -> Result<Digest, CanonicalError> {
    if has_doubtful_space(xml) {
        return Err(CanonicalError::Space);
    }
    let options = Options { max_token_length: MAX_TOKEN, ..Options::default() };
    let mut parser = Parser::with_options(options);
    let mut form = Form::default();
    for mut part in [AROUND[0], xml, AROUND[1]] {
        loop {
            match parser.parse(&mut part, false) {
                Ok(Some(event)) => form.take(event)?,
                Ok(None) => break,
                Err(EndOrError::NeedMoreData) => break,
                Err(EndOrError::Error(error)) => return Err(error.into()),
            }
        }
    }
    form.finish()
}

/// What has been read so far.
#[derive(Default)]
struct Form {
    hash: Sha256,
    depth: usize,
    in_text: bool,
    stanzas: usize,
}

impl Form {
    fn take(&mut self, event: Event) -> Result<(), CanonicalError> {
        match event {
            Event::XmlDeclaration(..) => return Err(CanonicalError::Unbalanced),
            Event::StartElement(_, (space, local), attrs) => {
                self.depth += 1;
                match self.depth {
                    1 => return Ok(()),
                    2 => self.stanzas += 1,
                    n if n > MAX_DEPTH + 1 => return Err(CanonicalError::Deep),
                    _ => {}
                }
                let mut attrs: Vec<_> = attrs
                    .iter()
                    .map(|((space, local), value)| (namespace(space), &**local, value))
                    .collect();
                attrs.sort_unstable();
                self.word(OPEN, &[namespace(&space), &local]);
                for (space, local, value) in attrs {
                    if value.contains(['\t', '\n', '\r']) {
                        return Err(CanonicalError::Space);
                    }
                    self.word(ATTRIBUTE, &[space, local, value]);
                }
                self.in_text = false;
            }
            Event::EndElement(_) => {
                self.depth -= 1;
                self.in_text = false;
                if self.depth > 0 {
                    self.hash.update([CLOSE]);
                }
            }
            Event::Text(_, _) if self.depth < 2 => return Err(CanonicalError::Unbalanced),
            Event::Text(_, text) if text.contains('\r') => return Err(CanonicalError::Space),
            // It makes no difference into how many parts a text is cut.
            Event::Text(_, text) => {
                if !std::mem::replace(&mut self.in_text, true) {
                    self.hash.update([TEXT]);
                }
                self.hash.update(text.as_bytes());
            }
        }
        Ok(())
    }

    fn word(&mut self, kind: u8, words: &[&str]) {
        self.hash.update([kind]);
        for word in words {
            self.hash.update(word.as_bytes());
            self.hash.update([END]);
        }
    }

    fn finish(self) -> Result<Digest, CanonicalError> {
        if self.depth != 0 || self.stanzas != 1 {
            return Err(CanonicalError::Unbalanced);
        }
        Ok(self.hash.finalize().into())
    }
}

/// A stanza is in `jabber:client` for some servers and in `jabber:server` for others.
fn namespace(name: &str) -> &str {
    if name == SERVER { CLIENT } else { name }
}

/// What a reader of this text would have changed already: a carriage return anywhere, or other white space
/// than spaces in a tag, where it is in a value but for writers that break lines between attributes.
fn has_doubtful_space(xml: &[u8]) -> bool {
    let (mut in_tag, mut quote) = (false, None);
    xml.iter().any(|byte| {
        match (byte, quote) {
            (b'<', None) => in_tag = true,
            (b'>', None) => in_tag = false,
            (b'\'' | b'"', None) if in_tag => quote = Some(*byte),
            (byte, Some(open)) if *byte == open => quote = None,
            _ => {}
        }
        *byte == b'\r' || in_tag && matches!(byte, b'\t' | b'\n')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn same(a: &str, b: &str) {
        assert_eq!(
            canonical(a.as_bytes()).expect("a form"),
            canonical(b.as_bytes()).expect("a form")
        );
    }

    #[track_caller]
    fn different(a: &str, b: &str) {
        assert_ne!(
            canonical(a.as_bytes()).expect("a form"),
            canonical(b.as_bytes()).expect("a form")
        );
    }

    #[test]
    fn what_servers_write_otherwise_is_the_same() {
        same("<message a='1' b='2'/>", "<message b=\"2\"  a='&#49;'></message>");
        same("<message/>", "<message xmlns='jabber:client'/>");
        same("<message xmlns='jabber:server'/>", "<message xmlns='jabber:client'/>");
        same("<m><x xmlns='u'><y/></x></m>", "<m><x xmlns='u'><y xmlns='u'/></x></m>");
        same("<m><p:x xmlns:p='u' p:a='1'/></m>", "<m><q:x xmlns:q='u' q:a='1'/></m>");
        same("<m><p:x xmlns:p='u' p:a='1'/></m>", "<m xmlns:p='u'><x xmlns='u' p:a='1'/></m>");
        same("<m>a<![CDATA[<]]></m>", "<m>a&lt;</m>");
        same("<m></m>", "<m/>");
        same("<m>a\nb\tc</m>", "<m>a&#10;b&#9;c</m>");
        same("<m a='>'>\n</m>", "<m a='&gt;'>\n</m>");
    }

    #[test]
    fn what_a_client_would_see_otherwise_is_different() {
        different("<message>a</message>", "<message>b</message>");
        different("<m a='1'/>", "<m a='2'/>");
        different("<m a='1'/>", "<m b='1'/>");
        different("<m a='1'/>", "<m/>");
        different("<m xml:lang='en'/>", "<m lang='en'/>");
        different("<m><x/></m>", "<m><x xmlns='u'/></m>");
        different("<m><x xmlns='u'><y/></x></m>", "<m><x xmlns='u'><y xmlns=''/></x></m>");
        different("<m><x xmlns:p='u' a='1'/></m>", "<m><x xmlns:p='u' p:a='1'/></m>");
        different("<m><x/><y/></m>", "<m><x><y/></x></m>");
        different("<m>a<x/></m>", "<m><x/>a</m>");
        different("<m>a<x/>b</m>", "<m>ab<x/></m>");
        different("<m>a\n<x/>\n</m>", "<m>a\n<x/></m>");
        different("<m> </m>", "<m/>");
        different("<m a='' b=''/>", "<m a=''/>");
    }

    #[test]
    fn a_long_text_has_a_form_and_does_not_depend_on_how_it_is_cut() {
        let text = "x&amp;\n".repeat(50_000);
        let entity = "x&#38;\n".repeat(50_000);
        same(&format!("<m>{text}</m>"), &format!("<m>{entity}</m>"));
    }

    #[test]
    fn what_servers_read_differently_has_no_form() {
        for text in [
            "<m>a\rb</m>",
            "<m>a\r\nb</m>",
            "<m>a&#13;b</m>",
            "<m a='x\ny'/>",
            "<m a='x\ty'/>",
            "<m a='x\ry'/>",
            "<m a='>\n'/>",
            "<m a=\"'>\n\"/>",
            "<m a='x&#10;y'/>",
            "<m a='x&#9;y'/>",
            "<m a='x&#xd;y'/>",
            "<m><x a='x\ny'/></m>",
        ] {
            assert_eq!(canonical(text.as_bytes()), Err(CanonicalError::Space), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_one_element_of_xml_has_no_form() {
        let of = |text: &str| canonical(text.as_bytes());
        for text in [
            "<p:m/>",
            "<m><x xmlns:p='u'/><p:y/></m>",
            "<m a='1' a='2'/>",
            "<m xmlns:p='u' xmlns:q='u' p:a='1' q:a='1'/>",
            "<m>\u{4}</m>",
            "<m>&#0;</m>",
            "<m a='&#1;'/>",
            "<m>&other;</m>",
            "<!DOCTYPE m><m/>",
            "<?xml version='1.0'?><m/>",
            "<m><!-- why --></m>",
            "</m>",
            "</s>",
            "<m></x>",
        ] {
            assert!(matches!(of(text), Err(CanonicalError::Xml(_))), "{text}: {:?}", of(text));
        }
        for text in ["<m/><m/>", "<m/>a", " <m/>", "a", ""] {
            assert_eq!(of(text), Err(CanonicalError::Unbalanced), "{text}");
        }
        assert!(of("<m>").is_err());
        assert!(of("<m").is_err());
        assert!(canonical(b"<m>\xff</m>").is_err());
        let long = format!("<m a='{}'/>", "x".repeat(MAX_TOKEN + 1));
        assert!(matches!(of(&long), Err(CanonicalError::Xml(_))));
        let deep = |n| "<m>".repeat(n) + &"</m>".repeat(n);
        assert!(of(&deep(MAX_DEPTH)).is_ok());
        assert_eq!(of(&deep(MAX_DEPTH + 1)), Err(CanonicalError::Deep));
    }
}
