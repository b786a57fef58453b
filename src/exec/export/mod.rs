//! What a finished stage leaves: a model in the Hugging Face layout, or an adapter in our own
//! format and in peft's.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::{Value as Json, json};

use self::base::Base;
use self::config::model_config;
use self::description::{AS_STORED, DEMONSTRATIONS, DESCRIPTION, Description};
use self::peft::write_peft;
pub(in crate::exec) use self::peft::{Parts, write_parts};
use crate::exec::interpreter::Runner;
use crate::exec::load::Initial;
use crate::exec::load::init::{PIECE, cast, out_of_range};
use crate::files::RunError;
use crate::files::durable::{create_dirs, failed, write_bytes};
use crate::files::paths::{absolute, relative};
use crate::files::tensorfile::{TensorSpec, bytes_of, write_tensors};
use crate::library::chat::{self, Kept};
use crate::library::model::Model;
use crate::library::net::Param;
use crate::plan::Stage;
use crate::program::DType;
use crate::program::format::Storing;
use crate::program::op::{Storage, Tensor};

mod bare;
pub mod base;
mod config;
pub mod description;
pub mod gguf;
pub mod gguf_adapter;
pub mod mlx;
mod patterns;
mod peft;
mod prompt;

/// Name of the adapter file in our own format.
pub const NATIVE: &str = "peftc.safetensors";

/// The config of a stage's model with its own head.
fn config(stage: &Stage, dtype: DType) -> Json {
    let (start, task) = (&stage.start, &stage.start.task);
    let class = task.exported_class(stage.model.as_ref());
    let head = (task.as_ref(), start.classes.as_slice());
    model_config(&start.model.config, &class, head, dtype)
}

/// Writes config and tokenizer of a model directory.
fn write_sides(dir: &Path, stage: &Stage, dtype: DType) -> Result<(), RunError> {
    create_dirs(dir)?;
    write_json(&dir.join("config.json"), &config(stage, dtype))?;
    let (width, most) = (stage.model.facts().hidden, stage.start.max_length);
    for (name, json) in stage.start.task.files(width, most) {
        let path = dir.join(name);
        create_dirs(path.parent().unwrap_or(dir))?;
        write_json(&path, &json)?;
    }
    write_tokenizer(dir, stage)
}

/// Writes the tokenizer's files and the chat template.
fn write_tokenizer(dir: &Path, stage: &Stage) -> Result<(), RunError> {
    if let Some(tokenizer) = &stage.start.model.tokenizer {
        let json = tokenizer
            .save_json()
            .map_err(|why| RunError::file(dir.join("tokenizer.json"), why))?;
        write_bytes(&dir.join("tokenizer.json"), &json)?;
        write_json(
            &dir.join("tokenizer_config.json"),
            &tokenizer.config_json(stage.model.facts().max_length),
        )?;
    }
    if let Some(Ok(template)) = &stage.start.model.chat {
        write_bytes(&dir.join(chat::FILE), template.source().as_bytes())?;
        if let Some(own) = template.for_tools() {
            let path = dir.join(chat::FILE_FOR_TOOLS);
            create_dirs(path.parent().unwrap_or(dir))?;
            write_bytes(&path, own.source().as_bytes())?;
        }
    }
    Ok(())
}

fn write_json(path: &Path, json: &Json) -> Result<(), RunError> {
    let mut text = serde_json::to_vec_pretty(json).map_err(|e| RunError::bug(e.to_string()))?;
    text.push(b'\n');
    write_bytes(path, &text)
}

/// Writes what `predict` needs to know of an artifact: of an adapter, with the base it stands on.
///
/// # Errors
/// What the file system says.
pub fn write_description(
    dir: &Path,
    stage: &Stage,
    base: Option<&Base>,
    (text, chat): (Vec<String>, Option<Kept>),
) -> Result<(), RunError> {
    let hands_on = stage.hands_on.as_ref().filter(|_| base.is_some());
    let methods = hands_on.map_or(&[][..], |l| l.tuning.methods.as_slice());
    let weights = base.and_then(|b| b.dir.as_deref());
    let shown = stage.start.prompt.as_ref();
    let shown = shown.and_then(|p| p.demonstrations.as_ref());
    let own = |(key, value): (&str, f64)| (key.to_owned(), value);
    let description = Description {
        weights: match weights {
            Some(weights) => relative(&absolute(dir), weights),
            None => ".".into(),
        },
        weights_at: weights.map(Path::to_path_buf),
        base: base.and_then(|b| b.hash.clone()),
        random: base.and_then(|b| b.random),
        config: base.map(|_| config(stage, DType::F32)),
        storage: base
            .map(|_| stage.start.storage())
            .filter(Storing::has_blocks)
            .map(|s| {
                if s.is_own() {
                    AS_STORED.to_owned()
                } else {
                    s.to_string()
                }
            }),
        adapter: base.map(|_| NATIVE.to_owned()),
        methods: methods.iter().map(|(_, f)| format!("{f:#}")).collect(),
        objective: stage.start.task.name().to_owned(),
        options: stage.start.task.options().into_iter().map(own).collect(),
        classes: stage.start.classes.clone(),
        max_length: stage.start.max_length,
        ends: match stage.start.task.generates() {
            true => stage.start.model.ends.clone(),
            false => Vec::new(),
        },
        rules: match stage.start.task.generates() {
            true => stage.start.model.rules.clone(),
            false => None,
        },
        text,
        chat,
        template: stage
            .start
            .prompt
            .as_ref()
            .map(|p| p.template.source.clone()),
        words: stage
            .start
            .prompt
            .as_ref()
            .map(|p| p.words.clone())
            .unwrap_or_default(),
        demonstrations: shown.map(|_| DEMONSTRATIONS.to_owned()),
    };
    if let Some(shown) = shown {
        let json = serde_json::to_vec(shown.as_ref()).map_err(|e| RunError::bug(e.to_string()))?;
        write_bytes(&dir.join(DEMONSTRATIONS), &json)?;
    }
    write_json(&dir.join(DESCRIPTION), &json!(description))
}

/// Parameters that a model file holds: those with a name of the model's own.
fn plain(params: &[Param]) -> impl Iterator<Item = &Param> {
    params.iter().filter(|p| p.in_files())
}

/// Writes `dir` as a model, each tensor straight out of the residents.
///
/// # Errors
/// What the file system says.
pub fn write_model(dir: &Path, stage: &Stage, runner: &Runner) -> Result<(), RunError> {
    write_sides(dir, stage, DType::F32)?;
    let tensors: Vec<(&Param, &Tensor)> = plain(&stage.job.params)
        .filter_map(|p| Some((p, runner.residents.get(&p.name)?)))
        .collect();
    let model = stage.model.as_ref();
    let specs: Vec<TensorSpec> = tensors
        .iter()
        .map(|(p, t)| TensorSpec {
            shape: shape_in_files(model, p),
            ..TensorSpec::of(&p.name, t)
        })
        .collect();
    write_tensors(
        &dir.join("model.safetensors"),
        &specs,
        Some(("format", "pt")),
        &mut |i, out| {
            let (param, tensor) = tensors
                .get(i)
                .ok_or_else(|| RunError::bug("more tensors than were listed"))?;
            let turned = model.transposed(&param.name);
            write_matrix(tensor, tensor.dtype(), turned, out).map_err(|e| failed(dir, "write", &e))
        },
    )
}

/// The shape that a parameter has in the model's files.
fn shape_in_files(model: &dyn Model, param: &Param) -> Vec<u64> {
    let mut shape = param.shape.clone();
    if model.transposed(&param.name) {
        shape.reverse();
    }
    shape
}

/// Writes a tensor's data in a float type; a matrix `[n, m]` as `[m, n]`, if it is to be `turned`.
fn write_matrix(
    tensor: &Tensor,
    dtype: DType,
    turned: bool,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let &[rows, width] = tensor.dims.as_slice() else {
        return write_as(tensor, dtype, out);
    };
    if !turned {
        return write_as(tensor, dtype, out);
    }
    let wide = tensor.cast(DType::F32);
    let data = wide.slice::<f32>().unwrap_or_default();
    for column in columns(data, width) {
        let row = Tensor::new(column.collect::<Vec<f32>>(), &[rows]);
        write_as(&row, dtype, out)?;
    }
    Ok(())
}

/// The columns of a matrix with rows of so many numbers.
fn columns(data: &[f32], width: usize) -> impl Iterator<Item = impl Iterator<Item = f32>> {
    (0..width).map(move |column| data.iter().skip(column).step_by(width).copied())
}

/// Writes `dir` as a model whose tensors are asked for one by one, in type `dtype`.
///
/// # Errors
/// What `get` or the file system says.
pub fn write_model_from(
    dir: &Path,
    stage: &Stage,
    dtype: DType,
    get: &mut dyn FnMut(&Param) -> Result<Tensor, RunError>,
) -> Result<(), RunError> {
    write_sides(dir, stage, dtype)?;
    let params = stage.job.plain_params();
    let path = dir.join("model.safetensors");
    let model = stage.model.as_ref();
    let dtype_of = |p: &Param| if p.shape.len() < 2 { DType::F32 } else { dtype };
    let specs: Vec<TensorSpec> = params
        .iter()
        .map(|p| TensorSpec {
            name: p.name.clone(),
            dtype: dtype_of(p),
            shape: shape_in_files(model, p),
        })
        .collect();
    write_tensors(&path, &specs, Some(("format", "pt")), &mut |i, out| {
        let param = params
            .get(i)
            .ok_or_else(|| RunError::bug("more tensors than were listed"))?;
        let tensor = get(param)?;
        if let Some(why) = out_of_range(&param.name, &tensor, dtype_of(param)) {
            return Err(RunError::file(&path, format!("cannot be written: {why}")));
        }
        let turned = model.transposed(&param.name);
        write_matrix(&tensor, dtype_of(param), turned, out).map_err(|e| failed(dir, "write", &e))
    })
}

/// Writes a tensor's data in a float type, without a second copy of it; what is in blocks is decoded.
fn write_as(tensor: &Tensor, dtype: DType, out: &mut dyn Write) -> std::io::Result<()> {
    if let Storage::Blocks(packed, data) = &tensor.storage {
        let all: usize = tensor.dims.iter().product();
        return (0..all).step_by(PIECE).try_for_each(|first| {
            let count = PIECE.min(all - first);
            let mut wide = vec![0.0_f32; count];
            packed.decode_part(data, first, &mut wide);
            out.write_all(bytes_of(&cast(Tensor::new(wide, &[count]), dtype)))
        });
    }
    match tensor.slice::<f32>() {
        Some(data) if dtype != DType::F32 => data.chunks(PIECE).try_for_each(|piece| {
            let piece = Tensor::new(piece.to_vec(), &[piece.len()]);
            out.write_all(bytes_of(&cast(piece, dtype)))
        }),
        _ => out.write_all(bytes_of(tensor)),
    }
}

/// Writes `dir` as an adapter: everything trained in our own format, and in peft's format where the
/// methods have an equal there.
///
/// # Errors
/// What the file system says.
pub fn write_adapter(
    dir: &Path,
    stage: &Stage,
    base: &Base,
    runner: &mut Runner,
    initial: &Initial,
) -> Result<(), RunError> {
    create_dirs(dir)?;
    let mut own: BTreeMap<String, &Tensor> = BTreeMap::new();
    for param in &stage.job.params {
        if param.in_adapter()
            && let Some(tensor) = runner.residents.get(&param.name)
        {
            own.insert(param.name.clone(), tensor);
        }
    }
    for (name, tensor) in initial {
        own.insert(format!("{name}0"), tensor);
    }
    let list: Vec<(&String, &&Tensor)> = own.iter().collect();
    let specs: Vec<TensorSpec> = list
        .iter()
        .map(|(name, t)| TensorSpec::of(name.as_str(), t))
        .collect();
    write_tensors(&dir.join(NATIVE), &specs, None, &mut |i, out| {
        let (_, tensor) = list
            .get(i)
            .ok_or_else(|| RunError::bug("more tensors than were listed"))?;
        write_as(tensor, tensor.dtype(), out).map_err(|e| failed(dir, "write", &e))
    })?;
    write_tokenizer(dir, stage)?;
    write_peft(dir, stage, base, runner, initial)
}
