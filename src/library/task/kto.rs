//! `kto`: Kahneman-Tversky optimisation, which learns from answers of which each is wanted or not.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::preference::{SKIP_EMPTY, losses_of_answers};
use super::{Answer, Asked, Details, Gathered, Head, Names, Reads, Scored, Task, TaskKind};
use crate::library::counts::to_u32;
use crate::library::data::form::{Form, Learn};
use crate::library::data::tokens::{EncodedSet, Target};
use crate::library::metric::Predictions;
use crate::library::model::Model;
use crate::library::net::Net;
use crate::library::rows::Added;
use crate::library::schema::{Bound, Given, Schema, kind};
use crate::library::tokenizer::Tokenizer;
use crate::program::op::Unpaired;
use crate::program::{Pick, Real, Value};

const BETA: Given<f64> = Given::<f64>::new(
    "beta",
    kind::float(Bound::Excl(0.0), Bound::None),
    (0.1, "0.1"),
    "β, the strength of the tie to the reference",
);
const DESIRABLE: Given<f64> = Given::<f64>::new(
    "desirable_weight",
    kind::float(Bound::Incl(0.0), Bound::None),
    (1.0, "1"),
    "λ_D, what the loss of answers with the label `true` is multiplied by",
);
const UNDESIRABLE: Given<f64> = Given::<f64>::new(
    "undesirable_weight",
    kind::float(Bound::Incl(0.0), Bound::None),
    (1.0, "1"),
    "λ_U, the same of those with the label `false`. The paper wants λ_D · wanted / (λ_U · others) between 1 and 4/3, by their numbers",
);

static SCHEMA: Schema = Schema {
    name: "kto",
    summary: "Kahneman-Tversky optimisation: answers that are wanted become likelier, others less so, compared with a reference",
    doc: "Reads data with `prompt`, `completion` and a `label`, true or false; or pairs with `chosen` and `rejected`, each of which is two answers. \
          With the log-ratio r of an answer, its log-likelihood above that under the reference, the loss is λ_D (1 - σ(β (r - z₀))) where it is wanted, \
          and λ_U (1 - σ(β (z₀ - r))) where not. z₀ is the mean log-ratio of mismatched answers, and at least 0: each prompt of the batch with the \
          answer of the row that follows in the data (with the first one's behind the last), which nothing is learned of. Both texts are read in one step, and \
          their log-likelihoods under the reference are computed once before it, as with `dpo`. z₀ is of the whole batch, so that it is not made of \
          micro-batches; `batch` counts answers. TRL pairs rows within chunks of a batch, and takes those that come before. `eval` takes z₀ of the whole split. \
          Each text is cut at `max_length` from its end.",
    paper: "Ethayarajh et al. 2024, KTO: Model Alignment as Prospect Theoretic Optimization (arXiv 2402.01306)",
    keys: &[
        BETA.key(),
        DESIRABLE.key(),
        UNDESIRABLE.key(),
        SKIP_EMPTY.key(),
    ],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: None,
    class: None,
    make: |values| {
        Arc::new(Kto {
            loss: Unpaired {
                beta: Real::new(BETA.find(values).unwrap_or(0.1)),
                desirable: Real::new(DESIRABLE.find(values).unwrap_or(1.0)),
                undesirable: Real::new(UNDESIRABLE.find(values).unwrap_or(1.0)),
            },
            skip_empty: SKIP_EMPTY.find(values).unwrap_or(false),
        })
    },
};

/// Sequences of an answer: behind its own prompt, and another row's behind that.
const GROUP: u64 = 2;

#[derive(Debug)]
struct Kto {
    loss: Unpaired,
    /// Whether rows are left out of which no token of an answer is left.
    skip_empty: bool,
}

impl Task for Kto {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn answer(&self) -> Answer {
        Answer::Desirable
    }

    fn labels_rows(&self, form: Form) -> bool {
        // Of a pair it is known.
        form != Form::Preference
    }

    fn reads(
        &self,
        _: Option<&Tokenizer>,
        _: bool,
        _: bool,
    ) -> Result<Option<Reads>, [&'static str; 2]> {
        Ok(Some(Reads::Next(Arc::default())))
    }

    fn learns(&self, form: Form) -> Result<Learn, [String; 2]> {
        if let Form::Completion | Form::Preference = form {
            return Ok(Learn::Completion);
        }
        let message = format!(
            "`kto` learns from answers to prompts, and these data have {}",
            form.what()
        );
        let help = "name the columns: `prompt = COLUMN, completion = COLUMN, label = COLUMN`, with true or false as labels; or `chosen = COLUMN, rejected = COLUMN`";
        Err([message, help.to_owned()])
    }

    fn skips_empty(&self) -> bool {
        self.skip_empty
    }

    fn mismatches(&self) -> bool {
        true
    }

    fn group(&self) -> u64 {
        GROUP
    }

    fn compares_rows(&self) -> bool {
        true
    }

    fn needs_others(&self) -> bool {
        // What a row is compared with stands beside it.
        false
    }

    fn scores_places(&self) -> bool {
        false
    }

    fn compares(&self) -> bool {
        true
    }

    fn pick(&self, _: &dyn Model) -> Pick {
        Pick::Places
    }

    fn needs(&self) -> Head {
        Head::CausalLm
    }

    fn generates(&self) -> bool {
        true
    }

    fn ends_texts(&self) -> bool {
        true
    }

    fn width(&self, _: usize) -> u64 {
        2
    }

    fn fused(&self, model: &dyn Model, net: &mut Net<'_>, hidden: Value) -> Option<(Value, Value)> {
        let losses = self.losses(model, net, hidden)?;
        let (loss, rows) = net.unpaired(&self.loss, losses);
        Some((rows, loss))
    }

    fn losses(&self, model: &dyn Model, net: &mut Net<'_>, hidden: Value) -> Option<Value> {
        losses_of_answers(model, net, hidden)
    }

    fn loss_of(&self, scores: &[f32], _: &Target) -> f64 {
        scores.get(1).copied().map_or(0.0, f64::from)
    }

    fn predict(&self, scores: &[f32]) -> Target {
        Target::Score(scores.first().copied().unwrap_or_default())
    }

    fn metrics(&self) -> &'static [&'static str] {
        &["loss", "reward_margin", "reward_chosen", "reward_rejected"]
    }

    fn gathers(&self) -> bool {
        true
    }

    fn gathers_scores(&self) -> bool {
        true
    }

    fn gather(&self, set: &EncodedSet, all: &Predictions, _: Asked<'_>) -> Option<Gathered> {
        let rewards = all.scores.chunks(all.width.max(1));
        let rewards: Vec<f64> = rewards
            .filter_map(|row| row.first().copied().map(f64::from))
            .collect();
        let pairs = rewards.as_chunks::<2>().0;
        let sum: f64 = pairs.iter().map(|[_, other]| other).sum();
        let zero = (sum / pairs.len().max(1) as f64).max(0.0);
        let mut gathered = Gathered::default();
        let mut loss = 0.0;
        for (pair, [own, other]) in pairs.iter().enumerate() {
            let example = to_u32(pair) * to_u32(GROUP as usize);
            let wanted = set.label(example) == Some(Target::Class(1));
            let (sign, weight) = match wanted {
                true => (1.0, self.loss.desirable.get()),
                false => (-1.0, self.loss.undesirable.get()),
            };
            let each = weight / (1.0 + (sign * (own - zero)).exp());
            loss += each;
            let cells = [*own as f32, *other as f32, each as f32].map(|x| x.to_string());
            let cells = std::iter::once(wanted.to_string()).chain(cells);
            let row = set.row(example).unwrap_or(example);
            gathered.cells.push((row, cells.collect()));
            let predictions = &mut gathered.predictions;
            predictions.targets.push(Target::Class(u32::from(wanted)));
            predictions.predicted.push(Target::Score(*own as f32));
        }
        let predictions = &mut gathered.predictions;
        predictions.loss = loss / pairs.len().max(1) as f64;
        (predictions.scores, predictions.width) = (vec![(zero / self.loss.beta.get()) as f32], 1);
        Some(gathered)
    }

    fn columns(&self, _: &[String]) -> Vec<String> {
        ["label", "reward", "mismatched_reward", "loss"]
            .map(str::to_owned)
            .to_vec()
    }

    fn cells(&self, _: Names<'_>, _: Scored<'_>) -> Vec<String> {
        vec![String::new(); 4]
    }

    fn details(&self, _: &[String], predictions: &Predictions) -> Details {
        let zero = predictions.scores.first();
        let entries = zero.map(|zero| ("kl".to_owned(), json!(zero)));
        Details {
            entries: entries.into_iter().collect(),
            ..Details::default()
        }
    }

    fn answers(&self, _: &[String], _: super::Form) -> Result<Vec<Added>, String> {
        Err("it was trained to prefer answers: it goes on with texts and labels nothing".to_owned())
    }

    fn values(&self, _: &[String], _: super::Form, _: &[f32]) -> Vec<Json> {
        Vec::new()
    }

    fn export(&self, _: &mut Map<String, Json>, _: &[String]) {}
}
