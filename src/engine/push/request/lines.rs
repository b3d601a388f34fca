//! Headers of a request while it is made: their values are written into one buffer, which the values of the finished map
//! share. What may hold other characters than visible ASCII is percent-encoded by the rule of the HTTP binding of
//! CloudEvents (1.0, section 3.1.3.2): a space, `"`, `%`, and all outside of U+0021 to U+007E.

use std::fmt::Display;
use std::io::Write as _;

use bytes::Bytes;

use super::{ATTRIBUTE_HEADERS_BYTES_MAX, ATTRS_OMITTED};
use crate::engine::error::Error;
use crate::outbound::{HeaderMap, HeaderName, HeaderValue};

const ATTRIBUTE: &str = "cursus-attr-";
const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
/// Bytes and lines that there is room for before the buffers grow.
const USUAL: (usize, usize) = (768, 24);

/// Headers in the order in which they were written.
pub(super) struct Lines {
    text: Vec<u8>,
    /// Names, and where their values end.
    lines: Vec<(HeaderName, usize)>,
    /// Bytes of the headers of attributes.
    attribute_bytes: usize,
    /// Attributes that found no room.
    omitted: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            text: Vec::with_capacity(USUAL.0),
            lines: Vec::with_capacity(USUAL.1),
            attribute_bytes: 0,
            omitted: 0,
        }
    }
}

impl Lines {
    /// Number of headers.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    fn end(&mut self, name: HeaderName) {
        self.lines.push((name, self.text.len()));
    }

    /// A value that is visible ASCII.
    pub(super) fn plain(&mut self, name: &HeaderName, value: &str) {
        self.text.extend_from_slice(value.as_bytes());
        self.end(name.clone());
    }

    /// A value that is shown as visible ASCII.
    pub(super) fn shown(&mut self, name: &HeaderName, value: impl Display) {
        // A vector takes everything.
        let _ = write!(self.text, "{value}");
        self.end(name.clone());
    }

    /// A value of any characters.
    pub(super) fn encoded(&mut self, name: HeaderName, value: &str) {
        encode(&mut self.text, value);
        self.end(name);
    }

    /// An attribute as header `Cursus-Attr-<name>`. What a name of a header cannot have is percent-encoded in the name,
    /// too.
    pub(super) fn attribute(&mut self, name: &str, value: &str) {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
        let mut text = Vec::with_capacity(ATTRIBUTE.len() + name.len());
        text.extend_from_slice(ATTRIBUTE.as_bytes());
        for byte in name.bytes() {
            put(&mut text, byte, is_token(byte));
        }
        if let Ok(name) = HeaderName::from_bytes(&text) {
            self.within_room(name, value);
        } else {
            self.omitted += 1;
        }
    }

    /// A header of an attribute, if there is room for it.
    pub(super) fn within_room(&mut self, name: HeaderName, value: &str) {
        let before = self.text.len();
        encode(&mut self.text, value);
        let bytes = name.as_str().len() + self.text.len() - before;
        if self.attribute_bytes + bytes > ATTRIBUTE_HEADERS_BYTES_MAX {
            self.text.truncate(before);
            self.omitted += 1;
            return;
        }
        self.attribute_bytes += bytes;
        self.end(name);
    }

    /// The number of attributes that found no room, if there are any.
    pub(super) fn put_omitted(&mut self) {
        if self.omitted > 0 {
            self.shown(&ATTRS_OMITTED, self.omitted);
        }
    }

    /// Appends the headers to a map.
    pub(super) fn append_to(self, headers: &mut HeaderMap) -> Result<(), Error> {
        let text = Bytes::from(self.text);
        let mut start = 0;
        for (name, end) in self.lines {
            let value = HeaderValue::from_maybe_shared(text.slice(start..end));
            headers.append(name, value.map_err(|_| Error::Internal)?);
            start = end;
        }
        Ok(())
    }
}

fn encode(text: &mut Vec<u8>, value: &str) {
    for byte in value.bytes() {
        put(
            text,
            byte,
            byte.is_ascii_graphic() && !b"\"%".contains(&byte),
        );
    }
}

fn put(text: &mut Vec<u8>, byte: u8, is_plain: bool) {
    if is_plain {
        text.push(byte);
    } else {
        let digit = |bits: u8| DIGITS[usize::from(bits & 15)];
        text.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
    }
}
