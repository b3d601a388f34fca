//! The longest time of a request. Each route has a [`Deadline`], set in `http/mod.rs`; when it is over, `layer` ends
//! the request: with `request_timeout` if its body has not arrived, else with `timeout`.

use std::time::Duration;

use api::ErrorCode;
use api::limits::WAIT_SECONDS;
use axum::body::HttpBody;
use axum::extract::Request;

use crate::engine::Error;
use crate::http::answer::problem::Refusal;

/// Longest transfer of a body of 100 MiB: about 1 Mbit/s.
const TRANSFER: Duration = Duration::from_secs(900);

/// The kind of deadline of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Deadline {
    /// The request timeout.
    Request,
    /// The longest wait for a message plus the request timeout.
    LongPoll,
    /// For a route that may stream its body: the time to transfer the largest body. If the announced length is short,
    /// it is the request timeout.
    Transfer,
}

/// The values from which the deadlines of all routes are computed.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::http) struct Timeouts {
    /// Longest time for a request, without the wait of a long poll and the transfer of a large body.
    pub(in crate::http) request: Duration,
    /// Largest body that is held in memory, in bytes; a longer one is streamed.
    pub(in crate::http) held_max: usize,
}

impl Deadline {
    /// The deadline of `request`, whose body is decoded. If it may stream its body, it gets a [`ShortBody`].
    pub(in crate::http) fn of(self, request: &mut Request, timeouts: Timeouts) -> Duration {
        match self {
            Self::Request => timeouts.request,
            Self::LongPoll => {
                timeouts.request + Duration::from_secs(u64::from(*WAIT_SECONDS.end()))
            }
            Self::Transfer => {
                let bytes = request.body().size_hint().upper();
                if bytes.is_some_and(|bytes| bytes <= timeouts.held_max as u64) {
                    return timeouts.request;
                }
                request.extensions_mut().insert(ShortBody(timeouts.request));
                TRANSFER
            }
        }
    }
}

/// The deadline of a publish whose body had no announced length and turned out to be short.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct ShortBody(Duration);

impl ShortBody {
    /// Runs `publish` with this deadline.
    pub(in crate::http) async fn bound<T>(
        self,
        publish: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Refusal> {
        match tokio::time::timeout(self.0, publish).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(too_late(self.0, false)),
        }
    }
}

/// The refusal of a request whose deadline is over, while it waited for its client or for the service.
pub(in crate::http) fn too_late(deadline: Duration, is_for_client: bool) -> Refusal {
    let seconds = deadline.as_secs();
    if is_for_client {
        let detail = format!("the request has not arrived within {seconds} seconds");
        return Refusal::new(ErrorCode::RequestTimeout, detail);
    }
    let detail = format!(
        "the service took longer than {seconds} seconds; the request may have had an effect"
    );
    Refusal::new(ErrorCode::Timeout, detail)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::response::IntoResponse;

    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        request: Duration::from_secs(10),
        held_max: 10,
    };

    fn request(body: Body) -> Request {
        Request::new(body)
    }

    #[test]
    fn each_kind_of_route_has_its_deadline() {
        let of =
            |deadline: Deadline, body: Body| deadline.of(&mut request(body), TIMEOUTS).as_secs();
        assert_eq!(of(Deadline::Request, Body::from(vec![0; 11])), 10);
        assert_eq!(of(Deadline::LongPoll, Body::empty()), 40);
        assert_eq!(of(Deadline::Transfer, Body::from(vec![0; 10])), 10);
        assert_eq!(of(Deadline::Transfer, Body::from(vec![0; 11])), 900);
    }

    #[test]
    fn only_a_request_that_may_stream_carries_the_time_of_a_short_body() {
        let carries = |deadline: Deadline, bytes| {
            let mut request = request(Body::from(vec![0; bytes]));
            deadline.of(&mut request, TIMEOUTS);
            request.extensions().get::<ShortBody>().is_some()
        };
        assert!(carries(Deadline::Transfer, 11));
        assert!(!carries(Deadline::Transfer, 10));
        assert!(!carries(Deadline::LongPoll, 11));
    }

    #[tokio::test]
    async fn a_publish_of_a_short_body_is_ended_at_its_own_deadline() {
        let short = ShortBody(Duration::ZERO);
        let refused = short.bound(std::future::pending::<Result<(), _>>()).await;
        assert_eq!(refused.unwrap_err().into_response().status(), 504);
    }
}
