//! `peftc init DATA MODEL`: a recipe that runs, written from what the data are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::check::needed;
use super::data::{Column, Survey};
use super::exit;
use super::options::{Common, Intent, error, print};
use super::world::RealWorld;
use crate::base::Sources;
use crate::base::units::{Bytes, Count};
use crate::driver::compile_with;
use crate::editor::{Overlay, is_name};
use crate::files::durable::write_over;
use crate::library::data::split::{SplitSource, find_split};
use crate::plan::Stage;
use crate::syntax::quote;

/// Arguments of `init`.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// A file of data, or a directory with files such as train.tsv and dev.tsv
    data: PathBuf,
    /// The model: a directory, a GGUF file, or a repository of the hub such as FacebookAI/roberta-base
    model: String,
    /// What is to be learned, if the columns do not tell
    #[arg(long, value_enum)]
    task: Option<Task>,
    /// The recipe to write
    #[arg(long, short, value_name = "FILE", default_value = "recipe.peft")]
    output: PathBuf,
    /// Write over a recipe that is there
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: Common,
}

/// What is learned of the data.
#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
#[value(rename_all = "snake_case")]
enum Task {
    /// One class a text.
    Classify,
    /// A number a text.
    Regress,
    /// The next token: texts, prompts with completions, conversations.
    CausalLm,
    /// The preferred one of two answers.
    Dpo,
}

/// What was decided of the data, and why.
struct Choice {
    task: Task,
    /// The keys of the data set.
    keys: String,
    why: String,
}

/// Names under which texts are found, and labels.
const TEXTS: &[&str] = &[
    "text", "sentence", "content", "review", "body", "message", "title",
];
const PAIRS: &[(&str, &str)] = &[
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "passage"),
    ("question", "sentence"),
    ("text_a", "text_b"),
];
const LABELS: &[&str] = &[
    "label",
    "labels",
    "class",
    "category",
    "target",
    "sentiment",
    "intent",
    "score",
    "rating",
    "stars",
    "y",
];
const PROMPTS: &[&str] = &["prompt", "instruction", "input", "question"];
const COMPLETIONS: &[&str] = &["completion", "response", "output", "answer"];
const CONVERSATIONS: &[&str] = &["messages", "conversations", "conversation"];

impl Init {
    pub(super) fn run(&self) -> i32 {
        match self.written() {
            Ok(said) => {
                print(&said);
                exit::DONE
            }
            Err((code, why)) => {
                if !why.is_empty() {
                    error(&why);
                }
                code
            }
        }
    }

    fn written(&self) -> Result<String, (i32, String)> {
        if self.output.exists() && !self.force {
            let why = format!(
                "{} is there already; name another with `--output FILE`, or write over it with `--force`",
                self.output.display()
            );
            return Err((exit::WRONG, why));
        }
        let Some(asked) = self.common.prepare(None, Intent::Tell) else {
            return Err((exit::WRONG, String::new()));
        };
        let world = self.common.world();
        let (file, dev, test) = self.files(&world)?;
        let survey = Survey::of(&file, None, &world).map_err(|why| {
            let help = why.help.as_ref().map(|h| format!("; {h}"));
            (exit::FAILED, format!("{why}{}", help.unwrap_or_default()))
        })?;
        let choice = self.choice(&survey)?;
        let text = self.recipe(&survey, &choice, (dev, test));
        let mut sources = Sources::default();
        let id = sources.add(self.output.display().to_string(), text.clone());
        // What does not parse is said below.
        let text = crate::syntax::format(&text, id).unwrap_or(text);
        let texts = BTreeMap::from([(self.output.clone(), Arc::from(text.as_str()))]);
        let overlay = Overlay::new(&world, Arc::new(texts), Arc::default());
        let compiled = self.common.in_pool(|| {
            let survey = !self.common.no_data_report;
            compile_with(&self.output, &asked.sets, &overlay, &asked.machine, survey)
        });
        super::render::report(&compiled.diags, &compiled.sources, &self.common);
        let Some(plan) = compiled.plan else {
            return Err((
                exit::WRONG,
                format!(
                    "{} would be rejected, and was not written",
                    self.output.display()
                ),
            ));
        };
        write_over(&self.output, text.as_bytes())
            .map_err(|why| (why.exit_code(), why.to_string()))?;
        let stages: Vec<&Stage> = plan.stages.iter().collect();
        let name = self.output.display();
        Ok(format!(
            "{name} is written: it needs {} of memory\n\n  peftc check {name}\n  peftc run {name}\n",
            Bytes(needed(&stages))
        ))
    }

    /// The file that is looked at, and whether there are splits `dev` and `test` beside it.
    fn files(&self, world: &RealWorld) -> Result<(PathBuf, bool, bool), (i32, String)> {
        if !self.data.is_dir() {
            return Ok((self.data.clone(), false, false));
        }
        let source = SplitSource::Local {
            base: PathBuf::new(),
            named: vec![self.data.display().to_string()],
        };
        let split = |name: &str| find_split(&source, name, world);
        let train = split("train").map_err(|why| (exit::FAILED, why.to_string()))?;
        let first = train.into_iter().next();
        let file = first.ok_or_else(|| {
            (
                exit::FAILED,
                format!("{} holds no split `train`", self.data.display()),
            )
        })?;
        Ok((file, split("dev").is_ok(), split("test").is_ok()))
    }

    /// What the columns are taken as.
    fn choice(&self, survey: &Survey) -> Result<Choice, (i32, String)> {
        let asked = |task| self.task.is_none_or(|own| own == task);
        let named = |names: &[&str]| {
            let is = |c: &&Column, name: &str| c.name.eq_ignore_ascii_case(name);
            names
                .iter()
                .find_map(|name| survey.columns.iter().find(|c| is(c, name)))
        };
        if let (true, Some(chosen), Some(rejected)) =
            (asked(Task::Dpo), named(&["chosen"]), named(&["rejected"]))
        {
            let prompt = named(PROMPTS).map(|c| format!("prompt = {}, ", column(&c.name)));
            return Ok(Choice {
                task: Task::Dpo,
                keys: format!(
                    "{}chosen = {}, rejected = {}",
                    prompt.unwrap_or_default(),
                    column(&chosen.name),
                    column(&rejected.name)
                ),
                why: format!("`{}` holds the preferred answers", chosen.name),
            });
        }
        if asked(Task::CausalLm) {
            let spoken = named(CONVERSATIONS).filter(|c| c.nested);
            if let Some(found) = spoken {
                return Ok(Choice {
                    task: Task::CausalLm,
                    keys: format!("messages = {}", column(&found.name)),
                    why: format!("`{}` holds conversations", found.name),
                });
            }
            if let (Some(prompt), Some(completion)) = (named(PROMPTS), named(COMPLETIONS)) {
                return Ok(Choice {
                    task: Task::CausalLm,
                    keys: format!(
                        "prompt = {}, completion = {}",
                        column(&prompt.name),
                        column(&completion.name)
                    ),
                    why: format!(
                        "`{}` is to be answered by `{}`",
                        prompt.name, completion.name
                    ),
                });
            }
        }
        self.texts(survey, &named)
    }

    /// Texts, with labels or without.
    fn texts<'a>(
        &self,
        survey: &'a Survey,
        named: &dyn Fn(&[&str]) -> Option<&'a Column>,
    ) -> Result<Choice, (i32, String)> {
        let wrong = |why: String| Err((exit::WRONG, why));
        let median = |c: &&Column| c.lengths().map_or(0, |[median, ..]| median);
        let longest = || {
            let texts = survey.columns.iter().filter(|c| c.kind() == "texts");
            texts.max_by_key(median)
        };
        let pair = PAIRS
            .iter()
            .find_map(|(a, b)| Some((named(&[*a])?, named(&[*b])?)));
        let texts: Vec<&Column> = match pair {
            Some((a, b)) => vec![a, b],
            None => named(TEXTS)
                .filter(|c| c.kind() == "texts")
                .or_else(longest)
                .into_iter()
                .collect(),
        };
        let Some(first) = texts.first() else {
            return wrong(format!(
                "no column of {} holds texts; `peftc data` shows what they hold",
                self.data.display()
            ));
        };
        let names: Vec<String> = texts.iter().map(|c| column(&c.name)).collect();
        let text = match names.as_slice() {
            [one] => format!("text = {one}"),
            several => format!("text = [{}]", several.join(", ")),
        };
        let about = first
            .lengths()
            .map_or_else(String::new, |[median, p99, _]| {
                format!(" (middle length {median} characters, 99 % have at most {p99})")
            });
        let about = format!("`{}` holds the texts{about}", first.name);
        let other = |c: &&Column| !texts.iter().any(|t| t.name == c.name);
        let fewest = || {
            let classes = survey
                .columns
                .iter()
                .filter(|c| c.is_classes())
                .filter(other);
            classes.min_by_key(|c| c.values.as_ref().map_or(0, |v| v.len()))
        };
        let label = named(LABELS).filter(other).or_else(fewest);
        let task = match (self.task, label) {
            (Some(task), _) => task,
            // Few different numbers are classes only where they are whole.
            (None, Some(label)) if label.kind() == "numbers" => Task::Regress,
            (None, Some(label)) if label.is_classes() => Task::Classify,
            (None, Some(label)) if label.is_numbers() => Task::Regress,
            (None, _) => Task::CausalLm,
        };
        if task == Task::CausalLm {
            return match names.as_slice() {
                [one] => Ok(Choice {
                    task,
                    keys: format!("text = {one}"),
                    why: format!("{about}; no column holds classes"),
                }),
                _ => wrong("a language model reads one column of texts, not a pair".to_owned()),
            };
        }
        let Some(label) = label.filter(|_| task != Task::Dpo) else {
            return wrong(format!(
                "no column of {} holds what is to be learned; `peftc data` shows what they hold",
                self.data.display()
            ));
        };
        let why = match (task, &label.values) {
            (Task::Classify, Some(values)) => {
                format!("{about};\n# `{}` has {} classes", label.name, values.len())
            }
            _ => format!("{about};\n# `{}` holds what is learned", label.name),
        };
        Ok(Choice {
            task,
            keys: format!("{text}, label = {}", column(&label.name)),
            why,
        })
    }

    /// A path as the recipe has it: relative to the recipe where that lies in the working directory.
    fn path(&self, path: &Path) -> String {
        let beside = self
            .output
            .parent()
            .is_none_or(|p| p.as_os_str().is_empty());
        let whole = || std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let path = if beside { path.to_path_buf() } else { whole() };
        quote(&path.to_string_lossy())
    }

    fn recipe(&self, survey: &Survey, choice: &Choice, (dev, test): (bool, bool)) -> String {
        let model = Path::new(&self.model);
        let source = if model.is_dir() {
            format!("local {}", self.path(model))
        } else if model
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
        {
            format!("gguf {}", self.path(model))
        } else {
            format!("hub {}", quote(&self.model))
        };
        // A tenth of fewer rows than five is none, to the nearest whole number.
        let share = match survey.rows {
            rows @ 1..5 => 100_u64.div_ceil(rows),
            _ => 10,
        };
        let carved = match choice.task {
            _ if dev => String::new(),
            Task::Classify => format!(", split = {{ dev = {share}%, seed = 1, stratify = true }}"),
            _ => format!(", split = {{ dev = {share}%, seed = 1 }}"),
        };
        let (objective, metrics, lr) = match choice.task {
            Task::Classify => ("classify", "accuracy, f1_macro", "2e-4"),
            Task::Regress => ("regress", "pearson, spearman", "2e-4"),
            Task::CausalLm => ("causal_lm", "perplexity", "2e-4"),
            Task::Dpo => ("dpo", "loss", "5e-6"),
        };
        let batch = if matches!(choice.task, Task::CausalLm | Task::Dpo) {
            8
        } else {
            16
        };
        let scored = if test { "test" } else { "dev" };
        let mut text = format!(
            "peftc 1\n\n# Written by `peftc init`: {} rows of {}.\n\nmodel base = {source}\n\n# {}.\n",
            Count(survey.rows),
            self.data
                .file_name()
                .map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
            choice.why
        );
        if !dev {
            let part = if share == 10 {
                "A tenth of the rows"
            } else {
                "One row"
            };
            let _ = writeln!(text, "# {part} is kept back to score with.");
        }
        let _ = write!(
            text,
            "data rows = local {} {{ {}{carved} }}\n\n\
             # LoRA trains a small update of each attention and leaves the model as it is. A larger rank learns more and\n\
             # takes more memory; `peftc list methods` names other methods, `peftc explain lora` all keys.\n\
             stage tune = train {{\n  model = base\n  data = rows.train\n  dev = rows.dev\n  objective = {objective}\n  \
             adapter = lora {{ rank = 8, alpha = 16 }}\n  \
             schedule = linear {{ peak = {lr}, warmup = 6% }}  # rises, then falls to 0\n  epochs = 3\n  \
             batch = {batch}  # examples an update; `micro_batch` divides it where memory is short\n}}\n\n\
             stage score = eval {{ from = tune, data = rows.{scored}, metrics = [{metrics}] }}\n",
            self.path(&self.data),
            choice.keys
        );
        text
    }
}

/// A column as a recipe has it.
fn column(name: &str) -> String {
    if is_name(name) {
        name.to_owned()
    } else {
        quote(name)
    }
}
