//! Encodes messages: records that are joined into the payload of a block, or the head of a payload whose one body is
//! streamed.

use std::ops::Range;

use super::{ATTRIBUTES, ENTRY, ERA, HEAD, Meta, TEXT, VERSION, VERSION_WITH_ERA};
use crate::engine::meter::measure::{Measure, units};
use crate::store::Era;

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

    /// The messages of a range.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Self {
        let bytes = |sizes: &[(u32, u32)]| -> usize {
            sizes
                .iter()
                .map(|(meta, body)| (meta + body) as usize)
                .sum()
        };
        let start = bytes(&self.sizes[..range.start]);
        let sizes = self.sizes[range].to_vec();
        Self {
            units: sizes
                .iter()
                .map(|(meta, body)| units(u64::from(meta + body)))
                .sum(),
            data: self.data[start..start + bytes(&sizes)].to_vec(),
            sizes,
        }
    }

    /// The payload of a block that holds these messages, published in this era.
    #[must_use]
    pub fn to_payload(&self, era: Era) -> Vec<u8> {
        let index = ENTRY * self.sizes.len();
        let mut payload = Vec::with_capacity(head_bytes(era) + index + self.data.len());
        let is_first = era == Era::FIRST;
        payload.push(if is_first { VERSION } else { VERSION_WITH_ERA });
        payload.extend_from_slice(&size(self.sizes.len()).to_le_bytes());
        if !is_first {
            payload.extend_from_slice(&era.get().to_le_bytes());
        }
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
pub fn stream_head(meta: &Meta<'_>, era: Era) -> Vec<u8> {
    let mut records = Records::default();
    let text = meta
        .content_type
        .is_some_and(|media| media.starts_with("text/"));
    put_meta(&mut records.data, meta, text);
    records.sizes.push((size(records.data.len()), 0));
    records.to_payload(era)
}

/// Bytes before the index.
fn head_bytes(era: Era) -> usize {
    HEAD + if era == Era::FIRST { 0 } else { ERA }
}

/// The measure of the one message in a streamed payload.
#[must_use]
pub fn streamed_measure(payload_bytes: u64, era: Era) -> Measure {
    Measure::message(payload_bytes.saturating_sub((head_bytes(era) + ENTRY) as u64))
}

/// A length as it is encoded.
pub(super) fn size(len: usize) -> u32 {
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
