//! Which mistake another one hides by nature.

use super::kinds::{Mistake, Phase};
use super::recipe::{Decl, Edit, Recipe};

/// Whether a mistake need not be named beside some others.
pub fn hidden(recipe: &Recipe, mistake: &Mistake, others: &[&Mistake]) -> bool {
    let phase = mistake.phase;
    // Nothing is read of a file whose brackets are too deep.
    let deep = |m: &Mistake| m.code == "syntax::too_deep";
    if others.iter().any(|m| deep(m)) {
        return true;
    }
    let same = |other: &&&Mistake| other.decl.is_some() && other.decl == mistake.decl;
    // That a stage leaves no model shows where it is planned.
    let named = mistake.edits.iter().find_map(|edit| match edit {
        Edit::Set(_, key, name) if key == "from" => recipe.place(name),
        _ => None,
    });
    let fails = |stage: usize| others.iter().any(|m| !lost(recipe, m, stage, 0).is_empty());
    if mistake.code == "plan::wrong_port" && named.is_some_and(fails) {
        return true;
    }
    match phase {
        // A declaration that cannot be told what it is, is not looked into.
        Phase::Text | Phase::Value | Phase::Reference => {
            let headless = |m: &&&Mistake| m.touches.iter().any(|(_, t)| t == "its head");
            // Where one of the last declaration is not, what closes nothing behind it may close it.
            let last = recipe.decls.len() - 1;
            let stray = mistake.code == "syntax::stray_bracket";
            let taken = |m: &Mistake| m.code == "syntax::unclosed_bracket" && m.decl == Some(last);
            if stray && others.iter().any(|m| taken(m)) {
                return true;
            }
            let unread = |m: &&&Mistake| m.phase == Phase::Text || m.code == "resolve::bad_import";
            // What an unreadable piece may hold is not missed, nor are names that it may declare.
            let missed = [
                "resolve::missing_key",
                "resolve::dangling_name",
                "resolve::unknown_variable",
                "resolve::unknown_axis",
                "resolve::empty_sweep",
            ];
            let missed = missed.contains(&mistake.code.as_str());
            // Nor of a declaration with a bracket that is never closed.
            let open = |m: &&&Mistake| m.code == "syntax::unclosed_bracket";
            phase != Phase::Text && others.iter().filter(same).any(|m| headless(&m) || open(&m))
                || phase == Phase::Reference && others.iter().any(|m| headless(&m) || open(&m))
                || missed && others.iter().any(|m| unread(&m))
        }
        Phase::Whole => !others.is_empty(),
        _ => {
            let Some(own) = mistake.decl else {
                return false;
            };
            let users = users(recipe, own);
            users.iter().all(|&user| {
                others
                    .iter()
                    .any(|other| hides(recipe, other, mistake, user))
            })
        }
    }
}

/// The declarations a mistake may be named at; none where it stands outside of all.
pub fn places(recipe: &Recipe, mistake: &Mistake) -> Vec<usize> {
    let Some(own) = mistake.decl else {
        return Vec::new();
    };
    let mut list = users(recipe, own);
    list.push(own);
    // A circle is named where it begins.
    if mistake.phase == Phase::Start {
        list.extend(0..recipe.decls.len());
    }
    list
}

/// The names a declaration refers to, by key.
fn references(decl: &Decl) -> impl Iterator<Item = (&str, &str)> {
    const KEYS: [&str; 6] = [
        "model",
        "from",
        "prompt",
        "data",
        "dev",
        "demonstrations_from",
    ];
    let entries = decl
        .entries
        .iter()
        .filter(|(k, _)| KEYS.contains(&k.as_str()));
    entries.map(|(k, v)| (k.as_str(), v.split('.').next().unwrap_or_default()))
}

/// Where a declaration's mistakes of meaning are found: in itself, or in the stages that use it.
fn users(recipe: &Recipe, own: usize) -> Vec<usize> {
    let decl = &recipe.decls[own];
    match decl.keyword.as_str() {
        "data" | "prompt" => {
            let mut list = Vec::new();
            for (i, other) in recipe.decls.iter().enumerate() {
                if other.keyword == "stage" && references(other).any(|(_, name)| name == decl.name)
                {
                    list.push(i);
                }
            }
            list
        }
        _ => vec![own],
    }
}

/// What another mistake takes from a stage.
#[derive(PartialEq)]
enum Lost {
    /// It is not planned at all.
    All,
    /// It does not know what it starts from.
    Start,
    /// Its data.
    Data,
    /// Its prompt.
    Prompt,
    /// Nothing that others need but its lowering, and the stages behind it.
    Own(Phase),
}

fn lost(recipe: &Recipe, other: &Mistake, stage: usize, depth: usize) -> Vec<Lost> {
    let mut list = Vec::new();
    if depth > recipe.decls.len() {
        return list;
    }
    let refused = other.phase <= Phase::Value;
    let decl = &recipe.decls[stage];
    if other.decl == Some(stage) {
        list.push(match (refused, other.code.as_str()) {
            (true, _) | (_, "plan::cycle") => Lost::All,
            (false, _) if other.phase == Phase::Reference => {
                match other.touches.first().map(|(_, key)| key.as_str()) {
                    Some("model" | "from") => Lost::Start,
                    Some("prompt") => Lost::Prompt,
                    _ => Lost::Data,
                }
            }
            (false, _) if other.phase == Phase::Start => Lost::Start,
            // Without the key there is nothing to start from.
            (false, "stage::conflicting_keys")
                if other.touches.iter().any(|(_, t)| t == "from")
                    && other.touches.iter().any(|(_, t)| t == "model") =>
            {
                Lost::Start
            }
            (false, _) => Lost::Own(other.phase),
        });
    }
    // What names and values a sweep or a `let` gives is not known.
    if other.decl.is_none() && other.phase == Phase::Text {
        list.push(Lost::Own(Phase::Text));
    }
    for (key, name) in references(decl) {
        let Some(place) = recipe.place(name) else {
            continue;
        };
        let target = &recipe.decls[place];
        match target.keyword.as_str() {
            "model" if other.decl == Some(place) => list.push(Lost::Start),
            "data" if other.decl == Some(place) => list.push(match refused {
                true => Lost::Data,
                false => Lost::Own(Phase::Data),
            }),
            "prompt" => {
                if other.decl == Some(place) {
                    list.push(match refused {
                        true => Lost::Prompt,
                        false => Lost::Own(other.phase),
                    });
                }
                // Its demonstrations may come from the data.
                for (_, data) in references(target) {
                    if recipe.place(data) == other.decl {
                        list.push(Lost::Own(Phase::Words));
                    }
                }
            }
            "stage" if place != stage && !lost(recipe, other, place, depth + 1).is_empty() => {
                list.push(if key == "prompt" {
                    Lost::Prompt
                } else {
                    Lost::Start
                });
            }
            _ => {}
        }
    }
    list
}

/// Whether a mistake hides another where a stage, or the model itself, would show it.
fn hides(recipe: &Recipe, other: &Mistake, mistake: &Mistake, at: usize) -> bool {
    // In the declaration itself.
    if other.decl == mistake.decl && mistake.decl.is_some() {
        let data = recipe.decls[at].keyword != "stage" || mistake.decl != Some(at);
        let model = recipe.decls[at].keyword == "model";
        if other.phase <= Phase::Value || model || data && other.phase == mistake.phase {
            return true;
        }
        if other.phase == Phase::Start && mistake.phase == Phase::Start {
            return true;
        }
    }
    if recipe.decls[at].keyword != "stage" {
        return false;
    }
    lost(recipe, other, at, 0)
        .iter()
        .any(|lost| match (lost, mistake.phase) {
            (Lost::All, _) => true,
            (_, Phase::Lowered) => true,
            (_, Phase::Keys) => false,
            (Lost::Start, _) => true,
            (Lost::Data, phase) => matches!(phase, Phase::Data | Phase::Words),
            (Lost::Prompt, phase) => matches!(phase, Phase::Prompt | Phase::Words),
            (Lost::Own(own), Phase::Words) => matches!(
                own,
                Phase::Prompt | Phase::Data | Phase::Words | Phase::Value2
            ),
            (Lost::Own(own), Phase::Prompt) => *own == Phase::Prompt,
            (Lost::Own(_), _) => false,
        })
}
