//! Byte ranges of a body (RFC 9110, section 14). A body never changes, so its id is a strong ETag. Several ranges,
//! other units and malformed ranges are ignored, as the RFC allows: the response has the whole body.

/// The part of a body that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum BodyRange {
    /// The whole body.
    Whole,
    /// The bytes from the first to the last, both included.
    Bytes(u64, u64),
    /// The range holds no byte of the body.
    Beyond,
}

/// Parses the value of a `Range` header for a body of `bytes` bytes.
pub(in crate::http) fn parse(range: &str, bytes: u64) -> BodyRange {
    let Some((from, to)) = range
        .strip_prefix("bytes=")
        .and_then(|range| range.trim().split_once('-'))
    else {
        return BodyRange::Whole;
    };
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| !text.starts_with('+'));
    match (number(from), number(to)) {
        (Some(from), Some(to)) if from > to => BodyRange::Whole,
        (Some(from), _) if from >= bytes && (to.is_empty() || number(to).is_some()) => {
            BodyRange::Beyond
        }
        (Some(from), Some(to)) => BodyRange::Bytes(from, to.min(bytes - 1)),
        (Some(from), None) if to.is_empty() => BodyRange::Bytes(from, bytes - 1),
        (None, Some(0)) if from.is_empty() => BodyRange::Beyond,
        (None, Some(last)) if from.is_empty() && bytes > 0 => {
            BodyRange::Bytes(bytes.saturating_sub(last), bytes - 1)
        }
        (None, Some(_)) if from.is_empty() => BodyRange::Beyond,
        _ => BodyRange::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_cut_to_the_body_and_the_rest_is_ignored() {
        for (range, expected) in [
            ("bytes=0-4", BodyRange::Bytes(0, 4)),
            ("bytes=5-", BodyRange::Bytes(5, 9)),
            ("bytes=5-99", BodyRange::Bytes(5, 9)),
            ("bytes=-3", BodyRange::Bytes(7, 9)),
            ("bytes=-99", BodyRange::Bytes(0, 9)),
            ("bytes=10-", BodyRange::Beyond),
            ("bytes=10-12", BodyRange::Beyond),
            ("bytes=-0", BodyRange::Beyond),
            ("bytes=4-3", BodyRange::Whole),
            ("bytes=0-1,3-4", BodyRange::Whole),
            ("bytes=x-y", BodyRange::Whole),
            ("bytes=-", BodyRange::Whole),
            ("items=0-1", BodyRange::Whole),
        ] {
            assert_eq!(parse(range, 10), expected, "{range}");
        }
        assert_eq!(parse("bytes=0-", 0), BodyRange::Beyond);
        assert_eq!(parse("bytes=-1", 0), BodyRange::Beyond);
    }
}
