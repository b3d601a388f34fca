//! The part of HTTP/1.1 that is needed to read responses cheaply: status, `content-length` or chunks, body. Pure: bytes
//! in, a position out. It has no limits and supports no trailers, because it only reads from our own servers.

use memchr::memmem;

/// The head of a response.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Position of the body.
    pub(crate) body_at: usize,
    pub(crate) length: Length,
    /// Whether the server closes the connection after this response.
    pub(crate) closes: bool,
}

/// How the length of the body is given.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum Length {
    Bytes(usize),
    Chunked,
}

/// The head of the response; `Ok(None)` while it is incomplete.
pub(crate) fn head(bytes: &[u8]) -> crate::Result<Option<Head>> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let status = bytes
        .get(9..12)
        .and_then(decimal)
        .and_then(|status| u16::try_from(status).ok());
    let mut head = Head {
        status: status.ok_or("the response does not begin with an HTTP status")?,
        body_at: end + 4,
        length: Length::Bytes(0),
        closes: false,
    };
    let mut rest = bytes.get(..end).unwrap_or_default();
    while let Some(line_end) = memchr::memchr(b'\n', rest) {
        rest = &rest[line_end + 1..];
        header(rest, &mut head)?;
    }
    Ok(Some(head))
}

fn header(rest: &[u8], head: &mut Head) -> crate::Result<()> {
    let line = memchr::memchr(b'\r', rest).map_or(rest, |end| &rest[..end]);
    if let Some(value) = value_of(line, b"content-length:") {
        head.length = Length::Bytes(decimal(value).ok_or("a content-length that is no number")?);
    } else if value_of(line, b"transfer-encoding:").is_some() {
        head.length = Length::Chunked;
    } else if let Some(value) = value_of(line, b"connection:") {
        head.closes = value.eq_ignore_ascii_case(b"close");
    }
    Ok(())
}

fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

/// Decodes the chunks at the start of `bytes` into `body`. Returns the number of bytes read, or `None` while they are
/// incomplete.
pub(crate) fn dechunk(bytes: &[u8], body: &mut Vec<u8>) -> crate::Result<Option<usize>> {
    body.clear();
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(line_end) = memmem::find(rest, b"\r\n") else {
            return Ok(None);
        };
        let size = rest[..line_end]
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or_default();
        let size = std::str::from_utf8(size)
            .ok()
            .and_then(|hex| usize::from_str_radix(hex.trim(), 16).ok());
        let size = size.ok_or("a chunk without a size")?;
        let data_at = line_end + 2;
        let Some(chunk) = rest.get(data_at..data_at + size + 2) else {
            return Ok(None);
        };
        at += data_at + size + 2;
        if size == 0 {
            return Ok(Some(at));
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

fn decimal(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The values of every `"name":"value"` in compact JSON, found without parsing it. Correct only for values without
/// escapes, such as receipts and ids. The quotes inside of a body are escaped, so a body cannot contain a match.
pub(crate) fn strings_of<'a>(
    json: &'a [u8],
    name: &'a memmem::Finder<'a>,
) -> impl Iterator<Item = &'a [u8]> {
    name.find_iter(json).filter_map(|at| {
        let value = json.get(at + name.needle().len()..)?;
        value.get(..memchr::memchr(b'"', value)?)
    })
}

/// The values of every `"name":` with a whole number, found in the same way.
pub(crate) fn numbers_of(json: &[u8], name: &memmem::Finder<'_>) -> impl Iterator<Item = usize> {
    name.find_iter(json).filter_map(|at| {
        let value = json.get(at + name.needle().len()..)?;
        let digits = value.iter().take_while(|byte| byte.is_ascii_digit());
        decimal(value.get(..digits.count())?)
    })
}
