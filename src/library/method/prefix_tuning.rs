//! Prefix tuning (methods A6, A7): P trained keys and values before those of each text, in every attention.

use serde_json::{Map, Value as Json, json};

use super::super::model::Reserved;
use super::super::net::{Attend, Init, Param, Part, Text};
use super::super::peft::{Fate, Floats, Keys, Make, Misfit, Reading, START, Taken};
use super::super::schema::{Checked, Given, Maybe, kind};
use super::begun::{self, TEXT, TOKEN_IDS};
use super::encoder::map;
use super::prompt_tuning::{PROMPT, SIZES, count};
use super::{
    At, Complaint, Facts, Method, Net, PeftForm, PeftKeys, Schema, Site, Stacking, Value, Values,
};
use crate::library::counts::to_u32;
use crate::library::error::BAD_VIRTUAL_TOKENS;
use crate::library::placement::Placement;
use crate::program::op::ActivationKind;

/// Trained keys and values before each text.
#[derive(Debug)]
pub struct PrefixTuning;

const TOKENS: Given<u64> = Given::<u64>::new(
    "tokens",
    kind::int(1, 1 << 20),
    (20, "20"),
    "keys and values before each text",
);
const PROJECTION: Given<bool> = Given::<bool>::new(
    "projection",
    kind::BOOL,
    (false, "false"),
    "learn them by way of a small network that all blocks share but for its last map, as Li and Liang do",
);
const HIDDEN: Given<u64> = Given::<u64>::new(
    "hidden",
    kind::int(1, 1 << 20),
    (512, "512"),
    "width of the network of `projection = true`",
);
const INIT: Given<str> = Given::<str>::new(
    "init",
    kind::choice(&["normal", "zero", "vocabulary"]),
    ("normal", "normal"),
    "first values: those of PyTorch's embeddings and linear maps; zero for what becomes keys and values; or the keys and values that the model has of tokens drawn from the vocabulary, as MeZO's prefixes begin",
);
const SHIFT: Given<bool> = Given::<bool>::new(
    "shift_positions",
    kind::BOOL,
    (true, "true"),
    "count a text's positions from behind the prefix on, as peft and P-tuning v2 do; otherwise they stay as they are, as in the library `adapters`",
);
pub(super) const ON: Maybe<Placement> = Maybe::filled(
    "on",
    kind::PLACEMENT,
    "attention",
    "the attentions that get a prefix",
);

static SCHEMA: Schema = Schema {
    name: "prefix_tuning",
    summary: "prefix tuning and P-tuning v2: trained keys and values before those of each text, in every attention",
    doc: "Each attention reads [P_K; K] and [P_V; V] in the place of its keys and values, with P_K and P_V [tokens, width of keys] \
          trained; queries and all else stay. They stand before a text like tokens that were read earlier: causal attention sees \
          them all, a sliding window those within it. With `projection = true` they are Linear(tanh(Linear(E))) of trained rows \
          E [tokens, width of keys], and the network trains too; its artifact keeps it, and peft gets what it makes. Without it this \
          is P-tuning v2, whose dropout on the prefix is not built; it can start as the keys and values that the unchanged model has of a \
          `text`, or of tokens drawn from the vocabulary, which it reads once before the first step. With `shift_positions` the longest text is shorter by the \
          prefix. Backward reaches the attention of every block; 16 bytes a trained number. It cannot be merged. In peft it \
          is PREFIX_TUNING.",
    paper: "Li and Liang 2021 (arXiv 2101.00190); Liu et al. 2022, P-tuning v2 (arXiv 2110.07602)",
    keys: &[
        TOKENS.key(),
        PROJECTION.key(),
        HIDDEN.key(),
        INIT.key(),
        TEXT.key(),
        TOKEN_IDS.key(),
        SHIFT.key(),
        ON.key(),
    ],
};

/// Why the network of `projection = true` does not matter.
const MADE: Fate = Fate::WithoutEffect("the file holds what the network made");

const PEFT_KEYS: Keys = &[
    ("encoder_hidden_size", MADE),
    ("init_weights", Fate::WithoutEffect(START)),
    ("num_attention_heads", SIZES),
    ("num_layers", SIZES),
    ("num_transformer_submodules", Fate::Only(&["1"])),
    ("num_virtual_tokens", Fate::Used),
    ("prefix_projection", MADE),
    ("token_dim", SIZES),
];

/// Keys and values of the prefix at a site, `[P, width]` both.
fn rows(values: &Values, site: &Site, net: &mut Net<'_>) -> (Value, Value) {
    let (count, width) = (TOKENS.get(values), site.input());
    if !PROJECTION.get(values) {
        let start = |is_value: bool| {
            let given = begun::start(values, site, (count, [0, count], is_value));
            given.unwrap_or_else(|| match INIT.get(values) {
                "zero" => Init::Constant(0.0),
                "vocabulary" => begun::cached(site, Text::Drawn(count), ([0, count], is_value)),
                _ => Init::Normal(1.0),
            })
        };
        let mut part = |name: &str| {
            let param = Param::at(site, &format!("prefix.{name}")).shape(&[count, width]);
            net.tensor(param.start(start(name == "value")))
        };
        return (part("key"), part("value"));
    }
    let hidden = HIDDEN.get(values);
    let embedding = Param::shared("prefix.embedding").shape(&[count, width]);
    let embedding = net.tensor(embedding.start(Init::Normal(1.0)));
    let down = |kind: &str| Param::shared(format!("prefix.down.{kind}"));
    let (weight, bias) = map(net, &down, (hidden, width));
    let z = net.dense(embedding, weight, bias);
    let z = net.activation(ActivationKind::Tanh, z);
    let zero = INIT.get(values) == "zero";
    let mut part = |name: &str| {
        let made = |kind: &str| Param::at(site, &format!("prefix.{name}.{kind}"));
        let (weight, bias) = if zero {
            let part = |kind: &str, shape: &[u64]| made(kind).shape(shape);
            let (weight, bias) = (part("weight", &[width, hidden]), part("bias", &[width]));
            (net.tensor(weight), net.tensor(bias))
        } else {
            map(net, &made, (width, hidden))
        };
        net.dense(z, weight, bias)
    };
    (part("key"), part("value"))
}

/// Some rows and columns of peft's tensor of a prefix, as a parameter of this name.
pub(super) fn cut(own: String, rows: [u64; 2], columns: [u64; 2]) -> Taken {
    let ([first, last], [from, to]) = (rows, columns);
    let make = Make::by(move |all: &[Floats]| {
        let (shape, data) = all.first().ok_or("there is no tensor")?;
        let width = shape.get(1).map_or(1, |&n| n.max(1));
        let rows = data.chunks(width).skip(first as usize);
        let rows = rows.take((last - first) as usize);
        let cut = rows.filter_map(|row| row.get(from as usize..to as usize));
        Ok(cut.flatten().copied().collect())
    });
    Taken {
        own,
        shape: vec![last - first, to - from],
        from: vec![PROMPT.to_owned()],
        make,
    }
}

/// The keys of a config of peft's for so many keys and values at these attentions. None where a block runs several times:
/// peft has a prefix for each run.
pub(super) fn peft_keys(count: u64, facts: &Facts, sites: &[&Site]) -> PeftKeys {
    if facts.blocks < facts.layers {
        return Vec::new();
    }
    let heads = sites.first().map(|site| match site.part {
        Part::Attention { keys, head, .. } => (keys, keys * head),
        _ => (facts.heads, facts.hidden),
    });
    let (heads, width) = heads.unwrap_or((facts.heads, facts.hidden));
    vec![
        ("num_virtual_tokens", json!(count)),
        ("num_transformer_submodules", json!(1)),
        ("num_layers", json!(facts.layers)),
        ("num_attention_heads", json!(heads)),
        ("token_dim", json!(width)),
    ]
}

impl Method for PrefixTuning {
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

    fn text<'a>(&self, values: &'a Values) -> Option<&'a str> {
        TEXT.get(values)
    }

    fn check(&self, values: &Values, _: &Site) -> Option<Complaint> {
        let written = [
            (TOKEN_IDS.name(), TOKEN_IDS.get(values).is_some()),
            (INIT.name(), INIT.get(values) == "vocabulary"),
        ];
        let made = written.into_iter().find(|(_, written)| *written);
        let made = made.filter(|_| PROJECTION.get(values)).map(|(key, _)| Complaint {
            key,
            code: &BAD_VIRTUAL_TOKENS,
            message: "the network of `projection = true` makes keys and values, so that they cannot start as a text's".to_owned(),
            help: Some("remove `projection = true`, or start from random numbers".to_owned()),
        });
        made.or_else(|| begun::check(values, TOKENS.get(values)))
    }

    fn reserved(&self, values: &Values) -> Reserved {
        Reserved {
            prefix: to_u32(TOKENS.get(values)),
            shifts: SHIFT.get(values),
            within: 0,
        }
    }

    fn attention(&self, at: &At<'_>, net: &mut Net<'_>, of: Attend) -> Value {
        let rows = rows(at.values, at.site, net);
        let of = net.behind_prefix(of, TOKENS.get(at.values), rows);
        at.attention(net, of)
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "PREFIX_TUNING").then_some(PEFT_KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let count = count(file)?;
        let sites: Vec<&Site> = file
            .parts()
            .others
            .iter()
            .filter(|s| self.fits(s))
            .collect();
        let width = sites.first().map_or(0, |site| site.input());
        let all = 2 * sites.len() as u64 * width;
        file.check_shape(PROMPT, &[count, all])?;
        for (place, site) in sites.iter().enumerate() {
            for (part, name) in ["key", "value"].iter().enumerate() {
                let column = (2 * place + part) as u64 * width;
                let own = format!("{}.prefix.{name}", site.path);
                file.make(cut(own, [0, count], [column, column + width]))?;
            }
            file.put(&Self, site, vec![(TOKENS.name(), Checked::Int(count))]);
        }
        Ok(())
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        SHIFT.get(values).then(|| PeftForm {
            kind: "PREFIX_TUNING",
            keys: vec![
                // What the file holds is made already.
                ("prefix_projection", json!(false)),
                ("encoder_hidden_size", json!(HIDDEN.get(values))),
                ("init_weights", json!(null)),
            ],
            product: None,
        })
    }

    fn prompt_keys(&self, values: &Values, facts: &Facts, sites: &[&Site]) -> PeftKeys {
        peft_keys(TOKENS.get(values), facts, sites)
    }

    fn prompt_rows(&self, values: &Values, sites: &[&Site], net: &mut Net<'_>) -> Vec<Value> {
        // peft has no prefix in some blocks alone.
        if sites.len() as u64 != net.tuning().n_layers {
            return Vec::new();
        }
        let each = sites.iter().map(|site| rows(values, site, net));
        each.flat_map(|(keys, values)| [keys, values]).collect()
    }
}
