//! `mlx`: a LoRA adapter for mlx-lm.

use std::collections::BTreeMap;

use super::{Adapted, Export, Target};
use crate::library::schema::{Schema, Values};

/// The format.
#[derive(Debug)]
pub(super) struct Mlx;

static SCHEMA: Schema = Schema {
    name: "mlx",
    summary: "a LoRA adapter as a folder that mlx-lm reads (`--adapter-path`)",
    doc: "`adapters.safetensors` and `adapter_config.json`. LoRA only, of one rank and one factor, on the same maps in each of the last \
          blocks: mlx-lm names the blocks by how many they are.",
    paper: "",
    keys: &[],
};

impl Export for Mlx {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn target(&self, _: &Values) -> Target {
        Target::Mlx
    }
}

/// The blocks and the maps in each of them that mlx-lm is to adapt: the last so many blocks, alike.
///
/// # Errors
/// What it has no words for.
pub fn layers(list: &[Adapted<'_>], count: u64) -> Result<(u64, Vec<String>), String> {
    let first = list.first().ok_or("no matrix has an adapter")?;
    if list
        .iter()
        .any(|a| (a.product.rank, a.product.scale) != (first.product.rank, first.product.scale))
    {
        return Err(
            "ranks or factors differ between matrices, and mlx-lm has one of each".to_owned(),
        );
    }
    let mut by_layer = BTreeMap::<u64, Vec<String>>::new();
    for Adapted { site, .. } in list {
        let layer = site.layer.ok_or_else(|| {
            format!(
                "`{}` is in no block, and mlx-lm adapts blocks only",
                site.path
            )
        })?;
        let key = site.path.strip_prefix(&format!("model.layers.{layer}."));
        let key = key.ok_or_else(|| format!("`{}` has no name in mlx-lm", site.path))?;
        by_layer.entry(layer).or_default().push(key.to_owned());
    }
    let own = by_layer.values().next().cloned().unwrap_or_default();
    let begin = by_layer.keys().next().copied().unwrap_or(0);
    let alike = by_layer.values().all(|keys| *keys == own);
    if !alike || (begin..count).any(|layer| !by_layer.contains_key(&layer)) {
        return Err("the adapted maps are not the same in each of the last blocks, and mlx-lm has no other words".to_owned());
    }
    Ok((count - begin, own))
}
