//! Resend on the wire: which messages of a subscription are handed out again.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::FieldError;
use crate::validate::Validate;
use crate::{MessageId, Timestamp};

/// Messages to hand out again: one by its id, or those that were published in a range of time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResendRequest {
    /// The message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<MessageId>,
    /// Begin of the range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// End of the range, which is not in it. The present when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Validate for ResendRequest {
    fn validate(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        match (self.message_id, self.from) {
            (Some(_), None) if self.until.is_none() => {}
            (None, Some(from)) => {
                if self.until.is_some_and(|until| until.0 <= from.0) {
                    errors.push(FieldError::new("/until", "must be after from"));
                }
            }
            _ => errors.push(FieldError::new(
                "",
                "one of message_id and from is required",
            )),
        }
        errors
    }
}

/// What is handed out again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResendResult {
    /// Number of messages. Those that are in flight, or were not handed out yet, are not among them.
    pub messages: u64,
}
