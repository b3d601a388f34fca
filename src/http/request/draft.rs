//! Drafts of a publish: messages are checked and encoded directly from the request into the records of a block, on the
//! thread of the request. A message allocates nothing more, unless it has attributes, base64 or a `dedup_id`.

use std::borrow::Cow;

use api::FieldError;
use api::limits::BATCH_BODY_BYTES_MAX;
use api::message::{PublishBatch, PublishMessage};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::batch;
use super::trace::Trace;
use crate::engine::log::payload::{Meta, OCTET_STREAM, Records};
use crate::engine::{Draft, Drafts, Error};
use crate::http::answer::problem::Refusal;

/// The draft of one raw message.
pub(in crate::http) fn of_message(meta: &Meta<'_>, body: &[u8]) -> Drafts {
    let mut drafts = Drafts::default();
    drafts.records.push(meta, body);
    drafts.items.push(Draft::Valid(None));
    drafts
}

/// The drafts of a batch. The batch is refused if none of them is valid.
pub(in crate::http) fn of_batch(text: &[u8], trace: Option<&Trace<'_>>) -> Result<Drafts, Refusal> {
    let messages = batch::items::<PublishBatch<'_>>(text)?;
    let mut records = Records::default();
    let mut draft = |(index, message): (usize, Result<PublishMessage<'_>, FieldError>)| {
        let mut message = message.map_err(|error| Error::Invalid(vec![error]))?;
        check(&message, index)?;
        encode(&mut records, &message, trace, index)?;
        Ok(message.dedup_id.take().map(Cow::into_owned))
    };
    let items: Vec<_> = messages
        .into_iter()
        .enumerate()
        .map(|message| draft(message).map_or_else(Draft::Refused, Draft::Valid))
        .collect();
    batch::refuse_all(items.iter().map(|item| match item {
        Draft::Valid(_) => None,
        Draft::Refused(error) => Some(error),
    }))?;
    Ok(Drafts {
        records,
        items,
        ..Drafts::default()
    })
}

fn check(message: &PublishMessage<'_>, index: usize) -> Result<(), Error> {
    let errors = message.validate("");
    if errors.is_empty() {
        return Ok(());
    }
    let errors = errors.into_iter();
    Err(Error::Invalid(
        errors
            .map(|error| batch::within(error, "messages", index))
            .collect(),
    ))
}

fn encode(
    records: &mut Records,
    message: &PublishMessage<'_>,
    trace: Option<&Trace<'_>>,
    index: usize,
) -> Result<(), Error> {
    let (body, default_type) = body(message, index)?;
    if body.len() > BATCH_BODY_BYTES_MAX {
        return Err(Error::TooLarge {
            what: "the body of a message in a batch",
            max: BATCH_BODY_BYTES_MAX as u64,
        });
    }
    let attributes = message.attributes.iter().flatten();
    let meta = Meta {
        content_type: message.content_type.as_deref().or(default_type),
        tag: message.tag.as_deref(),
        key: message.key.as_deref(),
        traceparent: trace.map(|trace| trace.parent),
        tracestate: trace.and_then(|trace| trace.state.as_deref()),
        attributes: attributes
            .map(|(name, value)| (&**name, &**value))
            .collect(),
    };
    records.push(&meta, &body);
    Ok(())
}

/// The bytes of the body, and its content type if the message has none. Text needs none, because it is the default.
fn body<'a>(
    message: &'a PublishMessage<'_>,
    index: usize,
) -> Result<(Cow<'a, [u8]>, Option<&'static str>), Error> {
    if let Some(json) = message.json() {
        return Ok((
            Cow::Borrowed(json.get().as_bytes()),
            Some("application/json"),
        ));
    }
    let Some(base64) = &message.body_base64 else {
        let text = message.body.as_deref().unwrap_or("");
        return Ok((Cow::Borrowed(text.as_bytes()), None));
    };
    let bytes = STANDARD.decode(base64.as_bytes()).map_err(|_| {
        Error::Invalid(vec![FieldError::new(
            format!("/messages/{index}/body_base64"),
            "must be standard base64 with padding (RFC 4648, section 4)",
        )])
    })?;
    Ok((Cow::Owned(bytes), Some(OCTET_STREAM)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::engine::log::payload::{Payload, TEXT_PLAIN};
    use crate::store::Era;

    #[test]
    fn messages_are_encoded_with_the_type_of_their_body() {
        let text = br#"{"messages":[{"body":"a\nb","tag":"t"},{"json":{"k": 1}},{"body_base64":"/wA="},{"body_base64":"/wA"},{"dedup_id":"d"}]}"#;
        let drafts = of_batch(text, None).unwrap();
        assert_eq!((drafts.records.len(), drafts.items.len()), (4, 5));
        assert!(
            matches!(&drafts.items[3], Draft::Refused(Error::Invalid(fields)) if fields[0].pointer == "/messages/3/body_base64")
        );
        assert!(matches!(&drafts.items[4], Draft::Valid(Some(id)) if id == "d"));
        let bytes = Bytes::from(drafts.records.to_payload(Era::FIRST));
        let payload = Payload::parse(bytes.clone(), bytes.len() as u64).unwrap();
        let seen = |index: usize| {
            let view = payload.get(index).unwrap();
            (view.meta().content_type.unwrap(), view.body().unwrap())
        };
        assert_eq!(seen(0), (TEXT_PLAIN, &b"a\nb"[..]));
        assert_eq!(seen(1), ("application/json", &br#"{"k": 1}"#[..]));
        assert_eq!(seen(2), (OCTET_STREAM, &b"\xff\x00"[..]));
        assert_eq!(seen(3), (TEXT_PLAIN, &b""[..]));
    }

    #[test]
    fn over_limit_messages_fail_alone_and_a_batch_of_nothing_else_as_a_whole() {
        let long = "x".repeat(BATCH_BODY_BYTES_MAX + 1);
        let text = format!(r#"{{"messages":[{{"body":"{long}"}},{{"body":"ok"}}]}}"#);
        let drafts = of_batch(text.as_bytes(), None).unwrap();
        assert!(matches!(
            &drafts.items[0],
            Draft::Refused(Error::TooLarge { max: 1_048_576, .. })
        ));
        assert!(matches!(&drafts.items[1], Draft::Valid(None)));
        let both = br#"{"messages":[{"body":"a","json":null,"tag":null}]}"#;
        assert!(of_batch(both, None).is_ok());
        let all = br#"{"messages":[{"tag":""},{"body":"a","json":1}]}"#;
        let refusal = format!("{:?}", of_batch(all, None).unwrap_err());
        assert!(
            refusal.contains("/messages/0/tag") && refusal.contains("\"/messages/1\""),
            "{refusal}"
        );
    }
}
