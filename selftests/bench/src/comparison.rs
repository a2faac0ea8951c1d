// SPDX-License-Identifier: GPL-2.0

//! The results: what each contender took, and their ratios. The JSON has them as they are
//! here.

use serde::Serialize;

/// Quartiles of some samples.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub q1: f64,
    pub median: f64,
    pub q3: f64,
}

impl Spread {
    /// `samples` is not empty.
    pub fn of(samples: &[f64]) -> Spread {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |quarters: usize| {
            let place = (sorted.len() - 1) as f64 * quarters as f64 / 4.0;
            let (low, part) = (sorted[place as usize], place.fract());
            low + (sorted[place.ceil() as usize] - low) * part
        };
        Spread {
            q1: at(1),
            median: at(2),
            q3: at(3),
        }
    }
}

/// What a contender took.
#[derive(Debug, Serialize)]
pub struct Measured {
    pub name: &'static str,
    pub ours: bool,
    #[serde(flatten)]
    pub spread: Spread,
}

/// The ratio of what one contender took to what another took.
#[derive(Debug, Serialize)]
pub struct Ratio {
    pub of: &'static str,
    pub to: &'static str,
    /// Of the medians.
    pub ratio: f64,
    /// Of the ratios within each round.
    pub spread: Spread,
    pub goal: Option<f64>,
    pub met: Option<bool>,
}

/// Contenders side by side.
#[derive(Debug, Serialize)]
pub struct Comparison {
    pub row: char,
    pub name: String,
    pub unit: &'static str,
    pub rounds: usize,
    pub contenders: Vec<Measured>,
    pub ratios: Vec<Ratio>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_those_of_the_sorted_samples() {
        let spread = Spread::of(&[5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!((spread.q1, spread.median, spread.q3), (2.0, 3.0, 4.0));
        let spread = Spread::of(&[1.0, 2.0]);
        assert_eq!((spread.q1, spread.median, spread.q3), (1.25, 1.5, 1.75));
    }
}
