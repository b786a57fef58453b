//! `token_classify`: a class for each word of a text, such as the tags of named entities.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::{
    Answer, Asked, Details, Form, Gathered, Head, Names, Pieces, Reads, Scored, Task, TaskKind,
    added, label_keys, number, one_class,
};
use crate::library::counts::to_u32;
use crate::library::data::form;
use crate::library::data::form::Learn;
use crate::library::data::tokens::{CONTINUES, EncodedSet, Target};
use crate::library::error::STRANGE_TAGS;
use crate::library::metric::{Predictions, entities_by_type, is_tag};
use crate::library::model::Model;
use crate::library::net::Net;
use crate::library::rows::Added;
use crate::library::schema::{Given, Schema, kind};
use crate::library::tokenizer::Tokenizer;
use crate::program::op::CrossEntropy;
use crate::program::{Builder, Feed, Pick, TargetKind, Value};

/// A class for each word: cross-entropy at its pieces.
#[derive(Debug)]
struct TokenClassify {
    pieces: Pieces,
}

const PIECES: Given<str> = Given::<str>::new(
    "pieces",
    kind::choice(&["first", "all"]),
    ("first", "first"),
    "which pieces of a word have its label in training: the first, or `all`, those behind the first of a `B-` with the `I-` of its type. \
          The first piece alone decides what is predicted of a word",
);

static SCHEMA: Schema = Schema {
    name: "token_classify",
    summary: "a class for each word, such as tags of named entities: cross-entropy on a head for tokens",
    doc: "Reads data with `tokens`, a list of words, and `label`, the list of their classes. The tokenizer cuts each word into pieces by \
          itself. The head is a linear map of each state (`…ForTokenClassification` of transformers). The loss is the mean over the \
          labelled pieces of a batch. A row longer than `max_length` is read in several parts, none of which begins within a word, so that \
          every word is labelled; what of a single word is longer than a part is left away.",
    paper: "Devlin et al. 2019 (arXiv 1810.04805), section 5.3",
    keys: &[PIECES.key()],
};

pub(super) static KIND: TaskKind = TaskKind {
    schema: &SCHEMA,
    problem_type: None,
    class: Some("ForTokenClassification"),
    make: |values| {
        let pieces = match PIECES.find(values) {
            Some("all") => Pieces::All,
            _ => Pieces::First,
        };
        Arc::new(TokenClassify { pieces })
    },
};

/// What was scored of the words of a row.
#[derive(Default)]
struct Row {
    row: u32,
    labels: Vec<u32>,
    predicted: Vec<u32>,
    /// The place of each word's first piece among all scores.
    places: Vec<usize>,
}

/// The rows of a split, from the places of their sequences.
fn rows(set: &EncodedSet, all: &Predictions) -> Vec<Row> {
    let mut list: Vec<Row> = Vec::new();
    let mut place = 0;
    for example in 0..to_u32(set.len()) {
        let row = set.row(example).unwrap_or(example);
        let Some(Target::Each(labels)) = set.label(example) else {
            continue;
        };
        if list.last().is_none_or(|last| last.row != row) {
            list.push(Row {
                row,
                ..Row::default()
            });
        }
        for &label in labels.iter() {
            let predicted = match all.predicted.get(place) {
                Some(Target::Class(class)) => *class,
                _ => u32::MAX,
            };
            if let Some(last) = list.last_mut().filter(|_| label & CONTINUES == 0) {
                last.labels.push(label);
                last.predicted.push(predicted);
                last.places.push(place);
            }
            place += 1;
        }
    }
    list
}

impl Task for TokenClassify {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn answer(&self) -> Answer {
        Answer::Tags
    }

    fn reads(
        &self,
        _: Option<&Tokenizer>,
        _: bool,
        _: bool,
    ) -> Result<Option<Reads>, [&'static str; 2]> {
        Ok(Some(Reads::Labelled(Arc::default())))
    }

    fn learns(&self, form: form::Form) -> Result<Learn, [String; 2]> {
        if form == form::Form::Words {
            return Ok(Learn::Nothing);
        }
        let message = format!(
            "`token_classify` labels words, and these data have {}",
            form.what()
        );
        let help =
            "name the columns of the words and of their labels: `tokens = COLUMN, label = COLUMN`";
        Err([message, help.to_owned()])
    }

    fn words(&self) -> Option<Pieces> {
        Some(self.pieces)
    }

    fn head_modules(&self, _: &dyn Model) -> &'static [&'static str] {
        &["classifier"]
    }

    fn pick(&self, _: &dyn Model) -> Pick {
        Pick::Places
    }

    fn needs(&self) -> Head {
        Head::Tokens
    }

    fn scores(
        &self,
        model: &dyn Model,
        net: &mut Net<'_>,
        hidden: Value,
        (classes, _): (usize, &[u32]),
    ) -> Value {
        let scores = model.classify_tokens(net, hidden, self.width(classes));
        scores.unwrap_or(hidden)
    }

    fn loss(&self, b: &mut Builder, scores: Value) -> Value {
        b.label("loss");
        let scale = b.feed(Feed::LossScale);
        let labels = b.feed(Feed::Targets(TargetKind::Token));
        b.push1(CrossEntropy, &[scores, labels, scale])
    }

    fn metrics(&self) -> &'static [&'static str] {
        &[
            "entity_f1",
            "entity_precision",
            "entity_recall",
            "token_accuracy",
        ]
    }

    fn gathers(&self) -> bool {
        true
    }

    fn gather(&self, set: &EncodedSet, all: &Predictions, asked: Asked<'_>) -> Option<Gathered> {
        let mut gathered = Gathered::default();
        let name = |class: &u32| {
            asked
                .classes
                .get(*class as usize)
                .map_or("?", String::as_str)
        };
        let names = |list: &[u32]| -> Json { list.iter().map(name).collect() };
        for row in rows(set, all) {
            let cells = [&row.labels, &row.predicted].map(|list| names(list).to_string());
            gathered.cells.push((row.row, cells.to_vec()));
            if let Some(form) = asked.form {
                let own = values(asked.classes, form, all, &row.places);
                let text = |list: Json| match form.nested {
                    true => list,
                    false => Json::String(list.to_string()),
                };
                let tags = names(&row.predicted);
                gathered
                    .values
                    .push(std::iter::once(tags).chain(own).map(text).collect());
            }
            let predictions = &mut gathered.predictions;
            predictions.targets.push(Target::Each(Arc::new(row.labels)));
            predictions
                .predicted
                .push(Target::Each(Arc::new(row.predicted)));
        }
        gathered.predictions.loss = all.loss;
        gathered.predictions.classes = Arc::new(asked.classes.to_vec());
        Some(gathered)
    }

    fn columns(&self, _: &[String]) -> Vec<String> {
        ["label", "prediction"].map(str::to_owned).to_vec()
    }

    fn row_bytes(&self, classes: &[String]) -> u64 {
        // The tags of a sentence of usual length, twice.
        let longest = classes.iter().map(String::len).max().unwrap_or(0) as u64;
        24 + 2 * 32 * (longest + 5)
    }

    fn cells(&self, names: Names<'_>, row: Scored<'_>) -> Vec<String> {
        let name = |target: &Target| match target {
            Target::Class(class) => names.class(*class).to_owned(),
            _ => String::new(),
        };
        vec![name(row.target), name(row.predicted)]
    }

    fn details(&self, classes: &[String], predictions: &Predictions) -> Details {
        let mut details = one_class::details(classes, predictions);
        let kinds = entities_by_type(predictions);
        if kinds.is_empty() && details.entries.is_empty() {
            return details;
        }
        let each = kinds.iter().map(|(name, own)| {
            json!({
                "name": name, "support": own.support, "predicted": own.predicted, "precision": own.precision(),
                "recall": own.recall(), "f1": own.f1(),
            })
        });
        details
            .entries
            .insert("entities".to_owned(), each.collect());
        let strange = classes.iter().find(|name| !is_tag(name));
        details.doubts.extend(strange.map(|name| {
            let message = format!(
                "entities are counted, and `{name}` is no tag of one, such as `B-PER` or `O`: `token_accuracy` says how many words are right"
            );
            (&STRANGE_TAGS, message)
        }));
        details
    }

    fn answers(&self, _: &[String], form: Form) -> Result<Vec<Added>, String> {
        let mut list = vec![added("prediction", false), added("probability", false)];
        if form.all {
            list.push(added("probabilities", false));
        }
        Ok(list)
    }

    fn values(&self, classes: &[String], form: Form, scores: &[f32]) -> Vec<Json> {
        let tag = classes.get(crate::library::metric::best(scores) as usize);
        let all = Predictions {
            scores: scores.to_vec(),
            width: scores.len(),
            ..Predictions::default()
        };
        std::iter::once(json!([tag]))
            .chain(values(classes, form, &all, &[0]))
            .collect()
    }

    fn exported_class(&self, model: &dyn Model) -> String {
        model
            .exported_class()
            .replace("SequenceClassification", "TokenClassification")
    }

    fn export(&self, config: &mut Map<String, Json>, classes: &[String]) {
        label_keys(config, classes);
        config.shift_remove("problem_type");
    }
}

/// Probabilities of the words at these places: of the predicted classes and, where that is asked for, of all.
fn values(classes: &[String], form: Form, all: &Predictions, places: &[usize]) -> Vec<Json> {
    let width = all.width.max(1);
    let shares = places.iter().map(|place| {
        let row = all.scores.get(place * width..(place + 1) * width);
        one_class::softmax(row.unwrap_or_default())
    });
    let shares: Vec<Vec<f64>> = shares.collect();
    let most = |row: &Vec<f64>| number(row.iter().copied().fold(0.0, f64::max));
    let mut list = vec![shares.iter().map(most).collect()];
    if form.all {
        let of = |row: &Vec<f64>| {
            let pairs = classes.iter().zip(row);
            Json::Object(pairs.map(|(name, &x)| (name.clone(), number(x))).collect())
        };
        list.push(shares.iter().map(of).collect());
    }
    list
}
