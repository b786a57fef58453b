//! Families of models that GGUF has too: their names there and here, the names of their tensors, and what is done to the
//! numbers in between.

/// A family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// `general.architecture`
    pub name: &'static str,
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// The class in transformers, without `ForCausalLM`.
    pub class: &'static str,
    /// Whether the rows of queries and keys are permuted: rotary positions turn neighbours, not halves.
    pub permuted: bool,
    /// Whether norms hold one more than their weight.
    pub plus_one: bool,
    /// Names of the tensors in a block that differ from LLaMA's.
    own: &'static [(&'static str, &'static str)],
}

/// What a family is that says nothing else.
const LLAMA: Family = Family {
    name: "llama",
    model_type: "llama",
    class: "Llama",
    permuted: true,
    plus_one: false,
    own: &[],
};

/// Norms behind the sub-layers too.
const BOTH: &[(&str, &str)] = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

/// Every family.
pub const FAMILIES: &[Family] = &[
    LLAMA,
    Family {
        name: "qwen2",
        model_type: "qwen2",
        class: "Qwen2",
        permuted: false,
        ..LLAMA
    },
    Family {
        name: "qwen3",
        model_type: "qwen3",
        class: "Qwen3",
        permuted: false,
        ..LLAMA
    },
    Family {
        name: "gemma",
        model_type: "gemma",
        class: "Gemma",
        permuted: false,
        plus_one: true,
        ..LLAMA
    },
    Family {
        name: "gemma2",
        model_type: "gemma2",
        class: "Gemma2",
        permuted: false,
        plus_one: true,
        own: BOTH,
    },
    Family {
        name: "gemma3",
        model_type: "gemma3_text",
        class: "Gemma3",
        permuted: false,
        plus_one: true,
        own: BOTH,
    },
    Family {
        name: "phi3",
        model_type: "phi3",
        class: "Phi3",
        permuted: false,
        own: &[("ffn_up", "mlp.gate_up_proj")],
        ..LLAMA
    },
    Family {
        name: "smollm3",
        model_type: "smollm3",
        class: "SmolLM3",
        ..LLAMA
    },
    Family {
        name: "olmo2",
        model_type: "olmo2",
        class: "Olmo2",
        permuted: false,
        own: &[
            ("post_attention_norm", "post_attention_layernorm"),
            ("post_ffw_norm", "post_feedforward_layernorm"),
        ],
        ..LLAMA
    },
    Family {
        name: "granite",
        model_type: "granite",
        class: "Granite",
        ..LLAMA
    },
];

/// Tensors outside of blocks.
const OUTSIDE: &[(&str, &str)] = &[
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// Modules of a block.
const INSIDE: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_qkv", "self_attn.qkv_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Factors of rotary frequencies, which are read with the config.
pub const FACTORS: [&str; 3] = [
    "rope_freqs.weight",
    "rope_factors_long.weight",
    "rope_factors_short.weight",
];

impl Family {
    /// The family of a name in GGUF.
    ///
    /// # Errors
    /// There is none, with those that there are.
    pub fn of(name: &str) -> Result<&'static Self, String> {
        FAMILIES.iter().find(|f| f.name == name).ok_or_else(|| {
            let built: Vec<&str> = FAMILIES.iter().map(|f| f.name).collect();
            format!(
                "it holds a model of the architecture `{name}`, which is not read from GGUF; those that are: {}",
                built.join(", ")
            )
        })
    }

    /// The family of a `model_type`.
    #[must_use]
    pub fn of_type(model_type: &str) -> Option<&'static Self> {
        // Mistral's models have LLaMA's architecture there.
        let name = if model_type == "mistral" {
            "llama"
        } else {
            model_type
        };
        FAMILIES.iter().find(|f| f.model_type == name)
    }

    fn modules(&self) -> impl Iterator<Item = &(&'static str, &'static str)> {
        let own = |(name, _): &&(&str, &str)| !self.own.iter().any(|(n, _)| n == name);
        self.own.iter().chain(INSIDE.iter().filter(own))
    }

    /// A tensor's name here.
    #[must_use]
    pub fn here(&self, name: &str) -> Option<String> {
        if let Some((_, own)) = OUTSIDE.iter().find(|(there, _)| *there == name) {
            return Some((*own).to_owned());
        }
        let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        let layer: u32 = layer.parse().ok()?;
        let (module, end) = rest.rsplit_once('.')?;
        let (_, own) = self.modules().find(|(there, _)| *there == module)?;
        Some(format!("model.layers.{layer}.{own}.{end}"))
    }

    /// A tensor's name there.
    #[must_use]
    pub fn there(&self, name: &str) -> Option<String> {
        if let Some((there, _)) = OUTSIDE.iter().find(|(_, own)| *own == name) {
            return Some((*there).to_owned());
        }
        let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let layer: u32 = layer.parse().ok()?;
        let (module, end) = rest.rsplit_once('.')?;
        let (there, _) = self.modules().find(|(_, own)| *own == module)?;
        Some(format!("blk.{layer}.{there}.{end}"))
    }

    /// Whether a tensor, by its name there, is one whose rows are permuted: of queries, or of keys.
    #[must_use]
    pub fn permutes(&self, name: &str) -> Option<Rows> {
        let module = name.rsplit_once('.')?.0;
        match module.rsplit('.').next()? {
            "attn_q" if self.permuted => Some(Rows::Queries),
            "attn_k" if self.permuted => Some(Rows::Keys),
            _ => None,
        }
    }

    /// Whether a tensor, by its name there, is a norm that holds one more than its weight.
    #[must_use]
    pub fn adds_one(&self, name: &str) -> bool {
        self.plus_one && name.ends_with("norm.weight")
    }
}

/// Whose heads the rows of a matrix are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Of queries.
    Queries,
    /// Of keys.
    Keys,
}

/// The row here of each row there, of so many rows in heads: of a head, GGUF has the pairs that are turned together side
/// by side, and here the first halves are in front of the second.
#[must_use]
pub fn here_of_there(row: u64, rows: u64, heads: u64) -> u64 {
    let head = rows / heads.max(1);
    let half = head / 2;
    if half == 0 {
        return row;
    }
    let (start, at) = (row / head * head, row % head);
    start + at % 2 * half + at / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for family in FAMILIES {
            for name in [
                "token_embd.weight",
                "blk.7.attn_q.weight",
                "blk.0.ffn_down.bias",
                "blk.1.ffn_up.weight",
            ] {
                let here = family.here(name).expect("known");
                assert_eq!(
                    family.there(&here).as_deref(),
                    Some(name),
                    "{}",
                    family.name
                );
            }
            let mut here: Vec<&str> = family.modules().map(|(_, own)| *own).collect();
            let count = here.len();
            here.sort_unstable();
            here.dedup();
            assert!(here.len() == count || family.name == "phi3" || family.name == "olmo2");
            let all = crate::library::model::ARCHITECTURES.iter();
            let mut all = all.flat_map(|a| a.model_types);
            assert!(all.any(|t| *t == family.model_type), "{}", family.name);
        }
        let gemma = Family::of("gemma2").expect("known");
        assert_eq!(
            gemma.here("blk.3.ffn_norm.weight").as_deref(),
            Some("model.layers.3.pre_feedforward_layernorm.weight")
        );
        assert!(
            gemma.here("blk.x.ffn_norm.weight").is_none()
                && gemma.here("blk.3.ffn_gate_exps.weight").is_none()
        );
        assert!(Family::of("mamba").is_err_and(|e| e.contains("`mamba`") && e.contains("qwen3")));
    }

    #[test]
    fn rows_are_those_of_llama_cpps_permutation() {
        // `w.reshape(heads, 2, head / 2).swapaxes(1, 2)` of rows 0 … 15 in two heads.
        let there = [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15];
        for (row, here) in there.into_iter().enumerate() {
            assert_eq!(here_of_there(row as u64, 16, 2), here);
        }
    }
}
