//! Settling on the wire. `ack` and `visibility` are the two common forms, `settle` is the general one.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::error::{FieldError, Problem};
use crate::limits::{NACK_DELAY_SECONDS, REASON_CHARS_MAX, VISIBILITY_SECONDS};
use crate::message::check_text;
use crate::topic::check_range;

/// Messages to acknowledge.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AckRequest<'a> {
    /// 1 to 100 receipts of messages that were processed.
    #[serde(borrow, deserialize_with = "crate::borrow::texts")]
    #[schema(value_type = Vec<String>, min_items = 1, max_items = 100)]
    pub receipts: Vec<Cow<'a, str>>,
}

/// Visibility timeouts to change.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VisibilityRequest<'a> {
    /// 1 to 100 changes.
    #[serde(borrow, deserialize_with = "crate::borrow::items")]
    #[schema(min_items = 1, max_items = 100)]
    pub changes: Vec<VisibilityChange<'a>>,
}

/// A new visibility timeout for one message.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VisibilityChange<'a> {
    /// Receipt of the message.
    #[serde(borrow)]
    #[schema(value_type = String)]
    pub receipt: Cow<'a, str>,
    /// Seconds from now for which the message stays hidden; 0 makes it visible at once.
    #[serde(deserialize_with = "crate::whole::number")]
    #[schema(minimum = 0, maximum = 43200)]
    pub visibility_timeout_seconds: u32,
}

impl VisibilityChange<'_> {
    /// Returns an error for each field that is out of range. Pointers begin with `at`.
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

/// Messages to settle, with mixed actions.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettleRequest<'a> {
    /// 1 to 100 items.
    #[serde(borrow, deserialize_with = "crate::borrow::items")]
    #[schema(min_items = 1, max_items = 100)]
    pub items: Vec<SettleItem<'a>>,
}

/// How to settle a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SettleAction {
    /// Processed: the message is done for this subscription.
    Ack,
    /// Failed: hand the message out again after `delay_seconds`.
    Nack,
    /// In progress: hide the message for `visibility_timeout_seconds` from now.
    Extend,
    /// Failed for good: move the message to the dead-letter topic of the subscription.
    DeadLetter,
}

/// One action on one message.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettleItem<'a> {
    /// Receipt of the message.
    #[serde(borrow)]
    #[schema(value_type = String)]
    pub receipt: Cow<'a, str>,
    /// Action to take.
    pub action: SettleAction,
    /// Only with `nack`: seconds until the message is handed out again. 0 when absent.
    #[serde(
        default,
        deserialize_with = "crate::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 0, maximum = 43200)]
    pub delay_seconds: Option<u32>,
    /// Only with `extend`: seconds from now for which the message stays hidden. The subscription's visibility timeout
    /// when absent.
    #[serde(
        default,
        deserialize_with = "crate::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 0, maximum = 43200)]
    pub visibility_timeout_seconds: Option<u32>,
    /// Only with `dead_letter`: reason, stored with the dead letter.
    #[serde(
        borrow,
        default,
        deserialize_with = "crate::borrow::text",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 512, pattern = r"^[^\u0000-\u001F\u007F-\u009F]*$")]
    pub reason: Option<Cow<'a, str>>,
}

impl<'a> SettleItem<'a> {
    /// An action with nothing said about it.
    #[must_use]
    pub fn new(receipt: impl Into<Cow<'a, str>>, action: SettleAction) -> Self {
        Self {
            receipt: receipt.into(),
            action,
            delay_seconds: None,
            visibility_timeout_seconds: None,
            reason: None,
        }
    }
}

impl SettleItem<'_> {
    /// Returns an error for each field that is out of range or does not belong to the action. Pointers begin with `at`.
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
                "is allowed only with nack",
            ));
        }
        if timeout.is_some() && self.action != SettleAction::Extend {
            errors.push(FieldError::new(
                format!("{at}/visibility_timeout_seconds"),
                "is allowed only with extend",
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
                    "is allowed only with dead_letter",
                ));
            }
        }
        errors
    }
}

/// An acknowledged, nacked or dead-lettered message: an empty object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Settled {}

/// A message whose visibility timeout was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Extended {
    /// New receipt of the message. The receipt of the request stays valid as well.
    pub receipt: String,
    /// Time until which the message is hidden from other receivers.
    pub visible_until: Timestamp,
}

/// Successful result of one item of a `settle`: empty, or the new visibility after `extend`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Outcome {
    /// After `extend`.
    Extended(Extended),
    /// After `ack`, `nack` and `dead_letter`.
    Settled(Settled),
}

/// Result of one item: empty when it was settled, the new visibility after `extend`, or an `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettleResult {
    /// After `extend`: new receipt of the message. The receipt of the request stays valid as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub receipt: Option<String>,
    /// After `extend`: time until which the message is hidden from other receivers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub visible_until: Option<Timestamp>,
    /// Reason why the item had no effect. Absent when it succeeded. Other items are not affected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<Problem>,
}

/// Results of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettleResults {
    /// One result per item, in order.
    pub results: Vec<SettleResult>,
}
