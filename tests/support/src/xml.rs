//! Stanzas as text.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use tokio_xmpp::minidom::Element;

/// Reads one element; without a namespace of its own it is in `namespace`.
pub fn parse(xml: &str, namespace: &str) -> Result<Element> {
    let prefixes: BTreeMap<Option<String>, String> = [
        (None, namespace.to_owned()),
        (Some("stream".to_owned()), "http://etherx.jabber.org/streams".to_owned()),
        (Some("db".to_owned()), "jabber:server:dialback".to_owned()),
    ]
    .into();
    Element::from_reader_with_prefixes(xml.as_bytes(), prefixes)
        .with_context(|| format!("cannot read {xml}"))
}

/// Makes text safe for use in an attribute or between tags.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&apos;")
}

/// The domain of an address.
pub fn domain(jid: &str) -> &str {
    let bare = jid.split('/').next().unwrap_or_default();
    bare.rsplit('@').next().unwrap_or_default()
}
