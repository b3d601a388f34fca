//! The fingerprint of a body, taken while the body streams to object storage.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::engine::error::Error;

/// The SHA-256 of a body, taken while the body streams.
pub(in crate::engine) struct Fingerprint(Arc<Mutex<Sha256>>);

impl Fingerprint {
    /// The hash, once the stream has ended.
    pub(in crate::engine) fn finish(&self) -> [u8; 32] {
        self.0.lock().clone().finalize().into()
    }
}

/// The same stream, and the fingerprint that it fills.
pub(in crate::engine) fn fingerprinted(
    body: BoxStream<'static, Result<Bytes, Error>>,
) -> (BoxStream<'static, Result<Bytes, Error>>, Fingerprint) {
    let hash = Arc::new(Mutex::new(Sha256::new()));
    let fingerprint = Fingerprint(hash.clone());
    let inspected = body.inspect(move |piece| {
        if let Ok(piece) = piece {
            hash.lock().update(piece);
        }
    });
    (inspected.boxed(), fingerprint)
}
