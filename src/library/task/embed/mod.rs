//! `embed`: a vector a text, such that texts which belong together point the same way.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::{
    Answer, Asked, Classes, Details, Gathered, Head, Names, Reads, Scored, Task, TaskKind, added,
    number,
};
use crate::base::{Diag, Span};
use crate::library::counts::to_u32;
use crate::library::data::form::{Form, Learn};
use crate::library::data::tokens::{EncodedSet, Target};
use crate::library::error::BAD_SCORES;
use crate::library::metric::Predictions;
use crate::library::model::Model;
use crate::library::net::Net;
use crate::library::rows::Added;
use crate::library::schema::{Bound, Given, Maybe, Schema, Values, kind};
use crate::library::tokenizer::Tokenizer;
use crate::program::{Builder, Pick, Value};

mod folder;
mod loss;
mod near;

pub use folder::{Modules, POOLING as POOLING_MODULE};

/// Its name.
pub(super) const NAME: &str = "embed";

const LOSSES: &[&str] = &["multiple_negatives", "cosine_similarity"];
const LOSS: Given<str> = Given::<str>::new(
    "loss",
    kind::choice(LOSSES),
    ("multiple_negatives", "multiple_negatives"),
    "what is learned of a row, as sentence-transformers names it: `multiple_negatives` takes each anchor's positive among the positives and \
          negatives of the batch; `cosine_similarity` takes the squared error of the cosine of two texts",
);
const SCALE: Given<f64> = Given::<f64>::new(
    "scale",
    kind::float(Bound::Excl(0.0), Bound::None),
    (20.0, "20"),
    "what cosines are multiplied by before the softmax of `multiple_negatives`: 1 over its temperature",
);
const TOP_SCORE: Given<f64> = Given::<f64>::new(
    "top_score",
    kind::float(Bound::Excl(0.0), Bound::None),
    (1.0, "1"),
    "the label that a cosine of 1 stands for, with `cosine_similarity`: labels are divided by it. That of STS-B is 5",
);
const POOLINGS: &[&str] = &["mean", "first"];
const POOLING: Maybe<str> = Maybe::new(
    "pooling",
    kind::choice(POOLINGS),
    "what a text's vector is: the `mean` of the last states of its tokens, special ones too; or the state of the `first`. If not written, what the \
          model's folder says (`1_Pooling` of sentence-transformers), else the mean",
);
const NORMALIZE: Maybe<bool> = Maybe::new(
    "normalize",
    kind::BOOL,
    "divide the vectors that `predict` writes by their lengths; losses and metrics are of cosines either way. If not written, whether the model's \
          folder has the module `Normalize`",
);

static SCHEMA: Schema = Schema {
    name: NAME,
    summary: "a vector a text, by whose cosines texts are compared: negatives of the batch, or scores of pairs",
    doc: "Without a head: a text's vector is made of the model's last states (`pooling`). With `loss = multiple_negatives` rows have `anchor`, \
          `positive` and, where there are some, `negative`: the cross-entropy of an anchor's positive among all positives and negatives \
          of the batch, by their cosines times `scale`. A larger `batch` asks more; it is not made of micro-batches. With `loss = cosine_similarity` rows have \
          two texts, `text = [first, second]`, and a score, `label`: (cosine − label / top_score)². `batch` counts rows. `eval` compares each anchor with \
          all positives of the split, whatever its `batch`; its loss is that of all positives and negatives of the split. `predict` writes the \
          vector of each text.",
    paper: "Reimers and Gurevych 2019, Sentence-BERT (arXiv 1908.10084); Henderson et al. 2017 (arXiv 1705.00652), section 4",
    keys: &[
        LOSS.key(),
        SCALE.key(),
        TOP_SCORE.key(),
        POOLING.key(),
        NORMALIZE.key(),
    ],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: None,
    class: None,
    make: |values| Arc::new(Embed::of(values)),
};

/// Which loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Negatives,
    Cosine,
}

/// A vector a text.
#[derive(Clone, Debug)]
struct Embed {
    loss: Loss,
    scale: f64,
    top_score: f64,
    /// Whether the mean of a text's states is taken, and not the first; if that is said.
    mean: Option<bool>,
    normalize: Option<bool>,
    /// Texts of a row.
    texts: u64,
    /// A key that the loss does not read, where one is written.
    idle: Option<&'static str>,
    /// Where the loss is named.
    at: Span,
}

impl Embed {
    fn of(values: &Values) -> Self {
        let loss = match LOSS.find(values) {
            Some("cosine_similarity") => Loss::Cosine,
            _ => Loss::Negatives,
        };
        let idle = match loss {
            Loss::Negatives => (TOP_SCORE.name(), TOP_SCORE.is_written(values)),
            Loss::Cosine => (SCALE.name(), SCALE.is_written(values)),
        };
        Self {
            loss,
            scale: SCALE.find(values).unwrap_or(20.0),
            top_score: TOP_SCORE.find(values).unwrap_or(1.0),
            mean: POOLING.get(values).map(|own| own != "first"),
            normalize: NORMALIZE.get(values),
            texts: 2,
            idle: idle.1.then_some(idle.0),
            at: LOSS.span(values),
        }
    }

    /// Whether the mean of a text's states is taken, and not the first.
    fn is_mean(&self) -> bool {
        self.mean.unwrap_or(true)
    }

    /// Whether vectors that are written have the length 1.
    fn normalizes(&self) -> bool {
        self.normalize.unwrap_or(false)
    }

    /// The form of its rows.
    const fn form(&self) -> Form {
        match self.loss {
            Loss::Negatives => Form::Anchor,
            Loss::Cosine => Form::Text,
        }
    }

    /// What cosines of a split come to.
    fn rows<'a>(&self, set: &'a EncodedSet, all: &'a Predictions) -> near::Rows<'a> {
        near::Rows::new(set, all, self.texts as usize)
    }

    fn similar(&self, rows: &near::Rows<'_>) -> Gathered {
        let mut gathered = Gathered::default();
        let mut loss = 0.0;
        for (row, label, cosine) in rows.pairs() {
            let label = match label {
                Target::Score(label) => label,
                _ => 0.0,
            };
            loss += (cosine - f64::from(label) / self.top_score).powi(2);
            let cosine = cosine as f32;
            gathered
                .cells
                .push((row, vec![label.to_string(), cosine.to_string()]));
            let predictions = &mut gathered.predictions;
            predictions.targets.push(Target::Score(label));
            predictions.predicted.push(Target::Score(cosine));
        }
        gathered.predictions.loss = loss / gathered.cells.len().max(1) as f64;
        gathered
    }

    fn ranked(&self, rows: &near::Rows<'_>) -> Gathered {
        let mut gathered = Gathered::default();
        let mut loss = 0.0;
        for own in rows.ranked(self.scale) {
            loss += own.loss;
            let cells = [
                (own.rank + 1).to_string(),
                (own.cosine as f32).to_string(),
                own.nearest.to_string(),
                (own.highest as f32).to_string(),
            ];
            gathered.cells.push((own.row, cells.to_vec()));
            let predictions = &mut gathered.predictions;
            predictions.targets.push(Target::None);
            predictions.predicted.push(Target::Class(own.rank));
        }
        gathered.predictions.loss = loss / gathered.cells.len().max(1) as f64;
        gathered
    }
}

impl Task for Embed {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn options(&self) -> Vec<(&'static str, f64)> {
        let truth = |is: bool| f64::from(u8::from(is));
        let own = [
            (LOSS.name(), truth(self.loss == Loss::Cosine)),
            (SCALE.name(), self.scale),
            (TOP_SCORE.name(), self.top_score),
        ];
        // Places in the lists of names.
        let pooling = self.mean.map(|mean| (POOLING.name(), truth(!mean)));
        let normalize = self.normalize.map(|own| (NORMALIZE.name(), truth(own)));
        own.into_iter().chain(pooling).chain(normalize).collect()
    }

    fn answer(&self) -> Answer {
        match self.loss {
            Loss::Negatives => Answer::Rank,
            Loss::Cosine => Answer::Number,
        }
    }

    fn reads(
        &self,
        _: Option<&Tokenizer>,
        _: bool,
        _: bool,
    ) -> Result<Option<Reads>, [&'static str; 2]> {
        Ok(Some(Reads::Anchors {
            group: to_u32(usize::try_from(self.texts).unwrap_or(usize::MAX)),
        }))
    }

    fn learns(&self, form: Form) -> Result<Learn, [String; 2]> {
        if let Some(key) = self.idle {
            return Err([
                format!("`{key}` has no effect on this `loss`"),
                format!("remove `{key}`"),
            ]);
        }
        if form == self.form() {
            return Ok(Learn::Nothing);
        }
        let name = match self.loss {
            Loss::Negatives => "multiple_negatives",
            Loss::Cosine => "cosine_similarity",
        };
        let wanted = match self.loss {
            Loss::Negatives => "anchors with positives",
            Loss::Cosine => "two texts with a score",
        };
        let help = match (self.loss, form) {
            (Loss::Negatives, Form::Text) => {
                "name the columns: `anchor = COLUMN, positive = COLUMN`; two texts with a score are learned by `objective = embed { loss = cosine_similarity }`"
            }
            (Loss::Negatives, _) => "name the columns: `anchor = COLUMN, positive = COLUMN`",
            (Loss::Cosine, Form::Anchor) => {
                "write `objective = embed`, or name the columns: `text = [FIRST, SECOND], label = COLUMN`"
            }
            (Loss::Cosine, _) => "name the columns: `text = [FIRST, SECOND], label = COLUMN`",
        };
        let message = format!(
            "`{NAME} {{ loss = {name} }}` reads {wanted}, and these data have {}",
            form.what()
        );
        Err([message, help.to_owned()])
    }

    fn texts_apart(&self) -> bool {
        true
    }

    fn compares_rows(&self) -> bool {
        self.loss == Loss::Negatives
    }

    fn pools(&self) -> bool {
        self.is_mean()
    }

    fn of_modules(&self, modules: &Modules) -> Option<Result<Arc<dyn Task>, String>> {
        Some(modules.read().map(|(mean, normalize)| -> Arc<dyn Task> {
            Arc::new(Self {
                mean: self.mean.or(mean),
                normalize: self.normalize.or(Some(normalize)),
                ..self.clone()
            })
        }))
    }

    fn files(&self, width: u64, max_length: u64) -> Vec<(&'static str, Json)> {
        folder::files(self, width, max_length)
    }

    fn of_options(&self, texts: u64) -> Option<Arc<dyn Task>> {
        Some(Arc::new(Self {
            texts,
            ..self.clone()
        }))
    }

    fn group(&self) -> u64 {
        self.texts.max(1)
    }

    fn scores_places(&self) -> bool {
        false
    }

    fn weight_of(&self, _: &Target) -> f64 {
        // A row has as many texts, and counts once.
        1.0 / self.group() as f64
    }

    fn pick(&self, _: &dyn Model) -> Pick {
        Pick::First
    }

    fn needs(&self) -> Head {
        Head::States
    }

    fn head_modules(&self, _: &dyn Model) -> &'static [&'static str] {
        &[]
    }

    fn width(&self, _: usize) -> u64 {
        0
    }

    fn scores(&self, _: &dyn Model, net: &mut Net<'_>, hidden: Value, _: (usize, &[u32])) -> Value {
        match self.is_mean() {
            true => net.mean_of_texts(hidden),
            false => hidden,
        }
    }

    fn loss(&self, b: &mut Builder, scores: Value) -> Value {
        b.label("loss");
        match self.loss {
            Loss::Negatives => loss::negatives(b, scores, self.scale),
            Loss::Cosine => loss::cosine(b, scores, self.top_score),
        }
    }

    fn loss_of(&self, _: &[f32], _: &Target) -> f64 {
        0.0
    }

    fn on_classes(&self, classes: Classes<'_>) -> Result<Option<Arc<dyn Task>>, Box<Diag>> {
        let train = classes.train.filter(|_| self.loss == Loss::Cosine);
        let Some(set) = train else { return Ok(None) };
        for example in 0..to_u32(set.len()) {
            let Some(Target::Score(label)) = set.label(example) else {
                continue;
            };
            if f64::from(label).abs() > self.top_score {
                let row = set.row(example).unwrap_or(example);
                let message = format!(
                    "row {row} (counted from 0) has the label {label}, which no cosine reaches: `top_score` is {}",
                    self.top_score
                );
                return Err(Box::new(
                    Diag::error(&BAD_SCORES, self.at, message)
                        .help("write the highest label that there is: `objective = embed { loss = cosine_similarity, top_score = 5 }`"),
                ));
            }
        }
        Ok(None)
    }

    fn metrics(&self) -> &'static [&'static str] {
        match self.loss {
            Loss::Negatives => &[
                "accuracy_at_1",
                "recall_at_10",
                "mrr_at_10",
                "ndcg_at_10",
                "loss",
            ],
            Loss::Cosine => &["spearman", "pearson"],
        }
    }

    fn predict(&self, _: &[f32]) -> Target {
        Target::None
    }

    fn gathers(&self) -> bool {
        true
    }

    fn gathers_scores(&self) -> bool {
        true
    }

    fn gather(&self, set: &EncodedSet, all: &Predictions, _: Asked<'_>) -> Option<Gathered> {
        let rows = self.rows(set, all);
        Some(match self.loss {
            Loss::Negatives => self.ranked(&rows),
            Loss::Cosine => self.similar(&rows),
        })
    }

    fn columns(&self, _: &[String]) -> Vec<String> {
        let own: &[&str] = match self.loss {
            Loss::Negatives => &["rank", "cosine", "nearest", "highest_cosine"],
            Loss::Cosine => &["label", "cosine"],
        };
        own.iter().map(|name| (*name).to_owned()).collect()
    }

    fn cells(&self, _: Names<'_>, _: Scored<'_>) -> Vec<String> {
        vec![String::new(); self.columns(&[]).len()]
    }

    fn row_bytes(&self, _: &[String]) -> u64 {
        48
    }

    fn details(&self, _: &[String], _: &Predictions) -> Details {
        Details::default()
    }

    fn answers(&self, _: &[String], form: super::Form) -> Result<Vec<Added>, String> {
        if form.all {
            return Err(
                "`--all` gives the probability of every class, and this model gives a vector"
                    .to_owned(),
            );
        }
        Ok(vec![added("embedding", false)])
    }

    fn values(&self, _: &[String], form: super::Form, scores: &[f32]) -> Vec<Json> {
        let by = match self.normalizes() {
            true => near::length(scores).max(near::LEAST),
            false => 1.0,
        };
        let list: Json = scores.iter().map(|&x| number(f64::from(x) / by)).collect();
        vec![match form.nested {
            true => list,
            false => Json::String(list.to_string()),
        }]
    }

    fn exported_class(&self, model: &dyn Model) -> String {
        model
            .exported_class()
            .replace("ForSequenceClassification", "Model")
    }

    fn export(&self, config: &mut Map<String, Json>, _: &[String]) {
        config.shift_remove("problem_type");
    }
}
