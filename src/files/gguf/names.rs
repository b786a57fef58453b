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
    /// Whether queries, keys and values of all heads follow each other there, where they do so within each head here.
    pub regrouped: bool,
    /// Whether norms hold one more than their weight.
    pub plus_one: bool,
    /// Whether norms take the mean away.
    pub layer_norm: bool,
    /// The path before a block's number here.
    layers: &'static str,
    /// Tensors outside of blocks.
    outside: &'static [(&'static str, &'static str)],
    /// Modules of a block.
    inside: &'static [(&'static str, &'static str)],
    /// Modules of a block whose names differ from these.
    own: &'static [(&'static str, &'static str)],
}

/// What a family is that says nothing else.
const LLAMA: Family = Family {
    name: "llama",
    model_type: "llama",
    class: "Llama",
    permuted: true,
    regrouped: false,
    plus_one: false,
    layer_norm: false,
    layers: "model.layers.",
    outside: OUTSIDE,
    inside: INSIDE,
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
        ..LLAMA
    },
    Family {
        name: "gemma3",
        model_type: "gemma3_text",
        class: "Gemma3",
        permuted: false,
        plus_one: true,
        own: BOTH,
        ..LLAMA
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
    Family {
        name: "gpt2",
        model_type: "gpt2",
        class: "GPT2",
        permuted: false,
        layer_norm: true,
        layers: "transformer.h.",
        outside: &[
            ("token_embd", "transformer.wte"),
            ("position_embd", "transformer.wpe"),
            ("output_norm", "transformer.ln_f"),
            ("output", "lm_head"),
        ],
        inside: &[
            ("attn_norm", "ln_1"),
            ("attn_qkv", "attn.c_attn"),
            ("attn_output", "attn.c_proj"),
            ("ffn_norm", "ln_2"),
            ("ffn_up", "mlp.c_fc"),
            ("ffn_down", "mlp.c_proj"),
        ],
        ..LLAMA
    },
    Family {
        name: "gptneox",
        model_type: "gpt_neox",
        class: "GPTNeoX",
        permuted: false,
        regrouped: true,
        layer_norm: true,
        layers: "gpt_neox.layers.",
        outside: &[
            ("token_embd", "gpt_neox.embed_in"),
            ("output_norm", "gpt_neox.final_layer_norm"),
            ("output", "embed_out"),
        ],
        inside: &[
            ("attn_norm", "input_layernorm"),
            ("attn_qkv", "attention.query_key_value"),
            ("attn_output", "attention.dense"),
            ("ffn_norm", "post_attention_layernorm"),
            ("ffn_up", "mlp.dense_h_to_4h"),
            ("ffn_down", "mlp.dense_4h_to_h"),
        ],
        ..LLAMA
    },
];

/// LLaMA's modules outside of blocks.
const OUTSIDE: &[(&str, &str)] = &[
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
];

/// LLaMA's modules of a block.
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
    /// The class of its language models in transformers.
    #[must_use]
    pub fn lm_class(&self) -> String {
        match self.name {
            "gpt2" => "GPT2LMHeadModel".to_owned(),
            _ => format!("{}ForCausalLM", self.class),
        }
    }

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
        self.own.iter().chain(self.inside.iter().filter(own))
    }

    /// A tensor's name here.
    #[must_use]
    pub fn here(&self, name: &str) -> Option<String> {
        let (module, end) = name.rsplit_once('.')?;
        if let Some((_, own)) = self.outside.iter().find(|(there, _)| *there == module) {
            return Some(format!("{own}.{end}"));
        }
        let (layer, module) = module.strip_prefix("blk.")?.split_once('.')?;
        let layer: u32 = layer.parse().ok()?;
        let (_, own) = self.modules().find(|(there, _)| *there == module)?;
        Some(format!("{}{layer}.{own}.{end}", self.layers))
    }

    /// A tensor's name there.
    #[must_use]
    pub fn there(&self, name: &str) -> Option<String> {
        let (module, end) = name.rsplit_once('.')?;
        if let Some((there, _)) = self.outside.iter().find(|(_, own)| *own == module) {
            return Some(format!("{there}.{end}"));
        }
        let (layer, module) = module.strip_prefix(self.layers)?.split_once('.')?;
        let layer: u32 = layer.parse().ok()?;
        let (there, _) = self.modules().find(|(_, own)| *own == module)?;
        Some(format!("blk.{layer}.{there}.{end}"))
    }

    /// In which order the rows of a tensor, by its name there, are, where it is another than here; of a model with so many
    /// heads of queries, and of keys.
    #[must_use]
    pub fn order(&self, name: &str, (queries, keys): (u64, u64)) -> Option<Order> {
        let module = name.rsplit_once('.')?.0;
        match module.rsplit('.').next()? {
            "attn_q" if self.permuted => Some(Order::Pairs(queries)),
            "attn_k" if self.permuted => Some(Order::Pairs(keys)),
            "attn_qkv" if self.regrouped => Some(Order::Thirds(queries)),
            _ => None,
        }
    }

    /// Whether a tensor, by its name there, is a norm that holds one more than its weight.
    #[must_use]
    pub fn adds_one(&self, name: &str) -> bool {
        self.plus_one && name.ends_with("norm.weight")
    }
}

/// An order of rows, in so many heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Of a head, GGUF has the pairs that are turned together side by side, and here the first halves are in front of the
    /// second.
    Pairs(u64),
    /// GGUF has the queries of all heads, then their keys, then their values; here each head has the three of its own.
    Thirds(u64),
}

impl Order {
    /// Rows of a head are a multiple of this, in so many heads.
    #[must_use]
    pub const fn parts(self) -> (u64, u64) {
        match self {
            Self::Pairs(heads) => (2, heads),
            Self::Thirds(heads) => (3, heads),
        }
    }

    /// The row here of a row there, of so many.
    #[must_use]
    pub fn here(self, row: u64, rows: u64) -> u64 {
        let (parts, heads) = self.parts();
        let head = rows / heads.max(1);
        let each = head / parts;
        if each == 0 {
            return row;
        }
        match self {
            Self::Pairs(_) => {
                let (start, at) = (row / head * head, row % head);
                start + at % parts * each + at / parts
            }
            Self::Thirds(_) => {
                let (part, at) = (row / (rows / parts), row % (rows / parts));
                at / each * head + part * each + at % each
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for family in FAMILIES {
            let map = if family.layer_norm {
                "blk.7.attn_qkv.weight"
            } else {
                "blk.7.attn_q.weight"
            };
            for name in [
                "token_embd.weight",
                "output_norm.weight",
                map,
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
            assert_eq!(Order::Pairs(2).here(row as u64, 16), here);
        }
    }

    #[test]
    fn queries_keys_and_values_are_grouped_by_head() {
        // The converter takes `w.reshape(heads, 3, each)[:, i]` for each of the three: here two heads of two columns.
        let there = [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11];
        for (row, here) in there.into_iter().enumerate() {
            assert_eq!(Order::Thirds(2).here(row as u64, 12), here);
        }
    }
}
