//! Many users of one server who only listen and count: a client that keeps what it hears, as
//! [`Client`](crate::Client) does, would take the machine from the servers that are measured.

mod scanner;

use std::collections::HashSet;
use std::iter::once;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::scanner::Scanner;
pub use self::scanner::{Heard, mark};
use crate::Server;

/// How long the next thing that is due may take: a storm can keep a server busy for long.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many logins a server is asked to do at the same time.
const AT_ONCE: usize = 50;

/// Users of one server, each with one session: at its domains in turn.
pub struct Crowd {
    members: Vec<Member>,
    events: UnboundedReceiver<Event>,
    stanzas: Arc<AtomicU64>,
    _readers: JoinSet<()>,
}

struct Member {
    name: String,
    write: OwnedWriteHalf,
}

struct Event {
    who: usize,
    what: Result<Heard, String>,
    at: Instant,
}

impl Crowd {
    /// Logs in `count` users, whose names begin with `prefix`; accounts are made for them.
    pub async fn log_in(server: &Server, prefix: &str, count: usize) -> Result<Self> {
        let names: Vec<String> = (0..count).map(|n| format!("{prefix}{n:04}")).collect();
        let domains: Vec<String> =
            once(server.domain()).chain(server.spec().further_hosts()).collect();
        for (n, domain) in domains.iter().enumerate() {
            let own: Vec<&String> = names.iter().skip(n).step_by(domains.len()).collect();
            server.register_at(domain, &own).await?;
        }
        let users = names.iter().zip(domains.iter().cycle());
        let logins: Vec<_> = users.map(|(name, domain)| log_in(server, domain, name)).collect();
        let sockets: Vec<TcpStream> = stream::iter(logins).buffered(AT_ONCE).try_collect().await?;
        let (tell, events) = mpsc::unbounded_channel();
        let stanzas = Arc::new(AtomicU64::new(0));
        let mut readers = JoinSet::new();
        let mut members = Vec::new();
        for (who, (name, socket)) in names.into_iter().zip(sockets).enumerate() {
            let (read, write) = socket.into_split();
            readers.spawn(listen(who, read, stanzas.clone(), tell.clone()));
            members.push(Member { name, write });
        }
        Ok(Self { members, events, stanzas, _readers: readers })
    }

    /// Messages and presences that they have received in all.
    pub fn stanzas(&self) -> u64 {
        self.stanzas.load(Ordering::Relaxed)
    }

    /// Lets some of them into a room under their user names, with at most `at_once` who wait to be
    /// in it; when each was in.
    pub async fn enter(
        &mut self,
        room: &str,
        who: Range<usize>,
        at_once: usize,
    ) -> Result<Vec<Instant>> {
        let mut entered = Vec::with_capacity(who.len());
        let mut waiting = 0;
        for n in who {
            let member = &mut self.members[n];
            let join = format!(
                "<presence to='{room}/{}'><x xmlns='http://jabber.org/protocol/muc'/></presence>",
                member.name
            );
            member.write.write_all(join.as_bytes()).await?;
            waiting += 1;
            while waiting >= at_once {
                entered.push(self.next(&Heard::Own).await?.1);
                waiting -= 1;
            }
        }
        for _ in 0..waiting {
            entered.push(self.next(&Heard::Own).await?.1);
        }
        Ok(entered)
    }

    /// The name of one of them.
    pub fn name(&self, who: usize) -> &str {
        &self.members[who].name
    }

    /// One of them sends a stanza.
    pub async fn send(&mut self, who: usize, xml: &str) -> Result<()> {
        Ok(self.members[who].write.write_all(xml.as_bytes()).await?)
    }

    /// Waits until these of them have heard something; when the last of them did.
    pub async fn all_hear(
        &mut self,
        wanted: &Heard,
        who: impl IntoIterator<Item = usize>,
    ) -> Result<Instant> {
        let mut waiting: HashSet<usize> = who.into_iter().collect();
        let mut last = None;
        while !waiting.is_empty() {
            let (who, at) = self.next(wanted).await?;
            if waiting.remove(&who) {
                last = last.max(Some(at));
            }
        }
        last.context("nobody listens")
    }

    /// Who has heard it next, and when.
    async fn next(&mut self, wanted: &Heard) -> Result<(usize, Instant)> {
        loop {
            let event = timeout(PATIENCE, self.events.recv())
                .await
                .with_context(|| format!("nobody has heard {wanted:?} for {PATIENCE:?}"))?
                .context("all have gone")?;
            let name = &self.members[event.who].name;
            match event.what {
                Ok(Heard::Error(error)) => bail!("{name} received an error: {error}"),
                Ok(heard) if heard == *wanted => return Ok((event.who, event.at)),
                Ok(_) => {}
                Err(why) => bail!("{name} has gone: {why}"),
            }
        }
    }

    /// Waits until nobody has received a stanza for so long.
    pub async fn quiet(&self, still: Duration) {
        let (mut before, mut since) = (self.stanzas(), Instant::now());
        while since.elapsed() < still {
            sleep(Duration::from_millis(20)).await;
            let now = self.stanzas();
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
    }

    /// Forgets what was heard and not waited for.
    pub fn forget(&mut self) {
        while self.events.try_recv().is_ok() {}
    }
}

/// Reads until the connection ends.
async fn listen(
    who: usize,
    mut read: impl tokio::io::AsyncRead + Unpin,
    stanzas: Arc<AtomicU64>,
    tell: UnboundedSender<Event>,
) {
    let mut scanner = Scanner::default();
    let mut buffer = vec![0; 16 * 1024];
    let why = loop {
        let length = match read.read(&mut buffer).await {
            Ok(0) => break "the server has closed".to_owned(),
            Ok(length) => length,
            Err(error) => break error.to_string(),
        };
        let (at, before) = (Instant::now(), scanner.stanzas);
        scanner.push(&buffer[..length], |heard| {
            // Nobody listens any more when the crowd is dropped.
            let _ = tell.send(Event { who, what: Ok(heard), at });
        });
        stanzas.fetch_add(scanner.stanzas - before, Ordering::Relaxed);
    };
    let _ = tell.send(Event { who, what: Err(why), at: Instant::now() });
}

/// Connects, authenticates with the user's name as password, binds a resource, and is available.
async fn log_in(server: &Server, domain: &str, name: &str) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(server.c2s()).await?;
    socket.set_nodelay(true)?;
    let header = format!(
        "<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams'>"
    );
    let plain = BASE64_STANDARD.encode(format!("\0{name}\0{name}"));
    let auth =
        format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>");
    let bind = "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                <resource>r</resource></bind></iq>";
    let steps = async {
        ask(&mut socket, &header, "</stream:features>").await?;
        ask(&mut socket, &auth, "<success").await?;
        ask(&mut socket, &header, "</stream:features>").await?;
        ask(&mut socket, bind, "</bind>").await?;
        // The server sends it back to him, too.
        ask(&mut socket, "<presence/>", "<presence").await
    };
    timeout(PATIENCE, steps)
        .await
        .context("no answer")?
        .with_context(|| format!("{name} cannot log in"))?;
    Ok(socket)
}

/// Sends something and reads until the answer holds `wanted`.
async fn ask(socket: &mut TcpStream, request: &str, wanted: &str) -> Result<()> {
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    let mut buffer = [0; 4096];
    while !answer.contains(wanted) {
        let length = socket.read(&mut buffer).await?;
        if length == 0 || answer.contains("<failure") {
            bail!("{answer}");
        }
        answer += &String::from_utf8_lossy(&buffer[..length]);
    }
    Ok(())
}
