//! Medians and quartiles.

/// What repeated measurements came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// Of some values; zeros of none.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |quarter: usize| {
            let last = values.len().saturating_sub(1);
            values.get(last * quarter / 4).copied().unwrap_or(0.0)
        };
        Self {
            low: at(1),
            median: at(2),
            high: at(3),
        }
    }

    /// `value (low–high)` with so many digits.
    pub(crate) fn shown(&self, digits: usize) -> String {
        format!(
            "{:.digits$} ({:.digits$}–{:.digits$})",
            self.median, self.low, self.high
        )
    }

    /// As percent above 1, the value being a ratio.
    pub(crate) fn percent(&self) -> String {
        let percent = |ratio: f64| (ratio - 1.0) * 100.0;
        format!(
            "{:+.1} % ({:+.1} to {:+.1})",
            percent(self.median),
            percent(self.low),
            percent(self.high)
        )
    }
}

/// The value of each round over the floor's of the same round.
pub(crate) fn ratios(values: &[f64], floor: &[f64]) -> Spread {
    Spread::of(
        values
            .iter()
            .zip(floor)
            .map(|(value, floor)| value / floor)
            .collect(),
    )
}
