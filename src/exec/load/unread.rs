//! Tensors of a checkpoint that nothing reads: refused, but for those that are known to have no effect.
//!
//! **Invariant:** a tensor of the backbone is read, or the checkpoint is refused by its name.

use std::collections::BTreeSet;

use crate::files::RunError;
use crate::files::weights::Checkpoint;
use crate::library::model::Model;
use crate::library::stage::network::anatomy;

/// Modules beside a backbone that other tasks put on it. They read its states and change none.
const OTHER_HEADS: &[&str] = &[
    "cls",
    "lm_head",
    "classifier",
    "pre_classifier",
    "score",
    "qa_outputs",
    "vocab_transform",
    "vocab_layer_norm",
    "vocab_projector",
    "pooler",
    "seq_relationship",
];

/// Modules inside a backbone that come after its states, where a model has no use for them.
const AFTER: &[&str] = &["pooler"];

/// Ends of the names of buffers, which count 0, 1, 2, … or are zeros, and of masks and angles that models make
/// themselves.
const BUFFERS: &[&str] = &[
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    "rotary_emb.inv_freq",
    "attention.masked_bias",
    "attn.masked_bias",
    "attn.bias",
    "attention.bias",
];

impl Checkpoint {
    /// Refuses a checkpoint with a tensor that the model does not read and that may change what it computes. From here on
    /// matrices that the model's files hold transposed are read as the model has them.
    ///
    /// # Errors
    /// The first such tensor; a parameter that is there twice.
    pub fn check_read(&mut self, model: &dyn Model) -> Result<(), RunError> {
        let mut known: BTreeSet<String> = BTreeSet::new();
        let mut roots: BTreeSet<String> = BTreeSet::new();
        let mut turned = Vec::new();
        for param in anatomy(model).params {
            let names = model.checkpoint_names(&param.name);
            let mut present = names.iter().filter(|n| self.contains(n));
            if let Some(one) = present.next()
                && let Some(other) = present.find(|other| self.raw(one) != self.raw(other))
            {
                return Err(RunError::file(
                    self.path(),
                    format!("holds `{one}` and `{other}`, two values of one parameter; remove one"),
                ));
            }
            if !param.role.is_head() && !param.role.is_lm() {
                roots.extend(names.iter().filter_map(|n| root(n)).map(str::to_owned));
            }
            if model.transposed(&param.name) {
                turned.extend(names.iter().cloned());
            }
            known.extend(names);
        }
        for name in self.names().filter(|n| !known.contains(*n)) {
            let mut parts = name.split('.');
            let first = parts.next().unwrap_or_default();
            let second = parts.next().unwrap_or_default();
            let harmless = BUFFERS.iter().any(|end| name.ends_with(end))
                || OTHER_HEADS.contains(&first)
                || model.other_heads().contains(&first)
                || model.passes_over(name)
                || (roots.contains(first) && AFTER.contains(&second));
            if !harmless {
                return Err(RunError::file(
                    self.path(),
                    format!(
                        "holds `{name}`, which nothing here reads and which may change what the model computes; the \
                         config.json beside it may be another model's ({} has {} blocks), or the model has parts that are \
                         not built yet",
                        model.family(),
                        model.facts().layers
                    ),
                ));
            }
        }
        self.transpose(turned);
        Ok(())
    }
}

/// The first part of a path that has several.
fn root(name: &str) -> Option<&str> {
    name.split_once('.').map(|(first, _)| first)
}
