//! SVG charts in the colours of the page.

use super::markup::escape;
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 92.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// Height of the bars below the plot.
const STRIP: f64 = 26.0;
/// Approximate number of ticks on an axis.
const TICKS: f64 = 6.0;
/// Maximum number of points with a tooltip; more would overlap.
const MARKS_MAX: usize = 400;
/// CSS classes of the curves.
pub const COLOURS: [&str; 4] = ["one", "two", "three", "four"];

/// The scale of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Linear, from 0.
    Linear,
    /// Logarithmic.
    Logarithmic,
}

/// A curve.
pub struct Curve {
    /// Name in the legend.
    pub name: String,
    /// Points from left to right.
    pub points: Vec<(f64, f64)>,
}

/// A chart of curves with common axes.
pub struct Plot<'a> {
    /// Title for screen readers.
    pub title: &'a str,
    /// Name of the x axis with its unit.
    pub x_name: &'a str,
    /// Name of the y axis with its unit.
    pub y_name: &'a str,
    /// Ticks of the x axis with labels; if empty, they are made from the values.
    pub x_ticks: Vec<(f64, String)>,
    /// Scale of the y axis.
    pub y_scale: Scale,
    /// Formats a y value.
    pub show_y: fn(f64) -> String,
    /// Formats an x value in a tooltip.
    pub show_x: fn(f64) -> String,
    /// The curves, at most four.
    pub curves: Vec<Curve>,
    /// Bars below the plot: their name and counts.
    pub strip: Option<(&'a str, Vec<(f64, u64)>)>,
}

impl Plot<'_> {
    /// Returns the plot with its legend, or nothing if there is no point.
    #[must_use]
    pub fn svg(&self) -> String {
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        let (mut x, mut y) = (Range::NONE, Range::NONE);
        points().for_each(|(px, py)| {
            x.widen(*px);
            y.widen(*py);
        });
        if points().next().is_none() {
            return String::new();
        }
        let axes = Axes::new(x, y, self.y_scale);
        let strip_height = if self.strip.is_some() { STRIP } else { 0.0 };
        let mut svg = format!(
            "<figure>\n{}<div class=\"scroll\"><svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\">\n\
             <title>{}</title>\n",
            self.legend(),
            HEIGHT + strip_height,
            escape(self.title)
        );
        self.draw_axes(&mut svg, &axes);
        for (curve, colour) in self.curves.iter().zip(COLOURS) {
            self.draw_curve(&mut svg, &axes, curve, colour);
        }
        if let Some((name, counts)) = &self.strip {
            draw_strip(&mut svg, &axes, name, counts);
        }
        svg += "</svg></div>\n</figure>\n";
        svg
    }

    fn legend(&self) -> String {
        let mut legend = String::from("<div class=\"legend\">");
        for (curve, colour) in self.curves.iter().zip(COLOURS) {
            let name = escape(&curve.name);
            put(&mut legend, format_args!("<span><i class=\"{colour}\"></i>{name}</span>"));
        }
        legend + "</div>\n"
    }

    fn draw_axes(&self, svg: &mut String, axes: &Axes) {
        let bottom = HEIGHT - BOTTOM;
        for tick in axes.y_ticks() {
            let y = axes.y(tick);
            put(
                svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                     <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                    WIDTH - RIGHT,
                    LEFT - 8.0,
                    y + 4.0,
                    escape(&(self.show_y)(tick))
                ),
            );
        }
        let made;
        let ticks = if self.x_ticks.is_empty() {
            made = ticks(axes.x.low, axes.x.high)
                .map(|tick| (tick, format!("{}", (tick * 1e6).round() / 1e6)))
                .collect::<Vec<_>>();
            &made
        } else {
            &self.x_ticks
        };
        for (tick, label) in ticks.iter().filter(|(tick, _)| axes.x.holds(*tick)) {
            let x = axes.x(*tick);
            put(
                svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" \
                     y2=\"{bottom}\"/>\
                     <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                    bottom + 16.0,
                    escape(label)
                ),
            );
        }
        put(
            svg,
            format_args!(
                "<line class=\"frame\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
                 <text x=\"12\" y=\"{:.1}\" text-anchor=\"middle\" \
                 transform=\"rotate(-90 12 {:.1})\">{}</text>\n",
                WIDTH - RIGHT,
                WIDTH - RIGHT,
                bottom + 34.0,
                escape(self.x_name),
                f64::midpoint(TOP, bottom),
                f64::midpoint(TOP, bottom),
                escape(self.y_name)
            ),
        );
    }

    fn draw_curve(&self, svg: &mut String, axes: &Axes, curve: &Curve, colour: &str) {
        let mut path = String::new();
        for (at, (x, y)) in curve.points.iter().enumerate() {
            let step = if at == 0 { 'M' } else { 'L' };
            put(&mut path, format_args!("{step}{:.1} {:.1}", axes.x(*x), axes.y(*y)));
        }
        if let ("one", Scale::Linear, [(first, _), .., (last, _)]) =
            (colour, self.y_scale, &curve.points[..])
        {
            let bottom = HEIGHT - BOTTOM;
            let (first, last) = (axes.x(*first), axes.x(*last));
            put(
                svg,
                format_args!(
                    "<path class=\"fill one\" d=\"{path}L{last:.1} {bottom}L{first:.1} \
                     {bottom}Z\"/>\n"
                ),
            );
        }
        put(svg, format_args!("<path class=\"curve {colour}\" d=\"{path}\"/>\n"));
        for (x, y) in curve.points.iter().filter(|_| curve.points.len() <= MARKS_MAX) {
            put(
                svg,
                format_args!(
                    "<circle class=\"mark\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"5\">\
                     <title>{}, {}: {}</title></circle>\n",
                    axes.x(*x),
                    axes.y(*y),
                    escape(&curve.name),
                    escape(&(self.show_x)(*x)),
                    escape(&(self.show_y)(*y))
                ),
            );
        }
    }
}

/// Draws bars below the x axis, scaled to the largest count.
fn draw_strip(svg: &mut String, axes: &Axes, name: &str, counts: &[(f64, u64)]) {
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or_default();
    let base = HEIGHT + STRIP - 4.0;
    let width = ((WIDTH - LEFT - RIGHT) / counts.len().max(1) as f64 - 1.0).clamp(1.0, 12.0);
    put(
        svg,
        format_args!(
            "<text x=\"{:.1}\" y=\"{base}\" text-anchor=\"end\">{}</text>\
             <line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{base}\" y2=\"{base}\"/>\n",
            LEFT - 8.0,
            escape(name),
            WIDTH - RIGHT
        ),
    );
    if most == 0 {
        put(svg, format_args!("<text x=\"{LEFT}\" y=\"{:.1}\">none</text>\n", base - 4.0));
    }
    for (x, count) in counts.iter().filter(|(_, count)| *count > 0) {
        let height = (STRIP - 8.0) * *count as f64 / most as f64;
        put(
            svg,
            format_args!(
                "<rect class=\"wrong\" x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" \
                 height=\"{:.1}\"><title>{}: {count}</title></rect>\n",
                axes.x(*x) - width / 2.0,
                base - height.max(2.0),
                height.max(2.0),
                escape(name)
            ),
        );
    }
}

fn put(to: &mut String, what: std::fmt::Arguments<'_>) {
    to.write_fmt(what).expect("a string takes everything");
}

#[derive(Clone, Copy, Debug)]
struct Range {
    low: f64,
    high: f64,
}

impl Range {
    const NONE: Self = Self { low: f64::INFINITY, high: f64::NEG_INFINITY };

    fn widen(&mut self, value: f64) {
        self.low = self.low.min(value);
        self.high = self.high.max(value);
    }

    fn holds(self, value: f64) -> bool {
        value >= self.low - 1e-9 && value <= self.high + 1e-9
    }
}

struct Axes {
    x: Range,
    y: Range,
    scale: Scale,
}

impl Axes {
    /// Creates axes that contain all values; a range with a single value is widened.
    fn new(x: Range, y: Range, scale: Scale) -> Self {
        let x = if x.high > x.low { x } else { Range { low: x.low - 0.5, high: x.high + 0.5 } };
        let y = match scale {
            Scale::Linear => {
                Range { low: 0.0, high: if y.high > 0.0 { y.high * 1.05 } else { 1.0 } }
            }
            Scale::Logarithmic => {
                let low = y.low.max(1e-3);
                Range { low: low / 1.1, high: y.high.max(low) * 1.1 }
            }
        };
        Self { x, y, scale }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (value - self.x.low) / (self.x.high - self.x.low) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.y.low) / (self.y.high - self.y.low),
            Scale::Logarithmic => {
                (value.max(self.y.low) / self.y.low).ln() / (self.y.high / self.y.low).ln()
            }
        };
        HEIGHT - BOTTOM - share.clamp(0.0, 1.0) * (HEIGHT - BOTTOM - TOP)
    }

    fn y_ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => ticks(self.y.low, self.y.high).collect(),
            Scale::Logarithmic => {
                let steps: &[f64] =
                    if self.y.high / self.y.low > 200.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let decades = self.y.low.log10().floor() as i32..=self.y.high.log10().ceil() as i32;
                let all = decades
                    .flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)));
                all.filter(|tick| self.y.holds(*tick)).collect()
            }
        }
    }
}

/// Returns about [`TICKS`] round numbers from `low` to `high`.
fn ticks(low: f64, high: f64) -> impl Iterator<Item = f64> {
    let rough = (high - low) / TICKS;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * power >= rough).unwrap_or(10.0)
        * power;
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last).map(move |tick| tick as f64 * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>, y_scale: Scale) -> String {
        let plot = Plot {
            title: "a < b",
            x_name: "time (s)",
            y_name: "rate",
            x_ticks: Vec::new(),
            y_scale,
            show_y: |value| format!("{value}"),
            show_x: |value| format!("{value} s"),
            curves: vec![Curve { name: "<c>".into(), points }],
            strip: Some(("errors", vec![(1.0, 0), (2.0, 3)])),
        };
        plot.svg()
    }

    #[test]
    fn ticks_are_round_numbers_within() {
        assert_eq!(ticks(0.0, 10.0).collect::<Vec<_>>(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(
            ticks(90.0, 120.0).collect::<Vec<_>>(),
            [90.0, 95.0, 100.0, 105.0, 110.0, 115.0, 120.0]
        );
    }

    #[test]
    fn every_point_lies_within_the_plot() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            for values in
                [vec![(1.0, 5.0)], vec![(0.0, 0.0), (9.0, 0.0)], vec![(1.0, 1e-9), (2.0, 1e9)]]
            {
                let (mut x, mut y) = (Range::NONE, Range::NONE);
                values.iter().for_each(|(px, py)| {
                    x.widen(*px);
                    y.widen(*py);
                });
                let axes = Axes::new(x, y, scale);
                for (px, py) in &values {
                    assert!((LEFT..=WIDTH - RIGHT).contains(&axes.x(*px)), "{values:?}");
                    assert!((TOP..=HEIGHT - BOTTOM).contains(&axes.y(*py)), "{values:?} {scale:?}");
                }
                assert!(!plot(values, scale).contains("NaN"));
            }
        }
    }

    #[test]
    fn names_are_no_markup_and_nothing_is_no_plot() {
        let svg = plot(vec![(1.0, 1.0), (2.0, 2.0)], Scale::Linear);
        assert!(svg.contains("<title>a &lt; b</title>") && svg.contains("&lt;c&gt;"), "{svg}");
        assert!(svg.contains("<title>errors: 3</title>"), "{svg}");
        assert_eq!(plot(vec![], Scale::Linear), "");
    }
}
