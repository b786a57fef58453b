//! Which model is meant: of a recipe, an output directory, a stage's folder, an entry of the store, or a Hugging Face
//! folder.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::Refusal;
use crate::base::suggest;
use crate::cli::options::{Common, Intent, Within, store_of};
use crate::cli::render;
use crate::exec::run::entry_name;
use crate::exec::store::Store;
use crate::files::{RunError, near, sealed};
use crate::library::metric::metric;
use crate::library::stage::stage;

/// What is asked for.
pub(in crate::cli) struct Asked<'a> {
    pub(in crate::cli) path: &'a Path,
    pub(in crate::cli) stage: Option<&'a str>,
    pub(in crate::cli) best: Option<&'a str>,
    pub(in crate::cli) store: Option<&'a Path>,
    /// Processes that trainings were shared among.
    pub(in crate::cli) ranks: u64,
    pub(in crate::cli) common: &'a Common,
}

/// What is meant.
pub(in crate::cli) struct Artifact {
    /// The artifact's folder.
    pub(in crate::cli) artifact: PathBuf,
    /// What was chosen, where there was a choice.
    pub(in crate::cli) note: Option<String>,
}

/// A stage that was, or could have been, run.
#[derive(Clone, Debug, Default)]
struct Candidate {
    name: String,
    /// Its name in the recipe.
    declared: String,
    kind: String,
    from: Option<String>,
    metrics: Vec<(String, f64)>,
    /// Its artifact, if it is finished.
    artifact: Option<PathBuf>,
}

impl Candidate {
    fn exports_model(&self) -> bool {
        stage(&self.kind).is_none_or(|k| k.trains() || k.merges())
    }
}

/// Finds the model.
pub(in crate::cli) fn find(asked: &Asked<'_>) -> Result<Artifact, Refusal> {
    let path = asked.path;
    if path.is_file() {
        let recipe = path.extension().is_some_and(|e| e == "peft");
        if !recipe {
            return Err(Refusal::Wrong(format!(
                "{}: this is no recipe (`.peft`); name one, or a folder: an output directory of `run`, a stage's folder in it, an \
                 entry of the store, a Hugging Face folder",
                path.display()
            )));
        }
        let list = of_recipe(asked)?;
        return chosen(&list, asked, "the recipe");
    }
    let idle = [
        ("--store", asked.store.is_some()),
        ("--set", !asked.common.sets.is_empty()),
        ("--offline", asked.common.offline),
    ];
    if let Some((flag, _)) = idle.iter().find(|(_, written)| *written) {
        return Err(Refusal::Wrong(format!(
            "`{flag}` is for a recipe, and {} is none",
            path.display()
        )));
    }
    if let Some(list) = of_result(path)? {
        return chosen(&list, asked, "the result");
    }
    // A stage's folder holds its model, or belongs to a result that says where it is.
    let holds = ["adapter", "model", "."]
        .iter()
        .any(|sub| path.join(sub).join("config.json").exists());
    if !holds {
        let full = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        if let (Some(out), Some(name)) = (full.parent(), full.file_name().and_then(|n| n.to_str()))
            && let Some(list) = of_result(out)?
            && list.iter().any(|c| c.name == name)
        {
            only_one(asked, Some(name))?;
            let here = Asked {
                stage: Some(name),
                best: None,
                ..*asked
            };
            return chosen(&list, &here, "the result");
        }
    }
    if !path.is_dir() {
        let near = near::did_you_mean(path).map(|n| format!("{n}; "));
        return Err(RunError::file(
            path,
            format!("there is no such file or folder; {}name a recipe that was run, an output directory of `run`, a stage's folder in it, \
             an entry of the store, or a Hugging Face folder", near.unwrap_or_default()),
        )
        .into());
    }
    only_one(asked, None)?;
    Ok(Artifact {
        artifact: path.to_path_buf(),
        note: None,
    })
}

/// Refuses flags that choose where there is nothing to choose.
fn only_one(asked: &Asked<'_>, name: Option<&str>) -> Result<(), Refusal> {
    let idle = match (asked.stage, asked.best) {
        (Some(own), _) if name != Some(own) => "--stage",
        (_, Some(_)) => "--best",
        _ => return Ok(()),
    };
    Err(Refusal::Wrong(format!(
        "`{idle}` chooses among the stages of a recipe or an output directory, and {} is one model",
        asked.path.display()
    )))
}

/// The stages that a result lists.
fn of_result(out: &Path) -> Result<Option<Vec<Candidate>>, Refusal> {
    let file = out.join("result.json");
    if !file.exists() {
        return Ok(None);
    }
    let bytes = sealed::unbroken(&file, "`peftc run` writes it again")?;
    let json: Json = serde_json::from_slice(&bytes)
        .map_err(|e| RunError::file(&file, format!("damaged: {e}; run the recipe again")))?;
    let text = |json: &Json, key: &str| json.get(key).and_then(Json::as_str).map(str::to_owned);
    let stages = json.get("stages").and_then(Json::as_array);
    let list = stages.into_iter().flatten().map(|stage| {
        let name = text(stage, "name").unwrap_or_default();
        Candidate {
            declared: text(stage, "stage").unwrap_or_else(|| name.clone()),
            kind: text(stage, "kind").unwrap_or_default(),
            from: text(stage, "from"),
            metrics: metrics(stage),
            artifact: text(stage, "artifact").map(|path| {
                // Beside the result if it is relative and there; else as the run said it.
                let (beside, own) = (out.join(&path), out.join(&name));
                // What was moved with its project is linked in OUT, too.
                let linked = ["adapter", "model"]
                    .iter()
                    .any(|sub| own.join(sub).is_dir());
                if beside.exists() {
                    beside
                } else if !Path::new(&path).exists() && linked {
                    own
                } else {
                    path.into()
                }
            }),
            name,
        }
    });
    Ok(Some(list.collect()))
}

fn metrics(result: &Json) -> Vec<(String, f64)> {
    let map = result.get("metrics").and_then(Json::as_object);
    let pairs = map.into_iter().flatten();
    pairs
        .filter_map(|(name, value)| Some((name.clone(), value.as_f64()?)))
        .collect()
}

/// The stages of a recipe as it stands, with what the store holds of them.
fn of_recipe(asked: &Asked<'_>) -> Result<Vec<Candidate>, Refusal> {
    let Some(prepared) = asked.common.prepare(None, Intent::Tell) else {
        return Err(Refusal::Wrong("nothing was predicted".to_owned()));
    };
    let dir = store_of(asked.path, asked.store);
    let compiled = asked.common.compile(
        asked.path,
        &prepared,
        &asked.common.world(),
        Within {
            ranks: asked.ranks,
            ..Within::alone(Some(&dir), None)
        },
    );
    let Some(plan) = compiled.plan.as_ref().filter(|_| !compiled.rejected()) else {
        render::report(&compiled.diags, &compiled.sources, asked.common);
        return Err(Refusal::Wrong(format!(
            "{} is rejected: nothing was predicted",
            asked.path.display()
        )));
    };
    let store = Store::open(dir);
    let list = plan.stages.iter().map(|stage| {
        let entry = entry_name(stage);
        let finished = store
            .finished(&entry)
            .filter(|_| stage.fingerprint.is_some());
        Candidate {
            name: stage.name.value.clone(),
            declared: stage.declared.clone(),
            kind: stage.filled.name.clone(),
            from: stage.parent.clone(),
            metrics: finished
                .as_ref()
                .map(|m| metrics(&m.result))
                .unwrap_or_default(),
            artifact: finished.map(|_| store.path(&entry)),
        }
    });
    Ok(list.collect())
}

/// The stage that is asked for, or the last one that leaves a model.
fn chosen(all: &[Candidate], asked: &Asked<'_>, what: &str) -> Result<Artifact, Refusal> {
    let models: Vec<&Candidate> = all.iter().filter(|c| c.exports_model()).collect();
    let group: Vec<&Candidate> = match asked.stage {
        Some(name) => {
            let own: Vec<&Candidate> = models
                .iter()
                .copied()
                .filter(|c| c.name == name || c.declared == name)
                .collect();
            if own.is_empty() {
                return Err(Refusal::Wrong(no_model(all, &models, name, what)));
            }
            own
        }
        None => {
            let Some(last) = models.last() else {
                return Err(RunError::file(
                    asked.path,
                    "no finished stage in it leaves a model (`train`, `mezo` and `merge` do); let `peftc run` go on",
                )
                .into());
            };
            let same = |c: &&Candidate| c.declared == last.declared;
            models.iter().copied().filter(same).collect()
        }
    };
    let (one, note) = match (asked.best, group.as_slice()) {
        (Some(by), group) => {
            let (one, value) = best(all, group, by)?;
            (
                one,
                Some(format!("`{}` is taken: {by} {value:.4}", one.name)),
            )
        }
        (None, [one]) => (*one, None),
        (None, group) => return Err(Refusal::Wrong(several(all, group))),
    };
    match &one.artifact {
        Some(artifact) => Ok(Artifact {
            artifact: artifact.clone(),
            note,
        }),
        None => Err(RunError::file(
            asked.path,
            format!(
                "the stage `{}` of the recipe as it stands is not finished; `peftc run {}` finishes it",
                one.name,
                asked.path.display()
            ),
        )
        .into()),
    }
}

/// Why a name is none of a stage that leaves a model.
fn no_model(all: &[Candidate], models: &[&Candidate], name: &str, what: &str) -> String {
    let other = all.iter().find(|c| c.name == name || c.declared == name);
    if let Some(other) = other {
        let names: Vec<String> = models.iter().map(|c| format!("`{}`", c.name)).collect();
        return format!(
            "`{name}` is a stage of the kind `{}`, which leaves no model; those that do are {}",
            other.kind,
            names.join(", ")
        );
    }
    let near = suggest::did_you_mean(name, models.iter().map(|c| c.name.as_str()));
    let near = near.map(|n| format!("; {n}")).unwrap_or_default();
    format!("{what} has no stage `{name}` that leaves a model{near}")
}

/// Why none of a stage's variants is taken: each with what it scored.
fn several(all: &[Candidate], group: &[&Candidate]) -> String {
    let line = |c: &&Candidate| {
        let scored = scores(all, c);
        let scored: Vec<String> = scored
            .iter()
            .map(|(name, x)| format!("{name} {x:.4}"))
            .collect();
        format!("\n  {}  {}", c.name, scored.join("  "))
    };
    let list: Vec<String> = group.iter().map(line).collect();
    format!(
        "`{}` has {} variants; name one with `--stage`, or take the best with `--best METRIC`:{}",
        group.first().map_or("", |c| c.declared.as_str()),
        group.len(),
        list.concat()
    )
}

/// The training that a stage's model comes from, through merges.
fn root<'a>(all: &'a [Candidate], stage: &'a Candidate) -> &'a str {
    let mut at = stage;
    for _ in 0..all.len() {
        if stage_trains(&at.kind) {
            break;
        }
        match all.iter().find(|c| Some(&c.name) == at.from.as_ref()) {
            Some(parent) => at = parent,
            None => break,
        }
    }
    &at.name
}

fn stage_trains(kind: &str) -> bool {
    stage(kind).is_some_and(|k| k.trains())
}

/// What scores a model: the evaluations of it in their order, or its own on its `dev` split.
fn scores(all: &[Candidate], model: &Candidate) -> Vec<(String, f64)> {
    let own = root(all, model);
    let evaluations = all
        .iter()
        .filter(|c| c.kind == "eval" && c.from.is_some() && root(all, c) == own);
    let mut list: Vec<(String, f64)> = Vec::new();
    for evaluation in evaluations {
        for (name, value) in &evaluation.metrics {
            let long = format!("{}.{name}", evaluation.declared);
            let taken = list.iter().any(|(n, _)| n == name);
            list.push((if taken { long } else { name.clone() }, *value));
        }
    }
    if list.is_empty() {
        let trained = all.iter().find(|c| c.name == own);
        list = trained.map(|c| c.metrics.clone()).unwrap_or_default();
    }
    list
}

/// The variant that is best by a metric.
fn best<'a>(
    all: &[Candidate],
    group: &[&'a Candidate],
    by: &str,
) -> Result<(&'a Candidate, f64), Refusal> {
    let plain = by.rsplit('.').next().unwrap_or(by);
    let more = metric(plain).is_none_or(|m| m.higher_is_better());
    let value = |c: &Candidate| {
        let own = scores(all, c);
        own.iter().find(|(name, _)| name == by).map(|(_, x)| *x)
    };
    let scored = group
        .iter()
        .filter_map(|c| Some((*c, value(c).filter(|x| x.is_finite())?)));
    // The first among equals.
    let better = |a: (&'a Candidate, f64), b: (&'a Candidate, f64)| {
        if (more && b.1 > a.1) || (!more && b.1 < a.1) {
            b
        } else {
            a
        }
    };
    scored.reduce(better).ok_or_else(|| {
        let mut names: Vec<String> = group
            .iter()
            .flat_map(|c| scores(all, c))
            .map(|(name, _)| name)
            .collect();
        names.sort();
        names.dedup();
        Refusal::Wrong(if names.is_empty() {
            format!("nothing scores these stages, so that none is the best by `{by}`; run an `eval` stage from them")
        } else {
            format!("no stage is scored by `{by}`; there are {}", names.join(", "))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, kind: &str, from: Option<&str>, metrics: &[(&str, f64)]) -> Candidate {
        Candidate {
            name: name.to_owned(),
            declared: name.split('@').next().unwrap_or(name).to_owned(),
            kind: kind.to_owned(),
            from: from.map(str::to_owned),
            metrics: metrics.iter().map(|(n, x)| ((*n).to_owned(), *x)).collect(),
            artifact: Some(name.into()),
        }
    }

    fn swept() -> Vec<Candidate> {
        vec![
            stage("learn@lr=1", "train", None, &[("accuracy", 0.1)]),
            stage("learn@lr=2", "train", None, &[("accuracy", 0.9)]),
            stage("fold@lr=1", "merge", Some("learn@lr=1"), &[]),
            stage("fold@lr=2", "merge", Some("learn@lr=2"), &[]),
            stage(
                "score@lr=1",
                "eval",
                Some("fold@lr=1"),
                &[("accuracy", 0.8), ("loss", 0.5)],
            ),
            stage(
                "score@lr=2",
                "eval",
                Some("fold@lr=2"),
                &[("accuracy", 0.7), ("loss", 0.4)],
            ),
        ]
    }

    fn ask(stage: Option<&str>, best: Option<&str>) -> Result<String, String> {
        let common = Common {
            device: "cpu".to_owned(),
            offline: true,
            sets: Vec::new(),
            json: false,
            no_data_report: true,
            quiet: true,
            threads: None,
            color: crate::cli::options::Color::Never,
        };
        let asked = Asked {
            path: Path::new("out"),
            stage,
            best,
            store: None,
            ranks: 1,
            common: &common,
        };
        match chosen(&swept(), &asked, "the result") {
            Ok(place) => Ok(place.artifact.display().to_string()),
            Err(Refusal::Wrong(why)) => Err(why),
            Err(_) => Err("failed".to_owned()),
        }
    }

    #[test]
    fn a_sweep_asks_which_variant_or_takes_the_best() {
        let why = ask(None, None).expect_err("two variants");
        assert!(
            why.contains("`fold` has 2 variants") && why.contains("fold@lr=2  accuracy 0.7000"),
            "{why}"
        );
        assert_eq!(ask(None, Some("accuracy")).as_deref(), Ok("fold@lr=1"));
        assert_eq!(
            ask(Some("learn"), Some("loss")).as_deref(),
            Ok("learn@lr=2")
        );
        assert_eq!(ask(Some("learn@lr=2"), None).as_deref(), Ok("learn@lr=2"));
        let why = ask(Some("score"), None).expect_err("no model");
        assert!(
            why.contains("kind `eval`") && why.contains("`learn@lr=1`"),
            "{why}"
        );
        let why = ask(Some("lern"), None).expect_err("no stage");
        assert!(
            why.contains("no stage `lern`") && why.contains("learn@lr=1"),
            "{why}"
        );
        let why = ask(None, Some("f1")).expect_err("no metric");
        assert!(why.contains("accuracy, loss"), "{why}");
    }
}
