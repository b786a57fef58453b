//! LLaMA-Adapter: trained prompts that each attention of the upper blocks reads beside its tokens, behind a gate that starts
//! shut.

use serde_json::{Map, Value as Json, json};

use super::super::net::{Attend, Init, Param, Part};
use super::super::peft::{Fate, Keys, Make, Misfit, Reading, Taken};
use super::super::schema::{Checked, Given, Maybe, kind};
use super::{
    At, Facts, Lookup, Method, Net, PeftForm, PeftKeys, PeftTensor, Schema, Site, Stacking, Value,
    Values,
};
use crate::library::placement::Placement;
use crate::program::op::{BinaryKind, Broadcast};

/// Gated prompts in attention.
#[derive(Debug)]
pub struct LlamaAdapter;

const TOKENS: Given<u64> = Given::<u64>::new(
    "tokens",
    kind::int(1, 1 << 20),
    (10, "10"),
    "rows of each prompt",
);
const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "attention",
    "the attentions that read a prompt; the paper takes the upper blocks, as `layers[2..].attention` of 32",
);

static SCHEMA: Schema = Schema {
    name: "llama_adapter",
    summary: "LLaMA-Adapter: trained prompts in the attentions, behind a gate that starts at zero",
    doc: "To what the attention of a block gives, g · softmax(q (A W_Kᵀ)ᵀ / √head) (A W_Vᵀ) is added, with A [tokens, hidden] trained \
          from a normal distribution, g one trained number from 0 on, so that the model starts unchanged, W_K and W_V the block's own \
          maps, and q its queries with their positions. The prompt's keys have no positions, and its softmax is its own. \
          Backward reaches the lowest block with a prompt; 16 bytes a trained number. It cannot be merged. In peft it is \
          ADAPTION_PROMPT, on the models that peft knows it for.",
    paper: "Zhang et al. 2023 (arXiv 2303.16199), section 3",
    keys: &[TOKENS.key(), ON.key()],
};

/// Its tensors at an attention: the prompt and the gate.
const PARTS: [&str; 2] = ["adaption_prompt", "adaption_gate"];

const PEFT_KEYS: Keys = &[("adapter_layers", Fate::Used), ("adapter_len", Fate::Used)];

impl Method for LlamaAdapter {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn adapts(&self) -> bool {
        true
    }

    fn folds(&self) -> bool {
        false
    }

    fn fits(&self, site: &Site) -> bool {
        matches!(site.part, Part::Attention { .. })
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn attention(&self, at: &At<'_>, net: &mut Net<'_>, of: Attend) -> Value {
        let count = TOKENS.get(at.values);
        let prompt = Param::at(at.site, "adaption_prompt").shape(&[count, of.maps.width()]);
        let prompt = net.tensor(prompt.start(Init::Normal(1.0)));
        let gate = net.tensor(Param::at(at.site, "adaption_gate").shape(&[1]));
        let keys = of.maps.key.of(net, prompt);
        let values = of.maps.value.of(net, prompt);
        let beside = net.attend_to((&of.op, of.queries), count, (keys, values));
        let own = at.attention(net, of);
        let beside = net.binary(BinaryKind::Mul, Broadcast::Scalar, beside, gate);
        net.add(own, beside)
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "ADAPTION_PROMPT").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let sites: Vec<&Site> = file
            .parts()
            .others
            .iter()
            .filter(|s| self.fits(s))
            .collect();
        let upper = file.config().positive("adapter_layers", 1)?;
        let upper = (sites.len() as u64).saturating_sub(upper) as usize;
        for site in sites.iter().skip(upper) {
            if !site.path.ends_with(".self_attn") {
                // peft adds to what the output map gives there.
                return Err(Misfit::not_built("an ADAPTION_PROMPT on such a model"));
            }
            let module = file.theirs(&site.path).to_owned();
            let name = |suffix: &str| format!("{module}.{suffix}");
            let shape = file.shape(&name(PARTS[0])).unwrap_or_default();
            let (count, width) = match *shape {
                [1, count, width] => (count, width),
                _ => (file.config().positive("adapter_len", 1)?, site.output()),
            };
            file.check_shape(&name(PARTS[0]), &[1, count, width])?;
            file.make(Taken {
                own: format!("{}.{}", site.path, PARTS[0]),
                shape: vec![count, width],
                from: vec![name(PARTS[0])],
                make: Make::Same,
            })?;
            file.take(&name(PARTS[1]), format!("{}.{}", site.path, PARTS[1]), &[1])?;
            file.idle(&name(PARTS[1]), 0.0);
            file.put(&Self, site, vec![(TOKENS.name(), Checked::Int(count))]);
        }
        Ok(())
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        Some(PeftForm {
            kind: "ADAPTION_PROMPT",
            keys: vec![("adapter_len", json!(TOKENS.get(values)))],
            product: None,
        })
    }

    fn prompt_keys(&self, _: &Values, facts: &Facts, sites: &[&Site]) -> PeftKeys {
        // peft counts from the last block backwards.
        let count = sites.len() as u64;
        let upper = facts.layers.saturating_sub(count)..facts.layers;
        let layers: Vec<u64> = sites.iter().filter_map(|site| site.layer).collect();
        if !upper.eq(layers) {
            return Vec::new();
        }
        vec![
            ("adapter_layers", json!(count)),
            ("target_modules", json!("self_attn")),
        ]
    }

    fn peft_tensors(&self, values: &Values, _: &Site, get: &Lookup<'_>) -> Option<Vec<PeftTensor>> {
        let prompt = get("adaption_prompt")?;
        let count = TOKENS.get(values) as usize;
        let width = prompt.len() / count.max(1);
        let dims = vec![1, count, width];
        let gate = get("adaption_gate")?;
        Some(vec![
            ("adaption_prompt".to_owned(), dims, prompt),
            ("adaption_gate".to_owned(), vec![1], gate),
        ])
    }
}
