//! Rows that other stages label and a training draws (iPET): which ones, against a transcription of the authors' rule; balance,
//! memory, a kill, a sweep's variants, other objectives, and what is refused.

use std::collections::BTreeMap;
use std::path::Path;

use peftc::library::stage::drawing::{Drawing, Drawn};
use serde_json::Value;

use super::support::{
    assert_exact, done, here, json, json_lines, numbers, printed, program, stage, stderr_of,
};

#[test]
fn rows_and_teachers_are_those_of_the_authors_rule() {
    let reference = json("tests/reference/drawing.json");
    for case in reference["cases"].as_array().expect("cases") {
        let number = |key: &str| case[key].as_u64().expect("a number");
        let drawing = Drawing {
            grow: number("grow"),
            share: case["share"].as_f64().expect("a share"),
            seed: number("seed"),
            place: number("place"),
        };
        let list = |key: &str| -> Vec<u64> {
            let own = case[key].as_array().expect("a list");
            own.iter().map(|n| n.as_u64().expect("a number")).collect()
        };
        let chosen = drawing.teachers(usize::try_from(number("teachers")).expect("few"));
        let chosen: Vec<u64> = chosen.into_iter().map(|i| i as u64).collect();
        assert_eq!(chosen, list("chosen"));
        let (rows, counts) = drawing
            .rows(&numbers(&case["scores"]), &list("labelled"))
            .expect("a row for each class");
        let wanted: Vec<Drawn> = case["drawn"]
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| Drawn {
                example: u32::try_from(row[0].as_u64().expect("a place")).expect("small"),
                class: u32::try_from(row[1].as_u64().expect("a class")).expect("small"),
                share: row[2].as_f64().expect("a share"),
            })
            .collect();
        assert_eq!(rows.len(), wanted.len());
        for (own, want) in rows.iter().zip(&wanted) {
            assert_eq!((own.example, own.class), (want.example, want.class));
            assert!((own.share - want.share).abs() < 1e-12);
        }
        let found: Vec<u64> = counts.iter().map(|count| count.found).collect();
        assert_eq!(found, list("found"));
        for (count, labelled) in counts.iter().zip(list("labelled")) {
            assert_eq!(count.drawn, labelled * (drawing.grow - 1));
        }
    }
    // What no row is taken for cannot be drawn.
    let drawing = Drawing {
        grow: 2,
        share: 1.0,
        seed: 1,
        place: 0,
    };
    assert_eq!(drawing.rows(&[2.0, 1.0, 3.0, 0.0], &[1, 1]), Err(1));
}

/// A folder with ten labelled reviews, six of them negative, and `more` rows whose labels are written or turned round.
fn folder(more: usize, turned: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let text = std::fs::read_to_string("recipes/reviews/train.tsv").expect("reviews");
    let rows: Vec<(&str, &str)> = text
        .lines()
        .skip(1)
        .filter_map(|l| {
            let mut cells = l.split('\t');
            Some((cells.next()?, cells.next()?))
        })
        .collect();
    let of = |label: &'static str, n: usize| rows.iter().filter(move |r| r.1 == label).take(n);
    let few: Vec<&(&str, &str)> = of("0", 6).chain(of("1", 4)).collect();
    let write = |name: &str, rows: &[(&str, &str)]| {
        let lines: Vec<String> = rows.iter().map(|(t, l)| format!("{t}\t{l}\n")).collect();
        let text = "sentence\tlabel\n".to_owned() + &lines.concat();
        std::fs::write(dir.path().join(name), text).expect("written");
    };
    write("few.tsv", &few.into_iter().copied().collect::<Vec<_>>());
    let more: Vec<(&str, &str)> = rows.iter().skip(200).take(more).copied().collect();
    let other = |l: &str| if l == "0" { "1" } else { "0" };
    let told = more
        .iter()
        .map(|(t, l)| (*t, if turned { other(l) } else { *l }));
    write("more.tsv", &told.collect::<Vec<_>>());
    dir
}

/// Two generations within four patterns, and a learner with an objective of its own.
fn recipe(learner: &str) -> String {
    let at = here();
    let at = at.display();
    let words = "verbalizer = { negative: \"terrible\", positive: \"great\" }";
    let templates = [
        ("it_was", "{sentence} It was {mask}."),
        ("just", "Just {mask}! {sentence}"),
        ("all", "{sentence} All in all, it was {mask}."),
        ("film", "A {mask} film. {sentence}"),
    ];
    let labels = "text = sentence, label = label, labels = [negative, positive]";
    let mut text = format!(
        "model m = local \"{at}/recipes/reviews-mini\"\ndata few = local \"few.tsv\" {{ {labels} }}\n\
         data more = local \"more.tsv\" {{ {labels} }}\n\
         let pattern = it_was\nsweep patterns = grid {{ pattern = [it_was, just, all, film] }}\n"
    );
    for (name, template) in templates {
        text += &format!("prompt {name} {{ template = \"{template}\", {words} }}\n");
    }
    text + &format!(
        "stage first = train {{ model = m, data = few.train, prompt = pattern, objective = label_words, adapter = full, lr = 1e-4, steps = 8, batch = 5, max_length = 48 }}\n\
         stage scores = annotate {{ from = first, data = more.train }}\n\
         stage second = train {{ model = m, data = few.train, unlabelled = more.train, teachers = scores, over = patterns, {learner} }}\n"
    )
}

const WORDS: &str = "prompt = pattern, objective = label_words, adapter = full, lr = 1e-4, epochs = 2, batch = 8, max_length = 48, grow = 4, seed = 3";

fn run(dir: &Path, recipe: &str) -> Value {
    let path = dir.join("r.peft");
    std::fs::write(&path, recipe).expect("written");
    done(
        program()
            .args(["run", "--quiet", "--threads", "2"])
            .arg(path),
    );
    json(dir.join(".peftc/runs/r/result.json"))
}

/// The rows of a table, without its head.
fn table(path: impl AsRef<Path>) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).expect("a table");
    let lines = text.lines().skip(1);
    lines
        .map(|l| l.split('\t').map(str::to_owned).collect())
        .collect()
}

#[test]
fn a_generation_learns_what_other_patterns_label_in_the_balance_of_the_labels() {
    let dirs = [folder(160, false), folder(160, true)];
    let results = dirs.each_ref().map(|dir| run(dir.path(), &recipe(WORDS)));
    let result = &results[0];
    assert_exact(result);
    let patterns = ["it_was", "just", "all", "film"];
    let mut all = BTreeMap::new();
    for pattern in patterns {
        let name = format!("second@pattern={pattern}");
        let own = stage(result, &name);
        // 10 labelled rows become 40: 40 rows in batches of 8, twice.
        assert_eq!(own["steps"], 10, "{own}");
        assert_eq!(own["drawn"]["negative"]["drawn"], 18);
        assert_eq!(own["drawn"]["positive"]["drawn"], 12);
        let at = |dir: &tempfile::TempDir, name: &str, file: &str| {
            dir.path().join(format!(".peftc/runs/r/{name}/{file}"))
        };
        let drawn = table(at(&dirs[0], &name, "drawn.tsv"));
        // Labels that are written beside the unlabelled texts change nothing.
        assert_eq!(drawn, table(at(&dirs[1], &name, "drawn.tsv")));
        let steps = |dir| -> Vec<Value> {
            let lines = json_lines(at(dir, &name, "metrics.jsonl"));
            lines.iter().map(|line| line["loss"].clone()).collect()
        };
        assert_eq!(steps(&dirs[0]), steps(&dirs[1]));
        let of = |label: &str| drawn.iter().filter(|row| row[1] == label).count();
        assert_eq!((of("negative"), of("positive")), (18, 12));
        // With four variants one of the three others labels: what is drawn is its prediction.
        let agrees = |other: &&str| {
            let said = table(at(
                &dirs[0],
                &format!("scores@pattern={other}"),
                "predictions.tsv",
            ));
            drawn.iter().all(|row| {
                let own = said.iter().find(|line| line[0] == row[0]);
                own.is_some_and(|line| line[2] == row[1])
            })
        };
        let others: Vec<&str> = patterns.into_iter().filter(agrees).collect();
        assert!(others.iter().any(|other| *other != pattern), "{others:?}");
        all.insert(pattern, drawn);
    }
    // Each has draws of its own.
    assert!(patterns.windows(2).all(|w| all[w[0]] != all[w[1]]));
}

#[test]
fn the_plan_counts_the_longest_rows_and_says_who_labels() {
    let dir = folder(160, false);
    let path = dir.path().join("r.peft");
    std::fs::write(&path, recipe(WORDS)).expect("written");
    let plan = printed(&done(program().args(["plan", "--json"]).arg(&path)));
    let edges = plan["edges"].as_array().expect("edges");
    let labels: Vec<&Value> = edges.iter().filter(|e| e["port"] == "labels").collect();
    assert_eq!(labels.len(), 4);
    for edge in labels {
        let of = |key: &str| {
            let name = edge[key].as_str().expect("a name");
            name.split('=').nth(1).expect("a pattern").to_owned()
        };
        assert_ne!(of("from"), of("to"));
    }
    let output = done(program().arg("plan").arg(&path).env("COLUMNS", "400"));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(
        text.contains("10 labelled rows and 30 that") && text.contains("counts as the longest"),
        "{text}"
    );
    let result = run(dir.path(), &recipe(WORDS));
    let planned = plan["stages"].as_array().expect("stages");
    for own in planned.iter().filter(|s| s["stage"] == "second") {
        let ran = stage(&result, own["name"].as_str().expect("a name"));
        let bound = own["memory"]["peak"].as_u64().expect("a peak");
        assert!(ran["measured_peak_bytes"].as_u64() <= Some(bound), "{ran}");
    }
}

#[test]
fn a_classifier_draws_from_one_stage_that_labels() {
    let dir = folder(160, false);
    let learner = |adapter: &str| {
        let keys = format!(
            "adapter = {adapter}, lr = 1e-3, epochs = 2, batch = 8, max_length = 48, grow = 3"
        );
        recipe(&keys).replace(", over = patterns", "")
            + "stage after = eval { from = second, data = more.train }\n"
    };
    // What these keep of their frozen part elsewhere would be filled by runs of as many texts as are short enough.
    for adapter in ["head_only", "lst { r = 4 }", "last_n { n = 1 }"] {
        assert_exact(&run(dir.path(), &learner(adapter)));
    }
    let drawn = table(
        dir.path()
            .join(".peftc/runs/r/second@pattern=just/drawn.tsv"),
    );
    let said = table(
        dir.path()
            .join(".peftc/runs/r/scores@pattern=just/predictions.tsv"),
    );
    for row in &drawn {
        let own = said.iter().find(|line| line[0] == row[0]).expect("a row");
        assert_eq!(own[2], row[1]);
    }
    assert_eq!(drawn.len(), 20);
}

#[test]
fn a_class_with_too_few_texts_has_them_several_times_and_says_so() {
    let dir = folder(12, false);
    let path = dir.path().join("r.peft");
    let learner = WORDS.replace("grow = 4", "grow = 9");
    std::fs::write(&path, recipe(&learner)).expect("written");
    let output = program()
        .args(["run", "--threads", "2"])
        .arg(&path)
        .output()
        .expect("starts");
    let said = stderr_of(&output);
    if output.status.success() {
        assert!(said.contains("some of them several times"), "{said}");
        let result = json(dir.path().join(".peftc/runs/r/result.json"));
        assert_exact(&result);
        let own = &stage(&result, "second@pattern=just")["drawn"]["negative"];
        assert_eq!(own["drawn"], 48);
        assert!(own["found"].as_u64() <= Some(12));
    } else {
        assert!(
            said.contains("take none of the 12 unlabelled texts"),
            "{said}"
        );
    }
}

#[test]
fn a_killed_run_goes_on_with_the_same_rows_and_bits() {
    let learner = WORDS.replace("epochs = 2", "epochs = 8, micro_batch = 3");
    let recipe = recipe(&learner);
    let (whole, killed) = (folder(160, false), folder(160, false));
    run(whole.path(), &recipe);
    let path = killed.path().join("r.peft");
    std::fs::write(&path, &recipe).expect("written");
    let start = || {
        let mut command = program();
        let every = [
            "run",
            "--quiet",
            "--threads",
            "2",
            "--checkpoint-every",
            "0",
        ];
        command.args(every).arg(&path);
        command
    };
    let name = "second@pattern=it_was";
    let log = killed
        .path()
        .join(format!(".peftc/runs/r/{name}/metrics.jsonl"));
    let steps = || std::fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    let mut child = start().spawn().expect("starts");
    while child.try_wait().expect("waited for").is_none() && steps() < 5 {
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("waited for");
    assert!(steps() < 40, "the run was over before it was killed");
    done(&mut start());
    for file in ["drawn.tsv", "metrics.jsonl"] {
        let of = |dir: &Path| -> Vec<String> {
            let path = dir.join(format!(".peftc/runs/r/{name}/{file}"));
            if file == "drawn.tsv" {
                return table(path).concat();
            }
            let lines = json_lines(path);
            lines.iter().map(|line| line["loss"].to_string()).collect()
        };
        assert_eq!(of(whole.path()), of(killed.path()), "{file}");
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let dir = folder(40, false);
    let common =
        recipe("prompt = pattern, objective = label_words, adapter = full, lr = 1e-3, epochs = 1");
    let learns = "adapter = full, lr = 1e-3, epochs = 1";
    let labels = "text = sentence, label = label, labels = [ham, spam]";
    let cases = [
        (
            "data = few.train, unlabelled = more.train",
            "no effect without `teachers`",
        ),
        (
            "data = few.train, grow = 3",
            "`grow` has no effect without `unlabelled`",
        ),
        (
            "data = few.train, teachers = scores",
            "or `unlabelled = SPLIT`",
        ),
        (
            "data = few.train, unlabelled = more.train, teachers = scores, objective = distil",
            "`distil` learns scores, and `unlabelled` gives rows with labels",
        ),
        (
            "data = few.train, unlabelled = few.train, teachers = scores",
            "scores other texts",
        ),
        (
            "data = few.train, unlabelled = more.train, teachers = scores, batch = 4_096 tokens",
            "batches cannot be cut by tokens",
        ),
        (
            "data = few.train, unlabelled = more.train, teachers = scores, objective = regress",
            "learns something else than one class",
        ),
        (
            "data = other.train, unlabelled = more.train, teachers = scores",
            "the teachers tell other classes than `data` has",
        ),
    ];
    for (keys, says) in cases {
        let path = dir.path().join("r.peft");
        let text = format!(
            "{common}data other = local \"few.tsv\" {{ {labels} }}\nstage s = train {{ model = m, {keys}, {learns} }}\n"
        );
        std::fs::write(&path, text).expect("written");
        let output = program()
            .arg("check")
            .arg(&path)
            .env("COLUMNS", "400")
            .output()
            .expect("starts");
        let said = stderr_of(&output);
        assert!(!output.status.success(), "{keys}: {said}");
        // Messages are wrapped to the terminal.
        let words: Vec<&str> = said
            .split_whitespace()
            .filter(|word| *word != "│")
            .collect();
        assert!(words.join(" ").contains(says), "{keys}: {said}");
    }
}
