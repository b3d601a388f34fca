//! An error and its causes in one line, for the log and for operators.

use std::error::Error;

/// The error and its causes. A cause that the text before it has already is left out.
#[must_use]
pub fn in_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Caused(&'static str, #[source] Option<Box<Caused>>);

    #[test]
    fn causes_follow_the_error_once_each() {
        let root = Caused("refused", None);
        let middle = Caused("a: refused", Some(Box::new(root)));
        assert_eq!(in_line(&middle), "a: refused");
        assert_eq!(
            in_line(&Caused("no response", Some(Box::new(middle)))),
            "no response: a: refused"
        );
    }
}
