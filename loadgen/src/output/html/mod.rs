//! x
use serde_json::Value;
/// x
pub fn page(_: &Value) -> String {
    String::new()
}
