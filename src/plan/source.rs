//! Where a split's examples come from: which files, which of their rows, and what their labels are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bind::Binder;
use crate::base::world::{HubFile, RepoKind, World};
use crate::library::collection::Set;
use crate::library::data::form::Form;
use crate::library::data::set::{Carve, DataSpec, Given, Labels, Naming};
use crate::library::data::split::{SplitSource, expand, expand_in, find_split};
use crate::library::data::{About, DataError, names};
use crate::library::decl;
use crate::library::schema::{Checked, Portion, Values};
use crate::library::task::{Answer, TASKS, Task};
use crate::resolve::Declared;

/// Why a split cannot be had.
pub(super) enum Unavailable {
    Offline(String),
    Wrong(Vec<DataError>),
}

impl Binder<'_> {
    /// Where a split's examples come from, for a task and whether its labels are read, with the classes that are fixed and
    /// the order that is preferred.
    pub(super) fn source(
        &mut self,
        declared: &Declared,
        split: &str,
        (task, labelled): (&dyn Task, bool),
        (fixed, preferred): (Option<&[String]>, Option<&[String]>),
    ) -> Result<Arc<DataSource>, Unavailable> {
        let key = format!(
            "{}.{split}.{}.{labelled}.{fixed:?}.{preferred:?}",
            declared.identity(),
            task.name()
        );
        if let Some(source) = self.sources.get(&key) {
            return Ok(source.clone());
        }
        let values = &declared.filled.values;
        let labelled = labelled && task.labels_rows(decl::form(values));
        let reads = labelled && task.answer().reads_labels();
        let naming = || Naming {
            given: given(declared),
            fixed: fixed.map(<[String]>::to_vec),
            preferred: preferred.map(<[String]>::to_vec),
        };
        let labels = match labelled {
            true => task.answer().labels(naming),
            false => Labels::None,
        };
        if reads && let Some(set) = declared.set {
            check_set(set, (declared, split), &labels)
                .map_err(|wrong| Unavailable::Wrong(vec![wrong]))?;
        }
        let label = decl::LABEL.get(values);
        if label.is_none() && reads {
            let name = &declared.name.value;
            let error = DataError::new("", format!("`{name}` names no label column"))
                .about(About::Label)
                .help("write `label = …` with the column that holds what is to be learned");
            return Err(Unavailable::Wrong(vec![error]));
        }
        let separator = decl::LABEL_SEPARATOR.get(values).filter(|_| reads);
        check_separator(declared, separator, task)
            .map_err(|wrong| Unavailable::Wrong(vec![wrong]))?;
        let canonical = canonical(split);
        let (from, carve) = self.carved(declared, canonical)?;
        let files = self.files(declared, if carve.is_some() { from } else { split })?;
        let beside = label
            .filter(|_| labels.naming().is_some())
            .and_then(|label| self.beside(declared, &files, label));
        let spec = DataSpec {
            files: files.clone(),
            format: decl::FORMAT.get(values).map(str::to_owned),
            text: decl::columns(values),
            form: decl::form(values),
            first_answer: decl::FIRST_ANSWER.get(values),
            label: label.filter(|_| reads).map(str::to_owned),
            task: decl::TASK.get(values).map(str::to_owned),
            take: decl::TAKE.get(values),
            shuffle: decl::SHUFFLE.get(values),
            labels,
            separator: separator.map(str::to_owned),
            beside,
            carve,
        };
        let hashes = files.into_iter().map(|file| {
            let hash = self.world.fingerprint(&file).ok()?;
            Some((file, hash))
        });
        let hashes: Option<Vec<(PathBuf, String)>> = hashes.collect();
        let identity = hashes.as_ref().map(|list| identity(&spec, list));
        let source = Arc::new(DataSource {
            spec,
            identity,
            hashes: hashes.unwrap_or_default(),
        });
        self.sources.insert(key, source.clone());
        Ok(source)
    }

    /// The split whose files a split is read from, and the part of their rows that it is.
    fn carved(
        &self,
        declared: &Declared,
        split: &'static str,
    ) -> Result<(&'static str, Option<Carve>), Unavailable> {
        let values = &declared.filled.values;
        let wrong = |message: String, help: &str| {
            let error = DataError::new("", message).about(About::Split).help(help);
            Err(Unavailable::Wrong(vec![error]))
        };
        let Some(filled) = decl::SPLIT.get(values) else {
            return Ok((split, None));
        };
        let parts: Vec<(&str, Portion)> = ["dev", "test"]
            .into_iter()
            .filter_map(|part| Some((part, filled.values.find::<Portion>(part)?)))
            .collect();
        if parts.is_empty() {
            return wrong(
                "`split` carves out neither `dev` nor `test`".to_owned(),
                "write `split = { dev = 10% }`",
            );
        }
        const ALL: u64 = 1_000_000_000;
        let sum: u64 = parts.iter().map(|(_, share)| share.of(ALL)).sum();
        if sum >= ALL {
            return wrong(
                "the shares of `split` leave nothing for `train`".to_owned(),
                "together they have to be below 100%",
            );
        }
        for (part, _) in &parts {
            let own = !values.find::<[String]>(part).unwrap_or_default().is_empty()
                || self.files(declared, part).is_ok();
            if own && !self.is_one_file(declared) {
                return wrong(
                    format!(
                        "`split` carves out `{part}`, and there are files of the split `{part}`"
                    ),
                    "remove that share, or the files",
                );
            }
        }
        let stratify = match (
            decl::CARVED_STRATIFY.get(&filled.values),
            decl::LABEL.get(values),
        ) {
            (false, _) => None,
            (true, Some(label)) => Some(label.to_owned()),
            (true, None) => {
                return wrong(
                    "`stratify` spreads labels evenly, and the data set names no `label`"
                        .to_owned(),
                    "write `label = …`, or remove `stratify`",
                );
            }
        };
        let own = parts.iter().position(|(part, _)| *part == split);
        if own.is_none() && split != "train" {
            return Ok((split, None));
        }
        let carve = Carve {
            shares: parts.into_iter().map(|(_, share)| share).collect(),
            own,
            seed: decl::CARVED_SEED.get(&filled.values),
            stratify,
        };
        Ok(("train", Some(carve)))
    }

    /// Whether a local data set is a file, which has no splits but those that are carved out of it.
    fn is_one_file(&self, declared: &Declared) -> bool {
        let arg = declared.arg.as_ref();
        let arg = arg.map(|a| declared.base.join(&a.value));
        let is_file = |path: PathBuf| self.world.open(&path).is_ok();
        declared.filled.name == "local" && declared.more.is_empty() && arg.into_iter().any(is_file)
    }

    /// The files of a split; those of the hub are fetched.
    fn files(&self, declared: &Declared, split: &str) -> Result<Vec<PathBuf>, Unavailable> {
        let values = &declared.filled.values;
        let named = values
            .find::<[String]>(canonical(split))
            .unwrap_or_default();
        let args: Vec<String> = declared
            .arg
            .iter()
            .chain(&declared.more)
            .map(|a| a.value.clone())
            .collect();
        let arg = args.first().cloned().unwrap_or_default();
        let wrong = |error: DataError| Unavailable::Wrong(vec![error]);
        if declared.filled.name != "hub" {
            if named.is_empty() {
                let source = SplitSource::Local {
                    base: declared.base.clone(),
                    named: args,
                };
                return find_split(&source, split, self.world).map_err(wrong);
            }
            // Beside a directory, files are named relative to it.
            let dir = declared.base.join(&arg);
            let base = match self.world.list(&dir) {
                Ok(_) => dir,
                Err(_) if args.len() == 1 && !self.world.exists(&dir) => dir,
                Err(_) => declared.base.clone(),
            };
            return expand(&base, named, self.world).map_err(wrong);
        }
        let revision = decl::REVISION.get(values).map(str::to_owned);
        let list = || {
            self.world
                .hub_list(&arg, RepoKind::Dataset, revision.as_deref())
        };
        if named.is_empty() {
            let source = SplitSource::Hub {
                repo: arg.clone(),
                revision: revision.clone(),
                config: decl::CONFIG.get(values).map(str::to_owned),
            };
            // A repository that answers, but has no such split or configuration, is the recipe's mistake.
            let out_of_reach = list().is_err();
            return find_split(&source, split, self.world).map_err(|e| {
                if out_of_reach {
                    Unavailable::Offline(e.to_string())
                } else {
                    wrong(e)
                }
            });
        }
        let all = list().unwrap_or_default();
        let named = expand_in(&all, named, &format!("hub:{arg}")).map_err(wrong)?;
        let fetch = |file: &String| {
            let file = HubFile {
                repo: arg.clone(),
                kind: RepoKind::Dataset,
                revision: revision.clone(),
                file: file.clone(),
            };
            let path = self.world.hub(&file).map(|p| p.path);
            path.map_err(|e| Unavailable::Offline(e.to_string()))
        };
        named.iter().map(fetch).collect()
    }

    /// The class names that lie beside files.
    fn beside(&self, declared: &Declared, files: &[PathBuf], label: &str) -> Option<Vec<String>> {
        let config = decl::CONFIG.get(&declared.filled.values);
        let here = |dir: &Path| names::beside(dir, config, label, self.world);
        let arg = &declared.arg.as_ref()?.value;
        if declared.filled.name != "hub" {
            let folder = declared.base.join(arg);
            return here(files.first()?.parent()?).or_else(|| here(&folder));
        }
        // Parquet files hold the names themselves.
        if files
            .iter()
            .all(|f| f.extension().is_some_and(|e| e == "parquet"))
        {
            return None;
        }
        let revision = decl::REVISION.get(&declared.filled.values);
        let all = self.world.hub_list(arg, RepoKind::Dataset, revision).ok()?;
        let page = names::FILES
            .into_iter()
            .find(|name| all.iter().any(|f| f == name))?;
        let file = HubFile {
            repo: arg.clone(),
            kind: RepoKind::Dataset,
            revision: revision.map(str::to_owned),
            file: page.to_owned(),
        };
        here(self.world.hub(&file).ok()?.path.parent()?)
    }
}

/// Complains about a separator that separates nothing, and about one that a task with one label a row would not read.
fn check_separator(
    declared: &Declared,
    separator: Option<&str>,
    task: &dyn Task,
) -> Result<(), DataError> {
    let Some(separator) = separator else {
        return Ok(());
    };
    if separator.is_empty() {
        return Err(DataError::new("", "`label_separator` is empty")
            .about(About::Label)
            .help("write what stands between two labels, such as `\",\"`"));
    }
    if task.answer() == Answer::Classes {
        return Ok(());
    }
    let several = TASKS.iter().map(|kind| (kind.make)(&Values::default()));
    let several = several.filter(|task| task.answer() == Answer::Classes);
    let names: Vec<String> = several
        .map(|task| format!("`objective = {}`", task.name()))
        .collect();
    let message = format!(
        "`{}` has several labels a row (`label_separator`), and `{}` reads one",
        declared.name.value,
        task.name()
    );
    let error = DataError::new("", message).about(About::Label);
    Err(match names.as_slice() {
        [] => error.help("remove `label_separator`"),
        names => error.help(format!(
            "write {}, or remove `label_separator`",
            names.join(" or ")
        )),
    })
}

/// A split by the one name that is used here.
pub(super) fn canonical(split: &str) -> &'static str {
    match split {
        "train" => "train",
        "test" => "test",
        "dev" | "validation" | "valid" | "val" => "dev",
        _ => "",
    }
}

/// Complains about a named set whose labels are of another kind, or about a split that it does not have with labels; one that
/// is carved out is another matter.
fn check_set(
    set: &Set,
    (declared, split): (&Declared, &str),
    labels: &Labels,
) -> Result<(), DataError> {
    let name = set.name;
    let numbers = set.labels.is_empty();
    let meant = match labels {
        Labels::Classes(_) if numbers => Some(("numbers", "regress")),
        Labels::Regression if !numbers => Some(("classes", "classify")),
        _ => None,
    };
    if let Some((are, objective)) = meant {
        let error = DataError::new("", format!("the labels of `{name}` are {are}"));
        let help = format!("write `objective = {objective}`");
        return Err(error.about(About::Label).help(help));
    }
    let own = canonical(split);
    let carves =
        decl::SPLIT.get(&declared.filled.values).is_some() && matches!(own, "dev" | "test");
    let usual = own == "dev" && set.splits.contains(&"validation");
    if carves || usual || set.splits.contains(&split) {
        return Ok(());
    }
    let message = format!("`{name}` has no split `{split}` with labels");
    let listed: Vec<String> = set.splits.iter().map(|s| format!("`{s}`")).collect();
    let help = format!("its splits are {}", listed.join(", "));
    Err(DataError::new("", message).about(About::Split).help(help))
}

/// What a declaration says of its classes.
pub(super) fn given(declared: &Declared) -> Given {
    match decl::LABELS.get(&declared.filled.values) {
        Some(Checked::Names(list)) if !list.is_empty() => Given::List(list.clone()),
        Some(Checked::Map(pairs)) => Given::Map(
            pairs
                .iter()
                .filter_map(|(label, class)| Some((label.clone(), class.first()?.clone())))
                .collect(),
        ),
        _ => Given::Nothing,
    }
}

/// Hash of a split's files and of what is taken from them. What is usual leaves no trace, so that results of earlier
/// versions are found again.
fn identity(spec: &DataSpec, hashes: &[(PathBuf, String)]) -> String {
    let hashes: Vec<&String> = hashes.iter().map(|(_, hash)| hash).collect();
    let (labels, more) = match &spec.labels {
        Labels::None => ("None".to_owned(), None),
        Labels::Regression => ("Regression".to_owned(), None),
        Labels::Classes(naming) | Labels::Several(naming) | Labels::Each(naming) => {
            let more = naming
                .preferred
                .as_ref()
                .map(|list| format!(" like {list:?}"));
            match (&naming.given, &naming.fixed) {
                (Given::Nothing, None) => ("Derive".to_owned(), more),
                (Given::List(list), None) => (format!("Given({list:?})"), more),
                (Given::Nothing, Some(fixed)) => (format!("Given({fixed:?})"), more),
                (Given::List(list), Some(fixed)) if list == fixed => {
                    (format!("Given({list:?})"), more)
                }
                (given, fixed) => (format!("{given:?} in {fixed:?}"), more),
            }
        }
    };
    let mut taken = format!(
        "{:?} {:?} {:?} {:?} {labels}",
        spec.text, spec.label, spec.take, spec.shuffle
    );
    taken += &more.unwrap_or_default();
    if spec.form != Form::Text {
        taken += &format!(" as {:?}", spec.form);
    }
    if spec.first_answer > 0 {
        taken += &format!(" answers from {}", spec.first_answer);
    }
    if matches!(spec.labels, Labels::Several(_)) {
        taken += &format!(" several {:?}", spec.separator);
    }
    if let Some(names) = &spec.beside {
        taken += &format!(" named {names:?}");
    }
    if let Some(task) = &spec.task {
        taken += &format!(" of task {task:?}");
    }
    if let Some(carve) = &spec.carve {
        taken += &format!(" {carve:?}");
    }
    blake3::hash(format!("{hashes:?} {taken}").as_bytes())
        .to_hex()
        .to_string()
}

/// Where a split's examples come from.
#[derive(Debug)]
pub(super) struct DataSource {
    /// Its files, and what is taken from them.
    pub spec: DataSpec,
    /// Hash of both.
    pub identity: Option<String>,
    /// The hash of each file, where all could be had.
    hashes: Vec<(PathBuf, String)>,
}

impl DataSource {
    /// Whether its files are still those that its identity was made of.
    ///
    /// # Errors
    /// When one of them has changed.
    pub(super) fn check(&self, world: &dyn World) -> Result<(), Vec<DataError>> {
        let changed =
            |(path, hash): &&(PathBuf, String)| world.fingerprint(path).ok().as_ref() != Some(hash);
        match self.hashes.iter().find(changed) {
            None => Ok(()),
            Some((path, _)) => {
                let name = path.display().to_string();
                let error = DataError::new(name, "the file changed while it was read");
                Err(vec![
                    error.help("run it again once nothing writes to the file"),
                ])
            }
        }
    }
}
