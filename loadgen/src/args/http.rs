//! The options of `http`.

use super::LoadArgs;
use crate::http::{Rules, Statuses, Url, head};
use clap::Args;

/// The options of `http`.
#[derive(Clone, Debug, Args)]
pub struct HttpArgs {
    /// The URL.
    #[arg(
        help = "URL to request: http://HOST[:PORT][/PATH]; all replies with a status must have \
                the same body, which the first two equal replies determine"
    )]
    pub url: Url,
    /// Header field to send with every request; repeatable
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_field)]
    pub fields: Vec<(String, String)>,
    /// Accept that the body differs between replies, as that of a page with a time or a token
    /// does; status and framing are still checked. The report counts the differing bodies
    #[arg(long, visible_alias = "bodies-may-vary", env = "RINGLOAD_VARY_OK", hide_env = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    pub vary_ok: bool,
    /// Statuses that are no errors, all others are: 200,304 or 2xx,404. Default: all below 400
    #[arg(long, value_name = "LIST", env = "RINGLOAD_EXPECT_STATUS", hide_env = true)]
    pub expect_status: Option<Statuses>,
    /// The options of the load commands.
    #[command(flatten)]
    pub load: LoadArgs,
}

impl HttpArgs {
    /// Returns the replies that are no errors.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules { vary_ok: self.vary_ok, statuses: self.expect_status.clone() }
    }
}

/// Reads a header field of the form `Name: value`.
fn parse_field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected 'Name: value'")?;
    let value = value.trim();
    if name.is_empty() || !name.bytes().all(head::is_token) {
        return Err("invalid field name; allowed are letters, digits and !#$%&'*+-.^_`|~".into());
    }
    if !value.bytes().all(head::is_text) {
        return Err("control characters are not allowed in the value".into());
    }
    for framing in ["content-length", "transfer-encoding"] {
        if name.eq_ignore_ascii_case(framing) {
            return Err(format!("{name} announces a body, but these GET requests have none"));
        }
    }
    Ok((name.into(), value.into()))
}
