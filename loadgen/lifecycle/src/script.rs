//! Scripts: one connection's actions as one line that can be printed, parsed, replayed and shrunk.
//!
//! ```text
//! echo://127.0.0.1:7000 seed=7 number=42 say=64,100 connect send=100 recv=50 fin recv=end
//! http://127.0.0.1:8080 seed=7 number=3 say=get:/a connect:rcvbuf=4096 send=37 wait=5ms rst
//! ```
//!
//! A line has the target, the key of the bytes, the requests, and the steps in order. A connection
//! that is still open at the end, or at the next `connect`, is closed.

mod parse;
mod step;

pub use step::{Connect, Exact, Kind, Recv, Send, Step};

use super::dialect::{Key, Phrase};
use std::fmt;

/// Maximum number of requests of a connection.
pub const PHRASES_MAX: usize = 4_096;
/// Maximum number of steps of a script.
pub const STEPS_MAX: usize = 64;
/// Maximum number of connects of a script.
pub const CONNECTS_MAX: usize = 8;

/// The server of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `echo`, `http`, `packets`: the name of the [`Dialect`](super::dialect::Dialect).
    pub scheme: String,
    /// The unresolved `HOST:PORT`.
    pub address: String,
    /// The path, beginning with `/`, or empty.
    pub path: String,
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}{}", self.scheme, self.address, self.path)
    }
}

/// A script. Printed and parsed as one line ([`fmt::Display`], [`std::str::FromStr`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The server.
    pub target: Target,
    /// The key from which its bytes are computed.
    pub key: Key,
    /// The requests that it sends if nothing ends it early.
    pub say: Vec<Phrase>,
    /// The steps.
    pub steps: Vec<Step>,
}

impl fmt::Display for Script {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, key, say, steps } = self;
        write!(out, "{target} seed={} number={}", key.seed, key.number)?;
        if !say.is_empty() {
            write!(out, " say={}", say.join(","))?;
        }
        steps.iter().try_for_each(|step| write!(out, " {step}"))
    }
}

impl Script {
    /// Checks the order of the steps and the limits.
    ///
    /// # Errors
    /// Names the first wrong step and the reason.
    pub fn check(&self) -> Result<(), String> {
        let (mut is_open, mut has_ended, mut connects) = (false, false, 0);
        for step in &self.steps {
            let wrong = |why: &str| Err(format!("{step}: {why}"));
            match step {
                Step::Connect(connect) => {
                    if connect.again && connects == 0 {
                        return wrong("no earlier connection whose port can be reused");
                    }
                    connects += 1;
                    (is_open, has_ended) = (true, false);
                }
                Step::Crowd(..) => {}
                _ if !is_open => {
                    return wrong("no connection is open; add a connect step before it");
                }
                Step::Send(_) | Step::Dribble { .. } | Step::Flood(_) | Step::Fin if has_ended => {
                    return wrong("nothing can be sent after fin");
                }
                Step::Fin => has_ended = true,
                Step::Rst | Step::Close | Step::Vanish(_) => is_open = false,
                Step::Send(_)
                | Step::Dribble { .. }
                | Step::Flood(_)
                | Step::Recv(_)
                | Step::Wait(_) => {}
            }
        }
        match connects {
            0 => Err("a script needs a connect step".into()),
            1..=CONNECTS_MAX if self.steps.len() <= STEPS_MAX && self.say.len() <= PHRASES_MAX => {
                Ok(())
            }
            _ => Err(format!(
                "the script is too long; the maximum is {CONNECTS_MAX} connects, {STEPS_MAX} steps \
                 and {PHRASES_MAX} requests"
            )),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    fn duration() -> impl Strategy<Value = Duration> {
        prop_oneof![1_u64..5_000, (1_u64..5_000).prop_map(|us| us * 1_000), Just(2_000_000_000)]
            .prop_map(Duration::from_nanos)
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Fin), Just(Kind::Rst), Just(Kind::Close)]
    }

    fn connect() -> impl Strategy<Value = Step> {
        let from =
            prop::option::of((1_u8..255).prop_map(|n| IpAddr::V4(Ipv4Addr::new(127, 0, 0, n))));
        (prop::option::of(1_u32..1 << 20), from, any::<bool>()).prop_map(
            |(rcvbuf, from, nowait)| Step::Connect(Connect { rcvbuf, from, again: false, nowait }),
        )
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            prop_oneof![Just(Send::All), (1_u64..1 << 40).prop_map(Send::Bytes)]
                .prop_map(Step::Send),
            (1_u64..1 << 20, duration()).prop_map(|(bytes, every)| Step::Dribble { bytes, every }),
            duration().prop_map(Step::Flood),
            prop_oneof![Just(Recv::End), Just(Recv::Reply), (1_u64..1 << 40).prop_map(Recv::Bytes)]
                .prop_map(Step::Recv),
            duration().prop_map(Step::Wait),
            (1_u64..1_000, kind()).prop_map(|(count, kind)| Step::Crowd(count, kind)),
        ]
    }

    fn ending() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Fin),
            Just(Step::Rst),
            Just(Step::Close),
            duration().prop_map(Step::Vanish)
        ]
    }

    /// Any valid script.
    pub(crate) fn script() -> impl Strategy<Value = Script> {
        let say = prop::collection::vec("[a-z0-9:/._%?=&-]{1,12}", 0..4);
        let steps = (connect(), prop::collection::vec(step(), 0..6), prop::option::of(ending()));
        let again = any::<bool>();
        (0_u64..1 << 40, any::<u64>(), say, steps, again).prop_map(
            |(number, seed, say, (connect, middle, last), again)| {
                let mut steps = vec![connect];
                steps.extend(middle);
                steps.extend(last);
                if again {
                    steps.push(Step::Connect(Connect { again, ..Connect::default() }));
                }
                Script {
                    target: Target {
                        scheme: "http".into(),
                        address: "[::1]:8080".into(),
                        path: if again { "/a/b?c=d".into() } else { String::new() },
                    },
                    key: Key { seed, number },
                    say,
                    steps,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_as_the_same(script in script()) {
            prop_assert_eq!(script.check(), Ok(()));
            prop_assert_eq!(script.to_string().parse::<Script>(), Ok(script));
        }
    }

    #[test]
    fn a_line_is_read_and_printed_as_it_was() {
        for line in [
            "echo://127.0.0.1:7000 seed=7 number=42 say=64,100 connect send=100 recv=50 fin \
             recv=end",
            "http://127.0.0.1:8080 seed=7 number=3 say=get:/a,get:/b connect:rcvbuf=4096 send=37 \
             wait=5ms send=all recv=reply rst connect:again,nowait dribble=9@1500us vanish=2s",
            "packets://localhost:1 seed=0 number=0 connect:from=127.0.0.9 flood=20ms crowd=5:rst \
             close",
        ] {
            assert_eq!(line.parse::<Script>().expect(line).to_string(), line);
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let start = "echo://a:1 seed=1 number=1 say=64";
        for (rest, says) in [
            ("", "needs a connect step"),
            (" send=1", "send=1: no connection is open"),
            (" connect rst recv=1", "recv=1: no connection is open"),
            (" connect fin send=1", "send=1: nothing can be sent after fin"),
            (" connect:again", "no earlier connection"),
            (" connect:fast", "connect:fast: expected"),
            (" connect recv=0", "recv=0: expected"),
            (" connect wait=5", "wait=5: expected a duration"),
            (" connect wait=2h", "wait=2h: at most"),
            (" connect crowd=5:vanish", "crowd=5:vanish: expected"),
            (" connect crowd=5000:rst", "crowd=5000:rst: at most"),
            (" connect dribble=5", "dribble=5: expected"),
            (" connect jump", "jump: unknown step"),
            (" connect say=7", "say=7: must precede the first step"),
        ] {
            let error = format!("{start}{rest}").parse::<Script>().expect_err(rest);
            assert!(error.contains(says), "{rest}: {error}");
        }
        for (line, says) in [
            ("", "expected PROTOCOL://HOST:PORT"),
            ("echo:127.0.0.1 connect", "expected PROTOCOL://HOST:PORT"),
            ("echo://a:0 connect", "expected PROTOCOL://HOST:PORT"),
            ("echo://a:1 seed=x connect", "seed=x: expected a number"),
            ("echo://a:1 number=9999999999999999 connect", "number="),
            ("echo://a:1 say=a,,b connect", "say=a,,b"),
        ] {
            let error = line.parse::<Script>().expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
