//! `POST /v1/subscriptions/{subscription}/receive`: the long poll.

use api::SubscriptionName;
use api::message::{ReceiveRequest, ReceiveResult};
use axum::extract::State;
use axum::response::Response;

use crate::engine::{Engine, Metered};
use crate::http::answer::held::Holder;
use crate::http::answer::problem::Refusal;
use crate::http::answer::shown;
use crate::http::document::WriteErrors;
use crate::http::request::caller::{Receive, To};
use crate::http::request::json::Json;

/// Receive messages
///
/// Each returned message is hidden from other receives for the visibility timeout. Settle it with its receipt within
/// that time. The request waits up to `wait_seconds` for a first message; the list is empty if none arrives. Delivery
/// is at-least-once.
#[utoipa::path(
    post, path = "/v1/subscriptions/{subscription}/receive", operation_id = "receive", tag = "Messages",
    security(("api_key" = ["receive"])),
    params(To<Receive, SubscriptionName>),
    request_body(content = Option<ReceiveRequest>, description = "The options; without a body all have their defaults"),
    responses((status = 200, description = "Messages, oldest first; with fairness, oldest first for each customer. The list is empty if no message arrived", headers(("Cursus-Units" = u64, description = "Metering units of the request; 0 without a message")), body = ReceiveResult), WriteErrors)
)]
pub(in crate::http) async fn receive_messages(
    State(engine): State<Engine>,
    To(caller, subscription, ..): To<Receive, SubscriptionName>,
    Json(request): Json<ReceiveRequest>,
) -> Result<Metered<Response>, Refusal> {
    let Metered {
        answer: messages,
        units,
    } = engine
        .receive(caller.tenant(), caller.capacity, &subscription, request)
        .await?;
    let holder = Holder {
        budget: engine.held(),
        tenant: caller.tenant(),
    };
    let answer = shown::received(&messages, holder)?;
    Ok(Metered { answer, units })
}
