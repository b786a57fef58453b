//! How many options the rows of a stage have, where that is the same for all of them.

use crate::base::{Diag, Diags};
use crate::library::counts::to_u32;
use crate::library::data::tokens::EncodedSet;
use crate::library::decl;
use crate::library::schema::{Reference, Values};
use crate::library::stage::StageKind;
use crate::plan::error::BAD_DATA;
use crate::plan::{Handed, Sets};
use crate::resolve::Recipe;

/// The options of each row, with the row's number.
fn counts(set: &EncodedSet) -> Vec<(u32, u64)> {
    let mut list: Vec<(u32, u64)> = Vec::new();
    for example in 0..to_u32(set.len()) {
        let row = set.row(example).unwrap_or(example);
        match list.last_mut() {
            Some((own, count)) if *own == row => *count += 1,
            _ => list.push((row, 1)),
        }
    }
    list
}

/// Tells the task how many texts a row has; complains where splits differ in that, or rows have one text.
fn texts(
    kind: &dyn StageKind,
    values: &Values,
    sets: &[Sets],
    start: &mut Handed,
    diags: &mut Diags,
) -> Option<()> {
    let mut known: Option<(usize, &str)> = None;
    for (key, split) in kind.splits().iter().zip(sets.iter().flatten()) {
        let Some(split) = split else { continue };
        let own = split.text.len();
        let refuse = |message: String, help: &str| {
            let diag = Diag::error(&BAD_DATA, values.span(key), message);
            diag.label("in this split").help(help)
        };
        if own < 2 {
            let name = start.task.name();
            let message = format!("`{name}` compares texts, and a row of these data has one");
            diags.push(refuse(
                message,
                "name two columns: `text = [FIRST, SECOND]`, or `anchor = COLUMN, positive = COLUMN`",
            ));
            return None;
        }
        let (wanted, place) = *known.get_or_insert((own, *key));
        if own != wanted {
            let message =
                format!("its rows have {own} texts, and those of `{place}` have {wanted}");
            diags.push(refuse(message, "name as many columns in both"));
            return None;
        }
    }
    if let Some((texts, _)) = known
        && let Some(task) = start.task.of_options(texts as u64)
    {
        start.task = task;
    }
    Some(())
}

/// As many options as columns are named for them, where the rows are not at hand.
fn named(recipe: &Recipe, data: &str) -> Option<u64> {
    let declared = recipe.find("data", data)?;
    let columns = decl::CHOICES.get(&declared.filled.values)?.len() as u64;
    (columns > 1).then_some(columns)
}

/// Tells the task how many options a row has; complains where rows differ in that.
pub(super) fn count(
    recipe: &Recipe,
    (kind, values): (&dyn StageKind, &Values),
    sets: &[Sets],
    start: &mut Handed,
    diags: &mut Diags,
) -> Option<()> {
    if start.task.texts_apart() {
        return texts(kind, values, sets, start, diags);
    }
    if !start.task.pairs_options() {
        return Some(());
    }
    let mut known: Option<(u64, String)> = None;
    let mut assumed = None;
    for (key, split) in kind.splits().iter().zip(sets.iter().flatten()) {
        let Some((name, Some(part))) = values.find::<Reference>(key) else {
            continue;
        };
        let Some(set) = split.as_ref().and_then(|split| split.encoded.as_deref()) else {
            assumed = assumed.or_else(|| named(recipe, name));
            continue;
        };
        for (row, count) in counts(set) {
            let (wanted, place) =
                known.get_or_insert_with(|| (count, format!("row {row} of `{name}.{part}`")));
            if count == *wanted {
                continue;
            }
            let message = format!(
                "row {row} of `{name}.{part}` (counted from 0) has {count} options, and {place} has {wanted}: `{}` compares equally many",
                start.task.name()
            );
            let help = "give all rows as many options, or part the data; `objective = multiple_choice` of an `eval` stage with a language model \
                        takes any number";
            let diag = Diag::error(&BAD_DATA, values.span(key), message);
            diags.push(diag.label("in this split").help(help));
            return None;
        }
    }
    let options = known.map(|(count, _)| count).or(assumed).unwrap_or(2);
    if let Some(task) = start.task.of_options(options) {
        start.task = task;
    }
    Some(())
}
