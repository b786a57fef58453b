//! Names of classes that lie beside data: `ClassLabel` features as the `datasets` library writes them.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::base::world::World;

/// The file that older data sets have.
const INFOS: &str = "dataset_infos.json";

/// The page of a data set; its head is YAML.
const README: &str = "README.md";

/// Both.
pub const FILES: [&str; 2] = [INFOS, README];

/// The most that is read of such a file.
const MOST: u64 = 4 << 20;

/// The names of a `ClassLabel`, or of a list of them, among features by name.
pub(super) fn of_feature(features: &Value, column: &str) -> Option<Vec<String>> {
    let feature = features.get(column)?;
    // `[{ … }]`, or `{ "_type": "Sequence" | "List" | "LargeList", "feature": { … } }`.
    let feature = feature.get(0).or(feature.get("feature")).unwrap_or(feature);
    if feature.get("_type")?.as_str()? != "ClassLabel" {
        return None;
    }
    listed(feature.get("names")?)
}

/// Names in a list, or in an object by their numbers.
fn listed(names: &Value) -> Option<Vec<String>> {
    match names {
        Value::Array(list) => list
            .iter()
            .map(|name| name.as_str().map(str::to_owned))
            .collect(),
        Value::Object(map) => {
            let name = |n: usize| map.get(&n.to_string())?.as_str().map(str::to_owned);
            (0..map.len()).map(name).collect()
        }
        _ => None,
    }
}

/// The names that a directory of data gives for a column, in `dataset_infos.json` or in the head of `README.md`; where
/// several configurations are described there, those of `config`, or those that all have.
#[must_use]
pub fn beside(
    dir: &Path,
    config: Option<&str>,
    column: &str,
    world: &dyn World,
) -> Option<Vec<String>> {
    let read = |name: &str| {
        let (file, _) = world.open(&dir.join(name)).ok()?;
        let mut text = String::new();
        file.take(MOST).read_to_string(&mut text).ok()?;
        Some(text)
    };
    let infos = || {
        let value: Value = serde_json::from_str(&read(INFOS)?).ok()?;
        let all: Vec<(&str, Option<Vec<String>>)> = value
            .as_object()?
            .iter()
            .map(|(name, info)| {
                let features = info.get("features");
                (name.as_str(), features.and_then(|f| of_feature(f, column)))
            })
            .collect();
        of_config(all, config)
    };
    let page = || of_page(&read(README)?, config, column);
    infos().or_else(page)
}

/// The names of one configuration, or those that all have.
fn of_config(
    mut all: Vec<(&str, Option<Vec<String>>)>,
    config: Option<&str>,
) -> Option<Vec<String>> {
    if let Some(config) = config {
        all.retain(|(name, _)| *name == config);
    }
    let first = all.first()?.1.clone()?;
    let same = all.iter().all(|(_, names)| names.as_ref() == Some(&first));
    same.then_some(first)
}

/// The names in the YAML head of a data set's page.
fn of_page(text: &str, config: Option<&str>, column: &str) -> Option<Vec<String>> {
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let (head, _) = text.strip_prefix("---")?.split_once("\n---")?;
    let head: Value = serde_saphyr::from_str(head).ok()?;
    let info = head.get("dataset_info")?;
    let one = |info: &Value| {
        let feature = info
            .get("features")?
            .as_array()?
            .iter()
            .find(|feature| feature.get("name").and_then(Value::as_str) == Some(column))?;
        let of = |kind: &Value| kind.get("class_label")?.get("names").and_then(listed);
        let lists = ["sequence", "list"].into_iter();
        let plain = || feature.get("dtype").and_then(of);
        let list = || lists.filter_map(|key| feature.get(key)).find_map(of);
        plain().or_else(list)
    };
    match info {
        Value::Array(list) => {
            let named = list.iter().map(|info| {
                let name = info.get("config_name").and_then(Value::as_str);
                (name.unwrap_or("default"), one(info))
            });
            of_config(named.collect(), config)
        }
        info => one(info),
    }
}
