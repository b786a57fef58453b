//! Rows of tables in adapters of peft's: the type `TRAINABLE_TOKENS`, and `trainable_token_indices` beside LoRA.

use serde_json::Value as Json;

use super::trainable_tokens::{DELTA, TOKEN_IDS, TrainableTokens};
use crate::library::net::{Role, ends_with};
use crate::library::peft::Fate::{Used, WithoutEffect};
use crate::library::peft::{Keys, Misfit, Reading, START};
use crate::library::schema::Checked;

/// The type of adapters that hold rows of tables and nothing else.
pub(super) const KIND: &str = "TRAINABLE_TOKENS";
/// The key of their rows.
pub(super) const IDS: &str = "token_indices";
/// That of rows beside LoRA.
const BESIDE: &str = "trainable_token_indices";

/// The keys of peft's `TrainableTokensConfig`.
pub(super) const KEYS: Keys = &[
    ("ensure_weight_tying", WithoutEffect(TIED)),
    ("init_weights", WithoutEffect(START)),
    (IDS, Used),
];

/// Why a key of tied tables says nothing.
const TIED: &str = "a decoder that is tied to its table reads the changed rows here, as in peft";

fn numbers(value: &Json) -> Option<Vec<u64>> {
    value.as_array()?.iter().map(Json::as_u64).collect()
}

/// Rows that were trained beside a LoRA.
pub(super) fn read_beside(file: &mut Reading<'_>) -> Result<(), Misfit> {
    let Some(value) = file.config().get(BESIDE) else {
        return Ok(());
    };
    let wrong = || {
        Misfit::of_config(format!(
            "`{BESIDE}` must be a list of tokens, or map tables to such lists, not {value}"
        ))
    };
    let tables: Vec<(String, Vec<u64>)> = match value {
        Json::Object(map) => {
            let own = map.iter();
            let own = own.map(|(table, value)| Some((table.clone(), numbers(value)?)));
            own.collect::<Option<_>>().ok_or_else(wrong)?
        }
        value => vec![("embed_tokens".to_owned(), numbers(value).ok_or_else(wrong)?)],
    };
    let suffix = format!(".token_adapter.{DELTA}");
    let mut taken = Vec::new();
    for name in file.unread() {
        let Some(module) = name.strip_suffix(&suffix) else {
            continue;
        };
        let mut own = tables.iter();
        let Some((_, rows)) = own.find(|(table, _)| ends_with(module, table)) else {
            continue;
        };
        rows_of(file, &name, (module, rows))?;
        taken.push(name);
    }
    tied(file, &suffix, &taken)
}

/// An adapter that holds rows of tables and nothing else.
pub(super) fn read(file: &mut Reading<'_>) -> Result<(), Misfit> {
    let list = file.config().get(IDS).and_then(numbers);
    let Some(rows) = list.filter(|rows| !rows.is_empty()) else {
        return Err(Misfit::of_config(format!(
            "`{IDS}` must be a list of tokens"
        )));
    };
    let suffix = format!(".{DELTA}");
    let mut taken = Vec::new();
    for name in file.unread() {
        let Some(module) = name.strip_suffix(&suffix) else {
            continue;
        };
        if file.table(module).is_none() {
            // Looked at below.
            continue;
        }
        if file.config().places(module) == Some(false) {
            let what = format!("nothing reads `{name}`: `target_modules` does not name `{module}`");
            return Err(Misfit::of_config(what));
        }
        rows_of(file, &name, (module, &rows))?;
        taken.push(name);
    }
    tied(file, &suffix, &taken)?;
    match taken.is_empty() {
        false => Ok(()),
        true => Err(Misfit::damaged(format!("the adapter has no `{DELTA}`"))),
    }
}

/// Reads the rows of a decoder that is tied to a table where they are those of the table.
fn tied(file: &mut Reading<'_>, suffix: &str, taken: &[String]) -> Result<(), Misfit> {
    for name in file.unread() {
        let module = name.strip_suffix(suffix);
        let decoder = |module: &str| {
            let ends = ["lm_head", "decoder", "embed_out", "vocab_projector"];
            ends.iter().any(|end| ends_with(module, end))
        };
        if !module.is_some_and(decoder) {
            continue;
        }
        let own = file.numbers(&name)?;
        for table in taken {
            if file.numbers(table)? == own {
                file.read(&name)?;
                break;
            }
        }
    }
    Ok(())
}

/// Takes the trained rows of the table of a module.
fn rows_of(
    file: &mut Reading<'_>,
    name: &str,
    (module, rows): (&str, &[u64]),
) -> Result<(), Misfit> {
    let Some(site) = file.table(module) else {
        return Err(Misfit::not_built(format!("rows of `{module}`")));
    };
    let (all, width) = match site.role {
        Role::LmDecoder => (site.output(), site.input()),
        _ => (site.input(), site.output()),
    };
    if let Some(row) = rows.iter().find(|&&row| row >= all) {
        return Err(Misfit::of_config(format!(
            "row {row} of `{module}` is named, which has {all}"
        )));
    }
    let own = format!("{}.{DELTA}", site.path);
    file.take(name, own, &[rows.len() as u64, width])?;
    file.acts();
    let ids = rows.iter().map(u64::to_string).collect();
    file.put(
        &TrainableTokens,
        site,
        vec![(TOKEN_IDS.name(), Checked::Names(ids))],
    );
    Ok(())
}
