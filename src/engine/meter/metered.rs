//! A result together with what the call cost.

/// A result, and what it cost.
#[derive(Debug)]
pub struct Metered<T> {
    /// The result.
    pub answer: T,
    /// Metering units of the call.
    pub units: u64,
}

impl<T> Metered<T> {
    /// The same with another answer.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Metered<U> {
        Metered {
            answer: change(self.answer),
            units: self.units,
        }
    }
}
