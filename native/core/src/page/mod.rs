//! The page for people: rooms, where their links go, and what was saved over time.
//!
//! Both servers give out the same files and the same document; each only makes sure that whoever asks may
//! see it. The page fetches the document every few seconds and draws it. What stands in the document
//! (names of rooms, reasons) was written by strangers: the script puts it into text nodes only, and the
//! browser is told to run nothing that is not one of these files.

mod document;

pub use document::{Query, Report};

use crate::Millis;

/// The name of the document, below the page's own address.
pub const DOCUMENT: &str = "data.json";

const FILES: &[(&str, &str, &str)] = &[
    ("", "text/html; charset=utf-8", include_str!("index.html")),
    ("page.css", "text/css; charset=utf-8", include_str!("page.css")),
    ("format.js", "text/javascript; charset=utf-8", include_str!("format.js")),
    ("chart.js", "text/javascript; charset=utf-8", include_str!("chart.js")),
    ("tree.js", "text/javascript; charset=utf-8", include_str!("tree.js")),
    ("page.js", "text/javascript; charset=utf-8", include_str!("page.js")),
    ("icon.svg", "image/svg+xml", include_str!("icon.svg")),
];

/// What every answer says besides its type: nothing from elsewhere, nothing inline, in no frame, and not to
/// be kept by anybody.
const HEADERS: &[(&str, &str)] = &[
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
];

/// An answer over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 200 or 404.
    pub status: u16,
    /// Type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: std::borrow::Cow<'static, str>,
}

impl Response {
    /// All headers but those of the transport.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        std::iter::once(("Content-Type", self.content_type)).chain(HEADERS.iter().copied())
    }
}

/// The file of this name, which is empty for the page itself.
pub fn file(name: &str) -> Response {
    match FILES.iter().find(|(known, ..)| *known == name) {
        Some((_, content_type, text)) => {
            Response { status: 200, content_type, body: (*text).into() }
        }
        None => Response {
            status: 404,
            content_type: "text/plain; charset=utf-8",
            body: "Not found\n".into(),
        },
    }
}

/// The document: what there is to be seen of these hosts.
pub fn document(now: Millis, query: &Query<'_>, reports: &[Report<'_>]) -> Response {
    let body = document::write(now, query, reports).to_string().into();
    Response { status: 200, content_type: "application/json", body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_files_that_are_there_and_none_from_elsewhere() {
        assert!(file("page.js").body.contains(DOCUMENT));
        let named = |text: &str, name: &str| {
            let whole = [format!("\"{name}\""), format!("\"./{name}\"")];
            whole.iter().any(|quoted| text.contains(quoted))
        };
        for (name, ..) in FILES.iter().skip(1) {
            assert!(FILES.iter().any(|(_, _, text)| named(text, name)), "{name} is not used");
        }
        for part in FILES.iter().flat_map(|(_, _, text)| text.split('"')) {
            let is_file = [".js", ".css", ".svg"].iter().any(|end| part.ends_with(end));
            assert!(!is_file || file(part.trim_start_matches("./")).status == 200, "{part}");
        }
        for (name, _, text) in FILES {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http:") && !text.contains("https:"), "{name}");
            for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
            {
                assert!(!text.contains(word), "{name}: {word}");
            }
        }
    }

    #[test]
    fn what_is_not_there_is_not_found_under_the_same_rules() {
        for name in ["x", "../mod.rs", "PAGE.JS", "page.js/"] {
            let response = file(name);
            assert_eq!(response.status, 404, "{name}");
            let policy = response.headers().find(|(name, _)| *name == "Content-Security-Policy");
            let (_, policy) = policy.expect("a policy");
            assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"));
        }
    }
}
