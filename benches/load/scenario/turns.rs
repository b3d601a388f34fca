//! Two loads measured in turn: base, variant, base, variant, …, base. Each round of the variant is compared with the mean
//! of the bases before and after it, because the speed of a shared machine drifts.

use crate::Result;
use crate::row::Row;
use crate::run::Outcome;

/// The rate that is compared.
pub(crate) type Rate = fn(&Outcome) -> f64;

/// The outcomes of all rounds.
pub(crate) struct Turns {
    pub(crate) bases: Vec<Outcome>,
    pub(crate) variants: Vec<Outcome>,
    ratios: Vec<f64>,
}

impl Turns {
    /// An error of a base ends the scenario, because nothing can be compared with it.
    pub(crate) async fn measure(
        rounds: usize,
        rate: Rate,
        mut base: impl AsyncFnMut() -> Result<Outcome>,
        mut variant: impl AsyncFnMut() -> Result<Outcome>,
    ) -> Result<Self> {
        let mut turns = Self {
            bases: vec![checked_base(base().await?, rate)?],
            variants: Vec::new(),
            ratios: Vec::new(),
        };
        for _ in 0..rounds {
            let before = turns.bases.last().map_or(f64::NAN, rate);
            let outcome = variant().await?;
            let after = checked_base(base().await?, rate)?;
            let ratio = rate(&outcome) / f64::midpoint(before, rate(&after));
            eprintln!("  variant: {:.0}/s, ratio {ratio:.3}", rate(&outcome));
            turns.ratios.push(ratio);
            turns.variants.push(outcome);
            turns.bases.push(after);
        }
        Ok(turns)
    }

    /// The row of the variant.
    pub(crate) fn row(&self, name: &str, base: &'static str, floor: Option<f64>) -> Row {
        let bases: Vec<f64> = self
            .bases
            .iter()
            .map(Outcome::requests_per_second)
            .collect();
        Row::new(name, &self.variants).relative_to(base, &bases, self.ratios.clone(), floor)
    }
}

fn checked_base(outcome: Outcome, rate: Rate) -> Result<Outcome> {
    eprintln!("  base: {:.0}/s", rate(&outcome));
    match outcome.tally.first_error {
        Some(error) => Err(format!("the base of the ratio failed: {error}").into()),
        None => Ok(outcome),
    }
}
