// SPDX-License-Identifier: GPL-2.0

//! The chart: for each pair the ratio of ours to the other, on a logarithmic axis, and the
//! goal.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::comparison::{Comparison, Ratio};

const WIDTH: u32 = 1400;
const LEFT: i32 = 760;
const RIGHT: i32 = WIDTH as i32 - 60;
const LINE: i32 = 18;
const HEAD: i32 = 70;
const FOOT: i32 = 30;

const CHEAPER: RGBColor = RGBColor(0x2a, 0x7f, 0x62);
const DEARER: RGBColor = RGBColor(0xb5, 0x54, 0x2b);
const GOAL: RGBColor = RGBColor(0x1f, 0x3d, 0x7a);
const FAINT: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

/// What is drawn: where there is nothing to compare, there is no bar.
fn drawn(comparisons: &[Comparison]) -> impl Iterator<Item = &Comparison> {
    comparisons.iter().filter(|it| !it.ratios.is_empty())
}

/// Draws all ratios into an SVG file.
pub fn draw(unit: &str, comparisons: &[Comparison], path: &Path) -> Result<()> {
    let lines: i32 = drawn(comparisons).map(|c| 2 + c.ratios.len() as i32).sum();
    let height = HEAD + LINE * lines + FOOT;
    let all = || comparisons.iter().flat_map(|c| &c.ratios);
    let axis =
        Axis::over(all().flat_map(|r| [r.spread.q1, r.spread.q3, r.ratio, r.goal.unwrap_or(1.0)]));
    let root = SVGBackend::new(path, (WIDTH, height as u32)).into_drawing_area();
    picture(unit, comparisons, &root, &axis, height)
        .map_err(|error| anyhow!("{}: {error}", path.display()))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = std::result::Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn picture(
    unit: &str,
    comparisons: &[Comparison],
    root: &Area<'_>,
    axis: &Axis,
    height: i32,
) -> Drawn {
    root.fill(&WHITE)?;
    let title = format!(
        "Address spaces against what is done today: ratio of medians of {unit} (left is better)"
    );
    text(root, &title, (20, 14), 20, &BLACK, HPos::Left)?;
    let legend = "bar: ratio   thin line: quartiles within rounds   blue: goal";
    text(root, legend, (20, 40), 13, &BLACK.mix(0.7), HPos::Left)?;
    for power in axis.low..=axis.high {
        let x = axis.place(10f64.powi(power));
        let style = if power == 0 { BLACK } else { FAINT };
        root.draw(&PathElement::new(
            vec![(x, HEAD - 8), (x, height - FOOT)],
            style,
        ))?;
        let label = match power {
            0.. => format!("{}", 10u64.pow(power as u32)),
            _ => format!("{}", 10f64.powi(power)),
        };
        text(root, &label, (x, HEAD - 24), 13, &BLACK, HPos::Center)?;
    }
    let mut y = HEAD;
    for comparison in drawn(comparisons) {
        y = group(root, axis, comparison, y)?;
    }
    root.present()
}

fn group(
    root: &Area<'_>,
    axis: &Axis,
    comparison: &Comparison,
    mut y: i32,
) -> std::result::Result<i32, DrawingAreaErrorKind<std::io::Error>> {
    let head = format!("{}  {}", comparison.row, comparison.name);
    text(root, &head, (20, y + 3), 14, &BLACK, HPos::Left)?;
    y += LINE;
    for ratio in &comparison.ratios {
        bar(root, axis, ratio, y)?;
        y += LINE;
    }
    Ok(y + LINE)
}

fn bar(root: &Area<'_>, axis: &Axis, ratio: &Ratio, y: i32) -> Drawn {
    let middle = y + LINE / 2;
    let label = format!("{} : {}", ratio.of, ratio.to);
    text(
        root,
        &label,
        (LEFT - 12, y + 3),
        13,
        &BLACK.mix(0.8),
        HPos::Right,
    )?;
    let (one, end) = (axis.place(1.0), axis.place(ratio.ratio));
    let colour = if ratio.ratio <= 1.0 { CHEAPER } else { DEARER };
    let corners = [(one.min(end), y + 4), (one.max(end), y + LINE - 4)];
    root.draw(&Rectangle::new(corners, colour.filled()))?;
    let spread = [axis.place(ratio.spread.q1), axis.place(ratio.spread.q3)];
    root.draw(&PathElement::new(
        spread.map(|x| (x, middle)).to_vec(),
        BLACK,
    ))?;
    let mut value = format!("{:.3}", ratio.ratio);
    if let (Some(goal), Some(met)) = (ratio.goal, ratio.met) {
        let x = axis.place(goal);
        root.draw(&Rectangle::new(
            [(x - 1, y + 1), (x + 1, y + LINE - 1)],
            GOAL.filled(),
        ))?;
        value += if met { " met" } else { " not met" };
    }
    // On the side without the bar.
    let (x, side) = if end <= one {
        (one + 6, HPos::Left)
    } else {
        (one - 6, HPos::Right)
    };
    text(root, &value, (x, y + 3), 13, &BLACK, side)
}

fn text(
    root: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: i32,
    colour: &impl Color,
    side: HPos,
) -> Drawn {
    let style = TextStyle::from(("sans-serif", size).into_font())
        .color(colour)
        .pos(Pos::new(side, VPos::Top));
    root.draw(&Text::new(text.to_owned(), at, style))
}

/// A logarithmic axis from one power of ten to another.
struct Axis {
    low: i32,
    high: i32,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>) -> Axis {
        let (low, high) = values
            .filter(|value| *value > 0.0 && value.is_finite())
            .map(f64::log10)
            .fold((-1.0, 1.0), |(low, high): (f64, f64), value| {
                (low.min(value), high.max(value))
            });
        Axis {
            low: low.floor() as i32,
            high: high.ceil() as i32,
        }
    }

    fn place(&self, value: f64) -> i32 {
        let part = (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        LEFT + (f64::from(RIGHT - LEFT) * part.clamp(0.0, 1.0)) as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axis_holds_all_values_and_one() {
        let axis = Axis::over([0.002, 3.0].into_iter());
        assert_eq!((axis.low, axis.high), (-3, 1));
        assert_eq!(axis.place(0.001), LEFT);
        assert_eq!(axis.place(10.0), RIGHT);
        assert!(axis.place(0.002) < axis.place(1.0));
    }
}
