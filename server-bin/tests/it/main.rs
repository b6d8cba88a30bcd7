//! The built daemon, tested from outside by clients of plain sockets. The tests under load, which
//! need the machine to themselves, are the test program `fire`.

mod access_log;
mod admin;
mod allocation;
mod beside_nginx;
mod common;
mod config;
mod configured;
#[path = "../fire/daemon.rs"]
#[allow(dead_code, reason = "shared with the test program `fire`")]
mod daemon;
mod deploy;
#[path = "../../../engine/tests/support/descriptors.rs"]
mod descriptors;
mod disconnect;
mod doctor;
mod hanging;
mod http;
mod idle_pressure;
#[path = "../../../engine/tests/support/io_uring.rs"]
mod io_uring;
#[path = "../fire/ledger.rs"]
#[allow(dead_code, reason = "shared with the test program `fire`")]
mod ledger;
#[path = "../../../engine/tests/support/left_out.rs"]
mod left_out;
mod listening;
mod messages;
mod moving;
mod mutated;
mod namespace;
mod open_files;
mod packets;
mod process;
mod profile;
#[path = "../../../engine/tests/support/program.rs"]
mod program;
mod reload;
mod ring;
#[path = "../../../engine/tests/support/root.rs"]
mod root;
#[path = "../fire/scale.rs"]
mod scale;
#[path = "../../../engine/tests/support/seccomp.rs"]
mod seccomp;
mod served;
mod signals;
mod sites;
#[path = "../fire/socket.rs"]
#[allow(dead_code, reason = "shared with the test program `fire`")]
mod socket;
mod tree;
mod unix;
mod validators;

use common::PATIENCE;
