//! A declaration: its keyword, its constructor and what follows that, then its entries.

use std::path::Path;

use super::error::{UNKNOWN_DECLARATION, UNKNOWN_ENTRY, WRONG_TYPE};
use super::scope::Scope;
use super::{Declared, block, columns, sweep};
use crate::base::{Diag, Diags, Spanned, suggest};
use crate::library::collection::Collection;
use crate::library::data::{format_named, format_of};
use crate::library::decl::{self, Declaration};
use crate::library::schema::Schema;
use crate::library::{stage, words};
use crate::syntax::ast::Decl;
use crate::syntax::quote;

/// A declaration with the values that are right, and whether all are; `None` where it is not even known what it declares.
pub(super) fn declare(
    scope: &Scope<'_>,
    decl: &Decl,
    base: &Path,
    diags: &mut Diags,
) -> Option<(Declared, bool)> {
    let keyword = decl.keyword.value.as_str();
    let known = decl::DECLARATIONS.iter().find(|d| d.keyword == keyword);
    let Some(declaration) = known else {
        diags.push(unknown_declaration(decl));
        return None;
    };
    let schemas = declaration.schemas();
    let ctor = &decl.body;
    let named = |s: &&Schema| s.name == ctor.name.value;
    let Some(schema) = schemas.iter().copied().find(named) else {
        diags.push(unknown_entry(decl, declaration, &schemas));
        return None;
    };
    if let Some(wrong) = wrong_argument(decl, declaration, schema) {
        diags.push(wrong);
        return None;
    }
    scope.used.take();
    let (mut filled, mut whole) = block::fill_what_is_right(scope, schema, ctor, diags);
    let mut arg = ctor.arg.clone();
    let mut set = None;
    if let Some(collection) =
        Collection::named(schema.name).filter(|_| declaration.keyword == "data")
    {
        let named = arg.take()?;
        match collection.set(&named.value) {
            Ok(own) => {
                own.write(&mut filled.values, named.span);
                // From here on it is what a recipe could have written itself.
                "hub".clone_into(&mut filled.name);
                arg = Some(Spanned::new(collection.repo.to_owned(), named.span));
                set = Some(own);
            }
            Err([message, help]) => {
                let diag = Diag::error(&UNKNOWN_ENTRY, named.span, message);
                diags.push(diag.label("not read").help(help));
                return None;
            }
        }
    }
    if declaration.keyword == "data" && set.is_none() {
        let mut own = Diags::default();
        columns::check(&filled.values, ctor, &mut own);
        whole &= !own.has_errors();
        diags.extend(own);
    }
    let declared = Declared {
        name: decl.name.clone(),
        declaration,
        arg,
        more: ctor.more.clone(),
        filled,
        set,
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
        let by_ending =
            format_of(Path::new(arg.trim_matches('"'))).is_some_and(|f| f.name == format.name);
        return if by_ending {
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

/// The error of a keyword that no recipe has.
fn unknown_declaration(decl: &Decl) -> Diag {
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
    diag
}

/// The error of a constructor that the keyword does not have.
fn unknown_entry(decl: &Decl, declaration: &Declaration, schemas: &[&'static Schema]) -> Diag {
    let ctor = &decl.body;
    let mut diag = Diag::error(
        &UNKNOWN_ENTRY,
        ctor.name.span,
        format!("there is no {} `{}`", declaration.what, ctor.name.value),
    )
    .label("unknown");
    diag.help = Some(source_meant(decl, schemas))
        .filter(|help| !help.is_empty())
        .or_else(|| words::unknown_name(&ctor.name.value, schemas.iter().map(|s| s.name)));
    diag
}

/// The error of a constructor whose string is missing, too much, or several.
fn wrong_argument(decl: &Decl, declaration: &Declaration, schema: &Schema) -> Option<Diag> {
    let ctor = &decl.body;
    let arg = match (&ctor.arg, declaration.arg) {
        (None, None) => return None,
        (None, Some(what)) => {
            let message = format!("`{}` is followed by {what}", ctor.name.value);
            return Some(
                Diag::error(&WRONG_TYPE, ctor.name.span, message)
                    .label("the string is missing")
                    .help(format!(
                        "write `{} = {} \"…\"`",
                        decl.name.value, ctor.name.value
                    )),
            );
        }
        (Some(arg), None) => {
            let message = format!("`{}` takes no string", ctor.name.value);
            return Some(Diag::error(&WRONG_TYPE, arg.span, message).label("remove this"));
        }
        (Some(arg), Some(_)) => arg,
    };
    if ctor.more.is_empty() || (declaration.keyword, schema.name) == ("data", "local") {
        return None;
    }
    let message = format!("`{}` takes one string", ctor.name.value);
    let diag = Diag::error(&WRONG_TYPE, arg.span, message).label("these are several");
    Some(diag.help("only `data … = local` takes a list of files"))
}
