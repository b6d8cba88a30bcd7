//! `RESULTS.md`.

use std::fmt::Write;

use super::Results;
use super::cells::{Figure, PARTS, WITNESS, bytes};
use super::results::{CellResult, Contest, Ratio, Sample};

/// Width of the text.
const COLUMNS_MAX: usize = 100;

/// Returns the whole page.
pub fn markdown(results: &Results, plots: &[(String, String)]) -> String {
    let mut page = String::new();
    head(&mut page, results);
    verdicts(&mut page, results);
    for part in PARTS {
        let cells: Vec<&CellResult> = results.part(part.name).collect();
        if cells.is_empty() {
            continue;
        }
        let _ = writeln!(page, "\n## {}\n{}\n", part.title, part.about);
        table(&mut page, &cells);
        if part.name == "half" {
            latencies(&mut page, &cells);
        }
        for (name, _) in plots {
            let of_part = *name == format!("results-{}.svg", part.name)
                || (part.name == "half" && name.contains("latency"))
                || (part.name == "growth" && name.contains("growth-cpu"));
            if of_part {
                let _ = writeln!(page, "\n![{}]({name})", part.title);
            }
        }
    }
    counts(&mut page, results);
    if !results.absent.is_empty() {
        let absent = results.absent.join(", ");
        let _ = writeln!(page, "\n**Left out** because their load generator is missing: {absent}.");
    }
    wrapped(&page)
}

/// Breaks lines of text at [`COLUMNS_MAX`], but not rows of tables or headings.
fn wrapped(page: &str) -> String {
    let mut text = String::new();
    for line in page.lines() {
        let mut columns = 0;
        let is_text = !line.starts_with(['|', '#', '!']);
        for (index, word) in line.split(' ').enumerate() {
            let width = word.chars().count();
            let breaks = is_text && columns + 1 + width > COLUMNS_MAX;
            if index > 0 {
                text.push(if breaks { '\n' } else { ' ' });
            }
            columns = if breaks { width } else { columns + 1 + width };
            text.push_str(word);
        }
        text.push('\n');
    }
    text
}

fn head(page: &mut String, results: &Results) {
    let Results { date, machine, programs, run_s, seed, quick, ring, .. } = results;
    let _ = writeln!(
        page,
        "# Results\n\nWritten by `cargo run --release -p ringwright-benches -- compare`, {date}; \
         the numbers behind it are in [results.json](results.json)."
    );
    if *quick {
        let _ = writeln!(
            page,
            "\n**A quick run: it shows that everything works. Its figures say nothing about \
             speed.**"
        );
    }
    let programs: Vec<String> =
        programs.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let _ = writeln!(
        page,
        "\n**Machine**: {} × {}, {:.0} GiB, Linux {}, loopback, congestion control `{}`. {}.\n\n\
         **Method**: every server stays alive on one CPU, and the load runs on another. In each \
         round every server is loaded once for {run_s} s, in random order (seed {seed}). Rounds \
         go on until the 95 % confidence interval of the median of every ratio lies within ±{} % \
         of it, or until the maximum is reached; then the table says so. A ratio is ringwrightd's \
         figure divided by the other's *in the same round*. Only the ratios count: absolute \
         figures drift by tens of percent. CPU is user and system time of the server's \
         processes. `ringload`, which checks every byte, loads every server before it is \
         measured. The kernel interface of ringwrightd and `ringload` is {}.",
        machine.cpus,
        machine.cpu_model,
        machine.memory_bytes as f64 / f64::from(1 << 30),
        machine.kernel,
        machine.congestion_control,
        programs.join(", "),
        super::UNCERTAINTY_MAX * 100.0,
        ring.name()
    );
}

fn verdicts(page: &mut String, results: &Results) {
    if results.verdicts.is_empty() {
        return;
    }
    let _ = writeln!(
        page,
        "\n## Targets\nRatios are medians with their 95 % confidence intervals.\n\n\
         | measure | demanded | measured | |\n|---|---|---|---|"
    );
    for verdict in &results.verdicts {
        let mark = if verdict.reached { "reached" } else { "**not reached**" };
        let _ = writeln!(
            page,
            "| {} | {} | {} | {mark} |",
            verdict.measure, verdict.demanded, verdict.measured
        );
    }
}

fn table(page: &mut String, cells: &[&CellResult]) {
    let figure = &cells[0].figure;
    let of_bytes = figure.starts_with("bytes");
    let unit = if of_bytes { "MB per CPU-second" } else { "replies/s" };
    // The ratio of CPU has a column of its own, unless it is the figure of the cell.
    let both = figure != Figure::CpuPerReply.heading();
    let cpu_heading = if both { " ratio of CPU per reply |" } else { "" };
    let cpu_rule = if both { "---|" } else { "" };
    let _ = writeln!(
        page,
        "| | server | {unit} | server CPU per reply | busy: server, load | ratio of {figure} |\
         {cpu_heading}\n|---|---|---|---|---|---|{cpu_rule}"
    );
    for cell in cells {
        for (index, contest) in cell.contests.iter().enumerate() {
            let first = if index == 0 { describe(cell) } else { String::new() };
            let rate = match of_bytes {
                true => contest.median(|sample| sample.bytes as f64 / sample.server_cpu_s / 1e6),
                false => contest.median(Sample::replies_per_s),
            };
            let _ = writeln!(
                page,
                "| {first} | {} | {} | {:.2} µs | {:.0} %, {:.0} % | {} |{}",
                contest.name,
                thousands(rate),
                contest.median(Sample::cpu_us_per_reply),
                contest.server_busy() * 100.0,
                contest.load_busy() * 100.0,
                ratio(contest.ratio.as_ref()),
                if both {
                    format!(" {} |", ratio(contest.cpu_ratio.as_ref()))
                } else {
                    String::new()
                },
            );
        }
    }
}

fn describe(cell: &CellResult) -> String {
    let mut text = format!("**{}**, {} connections", bytes(cell.size_bytes), cell.connections);
    if cell.pipeline > 1 {
        let _ = write!(text, ", {} at a time", cell.pipeline);
    }
    if let Some(files) = cell.files {
        let _ = write!(text, ", {files} files");
    }
    if cell.part == WITNESS.name {
        let _ = write!(text, ", {}", cell.load);
    }
    if let Some(rate) = cell.rate {
        let _ = write!(text, ", {}/s", thousands(f64::from(rate)));
    }
    let _ = write!(text, "; {} rounds", cell.rounds);
    if !cell.precise {
        text.push_str(", *not within the bound*");
    }
    text
}

fn ratio(ratio: Option<&Ratio>) -> String {
    ratio.map_or_else(String::new, |of| {
        format!("{:.3} ({:.3} – {:.3})", of.spread.median, of.interval.0, of.interval.1)
    })
}

fn latencies(page: &mut String, cells: &[&CellResult]) {
    let _ = writeln!(
        page,
        "\nLatency, medians over the rounds, µs:\n\n\
         | | server | 50 % | 90 % | 99 % | 99.9 % | longest |\n|---|---|---|---|---|---|---|"
    );
    for cell in cells {
        for (index, contest) in cell.contests.iter().enumerate() {
            let Contest { name, samples, .. } = contest;
            if samples.iter().any(|sample| sample.latency_us.is_none()) {
                continue;
            }
            let first = if index == 0 { describe(cell) } else { String::new() };
            let median = |of: fn(&crate::compare::Times) -> f64| {
                contest.median(|sample| sample.latency_us.as_ref().map_or(0.0, of))
            };
            let _ = writeln!(
                page,
                "| {first} | {name} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
                median(|times| times.p50),
                median(|times| times.p90),
                median(|times| times.p99),
                median(|times| times.p99_9),
                median(|times| times.max)
            );
        }
    }
}

fn counts(page: &mut String, results: &Results) {
    if let Some(first) = results.idle.first() {
        let _ = writeln!(
            page,
            "\n## Idle connections\nMemory of each of {} connections, three seconds after one \
             request on each. The kernel's part is that of both ends.\n\n\
             | server | its own memory | the kernel's | threads |\n|---|---|---|---|",
            first.connections
        );
        for idle in &results.idle {
            let _ = writeln!(
                page,
                "| {} | {:.0} B | {:.0} B | {} |",
                idle.name, idle.user_bytes, idle.kernel_bytes, idle.threads
            );
        }
    }
    probes(page, results);
    if let Some(first) = results.stalled.first() {
        let _ = writeln!(
            page,
            "\n## Readers that stall\n{} clients request a file of 64 MiB and read nothing.\n\n\
             | server | threads before | threads | CPU meanwhile | a fresh client's first byte |\n\
             |---|---|---|---|---|",
            first.stalled
        );
        for stalled in &results.stalled {
            let _ = writeln!(
                page,
                "| {} | {} | {} | {:.1} % | {:.0} µs |",
                stalled.name,
                stalled.threads_before,
                stalled.threads,
                stalled.busy * 100.0,
                stalled.first_byte_us
            );
        }
    }
    if !results.calls.is_empty() {
        let _ = writeln!(
            page,
            "\n## System calls\nCounted by strace(1) at 64 connections. strace slows a server \
             down, so that it finds more work at a time. Operations of the ring are no system \
             calls; ringwrightd's ledger counts their completions.\n\n\
             | server | system calls per request | completions per request | most frequent |\n\
             |---|---|---|---|"
        );
        for calls in &results.calls {
            let most: Vec<String> =
                calls.most.iter().map(|(name, count)| format!("{name} {count:.2}")).collect();
            let completions = calls
                .completions_per_request
                .map_or_else(String::new, |count| format!("{count:.2}"));
            let _ = writeln!(
                page,
                "| {} | {:.2} | {completions} | {} |",
                calls.name,
                calls.calls_per_request,
                most.join(", ")
            );
        }
    }
}

fn probes(page: &mut String, results: &Results) {
    if results.probe.is_empty() {
        return;
    }
    let _ = writeln!(
        page,
        "\n## Parked connections\n`ringwrightd echo` with either `--probe`. Kernel memory is that \
         of a connection's slab objects beyond its sockets. CPU is the cost of waking a parked \
         connection, answering 32 bytes and parking it again.\n\n\
         | connections | probe | kernel memory | server CPU per cycle | CPU ratio, recv to poll |\n\
         |---|---|---|---|---|"
    );
    for probed in &results.probe {
        for (index, samples) in probed.probes.iter().enumerate() {
            let mut first = String::new();
            if index == 0 {
                let connections = thousands(probed.connections as f64);
                let _ = write!(first, "**{connections}**; {} rounds", probed.rounds);
                if !probed.precise {
                    first.push_str(", *not within the bound*");
                }
            }
            let _ = writeln!(
                page,
                "| {first} | {} | {:.0} B | {:.2} µs | {} |",
                samples.name,
                samples.kernel_bytes(),
                samples.cpu_us(),
                ratio((index == 0).then_some(&probed.cpu_ratio)),
            );
        }
    }
}

/// Formats a number as `182,000`.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{COLUMNS_MAX, thousands, wrapped};

    #[test]
    fn only_text_is_wrapped() {
        let text = ["word"; 50].join(" ");
        let row = format!("| {text} |");
        let page = wrapped(&format!("{text}\n{row}\n"));
        assert!(page.lines().take(3).all(|line| line.len() <= COLUMNS_MAX), "{page}");
        assert_eq!(page.lines().last(), Some(&*row));
        assert_eq!(page.split_whitespace().count(), 102);
    }

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!(thousands(7.4), "7");
        assert_eq!(thousands(182_000.0), "182,000");
        assert_eq!(thousands(1_234_567.0), "1,234,567");
    }
}
