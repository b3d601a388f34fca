//! When a message is sent again that an endpoint did not take, and when its attempts are used up. Pure.

use api::push::PushRetry;

/// The table of Standard Webhooks 1.0, in seconds.
const STANDARD: [u32; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
const EXPONENTIAL_MIN: u32 = 5;
const EXPONENTIAL_MAX: u32 = 3_600;

/// Longest pause that an endpoint may ask for.
pub const ASKED_SECONDS_MAX: u32 = 86_400;

/// What follows an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// Seconds until the next attempt, without jitter.
    pub seconds: u32,
    /// Whether the policy has no further attempt. Then it is made only if there is nowhere else to put the message.
    pub is_last: bool,
    /// Whether the pause is spread, so that messages that failed together do not come back together.
    pub jitter: bool,
}

/// What follows attempt number `attempt`, the first of which is 1.
#[must_use]
pub fn next(policy: &PushRetry, attempt: u32) -> Next {
    let index = attempt.saturating_sub(1);
    match policy {
        PushRetry::Standard => of_list(&STANDARD, index, true),
        PushRetry::List { delays_seconds } => of_list(delays_seconds, index, false),
        PushRetry::Exponential {
            min_seconds,
            max_seconds,
        } => {
            let first = u64::from(min_seconds.unwrap_or(EXPONENTIAL_MIN));
            let longest = max_seconds.unwrap_or(EXPONENTIAL_MAX);
            let doubled = first << index.min(32);
            Next {
                seconds: u32::try_from(doubled).map_or(longest, |seconds| seconds.min(longest)),
                is_last: false,
                jitter: true,
            }
        }
    }
}

fn of_list(delays: &[u32], index: u32, jitter: bool) -> Next {
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    let last = delays.last().copied().unwrap_or(EXPONENTIAL_MIN);
    Next {
        seconds: delays.get(index).copied().unwrap_or(last),
        is_last: index >= delays.len(),
        jitter,
    }
}

impl Next {
    /// Seconds until the next attempt, spread by up to a fifth, and no less than the endpoint asked for.
    #[must_use]
    pub fn pause(self, asked: Option<u32>) -> u32 {
        let spread = if self.jitter {
            rand::random_range(0.8..1.2)
        } else {
            1.0
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most 1.2 days"
        )]
        let seconds = (f64::from(self.seconds) * spread).round() as u32;
        seconds.max(1).max(asked.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_table_has_ten_attempts() {
        let of = |attempt| next(&PushRetry::Standard, attempt);
        assert_eq!(
            (of(1).seconds, of(2).seconds, of(9).seconds),
            (5, 300, 86_400)
        );
        assert!(!of(9).is_last && of(10).is_last);
        assert_eq!(of(1_000).seconds, 86_400);
        let pauses: Vec<u32> = (0..200).map(|_| of(2).pause(None)).collect();
        assert!(pauses.iter().all(|seconds| (240..=360).contains(seconds)));
        assert!(pauses.iter().any(|seconds| *seconds != pauses[0]));
        assert_eq!(of(1).pause(Some(900)), 900);
    }

    #[test]
    fn other_policies_are_exact() {
        let list = PushRetry::List {
            delays_seconds: vec![1, 60],
        };
        let of = |attempt| next(&list, attempt);
        assert_eq!([of(1), of(2), of(3)].map(|next| next.seconds), [1, 60, 60]);
        assert_eq!([of(2), of(3)].map(|next| next.is_last), [false, true]);
        assert_eq!(of(2).pause(None), 60);
        let doubling = PushRetry::Exponential {
            min_seconds: Some(2),
            max_seconds: Some(100),
        };
        let of = |attempt| next(&doubling, attempt).seconds;
        assert_eq!([1, 2, 6, 7, 99].map(of), [2, 4, 64, 100, 100]);
        assert!(!next(&doubling, 1_000).is_last);
    }
}
