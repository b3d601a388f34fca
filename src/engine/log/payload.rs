//! The encoding of a block's payload: packs messages into bytes and reads them again. Pure functions. Publish calls
//! them to encode, the turn to join publishes, and the reader and receives to decode.
//!
//! ```text
//! payload := version:u8 count:u32 (meta_bytes:u32 body_bytes:u32)×count (meta body)×count     integers little-endian
//! meta    := flags:u8 [content_type] [tag] [key] [traceparent] [tracestate] [attributes:u8 (name value)×n]
//! texts as len:u16 bytes
//! ```
//! The last body extends to the end of the payload, so that a body of unknown length can be streamed into an object. A
//! payload that does not parse is reported as corrupt and never skipped.

use bytes::Bytes;

use crate::engine::meter::measure::{Measure, units};

const VERSION: u8 = 1;
/// Bytes before the index.
const HEAD: usize = 5;
/// Bytes of the index for each message.
const ENTRY: usize = 8;

/// The body is valid UTF-8, checked when it was published.
const TEXT: u8 = 1;
const CONTENT_TYPE: u8 = 1 << 1;
const TAG: u8 = 1 << 2;
const KEY: u8 = 1 << 3;
const TRACEPARENT: u8 = 1 << 4;
const ATTRIBUTES: u8 = 1 << 5;
const TRACESTATE: u8 = 1 << 6;

/// Content type of a text body that was published without one.
pub const TEXT_PLAIN: &str = "text/plain; charset=utf-8";
/// Content type of any other body that was published without one.
pub const OCTET_STREAM: &str = "application/octet-stream";

/// The parts of a message other than its body, borrowed from the request or the payload. Lengths are within
/// `api::limits`.
#[derive(Debug, Clone, Default)]
pub struct Meta<'a> {
    /// Media type, when the publisher gave one.
    pub content_type: Option<&'a str>,
    /// Tag.
    pub tag: Option<&'a str>,
    /// Key.
    pub key: Option<&'a str>,
    /// Producer's trace context (W3C).
    pub traceparent: Option<&'a str>,
    /// Producer's trace state (W3C), which belongs to `traceparent`.
    pub tracestate: Option<&'a str>,
    /// Names and values, in order of name.
    pub attributes: Vec<(&'a str, &'a str)>,
}

impl Meta<'_> {
    /// Its optional texts with their flags, in the order of the encoding.
    fn texts(&self) -> [(u8, Option<&str>); 5] {
        [
            (CONTENT_TYPE, self.content_type),
            (TAG, self.tag),
            (KEY, self.key),
            (TRACEPARENT, self.traceparent),
            (TRACESTATE, self.tracestate),
        ]
    }

    /// Upper bound of its encoded bytes.
    fn bytes_max(&self) -> usize {
        let texts = self.texts().into_iter().filter_map(|(_, text)| text);
        let attributes = self
            .attributes
            .iter()
            .flat_map(|(name, value)| [*name, *value]);
        2 + texts
            .chain(attributes)
            .map(|text| 2 + text.len())
            .sum::<usize>()
    }
}

/// Messages encoded one after the other, ready to be joined into a block.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// (meta, body) lengths.
    sizes: Vec<(u32, u32)>,
    data: Vec<u8>,
    /// Metering units, added up as the messages come.
    units: u64,
}

impl Records {
    /// Number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Whether there are no messages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// Bytes of metas and bodies.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Adds a message.
    pub fn push(&mut self, meta: &Meta<'_>, body: &[u8]) {
        let text = std::str::from_utf8(body).is_ok();
        let before = self.data.len();
        self.data.reserve(meta.bytes_max() + body.len());
        put_meta(&mut self.data, meta, text);
        let meta_bytes = self.data.len() - before;
        self.data.extend_from_slice(body);
        self.sizes.push((size(meta_bytes), size(body.len())));
        self.units += units((meta_bytes + body.len()) as u64);
    }

    /// The measure of the messages, as if inside the guarantee.
    #[must_use]
    pub fn measure(&self) -> Measure {
        Measure {
            messages: self.len() as u64,
            units: self.units,
            elastic_units: 0,
            bytes: self.bytes() as u64,
        }
    }

    /// Appends all messages of `other`.
    pub fn append(&mut self, other: &Self) {
        self.sizes.extend_from_slice(&other.sizes);
        self.data.extend_from_slice(&other.data);
        self.units += other.units;
    }

    /// Appends the message at `index` of `other`.
    pub fn append_one(&mut self, other: &Self, index: usize) {
        let start: usize = other.sizes[..index]
            .iter()
            .map(|(m, b)| (m + b) as usize)
            .sum();
        let (meta, body) = other.sizes[index];
        self.sizes.push((meta, body));
        self.units += units(u64::from(meta) + u64::from(body));
        self.data
            .extend_from_slice(&other.data[start..start + (meta + body) as usize]);
    }

    /// The payload of a block that holds these messages.
    #[must_use]
    pub fn to_payload(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(HEAD + ENTRY * self.sizes.len() + self.data.len());
        payload.push(VERSION);
        payload.extend_from_slice(&size(self.sizes.len()).to_le_bytes());
        for (meta, body) in &self.sizes {
            payload.extend_from_slice(&meta.to_le_bytes());
            payload.extend_from_slice(&body.to_le_bytes());
        }
        payload.extend_from_slice(&self.data);
        payload
    }
}

/// The start of the payload of a block with one message, whose body follows as a stream. The body cannot be checked for
/// UTF-8 beforehand, so it counts as text only when its content type begins with `text/`.
#[must_use]
pub fn stream_head(meta: &Meta<'_>) -> Vec<u8> {
    let mut records = Records::default();
    let text = meta
        .content_type
        .is_some_and(|media| media.starts_with("text/"));
    put_meta(&mut records.data, meta, text);
    records.sizes.push((size(records.data.len()), 0));
    records.to_payload()
}

/// The measure of the one message in a streamed payload.
#[must_use]
pub fn streamed_measure(payload_bytes: u64) -> Measure {
    Measure::message(payload_bytes.saturating_sub((HEAD + ENTRY) as u64))
}

fn size(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn put_meta(out: &mut Vec<u8>, meta: &Meta<'_>, text: bool) {
    let at = out.len();
    out.push(0);
    let mut flags = if text { TEXT } else { 0 };
    for (flag, value) in meta.texts() {
        if let Some(value) = value {
            flags |= flag;
            put_text(out, value);
        }
    }
    if !meta.attributes.is_empty() {
        flags |= ATTRIBUTES;
        out.push(u8::try_from(meta.attributes.len()).unwrap_or(u8::MAX));
        for (name, value) in &meta.attributes {
            put_text(out, name);
            put_text(out, value);
        }
    }
    out[at] = flags;
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..usize::from(len)]);
}

/// A payload that does not parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("corrupt payload")]
pub struct Corrupt;

/// A parsed payload; its messages are slices of it.
#[derive(Debug, Clone)]
pub struct Payload {
    data: Bytes,
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
        let count = match data.get(..HEAD) {
            Some([VERSION, count @ ..]) => {
                u32::from_le_bytes(count.try_into().map_err(|_| Corrupt)?) as usize
            }
            _ => return Err(Corrupt),
        };
        let index_end = ENTRY
            .checked_mul(count)
            .and_then(|bytes| bytes.checked_add(HEAD))
            .ok_or(Corrupt)?;
        let index = data.get(HEAD..index_end).ok_or(Corrupt)?;
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
            starts,
            end: total,
        })
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
        self.data.len() + self.starts.len() * ENTRY + 128
    }

    /// Bytes of the message at `index`, its meta included.
    #[must_use]
    pub fn message_bytes(&self, index: usize) -> u64 {
        let start = |index: usize| self.starts.get(index).map(|(meta, _)| u64::from(*meta));
        start(index).map_or(0, |own| start(index + 1).unwrap_or(self.end) - own)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta<'static> {
        Meta {
            content_type: Some("application/json"),
            tag: Some("eu"),
            key: Some("42"),
            traceparent: Some("00-…"),
            tracestate: Some("a=1"),
            attributes: vec![("a", "1"), ("b", "")],
        }
    }

    #[test]
    fn messages_are_decoded_as_they_were_encoded() {
        let mut records = Records::default();
        records.push(&meta(), br#"{"n":1}"#);
        records.push(&Meta::default(), b"\xff\x00");
        let mut more = Records::default();
        more.push(&Meta::default(), b"");
        records.append(&more);
        let bytes = Bytes::from(records.to_payload());
        let payload = Payload::parse(bytes.clone(), bytes.len() as u64).unwrap();
        assert_eq!(payload.len(), 3);
        let first = payload.get(0).unwrap();
        assert_eq!(first.text(), Some(r#"{"n":1}"#));
        assert_eq!(first.meta().attributes, meta().attributes);
        assert_eq!(
            (first.meta().tag, first.meta().key),
            (Some("eu"), Some("42"))
        );
        assert_eq!(
            (first.meta().traceparent, first.meta().tracestate),
            (Some("00-…"), Some("a=1"))
        );
        let second = payload.get(1).unwrap();
        assert_eq!(
            (second.text(), second.body()),
            (None, Some(&b"\xff\x00"[..]))
        );
        assert_eq!(second.meta().content_type, Some(OCTET_STREAM));
        assert_eq!(payload.get(2).unwrap().text(), Some(""));
        let measure = records.measure();
        assert_eq!((measure.messages, measure.units), (3, 3));
        let sum: u64 = (0..3).map(|index| payload.message_bytes(index)).sum();
        assert_eq!((sum, payload.message_bytes(3)), (measure.bytes, 0));
        assert!(payload.get(3).is_none());
    }

    #[test]
    fn the_head_of_a_streamed_body_contains_where_the_body_is() {
        let head = stream_head(&meta());
        let total = head.len() as u64 + 1_000;
        let payload = Payload::parse(Bytes::from(head.clone()), total).unwrap();
        let view = payload.get(0).unwrap();
        assert_eq!(view.body_range(), (head.len() as u64, total));
        assert_eq!(view.body(), None);
        assert_eq!(view.meta().key, Some("42"));
        let measure = streamed_measure(total);
        assert_eq!(measure.bytes, payload.message_bytes(0));
        let mut whole = Records::default();
        whole.push(&meta(), &[0; 1_000]);
        assert_eq!(
            measure,
            whole.measure(),
            "streamed or not, it costs the same"
        );
    }

    #[test]
    fn a_damaged_payload_is_corrupt_and_never_panics() {
        let mut records = Records::default();
        records.push(&meta(), b"hello");
        let good = records.to_payload();
        for cut in 0..good.len() - 5 {
            let cut = Bytes::copy_from_slice(&good[..cut]);
            assert!(Payload::parse(cut.clone(), cut.len() as u64).is_err());
        }
        for at in 0..good.len() {
            for value in [0, 1, 127, 255] {
                let mut bad = good.clone();
                bad[at] = value;
                let total = bad.len() as u64;
                if let Ok(payload) = Payload::parse(Bytes::from(bad), total) {
                    let _ = payload
                        .get(0)
                        .map(|view| (view.meta(), view.text().map(str::len)));
                }
            }
        }
    }
}
