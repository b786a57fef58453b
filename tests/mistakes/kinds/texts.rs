//! Mistakes in data and prompts.

use super::*;

/// Pieces of text that cannot be read, in a block.
pub(super) fn texts(found: &mut Found<'_>, i: usize) {
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

pub(super) fn data(found: &mut Found<'_>, i: usize) {
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

pub(super) fn prompts(found: &mut Found<'_>, i: usize, decl: &Decl) {
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
        word,
        "verbalizer",
        "{ 0: [\"bad\", \"good\"], 1: \"good\" }",
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
