//! The ratios as a picture: an SVG that needs nothing beside itself.

use std::fmt::Write;

use super::statistics::Spread;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 220.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 56.0;
const ROW: f64 = 34.0;
const GROUP_GAP: f64 = 14.0;
const BOTTOM: f64 = 40.0;
const TICKS_MAX: f64 = 8.0;

/// One ratio, drawn beside the others of its group.
pub struct Row<'a> {
    /// The name.
    pub name: String,
    /// The spread over the pairs.
    pub spread: &'a Spread,
    /// The ratio of each pair.
    pub values: Vec<f64>,
    /// An SVG colour.
    pub colour: &'static str,
}

/// Draws every pair as a dot, the quartiles as a bar, the median as a line, and 1 as dashes; with a
/// gap between groups.
pub fn svg(title: &str, groups: &[Vec<Row<'_>>]) -> String {
    let rows = || groups.iter().flatten();
    let axis = Axis::around(rows().map(|row| *row.spread));
    let rows_end = TOP + rows().count() as f64 * ROW + groups.len() as f64 * GROUP_GAP;
    let height = rows_end + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    text(&mut svg, 12.0, 22.0, "start", title);
    text(&mut svg, 12.0, 40.0, "start", "dot: one pair or round; bar: quartiles; line: median");
    axis.draw(&mut svg, rows_end);
    let mut top = TOP;
    for rows in groups {
        for row in rows {
            row.draw(&mut svg, &axis, top + ROW / 2.0);
            top += ROW;
        }
        top += GROUP_GAP;
    }
    svg.push_str("</svg>\n");
    svg
}

impl Row<'_> {
    fn draw(&self, svg: &mut String, axis: &Axis, middle: f64) {
        let Self { name, spread, values, colour } = self;
        text(svg, LEFT - 10.0, middle + 4.0, "end", name);
        let (q1, q3, median) = (axis.x(spread.q1), axis.x(spread.q3), axis.x(spread.median));
        let _ = writeln!(
            svg,
            "<rect x=\"{q1:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"16\" fill=\"{colour}\" \
             opacity=\"0.2\"/>\n\
             <line x1=\"{median:.1}\" x2=\"{median:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" \
             stroke=\"{colour}\" stroke-width=\"3\">\
             <title>median {:.3}</title></line>",
            middle - 8.0,
            (q3 - q1).max(1.0),
            middle - 12.0,
            middle + 12.0,
            spread.median
        );
        for value in values {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"3.5\" fill=\"{colour}\" \
                 opacity=\"0.7\">\
                 <title>{value:.3}</title></circle>",
                axis.x(*value)
            );
        }
    }
}

struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// Covers all values and 1, with a margin.
    fn around(spreads: impl Iterator<Item = Spread>) -> Self {
        let (mut low, mut high) = (0.9_f64, 1.1_f64);
        for spread in spreads {
            low = low.min(spread.min);
            high = high.max(spread.max);
        }
        let margin = (high - low) * 0.05;
        Self { low: low - margin, high: high + margin }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (value - self.low) / (self.high - self.low) * (WIDTH - LEFT - RIGHT)
    }

    /// Returns the distance of two ticks: a round number.
    fn step(&self) -> f64 {
        let rounds = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
        let fits = |step: &f64| (self.high - self.low) / step <= TICKS_MAX;
        rounds.into_iter().find(fits).unwrap_or((self.high - self.low) / TICKS_MAX)
    }

    fn draw(&self, svg: &mut String, bottom: f64) {
        let step = self.step();
        let (first, last) = ((self.low / step).ceil() as i32, (self.high / step).floor() as i32);
        for tick in first..=last {
            let value = f64::from(tick) * step;
            line(svg, self.x(value), bottom, "#ddd", "0");
            text(svg, self.x(value), bottom + 16.0, "middle", &format!("{value:.2}"));
        }
        line(svg, self.x(1.0), bottom, "#000", "4 3");
    }
}

fn line(svg: &mut String, x: f64, bottom: f64, colour: &str, dashes: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"{colour}\" \
         stroke-dasharray=\"{dashes}\"/>"
    );
}

/// Writes a text without XML markup.
pub fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    assert!(!text.contains(['<', '&']));
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_holds_every_value_and_one() {
        let far = Spread { min: 0.2, q1: 0.3, median: 0.4, q3: 0.5, max: 3.0 };
        let axis = Axis::around([far].into_iter());
        for value in [0.2, 1.0, 3.0] {
            let x = axis.x(value);
            assert!((LEFT..=WIDTH - RIGHT).contains(&x), "{value} at {x}");
        }
    }
}
