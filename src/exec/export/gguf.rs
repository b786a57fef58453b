//! Models as GGUF files, and a Modelfile for Ollama beside each.

use std::io::Write;
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::base::visible::line;
use crate::files::RunError;
use crate::files::durable::{create_dirs, failed, write_bytes};
use crate::files::gguf::describe::GgufModel;
use crate::files::gguf::names::{Family, Order};
use crate::files::gguf::write::{Meta, Metadata, Planned, write};
use crate::files::gguf::{Gguf, config_differs};
use crate::files::weights::Checkpoint;
use crate::library::model;
use crate::library::net::Param;
use crate::library::tokenizer::{Tokenizer, TokenizerFiles};
use crate::plan::Stage;
use crate::program::op::{Storage, Tensor};
use crate::program::{DType, Format};

/// Name of a model's or an adapter's file in the store; a copy is called as the recipe says.
pub const FILE: &str = "model.gguf";

/// Name of the file that Ollama reads.
pub const MODELFILE: &str = "Modelfile";

/// Numbers that are turned, rounded and written at once.
pub(super) const PIECE: usize = 1 << 16;

/// How the numbers of a tensor become those of the file.
pub(super) struct Turn {
    /// The order of its rows there.
    pub order: Option<Order>,
    /// What is added.
    pub added: f32,
}

/// A sum of a tensor's numbers, each by its place: what they are known again by once the file is read back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    sum: f64,
    size: f64,
}

impl Sum {
    /// Takes the numbers from a place on.
    fn add(&mut self, first: usize, numbers: impl Iterator<Item = f32>) {
        for (place, x) in (first as u64..).zip(numbers) {
            let mixed = (place as u32).wrapping_mul(0x9E37_79B9) ^ (place >> 32) as u32;
            self.sum += (f64::from(mixed) / f64::from(u32::MAX) - 0.5) * f64::from(x);
            self.size += f64::from(x).abs();
        }
    }

    /// That of a tensor as it was read.
    fn of(tensor: &Tensor) -> Self {
        let mut own = Self::default();
        let all: usize = tensor.dims.iter().product();
        for first in (0..all).step_by(PIECE) {
            let count = PIECE.min(all - first);
            match (&tensor.storage, tensor.slice::<f32>()) {
                (Storage::Blocks(packed, data), _) => {
                    let mut wide = vec![0.0_f32; count];
                    packed.decode_part(data, first, &mut wide);
                    own.add(first, wide.into_iter());
                }
                (_, Some(data)) => {
                    let piece = data.get(first..first + count).unwrap_or_default();
                    own.add(first, piece.iter().copied());
                }
                (storage, None) => {
                    let bytes = storage.bytes().as_chunks::<2>().0;
                    let piece = bytes.get(first..first + count).unwrap_or_default().iter();
                    match tensor.dtype() {
                        DType::F16 => {
                            own.add(first, piece.map(|b| half::f16::from_le_bytes(*b).to_f32()))
                        }
                        _ => own.add(first, piece.map(|b| half::bf16::from_le_bytes(*b).to_f32())),
                    }
                }
            }
        }
        own
    }

    /// Whether both are of the same numbers, but for what adding and taking off one rounds.
    fn is_near(self, other: Self) -> bool {
        (self.sum - other.sum).abs() <= 1e-6 * self.size + 1e-30
    }
}

impl Turn {
    /// That of a tensor, by its name there.
    pub fn of(family: &Family, name: &str, heads: (u64, u64)) -> Self {
        Self {
            order: family.order(name, heads),
            added: if family.adds_one(name) { 1.0 } else { 0.0 },
        }
    }

    /// Writes a tensor in f32 as it is planned, a piece at a time; gives what its numbers became to `seen`, and their sum.
    pub fn write(
        &self,
        tensor: &Tensor,
        planned: &Planned,
        out: &mut dyn Write,
        seen: &mut dyn FnMut(&[f32], &[f32]),
    ) -> Result<Sum, String> {
        let mut sum = Sum::default();
        let data = tensor.slice::<f32>().ok_or("it is not in f32")?;
        let rows = tensor.dims.first().copied().unwrap_or(1).max(1);
        let width = (data.len() / rows).max(1);
        let here = |there: usize| match self.order {
            Some(order) => order.here(there as u64, rows as u64) as usize,
            None => there,
        };
        let step = (PIECE / width).max(1);
        for first in (0..rows).step_by(step) {
            let count = step.min(rows - first);
            let mut piece = Vec::with_capacity(count * width);
            for there in first..first + count {
                let row = here(there);
                let row = data.get(row * width..(row + 1) * width).unwrap_or_default();
                piece.extend(row.iter().map(|x| x + self.added));
            }
            let own = Tensor::new(piece, &[count, width]);
            let unfit = |x: f32| {
                format!(
                    "it holds {x}, which is out of the range of {}",
                    planned.format
                )
            };
            if let Some(x) = lost(&own, planned.format) {
                return Err(unfit(x));
            }
            let made = own.clone().stored_as(planned.format).map_err(unfit)?;
            let wide = match planned.format == DType::F32 {
                true => None,
                false => Some(made.cast(DType::F32)),
            };
            let back = wide.as_ref().unwrap_or(&own).slice::<f32>();
            let back = back.unwrap_or_default();
            if planned.format.blocks().is_some() {
                seen(own.slice().unwrap_or_default(), back);
            }
            for (there, row) in (first..first + count).zip(back.chunks(width)) {
                sum.add(here(there) * width, row.iter().map(|x| x - self.added));
            }
            out.write_all(made.storage.bytes())
                .map_err(|e| e.to_string())?;
        }
        Ok(sum)
    }
}

/// A number that would become infinite.
fn lost(tensor: &Tensor, format: Format) -> Option<f32> {
    let narrow = |x: f32| match format.name() {
        "f16" => half::f16::from_f32(x).is_finite(),
        "bf16" => half::bf16::from_f32(x).is_finite(),
        _ => x.is_finite(),
    };
    tensor.slice::<f32>()?.iter().copied().find(|&x| !narrow(x))
}

/// What rounding to blocks did to a matrix that an adapter changed.
#[derive(Debug)]
pub struct Rounded {
    /// The matrix.
    pub name: String,
    /// Length of what rounding changed.
    pub error: f64,
    /// Length of the adapter's update.
    pub update: f64,
}

/// Writes a whole model; `get` gives a tensor, and the length of the update in it where an adapter changed it.
///
/// # Errors
/// What the file system or `get` says; a matrix that rounding changes more than its update did, unless `force`.
pub(in crate::exec) fn write_model(
    (dir, stage): (&Path, &Stage),
    own: &GgufModel,
    force: bool,
    get: &mut dyn FnMut(&Param) -> Result<(Tensor, Option<f64>), RunError>,
) -> Result<Vec<Rounded>, RunError> {
    create_dirs(dir)?;
    let path = dir.join(FILE);
    let facts = heads(stage)?;
    let planned: Vec<Planned> = own
        .factors
        .iter()
        .map(|(planned, _)| planned.clone())
        .chain(own.tensors.iter().map(|(_, planned)| planned.clone()))
        .collect();
    let mut certificate = Vec::new();
    let mut sums = Vec::with_capacity(own.tensors.len());
    write(&path, &own.metadata, &planned, &mut |i, out| {
        if let Some((_, data)) = own.factors.get(i) {
            let bytes = bytemuck::cast_slice(data);
            return out.write_all(bytes).map_err(|e| failed(&path, "write", &e));
        }
        let Some((param, planned)) = own.tensors.get(i - own.factors.len()) else {
            return Err(RunError::bug("more tensors than were listed"));
        };
        let (tensor, update) = get(param)?;
        let turn = Turn::of(own.family, &planned.name, facts);
        let mut error = 0.0_f64;
        let mut seen = |a: &[f32], b: &[f32]| {
            let each = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
            error += each.sum::<f64>();
        };
        let made = turn.write(&tensor, planned, out, &mut seen);
        sums.push(made.map_err(|why| {
            RunError::file(&path, format!("`{}` cannot be written: {why}", param.name))
        })?);
        if let Some(update) = update.filter(|_| planned.format.blocks().is_some()) {
            let (name, error) = (param.name.clone(), error.sqrt());
            if error > update && !force {
                let finer = match planned.format.name() {
                    "q8_0" => "`dtype = f16`",
                    _ => "`dtype = q8_0` or `dtype = f16`",
                };
                return Err(RunError::file(
                    &path,
                    format!(
                        "rounding `{name}` to {} changes it by {error:.3e}, more than the adapter did ({update:.3e}), so that what was \
                         learned would be lost; write {finer}, or `force = true`",
                        planned.format
                    ),
                ));
            }
            certificate.push(Rounded {
                name,
                error,
                update,
            });
        }
        Ok(())
    })?;
    read_back(stage, (own, &sums), &path)?;
    let template = own
        .metadata
        .iter()
        .find(|(key, _)| key == "tokenizer.chat_template");
    let template = match template {
        Some((_, Meta::Text(text))) => Some(text.as_str()),
        _ => None,
    };
    write_bytes(
        &dir.join(MODELFILE),
        modelfile(&own.metadata, template).as_bytes(),
    )?;
    Ok(certificate)
}

/// Heads of queries and of keys.
pub(super) fn heads(stage: &Stage) -> Result<(u64, u64), RunError> {
    let shape = stage
        .model
        .decoder()
        .ok_or_else(|| RunError::bug("no decoder is exported"))?;
    Ok((shape.heads, shape.kv_heads))
}

/// Reads a file that was written: its model is the stage's, and so are its tensors, their numbers and its tokenizer.
fn read_back(
    stage: &Stage,
    (own, sums): (&GgufModel, &[Sum]),
    path: &Path,
) -> Result<(), RunError> {
    let wrong = |why: String| {
        RunError::file(
            path,
            format!("what was written is not read back as it was: {why}"),
        )
    };
    let file = std::fs::File::open(path).map_err(|e| failed(path, "open", &e))?;
    let size = file
        .metadata()
        .map_err(|e| failed(path, "look at", &e))?
        .len();
    let read = Gguf::open(&file, size).map_err(wrong)?;
    let side = |name: &str| -> Result<Json, RunError> {
        let bytes = read.side(name).map_err(wrong)?.unwrap_or_default();
        serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))
    };
    let again = model::parse(&side("config.json")?).map_err(wrong)?;
    if let (Some(one), Some(other)) = (stage.model.decoder(), again.decoder())
        && let Some(what) = config_differs(one, other)
    {
        return Err(wrong(format!("the model has another {what}")));
    }
    let weights = Checkpoint::open(path)?;
    for ((param, planned), sum) in own.tensors.iter().zip(sums) {
        let found = weights.info(&param.name);
        let kept = found.is_some_and(|(kind, shape)| {
            *kind == crate::files::weights::Kind::Stored(planned.format) && shape == param.shape
        });
        if !kept {
            return Err(wrong(format!("`{}` is stored in another way", param.name)));
        }
        let read = weights.read(
            std::slice::from_ref(&param.name),
            &param.shape,
            planned.format,
        )?;
        if !read.is_some_and(|read| sum.is_near(Sum::of(&read))) {
            return Err(wrong(format!("`{}` holds other numbers", param.name)));
        }
    }
    let Some(tokenizer) = &stage.start.model.tokenizer else {
        return Ok(());
    };
    let tokens = Tokenizer::from_files(&TokenizerFiles {
        dir_name: path.display().to_string(),
        get: &|name| read.side(name).ok().flatten(),
    });
    let tokens = tokens.map_err(wrong)?;
    for text in SAMPLES {
        let ids = |t: &Tokenizer| {
            let made = t.encode(&[text.to_owned()], usize::MAX).map_err(wrong)?;
            Ok::<_, RunError>(made.ids)
        };
        if ids(tokenizer)? != ids(&tokens)? {
            return Err(wrong(format!(
                "its tokenizer makes other tokens of `{}`",
                line(text)
            )));
        }
    }
    Ok(())
}

/// Texts whose tokens must be the same.
const SAMPLES: [&str; 4] = [
    "The quick brown fox, aged 12345, didn't jump over 3.14 lazy dogs!",
    "  two spaces\n\n\ttabs and lines\r\n",
    "naïve café — ünïcode, 日本語, русский, 🙂",
    "if (x != 0) { return a[i]->b; } // code_with_names",
];

/// What Ollama reads beside the file: where it is, the stops, and the template where it is one that has a known shape.
fn modelfile(metadata: &Metadata, template: Option<&str>) -> String {
    let mut text = format!("FROM ./{FILE}\n");
    let list = |key: &str| metadata.iter().find(|(k, _)| k == key).map(|(_, v)| v);
    let eos = match (
        list("tokenizer.ggml.eos_token_id"),
        list("tokenizer.ggml.tokens"),
    ) {
        (Some(Meta::U32(id)), Some(Meta::Texts(tokens))) => tokens.get(*id as usize).cloned(),
        _ => None,
    };
    let has = |part: &str| template.is_some_and(|t| t.contains(part));
    let mut stops: Vec<String> = eos.into_iter().collect();
    let known = [
        ("<|im_start|>", "<|im_end|>", CHATML),
        ("<|start_header_id|>", "<|eot_id|>", LLAMA3),
        ("<start_of_turn>", "<end_of_turn>", GEMMA),
    ];
    let found = known
        .into_iter()
        .find(|(start, end, _)| has(start) && has(end));
    match found {
        Some((_, end, own)) => {
            if !stops.iter().any(|s| s == end) {
                stops.push(end.to_owned());
            }
            text += &format!("TEMPLATE \"\"\"{own}\"\"\"\n");
        }
        None if template.is_some() => {
            text += "# The chat template is in the file; it is none that is translated here, so there is no TEMPLATE.\n";
        }
        None => text += "# The model has no chat template.\n",
    }
    for stop in stops {
        text += &format!("PARAMETER stop {}\n", json!(stop));
    }
    text
}

const CHATML: &str = "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n";
const LLAMA3: &str = "{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>{{ end }}\
                      <|start_header_id|>assistant<|end_header_id|>\n\n";
const GEMMA: &str = "{{- range .Messages }}<start_of_turn>{{ if eq .Role \"assistant\" }}model{{ else }}{{ .Role }}{{ end }}\n{{ .Content }}\
                     <end_of_turn>\n{{ end }}<start_of_turn>model\n";
