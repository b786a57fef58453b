//! The valid recipes, and the files they name.

use std::path::Path;

use super::recipe::{Decl, Recipe};

const WORDS: &[&str] = &[
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "it", "was", "great", "terrible", "bad", "good",
    "fine", "dull", "the", "a", "film", "plot", "cast", "##s", ".", "!", ",", "not", "very", "so",
];

/// The `config.json` of the model.
pub const CONFIG: &str = r#"{ "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
    "intermediate_size": 32, "hidden_act": "gelu", "max_position_embeddings": 40, "type_vocab_size": 2,
    "vocab_size": 25, "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
    "id2label": { "0": "0", "1": "1" }, "pad_token_id": 0 }"#;

/// Writes the files that the recipes, and their mistakes, name.
pub fn files(folder: &Path) {
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    };
    let vocabulary = WORDS.join("\n");
    write("m/config.json", CONFIG);
    write("m/vocab.txt", &vocabulary);
    write("broken/config.json", "{ \"model_type\": ");
    write("other/config.json", "{ \"model_type\": \"mamba\" }");
    write("weightless/config.json", CONFIG);
    write("weightless/vocab.txt", &vocabulary);
    let more: String = (0..40).map(|i| format!("\nword{i}")).collect();
    write("large/vocab.txt", &format!("{vocabulary}{more}"));
    let rows = |n: usize, of: &dyn Fn(usize) -> String| (0..n).map(of).collect::<String>();
    let texts = [
        "the film was great",
        "a dull plot",
        "so good !",
        "not very fine , the cast",
    ];
    for (split, n) in [("train", 8), ("dev", 6), ("test", 4)] {
        let row = |i: usize| {
            format!(
                "{}\t{}\t{}.5\t{}\n",
                texts[i % 4],
                i % 2,
                i,
                texts[(i + 1) % 4]
            )
        };
        let text = format!("sentence\tlabel\tscore\tother\n{}", rows(n, &row));
        write(&format!("d/{split}.tsv"), &text);
        let row = |i: usize| {
            format!(
                "{{\"sentence\": \"{}\", \"label\": \"{}\"}}\n",
                texts[i % 4],
                ["no", "yes"][i % 2]
            )
        };
        write(&format!("j/{split}.jsonl"), &rows(n, &row));
        write(
            &format!("one/{split}.tsv"),
            "sentence\tlabel\tscore\tother\na film\t1\t2\ta\na plot\t1\t3\tb\n",
        );
    }
}

fn decl(
    keyword: &str,
    name: &str,
    ctor: &str,
    arg: Option<&str>,
    entries: &[(&str, &str)],
) -> Decl {
    Decl {
        keyword: keyword.to_owned(),
        name: name.to_owned(),
        ctor: ctor.to_owned(),
        arg: arg.map(str::to_owned),
        entries: entries
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
    }
}

fn model() -> Decl {
    decl(
        "model",
        "m",
        "local",
        Some("m"),
        &[("dtype", "f32"), ("init", "random")],
    )
}

fn data(entries: &[(&str, &str)]) -> Decl {
    decl("data", "d", "local", Some("d"), entries)
}

fn labelled() -> Decl {
    data(&[("text", "sentence"), ("label", "label")])
}

fn prompt(entries: &[(&str, &str)]) -> Decl {
    let mut all = vec![
        ("template", "\"{sentence} it was {mask} .\""),
        ("verbalizer", "{ 0: \"bad\", 1: \"good\" }"),
    ];
    all.extend(entries);
    decl("prompt", "p", "prompt", None, &all)
}

fn stage(name: &str, kind: &str, entries: &[(&str, &str)]) -> Decl {
    decl("stage", name, kind, None, entries)
}

fn recipe(top: &[&str], decls: Vec<Decl>) -> Recipe {
    Recipe {
        top: top.iter().map(|l| (*l).to_owned()).collect(),
        decls,
        ..Recipe::default()
    }
}

const LEARN: [(&str, &str); 3] = [("lr", "1e-3"), ("steps", "2"), ("batch", "4")];

fn learning<'a>(own: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    own.iter().copied().chain(LEARN).collect()
}

/// Recipes without a mistake: every stage kind, method, objective and kind of data.
#[expect(clippy::too_many_lines, reason = "a table of mistakes")]
pub fn bases() -> Vec<Recipe> {
    let first = [("model", "m"), ("data", "d.train")];
    let with = |more: &[(&'static str, &'static str)]| -> Vec<(&'static str, &'static str)> {
        learning(&first.iter().chain(more).copied().collect::<Vec<_>>())
    };
    vec![
        recipe(
            &[],
            vec![
                model(),
                labelled(),
                stage(
                    "s",
                    "train",
                    &with(&[
                        ("dev", "d.dev"),
                        ("adapter", "lora { rank = 2 }"),
                        ("metrics", "[accuracy]"),
                    ]),
                ),
                stage("e", "eval", &[("from", "s"), ("data", "d.test")]),
                stage("f", "merge", &[("from", "s")]),
                stage(
                    "g",
                    "eval",
                    &[("from", "f"), ("data", "d.dev"), ("batch", "3")],
                ),
            ],
        ),
        recipe(
            &[],
            vec![
                model(),
                labelled(),
                prompt(&[
                    ("demonstrations", "1"),
                    ("demonstrations_from", "d.train"),
                    ("demonstration_length", "6"),
                ]),
                stage(
                    "z",
                    "mezo",
                    &with(&[("prompt", "p"), ("objective", "label_words")]),
                ),
                stage(
                    "t",
                    "train",
                    &learning(&[
                        ("from", "z"),
                        ("data", "d.train"),
                        ("prompt", "p"),
                        ("objective", "label_words"),
                        ("adapter", "lst { r = 2 }"),
                    ]),
                ),
                stage(
                    "e",
                    "eval",
                    &[("from", "t"), ("data", "d.dev"), ("draws", "2")],
                ),
            ],
        ),
        recipe(
            &[],
            vec![
                model(),
                labelled(),
                stage(
                    "c",
                    "choose_prompt",
                    &[
                        ("model", "m"),
                        ("data", "d.dev"),
                        (
                            "templates",
                            "[\"{sentence} {mask} .\", \"{sentence} it was {mask} !\"]",
                        ),
                        (
                            "label_words",
                            "{ 0: [\"bad\", \"dull\"], 1: [\"good\", \"great\"] }",
                        ),
                    ],
                ),
                stage(
                    "s",
                    "train",
                    &with(&[
                        ("prompt", "c"),
                        ("objective", "label_words"),
                        ("adapter", "full"),
                    ]),
                ),
                stage(
                    "e",
                    "eval",
                    &[
                        ("from", "s"),
                        ("data", "d.test"),
                        ("metrics", "[accuracy, f1]"),
                    ],
                ),
            ],
        ),
        recipe(
            &[
                "let rate = 1e-3",
                "let seed = 1",
                "sweep x = grid { seed = [1, 2] }",
            ],
            vec![
                model(),
                decl(
                    "data",
                    "d",
                    "local",
                    Some("j"),
                    &[
                        ("text", "sentence"),
                        ("label", "label"),
                        ("labels", "[no, yes]"),
                    ],
                ),
                stage(
                    "s",
                    "train",
                    &[
                        ("model", "m"),
                        ("data", "d.train"),
                        ("adapter", "k_lst { k = 3, r = 2 }"),
                        ("schedule", "linear { peak = 1e-3, warmup = 10% }"),
                        ("epochs", "2"),
                        ("seed", "seed"),
                    ],
                ),
                stage(
                    "e",
                    "eval",
                    &[("from", "s"), ("data", "d.test"), ("metrics", "[f1_macro]")],
                ),
                stage(
                    "t",
                    "train",
                    &[
                        ("model", "m"),
                        ("data", "d.dev"),
                        ("adapter", "bitfit"),
                        ("lr", "rate"),
                        ("epochs", "1"),
                        ("seed", "seed"),
                    ],
                ),
            ],
        ),
        recipe(
            &[],
            vec![
                model(),
                data(&[("text", "sentence"), ("label", "score"), ("take", "4")]),
                stage(
                    "s",
                    "train",
                    &with(&[
                        ("objective", "regress"),
                        ("adapter", "siva { rank = 2 }"),
                        ("optimizer", "sgd { momentum = 0.9 }"),
                        ("dev", "d.dev"),
                        ("best", "pearson"),
                        ("patience", "3"),
                    ]),
                ),
                stage(
                    "e",
                    "eval",
                    &[
                        ("from", "s"),
                        ("data", "d.test"),
                        ("metrics", "[pearson, spearman]"),
                    ],
                ),
                stage("f", "merge", &[("from", "s"), ("dtype", "bf16")]),
            ],
        ),
        recipe(
            &[],
            vec![
                model(),
                data(&[("text", "sentence"), ("label", "label")]),
                stage(
                    "w",
                    "train",
                    &with(&[
                        ("objective", "masked_lm { rate = 30% }"),
                        ("adapter", "full"),
                    ]),
                ),
                stage(
                    "s",
                    "train",
                    &learning(&[
                        ("from", "w"),
                        ("data", "d.train"),
                        ("objective", "classify"),
                        ("adapters", "[last_n { n = 1 }, bitfit]"),
                        ("micro_batch", "2"),
                        ("recompute", "true"),
                    ]),
                ),
                stage("e", "eval", &[("from", "s"), ("data", "d.dev")]),
                stage(
                    "q",
                    "eval",
                    &[
                        ("model", "m"),
                        ("data", "d.dev"),
                        ("objective", "masked_lm"),
                        ("metrics", "[perplexity]"),
                    ],
                ),
            ],
        ),
        recipe(
            &[],
            vec![
                model(),
                data(&[
                    ("text", "[sentence, other]"),
                    ("label", "label"),
                    ("shuffle", "3"),
                ]),
                prompt(&[]),
                stage(
                    "s",
                    "train",
                    &with(&[("adapter", "side_lora { rank = 2 }"), ("max_length", "12")]),
                ),
                stage("t", "train", &learning(&[("from", "s"), ("data", "d.dev")])),
                stage(
                    "q",
                    "eval",
                    &[
                        ("model", "m"),
                        ("data", "d.dev"),
                        ("prompt", "p"),
                        ("objective", "label_words"),
                    ],
                ),
            ],
        ),
    ]
}
