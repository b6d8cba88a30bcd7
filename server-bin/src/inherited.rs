//! Listening sockets that a service manager has passed to this process (sd_listen_fds(3)):
//! `fd:NAME` and `fd:NUMBER` stand for them where the configuration has an address.

use ringwright::{Address, InheritedSocket, Listener, inherited_listeners};
use std::sync::OnceLock;

/// The text before a name or a number.
pub const PREFIX: &str = "fd:";

/// A socket with its name.
struct Inherited {
    name: String,
    number: i32,
    listener: Listener,
}

/// The sockets of this process. Empty until a server starts: `check` knows none.
static TAKEN: OnceLock<Vec<Inherited>> = OnceLock::new();

/// Takes the sockets of this process. It must be called before anything is opened.
///
/// # Errors
/// A message for the user.
pub fn take() -> Result<(), String> {
    let listeners = inherited_listeners().map_err(|error| error.to_string())?;
    let all = listeners.into_iter().map(|(name, listener)| {
        let number = listener.inherited.as_ref().map_or(-1, InheritedSocket::number);
        Inherited { name, number, listener }
    });
    let _ = TAKEN.set(all.collect());
    Ok(())
}

/// The addresses of the sockets for which a text `fd:NAME` or `fd:NUMBER` stands. None if the
/// process has not taken any, as in `check`, which then knows only that the text may be right.
///
/// # Errors
/// There is no such socket, or the text has no name.
pub fn addresses(text: &str) -> Result<Vec<Address>, String> {
    let name = text.strip_prefix(PREFIX).unwrap_or(text);
    if name.is_empty() {
        return Err("expected fd:NAME or fd:NUMBER, with a name of LISTEN_FDNAMES".to_owned());
    }
    let Some(all) = TAKEN.get() else { return Ok(Vec::new()) };
    let number: Option<i32> = name.parse().ok();
    let is_it = |it: &&Inherited| number.map_or(it.name == name, |number| it.number == number);
    let found: Vec<Address> =
        all.iter().filter(is_it).map(|it| it.listener.address.clone()).collect();
    if found.is_empty() {
        let names: Vec<&str> = all.iter().map(|it| it.name.as_str()).collect();
        let known = match names.is_empty() {
            true => "this process has none (LISTEN_FDS)".to_owned(),
            false => format!("this process has {}", names.join(", ")),
        };
        return Err(format!("no inherited socket is {name}: {known}"));
    }
    Ok(found)
}

/// A listener of an address: on the inherited socket that has it, or on one to be opened.
#[must_use]
pub fn listener(address: &Address) -> Listener {
    let all = TAKEN.get().into_iter().flatten();
    let mut of_address = all.filter(|it| it.listener.address == *address);
    of_address.next().map_or_else(|| address.clone().into(), |it| it.listener.clone())
}

/// Checks that the configuration has a listener for each inherited socket: clients of another one
/// would wait for ever.
///
/// # Errors
/// The sockets without a listener.
pub fn check_claimed(listeners: &[Listener]) -> Result<(), String> {
    let is_unclaimed = |it: &&Inherited| {
        let socket = &it.listener.inherited;
        !listeners.iter().any(|listener| listener.inherited == *socket)
    };
    let unclaimed = TAKEN.get().into_iter().flatten().filter(is_unclaimed);
    let unclaimed: Vec<String> = unclaimed
        .map(|it| format!("{} ({}, {})", it.name, it.number, it.listener.address))
        .collect();
    if unclaimed.is_empty() {
        return Ok(());
    }
    Err(format!(
        "nothing listens on these inherited sockets: {}; add fd:NAME to a listen, or do not pass \
         them (LISTEN_FDS)",
        unclaimed.join(", ")
    ))
}
