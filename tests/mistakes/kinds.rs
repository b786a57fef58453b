//! The mistakes that can be put into a recipe: those its schemas tell of, and those of meaning.

mod stages;
mod texts;

use peftc::library::decl::DECLARATIONS;
use peftc::library::schema::{Bound, Default, Key, Kind, RefKind, Schema};

use stages::stages;
use texts::{data, prompts, texts};

use super::recipe::{Decl, Edit, Recipe};

/// When a mistake is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The text cannot be read.
    Text,
    /// A value, a key, a declaration.
    Value,
    /// A reference leads nowhere, or to something else.
    Reference,
    /// Keys of a stage that do not go together.
    Keys,
    /// Where a stage starts: its model, the stage it comes from.
    Start,
    /// Methods against the model.
    Method,
    /// A metric; a length.
    Value2,
    /// The prompt.
    Prompt,
    /// The data.
    Data,
    /// Words of classes, demonstrations, candidates.
    Words,
    /// What the stage is lowered to.
    Lowered,
    /// The recipe as a whole, looked at where nothing else is wrong.
    Whole,
}

/// A mistake.
#[derive(Clone, Debug)]
pub struct Mistake {
    pub what: String,
    pub code: String,
    /// Codes of what else it may be called.
    pub also: Vec<&'static str>,
    /// The declaration it is in; none for what stands outside of all.
    pub decl: Option<usize>,
    pub phase: Phase,
    pub edits: Vec<Edit>,
    /// What no other mistake may touch.
    pub touches: Vec<(usize, String)>,
}

const OUTSIDE: usize = usize::MAX;

/// Collects mistakes of one recipe.
struct Found<'a> {
    recipe: &'a Recipe,
    list: Vec<Mistake>,
}

impl Found<'_> {
    #[expect(clippy::too_many_arguments, reason = "the fields of one mistake")]
    fn add(&mut self, decl: usize, phase: Phase, code: &str, edits: Vec<Edit>, more: &[&str]) {
        let keys = edits.iter().flat_map(|edit| match edit {
            Edit::Set(d, key, _) | Edit::Remove(d, key) => vec![(*d, key.clone())],
            Edit::Line(d, line) => {
                let key = line.split([' ', '=']).next().unwrap_or_default().to_owned();
                vec![(*d, key), (*d, "a line".to_owned())]
            }
            Edit::Arg(d, _) => vec![(*d, "its string".to_owned())],
            Edit::Keyword(d, _) | Edit::Ctor(d, _) => vec![(*d, "its head".to_owned())],
            Edit::Top(_) | Edit::Bottom(_) | Edit::Override(..) => Vec::new(),
        });
        let mut touches: Vec<(usize, String)> = keys.collect();
        touches.extend(more.iter().map(|k| (decl, (*k).to_owned())));
        self.list.push(Mistake {
            what: format!("{edits:?}"),
            code: code.to_owned(),
            also: Vec::new(),
            decl: (decl != OUTSIDE).then_some(decl),
            phase,
            edits,
            touches,
        });
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one mistake")]
    fn set(
        &mut self,
        decl: usize,
        phase: Phase,
        code: &str,
        key: &str,
        value: &str,
        more: &[&str],
    ) {
        let edit = Edit::Set(decl, key.to_owned(), value.to_owned());
        self.add(decl, phase, code, vec![edit], more);
    }

    fn outside(&mut self, phase: Phase, code: &str, edits: Vec<Edit>, topic: &str) {
        self.add(OUTSIDE, phase, code, edits, &[topic]);
    }

    fn also(&mut self, codes: &[&'static str]) {
        if let Some(last) = self.list.last_mut() {
            last.also.extend(codes);
        }
    }
}

/// All mistakes of a valid recipe.
pub fn mistakes(recipe: &Recipe) -> Vec<Mistake> {
    let mut found = Found {
        recipe,
        list: Vec::new(),
    };
    for (i, decl) in recipe.decls.iter().enumerate() {
        let declaration = DECLARATIONS.iter().find(|d| d.keyword == decl.keyword);
        let schemas = declaration.expect("known").schemas();
        let schema = *schemas.iter().find(|s| s.name == decl.ctor).expect("known");
        values(&mut found, i, decl, schema);
        texts(&mut found, i);
        heads(&mut found, i, decl);
        match decl.keyword.as_str() {
            "model" => models(&mut found, i),
            "data" => data(&mut found, i),
            "prompt" => prompts(&mut found, i, decl),
            _ => stages(&mut found, i, decl),
        }
    }
    outside(&mut found);
    found.list
}

/// What a schema tells to be wrong.
fn values(found: &mut Found<'_>, i: usize, decl: &Decl, schema: &'static Schema) {
    let value = Phase::Value;
    for key in schema.keys {
        for (code, text) in wrong_values(key) {
            found.set(i, value, code, key.name, &text, &[]);
        }
        if let Kind::Ref(kind) = key.kind {
            let first = found.list.len();
            references(found, i, key, kind);
            // The keys of a stage are looked at all the same.
            for made in found.list.iter_mut().skip(first) {
                made.also
                    .extend(["stage::conflicting_keys", "stage::no_effect"]);
            }
        }
        if matches!(key.default, Default::Required) {
            let edit = Edit::Remove(i, key.name.to_owned());
            found.add(i, value, "resolve::missing_key", vec![edit], &[]);
        }
    }
    found.set(i, value, "resolve::unknown_key", "xyzzy", "1", &[]);
    if let Some((key, text)) = decl.entries.first() {
        let line = Edit::Line(i, format!("{key} = {text}"));
        found.add(i, value, "resolve::duplicate_key", vec![line], &[]);
    }
}

fn wrong_values(key: &Key) -> Vec<(&'static str, String)> {
    let (bounds, kind, unit) = (
        "resolve::out_of_bounds",
        "resolve::wrong_type",
        "resolve::wrong_unit",
    );
    let mut list: Vec<(&'static str, String)> = Vec::new();
    let mut wrong = |code: &'static str, text: &str| list.push((code, text.to_owned()));
    match key.kind {
        Kind::Int(lo, hi) => {
            if lo > 0 {
                wrong(bounds, &(lo - 1).to_string());
            }
            if hi < u64::MAX {
                wrong(bounds, &(hi + 1).to_string());
            }
            wrong(bounds, "-1");
            wrong(bounds, "1.5");
            wrong(kind, "\"x\"");
            wrong(unit, "3 GiB");
        }
        Kind::Float(lo, hi) => {
            match lo {
                Bound::Excl(b) => wrong(bounds, &b.to_string()),
                Bound::Incl(b) => wrong(bounds, &(b - 1.0).to_string()),
                Bound::None => {}
            }
            match hi {
                Bound::Excl(b) => wrong(bounds, &b.to_string()),
                Bound::Incl(b) => wrong(bounds, &(b + 1.0).to_string()),
                Bound::None => {}
            }
            wrong(kind, "true");
            wrong(unit, "1 GiB");
        }
        Kind::Bool | Kind::Str | Kind::Column | Kind::Texts | Kind::Verbalizer => wrong(kind, "7"),
        Kind::Choice(_) => {
            wrong("resolve::unknown_choice", "xyzzy");
            wrong(kind, "7");
        }
        Kind::Size => {
            wrong(unit, "6");
            wrong(unit, "6 parsecs");
            wrong(kind, "\"x\"");
        }
        Kind::Length => {
            wrong(bounds, "0 epochs");
            wrong(unit, "3");
            wrong(kind, "\"x\"");
        }
        Kind::Portion => {
            wrong(bounds, "120%");
            wrong(unit, "3 GiB");
        }
        Kind::Ref(_) => wrong(kind, "7"),
        Kind::Placement => wrong("resolve::unknown_role", "attention.keys"),
        Kind::Entry(_) => {
            wrong("resolve::unknown_entry", "xyzzy");
            wrong(kind, "7");
        }
        Kind::Entries(_) => {
            wrong("resolve::unknown_entry", "[xyzzy]");
            wrong(kind, "7");
        }
        Kind::Names | Kind::Columns => wrong(kind, "{ a: \"b\" }"),
        Kind::Numbers => wrong(kind, "[first]"),
        Kind::ClassWeights => {
            wrong(kind, "7");
            wrong(bounds, "{ good: 0 }");
        }
        // What is wrong of any other kind stands among the mistakes of meaning.
        _ => {}
    }
    list
}

fn references(found: &mut Found<'_>, i: usize, key: &Key, kind: RefKind) {
    let phase = Phase::Reference;
    let keyword = match kind {
        RefKind::Model => "model",
        RefKind::Split => "data",
        RefKind::Prompt => "prompt",
        RefKind::Stage => "stage",
    };
    let nowhere = if kind == RefKind::Split {
        "nowhere.train"
    } else {
        "nowhere"
    };
    found.set(i, phase, "resolve::dangling_name", key.name, nowhere, &[]);
    let other = found.recipe.decls.iter().find(|d| {
        let chooses = kind == RefKind::Prompt && d.ctor == "choose_prompt";
        d.keyword != keyword && !chooses
    });
    if let Some(other) = other.map(|d| d.name.clone()) {
        let text = if kind == RefKind::Split {
            format!("{other}.train")
        } else {
            other
        };
        found.set(i, phase, "resolve::wrong_reference", key.name, &text, &[]);
    }
    if kind == RefKind::Split {
        found.set(i, phase, "resolve::missing_split", key.name, "d", &[]);
    }
}

/// What is wrong with how a declaration begins.
fn heads(found: &mut Found<'_>, i: usize, decl: &Decl) {
    let phase = Phase::Value;
    let head = |found: &mut Found<'_>, code: &str, edit: Edit| {
        // Nothing else of such a declaration is looked at.
        found.add(i, phase, code, vec![edit], &["its head", "its string"]);
    };
    if decl.keyword != "prompt" {
        head(
            found,
            "resolve::unknown_entry",
            Edit::Ctor(i, "xyzzy".to_owned()),
        );
        head(
            found,
            "resolve::unknown_declaration",
            Edit::Keyword(i, "thing".to_owned()),
        );
    }
    match decl.arg {
        Some(_) => head(found, "resolve::wrong_type", Edit::Arg(i, None)),
        None if decl.keyword != "prompt" => {
            head(
                found,
                "resolve::wrong_type",
                Edit::Arg(i, Some("x".to_owned())),
            );
        }
        None => {}
    }
    let line = Edit::Bottom(format!("let {} = 3", decl.name));
    found.outside(phase, "resolve::duplicate_name", vec![line], &decl.name);
    // Where the declaration cannot be read, the other one is the only one.
    if let Some(last) = found.list.last_mut() {
        let own = ["a line", "its head"].map(|what| (i, what.to_owned()));
        last.touches.extend(own);
    }
}

fn models(found: &mut Found<'_>, i: usize) {
    for folder in ["nowhere", "broken", "other", "weightless"] {
        let arg = Edit::Arg(i, Some(folder.to_owned()));
        let init = Edit::Set(i, "init".to_owned(), "pretrained".to_owned());
        found.add(
            i,
            Phase::Start,
            "plan::bad_model",
            vec![arg, init],
            &["its string", "tokenizer", "init"],
        );
        found.also(&["plan::bad_tokenizer"]);
    }
    for folder in ["nowhere", "large"] {
        let text = format!("\"{folder}\"");
        found.set(
            i,
            Phase::Start,
            "plan::bad_tokenizer",
            "tokenizer",
            &text,
            &["its string"],
        );
    }
}

/// What stands outside of all declarations.
#[expect(clippy::too_many_lines, reason = "a table of mistakes")]
fn outside(found: &mut Found<'_>) {
    let value = Phase::Value;
    let bottom = |line: &str| vec![Edit::Bottom(line.to_owned())];
    found.outside(
        value,
        "resolve::bad_import",
        bottom("import \"nowhere.peft\""),
        "an import",
    );
    found.outside(
        value,
        "resolve::cyclic_let",
        bottom("let round = round"),
        "a circle",
    );
    found.outside(
        value,
        "resolve::unknown_declaration",
        bottom("stages t2 = train {}"),
        "another word",
    );
    found.outside(
        value,
        "resolve::unknown_variable",
        vec![Edit::Override("xyzzy".to_owned(), "3".to_owned())],
        "--set",
    );
    found.outside(
        Phase::Text,
        "syntax::misplaced_header",
        bottom("peftc 1"),
        "a line that cannot be read",
    );
    let top = vec![Edit::Top("peftc 2".to_owned())];
    found.outside(
        Phase::Text,
        "syntax::unsupported_version",
        top,
        "a line that cannot be read",
    );
    found.outside(
        Phase::Text,
        "syntax::stray_bracket",
        bottom("}"),
        "a line that cannot be read",
    );
    found.outside(
        Phase::Text,
        "syntax::unexpected",
        bottom("let z9 = ;"),
        "a line that cannot be read",
    );
    let sweep = "a sweep";
    for (code, line) in [
        ("resolve::unknown_axis", "sweep y = grid { xyzzy = [1, 2] }"),
        ("resolve::empty_sweep", "sweep y = grid {}"),
        ("resolve::unknown_entry", "sweep y = product { a = [1] }"),
    ] {
        found.outside(value, code, bottom(line), sweep);
    }
    if found.recipe.top.iter().any(|l| l.starts_with("sweep")) {
        for (code, line) in [
            ("resolve::axis_twice", "sweep y = grid { seed = [3, 4] }"),
            (
                "resolve::unequal_axes",
                "sweep y = zip { rate = [1e-3, 1e-4], more = [1] }\nlet more = 1",
            ),
            (
                "resolve::repeated_point",
                "sweep y = grid { rate = [1e-3, 1e-4, 1e-3] }",
            ),
            ("resolve::wrong_type", "sweep y = grid { rate = 3 }"),
            (
                "resolve::duplicate_key",
                "sweep y = zip { rate = [1e-3], rate = [1e-4] }",
            ),
        ] {
            found.outside(value, code, bottom(line), sweep);
        }
        let many: Vec<String> = (1..=6000).map(|i| format!("{i}e-9")).collect();
        let line = format!("sweep y = grid {{ rate = [{}] }}", many.join(", "));
        found.outside(value, "resolve::too_many_points", bottom(&line), sweep);
        let line = "let idle = 1\nsweep y = grid { idle = [1, 2] }";
        found.outside(
            Phase::Whole,
            "resolve::axis_without_effect",
            bottom(line),
            sweep,
        );
    }
}
