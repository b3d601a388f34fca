//! Valid object keys. Both stores share this rule, so that a key is valid everywhere or nowhere. It is strict enough
//! that a key can neither leave a directory nor name one of the directory's own hidden files.

use super::Error;

/// Longest key in bytes; S3 allows 1,024 including the configured prefix.
const KEY_BYTES_MAX: usize = 512;

/// Accepts segments of `A–Z a–z 0–9 . _ -` between single slashes; no segment is empty or begins with a dot.
pub(super) fn check(key: &str) -> Result<(), Error> {
    let valid = key.len() <= KEY_BYTES_MAX && key.split('/').all(is_segment);
    if valid { Ok(()) } else { Err(invalid(key)) }
}

/// Accepts a prefix of a valid key: it may end anywhere inside a segment, and may be empty.
pub(super) fn check_prefix(prefix: &str) -> Result<(), Error> {
    let whole = prefix.strip_suffix('/').unwrap_or(prefix);
    if whole.is_empty() && prefix != "/" {
        return Ok(());
    }
    check(whole).map_err(|_| invalid(prefix))
}

fn is_segment(segment: &str) -> bool {
    !segment.is_empty()
        && !segment.starts_with('.')
        && segment
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn invalid(key: &str) -> Error {
    Error::InvalidKey {
        key: key.chars().take(KEY_BYTES_MAX).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_could_leave_the_directory_are_refused() {
        for key in [
            "", ".", "..", "../a", "a/../b", "a/..", "/a", "a/", "a//b", ".tmp/a", "a\\b", "a\0b",
            "a b", "é", "~",
        ] {
            assert!(check(key).is_err(), "{key:?}");
        }
        assert!(check(&"a".repeat(KEY_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn ordinary_keys_and_prefixes_are_accepted() {
        for key in ["a", "packs/2026-01/0f3c.pack", "b/A_1"] {
            assert!(check(key).is_ok(), "{key:?}");
        }
        for prefix in ["", "packs", "packs/", "packs/20"] {
            assert!(check_prefix(prefix).is_ok(), "{prefix:?}");
        }
        for prefix in ["/", "../", "a//", ".tmp"] {
            assert!(check_prefix(prefix).is_err(), "{prefix:?}");
        }
    }
}
