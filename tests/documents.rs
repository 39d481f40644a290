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
    let rows = document.lines().filter(|line| line.starts_with("| B-") || line.starts_with("| E-"));
    rows.flat_map(|row| {
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        last.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    })
    .collect()
}

/// The file of a module below `src/`.
fn file_of(module: &str) -> Option<PathBuf> {
    let path = root().join("src").join(module.replace("::", "/"));
    [path.with_extension("rs"), path.join("mod.rs")].into_iter().find(|file| file.is_file())
}

fn is_module(name: &str) -> bool {
    file_of(name).is_some()
}

/// `module::function`, the tests of a module counting as its own.
fn is_unit_test(name: &str) -> bool {
    let Some((module, function)) = name.rsplit_once("::") else {
        return false;
    };
    let text = file_of(module).and_then(|file| fs::read_to_string(file).ok());
    text.is_some_and(|text| text.contains(&format!("fn {function}(")))
}

#[test]
fn every_test_that_the_list_of_defects_names_exists() {
    let document = fs::read_to_string(root().join("docs/defects.md")).unwrap();
    let tests = tests();
    let references = references(&document);
    assert!(references.len() > 40, "{}", references.len());
    for reference in references {
        let found = match reference.strip_prefix("lib ") {
            Some(module) => is_module(module) || is_unit_test(module),
            // Names of types stand in backticks, too.
            None => !reference.contains("::") || tests.contains(&reference),
        };
        assert!(found, "docs/defects.md names {reference}, which is not there");
    }
}

#[test]
fn every_test_that_keeps_a_promise_exists() {
    let document = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let tests = tests();
    let promises = document.split("one UDP port").nth(1).unwrap();
    let promises = promises.split("\n## ").next().unwrap();
    let references: Vec<_> = promises.split('`').skip(1).step_by(2).collect();
    assert!(references.len() >= 7, "{references:?}");
    for reference in references {
        assert!(tests.contains(reference), "ARCHITECTURE.md names {reference}, which is not there");
    }
}

#[test]
fn every_defect_of_the_predecessor_has_its_line() {
    let document = fs::read_to_string(root().join("docs/defects.md")).unwrap();
    for (family, last) in [("B-C", 5), ("B-S", 28), ("B-R", 32), ("E-", 12)] {
        for number in 1..=last {
            let identifier = format!("| {family}{number} |");
            assert!(document.contains(&identifier), "{identifier}");
        }
    }
}
