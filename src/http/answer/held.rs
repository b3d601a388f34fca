//! The part of the node's budget for bodies that an answer with many bodies takes, until its last byte is handed over.
//! Messages that are leased must not be refused, so such an answer takes what there is: the bodies that find no room are
//! named by a `body_url`, as those beyond the limit of an answer are.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use api::limits::ANSWER_BODIES_BYTES_MAX;
use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::json_text;
use crate::engine::Tenant;
use crate::engine::held::{Budget, Share};
use crate::http::request::held::SHORT_BYTES;

/// Who receives an answer.
#[derive(Clone, Copy)]
pub(in crate::http) struct Holder<'a> {
    pub(in crate::http) budget: &'a Budget,
    pub(in crate::http) tenant: Tenant,
}

/// The room for the bodies of an answer.
pub(super) struct HeldAnswer(Option<Share>);

impl Holder<'_> {
    /// Room for `bytes` of bodies. A short answer is not counted.
    pub(super) fn hold(self, bytes: usize) -> HeldAnswer {
        let is_long = bytes > SHORT_BYTES;
        HeldAnswer(is_long.then(|| {
            let bytes = bytes.min(ANSWER_BODIES_BYTES_MAX);
            self.budget.share_of(self.tenant.0, bytes)
        }))
    }
}

impl HeldAnswer {
    /// Bytes of bodies that the answer may include.
    pub(super) fn room(&self) -> usize {
        self.0.as_ref().map_or(SHORT_BYTES, Share::bytes)
    }

    /// The answer with this text.
    pub(super) fn response(self, text: Vec<u8>) -> Response {
        match self.0 {
            None => json_text(text),
            Some(share) => json_text(Vec::new()).map(|_| {
                let text = Some(text.into());
                Body::new(HeldText {
                    text,
                    _share: share,
                })
            }),
        }
    }
}

/// A text that is counted while it waits to be sent.
struct HeldText {
    text: Option<Bytes>,
    _share: Share,
}

impl HttpBody for HeldText {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        const PIECE_BYTES: usize = 256 << 10;
        let Some(text) = &mut self.text else {
            return Poll::Ready(None);
        };
        let piece = text.split_to(text.len().min(PIECE_BYTES));
        if text.is_empty() {
            self.text = None;
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.text.as_ref().map_or(0, Bytes::len) as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_long_answer_takes_what_there_is_until_it_is_sent() {
        let budget = Budget::new(300 << 10);
        let holder = Holder {
            budget: &budget,
            tenant: Tenant(crate::store::TenantId::new(1)),
        };
        let short = holder.hold(SHORT_BYTES);
        assert_eq!((short.room(), short.0.is_none()), (SHORT_BYTES, true));
        let long = holder.hold(1 << 20);
        assert_eq!(long.room(), 200 << 10);
        let none = holder.hold(1 << 20);
        assert_eq!(none.room(), 0);
        let response = long.response(vec![b' '; 300 << 10]);
        assert_eq!(response.headers()["content-type"], "application/json");
        let mut body = response.into_body();
        assert_eq!(body.size_hint().exact(), Some(300 << 10));
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(holder.hold(1 << 20).room(), 0);
        let rest = body.collect().await.unwrap().to_bytes();
        assert_eq!(first.len() + rest.len(), 300 << 10);
        assert_eq!(holder.hold(1 << 20).room(), 200 << 10);
    }
}
