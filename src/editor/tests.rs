//! Answers on texts that are being written.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::cli::world::RealWorld;

const RECIPE: &str = "model m = local \"tests/reference/bert-tiny\"
data d = local \"recipes/reviews\" { text = sentence, label = label }
let rate = 1e-3
let method = lora { rank = 4 }
stage tune = train {
  model = m
  data = d.train
  adapter = method
  lr = rate
  epochs = 2
}
stage attention = eval { from = tune, data = d.dev }
sweep s = grid { rate = [1e-3, 2e-3] }
";

/// The recipe as it would be if it lay in the repository's root.
fn with<R>(text: &str, of: impl FnOnce(&Analysis, &dyn crate::base::world::World) -> R) -> R {
    let path = std::env::current_dir().expect("a directory").join("r.peft");
    let world = RealWorld::new(true);
    let texts = [(path.clone(), Arc::from(text))].into_iter().collect();
    let overlay = Overlay::new(&world, Arc::new(texts), Arc::new(AtomicBool::new(false)));
    of(&Analysis::of(Path::new(&path), &overlay), &overlay)
}

/// What is offered at `|`.
fn offered(marked: &str) -> Vec<String> {
    let offset = marked.find('|').expect("a cursor");
    let text = marked.replacen('|', "", 1);
    with(&text, |analysis, world| {
        let list = complete(analysis, &text, offset, world);
        list.into_iter().map(|item| item.label).collect()
    })
}

fn has(list: &[String], all: &[&str]) {
    for one in all {
        assert!(list.iter().any(|l| l == one), "{one} is not in {list:?}");
    }
}

#[test]
fn places_are_counted_in_utf16_units() {
    let text = "a😀b\r\nü = 1\n";
    let lines = Lines::of(text);
    let at = |line, unit| lines.offset(text, Place { line, unit });
    assert_eq!(
        (at(0, 0), at(0, 1), at(0, 2), at(0, 3), at(0, 4)),
        (0, 1, 1, 5, 6)
    );
    assert_eq!((at(0, 99), at(1, 1), at(9, 0)), (6, 10, text.len()));
    for (byte, _) in text
        .char_indices()
        .filter(|(_, c)| !matches!(c, '\r' | '\n'))
    {
        assert_eq!(lines.offset(text, lines.place(text, byte)), byte);
    }
    assert_eq!(lines.place(text, 5), Place { line: 0, unit: 3 });
}

#[test]
fn what_may_stand_somewhere_is_offered() {
    has(
        &offered("|"),
        &["model", "data", "prompt", "stage", "let", "sweep", "import"],
    );
    has(&offered("st|"), &["stage"]);
    has(&offered("stage a = |"), &["train", "eval", "mezo"]);
    has(&offered("model a = lo|"), &["local", "hub", "gguf"]);
    let keys = offered("stage a = train { model = m, |");
    has(&keys, &["data", "adapter", "epochs"]);
    assert!(!keys.contains(&"model".to_owned()), "{keys:?}");
    has(
        &offered("stage a = train {\n  adapter = |\n}"),
        &["lora", "siva", "full"],
    );
    has(
        &offered("stage a = train {\n  adapter = lora { ra|\n"),
        &["rank", "on"],
    );
    has(
        &offered("stage a = train {\n  adapters = [lora { rank = 2 }, |]"),
        &["lora", "dora"],
    );
    has(
        &offered("stage a = train { adapter = lora { on = |"),
        &["attention.query", "ffn.up"],
    );
    has(
        &offered("stage a = train { adapter = lora { on = attention.{|"),
        &["query", "key"],
    );
    has(
        &offered("stage a = train { adapter = lora { on = layers[0..2].attention.|"),
        &["query"],
    );
    has(
        &offered("data a = local \"recipes/reviews\" { text = |"),
        &["sentence", "label"],
    );
    has(
        &offered("data a = local \"recipes/reviews\" { text = \"se|"),
        &["sentence"],
    );
    has(
        &offered(
            "data a = local \"recipes/reviews\" { text = sentence }\nprompt p { template = \"{|}\" }",
        ),
        &["sentence", "mask"],
    );
    has(
        &offered("stage a = eval { metrics = [accuracy, |"),
        &["f1", "loss"],
    );
    let text = RECIPE.replace("data = d.train", "data = |");
    has(&offered(&text), &["d.train", "d.dev", "rate"]);
    has(
        &offered(&RECIPE.replace("data = d.train", "data = d.|")),
        &["train", "test"],
    );
    has(&offered(&RECIPE.replace("model = m", "model = |")), &["m"]);
    has(
        &offered(&RECIPE.replace("from = tune", "from = t|")),
        &["tune"],
    );
    has(
        &offered(&RECIPE.replace("grid { rate", "grid { |rate")),
        &["rate", "method"],
    );
    // A bracket that is open above does not hide what stands below.
    has(
        &offered("stage a = train { adapter = lora {\nstage b = eval { |"),
        &["from", "metrics"],
    );
    assert!(offered("# st|").is_empty());
}

#[test]
fn a_word_is_explained_with_the_value_that_it_has_here() {
    let said = |word: &str, from: &str| {
        let start = RECIPE.find(from).expect("a place");
        let at = start + RECIPE[start..].find(word).expect("a word");
        with(RECIPE, |analysis, _| {
            hover(analysis, RECIPE, at, None).expect(word).0
        })
    };
    let rank = said("rank", "let method");
    assert!(
        rank.contains("rank r of the update") && rank.contains("default `8`"),
        "{rank}"
    );
    assert!(said("epochs", "stage tune").contains("Here: `2`"));
    assert!(said("lr", "stage tune").contains("Here: `1e-3`"));
    assert!(said("lora", "let method").contains("*Source:*"));
    assert!(said("tune", "from =").contains("stage tune"));
    assert!(said("rate", "lr =").contains("It is swept"));
    assert!(said("local", "data d").contains("directory"));
}

#[test]
fn names_are_found_where_they_are_meant() {
    with(RECIPE, |analysis, _| {
        let all = occurrences(analysis);
        let of = |name: &str| all.iter().filter(|o| o.name == name).count();
        // Declared, and used: a data set's name before its split, an axis, a chain through a `let`.
        assert_eq!(
            [of("m"), of("d"), of("rate"), of("method"), of("tune")],
            [2, 3, 3, 2, 2]
        );
        let at = RECIPE.find("d.dev").expect("a use");
        let span = definition(analysis, at).expect("declared");
        assert_eq!(analysis.at(span), "d");
        assert_eq!(
            span.start as usize,
            RECIPE.find("d = local").expect("a declaration")
        );
    });
    // A role in a placement is no stage, whatever stages are called; a `let` of a split is a use of its data set.
    let text = format!(
        "{RECIPE}let part = d.test\nlet where = attention.query\nstage e = eval {{ from = tune, data = part }}\n"
    );
    let text = text.replace(
        "lora { rank = 4 }",
        "lora { rank = 4, on = attention.query }",
    );
    with(&text, |analysis, _| {
        let all = occurrences(analysis);
        let of = |name: &str| all.iter().filter(|o| o.name == name).count();
        assert_eq!([of("attention"), of("d"), of("part")], [1, 4, 2]);
    });
}

#[test]
fn mistakes_are_mended_by_what_their_help_names() {
    for (wrong, right) in [
        ("lr = rate", "lrr = rate"),
        ("from = tune", "from = tunne"),
        ("rank = 4", "r = 4"),
        ("stage tune = train", "stage tune = trian"),
        ("adapter = method", "adapter = method\n  adapter = method"),
    ]
    .map(|(right, wrong)| (wrong, right))
    {
        let text = RECIPE.replace(right, wrong);
        with(&text, |analysis, world| {
            let diag = analysis.diags.first().unwrap_or_else(|| panic!("{wrong}"));
            let list = fixes(analysis, diag, false, world);
            let mended = list.iter().any(|fix| {
                let (start, end) = (fix.edit.span.start as usize, fix.edit.span.end as usize);
                let mended = format!("{}{}{}", &text[..start], fix.edit.text, &text[end..]);
                with(&mended, |analysis, _| analysis.diags.is_empty())
            });
            assert!(mended, "{wrong}: {:?} gives {list:?}", diag.help);
        });
    }
}

#[test]
fn an_outline_has_every_declaration_and_its_keys() {
    with(RECIPE, |analysis, _| {
        let names: Vec<String> = outline(analysis).into_iter().map(|e| e.name).collect();
        assert_eq!(
            names,
            ["m", "d", "rate", "method", "tune", "attention", "s"]
        );
    });
}

/// Everything that is asked at a place of a text.
fn ask(text: &str, offset: usize) {
    with(text, |analysis, world| {
        let _ = complete(analysis, text, offset, world);
        let _ = hover(analysis, text, offset, None);
        let _ = definition(analysis, offset);
        let _ = outline(analysis);
        let lines = Lines::of(text);
        let place = lines.place(text, offset);
        assert!(lines.offset(text, place) <= text.len());
        if let Some(diag) = analysis.diags.first() {
            let _ = fixes(analysis, diag, false, world);
        }
    });
}

/// All recipes that are shipped, and all with mistakes.
fn recipes() -> &'static [String] {
    static ALL: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    ALL.get_or_init(|| {
        let folders = [
            "recipes",
            "recipes/reviews",
            "recipes/peft_comparison",
            "tests/cases",
        ];
        let files = folders
            .iter()
            .filter_map(|f| std::fs::read_dir(f).ok())
            .flatten()
            .flatten();
        let mut paths: Vec<_> = files.map(|f| f.path()).collect();
        paths.retain(|p| p.extension().is_some_and(|e| e == "peft"));
        paths.sort();
        assert!(paths.len() > 150, "{}", paths.len());
        paths
            .iter()
            .filter_map(|p| std::fs::read_to_string(p).ok())
            .collect()
    })
}

/// The nearest place of a character before a share of a text.
fn within(text: &str, share: f64) -> usize {
    let mut at = (text.len() as f64 * share) as usize;
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn half_a_recipe_of_any_kind_is_answered(
        which in any::<prop::sample::Index>(), cut in 0.0..1.0, rest in 0.0..1.0, put in "[{}\\[\\]=\".,#\n a-zé😀]{0,6}",
    ) {
        let text = which.get(recipes());
        let (one, other) = (within(text, cut), within(text, rest));
        let (cut, rest) = (one.min(other), one.max(other));
        ask(&format!("{}{put}", &text[..cut]), cut + put.len());
        ask(&format!("{}{put}{}", &text[..cut], &text[rest..]), cut);
    }

    #[test]
    fn half_a_text_is_answered(cut in 0..RECIPE.len(), at in 0..RECIPE.len(), put in "[{}\\[\\]=\".,#\n a-zé😀]{0,6}") {
        let (cut, at) = (cut.min(at), cut.max(at));
        ask(&format!("{}{put}", &RECIPE[..cut]), cut);
        ask(&format!("{}{put}{}", &RECIPE[..cut], &RECIPE[at..]), cut + put.len());
    }
}
