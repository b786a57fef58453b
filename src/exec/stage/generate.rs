//! Generating behind the prompts of a split, and comparing with what the data have there.

use std::io::Write;

use serde_json::json;

use super::Work;
use crate::exec::generate::{self, Cached, Ears, Generation, Pairing, Prompt};
use crate::exec::interpreter::Runner;
use crate::exec::observe::Observer;
use crate::files::RunError;
use crate::files::durable::{failed, write_atomically};
use crate::library::counts::to_u32;
use crate::library::data::tokens::{EncodedSet, unmarked};
use crate::library::generate::with_stops;
use crate::library::metric::TextPair;
use crate::library::stage::job::Generate;

/// Name of the file of generated texts.
const TEXTS: &str = "predictions.jsonl";

/// A row: its number in the data, its prompt, and the text that is wanted.
struct Asked {
    index: u32,
    prompt: String,
    reference: String,
}

impl Work<'_> {
    /// Generates behind each prompt, writing the texts on the way; gives them with what they are compared with.
    pub(super) fn generate(
        &self,
        job: &Generate,
        set: &EncodedSet,
        runner: &mut Runner,
        observer: &mut dyn Observer,
    ) -> Result<Vec<TextPair>, RunError> {
        let tokenizer = self.stage.start.model.tokenizer.as_deref();
        let tokenizer =
            tokenizer.ok_or_else(|| RunError::bug("text is generated without a tokenizer"))?;
        let ends = with_stops(&self.stage.start.model.ends, &job.settings.stop, tokenizer);
        let generation = Generation {
            programs: &job.programs,
            capacity: job.capacity,
            pairing: self.stage.start.model.rules.as_ref().map(|rules| Pairing {
                rules,
                capacity: job.source,
            }),
            positions: self.stage.model.facts().positions,
            long: &self.stage.model.facts().long,
            marking: self.stage.trained_with.prompt_marking(),
            tokenizer,
            ends: &ends,
            settings: &job.settings,
        };
        generate::begin(runner, &job.programs);
        let path = self.dir.join(TEXTS);
        let mut pairs = Vec::with_capacity(set.len());
        write_atomically(&path, &mut |out| {
            let all: Vec<u32> = (0..to_u32(set.len())).collect();
            pairs.clear();
            for group in all.chunks(job.places.max(1) as usize) {
                let (asked, prompts) = asked(set, group, &generation)?;
                let mut each = |_: usize, _: &str| true;
                let mut ears = Ears {
                    each: &mut each,
                    observer: &mut *observer,
                };
                let mut cached = Cached::default();
                let (made, _) = generation.group(runner, &prompts, &mut cached, &mut ears)?;
                for (asked, made) in asked.into_iter().zip(made) {
                    let row = json!({
                        "index": asked.index, "prompt": asked.prompt, "reference": asked.reference, "generated": made.text,
                    });
                    writeln!(out, "{row}").map_err(|e| failed(&path, "write", &e))?;
                    pairs.push(TextPair {
                        generated: made.text,
                        references: vec![asked.reference],
                    });
                }
            }
            Ok(())
        })?;
        generate::end(runner, &job.programs);
        Ok(pairs)
    }
}

/// Some rows, and their prompts.
fn asked(
    set: &EncodedSet,
    group: &[u32],
    generation: &Generation<'_>,
) -> Result<(Vec<Asked>, Vec<Prompt>), RunError> {
    let (mut rows, mut prompts) = (Vec::new(), Vec::new());
    for &example in group {
        let own = set.get(example)?;
        let (mut prompt, reference) = own
            .asked()
            .ok_or_else(|| RunError::bug(format!("example {example} has no prompt")))?;
        if let (Some(_), [source @ .., _]) = (generation.pairing, prompt) {
            // The token that a target begins with is none of its source.
            prompt = source;
        }
        let text = |ids: &[u32]| generation.tokenizer.decode(ids).map_err(RunError::bug);
        rows.push(Asked {
            index: set.row(example).unwrap_or(example),
            prompt: text(&unmarked(prompt))?,
            reference: text(&unmarked(reference))?,
        });
        prompts.push(Prompt {
            text: u64::from(example),
            ids: unmarked(prompt),
        });
    }
    Ok((rows, prompts))
}
