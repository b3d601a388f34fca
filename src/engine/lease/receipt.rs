//! Receipts: opaque, signed tokens that name one message in one lease (I3). A receipt that verifies was signed by this
//! installation for this subscription. Only the database knows whether its lease is still current.
//!
//! ```text
//! receipt := base64url( lane:5 lease:6 offset:7 bit:1 mac:14 )                                       44 characters
//! mac     := HMAC-SHA256(installation key, subscription:8 ‖ the 19 bytes before)[..14]     RFC 2104, FIPS 180-4
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::store::{LaneId, LeaseId, Offset, SubscriptionId};

const BODY: usize = 19;
const MAC: usize = 14;
const CHARS: usize = 44;

/// One message in one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// Lane.
    pub lane: LaneId,
    /// Lease.
    pub lease: LeaseId,
    /// Offset of the message.
    pub offset: Offset,
    /// Its bit in the lease, 0 to 63.
    pub bit: u8,
}

impl Receipt {
    /// The mask of this message in its lease.
    #[must_use]
    pub fn mask(&self) -> u64 {
        1 << self.bit
    }

    fn to_bytes(self) -> [u8; BODY] {
        let mut bytes = [0; BODY];
        bytes[..5].copy_from_slice(&self.lane.get().to_be_bytes()[3..]);
        bytes[5..11].copy_from_slice(&self.lease.get().to_be_bytes()[2..]);
        bytes[11..18].copy_from_slice(&self.offset.get().to_be_bytes()[1..]);
        bytes[18] = self.bit;
        bytes
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        let number = |range: std::ops::Range<usize>| {
            bytes[range]
                .iter()
                .fold(0_i64, |number, byte| (number << 8) | i64::from(*byte))
        };
        Self {
            lane: LaneId::new(number(0..5)),
            lease: LeaseId::new(number(5..11)),
            offset: Offset::new(number(11..18)),
            bit: bytes[18],
        }
    }
}

/// Signs and verifies receipts with the key that all nodes share.
#[derive(Clone)]
pub struct Signer {
    mac: Hmac<Sha256>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(***)")
    }
}

impl Signer {
    /// A signer with the installation's key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        let mut block = [0; 64];
        block[..32].copy_from_slice(key);
        Self {
            mac: Hmac::<Sha256>::new(&block.into()),
        }
    }

    fn mac(&self, subscription: SubscriptionId, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(&subscription.get().to_be_bytes());
        mac.update(body);
        mac
    }

    /// The token of a receipt.
    #[must_use]
    pub fn sign(&self, subscription: SubscriptionId, receipt: Receipt) -> String {
        let mut bytes = [0; BODY + MAC];
        bytes[..BODY].copy_from_slice(&receipt.to_bytes());
        let mac = self
            .mac(subscription, &bytes[..BODY])
            .finalize()
            .into_bytes();
        bytes[BODY..].copy_from_slice(&mac[..MAC]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The receipt in a token; `None` when the token is forged, damaged, or of another subscription.
    #[must_use]
    pub fn verify(&self, subscription: SubscriptionId, token: &str) -> Option<Receipt> {
        if token.len() != CHARS {
            return None;
        }
        let mut bytes = [0; BODY + MAC];
        URL_SAFE_NO_PAD.decode_slice(token, &mut bytes).ok()?;
        let (body, mac) = bytes.split_at(BODY);
        self.mac(subscription, body)
            .verify_truncated_left(mac)
            .ok()?;
        Some(Receipt::of_bytes(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_untouched_receipt_of_the_same_subscription_verifies() {
        let signer = Signer::new(&[7; 32]);
        let receipt = Receipt {
            lane: LaneId::new((1 << 40) - 1),
            lease: LeaseId::new(1 << 47),
            offset: Offset::new((1 << 55) + 3),
            bit: 63,
        };
        let (own, other) = (SubscriptionId::new(9), SubscriptionId::new(8));
        let token = signer.sign(own, receipt);
        assert_eq!(token.len(), CHARS);
        assert_eq!(signer.verify(own, &token), Some(receipt));
        assert_eq!(signer.verify(other, &token), None);
        assert_eq!(Signer::new(&[8; 32]).verify(own, &token), None);
        for at in 0..token.len() {
            let mut bad = token.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(
                signer.verify(own, std::str::from_utf8(&bad).unwrap()),
                None,
                "character {at}"
            );
        }
        for bad in ["", "x", &token[1..], &format!("{token}=")] {
            assert_eq!(signer.verify(own, bad), None);
        }
    }
}
