//! P-tuning (methods A7): virtual tokens that a small network makes out of trained rows.

use serde_json::json;

use super::super::net::{Init, Param};
use super::super::schema::{Given, Maybe, kind};
use super::encoder::Encoder;
use super::prompt_tuning::{ON, PLACE, TOKENS, is_words, marking, peft_keys};
use super::{
    At, Facts, Marking, Method, Net, PeftForm, PeftKeys, Schema, Site, Stacking, Value, Values,
};

/// Virtual tokens that are encoded.
#[derive(Debug)]
pub struct PTuning;

const ENCODER: Given<str> = Given::<str>::new(
    "encoder",
    kind::choice(&["mlp", "lstm"]),
    ("mlp", "mlp"),
    "the network: three linear maps with ReLU between them, or a bidirectional LSTM of two layers and two linear maps",
);
const HIDDEN: Maybe<u64> = Maybe::new(
    "hidden",
    kind::int(1, 1 << 20),
    "width of the network; the model's if not written",
);

static SCHEMA: Schema = Schema {
    name: "p_tuning",
    summary: "P-tuning: virtual tokens before each text that a small trained network makes",
    doc: "As `prompt_tuning` with P = encoder(R), where R [tokens, hidden of the model] and the encoder are trained, R from a normal \
          distribution and the encoder from PyTorch's first values. The network ties the virtual tokens together and is gone \
          once they are made: what peft gets as P_TUNING is P alone. The artifact keeps the network, so that a later stage can \
          go on. Backward goes through the whole model; 16 bytes a trained number. It cannot be merged.",
    paper: "Liu et al. 2021 (arXiv 2103.10385), section 3",
    keys: &[
        TOKENS.key(),
        ENCODER.key(),
        HIDDEN.key(),
        PLACE.key(),
        ON.key(),
    ],
};

impl Method for PTuning {
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

    fn marking(&self, values: &Values) -> Marking {
        marking(values)
    }

    fn embedded(&self, at: &At<'_>, net: &mut Net<'_>, rows: Value) -> Value {
        let prompt = self.prompt(at.values, at.site, net);
        net.replaced(rows, prompt)
    }

    fn peft(&self, values: &Values) -> Option<PeftForm> {
        let kind = ENCODER.get(values).to_uppercase();
        (PLACE.get(values) == "first").then(|| PeftForm {
            kind: "P_TUNING",
            keys: vec![
                ("encoder_reparameterization_type", json!(kind)),
                ("encoder_num_layers", json!(2)),
                ("encoder_dropout", json!(0.0)),
            ],
            product: None,
        })
    }

    fn prompt_keys(&self, values: &Values, facts: &Facts, sites: &[&Site]) -> PeftKeys {
        let width = sites.first().map_or(facts.hidden, |site| site.output());
        let mut keys = peft_keys(TOKENS.get(values), facts);
        let hidden = HIDDEN.get(values).unwrap_or(width);
        keys.push(("encoder_hidden_size", json!(hidden)));
        keys
    }

    fn prompt_rows(&self, values: &Values, sites: &[&Site], net: &mut Net<'_>) -> Vec<Value> {
        let sites = sites.iter();
        sites.map(|site| self.prompt(values, site, net)).collect()
    }
}

impl PTuning {
    /// The rows that stand for the virtual tokens.
    fn prompt(&self, values: &Values, site: &Site, net: &mut Net<'_>) -> Value {
        let (count, width) = (TOKENS.get(values), site.output());
        let rows = Param::at(site, "prompt").shape(&[count, width]);
        let rows = net.tensor(rows.start(Init::Normal(1.0)));
        let own = Encoder {
            site,
            width,
            hidden: HIDDEN.get(values).unwrap_or(width),
        };
        match ENCODER.get(values) {
            "lstm" => own.lstm(net, count, rows),
            _ => own.mlp(net, rows),
        }
    }
}
