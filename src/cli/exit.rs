//! How a command of the client ends: a code that scripts can use, and a message that says what to do.

use api::ErrorCode;
use cursus_sdk::Error;

use super::key::without_secret;
use crate::config::{ProfileError, Service};

/// The exit codes, as `--help` and the README show them.
pub const CODES: &str = "\
Exit codes:
  0    done
  1    failed for another reason
  2    the arguments, or what they ask for, are invalid
  3    a topic, subscription, message, tenant or key does not exist
  4    the key is missing, unknown, expired or revoked, or may not do this
  5    the service cannot be reached, or does not answer in time
  6    the service refuses for now: a quota, or a shortage of capacity
  7    some of the messages failed, the others are done
  8    the profile does not exist, or its file cannot be used
  130  interrupted by Ctrl-C
  141  the reader of the output has gone";

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub enum Failure {
    /// A request failed.
    Request(Error),
    /// The arguments do not fit together, or to their input.
    Usage(String),
    /// The profiles cannot be used.
    Profile(ProfileError),
    /// Some messages failed.
    Some(String),
    /// Ctrl-C; the text says how far it got.
    Interrupted(String),
    /// The reader of standard output has gone; the text says how far it got.
    BrokenPipe(String),
    /// Anything else.
    Other(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Request(error)
    }
}

impl From<ProfileError> for Failure {
    fn from(error: ProfileError) -> Self {
        Self::Profile(error)
    }
}

/// Of standard output; failures of files name the file.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::BrokenPipe(String::new())
        } else {
            Self::Other(format!("standard output: {error}"))
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Request(error.into())
    }
}

impl Failure {
    /// A file that cannot be read or written.
    pub(super) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::Usage(format!("{}: {error}", path.display()))
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Request(error) => of_request(error),
            Self::Usage(_) => 2,
            Self::Some(_) => 7,
            Self::Profile(_) => 8,
            Self::Interrupted(_) => 130,
            Self::BrokenPipe(_) => 141,
            Self::Other(_) => 1,
        }
    }

    /// What to print about it, if anything; `service` is what the command spoke to.
    #[must_use]
    pub fn text(&self, service: Option<&Service>) -> Option<String> {
        match self {
            Self::Request(error) => Some(match service {
                Some(service) => advice(error, service),
                None => error.to_string(),
            }),
            Self::Profile(error) => Some(error.to_string()),
            Self::Usage(text) | Self::Some(text) | Self::Other(text) => Some(text.clone()),
            Self::Interrupted(text) => Some(format!("interrupted{}", after(text))),
            // A pager that was closed is no news; what was left undone is.
            Self::BrokenPipe(text) if text.is_empty() => None,
            Self::BrokenPipe(text) => {
                Some(format!("the reader of the output has gone{}", after(text)))
            }
        }
    }
}

fn after(text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

fn of_request(error: &Error) -> u8 {
    match error {
        Error::Connect(_) | Error::NoAnswer(_) => 5,
        Error::Answer {
            status: 401 | 403, ..
        } => 4,
        Error::Answer {
            status: 429 | 502..=504,
            ..
        } => 6,
        Error::Answer { .. } | Error::Unreadable(_) => 1,
        Error::Invalid(_) => 2,
        Error::Problem(problem) => of_code(problem.problem.code),
    }
}

fn of_code(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::NotFound => 3,
        ErrorCode::Unauthenticated | ErrorCode::Forbidden => 4,
        ErrorCode::QuotaExceeded
        | ErrorCode::ReducedCapacity
        | ErrorCode::Unavailable
        | ErrorCode::InsufficientStorage => 6,
        ErrorCode::RequestTimeout | ErrorCode::Timeout => 5,
        ErrorCode::BodyTooLarge
        | ErrorCode::HeadersTooLarge
        | ErrorCode::InvalidRequest
        | ErrorCode::RangeNotSatisfiable
        | ErrorCode::ReceiptInvalid
        | ErrorCode::UnsupportedMediaType => 2,
        ErrorCode::AlreadyExists
        | ErrorCode::Conflict
        | ErrorCode::IdempotencyKeyInUse
        | ErrorCode::IdempotencyKeyMismatch
        | ErrorCode::Internal
        | ErrorCode::LeaseLost
        | ErrorCode::MethodNotAllowed
        | ErrorCode::NotImplemented
        | ErrorCode::PreconditionFailed => 1,
    }
}

/// What failed, and what can be done about it.
fn advice(error: &Error, service: &Service) -> String {
    let Service { url, url_from, .. } = service;
    match error {
        Error::Connect(why) => format!(
            "cannot reach {url} (from {url_from}): {why}\nStart a node there with `cursus serve`, or name another service with \
             --url, CURSUS_URL or --profile"
        ),
        Error::NoAnswer(why) => format!(
            "{url} (from {url_from}) does not answer: {why}\nThe outcome is unknown. A publish with the same \
             --idempotency-key, or of the same file, can be repeated without publishing twice"
        ),
        Error::Answer { status, text, .. } => format!(
            "{url} (from {url_from}) answers with status {status}, and not as Cursus does. Is it another service, or a proxy?\n{text}"
        ),
        Error::Unreadable(why) => {
            format!(
                "{url} (from {url_from}) answers in a way that this version of the program cannot read: {why}"
            )
        }
        Error::Problem(problem) => {
            let problem = &problem.problem;
            let code = problem.code.as_str();
            match of_problem(problem, service) {
                // The detail is for programs.
                Some(advice) if problem.code == ErrorCode::Unauthenticated => {
                    format!("{advice} ({code})")
                }
                Some(advice) => format!("{} ({code})\n{advice}", problem.detail),
                None => format!("{} ({code})", problem.detail),
            }
        }
        Error::Invalid(text) => text.clone(),
    }
}

fn of_problem(problem: &api::Problem, service: &Service) -> Option<String> {
    let key = service.key.as_ref().map(|key| name_of(key.expose()));
    Some(match (problem.code, key) {
        (ErrorCode::Unauthenticated, None) => format!(
            "{} asks for a key: set CURSUS_KEY, or make a profile with `cursus profile set NAME --url URL --key -`",
            service.url
        ),
        (ErrorCode::Unauthenticated, Some(key)) => format!(
            "{key}, from {}, is unknown to {}, expired or revoked. An operator makes a new one with `cursus key create`",
            service.key_from, service.url
        ),
        (ErrorCode::Forbidden, Some(key)) => format!(
            "{key}, from {}, lacks the scope. An operator makes another one with `cursus key create --scope …`",
            service.key_from
        ),
        (ErrorCode::QuotaExceeded, _) => "`cursus quota` shows the limits and their use".to_owned(),
        (ErrorCode::NotFound, _) => {
            let kinds = ["topic", "subscription", "tenant"];
            let kind = kinds
                .iter()
                .find(|kind| problem.detail.starts_with(*kind))?;
            format!("`cursus {kind} list` shows what there is, `cursus {kind} create` makes one")
        }
        _ => return None,
    })
}

/// What a key is called.
fn name_of(key: &str) -> String {
    match without_secret(key) {
        Some(key) => format!("the key {key}"),
        None => "the token".to_owned(),
    }
}
