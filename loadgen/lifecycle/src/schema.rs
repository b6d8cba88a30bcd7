//! Checks JSON reports against their schema.

use serde_json::Value;

/// Returns the places where `value` violates `schema`, a part of `whole`. Knows the part of JSON
/// Schema that report.schema.json uses.
fn violations(whole: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.strip_prefix("#/$defs/").expect("a definition of ours");
        return violations(whole, &whole["$defs"][name], value, path);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let found = choices.iter().map(|choice| violations(whole, choice, value, path));
        return found.min_by_key(Vec::len).unwrap_or_default();
    }
    // Any value: data from a server, or another report.
    if schema["type"].is_null() {
        return Vec::new();
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let actual = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = types.contains(&actual) || (actual == "integer" && types.contains(&"number"));
    let mut found = Vec::new();
    if !fits {
        found.push(format!("{path} is {actual}, not {types:?}"));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        found.push(format!("{path} is {value}, not one of {allowed:?}"));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.is_object() && value.get(name).is_none() {
            found.push(format!("{path}/{name} is missing"));
        }
    }
    for (name, inner) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name).or(schema.get("additionalProperties")) {
            Some(Value::Bool(false)) | None => found.push(format!("{path}/{name} is unknown")),
            Some(Value::Bool(true)) => {}
            Some(schema) => {
                found.extend(violations(whole, schema, inner, &format!("{path}/{name}")))
            }
        }
    }
    for (at, inner) in value.as_array().into_iter().flatten().enumerate() {
        found.extend(violations(whole, &schema["items"], inner, &format!("{path}/{at}")));
    }
    found
}

/// Fields that every report may have; a report has them only on request.
const OF_RUNS: [&str; 3] = ["verdicts", "ledger", "process"];

/// Asserts that a report conforms to the schema of its kind, that the schema requires each field,
/// and that it has the fields of all reports.
///
/// # Panics
/// Panics if the report violates the schema.
pub fn check_against_schema(kind: &str, report: &Value) {
    let schema = include_str!("../../report.schema.json");
    let whole: Value = serde_json::from_str(schema).expect("the schema is JSON");
    let reference = serde_json::json!({ "$ref": format!("#/$defs/{kind}") });
    assert!(whole["oneOf"].as_array().expect("kinds of reports").contains(&reference));
    let schema = &whole["$defs"][kind];
    assert_eq!(violations(&whole, schema, report, ""), [""; 0]);
    let is_asked_for = |field: &str| OF_RUNS.contains(&field) || field == "merged";
    for field in report.as_object().expect("an object").keys() {
        let mut without = report.clone();
        without.as_object_mut().expect("an object").remove(field);
        let missing = violations(&whole, schema, &without, "");
        match is_asked_for(field) {
            true => assert_eq!(missing, [""; 0]),
            false => assert_eq!(missing, [format!("/{field} is missing")]),
        }
    }
    for field in OF_RUNS.into_iter().filter(|_| report["environment"].is_object()) {
        let reference = format!("#/$defs/{field}");
        assert_eq!(schema["properties"][field]["$ref"], reference, "{kind}: {field}");
    }
}
