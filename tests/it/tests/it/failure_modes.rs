//! `tests/failure-modes.md` against the code: every failure is in it once, every test that it names
//! exists, and what is open says why.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Failures are numbered from 1 to this.
const LAST: u32 = 111;

/// One line of the table.
struct Row {
    number: u32,
    /// `path::name` of each test.
    tests: Vec<String>,
    open: Option<String>,
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).ok()
}

/// The rows, and what is wrong with those that are none.
fn rows(table: &str) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut faults) = (vec![], vec![]);
    for line in table.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        match cells[..] {
            ["#", ..] | ["---", ..] => {}
            [number, what, shown] => match row(number, what, shown) {
                Ok(row) => rows.push(row),
                Err(fault) => faults.push(format!("{fault}: {line}")),
            },
            _ => faults.push(format!("{} cells instead of 3: {line}", cells.len())),
        }
    }
    (rows, faults)
}

fn row(number: &str, what: &str, shown: &str) -> Result<Row, &'static str> {
    let number = number.parse().map_err(|_| "no number")?;
    if what.is_empty() {
        return Err("no failure");
    }
    let mut row = Row { number, tests: vec![], open: None };
    for entry in shown.split("<br>").map(str::trim) {
        if row.open.is_some() {
            return Err("`open` comes last, once");
        }
        match (
            entry.strip_prefix("open:"),
            entry.strip_prefix('`').and_then(|e| e.strip_suffix('`')),
        ) {
            (Some(reason), _) => row.open = Some(reason.trim().to_owned()),
            (None, Some(test)) => row.tests.push(test.to_owned()),
            (None, None) => return Err("neither a test nor `open: reason`"),
        }
    }
    // One word is no reason.
    match &row.open {
        Some(reason) if reason.split_whitespace().count() < 3 => Err("open without a reason"),
        _ => Ok(row),
    }
}

/// Names of the functions in `source` that are tests, those in `proptest!` included: they carry the
/// attribute, too.
fn tests_in(source: &str) -> BTreeSet<&str> {
    let mut tests = BTreeSet::new();
    let mut marked = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        }
        let function = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
        if let Some(function) = function {
            let end = function.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            if marked {
                tests.insert(&function[..end.unwrap_or(function.len())]);
            }
            marked = false;
        }
    }
    tests
}

/// What is wrong with the table.
fn faults(table: &str) -> Vec<String> {
    let (rows, mut faults) = rows(table);
    let mut times = BTreeMap::new();
    for row in &rows {
        *times.entry(row.number).or_insert(0) += 1;
    }
    for number in 1..=LAST {
        match times.remove(&number) {
            Some(1) => {}
            Some(times) => faults.push(format!("{number} is there {times} times")),
            None => faults.push(format!("{number} is missing")),
        }
    }
    faults.extend(times.keys().map(|number| format!("there is no failure {number}")));
    let mut sources: BTreeMap<String, Option<String>> = BTreeMap::new();
    for (number, test) in
        rows.iter().flat_map(|row| row.tests.iter().map(|test| (row.number, test)))
    {
        let Some((path, name)) = test.rsplit_once("::") else {
            faults.push(format!("{number}: {test} is not path::name"));
            continue;
        };
        let source = sources.entry(path.to_owned()).or_insert_with(|| read(path));
        match source {
            None => faults.push(format!("{number}: there is no file {path}")),
            Some(source) if !tests_in(source).contains(name) => {
                faults.push(format!("{number}: {path} has no test {name}"));
            }
            Some(_) => {}
        }
    }
    faults
}

#[test]
fn every_failure_is_mapped_to_tests_that_exist_or_open_with_a_reason() {
    let table = read("tests/failure-modes.md").unwrap();
    let faults = faults(&table);
    assert!(faults.is_empty(), "tests/failure-modes.md:\n{}", faults.join("\n"));
}

#[test]
fn a_table_that_is_wrong_is_found() {
    let table = read("tests/failure-modes.md").unwrap();
    let line = |number: u32| {
        let start = format!("| {number} |");
        table.lines().find(|line| line.starts_with(&start)).unwrap().to_owned()
    };
    let here = "`tests/it/tests/it/failure_modes.rs::";
    for (what, from, to) in [
        ("7 is missing", line(7), String::new()),
        ("7 is there 2 times", line(7), format!("{0}\n{0}", line(7))),
        (
            "there is no failure 112",
            line(7),
            format!("{}\n| 112 | x | open: not known so far |", line(7)),
        ),
        ("7: there is no file tests/gone.rs", line(7), "| 7 | x | `tests/gone.rs::a` |".into()),
        ("has no test gone", line(7), format!("| 7 | x | {here}gone` |")),
        // A function that is no test.
        ("has no test tests_in", line(7), format!("| 7 | x | {here}tests_in` |")),
        ("open without a reason", line(7), "| 7 | x | open: later |".into()),
        ("neither a test", line(7), "| 7 | x | |".into()),
        ("is not path::name", line(7), "| 7 | x | `a_test` |".into()),
        ("cells instead of 3", line(7), "| 7 | x |".into()),
    ] {
        let faults = faults(&table.replacen(&from, &to, 1));
        assert!(faults.iter().any(|fault| fault.contains(what)), "{what}: {faults:?}");
    }
}
