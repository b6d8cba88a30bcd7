//! The results as pictures: SVGs that need nothing beside themselves.

use std::fmt::Write;

use super::Results;
use super::cells::{GROWTH_CONNECTIONS, PARTS};
use super::results::{CellResult, Contest};
use crate::compare::plot::{self, Row};

/// By contestant, so that one looks the same everywhere.
fn colour(name: &str) -> &'static str {
    match name {
        "limit" => "#555555",
        "tokio" => "#b2541f",
        "monoio" => "#7a4fb0",
        "compio" => "#2a8a5a",
        "glommio" => "#2f9bb0",
        "hyper" => "#b01f5a",
        "nginx" => "#8a7a1a",
        _ => "#1f6fb2",
    }
}

/// File names and contents.
pub fn all(results: &Results) -> Vec<(String, String)> {
    let mut plots = Vec::new();
    for part in PARTS {
        let groups: Vec<Vec<Row>> = results.part(part.name).map(rows).collect();
        if !groups.is_empty() {
            let figure = results.part(part.name).next().map_or("", |cell| &cell.figure);
            let title = format!("{}: {figure}, ratio of ringwrightd to each", part.title);
            plots.push((format!("results-{}.svg", part.name), plot::svg(&title, &groups)));
        }
    }
    for cell in results.part("half") {
        let curves = cell.contests.iter().filter_map(latency).collect::<Vec<_>>();
        if !curves.is_empty() {
            let title =
                format!("{}: latency in µs at a fixed rate, medians of all rounds", cell.id);
            let ticks = ["50 %", "90 %", "99 %", "99.9 %"].map(str::to_owned);
            plots.push((
                format!("results-latency-{}.svg", cell.protocol),
                lines(&title, &ticks, &curves),
            ));
        }
    }
    if let Some(curves) = growth(results) {
        let ticks = GROWTH_CONNECTIONS.map(|count| format!("{count} connections"));
        let title = "64-byte echo, saturated: µs of server CPU per reply, medians";
        plots.push(("results-growth-cpu.svg".into(), lines(title, &ticks, &curves)));
    }
    plots
}

fn rows<'a>(cell: &'a CellResult) -> Vec<Row<'a>> {
    let row = |contest: &'a Contest| {
        let Contest { name, ratio: Some(ratio), .. } = contest else { return None };
        let name_of_row = format!("{}, to {name}", cell.id);
        let values = ratio.rounds.clone();
        Some(Row { name: name_of_row, spread: &ratio.spread, values, colour: colour(name) })
    };
    cell.contests.iter().filter_map(row).collect()
}

/// One line of a plot.
struct Curve {
    name: String,
    values: Vec<f64>,
}

fn latency(contest: &Contest) -> Option<Curve> {
    contest.samples.first()?.latency_us?;
    let median = |of: fn(&crate::compare::Times) -> f64| {
        contest.median(|sample| sample.latency_us.as_ref().map_or(0.0, of))
    };
    let values = vec![
        median(|times| times.p50),
        median(|times| times.p90),
        median(|times| times.p99),
        median(|times| times.p99_9),
    ];
    Some(Curve { name: contest.name.clone(), values })
}

/// None: not all counts were measured.
fn growth(results: &Results) -> Option<Vec<Curve>> {
    let of = |name: &str| {
        let values = GROWTH_CONNECTIONS.map(|count| {
            let id = format!("growth-{count}");
            let cell = results.cells.iter().find(|cell| cell.id == id)?;
            Some(cell.of(name)?.median(super::results::Sample::cpu_us_per_reply))
        });
        let values = values.into_iter().collect::<Option<Vec<f64>>>()?;
        Some(Curve { name: name.to_owned(), values })
    };
    Some(vec![of("ringwrightd")?, of("limit")?])
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 130.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 40.0;

/// Values from tick to tick, up from zero, or in powers of ten where they are far apart.
fn lines(title: &str, ticks: &[String], curves: &[Curve]) -> String {
    let values = || curves.iter().flat_map(|curve| curve.values.iter().copied());
    let largest = values().fold(f64::MIN_POSITIVE, f64::max);
    let least = values().filter(|value| *value > 0.0).fold(largest, f64::min);
    let logarithmic = largest / least > 20.0;
    let low = if logarithmic { 10_f64.powf(least.log10().floor()) } else { 0.0 };
    let high = if logarithmic { 10_f64.powf(largest.log10().ceil()) } else { largest * 1.1 };
    let y = |value: f64| {
        let share = if logarithmic {
            (value.max(low) / low).log10() / (high / low).log10()
        } else {
            value / high
        };
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    };
    let step = (WIDTH - LEFT - RIGHT) / (ticks.len() - 1).max(1) as f64;
    let x = |index: usize| LEFT + step * index as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    plot::text(&mut svg, 12.0, 22.0, "start", title);
    for value in grid(low, high, logarithmic) {
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>",
            WIDTH - RIGHT,
            at = y(value)
        );
        plot::text(&mut svg, LEFT - 6.0, y(value) + 4.0, "end", &number(value));
    }
    for (index, tick) in ticks.iter().enumerate() {
        plot::text(&mut svg, x(index), HEIGHT - BOTTOM + 18.0, "middle", tick);
    }
    for (number, Curve { name, values }) in curves.iter().enumerate() {
        let colour = colour(name);
        let points: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(index, value)| format!("{:.1},{:.1}", x(index), y(*value)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
        for (index, value) in values.iter().enumerate() {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\">\
                 <title>{name}: {value:.2}</title></circle>",
                x(index),
                y(*value)
            );
        }
        let top = TOP + number as f64 * 18.0;
        let left = WIDTH - RIGHT + 16.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>",
            top - 9.0
        );
        plot::text(&mut svg, left + 16.0, top, "start", name);
    }
    svg.push_str("</svg>\n");
    svg
}

/// As short as it can be.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn grid(low: f64, high: f64, logarithmic: bool) -> Vec<f64> {
    if logarithmic {
        let decades = (high / low).log10().round() as i32;
        return (0..=decades).map(|decade| low * 10_f64.powi(decade)).collect();
    }
    let decade = 10_f64.powf(high.log10().floor());
    let rounds = [0.1, 0.2, 0.5, 1.0, 2.0].map(|share| share * decade);
    let step = rounds.into_iter().find(|step| high / step <= 6.0).unwrap_or(decade * 5.0);
    (0..=(high / step) as usize).map(|tick| tick as f64 * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_of_round_numbers() {
        assert_eq!(grid(0.0, 771.0, false), [0.0, 200.0, 400.0, 600.0]);
        assert_eq!(grid(0.0, 4.4, false), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(grid(10.0, 1000.0, true), [10.0, 100.0, 1000.0]);
        assert_eq!([number(0.25), number(1000.0)], ["0.25", "1000"]);
    }

    #[test]
    fn every_value_is_drawn_within_the_picture() {
        let curves = [
            Curve { name: "limit".into(), values: vec![3.0, 4.0] },
            Curve { name: "nginx".into(), values: vec![30_000.0, 5.0] },
        ];
        let svg = lines("title", &["a".to_owned(), "b".to_owned()], &curves);
        let heights = svg
            .split("cy=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().parse::<f64>().unwrap());
        let heights: Vec<f64> = heights.collect();
        assert_eq!(heights.len(), 4);
        assert!(heights.iter().all(|at| (TOP..=HEIGHT - BOTTOM).contains(at)), "{heights:?}");
    }
}
