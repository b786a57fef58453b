//! A folder of sentence-transformers: a model, and modules behind it that make embeddings of its states.

use serde_json::Value as Json;

use super::error::{BAD_MODEL, UNUSED_MODULE};
use super::model_files::Files;
use crate::base::world::Location;
use crate::base::{Diag, Diags};
use crate::resolve::Declared;

/// The file that lists the modules.
const FILE: &str = "modules.json";
/// The kind of the module that is a model.
const MODEL: &str = "Transformer";

/// Where the model lies, if it does not lie in the folder itself; with a word on the modules that are not used. The outer
/// `None` after a diagnostic.
pub(super) fn entered(
    declared: &Declared,
    files: &Files<'_>,
    diags: &mut Diags,
) -> Option<Option<Location>> {
    let Some(bytes) = files.optional(FILE) else {
        return Some(None);
    };
    let arg = declared.arg.as_ref()?;
    let name = &declared.name.value;
    let refused = |message: String| Diag::error(&BAD_MODEL, arg.span, message).label("this model");
    let Some(list) = listed(&bytes) else {
        let message =
            format!("the {FILE} of `{name}` is no list of modules with `type` and `path`");
        diags.push(refused(message).help("remove it to take the model beside it as it is"));
        return None;
    };
    let Some((_, path)) = list.iter().find(|(kind, _)| kind == MODEL) else {
        let kinds: Vec<&str> = list.iter().map(|(kind, _)| kind.as_str()).collect();
        let message = format!(
            "`{name}` is a folder of sentence-transformers without a {MODEL}: it has {}",
            kinds.join(", ")
        );
        diags.push(refused(message).help("name a model whose first module is a Transformer"));
        return None;
    };
    let others: Vec<String> = list
        .iter()
        .filter(|(kind, _)| kind != MODEL)
        .map(|(kind, _)| format!("`{kind}`"))
        .collect();
    if !others.is_empty() {
        let message = format!(
            "`{name}` is a folder of sentence-transformers, of which the {MODEL} is read; {} behind it {} not used",
            others.join(", "),
            if others.len() == 1 { "is" } else { "are" }
        );
        diags.push(
            Diag::warning(&UNUSED_MODULE, arg.span, message)
                .label("this model")
                .help("what is trained or scored here reads the states of the model by a head of its own"),
        );
    }
    let plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    match files.place {
        _ if path.is_empty() => Some(None),
        Location::Local(dir) if plain && !path.contains('\\') => {
            Some(Some(Location::Local(dir.join(path))))
        }
        _ => {
            let message = format!("the {MODEL} of `{name}` lies in `{path}`, where it is not read");
            diags.push(
                refused(message)
                    .help("download the repository, and name that folder: `local \"…\"`"),
            );
            None
        }
    }
}

/// Kind and path of each module.
fn listed(bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let json: Json = serde_json::from_slice(bytes).ok()?;
    let each = json.as_array()?.iter().map(|module| {
        let kind = module.get("type")?.as_str()?;
        let kind = kind.rsplit('.').next().unwrap_or(kind);
        let path = module.get("path")?.as_str()?;
        Some((kind.to_owned(), path.trim_end_matches('/').to_owned()))
    });
    each.collect()
}
