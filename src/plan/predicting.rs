//! The program that predicts with what a finished stage left. There is no recipe then: an artifact describes itself.

use std::sync::Arc;

use super::methods::check_methods;
use super::{Plan, chat};
use crate::base::{Diags, Sound, Span};
use crate::library::chat::{ChatTemplate, TemplateError};
use crate::library::method::Tuning;
use crate::library::model::Model;
use crate::library::net::CacheCapacity;
use crate::library::schema::Values;
use crate::library::stage::network::{Built, Generators};
use crate::library::stage::{StageCx, network};
use crate::library::task::Task;
use crate::library::tokenizer::Tokenizer;
use crate::program::format::Storing;
use crate::program::{Numbers, Verified};

/// A model as its artifact describes it.
#[derive(Clone, Debug)]
pub struct Served {
    /// The architecture with its config.
    pub model: Arc<dyn Model>,
    /// What it predicts.
    pub task: Arc<dyn Task>,
    /// The methods on it.
    pub tuning: Tuning,
    /// How frozen matrices are stored.
    pub storage: Storing,
    /// Class names.
    pub classes: Vec<String>,
    /// Token ids of the label words.
    pub words: Vec<u32>,
}

impl Plan {
    /// The chat template that lies in a folder of files, with the variables of its tokenizer.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn chat_template(
        get: &dyn Fn(&str) -> Option<Vec<u8>>,
        tokenizer: &Tokenizer,
    ) -> Result<Option<ChatTemplate>, TemplateError> {
        chat::in_folder(get, tokenizer)
    }

    /// The program that scores texts, and the parameters that it reads.
    ///
    /// # Errors
    /// Why the methods do not fit the model.
    pub fn predicting(served: Served) -> Result<(Verified, Built), String> {
        let (program, built) = sound(served, |cx, tuning| {
            Ok(network::evaluation(cx, tuning, false))
        })?;
        Ok((network::verified(program), built))
    }

    /// The programs that generate with caches of this room, and the parameters that they read.
    ///
    /// # Errors
    /// Why the methods do not fit the model, or text cannot be generated with them.
    pub fn generating(
        served: Served,
        capacity: CacheCapacity,
    ) -> Result<(Generators, Built), String> {
        sound(served, |cx, tuning| {
            network::generation(cx, tuning, capacity)
        })
    }
}

/// What `build` makes of a served model whose methods fit it.
fn sound<R>(
    served: Served,
    build: impl FnOnce(&Sound<StageCx<'_>>, &Tuning) -> Result<R, String>,
) -> Result<R, String> {
    let values = Values::default();
    let tuning = Tuning {
        n_layers: served.model.facts().blocks,
        ..served.tuning
    }
    .frozen();
    let mut diags = Diags::default();
    check_methods(&served.model, &served.task, &tuning, &values, &mut diags);
    let why = diags.iter().map(|d| d.message.clone()).next();
    let cx = diags.sound(StageCx {
        values: &values,
        span: Span::default(),
        model: served.model,
        storage: served.storage,
        numbers: Numbers::default(),
        tuning: tuning.clone(),
        task: served.task,
        classes: served.classes,
        words: Some(served.words),
        splits: Vec::new(),
        tuned: false,
        ranks: 1,
    });
    let cx = cx.ok_or_else(|| why.unwrap_or_default())?;
    build(&cx, &tuning)
}
