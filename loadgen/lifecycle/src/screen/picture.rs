//! Draws the live view from plain data.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Gauge, Paragraph, Sparkline};
use std::collections::VecDeque;
use std::time::Duration;

/// Height of the curve in rows.
const CURVE_ROWS: u16 = 4;
/// Minimum and maximum width of a matrix cell in columns, including the space before it.
const CELL_COLUMNS: (usize, usize) = (7, 16);
/// Width of the names on the left in columns.
const NAME_COLUMNS: usize = 16;

/// The content of a live view.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Description of the run, in one line.
    pub title: String,
    /// Time since the start.
    pub elapsed: Duration,
    /// Completed fraction from 0 to 1; `None` if unknown.
    pub done: Option<f64>,
    /// Names and values of figures: `("p99", "412 µs")`.
    pub figures: Vec<(String, String)>,
    /// Title of the curve: `replies per second`.
    pub curve_name: String,
    /// One value per second, the newest last; no curve if empty.
    pub curve: Vec<u64>,
    /// Error counts by kind; zero counts are not shown.
    pub wrong: Vec<(String, u64)>,
    /// Counts in rows and columns.
    pub matrix: Option<Matrix>,
}

/// Counts in rows and columns.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Names of the rows, each with a cell per column.
    pub rows: Vec<(String, Vec<Cell>)>,
}

/// One cell of a matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Number of attempts.
    pub tried: u64,
    /// Number of findings.
    pub found: u64,
    /// The combination does not exist.
    pub is_void: bool,
}

/// Draws the picture and, below it, the last of `lines`.
pub fn draw(frame: &mut Frame<'_>, picture: &Picture, heading: &str, lines: &VecDeque<String>) {
    let colours = Colours::of_the_environment();
    let wrong: Vec<_> = picture.wrong.iter().filter(|(_, count)| *count > 0).collect();
    let figure_rows = picture.figures.len().max(wrong.len() + 1) as u16;
    let curve_rows = if picture.curve.is_empty() { 0 } else { CURVE_ROWS + 2 };
    let matrix_rows = picture.matrix.as_ref().map_or(0, |matrix| matrix.rows.len() as u16 + 2);
    let [title, bar, _, figures, matrix, curve, rest] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(figure_rows),
        Constraint::Length(matrix_rows),
        Constraint::Length(curve_rows),
        Constraint::Min(0),
    ])
    .areas(frame.area());
    frame.render_widget(Line::from(picture.title.as_str()).bold(), title);
    draw_bar(frame, picture, &colours, bar);
    let [left, right] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(figures);
    let rows: Vec<Line> = picture
        .figures
        .iter()
        .map(|(name, value)| Line::from(vec![dim(pad(name)), Span::raw(value.as_str())]))
        .collect();
    frame.render_widget(Paragraph::new(rows), left);
    draw_wrong(frame, &wrong, &colours, right);
    if let Some(what) = &picture.matrix {
        draw_matrix(frame, what, &colours, matrix);
    }
    draw_curve(frame, picture, &colours, curve);
    draw_lines(frame, heading, lines, rest);
}

fn draw_bar(frame: &mut Frame<'_>, picture: &Picture, colours: &Colours, area: Rect) {
    let seconds = picture.elapsed.as_secs_f64();
    match picture.done {
        None => frame.render_widget(Line::from(format!("{seconds:.1} s")), area),
        Some(done) => {
            let done = if done.is_finite() { done.clamp(0.0, 1.0) } else { 0.0 };
            let bar = Gauge::default()
                .ratio(done)
                .label(format!("{:.0}%  {seconds:.1} s", done * 100.0))
                .gauge_style(colours.calm)
                .use_unicode(true);
            frame.render_widget(bar, area);
        }
    }
}

fn draw_wrong(frame: &mut Frame<'_>, wrong: &[&(String, u64)], colours: &Colours, area: Rect) {
    let mut rows = vec![match wrong {
        [] => Line::from(Span::styled("no errors", colours.good)),
        _ => Line::from(Span::styled("errors", colours.bad)).bold(),
    }];
    rows.extend(wrong.iter().map(|(name, count)| {
        let count = Span::styled(crate::units::show_count(*count), colours.bad);
        Line::from(vec![Span::raw(format!("{name:<24} ")), count])
    }));
    frame.render_widget(Paragraph::new(rows), area);
}

fn draw_matrix(frame: &mut Frame<'_>, matrix: &Matrix, colours: &Colours, area: Rect) {
    let room = usize::from(area.width).saturating_sub(NAME_COLUMNS);
    let width = (room / matrix.columns.len().max(1)).clamp(CELL_COLUMNS.0, CELL_COLUMNS.1);
    let cut = |name: &str| name.chars().take(width - 1).collect::<String>();
    let mut head = vec![Span::raw(" ".repeat(NAME_COLUMNS))];
    let names = matrix.columns.iter();
    head.extend(names.map(|name| dim(format!("{:>width$}", cut(name)))));
    let mut rows = vec![Line::from(head)];
    for (name, cells) in &matrix.rows {
        let mut row = vec![dim(pad(name))];
        row.extend(cells.iter().map(|cell| {
            let (text, style) = match cell {
                Cell { is_void: true, .. } => ("·".into(), Style::new().dim()),
                Cell { found: 0, tried: 0, .. } => ("-".into(), Style::new().dim()),
                Cell { found: 0, tried, .. } => (tried.to_string(), colours.good),
                Cell { found, tried, .. } => (format!("{found}/{tried}"), colours.bad),
            };
            Span::styled(format!("{text:>width$}"), style)
        }));
        rows.push(Line::from(row));
    }
    frame.render_widget(Paragraph::new(rows), area);
}

fn draw_curve(frame: &mut Frame<'_>, picture: &Picture, colours: &Colours, area: Rect) {
    let Picture { curve, curve_name, .. } = picture;
    let [name, plot] =
        Layout::vertical([Constraint::Length(1), Constraint::Max(CURVE_ROWS)]).areas(area);
    let last = &curve[curve.len().saturating_sub(usize::from(area.width))..];
    let Some(most) = last.iter().max() else { return };
    let most = crate::units::show_count(*most);
    frame.render_widget(Line::from(dim(format!("{curve_name}, up to {most}"))), name);
    frame.render_widget(Sparkline::default().data(last).style(colours.calm), plot);
}

fn draw_lines(frame: &mut Frame<'_>, heading: &str, lines: &VecDeque<String>, area: Rect) {
    let room = usize::from(area.height.saturating_sub(1));
    let skipped = lines.len().saturating_sub(room);
    let rows = std::iter::once(Line::from(dim(heading.into())))
        .chain(lines.iter().skip(skipped).map(|line| Line::from(line.as_str())));
    frame.render_widget(Paragraph::new(rows.collect::<Vec<_>>()), area);
}

fn pad(name: &str) -> String {
    format!("{:<NAME_COLUMNS$}", name.chars().take(NAME_COLUMNS - 1).collect::<String>())
}

fn dim(text: String) -> Span<'static> {
    Span::styled(text, Style::new().dim())
}

struct Colours {
    good: Style,
    bad: Style,
    calm: Style,
}

impl Colours {
    /// Uses no colours if `NO_COLOR` is set (no-color.org); errors are bold then.
    fn of_the_environment() -> Self {
        match std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            true => Self { good: Style::new(), bad: Style::new().bold(), calm: Style::new() },
            false => Self {
                good: Style::new().fg(Color::Green),
                bad: Style::new().fg(Color::Red),
                calm: Style::new().fg(Color::Cyan),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn shown(picture: &Picture, columns: u16, rows: u16) -> String {
        let mut terminal =
            Terminal::new(TestBackend::new(columns, rows)).expect("a buffer takes everything");
        let lines = (0..30).map(|number| format!("line {number}")).collect();
        terminal
            .draw(|frame| draw(frame, picture, "the heading", &lines))
            .expect("a buffer takes everything");
        terminal.backend().to_string()
    }

    fn picture() -> Picture {
        let cell = |tried, found| Cell { tried, found, is_void: false };
        Picture {
            title: "echo 127.0.0.1:7000".into(),
            elapsed: Duration::from_millis(2_500),
            done: Some(0.25),
            figures: vec![("replies".into(), "1,234".into()), ("p99".into(), "412 µs".into())],
            curve_name: "replies per second".into(),
            curve: (0..200).collect(),
            wrong: vec![("reset".into(), 3), ("eof".into(), 0)],
            matrix: Some(Matrix {
                columns: vec!["fin".into(), "half_close".into()],
                rows: vec![
                    ("in_the_body".into(), vec![cell(100, 0), cell(50, 2)]),
                    ("idle".into(), vec![cell(0, 0), Cell { is_void: true, ..Cell::default() }]),
                ],
            }),
        }
    }

    #[test]
    fn everything_has_its_place() {
        let text = shown(&picture(), 100, 40);
        for part in [
            "echo 127.0.0.1:7000",
            "25%  2.5 s",
            "replies         1,234",
            "p99             412 µs",
            "reset                    3",
            "             fin      half_close",
            "in_the_body                  100            2/50",
            "idle                           -               ·",
            "replies per second, up to 199",
            "the heading",
            "line 29",
        ] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        assert!(!text.contains("eof"), "a kind without errors is not shown:\n{text}");
    }

    #[test]
    fn what_did_not_happen_is_not_drawn() {
        let text = shown(&Picture { title: "t".into(), ..Picture::default() }, 60, 10);
        assert!(text.contains("no errors") && !text.contains("up to"), "{text}");
    }

    #[test]
    fn no_size_of_a_terminal_is_too_small() {
        for (columns, rows) in [(1, 1), (3, 30), (300, 2), (20, 8)] {
            shown(&picture(), columns, rows);
        }
        let odd = Picture { done: Some(f64::NAN), ..picture() };
        assert!(shown(&odd, 80, 20).contains("0%"));
    }
}
