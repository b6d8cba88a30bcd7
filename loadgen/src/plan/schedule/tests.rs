use super::*;

const PART: &str = "[[part]]\nname = \"a\"\nlength = \"5s\"\nrun = \"echo h:1 -c 2\"\n";
const SERVER: &str = "[server]\npid = 42\n";

fn read(text: &str) -> Result<Schedule, String> {
    Schedule::read(Source { name: "plan.toml", text }, None)
}

fn words(text: &str) -> Vec<String> {
    let schedule = read(text).expect(text);
    schedule.parts.iter().map(|part| part.words.join(" ")).collect()
}

fn at(time: &str, signal: &str) -> String {
    format!("[[at]]\ntime = \"{time}\"\nsignal = \"{signal}\"\n")
}

#[test]
fn the_example_is_a_plan() {
    let schedule = read(include_str!("../../../examples/drain.toml")).expect("the example");
    let seconds = Duration::from_secs;
    assert_eq!((schedule.length(), schedule.is_drained), (seconds(15), true));
    let lengths = schedule.parts.iter().map(|part| (part.start, part.length));
    let lengths: Vec<_> = lengths.collect();
    assert_eq!(
        lengths,
        [
            (seconds(0), Some(seconds(15))),
            (seconds(2), Some(seconds(13))),
            (seconds(2), Some(seconds(8)))
        ]
    );
    let drains = schedule.parts.iter().map(|part| part.words.contains(&"--drain-ok".into()));
    assert_eq!(drains.collect::<Vec<_>>(), [true, true, false], "the last has ended before");
    assert_eq!(schedule.events[0].time, seconds(10));
}

#[test]
fn the_example_of_the_help_is_a_plan() {
    let help = crate::args::PLAN_EXAMPLE;
    let plan: Vec<_> =
        help.lines().skip(1).take_while(|line| line.is_empty() || line.starts_with("  ")).collect();
    let schedule = read(&plan.join("\n")).expect("what the help shows");
    assert_eq!((schedule.parts.len(), schedule.events.len()), (2, 1));
    assert!(schedule.server.expect("a server").check_process);
}

#[test]
fn a_command_line_gets_what_the_plan_knows() {
    for (text, line) in [
        (PART.to_string(), "echo h:1 -c 2 -d 5000ms"),
        (format!("seed = 7\n{PART}"), "echo h:1 -c 2 -d 5000ms --seed 7"),
        (format!("seed = 7\n{}", PART.replace("-c 2", "--seed 3")), "echo h:1 --seed 3 -d 5000ms"),
        (PART.replace("echo h:1 -c 2", "idle h:1"), "idle h:1 --hold 5000ms"),
        (format!("{PART}fail-if = [\"p99>5ms\"]\n"), "echo h:1 -c 2 -d 5000ms --fail-if p99>5ms"),
        (format!("restarts = true\n{PART}"), "echo h:1 -c 2 -d 5000ms --drain-ok"),
        (PART.replace("length = \"5s\"\n", "").replace("-c 2", "-c 2 -n 5"), "echo h:1 -c 2 -n 5"),
        (format!("{PART}{SERVER}{}", at("4s", "TERM")), "echo h:1 -c 2 -d 5000ms --drain-ok"),
        (format!("{PART}{SERVER}{}", at("6s", "SIGTERM")), "echo h:1 -c 2 -d 5000ms"),
        (format!("{PART}{SERVER}{}", at("4s", "HUP")), "echo h:1 -c 2 -d 5000ms"),
    ] {
        assert_eq!(words(&text), [line], "{text}");
    }
}

#[test]
fn what_is_no_plan_is_refused_with_its_place() {
    let phase = "[[phase]]\nname = \"p\"\nlength = \"3s\"\n";
    for (text, says) in [
        (String::new(), "plan.toml: the plan has no [[part]]"),
        (format!("{PART}{PART}"), "line 6, column 8: another part has this name"),
        (PART.replace("\"a\"", "\"../a\""), "line 2, column 8: a name has 1 to 40"),
        (PART.replace("5s", "5"), "line 3, column 10: \"5\": expected a duration"),
        (PART.replace("5s", "25h"), "at most 24h"),
        (PART.replace("length = \"5s\"\n", ""), "length is missing"),
        (PART.replace("-c 2", "-d 5s"), "line 4, column 7: -d is not allowed in run"),
        (PART.replace("-c 2", "-n 5"), "length does not apply to a run with -n"),
        (PART.replace("-c 2", "--json x"), "--json is not allowed in run"),
        (PART.replace("-c 2", "-c two"), "invalid value 'two'"),
        (PART.replace("-c 2", "'"), "the quote ' is not closed"),
        (PART.replace("echo", "plan"), "run must begin with http, echo, packets, churn or idle"),
        (format!("{PART}fail-if = [\"p98>?\"]\n"), "p98"),
        (format!("{PART}phase = \"q\"\n"), "there is no [[phase]] with the name \"q\""),
        (format!("{phase}{phase}{PART}"), "another phase has this name"),
        (format!("{PART}{}", at("1s", "TERM")), "signal needs a [server]"),
        (format!("{PART}{SERVER}{}", at("1s", "SEGV")), "\"SEGV\" is not a signal"),
        (
            format!("{PART}{SERVER}{}{}", at("2s", "HUP"), at("1s", "TERM")),
            "follows one that ends the server",
        ),
        (format!("{PART}[[at]]\ntime = \"1s\"\n"), "either signal or command"),
        (format!("{PART}[[at]]\ntime = \"1s\"\ncommand = []\n"), "must begin with a program"),
        (format!("{PART}[server]\n"), "exactly one of command, pid and pid-file"),
        (format!("{PART}{SERVER}ready = \"x\"\n"), "use ready-address"),
        (format!("{PART}{SERVER}ready-address = \"x\"\n"), "expected HOST:PORT"),
        (format!("{PART}{SERVER}ledger = \"x\"\n"), "expected http://"),
    ] {
        let error = read(&text).expect_err(&text);
        assert!(error.contains(says), "{text}\n{error}");
    }
}

#[test]
fn the_schedule_is_shown_in_the_order_of_time() {
    let later = PART.replace("\"a\"", "\"b\"") + "start = \"1s\"\n";
    let text = format!("{later}{PART}{SERVER}{}", at("1500ms", "USR1"));
    let shown = read(&text).expect("a plan").show();
    let lines: Vec<_> = shown.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "server: process 42",
            "0.0s  a, for 5s: ringload echo h:1 -c 2 -d 5000ms",
            "1.0s  b, for 5s: ringload echo h:1 -c 2 -d 5000ms",
            "1.5s  signal USR1",
            "6.0s  end"
        ]
    );
}
