//! Keys of peft's configs that differ from place to place: those of the first place, and patterns for the others.

use serde_json::{Map, Value as Json, json};

use crate::library::method::{PeftKeys, PeftTensor, Product, number};

/// A key of a config with its value.
type Key = (&'static str, Json);

/// Keys that may differ from place to place, and those of the patterns that say so, in the types that have them.
const BY_PLACE: [(&str, &str); 2] = [("r", "rank_pattern"), ("alpha", "alpha_pattern")];

/// Whether a key of a config may differ from place to place there.
fn differs(keys: &[Key], key: &str) -> bool {
    let pattern = BY_PLACE.iter().find(|(own, _)| *own == key);
    let is = |pattern: &str| keys.iter().any(|(k, v)| *k == pattern && v.is_object());
    pattern.is_some_and(|(_, pattern)| is(pattern))
}

/// The keys that are the same at all places.
pub(super) fn shared(keys: &[Key]) -> Vec<&Key> {
    keys.iter().filter(|(key, _)| !differs(keys, key)).collect()
}

/// The patterns of places whose values differ from the first one's.
pub(super) fn by_place(first: &[Key], others: &[(&str, &[Key])]) -> PeftKeys {
    let value = |keys: &[Key], key: &str| {
        let own = keys.iter().find(|(k, _)| *k == key);
        own.map(|(_, value)| value.clone())
    };
    let own = BY_PLACE.into_iter().filter(|(key, _)| differs(first, key));
    let patterns = own.map(|(key, pattern)| {
        let usual = value(first, key);
        let others = others.iter().filter_map(|(path, keys)| {
            let own = value(keys, key).filter(|own| Some(own) != usual.as_ref())?;
            Some((regex::escape(path), own))
        });
        (pattern, Json::Object(others.collect()))
    });
    patterns.collect()
}

/// A LoRA's pair without the rows of A that are zero together with their columns of B, which give and learn nothing, and
/// the rank that is left: at least 1.
pub(super) fn without_idle(made: Vec<PeftTensor>) -> (Vec<PeftTensor>, Option<u64>) {
    let half = |name: &str| made.iter().find(|(own, ..)| own == name);
    let pair = half("lora_A.weight").zip(half("lora_B.weight"));
    let Some(((_, a_dims, a), (_, b_dims, b))) = pair else {
        return (made, None);
    };
    let (&[rank, width], &[_, columns]) = (a_dims.as_slice(), b_dims.as_slice()) else {
        return (made, None);
    };
    let gives = |row: &usize| {
        let own = a.chunks_exact(width.max(1)).nth(*row).unwrap_or_default();
        let column = b.iter().skip(*row).step_by(columns.max(1));
        own.iter().chain(column).any(|x| *x != 0.0)
    };
    let mut kept: Vec<usize> = (0..rank).filter(gives).collect();
    if kept.is_empty() {
        kept.push(0);
    }
    if kept.len() == rank || columns != rank {
        return (made, None);
    }
    let n = kept.len();
    let shorter = |(name, dims, data): PeftTensor| -> PeftTensor {
        match name.as_str() {
            "lora_A.weight" => {
                let rows = kept
                    .iter()
                    .filter_map(|&i| data.get(i * width..(i + 1) * width));
                (name, vec![n, width], rows.flatten().copied().collect())
            }
            "lora_B.weight" => {
                let rows = data.chunks_exact(rank);
                let own = rows.flat_map(|row| kept.iter().filter_map(|&i| row.get(i)));
                let output = data.len() / rank.max(1);
                (name, vec![output, n], own.copied().collect())
            }
            _ => (name, dims, data),
        }
    };
    (made.into_iter().map(shorter).collect(), Some(n as u64))
}

/// The keys of rank and scale: those of the first site, and patterns for the sites that differ.
pub(super) fn sizes(first: Product, list: &[(String, Product)]) -> Vec<(&'static str, Json)> {
    let products = || list.iter().map(|(path, product)| (path, *product));
    let rs_lora = first.rs_lora && products().all(|(_, p)| p.rs_lora);
    let dropout = products().all(|(_, p)| p.dropout == first.dropout);
    // peft multiplies by alpha / rank, or alpha / √rank.
    let alpha = |p: &Product| {
        let rank = p.rank as f64;
        number(p.scale * if rs_lora { rank.sqrt() } else { rank })
    };
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    for (path, product) in products() {
        let name = regex::escape(path);
        if product.rank != first.rank {
            ranks.insert(name.clone(), json!(product.rank));
        }
        if alpha(&product) != alpha(&first) {
            alphas.insert(name, alpha(&product));
        }
    }
    vec![
        ("r", json!(first.rank)),
        ("lora_alpha", alpha(&first)),
        (
            "lora_dropout",
            json!(if dropout { first.dropout } else { 0.0 }),
        ),
        ("use_rslora", json!(rs_lora)),
        ("rank_pattern", Json::Object(ranks)),
        ("alpha_pattern", Json::Object(alphas)),
    ]
}
