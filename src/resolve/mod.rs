//! From tree to recipe: names looked up, values checked against schemas, defaults filled in. The
//! last place where anything is optional because it "may be the default".

mod block;
mod borrowed;
mod columns;
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
use crate::base::{Diag, Diags, Outcome, Sources, Span, suggest};
use crate::library::data::{format_named, format_of};
use crate::library::decl;
use crate::library::schema::{Checked, Kind, RefKind, Schema};
use crate::library::stage;
use crate::library::words;
use crate::syntax::ast::{Decl, Item, Value};
use crate::syntax::quote;
use error::{
    DANGLING_NAME, DUPLICATE_NAME, EMPTY_SWEEP, MISSING_KEY, MISSING_SPLIT, OUT_OF_BOUNDS,
    UNKNOWN_AXIS, UNKNOWN_DECLARATION, UNKNOWN_ENTRY, UNKNOWN_VARIABLE, WRONG_REFERENCE,
    WRONG_TYPE,
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
    let mut diags = Diags::default();
    let mut files = Vec::new();
    load(
        path,
        None,
        &mut vec![],
        &mut files,
        sources,
        world,
        &mut diags,
    );
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
    Outcome::new(Some(swept), diags)
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
    let decls = files.iter().flat_map(|f| {
        f.file.items.iter().filter_map(move |item| match item {
            Item::Decl(decl) => Some((decl, f.base.as_path())),
            _ => None,
        })
    });
    let mut stages = decls.clone().filter(|(d, _)| d.keyword.value == "stage");
    if let Some((decl, _)) = stages.nth(MOST_STAGES) {
        diags.push(
            Diag::error(
                &OUT_OF_BOUNDS,
                decl.name.span,
                format!("a recipe has at most {} stages", Count(MOST_STAGES as u64)),
            )
            .label("one too many")
            .help("divide it into several recipes"),
        );
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

/// A declaration with the values that are right, and whether all are; `None` where it is not even known what it declares.
fn declare(
    scope: &Scope<'_>,
    decl: &Decl,
    base: &Path,
    diags: &mut Diags,
) -> Option<(Declared, bool)> {
    let Some(declaration) = decl::DECLARATIONS
        .iter()
        .find(|d| d.keyword == decl.keyword.value)
    else {
        let word = &decl.keyword.value;
        let mut diag = Diag::error(
            &UNKNOWN_DECLARATION,
            decl.keyword.span,
            format!("a recipe cannot declare a `{word}`"),
        )
        .label("unknown");
        let known = decl::DECLARATIONS.iter().map(|d| d.keyword);
        diag.help = if stage::stage(word).is_some() {
            Some(format!(
                "write `stage {} = {word} {{ … }}`",
                decl.name.value
            ))
        } else {
            suggest::did_you_mean(word, known.chain([sweep::KEYWORD]))
        };
        diags.push(diag);
        return None;
    };
    let schemas = declaration.schemas();
    let ctor = &decl.body;
    let Some(schema) = schemas
        .iter()
        .copied()
        .find(|s: &&Schema| s.name == ctor.name.value)
    else {
        let mut diag = Diag::error(
            &UNKNOWN_ENTRY,
            ctor.name.span,
            format!("there is no {} `{}`", declaration.what, ctor.name.value),
        )
        .label("unknown");
        diag.help = Some(source_meant(decl, &schemas))
            .filter(|help| !help.is_empty())
            .or_else(|| words::unknown_name(&ctor.name.value, schemas.iter().map(|s| s.name)));
        diags.push(diag);
        return None;
    };
    match (&ctor.arg, declaration.arg) {
        (None, Some(what)) => {
            diags.push(
                Diag::error(
                    &WRONG_TYPE,
                    ctor.name.span,
                    format!("`{}` is followed by {what}", ctor.name.value),
                )
                .label("the string is missing")
                .help(format!(
                    "write `{} = {} \"…\"`",
                    decl.name.value, ctor.name.value
                )),
            );
            return None;
        }
        (Some(arg), None) => {
            diags.push(
                Diag::error(
                    &WRONG_TYPE,
                    arg.span,
                    format!("`{}` takes no string", ctor.name.value),
                )
                .label("remove this"),
            );
            return None;
        }
        _ => {}
    }
    if let (Some(arg), false) = (&ctor.arg, ctor.more.is_empty())
        && (declaration.keyword, schema.name) != ("data", "local")
    {
        let message = format!("`{}` takes one string", ctor.name.value);
        let diag = Diag::error(&WRONG_TYPE, arg.span, message).label("these are several");
        diags.push(diag.help("only `data … = local` takes a list of files"));
        return None;
    }
    scope.used.take();
    let (filled, mut whole) = block::fill_what_is_right(scope, schema, ctor, diags);
    if declaration.keyword == "data" {
        let mut own = Diags::default();
        columns::check(&filled.values, ctor, &mut own);
        whole &= !own.has_errors();
        diags.extend(own);
    }
    let declared = Declared {
        name: decl.name.clone(),
        declaration,
        arg: ctor.arg.clone(),
        more: ctor.more.clone(),
        filled,
        base: base.to_path_buf(),
        uses: scope.used.take(),
    };
    Some((declared, whole))
}

/// How a source is written that was called by another tool's word, with the string that stands behind it; empty
/// where nothing is known of the word.
fn source_meant(decl: &Decl, schemas: &[&'static Schema]) -> String {
    let ctor = &decl.body;
    let word = &ctor.name.value;
    let Some(arg) = &ctor.arg else {
        return String::new();
    };
    let (keyword, name) = (&decl.keyword.value, &decl.name.value);
    let block = if ctor.entries.is_empty() {
        ""
    } else {
        " { … }"
    };
    let arg = quote(&arg.value);
    let files = schemas.iter().any(|s| s.key("format").is_some());
    if let Some(format) = format_named(word).filter(|_| files) {
        let tells =
            format_of(Path::new(arg.trim_matches('"'))).is_some_and(|f| f.name == format.name);
        return if tells {
            format!(
                "a file's ending tells its format: write `{keyword} {name} = local {arg}{block}`"
            )
        } else {
            format!("write `{keyword} {name} = local {arg} {{ format = {word}, … }}`")
        };
    }
    match words::for_name(word).map(|w| &w.means) {
        Some(words::Means::Entry(write)) => {
            let source = write.split(' ').next().unwrap_or_default();
            if schemas.iter().any(|s| s.name == source) {
                format!("write `{keyword} {name} = {source} {arg}{block}`")
            } else {
                String::new()
            }
        }
        _ => String::new(),
    }
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
