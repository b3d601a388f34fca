//! A connection to Redis that is as light as the one to a node. Its RESP has what a load on streams needs: commands as
//! bytes, and replies of which the texts and the sum of the numbers are kept.

use std::io::Write as _;
use std::net::SocketAddr;
use std::ops::Range;

use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Result;

const BUFFER_BYTES: usize = 16 * 1024;

/// A connection that sends prepared commands and reads their replies.
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    texts: Vec<Range<usize>>,
}

/// Replies to the last commands.
pub(crate) struct Replies<'a> {
    received: &'a [u8],
    texts: &'a [Range<usize>],
    /// Sum of all numbers.
    pub(crate) sum: u64,
}

impl<'a> Replies<'a> {
    /// All bulk strings, at any depth.
    pub(crate) fn texts(&self) -> impl ExactSizeIterator<Item = &'a [u8]> {
        let received = self.received;
        self.texts.iter().map(move |text| &received[text.clone()])
    }
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::with_capacity(BUFFER_BYTES),
            texts: Vec::new(),
        })
    }

    /// Sends `count` commands and waits for as many replies, none of which may be an error.
    pub(crate) async fn send(&mut self, commands: &[u8], count: usize) -> Result<Replies<'_>> {
        self.received.clear();
        self.texts.clear();
        self.stream.write_all(commands).await?;
        let (mut at, mut sum, mut replies) = (0, 0, 0);
        while replies < count {
            let known = self.texts.len();
            let mut reader = Reader {
                received: &self.received,
                at,
                texts: &mut self.texts,
                sum,
            };
            if reader.read()?.is_some() {
                (at, sum) = (reader.at, reader.sum);
                replies += 1;
                continue;
            }
            self.texts.truncate(known);
            self.received.reserve(BUFFER_BYTES / 4);
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err("redis-server closed the connection".into());
            }
        }
        Ok(Replies {
            received: &self.received,
            texts: &self.texts,
            sum,
        })
    }
}

/// Reads one reply.
struct Reader<'a> {
    received: &'a [u8],
    at: usize,
    texts: &'a mut Vec<Range<usize>>,
    sum: u64,
}

impl Reader<'_> {
    /// `None` while the reply is incomplete.
    fn read(&mut self) -> Result<Option<()>> {
        let rest = &self.received[self.at..];
        let Some(line_end) = memmem::find(rest, b"\r\n") else {
            return Ok(None);
        };
        let line = std::str::from_utf8(&rest[..line_end])?;
        let (kind, value) = line.split_at_checked(1).ok_or("an empty reply")?;
        self.at += line_end + 2;
        match kind {
            "+" => {}
            ":" => self.sum += value.parse::<u64>()?,
            // A null has the length -1.
            "$" | "*" if value == "-1" => {}
            "$" => {
                let end = self.at + value.parse::<usize>()?;
                if self.received.len() < end + 2 {
                    return Ok(None);
                }
                self.texts.push(self.at..end);
                self.at = end + 2;
            }
            "*" => {
                for _ in 0..value.parse::<usize>()? {
                    if self.read()?.is_none() {
                        return Ok(None);
                    }
                }
            }
            _ => return Err(format!("redis-server replied {line}").into()),
        }
        Ok(Some(()))
    }
}

/// A command as bytes.
pub(crate) fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut command = Vec::new();
    begin(&mut command, words.len());
    words.iter().for_each(|word| push(&mut command, word));
    command
}

/// Begins a command of `words` words, which are then pushed.
pub(crate) fn begin(command: &mut Vec<u8>, words: usize) {
    // Writing to a vector does not fail.
    let _ = write!(command, "*{words}\r\n");
}

pub(crate) fn push(command: &mut Vec<u8>, word: &[u8]) {
    let _ = write!(command, "${}\r\n", word.len());
    command.extend_from_slice(word);
    command.extend_from_slice(b"\r\n");
}
