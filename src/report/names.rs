//! What rows are called.

use super::rows::Single;

/// One name a group: of the recipe, the stage where a recipe has several, and the directory where
/// that leaves two rows alike.
pub(super) fn names(groups: &[Vec<Single<'_>>]) -> Vec<String> {
    let mut names: Vec<String> = groups
        .iter()
        .map(|group| {
            let recipe = common(group.iter().map(|s| s.recipe.as_str()));
            match group.first() {
                Some(first) if first.among => format!("{recipe}/{}", stage(first, group)),
                _ => recipe,
            }
        })
        .collect();
    let twice = |names: &[String], i: usize| {
        let own = names.get(i);
        names.iter().filter(|n| Some(*n) == own).count() > 1
    };
    let plain = names.clone();
    for (i, group) in groups.iter().enumerate() {
        if twice(&plain, i)
            && let Some(name) = names.get_mut(i)
        {
            let out = common(group.iter().map(|s| s.out.as_str()));
            *name = format!("{name} ({out})");
        }
    }
    let plain = names.clone();
    for (i, name) in names.iter_mut().enumerate() {
        if twice(&plain, i) {
            let before = plain.iter().take(i).filter(|n| *n == name).count();
            *name = format!("{name} #{}", before + 1);
        }
    }
    names
}

/// The stage's name, in a sweep with the values that all of a group have.
fn stage(first: &Single<'_>, group: &[Single<'_>]) -> String {
    let Some(declared) = first.stage.stage.as_ref().filter(|_| group.len() > 1) else {
        return first.stage.name.clone();
    };
    let shared: Vec<String> = first
        .stage
        .at
        .iter()
        .filter(|(axis, value)| group.iter().all(|s| s.stage.at.get(*axis) == Some(value)))
        .map(|(axis, value)| format!("{axis}={value}"))
        .collect();
    if shared.is_empty() {
        return declared.clone();
    }
    format!("{declared}@{}", shared.join(","))
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
    use super::*;

    #[test]
    fn names_share_whole_words() {
        let of = |list: &[&str]| common(list.iter().copied());
        assert_eq!(of(&["lora-s1", "lora-s2"]), "lora");
        assert_eq!(of(&["lora", "lora"]), "lora");
        assert_eq!(of(&["ä1", "ä2"]), "ä1");
        assert_eq!(of(&["a_b_1", "a_b"]), "a_b");
    }
}
