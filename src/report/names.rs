//! What rows are called.

use std::collections::{HashMap, HashSet};

use indexmap::IndexSet;

use super::rows::Single;

/// One name a group: of the recipe, the stage where a recipe has several, and the directory where
/// that leaves two rows alike.
pub(super) fn names(groups: &[Vec<Single<'_>>]) -> Vec<String> {
    let among = groups.iter().filter(|g| g.first().is_some_and(|f| f.among));
    let mut variants = variants(among).into_iter();
    let mut names: Vec<String> = groups
        .iter()
        .map(|group| {
            let recipe = common(group.iter().map(|s| s.recipe.as_str()));
            match group.first() {
                Some(first) if first.among => {
                    let variant = variants.next().filter(|v| !v.is_empty());
                    let stage = variant.unwrap_or_else(|| first.stage.name.clone());
                    format!("{recipe}/{stage}")
                }
                _ => recipe,
            }
        })
        .collect();
    let count = counts(&names);
    for (name, group) in names.iter_mut().zip(groups) {
        if count.get(name).is_some_and(|n| *n > 1) {
            let out = common(group.iter().map(|s| s.out.as_str()));
            *name = format!("{name} ({out})");
        }
    }
    let count = counts(&names);
    let mut before: HashMap<String, usize> = HashMap::new();
    for name in &mut names {
        if count.get(name).is_some_and(|n| *n > 1) {
            let before = before.entry(name.clone()).or_default();
            *before += 1;
            *name = format!("{name} #{before}");
        }
    }
    names
}

/// How often each name is there.
fn counts(names: &[String]) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for name in names {
        *counts.entry(name.clone()).or_default() += 1;
    }
    counts
}

/// What tells the variants of swept stages apart, shortly: the axes that all runs of a group agree
/// in, as far as they are needed, and the stage where there are several; empty for other stages.
fn variants<'a>(groups: impl Iterator<Item = &'a Vec<Single<'a>>>) -> Vec<String> {
    let mut found: Vec<(&str, &str, Vec<(&str, &str)>)> = groups
        .filter_map(|group| {
            let first = group.first()?;
            let same = |axis: &str, value: &String| {
                let agrees = |s: &Single<'_>| s.stage.at.get(axis) == Some(value);
                group.iter().all(agrees)
            };
            let at = first.stage.at.iter();
            let shared = at.filter(|(axis, value)| same(axis, value));
            Some((
                first.recipe.as_str(),
                first.stage.stage.as_deref().unwrap_or_default(),
                shared.map(|(a, v)| (a.as_str(), v.as_str())).collect(),
            ))
        })
        .collect();
    let all = found.iter().flat_map(|(_, _, pairs)| pairs);
    let axes: IndexSet<&str> = all.map(|(axis, _)| *axis).collect();
    let distinct = |list: &[(&str, &str, Vec<(&str, &str)>)]| {
        let set: std::collections::BTreeSet<_> = list.iter().collect();
        set.len()
    };
    for axis in axes.into_iter().rev() {
        let mut without = found.clone();
        for (_, _, pairs) in &mut without {
            pairs.retain(|(a, _)| *a != axis);
        }
        if distinct(&without) == distinct(&found) && without.iter().any(|(_, _, p)| !p.is_empty()) {
            found = without;
        }
    }
    let mut stages: HashMap<&str, HashSet<&str>> = HashMap::new();
    for (recipe, stage, _) in &found {
        stages.entry(recipe).or_default().insert(stage);
    }
    let name = |(recipe, stage, pairs): &(&str, &str, Vec<(&str, &str)>)| {
        let pairs: Vec<String> = pairs.iter().map(|(a, v)| format!("{a}={v}")).collect();
        let several = stages.get(recipe).is_some_and(|s| s.len() > 1);
        match (pairs.is_empty(), several) {
            (true, _) => (*stage).to_owned(),
            (false, true) => format!("{stage}@{}", pairs.join(",")),
            (false, false) => pairs.join(","),
        }
    };
    found.iter().map(name).collect()
}

/// The leading words some names share (`lora-s1`, `lora-s2`: `lora`); the first name if none.
fn common<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let Some(first) = names.first() else {
        return String::new();
    };
    let shared = |end: usize| {
        let head = first.get(..end);
        names.iter().all(|n| {
            let next = n.get(end..).and_then(|rest| rest.chars().next());
            n.get(..end) == head && next.is_none_or(|c| "-_. ".contains(c))
        })
    };
    let ends = first
        .char_indices()
        .map(|(i, _)| i)
        .chain([first.len()])
        .rev();
    let end = ends.into_iter().find(|&end| end > 0 && shared(end));
    end.and_then(|end| first.get(..end))
        .unwrap_or(first)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::read::StageResult;
    use super::*;

    #[test]
    fn variants_are_told_apart_by_the_axes_they_need() {
        let stage = |name: &str, at: &[(&str, &str)]| StageResult {
            name: format!("{name}@…"),
            stage: Some(name.to_owned()),
            at: at.iter().map(|(a, v)| ((*a).into(), (*v).into())).collect(),
            ..StageResult::default()
        };
        let stages = [
            stage(
                "learn",
                &[("seed", "1"), ("method", "lora"), ("lr", "1e-3")],
            ),
            stage(
                "learn",
                &[("seed", "2"), ("method", "lora"), ("lr", "1e-3")],
            ),
            stage(
                "learn",
                &[("seed", "1"), ("method", "full"), ("lr", "1e-4")],
            ),
            stage(
                "learn",
                &[("seed", "2"), ("method", "full"), ("lr", "1e-4")],
            ),
            stage("warm", &[]),
        ];
        let single = |stage| Single {
            recipe: "r".to_owned(),
            dir: "x/o".to_owned(),
            out: "o".to_owned(),
            among: true,
            stage,
            scores: Vec::new(),
        };
        let mut groups: Vec<Vec<Single<'_>>> = stages
            .chunks(2)
            .map(|group| group.iter().map(single).collect())
            .collect();
        let all = names(&groups);
        assert_eq!(
            all,
            ["r/learn@method=lora", "r/learn@method=full", "r/warm"]
        );
        groups.pop();
        assert_eq!(names(&groups), ["r/method=lora", "r/method=full"]);
    }

    #[test]
    fn names_share_whole_words() {
        let of = |list: &[&str]| common(list.iter().copied());
        assert_eq!(of(&["lora-s1", "lora-s2"]), "lora");
        assert_eq!(of(&["lora", "lora"]), "lora");
        assert_eq!(of(&["ä1", "ä2"]), "ä1");
        assert_eq!(of(&["a_b_1", "a_b"]), "a_b");
    }
}
