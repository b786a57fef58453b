//! A swept recipe's stages side by side: one table a stage, repetitions under other seeds joined.

use indexmap::IndexMap;
use serde_json::Value as Json;

use super::groups as groups_of;
use super::read::StageResult;
use super::rows::{Others, Single, row, trains};
use super::table::variants;

/// A table for each stage of a `result.json` document that has variants and trains or scores; `seeds`
/// are the axes that only repeat.
#[must_use]
pub fn tables(document: &Json, seeds: &[&str]) -> String {
    let stages: Vec<StageResult> = document
        .get("stages")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .filter_map(|stage| serde_json::from_value(stage.clone()).ok())
        .collect();
    let mut tables: IndexMap<&str, IndexMap<String, Vec<Single<'_>>>> = IndexMap::new();
    for stage in &stages {
        let Some(declared) = stage.stage.as_deref().filter(|_| !stage.at.is_empty()) else {
            continue;
        };
        if !trains(stage) && stage.metrics.is_empty() {
            continue;
        }
        let values: Vec<String> = stage
            .at
            .iter()
            .filter(|(axis, _)| !seeds.contains(&axis.as_str()))
            .map(|(axis, value)| format!("{axis}={value}"))
            .collect();
        let name = if values.is_empty() {
            declared.to_owned()
        } else {
            values.join(",")
        };
        let rows = tables.entry(declared).or_default();
        rows.entry(name).or_default().push(Single {
            recipe: String::new(),
            dir: String::new(),
            out: String::new(),
            among: false,
            stage,
            scores: if trains(stage) {
                Vec::new()
            } else {
                vec![stage]
            },
        });
    }
    let mut text = String::new();
    for (stage, groups) in tables {
        let rows = groups
            .into_iter()
            .map(|(name, group)| row(&group, name, &Others::default()))
            .collect();
        for group in groups_of(rows, None) {
            text.push_str(&format!("\n  {stage}:{}", variants(&group)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_joined_and_other_axes_are_rows() {
        let stage = |method: &str, seed: u64, accuracy: f64| {
            serde_json::json!({
                "name": format!("score@seed={seed},method={method}"), "stage": "score", "kind": "eval",
                "at": { "seed": seed.to_string(), "method": method }, "methods": [method],
                "metrics": { "accuracy": accuracy }, "measured_peak_bytes": 1 << 20,
            })
        };
        let shared =
            serde_json::json!({ "name": "warm", "stage": "warm", "kind": "train", "at": {} });
        let document = serde_json::json!({ "stages": [
            shared, stage("lora", 1, 0.8), stage("lora", 2, 0.9), stage("siva", 1, 0.7), stage("siva", 2, 0.7),
        ] });
        let text = tables(&document, &["seed"]);
        assert!(text.contains("\n  score:\n"), "{text}");
        assert!(text.contains("0.8500 ± 0.0707*"), "{text}");
        assert!(text.contains("method=siva"), "{text}");
        assert!(!text.contains("seed="), "{text}");
        assert!(!text.contains("warm"), "{text}");
        let all = tables(&document, &[]);
        assert!(all.contains("seed=1,method=lora"), "{all}");
    }
}
