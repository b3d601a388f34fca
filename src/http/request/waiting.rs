//! Whether a request waits for its client or for the service, which decides whose fault it is when its deadline is over.
//! `layer` watches the body of each request that has one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// What a request waits for.
#[derive(Debug, Default)]
pub(in crate::http) struct Waiting(Option<Arc<AtomicBool>>);

impl Waiting {
    /// Watches the body of a request.
    pub(in crate::http) fn of(request: Request) -> (Request, Self) {
        if request.body().is_end_stream() {
            return (request, Self::default());
        }
        let for_client = Arc::new(AtomicBool::new(false));
        let watched = for_client.clone();
        let request = request.map(|body| {
            Body::new(Watched {
                body,
                for_client: watched,
            })
        });
        (request, Self(Some(for_client)))
    }

    /// Whether it waits for bytes of its body.
    pub(in crate::http) fn is_for_client(&self) -> bool {
        let waits = |for_client: &Arc<AtomicBool>| for_client.load(Ordering::Relaxed);
        self.0.as_ref().is_some_and(waits)
    }
}

/// A body that notes whether its reader waits.
struct Watched {
    body: Body,
    for_client: Arc<AtomicBool>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.for_client
            .store(polled.is_pending(), Ordering::Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
