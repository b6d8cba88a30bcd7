//! Parses scripts. Every error begins with the wrong word.

use super::step::{Connect, Kind, Recv, Send, Step};
use super::{Script, Target};
use crate::dialect::{Key, Phrase};
use crate::http::PORT;
use crate::units::parse_duration;
use std::str::FromStr;
use std::time::Duration;

/// Maximum duration of a step.
const TIME_MAX: Duration = Duration::from_secs(60 * 60);
/// Maximum size of a crowd.
const CROWD_MAX: u64 = 1_000;
/// Maximum size of a receive buffer.
const RCVBUF_MAX: u32 = 1 << 30;

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text}: expected PROTOCOL://HOST:PORT, such as echo://127.0.0.1:7000");
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let address = with_port(scheme, address);
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if scheme.is_empty() || address.starts_with(':') || port.unwrap_or_default() == 0 {
            return Err(wrong());
        }
        if !rest.bytes().all(is_plain) {
            return Err(format!("{text}: white space and ' are not allowed"));
        }
        Ok(Self { scheme: scheme.into(), address, path: path.into() })
    }
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let target = words.next().unwrap_or_default().parse()?;
        let mut script =
            Self { target, key: Key { seed: 0, number: 0 }, say: Vec::new(), steps: Vec::new() };
        for word in words {
            let wrong = |why: &str| format!("{word}: {why}");
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let in_head = matches!(name, "seed" | "number" | "say");
            if in_head && !script.steps.is_empty() {
                return Err(wrong("must precede the first step"));
            }
            match name {
                "seed" => script.key.seed = number(value, u64::MAX).map_err(|why| wrong(&why))?,
                "number" => {
                    let most = (1 << Key::CONNECT_SHIFT) - 1;
                    script.key.number = number(value, most).map_err(|why| wrong(&why))?;
                }
                "say" => script.say = phrases(value).map_err(|why| wrong(&why))?,
                _ => script.steps.push(step(word).map_err(|why| wrong(&why))?),
            }
        }
        script.check()?;
        Ok(script)
    }
}

/// Adds the default port to the address of a URL without one (RFC 3986 section 3.2.3).
fn with_port(scheme: &str, address: &str) -> String {
    // Colons in brackets belong to an IPv6 address.
    let has_port = address.rfind(':').is_some_and(|colon| !address[colon..].contains(']'));
    match address.strip_suffix(':') {
        _ if scheme != "http" => address.into(),
        Some(host) if !host.is_empty() => format!("{host}:{PORT}"),
        None if !has_port && !address.is_empty() => format!("{address}:{PORT}"),
        _ => address.into(),
    }
}

/// Returns true for a byte that is allowed in a script, which a shell must accept in single quotes.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'\''
}

fn phrases(text: &str) -> Result<Vec<Phrase>, String> {
    let phrases: Vec<Phrase> = text.split(',').map(Phrase::from).collect();
    let is_phrase = |phrase: &Phrase| !phrase.is_empty() && phrase.bytes().all(is_plain);
    match phrases.iter().all(is_phrase) {
        true => Ok(phrases),
        false => Err("expected requests separated by commas".into()),
    }
}

fn step(word: &str) -> Result<Step, String> {
    if let Some(options) = word.strip_prefix("connect:") {
        return connect(options).map(Step::Connect);
    }
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    Ok(match (name, value) {
        ("connect", None) => Step::Connect(Connect::default()),
        ("fin", None) => Step::Fin,
        ("rst", None) => Step::Rst,
        ("close", None) => Step::Close,
        ("send", Some("all")) => Step::Send(Send::All),
        ("send", Some(value)) => Step::Send(Send::Bytes(positive(value, u64::MAX)?)),
        ("recv", Some("reply")) => Step::Recv(Recv::Reply),
        ("recv", Some("end")) => Step::Recv(Recv::End),
        ("recv", Some(value)) => Step::Recv(Recv::Bytes(positive(value, u64::MAX)?)),
        ("wait", Some(value)) => Step::Wait(time(value)?),
        ("flood", Some(value)) => Step::Flood(time(value)?),
        ("vanish", Some(value)) => Step::Vanish(time(value)?),
        ("dribble", Some(value)) => {
            let (bytes, every) = value.split_once('@').ok_or("expected BYTES@TIME")?;
            Step::Dribble { bytes: positive(bytes, u64::MAX)?, every: time(every)? }
        }
        ("crowd", Some(value)) => {
            let (count, kind) = value.split_once(':').ok_or("expected COUNT:fin|rst|close")?;
            let kind = [Kind::Fin, Kind::Rst, Kind::Close].into_iter().find(|it| it.name() == kind);
            Step::Crowd(positive(count, CROWD_MAX)?, kind.ok_or("expected COUNT:fin|rst|close")?)
        }
        _ => {
            return Err(
                "unknown step; expected connect, send=, dribble=, flood=, recv=, wait=, fin, \
                        rst, close, vanish= or crowd="
                    .into(),
            );
        }
    })
}

fn connect(options: &str) -> Result<Connect, String> {
    let wrong = "expected rcvbuf=BYTES, from=ADDRESS, again or nowait";
    let mut connect = Connect::default();
    for option in options.split(',') {
        match option.split_once('=') {
            None if option == "again" => connect.again = true,
            None if option == "nowait" => connect.nowait = true,
            Some(("rcvbuf", bytes)) => {
                connect.rcvbuf = Some(positive(bytes, RCVBUF_MAX.into())? as u32);
            }
            Some(("from", from)) => connect.from = Some(from.parse().map_err(|_| wrong)?),
            _ => return Err(wrong.into()),
        }
    }
    Ok(connect)
}

fn number(text: &str, most: u64) -> Result<u64, String> {
    let number: u64 = text.parse().map_err(|_| "expected a number")?;
    if number <= most { Ok(number) } else { Err(format!("at most {most}")) }
}

fn positive(text: &str, most: u64) -> Result<u64, String> {
    match number(text, most)? {
        0 => Err("expected a number above 0".into()),
        number => Ok(number),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if time <= TIME_MAX { Ok(time) } else { Err(format!("at most {TIME_MAX:?}")) }
}
