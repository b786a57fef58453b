use super::*;

#[expect(clippy::too_many_arguments, reason = "the fields of one result")]
pub(in crate::report) fn result(
    out: &str,
    recipe: &str,
    method: &str,
    seed: u64,
    accuracy: f64,
    bytes: u64,
) -> RunResult {
    let stage = |name: &str, kind: &str, from: Option<&str>| StageResult {
        name: name.to_owned(),
        kind: kind.to_owned(),
        fingerprint: Some(format!("{name}{method}{seed}")),
        variant: Some(format!("{name}{method}")),
        methods: Some(vec![method.to_owned()]),
        from: from.map(str::to_owned),
        ..StageResult::default()
    };
    let mut learn = stage("learn", "train", None);
    learn.seed = Some(seed);
    learn.metrics.insert("accuracy".to_owned(), Some(0.1));
    learn.measured_peak_bytes = Some(bytes);
    learn.log = (1..=40)
        .map(|step| Logged {
            step,
            loss: 1.0 / step as f64,
            dev: if step == 40 {
                [("accuracy".to_owned(), 0.5)].into()
            } else {
                IndexMap::new()
            },
        })
        .collect();
    learn.memory_profile = vec![
        Point {
            op: "matmul a (forward)".to_owned(),
            bytes: bytes / 2,
        },
        Point {
            op: "matmul <b> (backward)".to_owned(),
            bytes,
        },
    ];
    let merge = stage("fold", "merge", Some("learn"));
    let mut score = stage("score", "eval", Some("fold"));
    let test = Data {
        name: "d.test".to_owned(),
        hash: Some("5c07ed".to_owned()),
        rows: Some(400),
        ..Data::default()
    };
    score.data.insert("data".to_owned(), test);
    score.metrics.insert("accuracy".to_owned(), Some(accuracy));
    RunResult {
        dir: out.into(),
        recipe: recipe.to_owned(),
        stages: vec![learn, merge, score],
        sources: Vec::new(),
    }
}

#[test]
fn repetitions_are_joined_and_scored_through_merges() {
    let results = [
        result("o/lora-1", "x/lora-1.peft", "lora", 1, 0.8, 10),
        result("o/lora-2", "x/lora-2.peft", "lora", 2, 0.9, 12),
        result("o/copy", "x/lora-2.peft", "lora", 2, 0.9, 12),
        result("o/full", "x/full.peft", "full", 1, 0.7, 40),
    ];
    let rows = rows(&results);
    assert_eq!(rows.len(), 2);
    let (lora, full) = (&rows[0], &rows[1]);
    assert_eq!((lora.name.as_str(), lora.runs), ("lora", 2));
    assert_eq!(lora.seeds, [1, 2]);
    assert_eq!(lora.scored_by, ["score"]);
    assert_eq!(lora.metrics["accuracy"].values(), [0.8, 0.9]);
    assert_eq!(lora.measured.mean(), Some(11.0));
    assert_eq!((full.name.as_str(), full.runs), ("full", 1));
}

#[test]
fn the_evaluations_of_all_repetitions_are_named() {
    let mut results = Vec::new();
    for seed in [1, 2] {
        let mut own = result("o/r", "r.peft", "lora", seed, 0.8, 10);
        own.dir = format!("o/r{seed}").into();
        for stage in &mut own.stages {
            stage.stage = Some(stage.name.clone());
            stage.at = [
                ("seed".to_owned(), seed.to_string()),
                ("lr".to_owned(), "1e-3".to_owned()),
            ]
            .into();
            stage.name = format!("{}@seed={seed},lr=1e-3", stage.name);
            stage.from = stage
                .from
                .as_ref()
                .map(|f| format!("{f}@seed={seed},lr=1e-3"));
        }
        results.push(own);
    }
    let rows = rows(&results);
    assert_eq!(rows.len(), 1);
    assert_eq!(
        rows[0].scored_by,
        ["score@seed=1,lr=1e-3", "score@seed=2,lr=1e-3"]
    );
    assert_eq!(rows[0].scorers, ["score@lr=1e-3"]);
}

#[test]
fn results_that_do_not_say_are_not_joined() {
    let mut old = [
        result("o/a", "r.peft", "lora", 1, 0.8, 10),
        result("o/b", "r.peft", "lora", 2, 0.9, 10),
    ];
    for stage in old.iter_mut().flat_map(|r| &mut r.stages) {
        (stage.methods, stage.variant, stage.from) = (None, None, None);
    }
    let rows = rows(&old);
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].name, "r (a)");
    assert_eq!(
        rows[1].metric("accuracy"),
        Some(0.9),
        "a single training is what the evaluation scores"
    );
}
