//! Bytes as hexadecimal text.

/// Two lower-case hexadecimal digits per byte.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_byte_is_two_digits() {
        assert_eq!(super::encode(&[0, 10, 255]), "000aff");
        assert_eq!(super::encode(&[]), "");
    }
}
