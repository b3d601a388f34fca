//! Settling on the wire: `ack` and `visibility` are the two common forms, `settle` is the general one.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::error::{FieldError, Problem};
use crate::limits::{NACK_DELAY_SECONDS, REASON_CHARS_MAX, VISIBILITY_SECONDS};
use crate::message::check_text;
use crate::topic::check_range;

/// Receipts of messages that are done.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AckRequest<'a> {
    /// 1 to 100 receipts.
    #[serde(borrow, deserialize_with = "crate::borrow::texts")]
    #[schema(value_type = Vec<String>, min_items = 1, max_items = 100)]
    pub receipts: Vec<Cow<'a, str>>,
}

/// Visibility timeouts to change.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VisibilityRequest<'a> {
    /// 1 to 100 changes.
    #[serde(borrow, deserialize_with = "crate::borrow::items")]
    #[schema(min_items = 1, max_items = 100)]
    pub changes: Vec<VisibilityChange<'a>>,
}

/// A new visibility timeout for one message, counted from now.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VisibilityChange<'a> {
    /// The message's receipt.
    #[serde(borrow)]
    #[schema(value_type = String)]
    pub receipt: Cow<'a, str>,
    /// Seconds from now; 0 makes it visible at once.
    #[serde(deserialize_with = "crate::whole::number")]
    #[schema(minimum = 0, maximum = 43200)]
    pub visibility_timeout_seconds: u32,
}

impl VisibilityChange<'_> {
    /// The fields that are out of range, with pointers below `at`.
    #[must_use]
    pub fn validate(&self, at: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let pointer = format!("{at}/visibility_timeout_seconds");
        check_range(
            &mut errors,
            &pointer,
            Some(self.visibility_timeout_seconds),
            &VISIBILITY_SECONDS,
        );
        errors
    }
}

/// Mixed actions in one call.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettleRequest<'a> {
    /// 1 to 100 items.
    #[serde(borrow, deserialize_with = "crate::borrow::items")]
    #[schema(min_items = 1, max_items = 100)]
    pub items: Vec<SettleItem<'a>>,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SettleAction {
    /// Done.
    Ack,
    /// Failed: hand it out again after `delay_seconds`.
    Nack,
    /// Still working: hide it for `visibility_timeout_seconds` from now.
    Extend,
    /// Give up: move it to the subscription's dead-letter topic.
    DeadLetter,
}

/// One action on one message.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettleItem<'a> {
    /// The message's receipt.
    #[serde(borrow)]
    #[schema(value_type = String)]
    pub receipt: Cow<'a, str>,
    /// What to do.
    pub action: SettleAction,
    /// With `nack`: seconds until it is handed out again, 0 when absent.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schema(minimum = 0, maximum = 43200)]
    pub delay_seconds: Option<u32>,
    /// With `extend`: seconds from now; the subscription's timeout when absent.
    #[serde(default, deserialize_with = "crate::whole::option")]
    #[schema(minimum = 0, maximum = 43200)]
    pub visibility_timeout_seconds: Option<u32>,
    /// With `dead_letter`: why, kept with the message.
    #[serde(borrow, default, deserialize_with = "crate::borrow::text")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 512, pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$")]
    pub reason: Option<Cow<'a, str>>,
}

impl SettleItem<'_> {
    /// The fields that are out of range or do not go with the action, with pointers below `at`.
    #[must_use]
    pub fn validate(&self, at: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (delay, timeout) = (self.delay_seconds, self.visibility_timeout_seconds);
        check_range(
            &mut errors,
            &format!("{at}/delay_seconds"),
            delay,
            &NACK_DELAY_SECONDS,
        );
        check_range(
            &mut errors,
            &format!("{at}/visibility_timeout_seconds"),
            timeout,
            &VISIBILITY_SECONDS,
        );
        if delay.is_some() && self.action != SettleAction::Nack {
            errors.push(FieldError::new(
                format!("{at}/delay_seconds"),
                "goes only with nack",
            ));
        }
        if timeout.is_some() && self.action != SettleAction::Extend {
            errors.push(FieldError::new(
                format!("{at}/visibility_timeout_seconds"),
                "goes only with extend",
            ));
        }
        if let Some(reason) = &self.reason {
            check_text(
                &mut errors,
                || format!("{at}/reason"),
                reason,
                REASON_CHARS_MAX,
            );
            if !matches!(self.action, SettleAction::DeadLetter) {
                errors.push(FieldError::new(
                    format!("{at}/reason"),
                    "goes only with dead_letter",
                ));
            }
        }
        errors
    }
}

/// An acked, nacked or dead-lettered message: nothing more to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Settled {}

/// A message whose visibility timeout was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Extended {
    /// Settles the message from now on; the receipt of the request goes on working too.
    pub receipt: String,
    /// Until when no other receiver gets it.
    pub visible_until: Timestamp,
}

/// Result of one item of a `settle`: empty, or the new visibility of an `extend`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Outcome {
    /// After `extend`.
    Extended(Extended),
    /// After `ack`, `nack` and `dead_letter`.
    Settled(Settled),
}

/// What became of one item: empty when it is settled, the new visibility after `extend`, or an `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettleResult {
    /// After `extend`: settles the message from now on; the receipt of the request goes on working too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub receipt: Option<String>,
    /// After `extend`: until when no other receiver gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub visible_until: Option<Timestamp>,
    /// Why nothing was done; the neighbours are not concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<Problem>,
}

/// What became of a batch, one result per item, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettleResults {
    /// One per item, in order.
    pub results: Vec<SettleResult>,
}
