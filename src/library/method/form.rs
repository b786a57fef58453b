//! What methods say of themselves: complaints about values, masks, selections, their form in peft's format.

use serde_json::{Value as Json, json};

use super::super::derive::places::Measure;

/// A complaint about a value, found when a method meets a model.
#[derive(Clone, Debug)]
pub struct Complaint {
    /// The key to blame.
    pub key: &'static str,
    /// What kind of diagnostic.
    pub code: &'static crate::base::Code,
    /// The fact.
    pub message: String,
    /// What to type instead.
    pub help: Option<String>,
}

/// What an adapter is in the format of the library `peft`.
#[derive(Clone, Debug, PartialEq)]
pub struct PeftForm {
    /// The config's `peft_type`.
    pub kind: &'static str,
    /// The config's keys beside those of every adapter; the same at all sites.
    pub keys: Vec<(&'static str, Json)>,
    /// The product that is added at a site, for kinds that let sites differ in it.
    pub product: Option<Product>,
}

/// A product `scale · B A` that peft adds to a weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Product {
    /// Rank of the pair.
    pub rank: u64,
    /// Factor of the update.
    pub scale: f64,
    /// Dropout before A in training.
    pub dropout: f64,
    /// Whether it scales by `alpha / √rank`.
    pub rs_lora: bool,
}

impl PeftForm {
    /// peft's LoRA, with its keys that say the same at all sites; `dora` for one with magnitudes.
    #[must_use]
    pub fn lora(product: Product, dora: bool) -> Self {
        let keys = vec![
            ("bias", json!("none")),
            ("fan_in_fan_out", json!(false)),
            ("init_lora_weights", json!(true)),
            ("layers_pattern", Json::Null),
            ("layers_to_transform", Json::Null),
            ("use_dora", json!(dora)),
        ];
        Self {
            kind: "LORA",
            keys,
            product: Some(product),
        }
    }
}

/// Keys of a config of peft's.
pub type PeftKeys = Vec<(&'static str, Json)>;

/// A tensor of an adapter in peft's format: name, shape, elements.
pub type PeftTensor = (String, Vec<usize>, Vec<f32>);

/// Keys of the config, and tensors of all sites, named below the model: what [`super::Method::peft_together`] gives.
pub type PeftTogether = Option<(Vec<(&'static str, Json)>, Vec<PeftTensor>)>;

/// A tensor of an exported adapter, made of resident tensors by name.
pub type Lookup<'a> = dyn Fn(&str) -> Option<Vec<f32>> + 'a;

/// A part of each update of the model's own weights that is let through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Masking {
    /// Share of the numbers.
    pub keep: f64,
    /// The gradients that choose the numbers of the blocks once; drawn in each step, of all tensors, if there are none.
    pub fixed: Option<Measure>,
    /// Whether the mask acts on the whole update, and not on its gradient alone.
    pub whole: bool,
}

/// How places that are trained change while training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Selecting {
    /// Whether new places are those with the largest products of second moments by row and column (SM3), and not those with
    /// the largest gradients.
    pub sm3: bool,
    /// Whether candidates come from the gradient of a whole step, and not from that of its first micro-batch.
    pub whole: bool,
    /// Steps from one change to the next.
    pub period: u64,
    /// Steps over which gradients are added up.
    pub accumulate: u64,
    /// Share of the places that change, at the first step.
    pub rate: f64,
    /// Whether that share falls as a cosine does, and not evenly.
    pub cosine: bool,
}
/// A whole number where it is one but for rounding: peft declares its scales as integers.
#[must_use]
pub fn number(x: f64) -> Json {
    let whole = x.round();
    if (x - whole).abs() <= 1e-12 * whole.abs() && whole.abs() < 1e15 {
        json!(whole as i64)
    } else {
        json!(x)
    }
}
