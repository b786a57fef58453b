//! Going on with the prompts of some requests at once.

use super::Limits;
use super::work::{Ask, Input, Job, Said, late};
use crate::cli::templating::Given;
use crate::exec::generate::{Ears, Ended, Prompt};
use crate::exec::observe::Silent;
use crate::exec::predict::{Unfit, Writer};

/// A prompt of a request: its place among the requests, and in its own.
struct Asked {
    job: usize,
    of: usize,
    prompt: Prompt,
}

/// Goes on with the prompts of some requests at once.
pub(super) fn answer(writer: &mut Writer, group: &[Job], limits: Limits) {
    let mut all: Vec<Asked> = Vec::new();
    for (job, own) in group.iter().enumerate() {
        let Ask::Write { prompts, settings } = &own.ask else {
            continue;
        };
        if job == 0 {
            writer.set(settings.clone());
        }
        match tokens(writer, prompts, limits) {
            Ok(lists) => {
                own.say(Said::Begun(lists.iter().map(|ids| ids.len() as u64).sum()));
                // Draws are keyed by the place in the request, as `predict` keys them by the row.
                let asked = |(of, ids)| Asked {
                    job,
                    of,
                    prompt: Prompt {
                        text: of as u64,
                        ids,
                    },
                };
                all.extend(lists.into_iter().enumerate().map(asked));
            }
            Err(why) => own.say(Said::Failed(400, why.to_string())),
        }
    }
    for part in all.chunks(limits.batch.max(1)) {
        let prompts: Vec<Prompt> = part.iter().map(|asked| asked.prompt.clone()).collect();
        let of = |place: usize| {
            part.get(place)
                .and_then(|asked| Some((group.get(asked.job)?, asked.of)))
        };
        let mut each = |place: usize, new: &str| {
            let Some((job, of)) = of(place) else {
                return true;
            };
            if !new.is_empty() {
                job.say(Said::More(of, new.to_owned()));
            }
            job.is_wanted()
        };
        let mut ears = Ears {
            each: &mut each,
            observer: &mut Silent,
        };
        match writer.write(&prompts, &mut ears) {
            Ok(made) => {
                for (place, made) in made.into_iter().enumerate() {
                    let Some((job, of)) = of(place) else { continue };
                    let tokens = made.ids.len() as u64;
                    job.say(match made.ended {
                        Ended::Interrupted => late(),
                        ended => Said::Made {
                            of,
                            text: made.text,
                            tokens,
                            ended,
                        },
                    });
                }
            }
            Err(why) => (0..part.len())
                .filter_map(of)
                .for_each(|(job, _)| job.say(Said::Failed(500, why.to_string()))),
        }
    }
}

/// The tokens of prompts.
fn tokens(writer: &Writer, prompts: &[Input], limits: Limits) -> Result<Vec<Vec<u32>>, Unfit> {
    let given = Given::default();
    let more = writer.settings().max_new_tokens;
    let each = prompts.iter().map(|input| {
        let ids = match input {
            Input::Text(text) => writer.prompt(text),
            Input::Chat(messages) => writer.conversation(messages, given.rendering(None)),
        }?;
        if ids.len() as u64 + more > limits.context {
            let why = format!(
                "the prompt has {} tokens, and with {more} new ones it is longer than `--context {}`; shorten it, or ask for fewer new tokens",
                ids.len(),
                limits.context
            );
            return Err(why.into());
        }
        Ok(ids)
    });
    each.collect()
}
