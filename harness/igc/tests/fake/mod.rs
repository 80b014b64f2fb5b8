//! A binary of suites that says which checks it holds, and drives none of them.

use std::fs;
use std::path::{Path, PathBuf};

use verdict::requirements::Requirements;

/// Writes it into the folder: a program for `IGC_SUITES`. It holds these checks; the project's own where none are given.
pub fn suites(folder: &Path, requirements: Option<Requirements>) -> PathBuf {
    let requirements = requirements.unwrap_or_else(own);
    let mut tests = String::new();
    for requirement in &requirements.checks {
        let function = requirement.check.replace('-', "_").replace('/', "::");
        for case in requirement.case_names() {
            let case = if case == "-" { String::new() } else { format!("::case_1_{}", case.replace('-', "_")) };
            tests.push_str(&format!("{function}{case}: test\n"));
        }
    }
    let file = |name: &str, text: &str| {
        let file = folder.join(name);
        fs::write(&file, text).unwrap();
        file
    };
    let tests = file("tests.txt", &tests);
    let registry = file("registry.json", &requirements.to_registry().unwrap());
    let script = format!(
        "#!/bin/sh\ncase $1 in\n--list) exec /bin/cat '{}';;\nregistry::registry) exec /bin/cat '{}' > \"$IGC_REGISTRY\";;\nesac\n",
        tests.display(),
        registry.display()
    );
    let program = folder.join("suites-fake");
    testtools::script(&program, &script).unwrap();
    program
}

fn own() -> Requirements {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../suites/requirements.yaml");
    Requirements::parse(&fs::read_to_string(file).unwrap()).unwrap()
}
