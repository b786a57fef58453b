//! Tables of predictions.

use crate::library::data::tokens::Target;
use crate::library::metric::Predictions;
use crate::library::model::HeadKind;
use crate::library::tokenizer::Tokenizer;

/// One row a masked place: index of the example, position in it, the token that stood there, the one
/// predicted; tokens as the vocabulary writes them.
#[must_use]
pub fn masked_tsv(p: &Predictions, tokenizer: &Tokenizer) -> String {
    use std::fmt::Write as _;
    let token = |id: u32| tokenizer.token(id).unwrap_or_else(|| "?".to_owned());
    let mut text = String::from("index\tposition\tlabel\tprediction\n");
    for (guess, (label, told)) in p.masked.iter().zip(p.pairs()) {
        let (index, position) = (guess.example, guess.position);
        let (label, told) = (token(label), token(told));
        let _ = writeln!(text, "{index}\t{position}\t{label}\t{told}");
    }
    text
}

/// One row an example: index, label, prediction, scores.
#[must_use]
pub fn predictions_tsv(p: &Predictions, head: &HeadKind) -> String {
    use std::fmt::Write as _;
    let names: Vec<&str> = match head {
        HeadKind::Classes(names) => names.iter().map(String::as_str).collect(),
        HeadKind::Regression => vec!["value"],
        HeadKind::Vocabulary => Vec::new(),
    };
    let class = |c: u32| names.get(c as usize).copied().unwrap_or("?");
    let mut text = String::from("index\tlabel\tprediction");
    for name in &names {
        let _ = write!(text, "\tscore_{name}");
    }
    text.push('\n');
    for (i, ((row, target), best)) in p
        .scores
        .chunks(p.width.max(1))
        .zip(&p.targets)
        .zip(p.classes())
        .enumerate()
    {
        let label = match target {
            Target::None => String::new(),
            Target::Class(c) => class(*c).to_owned(),
            Target::Score(x) => x.to_string(),
        };
        let prediction = match head {
            HeadKind::Classes(_) => class(best).to_owned(),
            HeadKind::Regression | HeadKind::Vocabulary => {
                row.first().map(ToString::to_string).unwrap_or_default()
            }
        };
        let _ = write!(text, "{i}\t{label}\t{prediction}");
        for x in row {
            let _ = write!(text, "\t{x}");
        }
        text.push('\n');
    }
    text
}
