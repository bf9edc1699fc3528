//! The task that owns a client's connection.

use futures::{SinkExt, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_xmpp::minidom::Element;
use tokio_xmpp::xmlstream::ReadError;

use super::login::Stream;
use crate::transcript::Transcript;
use crate::xml;

/// What a client asks of its connection.
pub(super) enum Order {
    /// Send this.
    Send(Element),
    /// End the stream, then close.
    Close(oneshot::Sender<()>),
    /// Close.
    Abort(oneshot::Sender<()>),
}

/// Runs until the connection ends. `handled` is where stream management counts from, if it
/// is on.
pub(super) async fn run(
    mut stream: Stream,
    mut orders: mpsc::UnboundedReceiver<Order>,
    transcript: Transcript,
    handled: Option<u32>,
) {
    transcript.set_handled(handled.unwrap_or_default());
    let why = loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Send(element)) => {
                    if let Err(error) = stream.send(&element).await {
                        break format!("cannot send: {error}");
                    }
                }
                Some(Order::Close(done)) => {
                    close(&mut stream, &transcript).await;
                    drop(stream);
                    transcript.end("disconnected".into());
                    let _ = done.send(());
                    return;
                }
                Some(Order::Abort(done)) => {
                    drop(stream);
                    transcript.end("aborted".into());
                    let _ = done.send(());
                    return;
                }
                None => return,
            },
            item = stream.next() => match item {
                Some(Ok(element)) if element.ns() == "urn:xmpp:sm:3" => {
                    if element.name() == "r" {
                        let answer =
                            format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", transcript.handled());
                        if let Ok(answer) = xml::parse(&answer, "jabber:client")
                            && let Err(error) = stream.send(&answer).await
                        {
                            break format!("cannot send: {error}");
                        }
                    }
                }
                Some(Ok(element)) => {
                    transcript.set_handled(transcript.handled().wrapping_add(1));
                    transcript.push(element);
                }
                Some(Err(ReadError::SoftTimeout)) => {}
                Some(Err(ReadError::StreamFooterReceived)) => {
                    break "the server ended the stream".into();
                }
                Some(Err(error)) => break format!("the connection broke: {error}"),
                None => break "the connection ended".into(),
            },
        }
    };
    transcript.end(why);
}

/// Ends the stream, and still takes what the server had sent before it saw that.
async fn close(stream: &mut Stream, transcript: &Transcript) {
    let _ = SinkExt::<&Element>::close(stream).await;
    let rest = async {
        while let Some(Ok(element)) = stream.next().await {
            transcript.push(element);
        }
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), rest).await;
}
