//! Labelling new text with what a stage left: its description is read from the artifact.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::exec::export::NATIVE;
use crate::exec::export::description::{AS_STORED, DESCRIPTION, Description};
use crate::exec::load::{Origins, check_adapter};
use crate::exec::store::vouch;
use crate::files::RunError;
use crate::files::peft;
use crate::files::weights::Checkpoint;
use crate::files::weights::TensorFile;
use crate::library::demonstrations::Demonstrations;
use crate::library::method::Tuning;
use crate::library::model::{self, Model};
use crate::library::net::Param;
use crate::library::task::{self, Form, Task};
use crate::library::tokenizer::{Tokenizer, TokenizerFiles};
use crate::plan::{Plan, Served};
use crate::program::Format;
use crate::program::format::Storing;

mod backbone;
mod chooser;
mod footing;
mod foreign;
mod found;
mod needs;
mod session;
mod together;
mod writer;

pub use backbone::{Backbone, Place};
pub use chooser::{Choice, Chooser, Question};
pub use footing::Footing;
pub use needs::{Needs, shared_run};
pub use session::{Prepared, Session};
pub use together::{Part, Shares, Together};
pub use writer::{Unfit, Writer};

use found::{Found, find};

/// What to do about a damaged artifact.
const AGAIN: &str = "; run the stage again";

/// What a JSON file says; `remedy` follows on what is wrong with it.
fn json_of<T: DeserializeOwned>(path: &Path, remedy: &str) -> Result<T, RunError> {
    let bytes = std::fs::read(path).map_err(|e| RunError::file(path, e.to_string()))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| RunError::file(path, format!("damaged: {e}{remedy}")))
}

/// A finished stage's model, ready to label.
#[derive(Debug)]
pub struct Predictor {
    /// The description.
    pub description: Description,
    /// What it predicts.
    pub task: Arc<dyn Task>,
    folder: PathBuf,
    config: serde_json::Value,
    tokenizer: Tokenizer,
    tuning: Tuning,
    demonstrations: Option<Demonstrations>,
    /// Whether no stage of ours described it.
    foreign: bool,
    /// Whether it is an adapter of peft's on a base.
    applied: bool,
}

impl Predictor {
    /// Opens an artifact: a store entry, or its `model` or `adapter` folder. `methods` turns the
    /// written methods into values.
    ///
    /// # Errors
    /// Something is missing or damaged.
    pub fn open(
        artifact: &Path,
        methods: &dyn Fn(&[String]) -> Result<Tuning, String>,
    ) -> Result<Self, RunError> {
        let (folder, described) = match find(artifact)? {
            Found::Described(folder) => (folder, true),
            Found::Plain(folder) => (folder, false),
            Found::Peft(folder) => return Self::of_peft(&folder),
        };
        vouch(&folder)?;
        let config_of = |folder: &Path| json_of(&folder.join("config.json"), "");
        let foreign = !described;
        let description: Description = if foreign {
            let config = config_of(&folder)?;
            let model = model::parse(&config)
                .map_err(|why| RunError::file(folder.join("config.json"), why))?;
            foreign::describe(&folder, &config, model.as_ref())?
        } else {
            json_of(&folder.join(DESCRIPTION), AGAIN)?
        };
        let config = match &description.config {
            Some(config) => config.clone(),
            None => config_of(&folder)?,
        };
        let get = |name: &str| std::fs::read(folder.join(name)).ok();
        let tokenizer = Tokenizer::from_files(&TokenizerFiles {
            dir_name: folder.display().to_string(),
            get: &get,
        })
        .map_err(|why| RunError::file(&folder, why))?;
        let task = task::with_options(&description.objective, &description.options);
        let task = task.ok_or_else(|| {
            let what = format!("damaged: there is no objective `{}`", description.objective);
            RunError::file(folder.join(DESCRIPTION), what)
        })?;
        let plain = Form {
            all: false,
            nested: false,
        };
        if !task.generates() && !task.pairs_options() {
            task.answers(&description.classes, plain)
                .map_err(|why| RunError::file(artifact, why))?;
        }
        let demonstrations = match &description.demonstrations {
            Some(name) => {
                let own: Demonstrations = json_of(&folder.join(name), AGAIN)?;
                // The order that draws rely on.
                Some(own.sorted())
            }
            None => None,
        };
        let tuning = methods(&description.methods)
            .map_err(|why| RunError::file(folder.join(DESCRIPTION), why))?;
        if let Some((method, _)) = tuning.tasks_of_examples() {
            let what = format!(
                "`{method} {{ mixed = true }}` wants the task of each text, which `predict` does not know; write an `eval` stage, whose data name it, \
                 and read its predictions"
            );
            return Err(RunError::file(&folder, what));
        }
        Ok(Self {
            description,
            task,
            folder,
            config,
            tokenizer,
            tuning,
            demonstrations,
            foreign,
            applied: false,
        })
    }

    /// Opens an adapter of the library peft, beside the base that it names.
    fn of_peft(folder: &Path) -> Result<Self, RunError> {
        let named = peft::read(folder)?.config.base;
        let places = [folder.join(&named), PathBuf::from(&named)];
        let base = places
            .into_iter()
            .find(|dir| !named.is_empty() && dir.join("config.json").exists());
        let base = base.ok_or_else(|| {
            let what = format!(
                "its `base_model_name_or_path` is \"{named}\", and there is no such folder with a model; name both in a recipe: \
                 `merge {{ model = …, adapter = peft \"DIR\" }}`"
            );
            RunError::file(folder, what)
        })?;
        let config: serde_json::Value = json_of(&base.join("config.json"), "")?;
        let wrong = |why: String| RunError::file(base.join("config.json"), why);
        let model = model::parse(&config).map_err(wrong)?;
        let (tuning, task, own) = Plan::applied(folder, &config, model.as_ref())
            .map_err(|why| RunError::file(folder, why))?;
        let task = foreign::behind(&base, task).map_err(|why| RunError::file(&base, why))?;
        let mut description = foreign::headless(&base, model.as_ref(), task.as_ref());
        if task.answer().names_classes() && !task.generates() {
            let known = foreign::classes(&config).map_err(wrong)?;
            description.classes = match own.len() == known.len() || own.is_empty() {
                true => known,
                false => own,
            };
        }
        let has = |dir: &Path| {
            dir.join("tokenizer.json").exists() || dir.join("tokenizer_config.json").exists()
        };
        let home = if has(folder) {
            folder.to_path_buf()
        } else {
            base.clone()
        };
        let get = |name: &str| std::fs::read(home.join(name)).ok();
        let tokenizer = Tokenizer::from_files(&TokenizerFiles {
            dir_name: home.display().to_string(),
            get: &get,
        });
        Ok(Self {
            tokenizer: tokenizer.map_err(|why| RunError::file(&home, why))?,
            description: Description {
                weights: std::path::absolute(&base).unwrap_or(base),
                ..description
            },
            task,
            folder: folder.to_path_buf(),
            config,
            tuning,
            demonstrations: None,
            foreign: true,
            applied: true,
        })
    }

    /// The model's architecture, with room for what the methods put before texts.
    fn architecture(&self) -> Result<Arc<dyn Model>, String> {
        let mut model = model::parse(&self.config)?;
        model.reserve_positions(self.tuning.reserved());
        Ok(Arc::from(model))
    }

    /// The model with what its programs are built of.
    fn served(&self, model: Arc<dyn Model>) -> Result<Served, RunError> {
        Ok(Served {
            model,
            task: self.task.clone(),
            tuning: self.tuning.clone(),
            storage: self.storage()?,
            classes: self.description.classes.clone(),
            words: self.description.words.clone(),
        })
    }

    /// The base and the adapter, both looked at: nothing is missing, nothing is there that nobody reads.
    fn sources(&self, params: &[Param], model: &dyn Model) -> Result<Origins, RunError> {
        let description = &self.description;
        // Older descriptions do not name the file.
        let file = description.adapter.as_deref().unwrap_or(NATIVE);
        let mut own = Origins::default();
        if self.applied {
            own.take_peft(&self.folder, model)?;
        }
        let adapter = if description.adapter.is_some() || !description.methods.is_empty() {
            let file = TensorFile::open(&self.folder.join(file))?;
            check_adapter(&file, params, &|_| false)?;
            Some(file)
        } else {
            None
        };
        let weights = match description.random {
            Some(_) => None,
            None => {
                let mut weights = self.base()?;
                weights.check_read(model)?;
                if self.foreign {
                    let is_own = |p: &&Param| !own.given.contains_key(&p.name);
                    let params: Vec<Param> = params.iter().filter(is_own).cloned().collect();
                    foreign::has_head(&params, model, &weights)?;
                }
                Some(weights)
            }
        };
        Ok(Origins {
            weights,
            adapter,
            storage: self.storage()?,
            weights_seed: description.random.unwrap_or(0),
            ..own
        })
    }

    /// How frozen matrices are stored: in the blocks that the adapter was trained on, else in f32.
    fn storage(&self) -> Result<Storing, RunError> {
        let Some(name) = &self.description.storage else {
            return Ok(Storing::default());
        };
        if name == AS_STORED {
            return Ok(Storing::own(self.base()?.formats()));
        }
        Format::named(name).map(Storing::from).ok_or_else(|| {
            let what = format!("damaged: there is no storage format `{name}`; run the stage again");
            RunError::file(self.folder.join(DESCRIPTION), what)
        })
    }

    /// The plain weights, which are those the artifact was made with.
    fn base(&self) -> Result<Checkpoint, RunError> {
        let description = &self.description;
        let near = self.folder.join(&description.weights);
        let mut places = vec![near.clone()];
        places.extend(description.weights_at.clone());
        let Some(hash) = &description.base else {
            let first = places.iter().find(|p| p.exists());
            let first = first.ok_or_else(|| gone(&near, description))?;
            vouch(first)?;
            return Checkpoint::open(first);
        };
        // The hash tells them, wherever they are.
        places.extend(moved(&self.folder, &description.weights));
        let there = || places.iter().filter(|p| p.exists());
        let Some(first) = there().next() else {
            return Err(gone(&near, description));
        };
        for place in there() {
            let opened = vouch(place).and_then(|()| Checkpoint::open(place));
            let weights = match opened {
                Ok(weights) => weights,
                // What is damaged is named; a guess that leads nowhere is not.
                Err(why) if place == first => return Err(why),
                Err(_) => continue,
            };
            if weights.hash(&|_| None) == *hash {
                return Ok(weights);
            }
        }
        Err(RunError::file(
            first,
            "holds other weights than those the adapter was trained on; put them back, or run the stage again",
        ))
    }
}

/// Where the plain weights may be of an artifact that was moved together with its project: the way to them is that
/// from the store, and a folder of OUT is elsewhere.
fn moved(folder: &Path, weights: &Path) -> Vec<PathBuf> {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    let down = weights
        .components()
        .skip_while(|c| *c == std::path::Component::ParentDir);
    let down: PathBuf = down.collect();
    if down.as_os_str().is_empty() || down.is_absolute() {
        return Vec::new();
    }
    let above = folder.ancestors().skip(1);
    let within = ["", "store", ".peftc/store"];
    let places = above.flat_map(|dir| within.map(|sub| dir.join(sub).join(&down)));
    places.filter(|place| place.is_dir()).collect()
}

/// The error of plain weights that are nowhere.
fn gone(near: &Path, description: &Description) -> RunError {
    let was = description.weights_at.as_ref();
    let was = was.map_or_else(String::new, |at| format!(" (it was in {})", at.display()));
    RunError::file(
        near,
        format!(
            "the model that the adapter stands on is not there{was}; put it back, move the whole project with it, or run the \
             recipe again"
        ),
    )
}
