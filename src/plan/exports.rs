//! What an export writes, worked out before anything runs: names, metadata and formats in the target.
//!
//! **Invariant:** planner and executor ask the same function, so what `check` lets pass has a name for every tensor.

use serde_json::Value as Json;

use super::error::NO_NAME;
use super::{Handed, Stage};
use crate::base::{Diag, Span};
use crate::files::gguf::describe::{Described, GgufModel, describe};
use crate::files::gguf::names::Family;
use crate::files::gguf::tokens::tokens;
use crate::files::gguf::write::Planned;
use crate::library::export::{Adapted, Target, mlx};
use crate::library::model::Model;
use crate::library::net::{Param, Role};
use crate::library::stage::job::{Fold, Job, Routine};
use crate::program::DType;

/// What a stage's export as GGUF holds.
///
/// # Errors
/// What the file has no name for.
fn gguf_model(
    start: &Handed,
    model: &dyn Model,
    job: &Job,
    target: Target,
) -> Result<GgufModel, String> {
    let (family, shape) = family(start, model)?;
    let tokenizer = start.model.tokenizer.as_ref();
    let tokenizer = tokenizer.ok_or("its tokenizer is not at hand, and the file holds it")?;
    let file: Json = serde_json::from_slice(&tokenizer.save_json()?).map_err(|e| e.to_string())?;
    let mut config = tokenizer.config_json(model.facts().max_length);
    if let (Some(Ok(chat)), Some(map)) = (&start.model.chat, config.as_object_mut()) {
        map.insert(
            "chat_template".to_owned(),
            Json::String(chat.source().to_owned()),
        );
    }
    let Target::Gguf(format) = target else {
        return Err("no GGUF file is asked for".to_owned());
    };
    let Described {
        mut metadata,
        factors,
    } = describe(
        family,
        shape,
        (&start.model.config, &start.model.name),
        format,
    )?;
    metadata.extend(tokens(&file, &config, shape.vocab)?);
    let factors = factors.into_iter().map(|(name, data)| {
        let planned = Planned {
            name: name.to_owned(),
            format: crate::program::Format::default(),
            shape: vec![data.len() as u64],
        };
        (planned, data)
    });
    let tensors = job.plain_params().into_iter().map(|param| {
        let there = family.there(&param.name);
        let name = there.ok_or_else(|| format!("`{}` has no name in GGUF", param.name))?;
        let format = target.stored(&param.name, &param.shape);
        let shape = param.shape.clone();
        Ok((
            param,
            Planned {
                name,
                format,
                shape,
            },
        ))
    });
    let tensors: Vec<(Param, Planned)> = tensors.collect::<Result<_, String>>()?;
    if !tensors.iter().any(|(_, planned)| planned.format == format) {
        return Err(format!(
            "the rows of no matrix are whole blocks of {format}; write `dtype = q4_0` or `q8_0`, whose blocks are shorter"
        ));
    }
    Ok(GgufModel {
        family,
        metadata,
        factors: factors.collect(),
        tensors,
    })
}

/// The matrices that an adapter's export holds.
///
/// # Errors
/// What the target has no name for.
fn adapted<'a>(
    start: &Handed,
    model: &dyn Model,
    job: &'a Job,
    target: Target,
) -> Result<Vec<Adapted<'a>>, String> {
    let family = (target == Target::GgufAdapter)
        .then(|| family(start, model))
        .transpose()?;
    let mut list = Vec::new();
    for site in &job.sites {
        let stack = start.tuning.stack(site);
        let [(method, values)] = stack[..] else {
            if stack.is_empty() {
                continue;
            }
            return Err(format!(
                "`{}` has several methods on it, and a file of adapters has one",
                site.path
            ));
        };
        if !site.is_linear() || site.role == Role::LmDecoder {
            return Err(format!(
                "`{}` is no linear map of the blocks, and pairs of others have no form there",
                site.path
            ));
        }
        let product = method.peft(values).and_then(|form| form.product);
        let product = product.ok_or_else(|| format!("what is on `{}` is no LoRA", site.path))?;
        let name = format!("{}.weight", site.path);
        if let Some((family, _)) = family
            && family.there(&name).is_none()
        {
            return Err(format!("`{name}` has no name in GGUF"));
        }
        list.push(Adapted { site, product });
    }
    // What was trained beside the adapter would be missing.
    let kept = |p: &&Param| p.in_adapter() && p.owner != crate::library::net::Owner::Adapter;
    if let Some(param) = job.params.iter().find(kept) {
        return Err(format!(
            "`{}` was trained too, and a file of adapters holds none of the model's own tensors",
            param.name
        ));
    }
    if list.is_empty() {
        return Err("no matrix has an adapter".to_owned());
    }
    if target == Target::Mlx {
        mlx::layers(&list, model.facts().layers)?;
    }
    Ok(list)
}

/// The names that a model's family has in GGUF, and what it is.
///
/// # Errors
/// It has none.
fn family<'a>(
    start: &Handed,
    model: &'a dyn Model,
) -> Result<(&'static Family, &'a crate::library::model::Shape), String> {
    let kind = start
        .model
        .config
        .get("model_type")
        .and_then(Json::as_str)
        .unwrap_or_default();
    let family = Family::of_type(kind)
        .ok_or_else(|| format!("models of the type `{kind}` have no name in GGUF here"))?;
    if !start.task.needs().is_lm() || model.causal_lm().is_none() {
        return Err(format!(
            "a model for `{}` has no name in GGUF: it holds language models",
            start.task.name()
        ));
    }
    let shape = model
        .decoder()
        .ok_or_else(|| format!("models of the type `{kind}` have no name in GGUF here"))?;
    Ok((family, shape))
}

impl Stage {
    /// The GGUF file that it writes.
    ///
    /// # Errors
    /// What the file has no name for.
    pub fn gguf_model(&self) -> Result<GgufModel, String> {
        gguf_model(&self.start, self.model.as_ref(), &self.job, self.target())
    }

    /// The matrices of the adapter that it writes.
    ///
    /// # Errors
    /// What the target has no name for.
    pub fn adapted(&self) -> Result<Vec<Adapted<'_>>, String> {
        adapted(&self.start, self.model.as_ref(), &self.job, self.target())
    }

    /// What it writes.
    fn target(&self) -> Target {
        match &self.job.routine {
            Routine::Fold(fold) => fold.target,
            _ => Target::Folder(DType::F32),
        }
    }
}

/// What is wrong with a stage that exports, at its `format`.
pub(super) fn check(start: &Handed, model: &dyn Model, job: &Job, at: Span) -> Option<Diag> {
    let Routine::Fold(Fold { target, .. }) = &job.routine else {
        return None;
    };
    let found = match target {
        Target::Folder(_) | Target::Lora(_) => return None,
        Target::Gguf(_) => gguf_model(start, model, job, *target).map(|_| ()),
        Target::GgufAdapter | Target::Mlx => adapted(start, model, job, *target).map(|_| ()),
    };
    let why = found.err()?;
    Some(
        Diag::error(&NO_NAME, at, format!("this cannot be exported so: {why}"))
            .label("this format"),
    )
}
