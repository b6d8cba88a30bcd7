//! Banned prefixes as JSON. Nothing in a prefix needs escaping.

use ringwright::Prefix;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

/// The bans that the admin listener has added. The others come from the configuration.
#[derive(Debug, Default)]
pub struct OfAdmin(Mutex<BTreeSet<Prefix>>);

impl OfAdmin {
    /// The admin listener has added a ban.
    pub fn add(&self, prefix: Prefix) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(prefix);
    }

    /// A ban was lifted, or it is in the configuration now.
    pub fn forget(&self, prefix: &Prefix) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(prefix);
    }

    /// The origin of a ban.
    fn origin(&self, prefix: &Prefix) -> &'static str {
        let of_admin = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if of_admin.contains(prefix) { "admin" } else { "configuration" }
    }
}

/// All of them.
#[must_use]
pub fn list(bans: &[Prefix], of_admin: &OfAdmin) -> String {
    let (mut prefixes, mut origins) = (String::new(), String::new());
    for (at, prefix) in bans.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(prefixes, "{comma}\"{prefix}\"");
        let _ = write!(origins, "{comma}\"{prefix}\":\"{}\"", of_admin.origin(prefix));
    }
    format!("{{\"bans\":[{prefixes}],\"origins\":{{{origins}}}}}")
}

/// One of them.
#[must_use]
pub fn one(prefix: &Prefix, of_admin: &OfAdmin) -> String {
    format!("{{\"prefix\":\"{prefix}\",\"origin\":\"{}\"}}", of_admin.origin(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn as_scripts_read_it() {
        let bans = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        let of_admin = OfAdmin::default();
        of_admin.add(bans[1]);
        let value: Value = serde_json::from_str(&list(&bans, &of_admin)).unwrap();
        let origins = json!({"10.0.0.0/8": "configuration", "2001:db8::/32": "admin"});
        assert_eq!(value, json!({"bans": ["10.0.0.0/8", "2001:db8::/32"], "origins": origins}));
        let value: Value = serde_json::from_str(&list(&[], &of_admin)).unwrap();
        assert_eq!(value, json!({"bans": [], "origins": {}}));
        let value: Value = serde_json::from_str(&one(&bans[0], &of_admin)).unwrap();
        assert_eq!(value, json!({"prefix": "10.0.0.0/8", "origin": "configuration"}));
        of_admin.forget(&bans[1]);
        let value: Value = serde_json::from_str(&one(&bans[1], &of_admin)).unwrap();
        assert_eq!(value, json!({"prefix": "2001:db8::/32", "origin": "configuration"}));
    }
}
