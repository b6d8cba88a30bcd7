//! Banned prefixes as JSON. Nothing in a prefix needs escaping.

use ringwright::Prefix;
use std::fmt::Write as _;

/// All of them.
#[must_use]
pub fn list(bans: &[Prefix]) -> String {
    let mut json = "{\"bans\":[".to_owned();
    for (at, prefix) in bans.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(json, "{comma}\"{prefix}\"");
    }
    json.push_str("]}");
    json
}

/// One of them.
#[must_use]
pub fn one(prefix: &Prefix) -> String {
    format!("{{\"prefix\":\"{prefix}\"}}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn as_scripts_read_it() {
        let bans = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let value: Value = serde_json::from_str(&list(&bans)).unwrap();
        assert_eq!(value, json!({"bans": ["10.0.0.0/8", "2001:db8::/32"]}));
        let value: Value = serde_json::from_str(&list(&[])).unwrap();
        assert_eq!(value, json!({"bans": []}));
        let value: Value = serde_json::from_str(&one(&bans[0])).unwrap();
        assert_eq!(value, json!({"prefix": "10.0.0.0/8"}));
    }
}
