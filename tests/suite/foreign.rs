//! Models as others write them: heads that are not there, decoders of their own, tensors that are missing,
//! repositories whose weights or tokenizers cannot be read. What a run would trip over, `check` finds.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use safetensors::tensor::{SafeTensors, TensorView};
use serde_json::{Value, json};

use super::support::{here, json, program, stderr_of};

const MINI: &str = "recipes/reviews-mini";

/// A copy of a model's files in `dir/m`, its config changed.
fn copied(from: &str, dir: &Path, change: impl FnOnce(&mut Value)) {
    let to = dir.join("m");
    std::fs::create_dir_all(&to).expect("made");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
    let path = to.join("config.json");
    let mut config: Value = json(&path);
    change(&mut config);
    std::fs::write(&path, config.to_string()).expect("written");
}

type Tensors = BTreeMap<String, (safetensors::Dtype, Vec<usize>, Vec<u8>)>;

/// Changes the tensors of the model in `dir/m`.
fn rewrite(dir: &Path, change: impl FnOnce(&mut Tensors)) {
    let path = dir.join("m/model.safetensors");
    let bytes = std::fs::read(&path).expect("read");
    let file = SafeTensors::deserialize(&bytes).expect("tensors");
    let mut tensors: Tensors = file
        .tensors()
        .into_iter()
        .map(|(name, t)| (name, (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        let view = TensorView::new(*dtype, shape.clone(), data).expect("a view");
        (name.clone(), view)
    });
    let written = safetensors::serialize(views.collect::<Vec<_>>(), None).expect("serialized");
    std::fs::write(&path, written).expect("written");
}

fn peftc(dir: &Path, command: &str, recipe: &str) -> Output {
    std::fs::write(dir.join("r.peft"), recipe).expect("written");
    program()
        .args([command, "--quiet", "--offline"])
        .arg(dir.join("r.peft"))
        .env("HF_HOME", dir.join("hub-home"))
        .output()
        .expect("starts")
}

/// What is said of a recipe that is refused by `check`.
fn refused(dir: &Path, recipe: &str) -> String {
    let output = peftc(dir, "check", recipe);
    let said = stderr_of(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Reviews with the classes of the tiny models.
fn data() -> String {
    numbers().replace("take", "labels = [negative, positive], take")
}

/// The same, whose label is a number.
fn numbers() -> String {
    let here = here();
    format!(
        "data d = local \"{}/recipes/reviews\" {{ text = sentence, label = label, take = 8 }}\n",
        here.display()
    )
}

/// Scores of the stage `s`, by row.
fn scores(dir: &Path, recipe: &str) -> Vec<Vec<String>> {
    let output = peftc(dir, "run", recipe);
    let said = stderr_of(&output);
    assert!(output.status.success(), "{said}");
    let path = dir.join(".peftc/runs/r/s/predictions.tsv");
    let text = std::fs::read_to_string(path).expect("predictions");
    let rows: Vec<Vec<String>> = text
        .lines()
        .map(|l| l.split('\t').map(str::to_owned).collect())
        .collect();
    let scored: Vec<usize> = (0..rows[0].len())
        .filter(|&i| rows[0][i].starts_with("score"))
        .collect();
    rows[1..]
        .iter()
        .map(|row| scored.iter().map(|&i| row[i].clone()).collect())
        .collect()
}

#[test]
fn a_decoder_of_its_own_is_the_one_that_scores() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let dir = dir.path();
    let words = format!(
        "model m = local \"m\"\n{}\
         prompt p {{ template = \"{{sentence}} It was {{mask}}.\"\n verbalizer = {{ negative: \"bad\", positive: \"good\" }} }}\n\
         stage s = eval {{ model = m, data = d.dev, prompt = p, objective = label_words }}\n",
        data()
    );
    copied(MINI, dir, |_| {});
    let tied = scores(dir, &words);
    let tokenizer: Value = json(dir.join("m/tokenizer.json"));
    let id = |word: &str| tokenizer["model"]["vocab"][word].as_u64().expect("an id") as usize;
    let (bad, good) = (id("bad"), id("good"));
    let swap = |data: &mut Vec<u8>, width: usize| {
        let row = |data: &[u8], i: usize| data[i * width..(i + 1) * width].to_vec();
        let (a, b) = (row(data, bad), row(data, good));
        data[bad * width..(bad + 1) * width].copy_from_slice(&b);
        data[good * width..(good + 1) * width].copy_from_slice(&a);
    };
    // A decoder whose rows for the two words have changed places, the bias under the decoder's name.
    rewrite(dir, |tensors| {
        let (dtype, shape, mut data) = tensors["bert.embeddings.word_embeddings.weight"].clone();
        let width = data.len() / shape[0];
        swap(&mut data, width);
        tensors.insert(
            "cls.predictions.decoder.weight".to_owned(),
            (dtype, shape, data),
        );
        let (dtype, shape, mut data) = tensors.remove("cls.predictions.bias").expect("a bias");
        let width = data.len() / shape[0];
        swap(&mut data, width);
        tensors.insert(
            "cls.predictions.decoder.bias".to_owned(),
            (dtype, shape, data),
        );
    });
    let said = refused(dir, &words);
    assert!(
        said.contains("cls.predictions.decoder.weight") && said.contains("tie_word_embeddings"),
        "{said}"
    );
    let config = dir.join("m/config.json");
    let mut own: Value = json(&config);
    own["tie_word_embeddings"] = json!(false);
    std::fs::write(&config, own.to_string()).expect("written");
    let untied = scores(dir, &words);
    assert_eq!(tied.len(), 8);
    for (before, after) in tied.iter().zip(&untied) {
        assert_ne!(before[0], before[1]);
        assert_eq!((&before[0], &before[1]), (&after[1], &after[0]));
    }
    // The other objective reads it too, and a classifier does without.
    rewrite(dir, |tensors| {
        tensors
            .remove("cls.predictions.decoder.weight")
            .expect("it was there");
    });
    let said = refused(dir, &words);
    assert!(said.contains("`cls.predictions.decoder.weight`"), "{said}");
    let learn = format!(
        "model m = local \"m\"\n{}stage s = train {{ model = m, data = d.train, adapter = head_only, lr = 1e-3, steps = 1 }}\n",
        data()
    );
    assert!(peftc(dir, "check", &learn).status.success());
}

#[test]
fn a_head_that_is_not_there_scores_only_where_it_is_asked_for() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let dir = dir.path();
    let here = here();
    let eval = |model: &str, more: &str| {
        format!(
            "model m = local \"{}/{model}\"\n{}stage s = eval {{ model = m, data = d.dev, {more} }}\n",
            here.display(),
            if more.contains("regress") {
                numbers()
            } else {
                data()
            }
        )
    };
    let tiny = "tests/reference/bert-tiny";
    for (model, more) in [
        (MINI, "objective = classify"),
        (tiny, "objective = regress"),
    ] {
        let said = refused(dir, &eval(model, more));
        assert!(
            said.contains("no_head") && said.contains("head = random"),
            "{said}"
        );
        let random = eval(model, &format!("{more}, head = random"));
        assert!(peftc(dir, "check", &random).status.success());
    }
    assert!(
        peftc(dir, "check", &eval(tiny, "objective = classify"))
            .status
            .success()
    );
}

#[test]
fn tensors_that_do_not_fit_the_config_are_found_before_anything_runs() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let dir = dir.path();
    let recipe = format!(
        "model m = local \"m\"\n{}stage s = eval {{ model = m, data = d.dev }}\n",
        data()
    );
    let tiny = "tests/reference/bert-tiny";
    copied(tiny, dir, |config| config["intermediate_size"] = json!(64));
    let said = refused(dir, &recipe);
    assert!(
        said.contains("intermediate.dense") && said.contains("[128, 64]"),
        "{said}"
    );
    copied(tiny, dir, |config| config["num_hidden_layers"] = json!(4));
    assert!(refused(dir, &recipe).contains("`bert.encoder.layer.3."));
    copied(tiny, dir, |_| {});
    rewrite(dir, |tensors| {
        let (_, shape, data) = &tensors["bert.embeddings.LayerNorm.weight"];
        let whole = (safetensors::Dtype::I32, shape.clone(), data.clone());
        tensors.insert("bert.embeddings.LayerNorm.weight".to_owned(), whole);
    });
    assert!(refused(dir, &recipe).contains("stored as I32"));
    copied(tiny, dir, |_| {});
    let path = dir.join("m/model.safetensors");
    let bytes = std::fs::read(&path).expect("read");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
    assert!(refused(dir, &recipe).contains("no valid safetensors"));
    // The index lists what is read; a file that looks like a shard is none.
    std::fs::rename(&path, dir.join("m/model-old.safetensors")).expect("renamed");
    assert!(refused(dir, &recipe).contains("no weights"));
    std::fs::write(dir.join("m/part.safetensors"), &bytes).expect("written");
    let index = json!({ "weight_map": { "classifier.bias": "part.safetensors" } });
    std::fs::write(
        dir.join("m/model.safetensors.index.json"),
        index.to_string(),
    )
    .expect("written");
    assert!(peftc(dir, "check", &recipe).status.success());
}

#[test]
fn repositories_whose_files_cannot_be_read_say_so_with_a_remedy() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let dir = dir.path();
    let repo = dir.join("hub-home/hub/models--org--tiny");
    let snapshot = repo.join("snapshots/abc");
    std::fs::create_dir_all(&snapshot).expect("made");
    std::fs::create_dir_all(repo.join("refs")).expect("made");
    std::fs::write(repo.join("refs/main"), "abc").expect("written");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(
            format!("tests/reference/bert-tiny/{name}"),
            snapshot.join(name),
        )
        .expect("copied");
    }
    std::fs::write(snapshot.join("pytorch_model.bin"), "pickle").expect("written");
    let recipe = format!(
        "model m = hub \"org/tiny\"\n{}stage s = train {{ model = m, data = d.train, adapter = head_only, lr = 1e-3, steps = 1 }}\n",
        data()
    );
    let said = refused(dir, &recipe);
    assert!(
        said.contains("pytorch_model.bin only") && said.contains("refs/pr/"),
        "{said}"
    );
    std::fs::copy(
        "tests/reference/bert-tiny/model.safetensors",
        snapshot.join("model.safetensors"),
    )
    .expect("copied");
    assert!(peftc(dir, "check", &recipe).status.success());
    // A sentencepiece model only, in a folder and in a repository.
    std::fs::remove_file(snapshot.join("tokenizer.json")).expect("removed");
    let config = json!({ "tokenizer_class": "XLMRobertaTokenizer" });
    std::fs::write(snapshot.join("tokenizer_config.json"), config.to_string()).expect("written");
    std::fs::write(snapshot.join("sentencepiece.bpe.model"), "pieces").expect("written");
    let folder = recipe.replace(
        "hub \"org/tiny\"",
        "local \"hub-home/hub/models--org--tiny/snapshots/abc\"",
    );
    for recipe in [&recipe, &folder] {
        let said = refused(dir, recipe);
        assert!(
            said.contains("sentencepiece.bpe.model") && said.contains("save_pretrained"),
            "{said}"
        );
    }
}

#[test]
fn what_would_be_another_model_is_refused_by_the_name_of_its_key() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let dir = dir.path();
    let recipe = format!(
        "model m = local \"m\"\n{}stage s = eval {{ model = m, data = d.dev }}\n",
        data()
    );
    for (key, value) in [
        ("is_decoder", json!(true)),
        ("add_cross_attention", json!(true)),
        ("position_embedding_type", json!("rotary")),
        ("pruned_heads", json!({ "0": [1] })),
        ("quantization_config", json!({ "bits": 4 })),
        ("auto_map", json!({ "AutoModel": "x.Y" })),
        ("hidden_act", json!(null)),
        ("hidden_act", json!("mish")),
        ("tie_word_embeddings", json!("no")),
        ("layer_norm_eps", json!(-1)),
        ("problem_type", json!("token_classification")),
    ] {
        copied("tests/reference/bert-tiny", dir, |config| {
            config[key] = value.clone()
        });
        assert!(
            refused(dir, &recipe).contains(key) || key == "hidden_act",
            "{key}"
        );
    }
    copied("tests/reference/roberta-tiny", dir, |config| {
        config["pad_token_id"] = json!(null)
    });
    std::fs::remove_file(dir.join("m/tokenizer.json")).expect("removed");
    assert!(refused(dir, &recipe).contains("pad_token_id"));
}
