//! One model, five ways: what an evaluation, `predict`, the merged folder, the exported adapter and a store that was moved
//! say of the same texts is the same, for every method, architecture and start.
//!
//! The exported adapter is read by a few lines of its own here, which apply peft's format to plain weights, and is
//! evaluated by the forward of `oracle`, which shares no code with the compiler.

mod adapters;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use peftc::exec::backend::{Device, Open};
use peftc::exec::observe::Silent;
use peftc::exec::predict::Predictor;
use peftc::library::method::{METHODS, Method};
use peftc::library::schema::Default;
use peftc::program::format::{FORMATS, Format};
use peftc::program::op::Machine;
use peftc::resolve::methods_from_text;
use serde_json::{Value, json};

use adapters::{make_adapters, with_peft};

use super::oracle::{SENTENCES, Scores, plain_scores, reference};
use super::support::{json, printed, program, stderr_of};
use super::tensor::{self, Tensor};

/// How far two ways may be apart.
const CLOSE: f32 = 1e-5;

/// Values that tiny models need, where a method's defaults do not fit them.
const SMALL: &[(&str, &str, &str)] = &[
    ("k_lst", "k", "3"),
    ("series_adapter", "size", "4"),
    ("parallel_adapter", "size", "4"),
    ("prefix_tuning", "tokens", "3"),
    ("prompt_tuning", "tokens", "3"),
    ("p_tuning", "tokens", "2"),
    ("llama_adapter", "tokens", "2"),
    ("cpt", "token_ids", "[3, 4]"),
    ("trainable_tokens", "token_ids", "[7, 4]"),
    ("cartridge", "tokens", "3"),
    ("multitask_prompt", "tokens", "2"),
    ("multitask_prompt", "tasks", "2"),
    ("adamix", "size", "4"),
    ("adamix_lora", "rank", "2"),
    ("unfreeze", "every", "1 steps"),
    ("unfreeze", "last", "2"),
    ("movement_mask", "samples", "6"),
    ("unipelt", "tokens", "2"),
    ("unipelt", "hidden", "4"),
    ("unipelt", "rank", "2"),
    ("shira", "rank", "2"),
    ("smt", "blocks", "3"),
    ("smt", "side", "4"),
    ("oft", "block_size", "8"),
    ("road", "group_size", "8"),
    ("c3a", "block_size", "8"),
    ("fourierft", "frequencies", "20"),
    ("vblora", "length", "16"),
    ("waveft", "frequencies", "20"),
    ("psoft", "rank", "4"),
    ("peanut", "rank", "4"),
    ("supertuning", "sparsity", "0.9"),
    ("adamss", "rank", "6"),
    ("adamss", "subspaces", "2"),
    ("lily", "rank", "4"),
    ("poly", "rank", "2"),
    ("poly", "skills", "2"),
];

/// What a stage has to say for a method beside its own keys; `warm` is a full training.
pub(super) fn beside(name: &str) -> &'static str {
    BESIDE
        .iter()
        .find(|(m, _)| *m == name)
        .map_or("", |(_, key)| *key)
}

/// Keys of the stage that a method needs beside its own.
const BESIDE: &[(&str, &str)] = &[("lt_sft", "tuned = warm, ")];

/// A method as a recipe writes it: whatever its schema requires, small.
pub(super) fn written(method: &dyn Method) -> String {
    let schema = method.schema();
    let keys: Vec<String> = schema
        .keys
        .iter()
        .filter_map(|key| {
            let small = SMALL
                .iter()
                .find(|(m, k, _)| (*m, *k) == (schema.name, key.name));
            match (small, key.default) {
                (Some((_, _, value)), _) => Some(format!("{} = {value}", key.name)),
                (None, Default::Required) => Some(format!("{} = 1", key.name)),
                _ => None,
            }
        })
        .collect();
    format!("{} {{ {} }}", schema.name, keys.join(", "))
}

/// The stages that are compared: a training, its evaluation and, where it leaves an adapter that folds, the
/// merge and its evaluation.
struct Case {
    name: String,
    folds: bool,
    exports: bool,
}

fn stages(
    cases: &mut Vec<Case>,
    name: String,
    method: &dyn Method,
    from: &str,
    adapter: &str,
) -> String {
    let mut text = format!(
        "stage {name} = train {{ {from}, data = d.train, {adapter}lr = 1e-2, steps = 2, batch = 3 }}\n\
         stage {name}_e = eval {{ from = {name}, data = d.test, batch = BATCH }}\n"
    );
    if method.folds() {
        text += &format!(
            "stage {name}_m = merge {{ from = {name}, to = \"to/{name}\" }}\n\
             stage {name}_me = eval {{ from = {name}_m, data = d.test, batch = BATCH }}\n"
        );
    }
    let probe = peftc::library::schema::Values::default();
    cases.push(Case {
        name,
        folds: method.folds(),
        exports: method.folds() && method.peft(&probe).is_some(),
    });
    text
}

/// Methods on one map: what stands on another method's weight.
const STACKED: &str =
    "adapters = [lora { on = attention.* }, siva { on = attention.{key, value} }], ";

/// A part of the registry: every so many-th method from one on, and those that read frozen weights in ways of their own.
#[derive(Clone, Copy)]
struct Dealt {
    from: usize,
    of: usize,
}

impl Dealt {
    fn methods(self) -> impl Iterator<Item = &'static dyn Method> {
        let own = ["full", "lora", "siva", "dora"];
        let is = move |(i, m): &(usize, &&dyn Method)| {
            i % self.of == self.from || own.contains(&m.schema().name)
        };
        METHODS.iter().enumerate().filter(is).map(|(_, m)| *m)
    }
}

fn recipe(cases: &mut Vec<Case>, adapters: &[&str], dtype: &str, dealt: Dealt) -> String {
    let mut text = format!(
        "model m = local \"base\" {{ dtype = {dtype} }}\n\
         data d = local \"data\" {{ text = sentence, label = label }}\n\
         stage warm = train {{ model = m, data = d.train, adapter = full, lr = 1e-3, steps = 2, batch = 3 }}\n"
    );
    for method in dealt.methods() {
        let name = method.schema().name;
        let beside = beside(name);
        let adapter = format!("adapter = {}, {beside}", written(method));
        text += &stages(
            cases,
            format!("{name}_fresh"),
            method,
            "model = m",
            &adapter,
        );
        text += &stages(
            cases,
            format!("{name}_from"),
            method,
            "from = warm",
            &adapter,
        );
        if method.adapts() || method.ladders() {
            let from = format!("from = {name}_fresh");
            text += &stages(cases, format!("{name}_on"), method, &from, "");
        }
        if method.schema().key("start").is_some() {
            for start in adapters {
                let adapter = format!("adapter = {name} {{ start = \"{start}\" }}, ");
                text += &stages(
                    cases,
                    format!("{name}_{start}"),
                    method,
                    "model = m",
                    &adapter,
                );
                let from = format!("from = {name}_{start}");
                text += &stages(cases, format!("{name}_{start}_on"), method, &from, "");
            }
        }
    }
    let lora = METHODS.iter().find(|m| m.schema().name == "lora");
    let lora = *lora.expect("a method");
    let on = "from = stacked";
    text += &stages(cases, "stacked".to_owned(), lora, "model = m", STACKED);
    text += &stages(cases, "stacked_on".to_owned(), lora, on, "");
    for case in cases.iter_mut().filter(|c| c.name.starts_with("stacked")) {
        case.exports = false;
    }
    text
}

/// Plain weights; of those of a format of blocks, the backbone's matrices are what their blocks decode to.
fn plain(base: &Path, format: Format) -> HashMap<String, Tensor> {
    let mut weights = tensor::load(base.join("model.safetensors"));
    for (name, tensor) in &mut weights {
        let head = name.contains("classifier") || name.contains("pooler");
        let (Some(packed), [_, width], false) = (format.blocks(), tensor.dims(), head) else {
            continue;
        };
        assert!(format.fits(*width as u64), "{name}");
        packed.round(tensor.numbers_mut()).expect("finite");
    }
    weights
}

/// What an evaluation wrote.
fn evaluated(out: &Path, stage: &str) -> Scores {
    let path = out.join(stage).join("predictions.tsv");
    let text = std::fs::read_to_string(&path).expect("predictions");
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().expect("a header").split('\t').collect();
    let scores: Vec<usize> = (0..header.len())
        .filter(|&i| header[i].starts_with("score"))
        .collect();
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            scores
                .iter()
                .map(|&i| cells[i].parse().expect("a number"))
                .collect()
        })
        .collect()
}

/// What `predict` says of an artifact or a folder.
fn predicted(folder: &Path) -> Scores {
    let texts: Vec<Vec<String>> = SENTENCES.iter().map(|s| vec![(*s).to_owned()]).collect();
    let predictor = Arc::new(Predictor::open(folder, &methods_from_text).expect("opens"));
    let device: Arc<dyn Open> = Arc::new(Device::Cpu);
    let on = (Machine::detect(Some(2)), device);
    let made = predictor
        .predict(&texts, (4, 1), on, &mut Silent)
        .expect("labels");
    made.scores
        .chunks(made.width)
        .map(<[f32]>::to_vec)
        .collect()
}

fn agree(what: &str, one: &Scores, other: &Scores) {
    assert_eq!(one.len(), other.len(), "{what}");
    for (a, b) in one.iter().flatten().zip(other.iter().flatten()) {
        assert!((a - b).abs() < CLOSE, "{what}: {one:?} against {other:?}");
    }
}

fn run(dir: &Path, recipe: &Path) -> BTreeMap<String, Value> {
    let output = program()
        .args(["run", "--quiet", "--json", "--threads", "2", "--store"])
        .arg(dir.join("store"))
        .arg("--out")
        .arg(dir.join("out"))
        .arg(recipe)
        .output()
        .expect("starts");
    let said = stderr_of(&output);
    assert!(output.status.success(), "{said}");
    let result: Value = printed(&output);
    let stages = result["stages"].as_array().expect("stages").iter();
    stages
        .map(|s| (s["name"].as_str().expect("a name").to_owned(), s.clone()))
        .collect()
}

/// A folder with a base, data and adapters.
fn workplace(family: &str) -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("a scratch directory");
    let dir = place.path().join("here");
    let base = dir.join("base");
    std::fs::create_dir_all(&base).expect("a folder");
    for entry in std::fs::read_dir(reference(&format!("{family}-tiny"))).expect("a model") {
        let entry = entry.expect("a file");
        std::fs::copy(entry.path(), base.join(entry.file_name())).expect("copied");
    }
    std::fs::create_dir_all(dir.join("data")).expect("a folder");
    let rows: String = SENTENCES
        .iter()
        .enumerate()
        .map(|(i, s)| {
            format!(
                "{s}\t{}\n",
                if i % 2 == 0 { "negative" } else { "positive" }
            )
        })
        .collect();
    for split in ["train", "test"] {
        let text = format!("sentence\tlabel\n{rows}");
        std::fs::write(dir.join(format!("data/{split}.tsv")), text).expect("written");
    }
    make_adapters(&dir, &base);
    place
}

#[expect(
    clippy::too_many_lines,
    reason = "one training, looked at from all sides"
)]
fn five_ways(family: &str, dtype: &str, dealt: Dealt) {
    let format = Format::named(dtype).expect("a format");
    let place = workplace(family);
    let dir = place.path().join("here");
    let mut cases = Vec::new();
    let text = recipe(&mut cases, &["mixed", "head"], dtype, dealt);
    let (path, write) = (dir.join("r.peft"), |path: &Path, batch: &str| {
        std::fs::write(path, text.replace("BATCH", batch)).expect("written");
    });
    write(&path, "4");
    let results = run(&dir, &path);
    let artifact = |name: &str| PathBuf::from(results[name]["artifact"].as_str().expect("a path"));
    let mut said: BTreeMap<&str, Scores> = BTreeMap::new();
    for case in &cases {
        let name = &case.name;
        let scores = evaluated(&dir.join("out"), &format!("{name}_e"));
        assert!(artifact(name).is_absolute());
        let (adapter, model) = (artifact(name).join("adapter"), artifact(name).join("model"));
        if case.exports {
            let text = std::fs::read(adapter.join("adapter_config.json")).expect("exported");
            let config: Value = serde_json::from_slice(&text).expect("JSON");
            let base = PathBuf::from(config["base_model_name_or_path"].as_str().expect("a base"));
            let is_base = base == dir.join("base").canonicalize().expect("a folder");
            assert_eq!(
                is_base,
                !name.contains("_from"),
                "{name}: {}",
                base.display()
            );
            // What a stage left is not stored in blocks.
            let own = if is_base { format } else { Format::default() };
            let theirs = plain_scores(&base, &with_peft(&adapter, plain(&base, own)));
            agree(&format!("{family} {name}: exported"), &scores, &theirs);
        }
        if model.is_dir() {
            let theirs = plain_scores(&model, &tensor::load(model.join("model.safetensors")));
            agree(&format!("{family} {name}: exported"), &scores, &theirs);
        }
        if case.folds {
            let merged = evaluated(&dir.join("out"), &format!("{name}_me"));
            agree(&format!("{family} {name}: merged"), &scores, &merged);
        }
        said.insert(name, scores);
    }
    let distinct = |a: &str, b: &str| {
        let apart = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-3;
        let (a, b) = (said[a].iter().flatten(), said[b].iter().flatten());
        assert!(a.zip(b).any(apart), "{family}: a start has no effect");
    };
    distinct("lora_fresh", "lora_mixed");
    distinct("lora_fresh", "lora_head");
    distinct("lora_fresh", "lora_on");
    distinct("lora_mixed", "lora_mixed_on");

    // From here on everything lies elsewhere.
    let moved = place.path().join("there");
    std::fs::rename(&dir, &moved).expect("moved");
    for case in &cases {
        let (name, scores) = (&case.name, &said[case.name.as_str()]);
        let own = artifact(name);
        let own = moved.join(
            own.strip_prefix(dir.canonicalize().unwrap_or(dir.clone()))
                .expect("inside"),
        );
        agree(
            &format!("{family} {name}: predict"),
            scores,
            &predicted(&own),
        );
        if case.folds {
            let merged = predicted(&moved.join("to").join(name));
            agree(
                &format!("{family} {name}: predict of the merged folder"),
                scores,
                &merged,
            );
        }
    }
    let again = moved.join("again.peft");
    write(&again, "3");
    let results = run(&moved, &again);
    for case in &cases {
        let name = &case.name;
        assert_eq!(results[name.as_str()]["cached"], true, "{family} {name}");
        assert_eq!(
            results[&format!("{name}_e")]["cached"],
            false,
            "{family} {name}"
        );
        let scores = evaluated(&moved.join("out"), &format!("{name}_e"));
        agree(
            &format!("{family} {name}: reloaded"),
            &said[name.as_str()],
            &scores,
        );
    }
}

/// The families, and among how many recipes the methods of each are dealt: a run of many hundred stages spends most of its time
/// on its results.
const FAMILIES: [&str; 3] = ["bert", "roberta", "distilbert"];
const RECIPES: usize = 2;

/// Every method is on one of the families, and those that read frozen weights in ways of their own are on each: what a family
/// calls its modules is looked up in one place for all methods.
fn in_five_ways(family: &str) {
    let own = FAMILIES
        .iter()
        .position(|f| *f == family)
        .expect("a family");
    let of = FAMILIES.len() * RECIPES;
    for from in (own..of).step_by(FAMILIES.len()) {
        five_ways(family, "f32", Dealt { from, of });
    }
}

#[test]
fn a_bert_says_the_same_in_five_ways() {
    in_five_ways("bert");
}

#[test]
fn a_roberta_says_the_same_in_five_ways() {
    in_five_ways("roberta");
}

#[test]
fn a_distilbert_says_the_same_in_five_ways() {
    in_five_ways("distilbert");
}

#[test]
fn a_model_in_blocks_says_the_same_in_five_ways() {
    // Those that a recipe may choose and whose blocks fit into these rows. What a format is does not depend on the method, so
    // the methods are dealt among them.
    let formats: Vec<_> = FORMATS
        .iter()
        .filter(|f| f.encode().is_some() && f.numbers() <= 64)
        .collect();
    for (from, format) in formats.iter().enumerate() {
        let of = formats.len();
        five_ways("bert", format.name(), Dealt { from, of });
    }
}

/// A training that changes next to nothing: what is evaluated is the adapter that it began with.
#[test]
fn an_adapter_of_peft_is_what_an_independent_reader_makes_of_it() {
    for family in FAMILIES {
        let place = workplace(family);
        let dir = place.path().join("here");
        for adapter in ["mixed", "head"] {
            let path = dir.join(format!("{adapter}.peft"));
            let text = format!(
                "model m = local \"base\"\n\
                 data d = local \"data\" {{ text = sentence, label = label }}\n\
                 stage s = train {{ model = m, data = d.train, adapter = lora {{ start = \"{adapter}\" }}, lr = 1e-30, steps = 1 }}\n\
                 stage e = eval {{ from = s, data = d.test }}\n"
            );
            std::fs::write(&path, text).expect("written");
            run(&dir, &path);
            let base = dir.join("base");
            let weights = with_peft(&dir.join(adapter), plain(&base, Format::default()));
            let theirs = plain_scores(&base, &weights);
            agree(
                &format!("{family} {adapter}"),
                &evaluated(&dir.join("out"), "e"),
                &theirs,
            );
        }
    }
}
