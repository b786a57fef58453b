//! From tree to recipe: names looked up, values checked against schemas, defaults filled in. The
//! last place where anything is optional because it "may be the default".

mod block;
mod borrowed;
mod columns;
mod declare;
pub mod error;
mod load;
pub mod points;
#[cfg(test)]
mod print_tests;
mod recipe;
pub mod registry;
mod scope;
mod shape;
pub mod sweep;
mod values;
mod written;

pub use load::text_of;
pub use points::Swept;
pub use recipe::{Declared, Recipe};
pub use values::{is_bare, parse_size};
pub use written::methods_from_text;

use std::collections::BTreeSet;
use std::path::Path;

use indexmap::IndexMap;

use crate::base::units::Count;
use crate::base::world::World;
use crate::base::{Diag, Diags, Outcome, SourceId, Sources, Span, suggest};
use crate::library::schema::{Checked, Kind, RefKind};
use crate::library::stage;
use crate::syntax::ast::{Decl, File, Item, Value};
use declare::declare;
use error::{
    DANGLING_NAME, DUPLICATE_NAME, EMPTY_SWEEP, MISSING_KEY, MISSING_SPLIT, OUT_OF_BOUNDS,
    UNKNOWN_AXIS, UNKNOWN_VARIABLE, WRONG_REFERENCE,
};
use load::{Loaded, Unreadable, load};
use points::Gather;
use scope::Scope;

/// Reads a recipe, its imports, and `--set` values, and checks them all at each point of its sweeps.
pub fn resolve(
    path: &Path,
    sets: &[(String, String)],
    sources: &mut Sources,
    world: &dyn World,
) -> Outcome<Swept> {
    resolve_with_trees(path, sets, sources, world).0
}

/// [`resolve`] with the trees of the texts that can be read, for those who look at both.
pub fn resolve_with_trees(
    path: &Path,
    sets: &[(String, String)],
    sources: &mut Sources,
    world: &dyn World,
) -> (Outcome<Swept>, Vec<(SourceId, File)>) {
    let mut diags = Diags::default();
    let files = load(path, sources, world, &mut diags);
    let overrides: Vec<(String, Value)> = sets
        .iter()
        .filter_map(|(name, text)| {
            let id = sources.add(format!("--set {name}"), text.clone());
            let parsed = crate::syntax::parse_value(text, id);
            diags.extend(parsed.diags);
            Some((name.clone(), parsed.value?))
        })
        .collect();
    let mut own = Diags::default();
    let mut swept = assemble(&files, &overrides, !diags.has_errors(), &mut own);
    if diags.has_errors() {
        let unreadable = Unreadable::of(&diags);
        for recipe in &mut swept.recipes {
            let whole = |d: &Declared| !unreadable.within(d.filled.span);
            recipe.items.retain(|_, declared| whole(declared));
        }
        without_echoes(&mut own, &unreadable);
    }
    diags.extend(own);
    swept.whole = !diags.has_errors();
    let trees = files.into_iter().map(|f| (f.source, f.file));
    (Outcome::new(Some(swept), diags), trees.collect())
}

/// Drops what is only the echo of an unreadable piece of text: that something is missing which the
/// piece may hold, and a second complaint about the piece itself.
fn without_echoes(own: &mut Diags, unreadable: &Unreadable) {
    own.retain(|diag| {
        let missing = [
            &MISSING_KEY,
            &DANGLING_NAME,
            &UNKNOWN_VARIABLE,
            &UNKNOWN_AXIS,
            &EMPTY_SWEEP,
        ]
        .contains(&diag.code);
        let again = diag.span.is_some_and(|span| unreadable.within(span));
        !missing && !again
    });
}

/// Most stages of a recipe.
const MOST_STAGES: usize = 2_000;

fn assemble(
    files: &[Loaded],
    overrides: &[(String, Value)],
    readable: bool,
    diags: &mut Diags,
) -> Swept {
    let (mut scope, places) = names(files, diags);
    override_lets(&mut scope, overrides, diags);
    let decls = files.iter().flat_map(|f| {
        f.file.items.iter().filter_map(move |item| match item {
            Item::Decl(decl) => Some((decl, f.base.as_path())),
            _ => None,
        })
    });
    let mut stages = decls.clone().filter(|(d, _)| d.keyword.value == "stage");
    if let Some((decl, _)) = stages.nth(MOST_STAGES) {
        diags.push(too_many_stages(decl));
        return Swept::default();
    }
    let (sweeps, decls): (Vec<_>, Vec<_>) =
        decls.partition(|(decl, _)| decl.keyword.value == sweep::KEYWORD);
    let fixed: Vec<&str> = overrides.iter().map(|(name, _)| name.as_str()).collect();
    let points = sweep::expand(sweeps.iter().map(|(d, _)| *d), &scope, &fixed, diags);
    let mut gather = Gather::default();
    let mut recipes = Vec::new();
    for point in 0..points.count() {
        let mut own = Diags::default();
        let mut here = Scope {
            lets: scope.lets.clone(),
            ..Scope::default()
        };
        for axis in &points.axes {
            here.swept.insert(&axis.name);
            if let Some(value) = points.value(point, axis) {
                here.lets.insert(&axis.name, value);
            }
        }
        here.check_circles(&mut own);
        recipes.push(at_point(&here, &decls, &places, &mut own));
        gather.add(own);
        if gather.enough() {
            break;
        }
    }
    diags.extend(gather.into_diags(&points));
    // What is not read may be where an axis is used.
    if readable && !diags.has_errors() {
        sweep::check_use(&points, &recipes, diags);
    }
    Swept {
        points,
        recipes,
        whole: false,
    }
}

/// The `let`s of a recipe's files, and where each name is declared first.
fn names<'a>(files: &'a [Loaded], diags: &mut Diags) -> (Scope<'a>, IndexMap<&'a str, Span>) {
    let mut scope = Scope::default();
    let mut places: IndexMap<&str, Span> = IndexMap::new();
    for item in files.iter().flat_map(|f| &f.file.items) {
        let name = match item {
            Item::Let(l) => &l.name,
            Item::Decl(d) => &d.name,
            Item::Import(_) => continue,
        };
        if let Some(&first) = places.get(name.value.as_str()) {
            if first != name.span {
                diags.push(
                    Diag::error(
                        &DUPLICATE_NAME,
                        name.span,
                        format!("`{}` is declared twice", name.value),
                    )
                    .label("again here")
                    .related(first, "first here"),
                );
            }
            continue;
        }
        places.insert(&name.value, name.span);
        if let Item::Let(l) = item {
            scope.lets.insert(&l.name.value, &l.value);
        }
    }
    (scope, places)
}

/// Gives `let`s the values of `--set`.
fn override_lets<'a>(scope: &mut Scope<'a>, overrides: &'a [(String, Value)], diags: &mut Diags) {
    for (name, value) in overrides {
        match scope.lets.get_mut(name.as_str()) {
            Some(slot) => *slot = value,
            None => {
                let mut diag = Diag::error(
                    &UNKNOWN_VARIABLE,
                    value.span,
                    format!("the recipe has no `let {name} = …` to override"),
                );
                diag.help = suggest::did_you_mean(name, scope.lets.keys().copied());
                diags.push(diag);
            }
        }
    }
}

/// The error of a recipe with more stages than are planned.
fn too_many_stages(decl: &Decl) -> Diag {
    Diag::error(
        &OUT_OF_BOUNDS,
        decl.name.span,
        format!("a recipe has at most {} stages", Count(MOST_STAGES as u64)),
    )
    .label("one too many")
    .help("divide it into several recipes")
}

/// Everything declared, with the values that `let`s have at a point.
fn at_point(
    scope: &Scope<'_>,
    decls: &[(&Decl, &Path)],
    places: &IndexMap<&str, Span>,
    diags: &mut Diags,
) -> Recipe {
    let all: Vec<(Declared, bool)> = decls
        .iter()
        .filter_map(|(decl, base)| declare(scope, decl, base, diags))
        .collect();
    let mut first: IndexMap<&str, &Declared> = IndexMap::new();
    for (declared, _) in &all {
        first.entry(&declared.name.value).or_insert(declared);
    }
    for (declared, _) in &all {
        check_references(declared, &first, places, diags);
    }
    let mut recipe = Recipe::default();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (declared, whole) in all {
        let name = declared.name.value.clone();
        if seen.insert(name.clone()) && whole {
            recipe.items.insert(name, declared);
        }
    }
    recipe
}

/// Complains about references to what is not there.
fn check_references(
    declared: &Declared,
    known: &IndexMap<&str, &Declared>,
    places: &IndexMap<&str, Span>,
    diags: &mut Diags,
) {
    let schemas = declared.declaration.schemas();
    let Some(schema) = schemas.iter().find(|s| s.name == declared.filled.name) else {
        return;
    };
    for key in schema.keys {
        if let (Kind::Ref(kind), Some(Checked::Ref(name, split))) =
            (key.kind, declared.filled.values.get(key.name))
        {
            let span = declared.filled.values.span(key.name);
            check_reference(known, places, kind, (name, split.as_deref()), span, diags);
        }
    }
}

/// What people call what a keyword declares.
fn noun(keyword: &str) -> &str {
    if keyword == "data" {
        "data set"
    } else {
        keyword
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "what is planned, what it stands on, and where complaints go"
)]
fn check_reference(
    known: &IndexMap<&str, &Declared>,
    places: &IndexMap<&str, Span>,
    kind: RefKind,
    (name, split): (&str, Option<&str>),
    span: Span,
    diags: &mut Diags,
) {
    let keyword = match kind {
        RefKind::Model => "model",
        RefKind::Split => "data",
        RefKind::Prompt => "prompt",
        RefKind::Stage => "stage",
    };
    match known.get(name) {
        Some(found) if found.declaration.keyword == keyword => {
            if kind == RefKind::Split && split.is_none() {
                diags.push(
                    Diag::error(
                        &MISSING_SPLIT,
                        span,
                        format!("`{name}` is a data set; a split of it is wanted"),
                    )
                    .label("which split?")
                    .help(format!(
                        "write `{name}.train`, `{name}.dev` or `{name}.test`"
                    )),
                );
            }
        }
        Some(found) if kind == RefKind::Prompt && found.declaration.keyword == "stage" => {
            let of = &found.filled.name;
            if !stage::stage(of).is_some_and(|k| k.chooses()) {
                diags.push(
                    Diag::error(
                        &WRONG_REFERENCE,
                        span,
                        format!("`{name}` is a stage of the kind `{of}`, which chooses no prompt"),
                    )
                    .label("a prompt is wanted, or a `choose_prompt` stage")
                    .related(found.name.span, "declared here"),
                );
            }
        }
        Some(found) => diags.push(
            Diag::error(
                &WRONG_REFERENCE,
                span,
                format!(
                    "`{name}` is a {}, not a {}",
                    noun(found.declaration.keyword),
                    noun(keyword)
                ),
            )
            .label(format!("a {} is wanted", noun(keyword)))
            .related(found.name.span, "declared here"),
        ),
        // Declared, but rejected: its own error says why.
        None if places.contains_key(name) => {}
        None => {
            let mut diag = Diag::error(
                &DANGLING_NAME,
                span,
                format!("no {keyword} is called `{name}`"),
            )
            .label("declared nowhere");
            let names = known
                .values()
                .filter(|d| d.declaration.keyword == keyword)
                .map(|d| d.name.value.as_str());
            diag.help = suggest::did_you_mean(name, names);
            diags.push(diag);
        }
    }
}
