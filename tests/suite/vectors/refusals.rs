//! What makes no vectors.

use super::*;

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "a table of mistakes and what is said of them"
)]
fn what_makes_no_vectors_is_refused() {
    let dir = folder();
    let check = |stages: &str, columns: &str| {
        let text = recipe("bert-tiny", stages) + &format!("data d = local \".\" {{ {columns} }}\n");
        let path = written(dir.path(), &text);
        let output = program().arg("check").arg(path).output().expect("starts");
        assert!(!output.status.success(), "{}", stdout_of(&output));
        let said = (stderr_of(&output) + &stdout_of(&output)).replace('│', " ");
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let train = |how: &str| {
        format!("stage s = train {{ model = m, adapter = lora, lr = 1e-3, epochs = 1, {how} }}")
    };
    let columns = "anchor = a, positive = b";
    let cosine = "objective = embed { loss = cosine_similarity }";
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "data = pairs.train, objective = embed, batch = 16, micro_batch = 4",
            columns,
            &[
                "`embed` compares the rows of a batch",
                "remove `micro_batch`",
            ],
        ),
        (
            "data = pairs.train, objective = embed, batch = 1",
            columns,
            &["as negatives, and this batch has none"],
        ),
        (
            "data = scored.train, objective = embed",
            columns,
            &["reads anchors with positives", "loss = cosine_similarity"],
        ),
        (
            &format!("data = pairs.train, {cosine}"),
            columns,
            &["reads two texts with a score"],
        ),
        (
            &format!("data = scored.train, {cosine}"),
            columns,
            &["which no cosine reaches", "top_score = 5"],
        ),
        (
            &format!("data = d.train, {cosine}"),
            "text = a, label = score",
            &["a row of these data has one"],
        ),
        (
            "data = d.train, objective = embed",
            "anchor = a",
            &["`anchor` is written without `positive`"],
        ),
        (
            "data = d.train, objective = embed",
            "negative = a",
            &["`negative` is written without `anchor`"],
        ),
        (
            "data = d.train, objective = embed",
            "anchor = a, positive = b, text = c",
            &["`text` and `anchor` are both written"],
        ),
        (
            "data = pairs.train, dev = triples.dev, objective = embed",
            columns,
            &["its rows have 3 texts, and those of `data` have 2"],
        ),
        (
            "data = pairs.train, objective = embed { top_score = 5 }",
            columns,
            &["`top_score` has no effect"],
        ),
        (
            "data = pairs.train, objective = embed, metrics = [accuracy], dev = pairs.dev",
            columns,
            &["`accuracy` cannot be computed", "`mrr_at_10`"],
        ),
        ("data = pairs.train", columns, &["`classify` reads texts"]),
        (
            "data = pairs.train, objective = contrastive",
            columns,
            &["embed"],
        ),
        (
            "data = pairs.train, objective = embed { pooling = max }",
            columns,
            &["mean", "first"],
        ),
        (
            "data = pairs.train, objective = embed, adapter = head_only",
            columns,
            &["head"],
        ),
    ];
    for (how, columns, wants) in cases {
        let stage = match how.contains("adapter = ") {
            true => train(how).replacen("adapter = lora, ", "", 1),
            false => train(how),
        };
        let said = check(&stage, columns);
        for want in *wants {
            assert!(said.contains(want), "{how}: {said}");
        }
    }
    let prompt = "prompt p = prompt { template = \"{a} {other}\" }\n";
    let stage = train(&format!("data = scored.train, {cosine}, prompt = p"));
    assert!(check(&(prompt.to_owned() + &stage), columns).contains("reads each by itself"));
}

#[test]
fn modules_that_are_not_built_are_refused_by_their_names() {
    let dir = folder();
    let model = dir.path().join("own");
    std::fs::create_dir_all(model.join("1_Pooling")).expect("made");
    for file in std::fs::read_dir("tests/reference/bert-tiny").expect("a model") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), model.join(file.file_name())).expect("copied");
    }
    let said = |kinds: &[&str], pooling: Value, objective: &str| {
        let kinds = ["Transformer"].into_iter().chain(kinds.iter().copied());
        let list: Value = (kinds.enumerate())
            .map(|(i, kind)| {
                let path = if i == 0 { String::new() } else { format!("{i}_{kind}") };
                json!({ "idx": i, "name": i.to_string(), "path": path, "type": format!("sentence_transformers.models.{kind}") })
            })
            .collect();
        std::fs::write(model.join("modules.json"), list.to_string()).expect("written");
        std::fs::write(model.join("1_Pooling/config.json"), pooling.to_string()).expect("written");
        let text = format!(
            "{DATA}model m = local \"own\"\nstage s = train {{ model = m, data = {}, objective = {objective}, adapter = lora, lr = 1e-3, epochs = 1 }}\n",
            if objective == "embed" {
                "pairs.train"
            } else {
                "scored.train"
            },
        );
        let path = written(dir.path(), &text);
        let output = program().arg("check").arg(path).output().expect("starts");
        let said = (stderr_of(&output) + &stdout_of(&output)).replace('│', " ");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        (output.status.success(), said)
    };
    let mean = json!({ "pooling_mode_mean_tokens": true });
    let (good, text) = said(&["Pooling"], mean.clone(), "embed");
    assert!(good && !text.contains("not used"), "{text}");
    let (good, text) = said(&["Pooling"], mean.clone(), "regress");
    assert!(
        good && text.contains("`Pooling` behind it is not used"),
        "{text}"
    );
    let (good, text) = said(&["Pooling"], json!({ "pooling_mode": "max" }), "embed");
    assert!(
        !good && text.contains("its pooling `max` is not built"),
        "{text}"
    );
    let (good, text) = said(&["Pooling", "Dense"], mean, "embed");
    assert!(
        !good && text.contains("its module `Dense` is not built"),
        "{text}"
    );
}
