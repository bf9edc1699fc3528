//! Cutting an XML stream into its top-level elements without changing a byte of it.

use anyhow::{Context, Result};
use rxml::{Parse, RawEvent, RawParser};

/// One piece of a stream, with its bytes as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The stream header, with an XML declaration if there was one.
    Header {
        /// Its bytes.
        xml: String,
        /// Its attributes without prefix (`to`, `from`, `id`).
        attributes: Vec<(String, String)>,
    },
    /// A complete element: a stanza, or something of the stream itself.
    Element {
        /// The name without prefix.
        name: String,
        /// Its bytes.
        xml: String,
    },
    /// White space between elements.
    Space(usize),
    /// The end of the stream.
    Footer,
}

impl Frame {
    /// Whether this is a message, presence or iq.
    pub fn is_stanza(&self) -> bool {
        matches!(self, Self::Element { name, .. } if matches!(&**name, "message" | "presence" | "iq"))
    }
}

/// The tokenizer, fed with bytes as they arrive.
pub struct Framer {
    parser: RawParser,
    /// Bytes received and not yet given out in a frame.
    pending: Vec<u8>,
    /// Up to where `pending` has been given out.
    taken: usize,
    /// Up to where the parser has made events of `pending`.
    parsed: usize,
    depth: usize,
    name: String,
    attributes: Vec<(String, String)>,
}

impl Default for Framer {
    fn default() -> Self {
        Self::new()
    }
}

impl Framer {
    /// Ready for the header of a new stream.
    pub fn new() -> Self {
        Self {
            parser: RawParser::new(),
            pending: Vec::new(),
            taken: 0,
            parsed: 0,
            depth: 0,
            name: String::new(),
            attributes: Vec::new(),
        }
    }

    /// Takes in `bytes` and gives back every frame that is complete now.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Frame>> {
        self.pending.extend_from_slice(bytes);
        let mut frames = Vec::new();
        let mut rest = bytes;
        loop {
            match self.parser.parse(&mut rest, false) {
                Ok(Some(event)) => self.event(event, &mut frames)?,
                Ok(None) => break,
                Err(rxml::error::EndOrError::NeedMoreData) => break,
                Err(rxml::error::EndOrError::Error(e)) => {
                    return Err(e).with_context(|| {
                        format!("not XML: {:?}", String::from_utf8_lossy(&self.pending))
                    });
                }
            }
        }
        self.pending.drain(..self.taken);
        self.parsed -= self.taken;
        self.taken = 0;
        Ok(frames)
    }

    fn event(&mut self, event: RawEvent, frames: &mut Vec<Frame>) -> Result<()> {
        self.parsed += event.metrics().len();
        match event {
            RawEvent::XmlDeclaration(..) => {}
            RawEvent::ElementHeadOpen(_, (_, name)) => {
                self.depth += 1;
                if self.depth <= 2 {
                    self.name = name.to_string();
                    self.attributes.clear();
                }
            }
            RawEvent::Attribute(_, (prefix, name), value) => {
                if self.depth == 1 && prefix.is_none() {
                    self.attributes.push((name.to_string(), value.to_string()));
                }
            }
            RawEvent::ElementHeadClose(_) => {
                if self.depth == 1 {
                    let xml = self.take()?;
                    frames.push(Frame::Header { xml, attributes: self.attributes.clone() });
                }
            }
            RawEvent::Text(..) => {
                if self.depth <= 1 {
                    frames.push(Frame::Space(self.take()?.len()));
                }
            }
            RawEvent::ElementFoot(_) => {
                self.depth -= 1;
                match self.depth {
                    0 => {
                        self.take()?;
                        frames.push(Frame::Footer);
                    }
                    1 => {
                        let xml = self.take()?;
                        frames.push(Frame::Element { name: std::mem::take(&mut self.name), xml });
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Result<String> {
        let bytes = self.pending.get(self.taken..self.parsed).unwrap_or_default().to_vec();
        self.taken = self.parsed;
        String::from_utf8(bytes).context("not UTF-8")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
        xmlns:stream='http://etherx.jabber.org/streams' to='b.test' from='a.test'>\
        <stream:features/> <message to='x@b.test'><body>a &lt; b ]]&gt; <i>ü</i></body></message>\n\
        <iq/><message/></stream:stream>";

    fn frames(chunk: usize) -> Vec<Frame> {
        let mut framer = Framer::new();
        STREAM
            .as_bytes()
            .chunks(chunk)
            .flat_map(|bytes| framer.push(bytes).expect("well-formed"))
            .collect()
    }

    #[test]
    fn a_stream_is_cut_at_the_same_places_however_it_arrives() {
        let spaceless = |frames: Vec<Frame>| -> Vec<Frame> {
            frames.into_iter().filter(|f| !matches!(f, Frame::Space(_))).collect()
        };
        let whole = spaceless(frames(STREAM.len()));
        assert_eq!(whole.len(), 6);
        for chunk in 1..STREAM.len() {
            assert_eq!(spaceless(frames(chunk)), whole, "chunks of {chunk}");
        }
    }

    #[test]
    fn an_element_keeps_its_bytes() {
        assert!(frames(7).contains(&Frame::Element {
            name: "message".into(),
            xml: "<message to='x@b.test'><body>a &lt; b ]]&gt; <i>ü</i></body></message>".into()
        }));
    }

    #[test]
    fn the_header_gives_its_attributes() {
        let Some(Frame::Header { attributes, .. }) = frames(3).into_iter().next() else {
            panic!("no header first");
        };
        assert!(attributes.contains(&("to".into(), "b.test".into())));
    }
}
