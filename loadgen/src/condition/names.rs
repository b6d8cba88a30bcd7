//! Paths into a report, and suggestions for misspelt names.

use serde_json::Value;
use std::sync::LazyLock;

/// The schema lists every field that a report may have.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../report.schema.json")).expect("the schema is JSON")
});
/// The names with a dot that an error message lists as examples.
const SHOWN: [&str; 4] = ["p99.9", "service.p99", "lag.p99", "bystander_ratio.p99"];

/// Returns the value at a path. A path consists of field names, which may contain dots (`p99.9`),
/// and of list elements, named by index or by their `name`.
#[must_use]
pub fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() {
        return Some(value);
    }
    heads(path).find_map(|(head, rest)| {
        let inner = match value {
            Value::Object(fields) => fields.get(head),
            Value::Array(elements) => match head.parse::<usize>() {
                Ok(number) => elements.get(number),
                Err(_) => elements.iter().find(|element| element["name"] == head),
            },
            _ => None,
        };
        at(inner?, rest)
    })
}

/// Returns true if a report of any kind may have a number at a path.
#[must_use]
pub fn is_in_a_report(path: &str) -> bool {
    let kinds = SCHEMA["oneOf"].as_array().into_iter().flatten();
    !path.is_empty() && kinds.into_iter().any(|kind| may_have(kind, path))
}

/// Makes the error message for a name that is not in `known`, with a suggestion.
#[must_use]
pub fn unknown(name: &str, known: impl Iterator<Item = String>) -> String {
    let fields = SCHEMA["$defs"].as_object().into_iter().flatten().flat_map(|(_, kind)| {
        let fields = kind["properties"].as_object().into_iter().flatten();
        fields.filter(|(_, of)| is_number(of)).map(|(name, _)| name.clone())
    });
    let mut known: Vec<String> = known.collect();
    let all: Vec<String> = known.iter().cloned().chain(fields).collect();
    let near = all.iter().map(|known| (distance(name, known), known)).min();
    let meant = match near {
        Some((steps, nearest)) if steps <= 1 + name.chars().count() / 4 => {
            format!("; did you mean '{nearest}'?")
        }
        _ => ".".into(),
    };
    // A few of the names with a dot show their pattern.
    known.retain(|name| !name.contains('.') || SHOWN.contains(&&name[..]));
    format!(
        "unknown figure '{name}'{meant} Known figures are {}, errors.KIND, findings.RULE, and the \
         path of any number in report.schema.json",
        known.join(", ")
    )
}

/// Returns the ways to split a path after a name, the longest name first.
fn heads(path: &str) -> impl Iterator<Item = (&str, &str)> {
    let whole = std::iter::once((path, ""));
    whole.chain(path.rmatch_indices('.').map(|(at, _)| (&path[..at], &path[at + 1..])))
}

fn may_have(schema: &Value, path: &str) -> bool {
    let schema = resolved(schema);
    // Data from a server, or an embedded report, has no schema. Any path may exist in it.
    if schema["type"].is_null() && schema["oneOf"].is_null() {
        return true;
    }
    if path.is_empty() {
        return is_number(schema);
    }
    heads(path).any(|(head, rest)| {
        let field = schema["properties"].get(head);
        let any = || schema.get("additionalProperties").filter(|any| any.is_object());
        let inner = field.or_else(any).or_else(|| schema.get("items"));
        inner.is_some_and(|inner| may_have(inner, rest))
    }) || schema["oneOf"].as_array().is_some_and(|all| all.iter().any(|one| may_have(one, path)))
}

fn is_number(schema: &Value) -> bool {
    let is = |name: &Value| name == "number" || name == "integer";
    match &schema["type"] {
        Value::Array(types) => types.iter().any(is),
        one => is(one),
    }
}

fn resolved(schema: &Value) -> &Value {
    match schema["$ref"].as_str().and_then(|path| path.strip_prefix("#")) {
        Some(pointer) => SCHEMA.pointer(pointer).unwrap_or(schema),
        None => schema,
    }
}

/// Returns the Levenshtein distance of two names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_goes_through_fields_with_dots_and_through_lists() {
        let report = json!({
            "a": { "p99.9": 5, "p99": { "9": 6 } },
            "parts": [{ "name": "herd", "x": 1 }, { "name": "v1.2", "x": 2 }],
        });
        for (path, value) in [
            ("a.p99.9", Some(5)),
            ("a.p99", None),
            ("parts.0.x", Some(1)),
            ("parts.herd.x", Some(1)),
            ("parts.v1.2.x", Some(2)),
            ("parts.2.x", None),
            ("a.b.c", None),
        ] {
            assert_eq!(at(&report, path).and_then(Value::as_i64), value, "{path}");
        }
    }

    #[test]
    fn the_schema_knows_what_a_report_may_have() {
        for path in [
            "replies",
            "service_time_us.p99.9",
            "statuses.404",
            "intervals.3.p50_us",
            "plan.duration_s",
            "transferred_bytes",
            "ledger.after.connections.open",
            "process.after.sockets.CLOSE_WAIT",
        ] {
            assert!(is_in_a_report(path), "{path}");
        }
        for path in ["", "kind", "plan", "service_time_us.p98", "replies.x", "intervals.replies"] {
            assert!(!is_in_a_report(path), "{path}");
        }
    }

    #[test]
    fn the_nearest_name_is_meant_if_it_is_near() {
        assert_eq!(
            (distance("", "abc"), distance("p9", "p99"), distance("kitten", "sitting")),
            (3, 1, 3)
        );
        let known = || ["errors", "p99"].map(String::from).into_iter();
        assert!(unknown("error", known()).contains("did you mean 'errors'"));
        assert!(unknown("replies_per_sec", known()).contains("did you mean 'replies_per_s'"));
        assert!(!unknown("something_else", known()).contains("did you mean"));
    }
}
