//! LoRA adapters as GGUF files.

use std::io::Write;
use std::path::Path;

use serde_json::Value as Json;

use super::gguf::{FILE, PIECE, Turn, heads};
use crate::files::RunError;
use crate::files::durable::{create_dirs, failed};
use crate::files::gguf::describe::adapter_metadata;
use crate::files::gguf::header::Header;
use crate::files::gguf::names::Family;
use crate::files::gguf::write::{Planned, write};
use crate::library::data::positioned::read_at;
use crate::plan::Stage;
use crate::program::Format;
use crate::program::op::Tensor;

/// Writes a LoRA adapter; `get` gives a tensor by name.
///
/// # Errors
/// What the file system or `get` says.
pub(in crate::exec) fn write_adapter(
    dir: &Path,
    stage: &Stage,
    get: &mut dyn FnMut(&str) -> Result<Tensor, RunError>,
) -> Result<(), RunError> {
    create_dirs(dir)?;
    let path = dir.join(FILE);
    let wrong = |why: String| RunError::file(&path, why);
    let list = stage.adapted().map_err(wrong)?;
    let kind = stage
        .start
        .model
        .config
        .get("model_type")
        .and_then(Json::as_str);
    let family = kind.and_then(Family::of_type);
    let family = family.ok_or_else(|| RunError::bug("a family without names is exported"))?;
    let first = list.first().map(|a| a.product);
    // llama.cpp multiplies by alpha over the rank of each pair.
    let alpha = first.map_or(1.0, |p| p.scale * p.rank as f64);
    let metadata = adapter_metadata(family, &stage.start.model.name, alpha as f32);
    let (mut planned, mut sources) = (Vec::new(), Vec::new());
    for own in &list {
        let (path, product) = (&own.site.path, own.product);
        let there = family.there(&format!("{path}.weight"));
        let there = there.ok_or_else(|| RunError::bug(format!("`{path}` has no name")))?;
        let factor = product.scale * product.rank as f64 / alpha;
        for (half, shape) in [
            ("a", [product.rank, own.site.input()]),
            ("b", [own.site.output(), product.rank]),
        ] {
            planned.push(Planned {
                name: format!("{there}.lora_{half}"),
                format: Format::default(),
                shape: shape.to_vec(),
            });
            let name = format!("{path}.lora_{}.weight", half.to_uppercase());
            sources.push((name, there.clone(), (half == "b").then_some(factor as f32)));
        }
    }
    let facts = heads(stage)?;
    let mut sums = Vec::with_capacity(planned.len());
    write(&path, &metadata, &planned, &mut |i, out| {
        let (Some((name, there, factor)), Some(planned)) = (sources.get(i), planned.get(i)) else {
            return Err(RunError::bug("more tensors than were listed"));
        };
        let mut tensor = get(name)?;
        let mut turn = Turn {
            order: None,
            added: 0.0,
        };
        if let Some(factor) = factor {
            // The rows of B are the matrix's.
            turn = Turn::of(family, there, facts);
            if *factor != 1.0 {
                tensor
                    .slice_mut::<f32>()
                    .into_iter()
                    .flatten()
                    .for_each(|x| *x *= factor);
            }
        }
        let mut out = Summed {
            out,
            hasher: blake3::Hasher::new(),
        };
        let made = turn.write(&tensor, planned, &mut out, &mut |_, _| {});
        sums.push(out.hasher.finalize());
        let made = made.map(|_| ());
        made.map_err(|why| RunError::file(&path, format!("`{name}` cannot be written: {why}")))
    })?;
    read_back(&path, &planned, &sums)
}

/// Reads a file that was written: its tensors are those that were planned, to the byte.
fn read_back(path: &Path, planned: &[Planned], sums: &[blake3::Hash]) -> Result<(), RunError> {
    let wrong = |why: String| RunError::file(path, why);
    let file = std::fs::File::open(path).map_err(|e| failed(path, "open", &e))?;
    let size = file
        .metadata()
        .map_err(|e| failed(path, "look at", &e))?
        .len();
    let read = Header::read(&file, size).map_err(wrong)?;
    let differs = |what: String| {
        wrong(format!(
            "what was written is not read back as it was: {what}"
        ))
    };
    if read.tensors.len() != planned.len() {
        return Err(differs("it has another number of tensors".to_owned()));
    }
    for ((tensor, planned), sum) in read.tensors.iter().zip(planned).zip(sums) {
        if (&tensor.name, &tensor.shape) != (&planned.name, &planned.shape) {
            return Err(differs(format!("`{}` is another tensor", planned.name)));
        }
        let mut hasher = blake3::Hasher::new();
        let mut piece = vec![0; PIECE];
        let mut at = tensor.start;
        while at < tensor.end {
            let count = PIECE.min((tensor.end - at) as usize);
            let own = piece.get_mut(..count).unwrap_or_default();
            read_at(&file, own, at).map_err(|e| failed(path, "read", &e))?;
            hasher.update(own);
            at += count as u64;
        }
        if hasher.finalize() != *sum {
            return Err(differs(format!("`{}` holds other numbers", planned.name)));
        }
    }
    Ok(())
}

/// Hashes what is written.
struct Summed<'a> {
    out: &'a mut dyn Write,
    hasher: blake3::Hasher,
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
