//! wrk, and what it says: text for people, so that nothing in it is taken for granted.

use std::process::Command;

use super::generator::{Loaded, Request};
use super::subject::PAYLOAD;

/// For a whole number of seconds.
pub fn arguments(request: &Request, command: &mut Command) {
    assert!(request.work.rate.is_none(), "wrk asks in a closed loop");
    let seconds = request.duration.as_secs_f64().ceil();
    command.args(["-t1", &format!("-c{}", request.connections), &format!("-d{seconds}s")]);
    command.arg(format!("http://{}/{PAYLOAD}", request.server.address));
}

/// Reads what wrk 4 prints. A line that is not known is an error, for it may tell of one; so is
/// what tells of one.
pub fn parse(text: &str, connections: u32) -> Result<Loaded, String> {
    let mut counted = None;
    let mut confirmed = false;
    for line in text.lines().map(str::trim) {
        let first = line.split_whitespace().next().unwrap_or_default();
        match first {
            "Running" | "Thread" | "Latency" | "Req/Sec" | "Requests/sec:" | "Transfer/sec:" => {}
            "Socket" | "Non-2xx" => return Err(format!("errors: {line}")),
            _ if line == format!("1 threads and {connections} connections") => confirmed = true,
            _ => {
                let loaded = requests(line).ok_or(format!("unexpected line `{line}`"))?;
                if counted.replace(loaded).is_some() {
                    return Err("the output has two request counts".into());
                }
            }
        }
    }
    if !confirmed {
        return Err(format!("the output does not confirm {connections} connections"));
    }
    counted.ok_or_else(|| "the output has no request count".into())
}

/// `92801 requests in 2.00s, 114.20MB read`.
fn requests(line: &str) -> Option<Loaded> {
    let (count, rest) = line.split_once(" requests in ")?;
    let (elapsed, read) = rest.split_once(", ")?;
    read.strip_suffix("B read")?;
    let unit_at = elapsed.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = elapsed.split_at(unit_at);
    let unit_s = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Some(Loaded {
        replies: count.parse().ok()?,
        elapsed_s: number.parse::<f64>().ok()? * unit_s,
        received_bytes: None,
        connections_opened: None,
        latency_us: None,
        server_cpu_s: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
Running 2s test @ http://127.0.0.1:40001/payload.bin
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.15ms    2.02ms  30.31ms   93.64%
    Req/Sec    46.55k     5.18k   55.93k    70.00%
  92801 requests in 2.01s, 114.20MB read
Requests/sec:  46367.97
Transfer/sec:     57.06MB
";

    #[test]
    fn what_it_counted_is_found() {
        let loaded = parse(GOOD, 64).unwrap();
        assert_eq!((loaded.replies, loaded.elapsed_s), (92_801, 2.01));
        let long = GOOD.replace("2.01s", "1.50m");
        assert_eq!(parse(&long, 64).unwrap().elapsed_s, 90.0);
    }

    #[test]
    fn its_errors_are_errors() {
        for line in [
            "  Socket errors: connect 0, read 3, write 0, timeout 0",
            "  Non-2xx or 3xx responses: 12",
        ] {
            let error = parse(&format!("{GOOD}{line}\n"), 64).err().unwrap();
            assert!(error.contains(line.trim()), "{error}");
        }
    }

    #[test]
    fn what_it_does_not_say_is_not_assumed() {
        for (text, named) in [
            ("", "64 connections"),
            (&GOOD.replace("and 64", "and 63"), "1 threads and 63 connections"),
            (&GOOD.replace("92801 requests in 2.01s, 114.20MB read\n", "\n"), "unexpected line ``"),
            (&GOOD.replace("  92801 requests in 2.01s, 114.20MB read\n", ""), "no request count"),
            (&GOOD.replace("2.01s", "2.01"), "unexpected line"),
            (&GOOD.replace("2.01s", "2.01d"), "unexpected line"),
            (&GOOD.replace("92801", "-1"), "unexpected line"),
            (&GOOD.repeat(2), "two request counts"),
            (&format!("{GOOD}unable to do so\n"), "unable to do so"),
        ] {
            let error = parse(text, 64).err().unwrap();
            assert!(error.contains(named), "{named}: {error}");
        }
    }
}
