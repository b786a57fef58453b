//! A folder of sentence-transformers: a model, and modules behind it that make embeddings of its states.

use serde_json::Value as Json;

use super::Plan;
use super::error::{BAD_MODEL, UNUSED_MODULE};
use super::model_files::Files;
use crate::base::world::Location;
use crate::base::{Diag, Diags, Span};
use crate::library::task::{Modules, POOLING_MODULE};
use crate::resolve::Declared;

/// The file that lists the modules.
const FILE: &str = "modules.json";
/// The kind of the module that is a model.
const MODEL: &str = "Transformer";

/// A folder that was looked into.
#[derive(Debug, Default)]
pub(super) struct Entered {
    /// Where the model lies, if it does not lie in the folder itself.
    pub(super) inside: Option<Location>,
    /// The modules behind it.
    pub(super) modules: Option<Modules>,
}

/// Says that modules behind a model are not used.
pub(super) fn unused(name: &str, modules: &Modules, at: Span) -> Diag {
    let others: Vec<String> = modules
        .kinds
        .iter()
        .map(|kind| format!("`{kind}`"))
        .collect();
    let message = format!(
        "`{name}` is a folder of sentence-transformers, of which the {MODEL} is read; {} behind it {} not used",
        others.join(", "),
        if others.len() == 1 { "is" } else { "are" }
    );
    Diag::warning(&UNUSED_MODULE, at, message)
        .label("this model")
        .help("what is trained or scored here reads the states of the model by a head of its own; `objective = embed` reads them as the modules do")
}

/// The error of modules that are not built.
pub(super) fn not_built(name: &str, why: &str, at: Span) -> Diag {
    let message = format!(
        "the vectors of `{name}` are not made as its folder of sentence-transformers says: {why}"
    );
    Diag::error(&BAD_MODEL, at, message)
        .label("this model")
        .help("`mean` and `cls` of Pooling and Normalize are built; remove modules.json to take the model beside it as it is")
}

/// Looks into a model's folder; `None` after a diagnostic.
pub(super) fn entered(
    declared: &Declared,
    files: &Files<'_>,
    diags: &mut Diags,
) -> Option<Entered> {
    let Some(bytes) = files.optional(FILE) else {
        return Some(Entered::default());
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
    let modules = behind(&list, &|name| files.optional(name));
    let entered = |inside| Entered {
        inside,
        modules: Some(modules.clone()).filter(|own| !own.kinds.is_empty()),
    };
    let plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    match files.place {
        _ if path.is_empty() => Some(entered(None)),
        Location::Local(dir) if plain && !path.contains('\\') => {
            Some(entered(Some(Location::Local(dir.join(path)))))
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

/// The modules behind the model.
fn behind(list: &[(String, String)], get: &dyn Fn(&str) -> Option<Vec<u8>>) -> Modules {
    let others = list.iter().filter(|(kind, _)| kind != MODEL);
    let pooling = list.iter().find(|(kind, _)| kind == POOLING_MODULE);
    let pooling = pooling.and_then(|(_, path)| get(&format!("{path}/config.json")));
    Modules {
        kinds: others.map(|(kind, _)| kind.clone()).collect(),
        pooling: pooling.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
    }
}

impl Plan {
    /// The modules behind the model that lies in a folder itself, where that is one of sentence-transformers; by the folder's files.
    #[must_use]
    pub fn modules(get: &dyn Fn(&str) -> Option<Vec<u8>>) -> Option<Modules> {
        let list = listed(&get(FILE)?)?;
        let is_model = |(kind, path): &(String, String)| kind == MODEL && path.is_empty();
        list.iter().any(is_model).then(|| behind(&list, get))
    }
}
