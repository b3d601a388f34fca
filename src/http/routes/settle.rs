//! `POST /v1/subscriptions/{subscription}/ack`, `…/visibility` and `…/settle`: two short forms and the general one. All
//! of them call the same verb of the engine. A malformed item fails alone; results are in the order of the items.

use std::borrow::Cow;

use api::settle::{
    AckRequest, Outcome, SettleAction, SettleItem, SettleRequest, SettleResults, VisibilityChange,
    VisibilityRequest,
};
use api::{FieldError, SubscriptionName};
use axum::extract::State;

use crate::engine::{Action, Engine, Error, Tenant};
use crate::http::answer::problem::Refusal;
use crate::http::document::WriteErrors;
use crate::http::request::batch::{self, Batch, Results};
use crate::http::request::caller::{Settle, To};
use crate::http::request::json::{Json, JsonText};

/// Acknowledge messages
///
/// An acknowledged message is never handed out again to this subscription. When no answer came, send the request again: a
/// receipt that has acknowledged its message succeeds again, for at least ten minutes. `lease_lost` means that the message
/// failed or was handed out again before.
#[utoipa::path(
    post, path = "/v1/subscriptions/{subscription}/ack", operation_id = "ack", tag = "Messages",
    security(("api_key" = ["receive"])),
    params(To<Settle, SubscriptionName>),
    request_body = AckRequest,
    responses((status = 200, description = "One result per receipt, in order", body = SettleResults), WriteErrors)
)]
pub(in crate::http) async fn ack_messages(
    State(engine): State<Engine>,
    To(caller, subscription, ..): To<Settle, SubscriptionName>,
    JsonText(text): JsonText,
) -> Result<Json<Results<Outcome>>, Refusal> {
    settle::<AckRequest<'_>>(&engine, caller.tenant(), &subscription, &text).await
}

/// Change the visibility timeout of messages
///
/// Sets the time until a message becomes visible again, counted from now; 0 makes it visible at once. Its receipt stays
/// valid, so a repeated request sets the time again.
#[utoipa::path(
    post, path = "/v1/subscriptions/{subscription}/visibility", operation_id = "change_visibility", tag = "Messages",
    security(("api_key" = ["receive"])),
    params(To<Settle, SubscriptionName>),
    request_body = VisibilityRequest,
    responses((status = 200, description = "One result per change, in order", body = SettleResults), WriteErrors)
)]
pub(in crate::http) async fn change_visibility(
    State(engine): State<Engine>,
    To(caller, subscription, ..): To<Settle, SubscriptionName>,
    JsonText(text): JsonText,
) -> Result<Json<Results<Outcome>>, Refusal> {
    settle::<VisibilityRequest<'_>>(&engine, caller.tenant(), &subscription, &text).await
}

/// Settle messages
///
/// Applies `ack`, `nack`, `extend` and `dead_letter`, which may be mixed in one request. A repeated `ack` succeeds again. A
/// `nack` or `dead_letter` makes the receipt void, so when it is repeated, `lease_lost` may mean that it was done before.
#[utoipa::path(
    post, path = "/v1/subscriptions/{subscription}/settle", operation_id = "settle", tag = "Messages",
    security(("api_key" = ["receive"])),
    params(To<Settle, SubscriptionName>),
    request_body = SettleRequest,
    responses((status = 200, description = "One result per item, in order", body = SettleResults), WriteErrors)
)]
pub(in crate::http) async fn settle_messages(
    State(engine): State<Engine>,
    To(caller, subscription, ..): To<Settle, SubscriptionName>,
    JsonText(text): JsonText,
) -> Result<Json<Results<Outcome>>, Refusal> {
    settle::<SettleRequest<'_>>(&engine, caller.tenant(), &subscription, &text).await
}

/// An item of a request, which names a message and an action.
trait Settling<'a> {
    /// The fields that are out of range, with pointers below the item.
    fn check(&self) -> Vec<FieldError>;
    /// The receipt and the action.
    fn into_action(self) -> (Cow<'a, str>, Action);
}

impl<'a> Settling<'a> for Cow<'a, str> {
    fn check(&self) -> Vec<FieldError> {
        Vec::new()
    }

    fn into_action(self) -> (Cow<'a, str>, Action) {
        (self, Action::Ack)
    }
}

impl<'a> Settling<'a> for VisibilityChange<'a> {
    fn check(&self) -> Vec<FieldError> {
        self.validate("")
    }

    fn into_action(self) -> (Cow<'a, str>, Action) {
        let visibility_seconds = Some(self.visibility_timeout_seconds);
        (self.receipt, Action::Extend { visibility_seconds })
    }
}

impl<'a> Settling<'a> for SettleItem<'a> {
    fn check(&self) -> Vec<FieldError> {
        self.validate("")
    }

    fn into_action(self) -> (Cow<'a, str>, Action) {
        let action = match self.action {
            SettleAction::Ack => Action::Ack,
            SettleAction::Nack => Action::Nack {
                delay_seconds: self.delay_seconds.unwrap_or(0),
            },
            SettleAction::Extend => Action::Extend {
                visibility_seconds: self.visibility_timeout_seconds,
            },
            SettleAction::DeadLetter => Action::DeadLetter {
                reason: self.reason.map(Cow::into_owned),
            },
        };
        (self.receipt, action)
    }
}

type Parsed<'a> = Vec<Result<(Cow<'a, str>, Action), Error>>;

async fn settle<'a, B: Batch<'a, Item: Settling<'a>>>(
    engine: &Engine,
    tenant: Tenant,
    subscription: &SubscriptionName,
    text: &'a [u8],
) -> Result<Json<Results<Outcome>>, Refusal> {
    let parsed = parse::<B>(text)?;
    let valid = parsed
        .iter()
        .flatten()
        .map(|(receipt, action)| (&**receipt, action.clone()))
        .collect();
    let settled = engine.settle(tenant, subscription, valid).await?;
    Ok(Json(merge(parsed, settled).into()))
}

fn parse<'a, B: Batch<'a, Item: Settling<'a>>>(text: &'a [u8]) -> Result<Parsed<'a>, Refusal> {
    let check = |(index, item): (usize, Result<B::Item, FieldError>)| {
        let item = item.map_err(|error| Error::Invalid(vec![error]))?;
        let errors = item.check();
        if errors.is_empty() {
            return Ok(item.into_action());
        }
        let errors = errors
            .into_iter()
            .map(|error| batch::within(error, B::FIELD, index))
            .collect();
        Err(Error::Invalid(errors))
    };
    let items = batch::items::<B>(text)?.into_iter().enumerate();
    let parsed: Parsed<'a> = items.map(check).collect();
    batch::refuse_all(parsed.iter().map(|item| item.as_ref().err()))?;
    Ok(parsed)
}

/// Merges the engine's results, one per valid item, with the errors of the items that were refused here.
fn merge(parsed: Parsed<'_>, settled: Vec<Result<Outcome, Error>>) -> Vec<Result<Outcome, Error>> {
    let mut settled = settled.into_iter();
    let result =
        |item: Result<_, Error>| item.and_then(|_| settled.next().unwrap_or(Err(Error::Internal)));
    parsed.into_iter().map(result).collect()
}

#[cfg(test)]
mod tests {
    use api::settle::Settled;

    use super::*;

    #[test]
    fn refused_items_keep_their_place_among_the_results() {
        let text = br#"{"items":[{"receipt":"a","action":"ack","delay_seconds":1},{"receipt":"b","action":"nack","delay_seconds":5},{"receipt":3}]}"#;
        let parsed = parse::<SettleRequest<'_>>(text).unwrap();
        assert!(
            matches!(&parsed[0], Err(Error::Invalid(e)) if e[0].pointer == "/items/0/delay_seconds")
        );
        assert!(
            matches!(&parsed[1], Ok((receipt, Action::Nack { delay_seconds: 5 })) if receipt == "b")
        );
        assert!(matches!(&parsed[2], Err(Error::Invalid(e)) if e[0].pointer == "/items/2/receipt"));
        let results = merge(parsed, vec![Ok(Outcome::Settled(Settled {}))]);
        assert!(results[0].is_err() && results[1].is_ok() && results[2].is_err());
    }

    #[test]
    fn a_request_of_which_nothing_can_be_tried_is_refused_with_every_field() {
        let text =
            br#"{"changes":[{"receipt":"a","visibility_timeout_seconds":43201},{"receipt":"b"}]}"#;
        let refusal = format!("{:?}", parse::<VisibilityRequest<'_>>(text).unwrap_err());
        assert!(
            refusal.contains("/changes/0/visibility_timeout_seconds"),
            "{refusal}"
        );
        assert!(
            refusal.contains("missing field `visibility_timeout_seconds`"),
            "{refusal}"
        );
    }
}
