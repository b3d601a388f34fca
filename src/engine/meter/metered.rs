//! The result of a verb together with the metering units that the call cost; `http` shows them in a header.

/// A result and its cost.
#[derive(Debug)]
pub struct Metered<T> {
    /// The result.
    pub answer: T,
    /// Metering units of the call.
    pub units: u64,
}

impl<T> Metered<T> {
    /// The same cost with another result.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Metered<U> {
        Metered {
            answer: change(self.answer),
            units: self.units,
        }
    }
}
