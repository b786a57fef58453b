//! Demonstrations: each text is followed by one of every class with that class's word, never by itself;
//! runs repeat, meet their estimates, and hand what they need to `predict`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use peftc::cli::world::RealWorld;
use peftc::driver::compile;
use peftc::library::data::tokens::{EncodedExample, Target};
use peftc::library::tokenizer::Tokenizer;
use peftc::plan::Plan;
use peftc::program::op::Machine;
use serde_json::Value;

use super::support::{here, program, stderr_of};

const PLAIN: &str = "prompt p { template = \"{sentence} It was {mask}.\", verbalizer = { negative: \"terrible\", positive: \"great\" } }\n";
const SHOWN: &str = "prompt p {\n  template = \"{sentence} It was {mask}.\"\n  verbalizer = { negative: \"terrible\", positive: \"great\" }\n  \
                     demonstrations = NUMBER\n  demonstrations_from = d.train\n  demonstration_length = 12\n  demonstration_seed = SEED\n}\n";

fn shown(number: u64, seed: u64) -> String {
    SHOWN
        .replace("NUMBER", &number.to_string())
        .replace("SEED", &seed.to_string())
}

fn recipe(dir: &Path, name: &str, prompt: &str, body: &str) -> PathBuf {
    let here = here();
    let at = here.display();
    let text = format!(
        "model m = local \"{at}/recipes/reviews-mini\"\n\
         data d = local \"{at}/recipes/reviews\" {{ text = sentence, label = label, labels = [negative, positive], take = 60 }}\n\
         {prompt}{body}"
    );
    let path = dir.join(format!("{name}.peft"));
    std::fs::write(&path, text).expect("written");
    path
}

fn planned(path: &Path) -> Plan {
    let compiled = compile(path, &[], &RealWorld::new(true), &Machine::cpu(1));
    assert!(compiled.diags.is_empty(), "{:?}", compiled.diags);
    compiled.plan.expect("a plan")
}

fn score(more: &str) -> String {
    format!(
        "stage e = eval {{ model = m, data = d.train, prompt = p, objective = label_words{more} }}\n"
    )
}

fn examples(plan: &Plan) -> Vec<EncodedExample> {
    let split = plan.stages[0].splits[0].as_ref().expect("a split");
    let set = split.encoded.as_ref().expect("tokens");
    let each = (0..set.len() as u32).map(|i| set.get(i).expect("in memory"));
    each.collect()
}

fn id(tokenizer: &Tokenizer, word: &str) -> u32 {
    let pieces = tokenizer.word_pieces(word).expect("pieces");
    assert_eq!(pieces.len(), 1, "{word}");
    pieces[0].1
}

#[test]
fn every_text_is_followed_by_others_of_each_class_with_their_words() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let bare = planned(&recipe(dir.path(), "bare", PLAIN, &score("")));
    let tokenizer = bare.stages[0].start.model.tokenizer.clone();
    let tokenizer = tokenizer.expect("a tokenizer");
    let (_, mask) = tokenizer.mask().expect("a mask");
    let words = ["terrible", "great"].map(|w| id(&tokenizer, w));
    let [it, was, stop] = ["it", "was", "."].map(|w| id(&tokenizer, w));
    // `[CLS] text it was [MASK] . [SEP]`
    let text = |e: &EncodedExample| e.ids[1..e.ids.len() - 5].to_vec();
    let cut = |ids: &[u32]| ids[..ids.len().min(12)].to_vec();
    let of_class = |class: u32| -> BTreeSet<Vec<u32>> {
        let own = examples(&bare);
        let own = own.iter();
        own.filter(|e| e.label == Target::Class(class))
            .map(|e| cut(&text(e)))
            .collect()
    };
    let classes = [of_class(0), of_class(1)];
    for each in [1, 2] {
        let plan = planned(&recipe(dir.path(), "shown", &shown(each, 42), &score("")));
        assert_eq!(examples(&plan).len(), 60);
        let whole = 128 - 2 * each as usize * 16;
        let (all, plain) = (examples(&plan), examples(&bare));
        let pairs = all.iter().zip(&plain);
        for (with, without) in pairs.filter(|(_, w)| w.ids.len() <= whole) {
            assert_eq!((with.mask, &with.label), (without.mask, &without.label));
            assert_eq!(with.segments.len(), with.ids.len());
            let (last, query) = without.ids.split_last().expect("tokens");
            assert_eq!(with.ids[..query.len()], *query, "the text comes first");
            assert_eq!(with.ids.last(), Some(last));
            assert_eq!(with.ids.iter().filter(|id| **id == mask).count(), 1);
            let mut rest = &with.ids[query.len()..with.ids.len() - 1];
            for demonstration in 0..2 * each {
                let class = (demonstration / each) as usize;
                let end = [it, was, words[class], stop];
                let at = rest.windows(4).position(|w| w == end).expect("its word");
                let own = &rest[..at];
                assert!(classes[class].contains(own), "a text of the class");
                assert_ne!(own, cut(&text(without)), "not the text itself");
                rest = &rest[at + 4..];
            }
            assert!(rest.is_empty());
        }
    }
    let ids = |name: &str, prompt: &str, more: &str| -> Vec<Vec<u32>> {
        let plan = planned(&recipe(dir.path(), name, prompt, &score(more)));
        examples(&plan).iter().map(|e| e.ids.clone()).collect()
    };
    let one = ids("one", &shown(1, 42), "");
    assert_ne!(one, ids("other", &shown(1, 43), ""), "the seed draws");
    let three = ids("three", &shown(1, 42), ", draws = 3");
    assert_eq!(three.len(), 180);
    assert_eq!(three[..60], one, "the first draw is that of training");
    assert!(three[..60] != three[60..120] && three[60..120] != three[120..]);
    // Demonstrations stay whole: where there is little room, the text is cut, down to nothing.
    let narrow = ids("narrow", &shown(1, 42), ", max_length = 39");
    assert!(narrow.iter().all(|ids| ids.len() <= 39));
    for (cut, whole) in narrow.iter().zip(&one) {
        let gone = whole.len() - cut.len();
        let differ = cut.iter().zip(whole).take_while(|(a, b)| a == b).count();
        assert!(gone == 0 || cut[differ..] == whole[differ + gone..]);
    }
}

fn peftc(args: &[&str]) -> String {
    let output = program().args(args).output().expect("starts");
    let stderr = stderr_of(&output);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

fn run(path: &Path, threads: &str) -> Vec<Value> {
    let path = path.to_str().expect("UTF-8");
    let text = peftc(&["run", "--quiet", "--json", "--threads", threads, path]);
    let json: Value = serde_json::from_str(&text).expect("JSON");
    json["stages"].as_array().expect("stages").clone()
}

/// Predicted class and probability of the second class, from scores or probabilities.
fn rows(table: &str, logits: bool) -> Vec<(String, f64)> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('\t').collect();
        let number = |i: usize| cells[i].parse::<f64>().expect("a number");
        let last = cells.len() - 1;
        if logits {
            let apart = number(last - 1) - number(last);
            (cells[2].to_owned(), 1.0 / (1.0 + apart.exp()))
        } else {
            (cells[1].to_owned(), number(last))
        }
    };
    table.lines().skip(1).map(row).collect()
}

#[test]
fn runs_repeat_meet_their_estimate_and_predict_what_they_scored() {
    let body = "stage learn = train { model = m, data = d.train, dev = d.dev, prompt = p, objective = label_words, adapter = lora { rank = 2 }, lr = 1e-3, steps = 5, batch = 8, micro_batch = 3 }\n\
                stage top = train { model = m, data = d.train, prompt = p, objective = label_words, adapter = last_n { n = 1 }, lr = 1e-3, epochs = 2, batch = 8 }\n\
                stage plain = merge { from = learn }\n\
                stage first = eval { from = learn, data = d.dev, metrics = [accuracy, loss] }\n\
                stage mean = eval { from = plain, data = d.dev, draws = 3, metrics = [accuracy, loss] }\n";
    let dirs = [(), ()].map(|()| tempfile::tempdir().expect("a scratch directory"));
    let made: Vec<Vec<Value>> = dirs
        .iter()
        .zip(["1", "2"])
        .map(|(dir, threads)| run(&recipe(dir.path(), "r", &shown(1, 42), body), threads))
        .collect();
    for (one, other) in made[0].iter().zip(&made[1]) {
        for key in ["fingerprint", "metrics", "loss_first", "loss_last"] {
            assert_eq!(one[key], other[key], "{}", one["name"]);
        }
        let bytes = |key: &str| one[key].as_u64().expect("bytes") as f64;
        let ratio = bytes("measured_peak_bytes") / bytes("estimated_peak_bytes");
        assert!((0.99..=1.0).contains(&ratio), "{}: {ratio}", one["name"]);
    }
    let table = |name: &str| {
        let path = dirs[0]
            .path()
            .join(format!(".peftc/runs/r/{name}/predictions.tsv"));
        rows(&std::fs::read_to_string(path).expect("predictions"), true)
    };
    assert_eq!((table("first").len(), table("mean").len()), (60, 60));
    assert_ne!(table("first"), table("mean"), "other draws, other scores");

    let dev = std::fs::read_to_string("recipes/reviews/dev.tsv").expect("reviews");
    // Backwards: what a text is shown does not depend on its place.
    let texts: Vec<&str> = dev.lines().skip(1).take(60).collect();
    let texts: Vec<&str> = texts
        .iter()
        .rev()
        .map(|l| l.split('\t').next().unwrap_or_default())
        .collect();
    let input = dirs[0].path().join("new.tsv");
    std::fs::write(&input, format!("sentence\n{}\n", texts.join("\n"))).expect("written");
    let input = input.to_str().expect("UTF-8");
    for (stage, draws, scored) in [(0, "1", "first"), (2, "3", "mean")] {
        let artifact = made[0][stage]["artifact"].as_str().expect("a path");
        let told = [
            "predict", artifact, "--input", input, "--all", "--draws", draws,
        ];
        let told = peftc(&told);
        let told = rows(&told, false);
        assert_eq!(told.len(), 60);
        for ((told, p), (scored, q)) in told.iter().rev().zip(table(scored)) {
            assert_eq!(*told, scored);
            assert!((p - q).abs() < 1e-4, "{p} {q}");
        }
    }
}

#[test]
fn the_split_they_come_from_is_part_of_the_result() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let print = |name: &str, prompt: &str| {
        let plan = planned(&recipe(dir.path(), name, prompt, &score("")));
        plan.stages[0].fingerprint.clone().expect("a fingerprint")
    };
    let from_dev = shown(1, 42).replace("d.train", "d.dev");
    let all = [
        print("plain", PLAIN),
        print("none", &PLAIN.replace(" }\n", ", demonstrations = 0 }\n")),
        print("one", &shown(1, 42)),
        print("two", &shown(2, 42)),
        print("seed", &shown(1, 1)),
        print("dev", &from_dev),
    ];
    assert_eq!(all[0], all[1]);
    let different: BTreeSet<&String> = all.iter().collect();
    assert_eq!(different.len(), 5);
    // A sweep over what they are drawn from reaches the stages that show them.
    let swept = "let n = 20\nsweep s = grid { n = [20, 40] }\n\
                 data few = local \"HERE/recipes/reviews\" { text = sentence, label = label, labels = [negative, positive], take = n }\n";
    let here = here();
    let swept = swept.replace("HERE", &here.display().to_string());
    let body = shown(1, 42).replace("d.train", "few.train") + &score("");
    let plan = planned(&recipe(dir.path(), "swept", &swept, &body));
    assert_eq!(plan.stages.len(), 2);
}
