//! Prompt tuning (methods A8): P trained rows stand before each text's embeddings, and nothing of the model changes.

use serde_json::{Map, Value as Json, json};

use super::super::derive::{BaseParam, TableRows};
use super::super::net::{Init, Param, ParamKind, Part, Role};
use super::super::peft::{Fate, Keys, Misfit, Reading, START};
use super::super::schema::{Bound, Checked, Given, Maybe, kind};
use super::{
    At, Complaint, Facts, Marking, Method, Net, PeftForm, PeftKeys, Schema, Site, Stacking, Value,
    Values,
};
use crate::base::rng::Stream;
use crate::library::counts::to_u32;
use crate::library::error::BAD_VIRTUAL_TOKENS;
use crate::library::placement::Placement;
use crate::program::Real;

/// Virtual tokens that are trained.
#[derive(Debug)]
pub struct PromptTuning;

pub(super) const TOKENS: Given<u64> = Given::<u64>::new(
    "tokens",
    kind::int(1, 1 << 20),
    (20, "20"),
    "virtual tokens before each text; they count among the model's positions",
);
pub(super) const PLACE: Given<str> = Given::<str>::new(
    "place",
    kind::choice(&["first", "behind_first"]),
    ("first", "first"),
    "where they stand: before a text's first token, as peft puts them, or behind it, so that a head that reads the first token reads that of the text",
);
pub(super) const INIT: Given<str> = Given::<str>::new(
    "init",
    kind::choice(&["normal", "uniform", "vocabulary"]),
    ("normal", "normal"),
    "first values: normal of deviation `deviation`, uniform in ±0.5, or the embeddings of tokens drawn from the vocabulary",
);
pub(super) const DEVIATION: Given<f64> = Given::<f64>::new(
    "deviation",
    kind::float(Bound::Incl(0.0), Bound::None),
    (1.0, "1"),
    "standard deviation of `init = normal`; embeddings of pretrained models are much smaller than peft's 1",
);
pub(crate) const TOKEN_IDS: Maybe<[String]> = Maybe::new(
    "token_ids",
    kind::NUMBERS,
    "ids of the tokens whose embeddings the virtual tokens start at, from the first again where there are fewer",
);
pub(crate) const TEXT: Maybe<str> = Maybe::new(
    "text",
    kind::STR,
    "text whose tokens the virtual tokens start at, special ones included, from the first again where there are fewer",
);
pub(super) const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "embeddings.word",
    "the table of embeddings; there is one",
);

static SCHEMA: Schema = Schema {
    name: "prompt_tuning",
    summary: "prompt tuning: trained virtual tokens before each text",
    doc: "The embeddings of each text, E [T, hidden], become [P; E] with P [tokens, hidden] trained; positions and segments are \
          those of texts that begin with so many more tokens, so the longest text is shorter by them. What the model attends to, \
          predicts and generates sees them like any other token. A head on the first token reads the first virtual one, as in \
          peft, unless `place = behind_first`. Backward goes through the whole model and keeps its activations; 16 bytes a \
          trained number. It cannot be merged. In peft it is PROMPT_TUNING.",
    paper: "Lester et al. 2021 (arXiv 2104.08691)",
    keys: &[
        TOKENS.key(),
        INIT.key(),
        DEVIATION.key(),
        TEXT.key(),
        TOKEN_IDS.key(),
        PLACE.key(),
        ON.key(),
    ],
};

/// Virtual tokens in each text.
pub(super) fn marking(values: &Values) -> Marking {
    Marking {
        virtual_tokens: to_u32(TOKENS.get(values)),
        behind_first: PLACE.get(values) == "behind_first",
        specials: false,
    }
}

/// Whether it is the table of words.
pub(super) fn is_words(site: &Site) -> bool {
    matches!(site.part, Part::Table { .. }) && site.role == Role::WordEmbedding
}

/// `count` rows of the site's table.
pub(super) fn rows_of(site: &Site, rows: Vec<u32>, scale: f64) -> Init {
    let name = format!("{}.weight", site.path);
    let shape = [site.input(), site.output()];
    let table = BaseParam::new(name, &shape, ParamKind::Embedding);
    let scale = Real::new(scale);
    let by = TableRows { table, rows, scale }.into();
    Init::Derived { by, part: 0 }
}

/// What virtual tokens start at.
fn start(values: &Values, site: &Site, (seed, scale): (u64, f64)) -> Init {
    let count = TOKENS.get(values) as usize;
    if let Some(ids) = TOKEN_IDS.get(values) {
        let ids: Vec<u32> = ids.iter().filter_map(|id| id.parse().ok()).collect();
        return rows_of(
            site,
            ids.iter().copied().cycle().take(count).collect(),
            scale,
        );
    }
    match INIT.find(values) {
        Some("uniform") => Init::Uniform(0.5),
        Some("vocabulary") => {
            let stream = Stream::new(seed, "virtual tokens");
            let drawn = |i: u64| {
                let [word, ..] = stream.block([to_u32(i), 0, 0, 0]);
                to_u32((u64::from(word) * site.input()) >> 32)
            };
            rows_of(site, (0..count as u64).map(drawn).collect(), scale)
        }
        _ => Init::Normal(DEVIATION.get(values)),
    }
}

/// What is wrong with ids of tokens for a table.
pub(super) fn check_ids(values: &Values, site: &Site) -> Option<Complaint> {
    let ids = TOKEN_IDS.get(values)?;
    let inside = |id: &&String| id.parse::<u64>().is_ok_and(|id| id < site.input());
    let outside = ids.iter().find(|id| !inside(id));
    let message = match outside {
        Some(id) => format!(
            "`{}` has {} rows, and none is {id}",
            site.path,
            site.input()
        ),
        None if ids.is_empty() => "there is no token to start at".to_owned(),
        None => return None,
    };
    Some(Complaint {
        key: TOKEN_IDS.name(),
        code: &BAD_VIRTUAL_TOKENS,
        message,
        help: Some("write ids of the tokenizer's vocabulary".to_owned()),
    })
}

/// The tensor of peft's that holds a prompt or a prefix.
pub(super) const PROMPT: &str = "prompt_embeddings";

/// Why a size in a config does not matter.
pub(super) const SIZES: Fate = Fate::WithoutEffect("the model and the tensor say it");

/// How many virtual tokens a file has.
///
/// # Errors
/// The tensor is not there, or has another number of rows than the config says.
pub(super) fn count(file: &Reading<'_>) -> Result<u64, Misfit> {
    let rows = file.shape(PROMPT).and_then(|shape| shape.first().copied());
    let rows = rows.ok_or_else(|| Misfit::damaged(format!("the adapter has no `{PROMPT}`")))?;
    let said = file.config().positive("num_virtual_tokens", rows.max(1))?;
    if said == rows {
        Ok(rows)
    } else {
        Err(Misfit::of_config(format!(
            "`{PROMPT}` has {rows} rows, and `num_virtual_tokens` is {said}"
        )))
    }
}

const PEFT_KEYS: Keys = &[
    ("num_attention_heads", SIZES),
    ("num_layers", SIZES),
    ("num_transformer_submodules", Fate::Only(&["1"])),
    ("num_virtual_tokens", Fate::Used),
    ("prompt_tuning_init", Fate::WithoutEffect(START)),
    ("prompt_tuning_init_text", Fate::WithoutEffect(START)),
    ("token_dim", SIZES),
    ("tokenizer_kwargs", Fate::WithoutEffect(START)),
    ("tokenizer_name_or_path", Fate::WithoutEffect(START)),
];

/// Why the network of P-tuning does not matter.
const ENCODED: Fate =
    Fate::WithoutEffect("the network is not in the file, which holds what it made");

/// Why the bounds and weights of context-aware prompts do not matter.
const TRAINING: Fate =
    Fate::WithoutEffect("belongs to peft's training; here it is trained on as a plain prompt");

const CONTEXT_KEYS: Keys = &[
    ("cpt_mask", TRAINING),
    ("cpt_token_ids", Fate::WithoutEffect(START)),
    ("cpt_tokens_type_mask", TRAINING),
    ("num_attention_heads", SIZES),
    ("num_layers", SIZES),
    ("num_transformer_submodules", Fate::Only(&["1"])),
    ("num_virtual_tokens", Fate::Used),
    ("opt_loss_decay_factor", TRAINING),
    ("opt_projection_epsilon", TRAINING),
    ("opt_projection_format_epsilon", TRAINING),
    ("opt_weighted_loss_type", TRAINING),
    ("token_dim", SIZES),
    ("tokenizer_name_or_path", Fate::WithoutEffect(START)),
];

const ENCODED_KEYS: Keys = &[
    ("encoder_dropout", ENCODED),
    ("encoder_hidden_size", ENCODED),
    ("encoder_num_layers", ENCODED),
    ("encoder_reparameterization_type", ENCODED),
    ("num_attention_heads", SIZES),
    ("num_layers", SIZES),
    ("num_transformer_submodules", Fate::Only(&["1"])),
    ("num_virtual_tokens", Fate::Used),
    ("token_dim", SIZES),
];

/// The keys of every config of peft's that has virtual tokens.
pub(super) fn peft_keys(count: u64, facts: &Facts) -> PeftKeys {
    vec![
        ("num_virtual_tokens", json!(count)),
        ("num_transformer_submodules", json!(1)),
        ("num_layers", json!(facts.layers)),
        ("num_attention_heads", json!(facts.heads)),
        ("token_dim", json!(facts.embedding)),
    ]
}

/// What a prompt is in peft.
pub(super) fn form() -> PeftForm {
    PeftForm {
        kind: "PROMPT_TUNING",
        keys: vec![
            ("prompt_tuning_init", json!("RANDOM")),
            ("prompt_tuning_init_text", json!(null)),
            ("tokenizer_name_or_path", json!(null)),
            ("tokenizer_kwargs", json!(null)),
        ],
        product: None,
    }
}

impl Method for PromptTuning {
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
        is_words(site)
    }

    fn stacking(&self) -> Stacking {
        Stacking::Over
    }

    fn check(&self, values: &Values, site: &Site) -> Option<Complaint> {
        check_ids(values, site)
    }

    fn text<'a>(&self, values: &'a Values) -> Option<&'a str> {
        TEXT.get(values)
    }

    fn marking(&self, values: &Values) -> Marking {
        marking(values)
    }

    fn embedded(&self, at: &At<'_>, net: &mut Net<'_>, rows: Value) -> Value {
        let prompt = prompt(at.values, at.site, net);
        net.replaced(rows, prompt)
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        match kind {
            "PROMPT_TUNING" => Some(PEFT_KEYS),
            // What its network made is a prompt.
            "P_TUNING" => Some(ENCODED_KEYS),
            // What its context and its bounds trained is a prompt, too.
            "CPT" => Some(CONTEXT_KEYS),
            _ => None,
        }
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let count = count(file)?;
        let site = file.parts().others.iter().find(|s| is_words(s));
        let site = site.ok_or_else(|| Misfit::not_built("a prompt before such a model"))?;
        let own = format!("{}.prompt", site.path);
        file.take(PROMPT, own, &[count, site.output()])?;
        file.put(&Self, site, vec![(TOKENS.name(), Checked::Int(count))]);
        Ok(())
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        // peft puts them first.
        (PLACE.get(values) == "first").then(form)
    }

    fn prompt_keys(&self, values: &Values, facts: &Facts, _: &[&Site]) -> PeftKeys {
        peft_keys(TOKENS.get(values), facts)
    }

    fn prompt_rows(&self, values: &Values, sites: &[&Site], net: &mut Net<'_>) -> Vec<Value> {
        let sites = sites.iter();
        sites.map(|site| prompt(values, site, net)).collect()
    }
}

/// The rows that stand for the virtual tokens.
pub(super) fn prompt(values: &Values, site: &Site, net: &mut Net<'_>) -> Value {
    let prompt = Param::at(site, "prompt").shape(&[TOKENS.get(values), site.output()]);
    let start = start(values, site, (net.seed(), net.table_scale()));
    net.tensor(prompt.start(start))
}
