//! From a command line to an exit status: the steps before and after every command.

use crate::args::{Cli, Target};
use crate::output::outputs::Outputs;
use crate::verdict::{self, Witness};
use ringload_lifecycle::delivery::Delivery;
use ringload_lifecycle::failure::Failure;
use ringload_lifecycle::system::Interrupts;
use std::io;

/// Runs a command and returns its exit status. Inspects the server before and after the run for
/// `--ledger` and `--pid`, evaluates `--fail-if`, and writes the report.
///
/// # Errors
/// The command produced no report, or the report could not be written.
pub fn carry_out(
    cli: &Cli,
    perform: impl FnOnce(&Cli, &Interrupts) -> Result<Delivery, Failure>,
) -> Result<u8, Failure> {
    let common = cli.common();
    // A file that cannot be created must be reported before a long run, not after it. A command
    // that reads reports may also replace one, so it must read them before they are opened.
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
    let outputs = match outputs {
        Some(outputs) => outputs,
        None => Outputs::create(common).map_err(Failure::Usage)?,
    };
    delivery.aside |= outputs.use_stdout();
    let printed = delivery.print();
    outputs.write(&delivery).map_err(|what| Failure::System(io::Error::other(what)))?;
    let lost =
        |error| io::Error::other(format!("cannot write the summary to standard output: {error}"));
    printed.map_err(|error| Failure::System(lost(error)))?;
    Ok(delivery.exit_status)
}
