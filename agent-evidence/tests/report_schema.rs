//! The JSON report is what `docs/report.schema.json` says, and the schema says everything that is in it.

#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use agent_evidence::command::verify_path;
use agent_evidence::verify::{Claim, Options, WindowKind};
use serde_json::Value;

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn schema() -> io::Result<Value> {
    Ok(serde_json::from_str(&fs::read_to_string(tree().join("docs/report.schema.json"))?)?)
}

/// The schema without room for members that it does not name. Those who use it must leave that room.
fn closed(mut schema: Value) -> Value {
    let mut open = vec![&mut schema];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(members) => {
                if members.contains_key("properties") && !members.contains_key("additionalProperties") {
                    members.insert("additionalProperties".to_owned(), Value::Bool(false));
                }
                open.extend(members.values_mut());
            }
            Value::Array(items) => open.extend(items.iter_mut()),
            _ => {}
        }
    }
    schema
}

#[test]
fn the_report_on_every_vector_has_the_form_of_the_schema_and_nothing_more() {
    let validator = jsonschema::validator_for(&closed(schema().unwrap())).unwrap();
    let mut reports = 0;
    for vector in fs::read_dir(tree().join("tests/vectors")).unwrap() {
        let own = vector.unwrap().path();
        let trust = Some(own.join("trust.toml")).filter(|path| path.exists());
        let bundle = own.join("bundle.evb");
        let held = if bundle.exists() { bundle } else { own.join("log") };
        let Ok(report) = verify_path(&held, trust.as_deref(), Options::default(), None) else { continue };
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(&json).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert_eq!(errors, Vec::<String>::new(), "{}", own.display());
        assert_eq!(json["exit"], report.verdict.exit_code());
        reports += 1;
    }
    assert!(reports > 100, "{reports}");
}

#[test]
fn the_schema_names_every_claim_and_every_kind_of_window() {
    let schema = schema().unwrap();
    let names = |path: &str| schema.pointer(path).and_then(Value::as_array).unwrap().clone();
    let claims: Vec<Value> = Claim::ALL.iter().map(|claim| claim.name().into()).collect();
    assert_eq!(names("/properties/claims/items/properties/claim/enum"), claims);
    let kinds: Vec<Value> = WindowKind::ALL.iter().map(|kind| kind.name().into()).collect();
    assert_eq!(names("/properties/windows/items/properties/kind/enum"), kinds);
}
