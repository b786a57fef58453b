//! `peftc show`: a row of a stage's data as the model will read it.

use std::fmt::Write as _;
use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use clap::Args;
use serde_json::{Value as Json, json};

use super::exit;
use super::options::{Common, Intent, Within, error, print, store_of};
use super::screen::Screen;
use crate::base::visible;
use crate::library::counts::to_u32;
use crate::library::data::form::Form;
use crate::library::data::tokens::EncodedExample;
use crate::library::tokenizer::Tokenizer;
use crate::plan::Stage;
use crate::plan::bind::BoundSplit;

/// What is learned, in colours.
const LEARNED: Style = AnsiColor::Green.on_default().bold();
/// Special tokens, in colours.
const SPECIAL: Style = AnsiColor::Cyan.on_default();

/// Arguments of `show`.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// The recipe
    file: PathBuf,
    /// The stage
    stage: String,
    /// The row of the data files, counted from 0; the first of the split if not given
    #[arg(long, value_name = "N")]
    row: Option<u32>,
    /// Which of the stage's splits: the key that names it in the recipe, `data` or `dev`
    #[arg(long, value_name = "KEY", default_value = "data")]
    split: String,
    #[command(flatten)]
    common: Common,
}

/// A row and what is known of it.
struct Shown<'a> {
    stage: &'a Stage,
    key: &'a str,
    row: u32,
    /// What it became: one sequence, or one of each answer or option.
    examples: Vec<EncodedExample>,
    form: Form,
    /// Whether behind each answer's prompt the next row's answer is read, too.
    mismatched: bool,
    tokenizer: &'a Tokenizer,
}

impl Show {
    pub(super) fn run(&self) -> i32 {
        let Some(asked) = self.common.prepare(None, Intent::Tell) else {
            return exit::WRONG;
        };
        let world = self.common.world();
        let dir = store_of(&self.file, None);
        let compiled =
            self.common
                .compiled(&self.file, &asked, &world, Within::alone(Some(&dir), None));
        let Some(plan) = &compiled.plan else {
            return exit::WRONG;
        };
        let Some(stage) = plan.named(&self.stage).next() else {
            let names: Vec<&str> = plan.stages.iter().map(|s| s.declared.as_str()).collect();
            error(&format!(
                "there is no stage `{}`; there are `{}`",
                self.stage,
                names.join("`, `")
            ));
            return exit::WRONG;
        };
        match self.find(stage) {
            Ok(shown) if self.common.json => print(&format!("{:#}\n", shown.json())),
            Ok(shown) => print(&shown.text(Screen::out(self.common.color))),
            Err((code, why)) => {
                error(&why);
                return code;
            }
        }
        exit::DONE
    }

    /// The row that is asked for; else an exit code and what is wrong.
    fn find<'a>(&'a self, stage: &'a Stage) -> Result<Shown<'a>, (i32, String)> {
        let name = &stage.declared;
        let wrong = |why: String| (exit::WRONG, why);
        let keys = stage.kind.splits();
        let mut own = keys.iter().zip(&stage.splits);
        let split = own.find(|(key, _)| **key == self.split);
        let Some((key, split)) = split else {
            let keys = keys.join("`, `");
            return Err(wrong(match keys.as_str() {
                "" => format!("`{name}` reads no data"),
                keys => format!("`{name}` has no split `{}`; it has `{keys}`", self.split),
            }));
        };
        let split: &BoundSplit = split
            .as_ref()
            .ok_or_else(|| wrong(format!("`{name}` has no `{key}`")))?;
        let (Some(set), Some(tokenizer)) = (&split.encoded, &stage.start.model.tokenizer) else {
            return Err((
                exit::FAILED,
                format!("the data or the tokenizer of `{name}` are not at hand"),
            ));
        };
        let mut examples = 0..to_u32(set.len());
        let found = match self.row {
            None => examples.next(),
            Some(row) => examples.find(|&e| set.row(e) == Some(row)),
        };
        let Some(index) = found else {
            return Err(wrong(format!(
                "row {} is not among the {} rows of this split",
                self.row.unwrap_or(0),
                set.len()
            )));
        };
        let row = set.row(index);
        let of_row = (index..to_u32(set.len())).take_while(|&e| e == index || set.row(e) == row);
        // Draws of demonstrations are far from each other, and their rows single.
        let examples = of_row.map(|index| set.get(index)).collect::<Result<_, _>>();
        let examples = examples.map_err(|unread| {
            let path = unread.path.display();
            (
                exit::FAILED,
                format!("the tokens in {path} cannot be read: {}", unread.cause),
            )
        })?;
        Ok(Shown {
            stage,
            key,
            row: set.row(index).unwrap_or(index),
            examples,
            form: split.form,
            mismatched: stage.start.task.mismatches(),
            tokenizer,
        })
    }
}

impl Shown<'_> {
    /// Each token: its id, its text, whether it is learned, whether it is a special one.
    fn tokens<'s>(
        &'s self,
        example: &'s EncodedExample,
    ) -> impl Iterator<Item = (u32, String, bool, bool)> + 's {
        let special = self.tokenizer.special_ids();
        let ids = &example.ids;
        let pieces = self.tokenizer.pieces(ids);
        let all = (0_u32..).zip(ids.iter().copied().zip(pieces));
        all.map(move |(place, (id, piece))| {
            let learned = example.learned.iter().any(|r| r.contains(&place));
            (id, piece, learned, special.binary_search(&id).is_ok())
        })
    }

    fn json(&self) -> Json {
        let token = |(id, text, learned, special): (u32, String, bool, bool)| {
            json!({
                "id": id, "token": self.tokenizer.token(id), "text": text, "learned": learned, "special": special,
            })
        };
        let of = |example: &EncodedExample| {
            let tokens: Vec<Json> = self.tokens(example).map(token).collect();
            json!({ "length": example.ids.len(), "learned_tokens": example.learned_tokens(), "tokens": tokens })
        };
        let mut own = json!({
            "schema": 1, "stage": self.stage.name.value, "split": self.key, "row": self.row,
        });
        let mut all: Vec<Json> = self.examples.iter().map(of).collect();
        if let (Some(own), Some(first)) = (own.as_object_mut(), all.first()) {
            own.extend(first.as_object().cloned().unwrap_or_default());
            if all.len() > 1 {
                own.insert("others".to_owned(), all.split_off(1).into());
            }
        }
        own
    }

    /// What a sequence is among those of the row.
    fn part(&self, place: usize) -> String {
        let answer = place / (1 + usize::from(self.mismatched));
        match (self.form, answer) {
            _ if self.mismatched && place % 2 == 1 => {
                ", the same prompt with the next row's answer".to_owned()
            }
            (Form::Preference, 0) => ", chosen".to_owned(),
            (Form::Preference, _) => ", rejected".to_owned(),
            (Form::Choices, place) => format!(", option {place}"),
            (Form::Question, place) => format!(", window {place}"),
            (Form::Anchor, 0) => ", anchor".to_owned(),
            (Form::Anchor, 1) => ", positive".to_owned(),
            (Form::Anchor, _) => ", negative".to_owned(),
            _ => String::new(),
        }
    }

    /// The tokens one behind the other, with a bar between two; what is learned stands between brackets.
    fn text(&self, screen: Screen) -> String {
        let all = self.examples.iter().enumerate();
        let each: Vec<String> = all
            .map(|(place, example)| self.text_of(place, example, screen))
            .collect();
        each.join("\n")
    }

    fn text_of(&self, place: usize, example: &EncodedExample, screen: Screen) -> String {
        let mut text = format!(
            "row {} of `{}` of `{}`{}: {} tokens, {} of them learned, between ⟦ and ⟧\n\n",
            self.row,
            self.key,
            self.stage.name.value,
            self.part(place),
            example.ids.len(),
            example.learned_tokens()
        );
        let (mut inside, mut first) = (false, true);
        for (_, piece, learned, special) in self.tokens(example) {
            if inside && !learned {
                text.push('⟧');
            }
            if !first && inside == learned {
                text.push('│');
            }
            if learned && !inside {
                text.push('⟦');
            }
            (inside, first) = (learned, false);
            // A line break is shown, and breaks the line.
            let shown = piece.replace('\n', "↵").replace('\t', "⇥");
            let shown = visible::line(&shown).replace('↵', "↵\n");
            let style = match (learned, special) {
                (true, _) => Some(LEARNED),
                (false, true) => Some(SPECIAL),
                (false, false) => None,
            };
            let _ = match style {
                Some(style) => write!(text, "{}", screen.paint(style, &shown)),
                None => write!(text, "{shown}"),
            };
        }
        if inside {
            text.push('⟧');
        }
        text.push('\n');
        text
    }
}
