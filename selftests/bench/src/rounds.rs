// SPDX-License-Identifier: GPL-2.0

//! Rounds: in each, every contender is measured once, so that what slows the machine for a
//! while slows all of them.

use anyhow::{Context as _, Result};

use crate::clock::Clock;
use crate::comparison::{Comparison, Measured, Ratio, Spread};
use crate::report;

/// One of the things that are compared.
pub struct Contender<'a> {
    name: &'static str,
    ours: bool,
    sample: Box<dyn FnMut(Clock) -> Result<f64> + 'a>,
}

/// An address space. `sample` measures one operation.
pub fn ours<'a>(
    name: &'static str,
    sample: impl FnMut(Clock) -> Result<f64> + 'a,
) -> Contender<'a> {
    Contender {
        name,
        ours: true,
        sample: Box::new(sample),
    }
}

/// What programs do without one.
pub fn other<'a>(
    name: &'static str,
    sample: impl FnMut(Clock) -> Result<f64> + 'a,
) -> Contender<'a> {
    Contender {
        ours: false,
        ..ours(name, sample)
    }
}

/// A goal: the median of `of` is at most so many times that of `to`.
pub struct Goal {
    pub of: &'static str,
    pub to: &'static str,
    pub at_most: f64,
}

/// Makes comparisons and keeps the results.
pub struct Bench {
    pub clock: Clock,
    pub rounds: usize,
    /// Only those contenders whose name, after that of the comparison, has this in it.
    pub only: Option<String>,
    pub results: Vec<Comparison>,
}

impl Bench {
    /// Whether a contender of a comparison is to be measured.
    pub fn wants(&self, comparison: &str, contender: &str) -> bool {
        let name = || format!("{comparison}: {contender}");
        self.only.as_ref().is_none_or(|only| name().contains(only))
    }

    /// Compares, in the `dearness`th part of the rounds. `goals` name contenders; besides
    /// these pairs, each of ours is compared with each of the others.
    pub fn compare(
        &mut self,
        row: char,
        name: impl Into<String>,
        dearness: usize,
        mut contenders: Vec<Contender<'_>>,
        goals: &[Goal],
    ) -> Result<()> {
        let name = name.into();
        contenders.retain(|it| self.wants(&name, it.name));
        if contenders.is_empty() {
            return Ok(());
        }
        let rounds = (self.rounds / dearness).max(3);
        let mut samples = vec![Vec::with_capacity(rounds); contenders.len()];
        // The first round is for warming up.
        for round in 0..=rounds {
            for turn in 0..contenders.len() {
                let index = (round + turn) % contenders.len();
                let contender = &mut contenders[index];
                let sample = (contender.sample)(self.clock)
                    .with_context(|| format!("row {row}, {name}: {}", contender.name))?;
                if round > 0 {
                    samples[index].push(sample);
                }
            }
        }
        let measured: Vec<_> = std::iter::zip(&contenders, &samples)
            .map(|(contender, samples)| Measured {
                name: contender.name,
                ours: contender.ours,
                spread: Spread::of(samples),
            })
            .collect();
        let mut ratios = Vec::new();
        for (mine, of) in measured.iter().enumerate() {
            for (theirs, to) in measured.iter().enumerate() {
                let goal = goals.iter().find(|g| g.of == of.name && g.to == to.name);
                if goal.is_none() && (!of.ours || to.ours) {
                    continue;
                }
                let ratio = of.spread.median / to.spread.median;
                let each: Vec<_> = std::iter::zip(&samples[mine], &samples[theirs])
                    .map(|(of, to)| of / to)
                    .collect();
                ratios.push(Ratio {
                    of: of.name,
                    to: to.name,
                    ratio,
                    spread: Spread::of(&each),
                    goal: goal.map(|goal| goal.at_most),
                    met: goal.map(|goal| ratio <= goal.at_most),
                });
            }
        }
        let comparison = Comparison {
            row,
            name,
            unit: self.clock.unit(),
            rounds,
            contenders: measured,
            ratios,
        };
        self.add(comparison);
        Ok(())
    }

    /// Adds a count, which needs no rounds since it is the same each time. `goal` limits the
    /// ratio of ours to the other.
    pub fn count(
        &mut self,
        row: char,
        name: impl Into<String>,
        unit: &'static str,
        (of, mine): (&'static str, f64),
        (to, theirs): (&'static str, f64),
        goal: Option<f64>,
    ) {
        let measured = |name, ours, value| Measured {
            name,
            ours,
            spread: Spread::of(&[value]),
        };
        let ratio = mine / theirs;
        self.add(Comparison {
            row,
            name: name.into(),
            unit,
            rounds: 1,
            contenders: vec![measured(of, true, mine), measured(to, false, theirs)],
            ratios: vec![Ratio {
                of,
                to,
                ratio,
                spread: Spread::of(&[ratio]),
                goal,
                met: goal.map(|goal| ratio <= goal),
            }],
        });
    }

    /// Adds a number of bytes, which should be at most `goal`.
    pub fn bytes(&mut self, row: char, name: impl Into<String>, bytes: f64, goal: Option<f64>) {
        const OURS: &str = "an address space";
        const GOAL: &str = "the most it may be";
        if let Some(goal) = goal {
            return self.count(row, name, "bytes", (OURS, bytes), (GOAL, goal), Some(1.0));
        }
        let spread = Spread::of(&[bytes]);
        self.add(Comparison {
            row,
            name: name.into(),
            unit: "bytes",
            rounds: 1,
            contenders: vec![Measured {
                name: OURS,
                ours: true,
                spread,
            }],
            ratios: Vec::new(),
        });
    }

    /// Prints a comparison and adds it to the results.
    pub fn add(&mut self, comparison: Comparison) {
        report::print(&comparison);
        self.results.push(comparison);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_contender_has_a_turn_in_each_round_and_goals_compare_medians() {
        let turns = std::cell::RefCell::new(String::new());
        let mut bench = Bench {
            clock: Clock::Time,
            rounds: 6,
            only: None,
            results: Vec::new(),
        };
        let goal = |at_most| Goal {
            of: "a",
            to: "b",
            at_most,
        };
        for at_most in [0.5, 0.4] {
            let a = ours("a", |_| {
                turns.borrow_mut().push('a');
                Ok(1.0)
            });
            let b = other("b", |_| {
                turns.borrow_mut().push('b');
                Ok(2.0)
            });
            bench
                .compare('x', "test", 2, vec![a, b], &[goal(at_most)])
                .unwrap();
        }
        assert_eq!(*turns.borrow(), "abbaabbaabbaabba");
        let met: Vec<_> = bench.results.iter().map(|r| r.ratios[0].met).collect();
        assert_eq!(met, [Some(true), Some(false)]);
    }
}
