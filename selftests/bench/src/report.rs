// SPDX-License-Identifier: GPL-2.0

//! The results as a table, which is for reading, and as JSON.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::comparison::Comparison;

/// Prints one comparison.
pub fn print(comparison: &Comparison) {
    println!(
        "\n{}  {}  ({}, {} rounds)",
        comparison.row, comparison.name, comparison.unit, comparison.rounds
    );
    for measured in &comparison.contenders {
        let (mark, spread) = (if measured.ours { '*' } else { ' ' }, measured.spread);
        println!(
            "   {mark} {:<44} {:>13.1}   [{:.1}, {:.1}]",
            measured.name, spread.median, spread.q1, spread.q3
        );
    }
    for ratio in &comparison.ratios {
        let verdict = match (ratio.goal, ratio.met) {
            (Some(goal), Some(met)) => {
                format!("  goal {goal:.3}: {}", if met { "met" } else { "NOT MET" })
            }
            _ => String::new(),
        };
        println!(
            "     {:>8.3}   [{:.3}, {:.3}]   {} : {}{verdict}",
            ratio.ratio, ratio.spread.q1, ratio.spread.q3, ratio.of, ratio.to
        );
    }
}

/// Writes all results as JSON.
pub fn write_json(unit: &str, comparisons: &[Comparison], path: &Path) -> Result<()> {
    let uname = rustix::system::uname();
    let value = json!({
        "kernel": uname.release().to_string_lossy(),
        "cpus": std::thread::available_parallelism()?.get(),
        "unit": unit,
        "comparisons": comparisons,
    });
    std::fs::write(path, serde_json::to_vec_pretty(&value)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Prints which goals were not met.
pub fn summary(comparisons: &[Comparison]) {
    let judged = || {
        comparisons.iter().flat_map(|comparison| {
            let goals = comparison
                .ratios
                .iter()
                .filter_map(|ratio| Some((ratio, ratio.met?)));
            goals.map(move |(ratio, met)| (comparison, ratio, met))
        })
    };
    let met = judged().filter(|(.., met)| *met).count();
    println!("\n{met} of {} goals met; not met:", judged().count());
    for (comparison, ratio, _) in judged().filter(|(.., met)| !met) {
        println!(
            "   {}  {}: {} : {} is {:.3}, goal {:.3}",
            comparison.row,
            comparison.name,
            ratio.of,
            ratio.to,
            ratio.ratio,
            ratio.goal.unwrap_or(f64::NAN)
        );
    }
}
