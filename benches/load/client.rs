//! One keep-alive connection that sends prepared bytes and reads one response at a time. The same code loads the echo
//! and the node. It is as light as a client can be: one write, one read and one search per request.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Result;
use crate::wire::{self, Length};

const BUFFER_BYTES: usize = 16 * 1024;

/// A connection to one server. Not pipelined, so a response always belongs to the last request.
pub(crate) struct Client {
    stream: TcpStream,
    address: SocketAddr,
    received: Vec<u8>,
    dechunked: Vec<u8>,
    closed: bool,
}

/// Response to the last request.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

impl Answer<'_> {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Status and the beginning of the body, for an error message.
    pub(crate) fn describe(&self) -> String {
        let start = self.body.get(..300).unwrap_or(self.body);
        format!("{} {}", self.status, String::from_utf8_lossy(start))
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        Ok(Self {
            stream: open(address).await?,
            address,
            received: Vec::with_capacity(BUFFER_BYTES),
            dechunked: Vec::new(),
            closed: false,
        })
    }

    /// Sends a request and waits for its complete response.
    pub(crate) async fn send(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        if self.closed {
            self.stream = open(self.address).await?;
            self.closed = false;
        }
        self.received.clear();
        self.stream.write_all(request).await?;
        let head = loop {
            self.read_more().await?;
            if let Some(head) = wire::head(&self.received)? {
                break head;
            }
        };
        self.closed = head.closes;
        match head.length {
            Length::Bytes(length) => {
                let end = head.body_at + length;
                while self.received.len() < end {
                    self.read_more().await?;
                }
                Ok(Answer {
                    status: head.status,
                    body: &self.received[head.body_at..end],
                })
            }
            Length::Chunked => {
                while wire::dechunk(&self.received[head.body_at..], &mut self.dechunked)?.is_none()
                {
                    self.read_more().await?;
                }
                Ok(Answer {
                    status: head.status,
                    body: &self.dechunked,
                })
            }
        }
    }

    /// Sends a request that must succeed; for preparation, not for load.
    pub(crate) async fn must(&mut self, request: &[u8]) -> Result<Vec<u8>> {
        let answer = self.send(request).await?;
        if answer.is_success() {
            return Ok(answer.body.to_vec());
        }
        let line = request
            .split(|byte| *byte == b'\r')
            .next()
            .unwrap_or_default();
        Err(format!("{}: {}", String::from_utf8_lossy(line), answer.describe()).into())
    }

    async fn read_more(&mut self) -> Result<()> {
        self.received.reserve(BUFFER_BYTES / 4);
        if self.stream.read_buf(&mut self.received).await? == 0 {
            self.closed = true;
            return Err("the server closed the connection in the middle of a response".into());
        }
        Ok(())
    }
}

async fn open(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
