//! Decodes the payload of a block. Reads of metas and bodies borrow from it.

use bytes::Bytes;

use super::encode::size;
use super::{
    ATTRIBUTES, CONTENT_TYPE, ENTRY, ERA, HEAD, KEY, Meta, OCTET_STREAM, TAG, TEXT, TEXT_PLAIN,
    TRACEPARENT, TRACESTATE, VERSION, VERSION_WITH_ERA,
};
use crate::store::Era;

/// A payload that does not parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("corrupt payload")]
pub struct Corrupt;

/// A parsed payload; its messages are slices of it.
#[derive(Debug, Clone)]
pub struct Payload {
    data: Bytes,
    era: Era,
    /// For each message, the start of its meta and the start of its body.
    starts: Vec<(u32, u32)>,
    /// End of the last body. It is beyond `data` when only the head of a large payload was read.
    end: u64,
}

/// A message inside a payload.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Its encoded meta.
    meta: &'a [u8],
    /// Its body; `None` when only the head of the payload was read.
    body: Option<&'a [u8]>,
    /// Start and end of the body in the payload.
    body_range: (u64, u64),
}

impl Payload {
    /// Parses `data`: a whole payload, or a head of it that contains at least the index and the metas. `total` is the
    /// length of the whole payload.
    ///
    /// # Errors
    /// [`Corrupt`] when it is not a payload.
    pub fn parse(data: Bytes, total: u64) -> Result<Self, Corrupt> {
        let (version, count) = data
            .get(..HEAD)
            .and_then(<[u8]>::split_first)
            .ok_or(Corrupt)?;
        let count = u32::from_le_bytes(count.try_into().map_err(|_| Corrupt)?) as usize;
        let (era, head) = match *version {
            VERSION => (Era::FIRST, HEAD),
            VERSION_WITH_ERA => {
                let era = data.get(HEAD..HEAD + ERA).ok_or(Corrupt)?;
                let era = era.try_into().map_err(|_| Corrupt)?;
                (Era::new(u16::from_le_bytes(era)), HEAD + ERA)
            }
            _ => return Err(Corrupt),
        };
        let index_end = ENTRY
            .checked_mul(count)
            .and_then(|bytes| bytes.checked_add(head))
            .ok_or(Corrupt)?;
        let index = data.get(head..index_end).ok_or(Corrupt)?;
        let mut at = size(index_end);
        let mut starts = Vec::with_capacity(count);
        for entry in index.chunks_exact(ENTRY) {
            let (meta, body) = entry.split_at(4);
            let meta = u32::from_le_bytes(meta.try_into().map_err(|_| Corrupt)?);
            let body = u32::from_le_bytes(body.try_into().map_err(|_| Corrupt)?);
            let body_start = at.checked_add(meta).ok_or(Corrupt)?;
            starts.push((at, body_start));
            at = body_start.checked_add(body).ok_or(Corrupt)?;
        }
        if u64::from(at) > total
            || starts
                .last()
                .is_some_and(|(_, body)| *body as usize > data.len())
        {
            return Err(Corrupt);
        }
        Ok(Self {
            data,
            era,
            starts,
            end: total,
        })
    }

    /// The era in which it was published.
    #[must_use]
    pub fn era(&self) -> Era {
        self.era
    }

    /// Number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are no messages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Approximate bytes that it occupies in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        Self::memory_bytes_of(self.starts.len(), self.data.len())
    }

    /// The same of a payload that is not decoded yet.
    #[must_use]
    pub fn memory_bytes_of(messages: usize, bytes: usize) -> usize {
        bytes + messages * ENTRY + 128
    }

    /// Bytes of the message at `index`, its meta included.
    #[must_use]
    pub fn message_bytes(&self, index: usize) -> u64 {
        let start = |index: usize| self.starts.get(index).map(|(meta, _)| u64::from(*meta));
        start(index).map_or(0, |own| start(index + 1).unwrap_or(self.end) - own)
    }

    /// The body of the message at `index`, which shares the memory of the payload; `None` when it was not read.
    #[must_use]
    pub fn body(&self, index: usize) -> Option<Bytes> {
        Some(self.data.slice_ref(self.get(index)?.body()?))
    }

    /// The message at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<View<'_>> {
        let (meta, body) = *self.starts.get(index)?;
        let end = self
            .starts
            .get(index + 1)
            .map_or(self.end, |(next, _)| u64::from(*next));
        let meta = self.data.get(meta as usize..body as usize)?;
        let whole = usize::try_from(end)
            .ok()
            .and_then(|end| self.data.get(body as usize..end));
        Some(View {
            meta,
            body: whole,
            body_range: (u64::from(body), end),
        })
    }
}

impl<'a> View<'a> {
    /// The body as text; `None` when it was not published as text, or when it was not read.
    #[must_use]
    pub fn text(&self) -> Option<&'a str> {
        if self.flags() & TEXT == 0 {
            return None;
        }
        std::str::from_utf8(self.body?).ok()
    }

    /// The body; `None` when it was not read.
    #[must_use]
    pub fn body(&self) -> Option<&'a [u8]> {
        self.body
    }

    /// Start and end of the body in the payload, in bytes.
    #[must_use]
    pub fn body_range(&self) -> (u64, u64) {
        self.body_range
    }

    fn flags(&self) -> u8 {
        self.meta.first().copied().unwrap_or(0)
    }

    /// Decodes its meta. The content type is always present.
    #[must_use]
    pub fn meta(&self) -> Meta<'a> {
        let mut rest = self.meta.get(1..).unwrap_or(&[]);
        let flags = self.flags();
        let mut take = |flag| {
            if flags & flag == 0 {
                None
            } else {
                take_text(&mut rest)
            }
        };
        let content_type = take(CONTENT_TYPE).unwrap_or(if flags & TEXT == 0 {
            OCTET_STREAM
        } else {
            TEXT_PLAIN
        });
        let (tag, key) = (take(TAG), take(KEY));
        let (traceparent, tracestate) = (take(TRACEPARENT), take(TRACESTATE));
        let mut attributes = Vec::new();
        if flags & ATTRIBUTES != 0
            && let Some((count, after)) = rest.split_first()
        {
            rest = after;
            for _ in 0..*count {
                if let (Some(name), Some(value)) = (take_text(&mut rest), take_text(&mut rest)) {
                    attributes.push((name, value));
                }
            }
        }
        Meta {
            content_type: Some(content_type),
            tag,
            key,
            traceparent,
            tracestate,
            attributes,
        }
    }
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let (len, after) = rest.split_first_chunk::<2>()?;
    let (text, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    *rest = after;
    std::str::from_utf8(text).ok()
}
