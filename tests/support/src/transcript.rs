//! What somebody has received, in order, and waiting for more of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout_at};
use tokio_xmpp::minidom::Element;

/// A stanza (or another top-level element) as it was received.
#[derive(Clone, Debug)]
pub struct Received {
    /// The element, with nothing added or taken away.
    pub element: Element,
    /// When it was complete.
    pub at: Instant,
}

impl Received {
    /// It as text. The notation is ours, not the server's.
    pub fn xml(&self) -> String {
        String::from(&self.element)
    }

    /// The text of its `<body/>`.
    pub fn body(&self) -> Option<String> {
        self.child("body").map(Element::text)
    }

    /// Its first child of this name and its own namespace.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.element.children().find(|c| c.name() == name && c.ns() == self.element.ns())
    }

    /// An attribute, or the empty text.
    pub fn attr<'a>(&'a self, name: &'a str) -> &'a str {
        self.element.attr(name).unwrap_or_default()
    }

    /// Whether it is a stanza of this name, type and sender. An absent `type` is the empty
    /// text.
    pub fn is(&self, name: &str, kind: &str, from: &str) -> bool {
        self.element.name() == name && self.attr("type") == kind && self.attr("from") == from
    }

    /// The status codes of its `muc#user` element, in order.
    pub fn statuses(&self) -> Vec<u16> {
        let user = self.element.get_child("x", "http://jabber.org/protocol/muc#user");
        let codes = user.into_iter().flat_map(Element::children);
        codes
            .filter(|child| child.name() == "status")
            .filter_map(|status| status.attr("code")?.parse().ok())
            .collect()
    }
}

/// The growing list of what was received.
#[derive(Clone)]
pub struct Transcript {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    pages: Mutex<Pages>,
    length: watch::Sender<u64>,
}

#[derive(Default)]
struct Pages {
    received: Vec<Received>,
    /// Before this index everything has been dealt with.
    mark: usize,
    /// How many have come, kept or not.
    count: u64,
    counting_only: bool,
    last: Option<Instant>,
    end: Option<String>,
    /// How many stanzas stream management is to say that we have.
    handled: u32,
}

impl Transcript {
    /// An empty one for somebody called `name`, which appears in errors.
    pub fn new(name: &str) -> Self {
        let (length, _) = watch::channel(0);
        let pages = Mutex::default();
        Self { inner: Arc::new(Inner { name: name.to_owned(), pages, length }) }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.inner.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what just came.
    pub fn push(&self, element: Element) {
        let mut pages = self.pages();
        let at = Instant::now();
        pages.count += 1;
        pages.last = Some(at);
        if !pages.counting_only {
            pages.received.push(Received { element, at });
        }
        drop(pages);
        self.inner.length.send_modify(|length| *length += 1);
    }

    /// Nothing more will come, and why.
    pub fn end(&self, why: String) {
        self.pages().end.get_or_insert(why);
        self.inner.length.send_modify(|length| *length += 1);
    }

    /// A new connection goes on with this transcript.
    pub(crate) fn reopen(&self) {
        self.pages().end = None;
    }

    pub(crate) fn handled(&self) -> u32 {
        self.pages().handled
    }

    pub(crate) fn set_handled(&self, handled: u32) {
        self.pages().handled = handled;
    }

    /// Why nothing more comes, if so.
    pub fn ended(&self) -> Option<String> {
        self.pages().end.clone()
    }

    /// Everything so far.
    pub fn received(&self) -> Vec<Received> {
        self.pages().received.clone()
    }

    /// Looks through everything so far without copying it.
    pub fn with<T>(&self, look: impl FnOnce(&[Received]) -> T) -> T {
        look(&self.pages().received)
    }

    /// Takes out everything so far as soon as there is something, or nothing after `limit` or when
    /// the connection has ended. For who reads everything once, and cannot keep it for hours.
    pub async fn take(&self, limit: Duration) -> Vec<Received> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut length = self.inner.length.subscribe();
        loop {
            length.borrow_and_update();
            {
                let mut pages = self.pages();
                if !pages.received.is_empty() || pages.end.is_some() {
                    pages.mark = 0;
                    return std::mem::take(&mut pages.received);
                }
            }
            if timeout_at(deadline, length.changed()).await.is_err() {
                return Vec::new();
            }
        }
    }

    /// How many elements have come, and when the last one did.
    pub fn count(&self) -> (u64, Option<Instant>) {
        let pages = self.pages();
        (pages.count, pages.last)
    }

    /// Keeps everything (as from the start), or only counts.
    pub fn set_recording(&self, recording: bool) {
        self.pages().counting_only = !recording;
    }

    /// From now on [`Transcript::wait_for`] looks only at what comes after this.
    pub fn mark(&self) {
        let mut pages = self.pages();
        pages.mark = pages.received.len();
    }

    /// Forgets everything so far, the count too.
    pub fn clear(&self) {
        let mut pages = self.pages();
        pages.received.clear();
        (pages.mark, pages.count, pages.last) = (0, 0, None);
    }

    /// The first element since the mark that `wanted` accepts, now or within `limit`.
    pub async fn wait_for(
        &self,
        wanted: impl Fn(&Received) -> bool,
        limit: Duration,
    ) -> Result<Received> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut length = self.inner.length.subscribe();
        let mut seen = 0;
        loop {
            length.borrow_and_update();
            {
                let pages = self.pages();
                let from = pages.mark.max(seen);
                let fresh = pages.received.get(from..).unwrap_or_default();
                if let Some(found) = fresh.iter().find(|r| wanted(r)) {
                    return Ok(found.clone());
                }
                seen = pages.received.len();
                if let Some(why) = &pages.end {
                    bail!("{}: {why}, while waiting", self.inner.name);
                }
            }
            if timeout_at(deadline, length.changed()).await.is_err() {
                bail!(
                    "{} waited {limit:?} in vain; the last of what came:\n{}",
                    self.inner.name,
                    self.tail(10)
                );
            }
        }
    }

    /// Waits until `done` holds for the number of elements that came.
    pub async fn wait_count(&self, done: impl Fn(u64) -> bool, limit: Duration) -> Result<()> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut length = self.inner.length.subscribe();
        loop {
            length.borrow_and_update();
            let (count, _) = self.count();
            if done(count) {
                return Ok(());
            }
            if let Some(why) = self.ended() {
                bail!("{}: {why}, with {count} received", self.inner.name);
            }
            if timeout_at(deadline, length.changed()).await.is_err() {
                bail!("{} has {count} after {limit:?}", self.inner.name);
            }
        }
    }

    /// Waits until nothing has come for `still`.
    pub async fn quiet(&self, still: Duration) {
        let begin = Instant::now();
        loop {
            let last = self.count().1.map_or(begin, |last| last.max(begin));
            if last.elapsed() >= still || self.ended().is_some() {
                return;
            }
            sleep_until((last + still).into()).await;
        }
    }

    /// The last few elements as text, for errors.
    pub fn tail(&self, number: usize) -> String {
        self.with(|received| {
            let from = received.len().saturating_sub(number);
            received[from..].iter().map(|r| format!("  {}\n", r.xml())).collect()
        })
    }
}
