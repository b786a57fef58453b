//! Cartridges: a prefix of keys and values whose first ones stay as they are.

use serde_json::{Map, Value as Json, json};

use super::super::model::Reserved;
use super::super::net::{Attend, Init, Param, Part};
use super::super::peft::{Fate, Keys, Misfit, Reading};
use super::super::schema::{Checked, Given, kind};
use super::begun::{self, TEXT, TOKEN_IDS};
use super::prefix_tuning::{self, ON};
use super::prompt_tuning::{PROMPT, SIZES, count};
use super::{
    At, Complaint, Facts, Method, Net, PeftForm, PeftKeys, Schema, Site, Stacking, Value, Values,
};
use crate::library::counts::to_u32;
use crate::library::error::BAD_METHOD_VALUES;
use crate::program::op::{Indices, Scatter};

/// Keys and values before each text, some of them frozen.
#[derive(Debug)]
pub struct Cartridge;

const TOKENS: Given<u64> = Given::<u64>::new(
    "tokens",
    kind::int(1, 1 << 20),
    (20, "20"),
    "keys and values before each text",
);
const FROZEN: Given<u64> = Given::<u64>::new(
    "frozen",
    kind::int(0, 1 << 20),
    (1, "1"),
    "how many of them, from the first, are not trained: language models attend to the first token whatever it is",
);

static SCHEMA: Schema = Schema {
    name: "cartridge",
    summary: "cartridges: trained keys and values before those of each text, the first of which stay as they are",
    doc: "As `prefix_tuning` without a network, whose first `frozen` keys and values are not trained. They start normal, as peft's \
          do, or as the model's own of a `text`, which is the paper's start: the unchanged model reads the text's first `tokens` \
          tokens once before the first step. Text positions count from behind them. Backward reaches the attention of every block; 16 bytes a trained number. It cannot be merged. In peft \
          it is CARTRIDGE.",
    paper: "Eyuboglu et al. 2025 (arXiv 2506.06266)",
    keys: &[
        TOKENS.key(),
        FROZEN.key(),
        TEXT.key(),
        TOKEN_IDS.key(),
        ON.key(),
    ],
};

const KEYS: Keys = &[
    ("num_attention_heads", SIZES),
    ("num_frozen_tokens", Fate::Used),
    ("num_layers", SIZES),
    ("num_transformer_submodules", Fate::Only(&["1"])),
    ("num_virtual_tokens", Fate::Used),
    ("token_dim", SIZES),
];

/// The tensors of a part, each with its first row and the one behind its last.
fn parts(tokens: u64, frozen: u64) -> Vec<(&'static str, u64, u64)> {
    let all = [("frozen", 0, frozen), ("trained", frozen, tokens)];
    all.into_iter().filter(|(_, from, to)| from < to).collect()
}

/// Keys or values at a site, `[P, width]`.
fn rows(values: &Values, site: &Site, name: &str, net: &mut Net<'_>) -> Value {
    let (tokens, width) = (TOKENS.get(values), site.input());
    let mut whole = None;
    for (part, from, to) in parts(tokens, FROZEN.get(values)) {
        let start = begun::start(values, site, (tokens, [from, to], name == "value"));
        let own = Param::at(site, &format!("cartridge.{name}.{part}"));
        let own = own.shape(&[to - from, width]);
        let own = own.start(start.unwrap_or(Init::Normal(1.0)));
        let own = net.tensor(if part == "frozen" { own.frozen() } else { own });
        if to - from == tokens {
            return own;
        }
        let list = (to_u32(from)..to_u32(to)).collect();
        let list = net.b.push1(Indices { list }, &[]);
        let rows = tokens.into();
        let placed = net.b.push1(Scatter { rows }, &[list, own]);
        whole = Some(whole.map_or(placed, |other| net.add(other, placed)));
    }
    whole.unwrap_or_else(|| net.tensor(Param::at(site, name).shape(&[tokens, width])))
}

impl Method for Cartridge {
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

    fn check(&self, values: &Values, _: &Site) -> Option<Complaint> {
        let (tokens, frozen) = (TOKENS.get(values), FROZEN.get(values));
        let idle = (frozen >= tokens).then(|| Complaint {
            key: FROZEN.name(),
            code: &BAD_METHOD_VALUES,
            message: format!("`frozen` is {frozen} of {tokens}, so that nothing is trained"),
            help: Some(format!("write at most `frozen = {}`", tokens - 1)),
        });
        idle.or_else(|| begun::check(values, tokens))
    }

    fn text<'a>(&self, values: &'a Values) -> Option<&'a str> {
        TEXT.get(values)
    }

    fn reserved(&self, values: &Values) -> Reserved {
        Reserved {
            prefix: to_u32(TOKENS.get(values)),
            shifts: true,
            within: 0,
        }
    }

    fn attention(&self, at: &At<'_>, net: &mut Net<'_>, of: Attend) -> Value {
        let own = (
            rows(at.values, at.site, "key", net),
            rows(at.values, at.site, "value", net),
        );
        let of = net.behind_prefix(of, TOKENS.get(at.values), own);
        at.attention(net, of)
    }

    fn peft_keys(&self, kind: &str, _: &Map<String, Json>) -> Option<Keys> {
        (kind == "CARTRIDGE").then_some(KEYS)
    }

    fn peft_read(&self, file: &mut Reading<'_>) -> Result<(), Misfit> {
        let count = count(file)?;
        let frozen = match file.config().get("num_frozen_tokens") {
            None => 1,
            Some(n) => n.as_u64().filter(|&n| n <= count).ok_or_else(|| {
                let message = format!("`num_frozen_tokens` is {n}, and there are {count} tokens");
                Misfit::of_config(message)
            })?,
        };
        let sites: Vec<&Site> = file
            .parts()
            .others
            .iter()
            .filter(|s| self.fits(s))
            .collect();
        let width = sites.first().map_or(0, |site| site.input());
        file.check_shape(PROMPT, &[count, 2 * sites.len() as u64 * width])?;
        for (place, site) in sites.iter().enumerate() {
            for (part, name) in ["key", "value"].iter().enumerate() {
                for (kind, from, to) in parts(count, frozen) {
                    let own = format!("{}.cartridge.{name}.{kind}", site.path);
                    let column = (2 * place + part) as u64 * width;
                    file.make(prefix_tuning::cut(
                        own,
                        [from, to],
                        [column, column + width],
                    ))?;
                }
            }
            let values = vec![
                (TOKENS.name(), Checked::Int(count)),
                (FROZEN.name(), Checked::Int(frozen)),
            ];
            file.put(&Self, site, values);
        }
        Ok(())
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        Some(PeftForm {
            kind: "CARTRIDGE",
            keys: vec![("num_frozen_tokens", json!(FROZEN.get(values)))],
            product: None,
        })
    }

    fn prompt_keys(&self, values: &Values, facts: &Facts, sites: &[&Site]) -> PeftKeys {
        prefix_tuning::peft_keys(TOKENS.get(values), facts, sites)
    }

    fn prompt_rows(&self, values: &Values, sites: &[&Site], net: &mut Net<'_>) -> Vec<Value> {
        // peft has no prefix in some blocks alone.
        if sites.len() as u64 != net.tuning().n_layers {
            return Vec::new();
        }
        let mut each = |site, name| rows(values, site, name, net);
        let sites = sites.iter();
        sites
            .flat_map(|site| ["key", "value"].map(|name| each(site, name)))
            .collect()
    }
}
