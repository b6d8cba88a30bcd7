//! The built daemon, tested from outside by clients of plain sockets. The tests under load, which
//! need the machine to themselves, are the test program `fire`.

mod access_log;
mod admin;
mod allocation;
mod beside_nginx;
mod common;
mod config;
mod configured;
mod deploy;
mod disconnect;
mod doctor;
mod fuse;
mod hanging;
mod http;
mod idle_pressure;
mod inherited;
mod listening;
mod messages;
mod moving;
mod mutated;
mod namespace;
mod open_files;
mod packets;
mod process;
mod profile;
mod reload;
mod ring;
mod served;
mod signals;
mod sites;
mod tree;
mod unix;
mod validators;

use common::PATIENCE;
