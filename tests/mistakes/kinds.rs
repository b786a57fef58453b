//! The mistakes that can be put into a recipe: those its schemas tell of, and those of meaning.

use peftc::library::decl::DECLARATIONS;
use peftc::library::schema::{Bound, Default, Key, Kind, RefKind, Schema};

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

/// Pieces of text that cannot be read, in a block.
fn texts(found: &mut Found<'_>, i: usize) {
    let deep = format!("deep = {}{}", "[".repeat(70), "]".repeat(70));
    for (code, line) in [
        ("syntax::missing_value", "seed ="),
        ("syntax::missing_equals", "seed 3"),
        ("syntax::unexpected", "seed = ;"),
        ("syntax::unclosed_string", "seed = \"x"),
        ("syntax::unknown_escape", "seed = \"\\q\""),
        ("syntax::missing_separator", "seed = 1 other = 2"),
        ("syntax::unclosed_bracket", "seed = [1, 2"),
        ("syntax::number_out_of_range", "seed = 99999999999999999999"),
        ("syntax::too_deep", deep.as_str()),
    ] {
        found.add(
            i,
            Phase::Text,
            code,
            vec![Edit::Line(i, line.to_owned())],
            &[],
        );
        found.also(&["resolve::unknown_key", "resolve::duplicate_key"]);
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

fn data(found: &mut Found<'_>, i: usize) {
    let (phase, code) = (Phase::Data, "plan::bad_data");
    let arg = |to: &str| vec![Edit::Arg(i, Some(to.to_owned()))];
    found.add(i, phase, code, arg("nowhere"), &["labels"]);
    let decls = &found.recipe.decls;
    let has = |key: &str, value: &str| {
        let starts = |d: &Decl| d.get(key).is_some_and(|v| v.starts_with(value));
        decls.iter().any(starts)
    };
    let with_prompt = has("template", "") || has("templates", "");
    // Which stages read labels, and which take the model's own classes, differs in these.
    let all_alike = !has("objective", "masked_lm") && !has("objective", "regress");
    let own_classes = decls
        .iter()
        .any(|d| d.ctor == "eval" && d.get("model").is_some());
    let named = decls[i].get("labels").is_some();
    if !with_prompt {
        found.set(i, phase, code, "text", "nope", &[]);
    }
    if !all_alike {
        return;
    }
    found.set(i, phase, code, "label", "nope", &[]);
    let edit = vec![Edit::Remove(i, "label".to_owned())];
    found.add(i, phase, code, edit, &["labels"]);
    if !own_classes {
        found.set(i, phase, code, "labels", "[x]", &["label"]);
        found.also(&["plan::bad_labels", "plan::bad_label_word"]);
    }
    if !with_prompt && !named {
        let with = ["labels", "label", "text", "take"];
        found.add(i, phase, "plan::bad_labels", arg("one"), &with);
    }
}

fn prompts(found: &mut Found<'_>, i: usize, decl: &Decl) {
    let shows = decl.get("demonstrations").is_some();
    let bad = "plan::bad_prompt";
    found.set(
        i,
        Phase::Prompt,
        bad,
        "template",
        "\"{sentence it was\"",
        &[],
    );
    found.set(
        i,
        Phase::Prompt,
        bad,
        "template",
        "\"{sentence} it was .\"",
        &["demonstrations"],
    );
    found.set(
        i,
        Phase::Words,
        bad,
        "template",
        "\"{nope} it was {mask} .\"",
        &[],
    );
    found.also(&["plan::bad_demonstrations"]);
    let word = "plan::bad_label_word";
    found.set(
        i,
        Phase::Words,
        word,
        "verbalizer",
        "{ 0: \"bads\", 1: \"good\" }",
        &[],
    );
    found.set(
        i,
        Phase::Words,
        word,
        "verbalizer",
        "{ 0: \"bad\", 2: \"good\" }",
        &[],
    );
    found.set(
        i,
        Phase::Words,
        word,
        "verbalizer",
        "{ 0: \"good\", 1: \"good\" }",
        &[],
    );
    found.set(i, Phase::Words, word, "verbalizer", "{ 0: \"bad\" }", &[]);
    found.set(
        i,
        Phase::Words,
        "resolve::not_built_yet",
        "verbalizer",
        "{ 0: [\"bad\", \"dull\"], 1: \"good\" }",
        &[],
    );
    if shows {
        let bad = "plan::bad_demonstrations";
        found.set(i, Phase::Words, bad, "demonstrations", "40", &[]);
        let edit = vec![Edit::Remove(i, "demonstrations_from".to_owned())];
        found.add(i, Phase::Prompt, bad, edit, &["demonstrations"]);
        let edit = vec![Edit::Remove(i, "verbalizer".to_owned())];
        found.add(i, Phase::Prompt, bad, edit, &["demonstrations", "template"]);
    } else {
        found.set(
            i,
            Phase::Keys,
            "stage::no_effect",
            "demonstration_seed",
            "7",
            &["demonstrations"],
        );
        let edit = vec![Edit::Remove(i, "verbalizer".to_owned())];
        found.add(i, Phase::Prompt, bad, edit, &["template"]);
    }
}

fn stages(found: &mut Found<'_>, i: usize, decl: &Decl) {
    let kind = decl.ctor.as_str();
    let (keys, conflict, idle) = (Phase::Keys, "stage::conflicting_keys", "stage::no_effect");
    let trains = matches!(kind, "train" | "mezo");
    if kind != "merge" {
        let own = if decl.get("from").is_some() {
            "from"
        } else {
            "model"
        };
        found.add(
            i,
            keys,
            conflict,
            vec![Edit::Remove(i, own.to_owned())],
            &["from", "model"],
        );
        found.set(
            i,
            Phase::Value2,
            "plan::length_too_large",
            "max_length",
            "60",
            &[],
        );
    }
    if trains {
        let both = ["steps", "epochs"];
        let other = if decl.get("steps").is_some() {
            "epochs"
        } else {
            "steps"
        };
        found.set(i, keys, conflict, other, "3", &both);
        let own = if decl.get("steps").is_some() {
            "steps"
        } else {
            "epochs"
        };
        found.add(
            i,
            keys,
            conflict,
            vec![Edit::Remove(i, own.to_owned())],
            &both,
        );
        if decl.get("lr").is_some() {
            let edit = vec![Edit::Remove(i, "lr".to_owned())];
            found.add(i, keys, conflict, edit, &["schedule"]);
            found.set(
                i,
                keys,
                conflict,
                "schedule",
                "constant { peak = 1e-3 }",
                &["lr"],
            );
        }
        if decl.get("best").is_none() {
            found.set(i, keys, idle, "patience", "2", &["best"]);
        }
        if decl.get("dev").is_none() {
            found.set(i, keys, idle, "metrics", "[accuracy]", &["dev", "best"]);
            found.also(&["stage::metric_mismatch"]);
            found.set(i, keys, idle, "evaluate", "2 steps", &["dev"]);
        }
        found.set(i, keys, idle, "micro_batch", "1000", &["batch"]);
        if kind == "train" && decl.get("recompute").is_none() {
            found.set(i, keys, idle, "recompute_blocks", "1", &["recompute"]);
        }
        methods(found, i, decl);
    }
    metrics(found, i, decl);
    ports(found, i, decl);
    if kind == "choose_prompt" {
        let (words, bad) = (Phase::Words, "plan::bad_candidates");
        found.set(
            i,
            Phase::Prompt,
            bad,
            "templates",
            "[\"{sentence} {mask} .\", \"{sentence} {mask} .\"]",
            &[],
        );
        found.set(
            i,
            Phase::Prompt,
            "plan::bad_prompt",
            "templates",
            "[\"{sentence} {mask} .\", \"{sentence} .\"]",
            &[],
        );
        found.set(
            i,
            words,
            "plan::bad_prompt",
            "templates",
            "[\"{nope} {mask} .\", \"{sentence} {mask} .\"]",
            &[],
        );
        found.set(
            i,
            words,
            "plan::bad_label_word",
            "label_words",
            "{ 0: [\"bad\", \"goods\"], 1: \"good\" }",
            &[],
        );
        found.set(
            i,
            words,
            "plan::bad_label_word",
            "label_words",
            "{ 0: [\"bad\", \"dull\"], 1: [] }",
            &[],
        );
        found.set(
            i,
            words,
            bad,
            "label_words",
            "{ 0: \"bad\", 1: \"bad\" }",
            &["templates"],
        );
    }
    if kind == "eval" && decl.get("draws").is_none() {
        let shown = found
            .recipe
            .decls
            .iter()
            .any(|d| d.get("demonstrations").is_some());
        if !shown {
            found.set(i, Phase::Words, idle, "draws", "4", &[]);
        }
    }
    if kind == "merge" {
        // Nothing to merge where the stage before trains another way.
        let parent = decl.get("from").and_then(|name| found.recipe.place(name));
        if let Some(parent) = parent {
            for adapter in ["full", "bitfit", "lst { r = 2 }"] {
                let edit = Edit::Set(parent, "adapter".to_owned(), adapter.to_owned());
                found.add(
                    i,
                    Phase::Lowered,
                    "stage::nothing_to_merge",
                    vec![edit],
                    &[],
                );
                found.also(&["plan::unmerged_adapter"]);
            }
        }
    }
}

fn methods(found: &mut Found<'_>, i: usize, decl: &Decl) {
    let adapted = decl.get("from").is_some_and(|parent| {
        let parent = found.recipe.place(parent).map(|p| &found.recipe.decls[p]);
        parent.is_some_and(|p| {
            p.get("adapter")
                .is_some_and(|a| a != "full" && a != "bitfit")
        })
    });
    let many = decl.get("adapters").is_some();
    if adapted {
        found.set(
            i,
            Phase::Method,
            "plan::unmerged_adapter",
            "adapter",
            "bitfit",
            &["from", "adapters"],
        );
        return;
    }
    let on_head = matches!(
        decl.get("objective").unwrap_or("classify"),
        "classify" | "regress"
    );
    let both = ["adapter", "adapters", "from"];
    let mut wrong = |code: &str, value: &str| {
        let mut edits = vec![Edit::Set(i, "adapters".to_owned(), format!("[{value}]"))];
        if !many {
            edits.push(Edit::Remove(i, "adapter".to_owned()));
        }
        found.add(i, Phase::Method, code, edits, &both);
        if !many && !value.contains("}, ") {
            found.set(i, Phase::Method, code, "adapter", value, &both);
        }
    };
    wrong("method::rank_too_large", "lora { rank = 400 }");
    wrong("method::rank_too_large", "side_lora { rank = 17 }");
    wrong(
        "method::rank_too_large",
        "siva { rank = 18446744073709551615 }",
    );
    wrong(
        "method::rank_above_decomposition",
        "siva { rank = 5, decomposition = 4 }",
    );
    wrong("method::bad_ladder", "lst { r = 5 }");
    wrong("method::bad_ladder", "lst { r = 18446744073709551615 }");
    wrong("method::bad_ladder", "k_lst { k = 4, r = 2 }");
    wrong("method::bad_ladder", "k_lst { k = 9, r = 2 }");
    wrong(
        "method::bad_ladder",
        "k_lst { k = 1, r = 2, share = true, init = magnitude }",
    );
    wrong("method::layers_out_of_range", "last_n { n = 9 }");
    wrong(
        "method::layers_out_of_range",
        "lst { r = 2, layers = [2, 1] }",
    );
    wrong("plan::empty_placement", "lora { on = layers[7..9].ffn.up }");
    if on_head {
        wrong(
            "plan::method_without_effect",
            "lora { rank = 2, on = \"*\" }",
        );
        wrong(
            "plan::method_without_effect",
            "siva { rank = 2, on = head.output }",
        );
    } else {
        wrong(
            "plan::empty_placement",
            "siva { rank = 2, on = head.output }",
        );
    }
    wrong(
        "plan::overlapping_adapters",
        "lora { rank = 2 }, side_lora { rank = 2 }",
    );
    wrong(
        "plan::overlapping_adapters",
        "lst { r = 2 }, k_lst { k = 3, r = 2 }",
    );
    wrong("plan::method_without_effect", "full {}, lora { rank = 2 }");
    wrong(
        "plan::method_without_effect",
        "head_only {}, lora { rank = 2 }",
    );
    wrong("plan::method_without_effect", "bitfit {}, bitfit {}");
    wrong("plan::bad_adapter", "lora { start = \"nowhere\" }");
    wrong(
        "resolve::conflict",
        "lora { start = \"nowhere\", rank = 4 }",
    );
    if !many {
        let edit = vec![Edit::Remove(i, "adapter".to_owned())];
        if decl.ctor == "train" {
            found.add(i, Phase::Method, "resolve::missing_key", edit, &both);
        }
        if decl.get("adapter").is_some() {
            found.set(
                i,
                Phase::Keys,
                "stage::conflicting_keys",
                "adapters",
                "[bitfit]",
                &both,
            );
        }
    }
}

fn metrics(found: &mut Found<'_>, i: usize, decl: &Decl) {
    let code = "stage::metric_mismatch";
    let objective = decl.get("objective").unwrap_or("classify");
    let wrong = match objective {
        "regress" => "accuracy",
        "classify" | "label_words" => "pearson",
        _ => "f1",
    };
    // What an evaluation scores is what the stage before learned.
    let regresses = found
        .recipe
        .decls
        .iter()
        .any(|d| d.get("objective") == Some("regress"));
    let wrong = if regresses { "accuracy" } else { wrong };
    if decl.get("metrics").is_some() || decl.ctor == "eval" {
        found.set(
            i,
            Phase::Value2,
            code,
            "metrics",
            &format!("[{wrong}]"),
            &["objective", "dev"],
        );
        found.set(i, Phase::Value2, code, "metrics", "[xyzzy]", &["dev"]);
    }
    if decl.get("best").is_some() {
        found.set(i, Phase::Value2, code, "best", wrong, &["objective", "dev"]);
    }
    if decl.ctor == "choose_prompt" {
        found.set(i, Phase::Value2, code, "metric", wrong, &[]);
    }
}

/// Stages that come from what leaves no model, or from themselves.
fn ports(found: &mut Found<'_>, i: usize, decl: &Decl) {
    if decl.get("from").is_none() {
        return;
    }
    let earlier = found.recipe.decls.iter().take(i);
    let report = earlier
        .filter(|d| d.ctor == "eval")
        .map(|d| d.name.clone())
        .next();
    if let Some(report) = report {
        found.set(
            i,
            Phase::Start,
            "plan::wrong_port",
            "from",
            &report,
            &["model"],
        );
    }
    found.set(
        i,
        Phase::Start,
        "plan::cycle",
        "from",
        &decl.name,
        &["model"],
    );
}

/// What stands outside of all declarations.
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
