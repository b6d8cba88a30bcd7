//! From a command line to an exit status: what every kind of run has before it and behind it.

use crate::args::{Cli, Target};
use crate::delivery::Delivery;
use crate::output::outputs::Outputs;
use crate::run::Failure;
use crate::system::Interrupts;
use crate::verdict::{self, Witness};
use std::io;

/// Performs what was asked for between a look at the server and another, judges the report, and
/// delivers it; the exit status.
///
/// # Errors
/// Why there is no report, or why it could not be written.
pub fn carry_out(
    cli: &Cli,
    perform: impl FnOnce(&Cli, &Interrupts) -> Result<Delivery, Failure>,
) -> Result<u8, Failure> {
    let common = cli.common();
    // Created before a run: ten minutes of load are too long to learn that they cannot be. Reports
    // that are read may be replaced, but not before they are read.
    let reads_reports = matches!(cli.target, Target::Reports(_));
    let outputs = match reads_reports {
        true => None,
        false => Some(Outputs::create(common).map_err(Failure::Usage)?),
    };
    let interrupts = Interrupts::block().map_err(Failure::System)?;
    let witness = Witness::before(common)?;
    let mut delivery = perform(cli, &interrupts)?;
    witness.after(&mut delivery, &interrupts);
    verdict::judge(&mut delivery, &common.fail_if);
    let printed = delivery.print();
    let outputs = match outputs {
        Some(outputs) => outputs,
        None => Outputs::create(common).map_err(Failure::Usage)?,
    };
    outputs.write(&delivery).map_err(|what| Failure::System(io::Error::other(what)))?;
    let lost = |error| io::Error::other(format!("the summary could not be written: {error}"));
    printed.map_err(|error| Failure::System(lost(error)))?;
    Ok(delivery.exit_status)
}
