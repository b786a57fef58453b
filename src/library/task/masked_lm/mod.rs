//! `masked_lm`: the tokens that stood at masked places.

pub(super) mod masking;

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::{Answer, Details, Form, Head, Names, Reads, Scored, Task, TaskKind, words};
use crate::library::metric::Predictions;
use crate::library::model::Model;
use crate::library::net::Net;
use crate::library::rows::Added;
use crate::library::schema::{Bound, Given, Schema, kind};
use crate::library::tokenizer::Tokenizer;
use crate::program::op::CrossEntropy;
use crate::program::{Builder, Feed, Pick, TargetKind, Value};
use masking::Masking;

/// The tokens behind masks: cross-entropy over the vocabulary.
#[derive(Debug)]
struct MaskedLm {
    /// Share of the tokens that is to be predicted.
    rate: f64,
}

const RATE: Given<f64> = Given::<f64>::new(
    "rate",
    kind::float(Bound::Excl(0.0), Bound::Excl(1.0)),
    (0.15, "15%"),
    "share of the tokens of a text that are predicted",
);

/// Its name.
pub(super) const NAME: &str = "masked_lm";

static SCHEMA: Schema = Schema {
    name: NAME,
    summary: "the tokens behind masks: cross-entropy over the vocabulary at masked places",
    doc: "Of the n tokens of a text (without those the tokenizer adds), max(1, round(rate · n)) are predicted; of these \
          80% are replaced by the mask token, 10% by another token, 10% stay. The choice is drawn anew in every epoch; \
          evaluation draws it once, the same for every stage. The model's own masked-LM head predicts them, and is trained \
          by `full` alone. Labels are not read. The loss is the mean over the masked places of a batch.",
    paper: "Devlin et al. 2019 (arXiv 1810.04805), section 3.1 and appendix A.1",
    keys: &[RATE.key()],
};

/// Share of masked tokens where none is written.
const USUAL_RATE: f64 = 0.15;

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: None,
    class: None,
    make: |values| {
        Arc::new(MaskedLm {
            rate: RATE.find(values).unwrap_or(USUAL_RATE),
        })
    },
};

impl Task for MaskedLm {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn answer(&self) -> Answer {
        Answer::Token
    }

    fn inputs_vary(&self) -> bool {
        true
    }

    fn reads(
        &self,
        tokenizer: Option<&Tokenizer>,
        pair: bool,
        prompt_mask: bool,
    ) -> Result<Option<Reads>, [&'static str; 2]> {
        let Some(tokenizer) = tokenizer else {
            return Ok(Some(Reads::Masked(Masking::assumed(self.rate))));
        };
        let Some((_, mask)) = tokenizer.mask() else {
            return Err([
                "the model's tokenizer has no mask token, and masked tokens are to be learned",
                "take a model that was pre-trained as a masked LM, or another objective",
            ]);
        };
        let masking = Masking::new(self.rate, tokenizer, pair, prompt_mask, mask);
        Ok(Some(Reads::Masked(masking)))
    }

    fn pick(&self, _: &dyn Model) -> Pick {
        Pick::Places
    }

    fn needs(&self) -> Head {
        Head::MaskedLm
    }

    fn width(&self, _: usize) -> u64 {
        0
    }

    fn scores(
        &self,
        model: &dyn Model,
        net: &mut Net<'_>,
        hidden: Value,
        _: (usize, &[u32]),
    ) -> Value {
        words(model, net, hidden, None)
    }

    fn loss(&self, b: &mut Builder, scores: Value) -> Value {
        b.label("loss");
        let scale = b.feed(Feed::LossScale);
        let tokens = b.feed(Feed::Targets(TargetKind::Token));
        b.push1(CrossEntropy, &[scores, tokens, scale])
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["perplexity", "masked_accuracy"]
    }

    fn columns(&self, _: &[String]) -> Vec<String> {
        ["position", "label", "prediction"]
            .map(str::to_owned)
            .to_vec()
    }

    fn cells(&self, names: Names<'_>, row: Scored<'_>) -> Vec<String> {
        vec![
            row.position.to_string(),
            names.token(row.target),
            names.token(row.predicted),
        ]
    }

    fn details(&self, _: &[String], _: &Predictions) -> Details {
        Details::default()
    }

    fn answers(&self, _: &[String], _: Form) -> Result<Vec<Added>, String> {
        Err(
            "it was trained to tell masked tokens and labels nothing; go on from it with a stage whose `objective` \
             is `classify`, `regress` or `label_words`"
                .to_owned(),
        )
    }

    fn values(&self, _: &[String], _: Form, _: &[f32]) -> Vec<Json> {
        Vec::new()
    }

    fn export(&self, _: &mut Map<String, Json>, _: &[String]) {}
}
