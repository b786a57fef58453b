//! The models that answer: their names, and where they are in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Value as Json, json};

use super::Limits;
use super::numbers::{Counts, Numbers};
use crate::cli::predict::Refusal;
use crate::exec::backend::Open;
use crate::exec::predict::{
    Backbone, Footing, Place, Predictor, Session, Shares, Together, Writer,
};
use crate::library::generate::Settings;
use crate::library::task::Form;
use crate::program::op::Machine;

/// A model that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) path: PathBuf,
}

/// A model with its name.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) predictor: Arc<Predictor>,
}

/// What requests learn of a model.
#[derive(Clone, Debug)]
pub(super) struct About {
    /// Its number, which no other model has had.
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) task: String,
    /// Whether it goes on with texts; else it labels them.
    pub(super) writes: bool,
    /// Whether it makes a vector of a text.
    pub(super) embeds: bool,
    /// Whether it has a chat template.
    pub(super) converses: bool,
    /// Columns that it reads of a row.
    pub(super) columns: Vec<String>,
    /// Whether such a column holds words.
    pub(super) words: bool,
    pub(super) classes: Vec<String>,
    /// The number of the weights it stands on.
    pub(super) backbone: usize,
    /// What of its work is done together with that of other models on these weights.
    pub(super) shares: Shares,
    pub(super) counts: Arc<Counts>,
}

/// The models that requests may name now.
#[derive(Debug, Default)]
pub(super) struct Directory(RwLock<Vec<About>>);

/// A model in memory.
pub(super) struct Served {
    pub(super) kind: Kind,
    pub(super) about: About,
}

/// What a model does.
pub(super) enum Kind {
    Labels(Box<Session>),
    Writes(Box<Writer>),
}

/// Weights in memory, with what their models have in common.
struct Weights {
    footing: Footing,
    backbone: Backbone,
    together: Together,
}

/// All models in memory.
pub(super) struct Models {
    limits: Limits,
    on: (Machine, Arc<dyn Open>),
    served: BTreeMap<u64, Served>,
    weights: BTreeMap<usize, Weights>,
    /// Models, and weights, that there have been.
    count: (u64, usize),
    directory: Arc<Directory>,
    numbers: Arc<Numbers>,
}

/// The names and places in `MODEL` and `NAME=MODEL`.
///
/// # Errors
/// Two have one name.
pub(super) fn wanted(list: &[String]) -> Result<Vec<Wanted>, String> {
    let mut all: Vec<Wanted> = Vec::with_capacity(list.len());
    for text in list {
        let pair = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty() && !name.contains(['/', '\\', '@']));
        let one = match pair {
            Some((name, path)) if !Path::new(text).exists() => {
                wanted_as(Some(name.to_owned()), path.into())
            }
            _ => wanted_as(None, text.into()),
        }?;
        if all.iter().any(|known| known.name == one.name) {
            return Err(format!(
                "two models are called `{}`; write `NAME=MODEL` for one of them",
                one.name
            ));
        }
        all.push(one);
    }
    Ok(all)
}

/// A model by the name that it is given, or by that of its folder or recipe.
///
/// # Errors
/// It has no name.
pub(super) fn wanted_as(name: Option<String>, path: PathBuf) -> Result<Wanted, String> {
    let own = || {
        let full = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let name = match path.is_file() {
            true => full.file_stem(),
            false => full.file_name(),
        };
        name.unwrap_or_default().to_string_lossy().into_owned()
    };
    let name = name.unwrap_or_else(own);
    if name.is_empty() || name.contains('/') || name.chars().any(char::is_control) {
        let path = path.display();
        return Err(format!(
            "`{path}` gives no name; give it one, as `NAME={path}`"
        ));
    }
    Ok(Wanted { name, path })
}

/// The columns that a model which labels rows reads of them.
pub(super) fn columns(predictor: &Predictor) -> Vec<String> {
    let own = &predictor.description.text;
    match own.is_empty() {
        false => own.clone(),
        true if predictor.task.words().is_some() => vec!["tokens".to_owned()],
        true => vec!["text".to_owned()],
    }
}

impl Directory {
    /// All of them, in the order in which they came.
    pub(super) fn list(&self) -> Vec<About> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn change(&self, change: impl FnOnce(&mut Vec<About>)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Models {
    pub(super) fn new(
        limits: Limits,
        on: (Machine, Arc<dyn Open>),
        directory: Arc<Directory>,
        numbers: Arc<Numbers>,
    ) -> Self {
        Self {
            limits,
            on,
            served: BTreeMap::new(),
            weights: BTreeMap::new(),
            count: (0, 0),
            directory,
            numbers,
        }
    }

    /// Brings a model into memory. What it has in common with those that are there is there once.
    ///
    /// # Errors
    /// One of its name is there, or what weights, device or kernels say.
    pub(super) fn add(&mut self, Named { name, predictor }: Named) -> Result<About, Refusal> {
        if self.served.values().any(|own| own.about.name == name) {
            return Err(Refusal::Wrong(format!(
                "there is a model `{name}` already; remove it first, or give another name"
            )));
        }
        let footing = predictor.footing()?;
        let mut there = self.weights.iter_mut();
        let found = there.find_map(|(number, own)| own.footing.join(&footing).then_some(*number));
        let number = found.unwrap_or(self.count.1);
        if found.is_none() {
            let (machine, device) = &self.on;
            let new = Weights {
                footing,
                backbone: Backbone::on((*machine, device))?,
                together: Together::default(),
            };
            self.count.1 += 1;
            self.weights.insert(number, new);
        }
        let made = self.load(&name, &predictor, number);
        let Ok(served) = made else {
            // What was loaded of it goes.
            self.clear(number);
            return made.map(|served| served.about);
        };
        let about = served.about.clone();
        self.served.insert(about.id, served);
        self.directory.change(|list| list.push(about.clone()));
        Ok(about)
    }

    fn load(
        &mut self,
        name: &str,
        predictor: &Arc<Predictor>,
        number: usize,
    ) -> Result<Served, Refusal> {
        let bug = || Refusal::Wrong("the weights are gone".to_owned());
        let weights = self.weights.get(&number).ok_or_else(bug)?;
        let place = Place {
            backbone: weights.backbone.clone(),
            name: Some(name.to_owned()),
        };
        let batch = self.limits.batch as u64;
        let kind = if predictor.task.generates() {
            Kind::Writes(Box::new(predictor.writer_at(
                &place,
                Settings::default(),
                batch,
            )?))
        } else {
            let nested = Form {
                all: false,
                nested: true,
            };
            let answers = predictor
                .task
                .answers(&predictor.description.classes, nested);
            answers.map_err(Refusal::Wrong)?;
            Kind::Labels(Box::new(predictor.session_at(&place, (batch, 1))?))
        };
        self.count.0 += 1;
        let writes = matches!(kind, Kind::Writes(_));
        let about = About {
            id: self.count.0,
            name: name.to_owned(),
            task: predictor.task.name().to_owned(),
            writes,
            embeds: predictor.task.texts_apart() && !writes,
            converses: matches!(&kind, Kind::Writes(writer) if writer.converses()),
            columns: if writes {
                Vec::new()
            } else {
                columns(predictor)
            },
            words: predictor.task.words().is_some(),
            classes: predictor.description.classes.clone(),
            backbone: number,
            shares: match &kind {
                Kind::Labels(session) => session.shares(),
                Kind::Writes(_) => Shares::Nothing,
            },
            counts: self.numbers.of(name),
        };
        Ok(Served { kind, about })
    }

    /// Gives a model up, with what of its weights nobody else reads.
    ///
    /// # Errors
    /// There is none of this name.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), String> {
        let found = self.served.values().find(|own| own.about.name == name);
        let Some(id) = found.map(|own| own.about.id) else {
            return Err(format!("there is no model `{name}`"));
        };
        self.directory
            .change(|list| list.retain(|own| own.id != id));
        if let Some(gone) = self.served.remove(&id) {
            self.clear(gone.about.backbone);
        }
        Ok(())
    }

    /// Gives up the tensors of some weights that no model reads.
    fn clear(&mut self, number: usize) {
        let all = || self.served.values();
        let on_it = || all().filter(|own| own.about.backbone == number);
        if on_it().next().is_none() {
            self.weights.remove(&number);
            return;
        }
        let read: BTreeSet<String> = on_it()
            .flat_map(|own| -> Box<dyn Iterator<Item = &str>> {
                match &own.kind {
                    Kind::Labels(session) => Box::new(session.tensors()),
                    Kind::Writes(writer) => Box::new(writer.tensors()),
                }
            })
            .map(str::to_owned)
            .collect();
        if let Some(weights) = self.weights.get(&number) {
            weights.backbone.keep(&read);
        }
    }

    pub(super) fn get(&self, id: u64) -> Option<&Served> {
        self.served.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Served> {
        self.served.get_mut(&id)
    }

    /// A model that labels rows.
    pub(super) fn session(&self, id: u64) -> Option<&Session> {
        self.get(id)?.labels()
    }

    /// What the models on the weights of one have in common, and all models.
    pub(super) fn together(&mut self, id: u64) -> Option<(&mut Together, &BTreeMap<u64, Served>)> {
        let weights = self.served.get(&id)?.about.backbone;
        let together = &mut self.weights.get_mut(&weights)?.together;
        Some((together, &self.served))
    }

    /// Most tensor bytes so far on the weights of a model.
    pub(super) fn peak(&self, id: u64) -> u64 {
        let weights = self
            .get(id)
            .and_then(|own| self.weights.get(&own.about.backbone));
        weights.map_or(0, |weights| weights.backbone.peak())
    }
}

impl Served {
    /// The same as a model that labels rows.
    pub(super) fn labels(&self) -> Option<&Session> {
        match &self.kind {
            Kind::Labels(session) => Some(session),
            Kind::Writes(_) => None,
        }
    }
}

impl About {
    /// As `/v1/models` says it.
    pub(super) fn json(&self) -> Json {
        json!({
            "id": self.name, "object": "model", "created": 0, "owned_by": "peftc",
            "peftc": {
                "task": self.task, "writes": self.writes, "embeds": self.embeds, "converses": self.converses, "columns": self.columns,
                "words": self.words, "classes": self.classes, "backbone": self.backbone,
                "shares_passes": self.shares.is_some(), "shared": self.shares.name(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_given_or_those_of_the_folders() {
        let names = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(|&text| text.to_owned()).collect();
            wanted(&list).map(|all| all.into_iter().map(|w| w.name).collect::<Vec<_>>())
        };
        assert_eq!(
            names(&["a=runs/x", "runs/y/", "z/learn@seed=1"]),
            Ok(["a", "y", "learn@seed=1"].map(str::to_owned).to_vec())
        );
        assert!(names(&["x", "runs/x"]).is_err());
    }
}
