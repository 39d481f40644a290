//! What the documents promise about the code is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// `module::function` of every test below `tests/`, the module being the path of its file.
fn tests() -> BTreeSet<String> {
    let folder = root().join("tests");
    let mut files = Vec::new();
    sources(&folder, &mut files);
    let mut names = BTreeSet::new();
    for file in files {
        let relative = file.strip_prefix(&folder).unwrap().with_extension("");
        let module = relative.to_string_lossy().replace('/', "::").replace("::mod", "");
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().map(str::trim);
        for name in lines.filter_map(|line| line.strip_prefix("fn ")?.split('(').next()) {
            names.insert(format!("{module}::{name}"));
        }
        names.insert(module);
    }
    names
}

/// Everything between backticks in the last column of a table.
fn references(document: &str) -> Vec<String> {
    let rows = document.lines().filter(|line| line.starts_with("| B-"));
    rows.flat_map(|row| {
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        last.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    })
    .collect()
}

#[test]
fn every_test_that_the_list_of_defects_names_exists() {
    let document = fs::read_to_string(root().join("docs/defects.md")).unwrap();
    let tests = tests();
    let references = references(&document);
    assert!(references.len() > 40, "{}", references.len());
    for reference in references {
        let found = match reference.strip_prefix("lib ") {
            Some(module) => {
                let path = root().join("src").join(module.replace("::", "/"));
                path.with_extension("rs").is_file() || path.join("mod.rs").is_file()
            }
            // Names of types stand in backticks, too.
            None => !reference.contains("::") || tests.contains(&reference),
        };
        assert!(found, "docs/defects.md names {reference}, which is not there");
    }
}

#[test]
fn every_defect_of_the_predecessor_has_its_line() {
    let document = fs::read_to_string(root().join("docs/defects.md")).unwrap();
    let identifiers = (1..=28).map(|number| format!("| B-S{number} |"));
    for identifier in identifiers.chain((1..=2).map(|number| format!("| B-C{number} |"))) {
        assert!(document.contains(&identifier), "{identifier}");
    }
}
