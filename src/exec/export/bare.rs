//! Names of a model without a head: what transformers loads as such has its modules one level higher.

use serde_json::{Map, Value as Json};

use crate::library::method::PeftTensor;
use crate::library::net::Owner;
use crate::library::task::Head;
use crate::plan::Stage;

/// What the paths of a stage's modules begin with that those of the model alone do not, where its task has no head.
pub(super) fn outer(stage: &Stage) -> Option<String> {
    if stage.start.task.needs() != Head::States {
        return None;
    }
    let base = stage.job.params.iter().filter(|p| p.owner == Owner::Base);
    let mut names = base.map(|param| param.name.as_str());
    let (first, _) = names.next()?.split_once('.')?;
    let outer = format!("{first}.");
    names.all(|name| name.starts_with(&outer)).then_some(outer)
}

/// Takes it from all names of an adapter of peft's.
pub(super) fn names(
    outer: &str,
    keys: &mut [(&'static str, Json)],
    lists: [&mut Vec<String>; 2],
    tensors: &mut [PeftTensor],
) {
    for (_, value) in keys {
        *value = renamed(outer, std::mem::take(value));
    }
    for name in lists.into_iter().flatten() {
        *name = without(outer, name);
    }
    for (name, ..) in tensors {
        let own = name.strip_prefix("model.").map(|own| without(outer, own));
        if let Some(own) = own {
            *name = format!("model.{own}");
        }
    }
}

/// A path, or an expression for it, without it.
fn without(outer: &str, name: &str) -> String {
    let escaped = regex::escape(outer);
    let own = name.strip_prefix(outer);
    let own = own.or_else(|| name.strip_prefix(escaped.as_str()));
    own.unwrap_or(name).to_owned()
}

fn renamed(outer: &str, value: Json) -> Json {
    match value {
        Json::String(name) => Json::String(without(outer, &name)),
        Json::Array(list) => list.into_iter().map(|own| renamed(outer, own)).collect(),
        Json::Object(map) => {
            let each = map.into_iter();
            let each = each.map(|(key, own)| (without(outer, &key), renamed(outer, own)));
            Json::Object(each.collect::<Map<_, _>>())
        }
        other => other,
    }
}
