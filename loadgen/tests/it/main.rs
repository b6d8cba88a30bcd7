//! The built `ringload`, run against small servers that behave or misbehave in one known way.

mod bad;
mod churn;
mod churn_http;
mod command;
mod get;
mod good;
mod http_options;
mod idle;
mod live;
mod open;
mod packets;
mod plan;
mod put;
mod route;
mod search;
mod several;
mod support;
mod verdicts;
