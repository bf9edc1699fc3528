//! From a TCP connection to a session.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{SinkExt, StreamExt};
use tokio::io::BufStream;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_xmpp::minidom::Element;
use tokio_xmpp::parsers::sasl::Nonza;
use tokio_xmpp::xmlstream::{StreamHeader, Timeouts, XmlStream, XmppStream, initiate_stream};

use super::PATIENCE;
use crate::xml;

/// A stream that carries whatever XML there is.
pub(super) type Stream = XmlStream<BufStream<TcpStream>, Element>;

/// A day: tests freeze servers, and a client must not give up on them by itself.
const TIMEOUTS: Timeouts = Timeouts {
    read_timeout: Duration::from_secs(86_400),
    response_timeout: Duration::from_secs(86_400),
};

/// Connects and authenticates `bare`. PLAIN, because a thousand logins with SCRAM would be
/// a benchmark of hashing.
pub(super) async fn authenticate(address: SocketAddr, bare: &str) -> Result<Stream> {
    timeout(PATIENCE, authenticate_inner(address, bare)).await.context("no answer")?
}

async fn authenticate_inner(address: SocketAddr, bare: &str) -> Result<Stream> {
    use tokio_xmpp::parsers::sasl::{Auth, Mechanism};
    use tokio_xmpp::xmlstream::XmppStreamElement;

    let (user, domain) = bare.split_once('@').context("no user name")?;
    let header = || StreamHeader { to: Some(domain.into()), from: None, id: None };
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let stream =
        initiate_stream(BufStream::new(socket), "jabber:client", header(), TIMEOUTS).await?;
    let (features, mut stream): (_, XmppStream<_>) = stream.recv_features().await?;
    if !features.sasl_mechanisms.contains("PLAIN") {
        bail!("the server offers {:?} and not PLAIN", features.sasl_mechanisms);
    }
    let data = format!("\0{user}\0{user}").into_bytes();
    let auth = Nonza::Auth(Auth { mechanism: Mechanism::Plain, data });
    stream.send(&XmppStreamElement::Sasl(auth)).await?;
    match stream.next().await.context("the connection ended")? {
        Ok(answer) => match answer.into_read_error()? {
            XmppStreamElement::Sasl(Nonza::Success(_)) => {}
            other => bail!("authentication failed: {other:?}"),
        },
        Err(error) => bail!("authentication failed: {error}"),
    }
    let (_, stream) = stream.initiate_reset().send_header(header()).await?.recv_features().await?;
    Ok(stream)
}

/// Sends `request` and gives back the first answer that `wanted` accepts.
async fn ask(
    stream: &mut Stream,
    request: &str,
    wanted: impl Fn(&Element) -> bool,
) -> Result<Element> {
    stream.send(&xml::parse(request, "jabber:client")?).await?;
    let answer = async {
        loop {
            let element = stream.next().await.context("the connection ended")??;
            if wanted(&element) {
                return anyhow::Ok(element);
            }
        }
    };
    timeout(PATIENCE, answer).await.context("no answer")?
}

/// Binds a resource; the full address.
pub(super) async fn bind(stream: &mut Stream, resource: &str) -> Result<String> {
    let request = format!(
        "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <resource>{}</resource></bind></iq>",
        xml::escape(resource)
    );
    let answer = ask(stream, &request, |e| e.attr("id") == Some("bind")).await?;
    let bind = "urn:ietf:params:xml:ns:xmpp-bind";
    match answer.get_child("bind", bind).and_then(|b| b.get_child("jid", bind)) {
        Some(jid) => Ok(jid.text()),
        None => bail!("no resource bound: {}", String::from(&answer)),
    }
}

const SM: &str = "urn:xmpp:sm:3";

/// Turns stream management on; the id to resume with.
pub(super) async fn enable(stream: &mut Stream) -> Result<String> {
    let request = format!("<enable xmlns='{SM}' resume='true'/>");
    let answer = ask(stream, &request, |e| e.ns() == SM).await?;
    match answer.attr("id") {
        Some(id) if answer.name() == "enabled" => Ok(id.to_owned()),
        _ => bail!("no stream management: {}", String::from(&answer)),
    }
}

/// Resumes a session instead of binding a resource.
pub(super) async fn resume(stream: &mut Stream, id: &str, handled: u32) -> Result<()> {
    let request = format!("<resume xmlns='{SM}' previd='{}' h='{handled}'/>", xml::escape(id));
    let answer = ask(stream, &request, |e| e.ns() == SM && e.name() != "r").await?;
    match answer.name() {
        "resumed" => Ok(()),
        _ => bail!("the session is not resumed: {}", String::from(&answer)),
    }
}
