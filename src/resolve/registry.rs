//! Lookup of schemas by registry.

use crate::library::schema::{Registry, Schema};
use crate::library::{
    decl, export, method, metric, model, optimizer, schedule, stage, start, task,
};

/// Every schema of a registry.
#[must_use]
pub fn schemas(registry: Registry) -> Vec<&'static Schema> {
    match registry {
        Registry::Method => {
            let methods = method::METHODS.iter().map(|m| m.schema());
            methods.chain([&method::import::SCHEMA]).collect()
        }
        Registry::Schedule => schedule::SCHEDULES.iter().map(|s| s.schema()).collect(),
        Registry::Optimizer => optimizer::OPTIMIZERS.iter().map(|o| o.schema()).collect(),
        Registry::Metric => metric::METRICS.iter().map(|m| m.schema()).collect(),
        Registry::Objective => task::TASKS.iter().map(|t| t.schema).collect(),
        Registry::Stage => stage::STAGES.iter().map(|s| s.schema()).collect(),
        Registry::Model => model::ARCHITECTURES.iter().map(|a| a.schema).collect(),
        Registry::Source => decl::DECLARATIONS
            .iter()
            .flat_map(|d| d.sources.iter().copied())
            .collect(),
        Registry::Start => start::STARTS.iter().map(|s| s.schema).collect(),
        Registry::Export => export::EXPORTS.iter().map(|e| e.schema()).collect(),
    }
}

/// Every schema there is: entries of registries, then declarations without a registry of their own.
#[must_use]
pub fn all() -> Vec<&'static Schema> {
    let registries = [
        Registry::Stage,
        Registry::Method,
        Registry::Optimizer,
        Registry::Schedule,
        Registry::Objective,
        Registry::Metric,
        Registry::Start,
        Registry::Export,
        Registry::Source,
    ];
    let mut list: Vec<&'static Schema> = registries.into_iter().flat_map(schemas).collect();
    for declaration in &decl::DECLARATIONS {
        for schema in declaration.schemas() {
            if !list.iter().any(|known| std::ptr::eq(*known, schema)) {
                list.push(schema);
            }
        }
    }
    list
}

/// A schema by name.
#[must_use]
pub fn schema(registry: Registry, name: &str) -> Option<&'static Schema> {
    schemas(registry).into_iter().find(|s| s.name == name)
}

/// Every name of a registry.
pub fn names(registry: Registry) -> impl Iterator<Item = &'static str> + Clone {
    schemas(registry)
        .into_iter()
        .map(|s| s.name)
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::schema::Kind;
    use crate::library::words::{KEYS, Means, NAMES};

    /// The blocks `x { key = … }` and the keys in them, of a piece of a recipe.
    fn written(text: &str, each: &mut dyn FnMut(&str, &str)) {
        let file = format!("stage s = block {{ {text} }}");
        let parsed = crate::syntax::parse(&file, crate::base::SourceId(0));
        assert!(
            !parsed.diags.has_errors(),
            "`{text}` is not of the language"
        );
        let items = parsed.value.expect("a file").items;
        let crate::syntax::ast::Item::Decl(decl) = &items[0] else {
            panic!("no declaration");
        };
        ctor(&decl.body, "", each);
    }

    /// A block without a name, as `generate` takes, is called by its key.
    fn ctor(body: &crate::syntax::ast::Ctor, key: &str, each: &mut dyn FnMut(&str, &str)) {
        let name = match body.name.value.as_str() {
            "" => key,
            name => name,
        };
        for entry in &body.entries {
            each(name, &entry.key.value);
            if let crate::syntax::ast::ValueKind::Ctor(inner) = &entry.value.value {
                ctor(inner, &entry.key.value, each);
            }
        }
    }

    #[test]
    fn words_point_to_keys_that_are_there_and_are_none_themselves() {
        let all = all();
        let within = all
            .iter()
            .flat_map(|s| s.keys)
            .filter_map(|k| match &k.kind {
                Kind::Block(block) => Some(*block),
                _ => None,
            });
        let every: Vec<&Schema> = all.iter().copied().chain(within).collect();
        let has = |block: &str, key: &str| {
            let is = |s: &&Schema| s.name == block && s.key(key).is_some();
            every.iter().any(is)
        };
        let (mut checked, mut wrong) = (0, Vec::new());
        for word in KEYS.iter().chain(NAMES) {
            let Means::Key {
                of,
                key,
                write,
                within,
            } = word.means
            else {
                continue;
            };
            checked += 1;
            for block in of {
                if !has(block, key) {
                    wrong.push(format!("`{block}` has no key `{key}`"));
                }
                let own = word.names.iter().filter(|name| has(block, name));
                wrong.extend(own.map(|name| format!("`{name}` is a key of `{block}` itself")));
            }
            let mut named = false;
            written(write, &mut |block, own| {
                named |= own == key;
                let at = if block == "block" { of[0] } else { block };
                if !has(at, own) {
                    wrong.push(format!("`{write}`: `{at}` has no key `{own}`"));
                }
            });
            if !named {
                wrong.push(format!("`{write}` does not write `{key}`"));
            }
            // A declaration, or a key of a stage.
            if let Some((before, value)) = within.split_once(" = ") {
                let value = value
                    .replace(" \"DIR\" {", " {")
                    .replace(" \"ORG/NAME\" {", " {");
                assert!(!before.is_empty());
                written(&format!("x = {value}"), &mut |block, own| {
                    if block != "block" && !has(block, own) {
                        wrong.push(format!("`{within}`: `{block}` has no `{own}`"));
                    }
                });
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(checked > 40);
    }

    /// Whole numbers that are no side of a tensor: seeds, and counts of steps, examples, blocks and places, which a
    /// training, its data or its model bound.
    const COUNTS: [&str; 18] = [
        "seed",
        "shuffle",
        "demonstration_seed",
        "projection_seed",
        "take",
        "patience",
        "tinit",
        "tfinal",
        "delta_t",
        "begins",
        "last",
        "period",
        "accumulate",
        "samples",
        "n",
        "keep",
        "blocks",
        "frequencies",
    ];

    #[test]
    fn sides_of_tensors_are_bounded() {
        for schema in all() {
            for key in schema.keys {
                let whole = match key.kind {
                    Kind::ByPlace(own) => *own,
                    own => own,
                };
                if let Kind::Int(_, most) | Kind::Batch(_, most) = whole {
                    let bounded = most <= 1 << 32 || COUNTS.contains(&key.name);
                    assert!(bounded, "`{}` of `{}`: {most}", key.name, schema.name);
                }
            }
        }
    }
}
