//! The encoding of a block's payload: packs messages into bytes and reads them again. Pure functions. Publish calls
//! them to encode, the turn to join publishes, and the reader and receives to decode.
//!
//! ```text
//! payload := version:u8 count:u32 [era:u16] (meta_bytes:u32 body_bytes:u32)×count (meta body)×count
//! integers little-endian; version 1: no era, which is the first one; version 2: with an era
//! meta    := flags:u8 [content_type] [tag] [key] [traceparent] [tracestate] [attributes:u8 (name value)×n]
//! texts as len:u16 bytes
//! ```
//! The last body extends to the end of the payload, so that a body of unknown length can be streamed into an object. A
//! payload that does not parse is reported as corrupt and never skipped. `encode` writes it and `decode` reads it.

mod decode;
mod encode;

pub use decode::{Corrupt, Payload, View};
pub use encode::{Records, stream_head, streamed_measure};

const VERSION: u8 = 1;
const VERSION_WITH_ERA: u8 = 2;
/// Bytes before the index, without an era.
const HEAD: usize = 5;
/// Bytes of an era.
const ERA: usize = 2;
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::Era;

    const ERAS: [Era; 2] = [Era::FIRST, Era::new(513)];

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
        for era in ERAS {
            let bytes = Bytes::from(records.to_payload(era));
            let payload = Payload::parse(bytes.clone(), bytes.len() as u64).unwrap();
            assert_eq!((payload.len(), payload.era()), (3, era));
            check_three(&records, &payload);
        }
    }

    fn check_three(records: &Records, payload: &Payload) {
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
        for era in ERAS {
            let head = stream_head(&meta(), era);
            let total = head.len() as u64 + 1_000;
            let payload = Payload::parse(Bytes::from(head.clone()), total).unwrap();
            let view = payload.get(0).unwrap();
            assert_eq!(view.body_range(), (head.len() as u64, total));
            assert_eq!(view.body(), None);
            assert_eq!(view.meta().key, Some("42"));
            let measure = streamed_measure(total, era);
            assert_eq!(measure.bytes, payload.message_bytes(0));
            let mut whole = Records::default();
            whole.push(&meta(), &[0; 1_000]);
            assert_eq!(
                measure,
                whole.measure(),
                "streamed or not, it costs the same"
            );
        }
    }

    #[test]
    fn a_damaged_payload_is_corrupt_and_never_panics() {
        let mut records = Records::default();
        records.push(&meta(), b"hello");
        for good in ERAS.map(|era| records.to_payload(era)) {
            check_damaged(&good);
        }
    }

    fn check_damaged(good: &[u8]) {
        for cut in 0..good.len() - 5 {
            let cut = Bytes::copy_from_slice(&good[..cut]);
            assert!(Payload::parse(cut.clone(), cut.len() as u64).is_err());
        }
        for at in 0..good.len() {
            for value in [0, 1, 127, 255] {
                let mut bad = good.to_vec();
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
