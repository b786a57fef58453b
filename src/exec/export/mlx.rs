//! A LoRA adapter as a folder that mlx-lm reads.

use std::path::Path;

use serde_json::json;

use crate::files::RunError;
use crate::files::durable::{create_dirs, failed, write_bytes};
use crate::files::tensorfile::{TensorSpec, write_tensors};
use crate::files::weights::TensorFile;
use crate::library::export::mlx::layers;
use crate::plan::Stage;
use crate::program::DType;
use crate::program::op::Tensor;

/// Names of its files.
const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapters.safetensors";

/// Writes it; `get` gives a tensor by name. mlx-lm multiplies from the right, so both halves are transposed.
///
/// # Errors
/// What the file system or `get` says.
pub(in crate::exec) fn write(
    dir: &Path,
    stage: &Stage,
    get: &mut dyn FnMut(&str) -> Result<Tensor, RunError>,
) -> Result<(), RunError> {
    create_dirs(dir)?;
    let path = dir.join(TENSORS);
    let wrong = |why: String| RunError::file(&path, why);
    let list = stage.adapted().map_err(wrong)?;
    let (count, keys) = layers(&list, stage.model.facts().layers).map_err(wrong)?;
    let product = list.first().map(|a| a.product);
    let product = product.ok_or_else(|| RunError::bug("no matrix has an adapter"))?;
    let (mut specs, mut sources) = (Vec::new(), Vec::new());
    for own in &list {
        let path = &own.site.path;
        for (half, shape) in [
            ("a", [own.site.input(), own.product.rank]),
            ("b", [own.product.rank, own.site.output()]),
        ] {
            specs.push(TensorSpec {
                name: format!("{path}.lora_{half}"),
                dtype: DType::F32,
                shape: shape.to_vec(),
            });
            sources.push(format!("{path}.lora_{}.weight", half.to_uppercase()));
        }
    }
    let mut hashes = Vec::new();
    write_tensors(&path, &specs, Some(("format", "mlx")), &mut |i, out| {
        let name = sources
            .get(i)
            .ok_or_else(|| RunError::bug("more tensors than were listed"))?;
        let data = turned(&get(name)?);
        let bytes: &[u8] = bytemuck::cast_slice(&data);
        hashes.push(blake3::hash(bytes));
        out.write_all(bytes).map_err(|e| failed(&path, "write", &e))
    })?;
    let read = TensorFile::open(&path)?;
    for (spec, hash) in specs.iter().zip(&hashes) {
        let own = read.get(&spec.name);
        if own.is_none_or(|t| blake3::hash(t.bytes) != *hash) {
            return Err(wrong(format!(
                "`{}` is not read back as it was written",
                spec.name
            )));
        }
    }
    let config = json!({
        "fine_tune_type": "lora",
        "num_layers": count,
        "lora_parameters": { "rank": product.rank, "scale": product.scale, "dropout": product.dropout, "keys": keys },
    });
    let mut text = serde_json::to_vec_pretty(&config).map_err(|e| RunError::bug(e.to_string()))?;
    text.push(b'\n');
    write_bytes(&dir.join(CONFIG), &text)
}

/// The numbers of a matrix, column by column.
fn turned(matrix: &Tensor) -> Vec<f32> {
    let data = matrix.slice::<f32>().unwrap_or_default();
    let width = matrix.dims.last().copied().unwrap_or(1).max(1);
    (0..width)
        .flat_map(|column| data.iter().skip(column).step_by(width).copied())
        .collect()
}
