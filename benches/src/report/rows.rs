//! The files that the other commands write, as numbers by names.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// Numbers of one file, by the case's name and the number's.
type Numbers = BTreeMap<String, BTreeMap<String, f64>>;

/// What there is, by the file's name without its ending.
#[derive(Debug, Default)]
pub struct Figures(BTreeMap<String, Numbers>);

/// The files that are looked for.
const FILES: [&str; 9] = [
    "frames",
    "frames-time",
    "sender",
    "sender-time",
    "copy-time",
    "memory",
    "compare",
    "veth",
    "guest",
];

/// Reads what is there of the files in a folder; returns also what is not.
///
/// # Errors
/// A file that holds something else, for the user.
pub fn read(folder: &Path) -> Result<(Figures, Vec<&'static str>), String> {
    let (mut figures, mut missing) = (Figures::default(), Vec::new());
    for name in FILES {
        let path = folder.join(name).with_extension("json");
        let Ok(text) = std::fs::read_to_string(&path) else {
            missing.push(name);
            continue;
        };
        let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let value: Value = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
        let numbers = numbers(&value).ok_or_else(|| wrong(&"there are no cases in it"))?;
        figures.0.insert(name.to_owned(), numbers);
    }
    Ok((figures, missing))
}

/// Cases with names, or, if there are none, one without: the numbers of the file itself.
fn numbers(value: &Value) -> Option<Numbers> {
    let Some(cases) = value.get("cases") else {
        let lists = value.as_object()?.values().filter_map(Value::as_array);
        let rows = lists.flatten().filter_map(|row| {
            let name = row.get("driver")?.as_str()?;
            Some((name.to_owned(), flat(row)))
        });
        return Some(rows.chain([(String::new(), flat(value))]).collect());
    };
    let row = |row: &Value| Some((row.get("case")?.as_str()?.to_owned(), flat(row)));
    cases.as_array()?.iter().map(row).collect()
}

/// All numbers of an object, those of objects and lists in it as `outer.inner`.
fn flat(value: &Value) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    let Some(object) = value.as_object() else {
        return all;
    };
    for (name, value) in object {
        match value {
            Value::Number(number) => {
                all.extend(number.as_f64().map(|number| (name.clone(), number)));
            }
            Value::Object(_) => {
                let inner = flat(value).into_iter();
                all.extend(inner.map(|(inner, number)| (format!("{name}.{inner}"), number)));
            }
            Value::Array(list) => {
                let numbers = list.iter().map(Value::as_f64).enumerate();
                let one = |(index, number): (usize, Option<f64>)| {
                    Some((format!("{name}.{index}"), number?))
                };
                all.extend(numbers.filter_map(one));
            }
            _ => {}
        }
    }
    all
}

impl Figures {
    /// Whether a file was there.
    #[must_use]
    pub fn has(&self, file: &str) -> bool {
        self.0.contains_key(file)
    }

    /// A number.
    #[must_use]
    pub fn get(&self, file: &str, case: &str, number: &str) -> Option<f64> {
        self.0.get(file)?.get(case)?.get(number).copied()
    }

    /// The names of a file's cases.
    pub fn cases(&self, file: &str) -> impl Iterator<Item = &str> {
        let numbers = self.0.get(file).into_iter().flatten();
        numbers.map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_names() {
        let value = serde_json::json!({ "unit": "x", "cases": [
            { "case": "a/b", "total": 1.5, "parts": { "post": 1 }, "ours": { "ratio": 2 } },
        ]});
        let found = numbers(&value).unwrap();
        assert_eq!(found["a/b"]["total"], 1.5);
        assert_eq!(found["a/b"]["parts.post"], 1.0);
        assert_eq!(found["a/b"]["ours.ratio"], 2.0);
        let value =
            serde_json::json!({ "connection": [3, 4], "queues": [{ "driver": "d", "slots": 5 }] });
        let found = numbers(&value).unwrap();
        assert_eq!((found[""]["connection.1"], found["d"]["slots"]), (4.0, 5.0));
        assert_eq!(
            numbers(&serde_json::json!({ "cases": [{ "no": "name" }] })),
            None
        );
    }
}
