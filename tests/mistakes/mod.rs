//! Mistakes combined: valid recipes of every stage kind, method and kind of data, into which several mistakes of
//! meaning are put at once. Each that no other one hides by nature must be named, and nothing else.
//!
//! What hides what (`hides.rs` says the same in code):
//! - nothing is read of a file whose brackets are nested too deep, nor of a declaration with a bracket that is never
//!   closed; beside any unreadable piece of text or import, nothing is said to be missing; of a declaration that is
//!   none, or that a reference leads to, no more is known than its name;
//! - a declaration with a wrong text or value is not planned. What needs it is planned as far as it can be without, as
//!   where a reference leads nowhere: a stage without its model or the stage it comes from says what is wrong with its
//!   keys only, one without its data or prompt says nothing of the words of classes;
//! - a stage with any mistake leaves nothing, so those that come from it can say what is wrong with their keys only;
//! - data that cannot be read, or a prompt that cannot, hide what is wrong with the words of classes and with
//!   demonstrations; two mistakes of one data set or of one prompt may hide each other;
//! - what a stage is lowered to is looked at last, where nothing else is wrong with it.

pub mod bases;
pub mod hides;
pub mod kinds;
pub mod recipe;
pub mod within;

use std::collections::BTreeSet;
use std::path::Path;

use peftc::base::Severity;
use peftc::base::rng::Stream;
use peftc::driver::{Compiled, compile_with};
use peftc::program::op::Machine;

use kinds::{Mistake, Phase};
use recipe::Recipe;
use within::Beside;

/// Random choices from a counter-based stream: the same on every machine.
pub struct Dice {
    stream: Stream,
    next: u64,
}

impl Dice {
    /// Those of a case.
    pub fn new(seed: u64, case: u64) -> Self {
        Self {
            stream: Stream::new(seed, &format!("mistakes/{case}")),
            next: 0,
        }
    }

    /// A number below `n`, which is at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        self.next += 1;
        ((self.stream.uniform(self.next) * n as f64) as usize).min(n - 1)
    }
}

/// The valid recipes, each with the mistakes that can be put into it.
pub fn all() -> Vec<(Recipe, Vec<Mistake>)> {
    let with = |base: Recipe| {
        let known = kinds::mistakes(&base);
        (base, known)
    };
    bases::bases().into_iter().map(with).collect()
}

/// A recipe with mistakes in it.
pub struct Case {
    /// The valid recipe.
    pub base: Recipe,
    pub recipe: Recipe,
    pub mistakes: Vec<Mistake>,
}

impl Case {
    /// Case `index` of `seed`: two to four mistakes in one of the valid recipes.
    pub fn draw(seed: u64, index: u64, all: &[(Recipe, Vec<Mistake>)]) -> Self {
        let mut dice = Dice::new(seed, index);
        let (base, known) = &all[dice.below(all.len())];
        // Each code as often as any other, however many ways there are to earn it.
        let codes: BTreeSet<&str> = known.iter().map(|m| m.code.as_str()).collect();
        let codes: Vec<&str> = codes.into_iter().collect();
        let wanted = 2 + dice.below(3);
        let mut recipe = base.clone();
        let mut mistakes: Vec<Mistake> = Vec::new();
        let mut touched: BTreeSet<(usize, String)> = BTreeSet::new();
        for _ in 0..40 {
            if mistakes.len() == wanted {
                break;
            }
            let code = codes[dice.below(codes.len())];
            let of: Vec<&Mistake> = known.iter().filter(|m| m.code == code).collect();
            let one = of[dice.below(of.len())];
            if one.touches.iter().any(|t| touched.contains(t)) {
                continue;
            }
            touched.extend(one.touches.iter().cloned());
            mistakes.push(one.clone());
        }
        for mistake in &mistakes {
            for edit in &mistake.edits {
                recipe.apply(edit);
            }
        }
        Self {
            base: base.clone(),
            recipe,
            mistakes,
        }
    }

    /// Compiles it in a folder with the files that the valid recipes name.
    pub fn compile(&self, folder: &Path, world: &Beside) -> Compiled {
        self.compile_as(&folder.join("case.peft"), world)
    }

    /// The same under a name of its own.
    pub fn compile_as(&self, path: &Path, world: &Beside) -> Compiled {
        world.write(path, &self.recipe.print().0);
        compile_with(path, &self.recipe.sets, world, &Machine::cpu(1), false)
    }

    /// What is wrong with what was said of it; empty if nothing is.
    pub fn complaints(&self, compiled: &Compiled) -> Vec<String> {
        let mut list = Vec::new();
        let (_, lines) = self.recipe.print();
        let errors: Vec<(String, usize)> = compiled
            .diags
            .iter()
            .filter(|d| d.severity == Severity::Error)
            .map(|d| {
                let line = d.span.and_then(|span| {
                    let source = compiled.sources.get(span.source)?;
                    Some(
                        source
                            .text
                            .get(..span.start as usize)?
                            .matches('\n')
                            .count()
                            + 1,
                    )
                });
                (d.code.name.to_owned(), line.unwrap_or(0))
            })
            .collect();
        if errors.is_empty() {
            list.push("nothing is said to be wrong".to_owned());
        }
        for (i, mistake) in self.mistakes.iter().enumerate() {
            let others = self.mistakes.iter().enumerate().filter(|(j, _)| *j != i);
            let others: Vec<&Mistake> = others.map(|(_, m)| m).collect();
            if hides::hidden(&self.base, mistake, &others) {
                continue;
            }
            let places = hides::places(&self.base, mistake);
            let named = errors.iter().any(|(code, line)| {
                *code == mistake.code
                    && (places.is_empty()
                        || places
                            .iter()
                            .any(|&d| lines.get(d).is_some_and(|l| l.contains(line))))
            });
            if !named {
                list.push(format!("{} ({}) is not named", mistake.what, mistake.code));
            }
        }
        let text = self.mistakes.iter().any(|m| m.phase == Phase::Text);
        for (code, line) in &errors {
            let known = self
                .mistakes
                .iter()
                .any(|m| m.code == *code || m.also.contains(&code.as_str()));
            // A piece of text that cannot be read may be anything.
            let unread = text && code.starts_with("syntax::");
            if !known && !unread {
                list.push(format!("{code} in line {line} is nobody's mistake"));
            }
        }
        list
    }
}
