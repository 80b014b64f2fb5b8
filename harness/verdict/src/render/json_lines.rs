//! JSON lines: what did not pass, then the run as a whole, for programs that read along.

use serde_json::{Value, json};

use super::is_shown;
use crate::report::Report;

/// The end of a stream of events: a `result` for each check that terminals show in full, and last the `run`.
pub fn json_lines(report: &Report, folder: &str) -> String {
    let results = report.checks.iter().filter(|c| is_shown(c)).map(|c| json!({"kind": "result", "check": c}));
    let run = json!({
        "kind": "run",
        "schema": report.schema,
        "run": report.run,
        "gateways": report.gateways,
        "totals": report.totals,
        "breaks": report.breaks,
        "problems": report.problems,
        "folder": folder,
    });
    results.chain([run]).map(|value| line(&value) + "\n").collect()
}

/// One line of JSON that acts on no terminal: what JSON may leave as it is, is escaped too.
fn line(value: &Value) -> String {
    let mut out = String::new();
    for c in value.to_string().chars() {
        if c.is_control() || crate::curl::is_invisible(c) {
            let mut units = [0; 2];
            out.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::render::tests_support::{everything, hostile};

    #[test]
    fn what_did_not_pass_comes_before_the_run() {
        let report = everything().report();
        let lines: Vec<Value> =
            json_lines(&report, "f").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let results: Vec<&Value> = lines.iter().filter(|l| l["kind"] == "result").collect();
        let shown = report.checks.iter().filter(|c| is_shown(c)).count();
        assert!(shown > 3 && shown < report.checks.len());
        assert_eq!((results.len(), lines.len()), (shown, shown + 1));
        let last = lines.last().unwrap();
        assert_eq!((&last["kind"], &last["run"]["exit"], &last["folder"]), (&"run".into(), &1.into(), &"f".into()));
        assert_eq!(results[0]["check"]["clauses"][0]["got"], "status 200");
    }

    #[test]
    fn a_hostile_gateway_cannot_begin_a_line() {
        let report = hostile().report();
        let lines = json_lines(&report, "f");
        assert_eq!(lines.lines().count(), report.checks.iter().filter(|c| is_shown(c)).count() + 1);
        assert!(!lines.chars().any(|c| c != '\n' && c.is_control()));
    }

    proptest! {
        #[test]
        fn a_line_is_read_as_what_was_written(text in any::<String>()) {
            let value = Value::String(text);
            let line = line(&value);
            prop_assert!(!line.chars().any(|c| c.is_control() || crate::curl::is_invisible(c)));
            prop_assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
        }
    }
}
