//! Going on with texts by what a stage left.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value as Json;

use super::{Place, Predictor, json_of};
use crate::exec::backend::Open;
use crate::exec::export::description::DESCRIPTION;
use crate::exec::generate::{self, Cached, Ears, Generated, Generation, Pace, Pairing, Prompt};
use crate::files::RunError;
use crate::library::chat::{ChatTemplate, Rendering};
use crate::library::data::tokens::Marking;
use crate::library::generate::{FILE, Rules, Settings, end_tokens, with_stops};
use crate::library::model::Model;
use crate::library::net::CacheCapacity;
use crate::library::stage::network::{Built, Generators};
use crate::plan::Plan;
use crate::program::Verified;
use crate::program::op::Machine;

/// Why a text cannot be gone on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// A sentence, with what to do.
    pub message: String,
    /// Whether it is too long.
    pub is_length: bool,
}

impl Unfit {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            is_length: false,
        }
    }
}

impl From<String> for Unfit {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// A model in memory, that goes on with texts.
#[derive(Debug)]
pub struct Writer {
    predictor: Arc<Predictor>,
    model: Arc<dyn Model>,
    settings: Settings,
    /// Most texts at once.
    batch: u64,
    /// Tokens that end texts, and those that end texts of the model whatever the settings.
    ends: Vec<u32>,
    plain_ends: Vec<u32>,
    /// What is said of the tokens that are made, where targets are made of sources.
    rules: Option<Rules>,
    programs: Generators,
    place: Place,
    /// Names of its own tensors among those at the place.
    own: BTreeSet<String>,
    /// The model's chat template, if it has one.
    template: Option<ChatTemplate>,
    /// What the caches have room for.
    capacity: Capacity,
    cached: Cached,
}

/// What caches have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    /// Texts at once.
    pub(super) places: u64,
    /// Tokens of each.
    pub(super) tokens: u64,
    /// Tokens of each source, where texts are made of such.
    pub(super) source: u64,
}

impl Predictor {
    /// Brings the model into memory, to go on with so many texts at once.
    ///
    /// # Errors
    /// It labels texts, or what weights, device or kernels say.
    pub fn writer(
        self: &Arc<Self>,
        settings: Settings,
        batch: u64,
        on: (Machine, Arc<dyn Open>),
    ) -> Result<Writer, RunError> {
        self.writer_at(&Place::alone(on)?, settings, batch)
    }

    /// The same at a place that others may share.
    ///
    /// # Errors
    /// As of [`Self::writer`].
    pub fn writer_at(
        self: &Arc<Self>,
        place: &Place,
        settings: Settings,
        batch: u64,
    ) -> Result<Writer, RunError> {
        let folder = |why: String| RunError::file(&self.folder, why);
        if !self.task.generates() {
            return Err(folder(format!(
                "it was trained for `{}` and does not go on with texts",
                self.task.name()
            )));
        }
        if self.description.template.is_some() {
            return Err(folder(
                "it was trained with a prompt's template, in which text cannot be generated; train it without `prompt`".to_owned(),
            ));
        }
        let damaged = |why: String| RunError::file(self.folder.join("config.json"), why);
        let model = self.architecture().map_err(damaged)?;
        if settings.beams.searches() && model.facts().long.rereads {
            let what =
                "`--num-beams` is not built for models that read a text again once it is long";
            return Err(folder(what.to_owned()));
        }
        let capacity = Capacity {
            places: 1,
            tokens: settings.max_new_tokens + 1,
            source: 1,
        };
        let beams = settings.beams.count;
        let (programs, built) = self.generating(&model, capacity, beams)?;
        let all: Vec<&Verified> = programs.all().collect();
        let own = self.loaded((&all, &built), model.as_ref(), place)?;
        let programs = place.renamed_all(programs, &own)?;
        generate::begin(&mut place.backbone.lock(), &programs);
        let plain_ends = self.ends()?;
        Ok(Writer {
            predictor: self.clone(),
            ends: with_stops(&plain_ends, &settings.stop, &self.tokenizer),
            rules: self.rules(model.as_ref(), &plain_ends)?,
            plain_ends,
            settings,
            batch,
            template: self.template()?,
            model,
            programs,
            place: place.clone(),
            own,
            capacity,
            cached: Cached::default(),
        })
    }

    /// The chat template beside the tokenizer.
    fn template(&self) -> Result<Option<ChatTemplate>, RunError> {
        let get = |name: &str| std::fs::read(self.folder.join(name)).ok();
        Plan::chat_template(&get, &self.tokenizer).map_err(|why| {
            RunError::file(
                &self.folder,
                format!("its chat template cannot be read: {why}"),
            )
        })
    }

    pub(super) fn generating(
        &self,
        model: &Arc<dyn Model>,
        capacity: Capacity,
        beams: u64,
    ) -> Result<(Generators, Built), RunError> {
        let places = capacity.places.saturating_mul(beams);
        let caches = CacheCapacity {
            tokens: places.saturating_mul(capacity.tokens),
            longest: capacity.tokens,
            sources: match model.seq2seq() {
                Some(_) => capacity.places.saturating_mul(capacity.source),
                None => 0,
            },
        };
        if u32::try_from(caches.tokens.max(caches.sources)).is_err() {
            let what = format!(
                "{places} texts of {} tokens are more than a cache can hold; use a smaller `--batch`",
                capacity.tokens.max(capacity.source)
            );
            return Err(RunError::file(&self.folder, what));
        }
        Plan::generating(self.served(model.clone())?, caches)
            .map_err(|why| RunError::file(self.folder.join(DESCRIPTION), why))
    }

    /// The tokens that end a text.
    fn ends(&self) -> Result<Vec<u32>, RunError> {
        if !self.description.ends.is_empty() {
            return Ok(self.description.ends.clone());
        }
        let generation = self.generation_config()?;
        end_tokens(generation.as_ref(), &self.config, Some(&self.tokenizer))
            .map_err(|why| RunError::file(&self.folder, why))
    }

    /// What is said of the tokens that are made, where targets are made of sources.
    fn rules(&self, model: &dyn Model, ends: &[u32]) -> Result<Option<Rules>, RunError> {
        let (None, Some(pair)) = (&self.description.rules, model.seq2seq()) else {
            return Ok(self.description.rules.clone());
        };
        let generation = self.generation_config()?;
        let own = (pair.rules(), ends, pair.sides().rows[1]);
        let rules = Rules::of(generation.as_ref(), &self.config, own);
        rules
            .map(Some)
            .map_err(|why| RunError::file(&self.folder, why))
    }

    /// The file that says how the model's authors generate, beside the model or the one that it stands on.
    fn generation_config(&self) -> Result<Option<Json>, RunError> {
        let mut places = vec![
            self.folder.clone(),
            self.folder.join(&self.description.weights),
        ];
        places.extend(self.description.weights_at.clone());
        let file = places
            .iter()
            .map(|place| place.join(FILE))
            .find(|file| file.exists());
        file.map(|file| json_of(&file, "")).transpose()
    }
}

impl Writer {
    /// The tokens of a prompt.
    ///
    /// # Errors
    /// What the tokenizer complains about; a prompt that, with what is to be made behind it, is longer than the model can
    /// read.
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>, Unfit> {
        let encoded = self
            .predictor
            .tokenizer
            .encode(&[text.to_owned()], self.longest())
            .map_err(Unfit::new)?;
        self.checked(encoded.ids)
    }

    /// Tokens after which a prompt is cut: a source as in training.
    fn longest(&self) -> usize {
        match self.model.seq2seq() {
            Some(_) => self.predictor.description.max_length as usize,
            None => usize::MAX,
        }
    }

    /// Whether it has a template that conversations are rendered with.
    #[must_use]
    pub const fn converses(&self) -> bool {
        self.template.is_some()
    }

    /// Whether its template speaks of a variable.
    #[must_use]
    pub fn reads(&self, variable: &str) -> bool {
        self.template.as_ref().is_some_and(|t| t.reads(variable))
    }

    /// The tokens of a conversation, up to where an answer begins. `rendering` has what its template is given beside the messages.
    ///
    /// # Errors
    /// There is no template, it refuses the conversation, nothing is to be answered, or it is too long.
    pub fn conversation(
        &self,
        messages: &[Json],
        rendering: Rendering<'_>,
    ) -> Result<Vec<u32>, Unfit> {
        let Some(template) = &self.template else {
            return Err(Unfit::new(
                "it is a conversation, and the model has no chat template; give it a text",
            ));
        };
        let role = messages.last().and_then(|last| last.get("role")?.as_str());
        if role == Some("assistant") {
            return Err(Unfit::new(
                "its last message is the assistant's, so that there is nothing to answer; remove that message",
            ));
        }
        let rendering = Rendering {
            generation_prompt: true,
            ..rendering
        };
        let text = template.render(messages, &rendering);
        let text =
            text.map_err(|why| Unfit::new(format!("the chat template refuses it: {why}")))?;
        let ids = self.predictor.tokenizer.encode_written(&text);
        self.checked(ids.map_err(Unfit::new)?)
    }

    /// The same tokens, if there are some and there is room behind them.
    fn checked(&self, ids: Vec<u32>) -> Result<Vec<u32>, Unfit> {
        let (most, more) = (self.context(), self.settings.max_new_tokens);
        if ids.is_empty() {
            return Err(Unfit::new(
                "there is no token to go on from; write a prompt",
            ));
        }
        let before = match self.model.seq2seq() {
            // A target has one token before it.
            Some(_) => 1,
            None => ids.len() as u64,
        };
        if before + more > most {
            let message = format!(
                "the prompt has {before} tokens, and with {more} new ones it would be longer than the {most} that the model can read; \
                 shorten it, or make fewer new tokens"
            );
            return Err(Unfit {
                message,
                is_length: true,
            });
        }
        Ok(ids)
    }

    /// Most tokens that the model can read.
    #[must_use]
    pub fn context(&self) -> u64 {
        self.model.facts().max_length
    }

    /// How text is generated.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The model.
    #[must_use]
    pub fn predictor(&self) -> &Predictor {
        &self.predictor
    }

    /// Names of the tensors that it reads.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        let residents = self.programs.all().flat_map(|own| &own.program().residents);
        residents.map(|resident| resident.name.as_str())
    }

    /// Most tensor bytes at once so far, of all models at its place.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.place.backbone.peak()
    }

    /// Generates otherwise from now on.
    pub fn set(&mut self, settings: Settings) {
        self.ends = with_stops(&self.plain_ends, &settings.stop, &self.predictor.tokenizer);
        self.settings = settings;
    }

    /// Goes on with prompts, in groups of as many as there are places for. The caches grow where a prompt needs it.
    ///
    /// # Errors
    /// What device or kernels say, or an interruption.
    pub fn write(
        &mut self,
        prompts: &[Prompt],
        ears: &mut Ears<'_>,
    ) -> Result<Vec<Generated>, RunError> {
        let longest = prompts.iter().map(|p| p.ids.len()).max().unwrap_or(0);
        let places = self.batch.min(prompts.len() as u64).max(1);
        self.grow_caches(places, longest as u64)?;
        let mut all = Vec::with_capacity(prompts.len());
        for group in prompts.chunks(places as usize) {
            // Nothing of an earlier group is gone on from, so that it does not matter how prompts are grouped.
            self.cached = Cached::default();
            all.extend(self.group(group, ears)?.0);
        }
        Ok(all)
    }

    /// Goes on with one text, of which what the last ones have in common with it is not read again.
    ///
    /// # Errors
    /// What device or kernels say, or an interruption.
    pub fn go_on(
        &mut self,
        prompt: Prompt,
        ears: &mut Ears<'_>,
    ) -> Result<(Generated, Pace), RunError> {
        self.grow_caches(1, prompt.ids.len() as u64)?;
        let (made, pace) = self.group(&[prompt], ears)?;
        let made = made.into_iter().next();
        let made = made.ok_or_else(|| RunError::bug("nothing was made of a prompt"))?;
        Ok((made, pace))
    }

    /// What is put into prompts, or marked in them.
    fn marking(&self) -> Marking {
        self.predictor.tuning.prompt_marking()
    }

    /// Tokens of a text in the caches beside its prompt's own.
    fn more(&self) -> u64 {
        self.settings.max_new_tokens + u64::from(self.marking().virtual_tokens)
    }

    fn group(
        &mut self,
        prompts: &[Prompt],
        ears: &mut Ears<'_>,
    ) -> Result<(Vec<Generated>, Pace), RunError> {
        let generation = Generation {
            programs: &self.programs,
            capacity: self.capacity.tokens,
            pairing: self.rules.as_ref().map(|rules| Pairing {
                rules,
                capacity: self.capacity.source,
            }),
            positions: self.model.facts().positions,
            long: &self.model.facts().long,
            marking: self.marking(),
            tokenizer: &self.predictor.tokenizer,
            ends: &self.ends,
            settings: &self.settings,
        };
        let mut runner = self.place.backbone.lock();
        generation.group(&mut runner, prompts, &mut self.cached, ears)
    }

    /// Larger caches, if a sequence needs them.
    fn grow_caches(&mut self, places: u64, prompt: u64) -> Result<(), RunError> {
        let (tokens, source) = match self.model.seq2seq() {
            Some(_) => (1 + self.more(), prompt),
            None => (prompt + self.more(), 0),
        };
        let larger = Capacity {
            places: self.capacity.places.max(places),
            tokens: self.capacity.tokens.max(tokens),
            source: self.capacity.source.max(source),
        };
        if larger == self.capacity {
            return Ok(());
        }
        let beams = self.settings.beams.count;
        let (programs, _) = self.predictor.generating(&self.model, larger, beams)?;
        let programs = self.place.renamed_all(programs, &self.own)?;
        let mut runner = self.place.backbone.lock();
        generate::end(&mut runner, &self.programs);
        generate::begin(&mut runner, &programs);
        drop(runner);
        self.cached = Cached::default();
        self.capacity = larger;
        self.programs = programs;
        Ok(())
    }
}
