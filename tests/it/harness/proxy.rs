//! A TCP proxy that can be set to misbehave, in front of Postgres or S3. The mode can change at any time and holds for
//! connections that exist already; when a blackhole ends its connections are reset, for what they swallowed is lost.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    Pass,
    /// Reset as soon as connected.
    Refuse,
    /// Accept, and never send a byte.
    Blackhole,
    /// This long before each piece in each direction.
    Latency(Duration),
    /// Reset when this many bytes of answers have passed on a connection.
    ResetAfter(usize),
    /// Close in an orderly way when this many bytes of answers have passed on a connection.
    TruncateAfter(usize),
    /// Answer each request with this text instead of asking the server.
    Answer(&'static str),
}

pub(crate) struct Proxy {
    pub(crate) at: SocketAddr,
    mode: watch::Sender<Mode>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Pass);
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connection(client, server, modes.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            at,
            mode,
            accepting,
        }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// How a connection ends before its time.
enum Cut {
    Reset,
    Close,
}

async fn connection(mut client: TcpStream, server: SocketAddr, mut modes: watch::Receiver<Mode>) {
    let mode = *modes.borrow_and_update();
    let cut = match mode {
        Mode::Refuse => Cut::Reset,
        Mode::Answer(text) => answer(&mut client, text).await,
        Mode::Blackhole => {
            modes.changed().await.ok();
            Cut::Reset
        }
        Mode::Pass | Mode::Latency(_) | Mode::ResetAfter(_) | Mode::TruncateAfter(_) => {
            relay(&mut client, server, modes).await
        }
    };
    if matches!(cut, Cut::Reset) {
        client.set_zero_linger().ok();
    }
}

/// Reads until the client has sent all of its request, which shows in nothing but a pause, then answers.
async fn answer(client: &mut TcpStream, text: &str) -> Cut {
    let mut buffer = vec![0; 64 * 1024];
    let pause = Duration::from_millis(50);
    client.readable().await.ok();
    while let Ok(Ok(1..)) = tokio::time::timeout(pause, client.read(&mut buffer)).await {}
    client.write_all(text.as_bytes()).await.ok();
    Cut::Close
}

async fn relay(client: &mut TcpStream, server: SocketAddr, modes: watch::Receiver<Mode>) -> Cut {
    let Ok(mut server) = TcpStream::connect(server).await else {
        return Cut::Reset;
    };
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let asks = pump(from_client, to_server, modes.clone(), false);
    let answers = pump(from_server, to_client, modes, true);
    tokio::try_join!(asks, answers).err().unwrap_or(Cut::Close)
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut modes: watch::Receiver<Mode>,
    is_answer: bool,
) -> Result<(), Cut> {
    let mut buffer = vec![0; 16 * 1024];
    let mut passed = 0;
    loop {
        let read = from.read(&mut buffer).await.map_err(|_| Cut::Reset)?;
        if read == 0 {
            to.shutdown().await.ok();
            return Ok(());
        }
        let mode = *modes.borrow_and_update();
        let (limit, cut) = match mode {
            Mode::ResetAfter(limit) if is_answer => (limit, Cut::Reset),
            Mode::TruncateAfter(limit) if is_answer => (limit, Cut::Close),
            Mode::Pass | Mode::ResetAfter(_) | Mode::TruncateAfter(_) => (usize::MAX, Cut::Close),
            Mode::Latency(pause) => {
                tokio::time::sleep(pause).await;
                (usize::MAX, Cut::Close)
            }
            Mode::Blackhole => {
                modes.changed().await.ok();
                return Err(Cut::Reset);
            }
            Mode::Refuse | Mode::Answer(_) => return Err(Cut::Reset),
        };
        let allowed = read.min(limit.saturating_sub(passed));
        to.write_all(&buffer[..allowed])
            .await
            .map_err(|_| Cut::Reset)?;
        passed += allowed;
        if allowed < read {
            return Err(cut);
        }
    }
}
