//! A pooler in front of Postgres, as small as one can be: it gives a client a connection to the server for its session, or
//! another one for each transaction. It has no parameters for the start of a session: it refuses them, or drops them.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

#[derive(Clone, Copy)]
pub(crate) enum Mode {
    /// A client keeps its connection; parameters are refused.
    Session,
    /// A client gets a connection for each transaction; parameters are dropped.
    Transaction,
}

const SSL_REQUEST: u32 = 80_877_103;

pub(crate) struct Pooler {
    pub(crate) port: u16,
    accepting: JoinHandle<()>,
}

/// A connection to the server, and what the server said at its start.
struct Server {
    stream: UnixStream,
    greeting: Vec<u8>,
}

#[derive(Clone)]
struct Shared {
    socket: PathBuf,
    mode: Mode,
    free: Arc<Mutex<Vec<Server>>>,
}

impl Pooler {
    /// In front of the server with its sockets in this folder.
    pub(crate) async fn before(folder: PathBuf, mode: Mode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Shared {
            socket: folder.join(".s.PGSQL.5432"),
            mode,
            free: Arc::default(),
        };
        let accepting = tokio::spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let shared = shared.clone();
                clients.spawn(async move { serve(client, shared).await });
            }
        });
        Self { port, accepting }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// `None`: the client or the server has ended the connection.
async fn serve(mut client: TcpStream, shared: Shared) -> Option<()> {
    let mut start = first_message(&mut client).await?;
    if start[4..8] == SSL_REQUEST.to_be_bytes() {
        client.write_all(b"N").await.ok()?;
        start = first_message(&mut client).await?;
    }
    let parameters: Vec<&[u8]> = start[8..].split(|byte| *byte == 0).collect();
    match shared.mode {
        Mode::Session => {
            let has = |name: &str| {
                parameters
                    .iter()
                    .step_by(2)
                    .any(|at| *at == name.as_bytes())
            };
            if let Some(name) = ["options", "extra_float_digits"]
                .into_iter()
                .find(|n| has(n))
            {
                return refuse(&mut client, name).await;
            }
            let mut server = UnixStream::connect(&shared.socket).await.ok()?;
            server.write_all(&start).await.ok()?;
            copy_bidirectional(&mut client, &mut server).await.ok()?;
            Some(())
        }
        Mode::Transaction => {
            let of = |name: &str| {
                let at = parameters
                    .iter()
                    .step_by(2)
                    .position(|at| *at == name.as_bytes());
                at.map(|at| parameters[at * 2 + 1])
            };
            let server = shared.server(of("user")?, of("database")?).await?;
            client.write_all(&server.greeting).await.ok()?;
            let (user, database) = (of("user")?.to_vec(), of("database")?.to_vec());
            shared.free.lock().push(server);
            loop {
                shared.transaction(&mut client, &user, &database).await?;
            }
        }
    }
}

/// The first message has no type.
async fn first_message(client: &mut TcpStream) -> Option<Vec<u8>> {
    let length = client.read_u32().await.ok()?;
    let mut message = length.to_be_bytes().to_vec();
    message.resize(length as usize, 0);
    client.read_exact(&mut message[4..]).await.ok()?;
    Some(message)
}

async fn message(from: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, Vec<u8>)> {
    let kind = from.read_u8().await.ok()?;
    let length = from.read_u32().await.ok()?;
    let mut message = vec![kind];
    message.extend(length.to_be_bytes());
    message.resize(1 + length as usize, 0);
    from.read_exact(&mut message[5..]).await.ok()?;
    Some((kind, message))
}

async fn refuse(client: &mut TcpStream, name: &str) -> Option<()> {
    let fields = format!("SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: {name}\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap();
    client.write_u8(b'E').await.ok()?;
    client.write_u32(length).await.ok()?;
    client.write_all(fields.as_bytes()).await.ok()
}

impl Shared {
    /// The connection that was used last, or a new one.
    async fn server(&self, user: &[u8], database: &[u8]) -> Option<Server> {
        let free = self.free.lock().pop();
        if free.is_some() {
            return free;
        }
        let mut stream = UnixStream::connect(&self.socket).await.ok()?;
        let start = [
            b"\0\x03\0\0user\0",
            user,
            b"\0database\0",
            database,
            b"\0\0",
        ]
        .concat();
        stream
            .write_u32(u32::try_from(start.len() + 4).unwrap())
            .await
            .ok()?;
        stream.write_all(&start).await.ok()?;
        let mut greeting = Vec::new();
        loop {
            let (kind, bytes) = message(&mut stream).await?;
            greeting.extend(bytes);
            if kind == b'Z' {
                return Some(Server { stream, greeting });
            }
        }
    }

    /// Passes messages until no transaction is open.
    async fn transaction(
        &self,
        client: &mut TcpStream,
        user: &[u8],
        database: &[u8],
    ) -> Option<()> {
        let mut server: Option<Server> = None;
        loop {
            let (kind, bytes) = message(client).await?;
            if kind == b'X' {
                return None;
            }
            let mut used = match server.take() {
                Some(used) => used,
                None => self.server(user, database).await?,
            };
            used.stream.write_all(&bytes).await.ok()?;
            if !b"QS".contains(&kind) {
                server = Some(used);
                continue;
            }
            loop {
                let (kind, bytes) = message(&mut used.stream).await?;
                client.write_all(&bytes).await.ok()?;
                if kind == b'Z' {
                    if bytes[5] == b'I' {
                        self.free.lock().push(used);
                        return Some(());
                    }
                    break;
                }
            }
            server = Some(used);
        }
    }
}
