//! `ringwrightd doctor`: checks the kernel, the container and the resource limits.

mod folder;
mod profile;

use crate::descriptors;
use crate::options::Doctor;
use folder::Folder;
use ringwright::probe::{CreateRingError, Examination, examine};
use std::io::{self, Write};

/// The way to a profile, for whoever meets a filter.
const PROFILES: &str = "`ringwrightd doctor --seccomp-profile docker` (or `systemd`) prints such a \
    profile";

/// Prints the result of the checks, or a seccomp profile, on standard output.
///
/// # Errors
/// The server cannot run on this system.
pub fn run(options: &Doctor) -> Result<(), String> {
    if let Some(of) = options.seccomp_profile {
        return print(&profile::text(of))
            .map_err(|error| format!("cannot print the profile: {error}"));
    }
    // The server raises its soft limit, too, so only the hard limit matters.
    let _ = descriptors::raise_limit();
    let mut examination = examine_for(options);
    let folder = Folder::examine(options.dir.as_deref(), examination.ring);
    examination.can_run &= folder.can_serve();
    let is_filtered = matches!(
        examination.io_uring,
        Err(CreateRingError::Filtered { .. } | CreateRingError::Killed { .. })
    );
    let hint = if is_filtered { format!("\n{PROFILES}\n") } else { String::new() };
    // Scripts use the exit status, which must not depend on a closed standard output.
    let _ = print(&format!("{examination}{folder}{hint}"));
    if examination.can_run {
        Ok(())
    } else {
        Err("the server cannot run on this system; the list above says what to change".into())
    }
}

fn examine_for(options: &Doctor) -> Examination {
    examine(&options.capacity.config().requirements())
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
