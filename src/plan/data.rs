//! Binding data: splits read, tokenized (within a prompt's template, if there is one), each once.

use std::sync::Arc;

use super::bind::{Binder, BoundModel, BoundSplit, RawSplit, Want};
use super::chat;
use super::encode::{Cause, encoded};
use super::error::{
    ASSUMED_LENGTHS, BAD_DATA, BAD_DEMONSTRATIONS, BAD_PROMPT, BAD_TEMPLATE, BAD_TOKENIZER,
    UNKEPT_TOKENS,
};
use super::source::{DataSource, Unavailable, canonical, given};
use super::split::Lengths;
use crate::base::world::World;
use crate::base::{Diag, Diags, Span, suggest};
use crate::library::data::form::Form;
use crate::library::data::report::{Sight, Survey, Surveyor};
use crate::library::data::set::{Given, Reading, load};
use crate::library::data::{About, DataError, MEANT};
use crate::library::decl;
use crate::library::demonstrations::Demonstrations;
use crate::library::prompt::frame::Frame;
use crate::library::task::Task;
use crate::resolve::Declared;

impl Binder<'_> {
    /// A split as a stage wants it; `None` after a diagnostic.
    pub(super) fn split(
        &mut self,
        name: &str,
        split: &str,
        model: &BoundModel,
        want: Want<'_>,
        at: crate::base::Span,
        diags: &mut Diags,
    ) -> Option<Arc<BoundSplit>> {
        let declared = self.recipe.find("data", name)?;
        let text = decl::columns(&declared.filled.values);
        let form = decl::form(&declared.filled.values);
        let lacking = want.template.and_then(|(template, at)| {
            let column = template.columns().find(|c| !text.iter().any(|t| t == c));
            column.map(|column| (column, at))
        });
        if let Some((column, at)) = lacking {
            let mut diag = Diag::error(
                &BAD_PROMPT,
                at,
                format!(
                    "the template asks for the column `{column}`, which `{name}` does not read"
                ),
            );
            diag.help = suggest::did_you_mean(column, text.iter().map(String::as_str))
                .or_else(|| Some(format!("add it to `text` of `{name}`")));
            diags.push(diag);
        }
        let variables = chat::variables(&declared.filled.values);
        let rows = chat::rows(declared, model, (want, at), variables.as_ref(), diags)?;
        let want = Want { rows, ..want };
        let has_classes = want.task.answer().names_classes();
        let fixed = want.classes.filter(|_| has_classes);
        let source = match self.source(declared, split, want.task, (fixed, want.preferred)) {
            Ok(source) => source,
            Err(Unavailable::Offline(_)) if lacking.is_some() => return None,
            Err(Unavailable::Offline(why)) => {
                diags.push(
                    Diag::warning(
                        &ASSUMED_LENGTHS,
                        at,
                        format!("`{name}.{split}` is not at hand: {why}"),
                    )
                    .label(format!(
                        "every text is taken as {} tokens long; lengths and labels are not checked",
                        want.max_length
                    )),
                );
                let given = match given(declared) {
                    Given::List(list) => list,
                    Given::Map(pairs) => pairs.into_iter().map(|(_, class)| class).collect(),
                    Given::Nothing => Vec::new(),
                };
                let classes = fixed.map_or(given, <[String]>::to_vec);
                return Some(Arc::new(BoundSplit {
                    text: text.clone(),
                    form,
                    variables: variables.clone(),
                    supervision: None,
                    encoded: None,
                    lengths: Lengths::Assumed(want.longest()),
                    classes: if has_classes { classes } else { Vec::new() },
                    identity: None,
                    rows_hash: None,
                    host_bytes: 0,
                    making: 0,
                    noted: None,
                }));
            }
            Err(Unavailable::Wrong(list)) => {
                wrong(list, declared, split, at, diags);
                return None;
            }
        };
        let mut want = want;
        if form.may_be_spoken() && spoken(&source, self.world) {
            want.rows.template = Some(chat::template(declared, model, at, diags)?);
        }
        if lacking.is_some() {
            // What is wrong with the data themselves is told beside it.
            if let Err(list) = self.tally(&source) {
                wrong(list, declared, split, at, diags);
            }
            return None;
        }
        let tokenizer = model.tokenizer.clone();
        let known = want.demonstrations.is_none_or(|d| d.at_hand());
        let Some(tokenizer) = tokenizer.filter(|_| known) else {
            return match self.tally(&source) {
                Ok((n, classes, survey)) => Some(Arc::new(BoundSplit {
                    noted: self.note(declared, split, want, None, &classes, survey),
                    text: text.clone(),
                    form,
                    variables: variables.clone(),
                    supervision: None,
                    encoded: None,
                    lengths: Lengths::Known(vec![
                        want.longest();
                        n * want.draws as usize
                            * form.sequences() as usize
                    ]),
                    classes,
                    identity: None,
                    rows_hash: None,
                    host_bytes: 0,
                    making: 0,
                })),
                Err(list) => {
                    wrong(list, declared, split, at, diags);
                    None
                }
            };
        };
        // All are kept as long as this, so their places tell them from all others.
        let key = format!(
            "{:p} {:p} {} {} {:?} {:?} {:?} {} {:?} {} {:?}",
            Arc::as_ptr(&source),
            Arc::as_ptr(&tokenizer),
            want.task.ends_texts(),
            want.max_length,
            want.marking,
            want.template.map(|(t, _)| &t.source),
            want.demonstrations.map(Arc::as_ptr),
            want.draws,
            want.rows.learn,
            want.task.skips_empty(),
            (want.rows.identity(), want.task.option())
        );
        if let Some(known) = self.splits.get(&key) {
            return Some(known.clone());
        }
        let demonstrations = want.demonstrations.map(Arc::as_ref);
        let frame = want.template.map(|(template, _)| Frame {
            template,
            columns: &text,
            demonstrations,
        });
        match encoded(&source, &tokenizer, frame, want, self.world) {
            Ok(made) => {
                if let Some(why) = made.unkept {
                    let message = format!("the tokens of `{name}.{split}` cannot be kept: {why}");
                    diags.push(
                        Diag::warning(&UNKEPT_TOKENS, at, message)
                            .help("they are held in memory; free space there, or name another folder in `XDG_CACHE_HOME`"),
                    );
                }
                let tokens = Some(tokenizer.identity());
                let bound = Arc::new(BoundSplit {
                    noted: self.note(declared, split, want, tokens, &made.classes, made.survey),
                    text: text.clone(),
                    form,
                    variables: variables.clone(),
                    supervision: made.supervision,
                    making: made.making,
                    host_bytes: made.set.heap_bytes()
                        + made.set.len() as u64 * 4
                        + demonstrations.map_or(0, Demonstrations::heap_bytes)
                        + tokenizer.heap_bytes(),
                    lengths: Lengths::Known(made.set.lengths()),
                    encoded: Some(Arc::new(made.set)),
                    classes: made.classes,
                    identity: source
                        .identity
                        .clone()
                        .map(|data| match want.rows.identity() {
                            own if own.is_empty() => data,
                            own => blake3::hash(format!("{data} {own}").as_bytes())
                                .to_hex()
                                .to_string(),
                        }),
                    rows_hash: made.rows_hash,
                });
                self.splits.insert(key, bound.clone());
                Some(bound)
            }
            Err(Cause::Data(list)) => {
                wrong(list, declared, split, at, diags);
                None
            }
            Err(Cause::Chat(why)) => {
                let place = chat::messages_at(&declared.filled.values);
                let message = format!("`{name}.{split}` cannot be rendered: {why}");
                diags.push(
                    Diag::error(&BAD_TEMPLATE, place, message)
                        .label("these conversations")
                        .related(at, "read here"),
                );
                None
            }
            Err(Cause::Tokens(why)) => {
                let (code, at) = match want.template {
                    Some((_, at)) if want.demonstrations.is_some() => (&BAD_DEMONSTRATIONS, at),
                    Some((_, at)) => (&BAD_PROMPT, at),
                    None => (&BAD_TOKENIZER, at),
                };
                let message = format!("`{name}.{split}` cannot be tokenized: {why}");
                let mut diag = Diag::error(code, at, message);
                if want.demonstrations.is_some() {
                    diag = diag.help("lower `demonstration_length` or `demonstrations`, or raise the stage's `max_length`");
                }
                diags.push(diag);
                None
            }
        }
    }

    /// How many examples there are, the names of the classes, and what is seen of them without their
    /// tokens.
    fn tally(&self, source: &DataSource) -> Result<Tally, Vec<DataError>> {
        let reading = Reading::open(&source.spec, self.world)?;
        let mut n = 0;
        let mut surveyor = self.survey.then(Surveyor::default);
        reading.walk(&mut |_, example| {
            n += 1;
            if let Some(surveyor) = &mut surveyor {
                surveyor.see(&Sight::of(&example));
            }
            true
        })?;
        let classes = reading.classes().to_vec();
        let survey = surveyor.map(|s| s.finish(classes.len()));
        Ok((n, classes, survey))
    }

    /// A split's texts and labels, in memory.
    pub(super) fn raw_split(
        &mut self,
        declared: &Declared,
        split: &str,
        task: &dyn Task,
        classes: &[String],
    ) -> Result<Arc<RawSplit>, Unavailable> {
        let source = self.source(declared, split, task, (Some(classes), None))?;
        let key = format!("{:p}", Arc::as_ptr(&source));
        if let Some(raw) = self.raw.get(&key) {
            return Ok(raw.clone());
        }
        let data = load(&source.spec, self.world);
        let data = data.map_err(Unavailable::Wrong)?;
        source.check(self.world).map_err(Unavailable::Wrong)?;
        let identity = source.identity.clone();
        let raw = Arc::new(RawSplit { data, identity });
        self.raw.insert(key, raw.clone());
        Ok(raw)
    }
}

/// Whether the first row of a split holds lists of messages. What is wrong with it is said where all rows are read.
fn spoken(source: &DataSource, world: &dyn World) -> bool {
    let mut first = false;
    if let Ok(reading) = Reading::open(&source.spec, world) {
        let _said_later = reading.walk(&mut |_, example| {
            first = example.spoken;
            false
        });
    }
    first
}

/// Examples, classes, what was seen of the rows.
type Tally = (usize, Vec<String>, Option<Survey>);

/// Says what is wrong with data, at what of their declaration is to blame.
pub(super) fn wrong(
    list: Vec<DataError>,
    declared: &Declared,
    split: &str,
    at: Span,
    diags: &mut Diags,
) {
    let values = &declared.filled.values;
    let whole = declared
        .arg
        .as_ref()
        .map_or(declared.name.span, |arg| arg.span);
    for error in list {
        let key = match error.about {
            About::Files => canonical(split),
            About::Text => match decl::form(values) {
                Form::Text => "text",
                Form::Completion => "prompt",
                Form::Messages => "messages",
                Form::Preference => "chosen",
                Form::Choices => "choices",
            },
            About::Label => "label",
            About::Labels => "labels",
            About::Split => "split",
            About::Name => "",
        };
        let span = if values.written(key) {
            values.span(key)
        } else {
            whole
        };
        let message = match error.file.as_str() {
            "" => error.message.clone(),
            _ => error.to_string(),
        };
        let mut diag = if error.about == About::Name {
            Diag::error(&BAD_DATA, at, message)
                .label("this split")
                .related(whole, "of these data")
        } else {
            Diag::error(&BAD_DATA, span, message)
                .label("these data")
                .related(at, "read here")
        };
        diag.help = error.help.map(|help| match help.strip_prefix(MEANT) {
            Some(split) if error.about == About::Name => {
                format!("{MEANT}{}.{split}", declared.name.value)
            }
            _ => help,
        });
        diags.push(diag);
    }
}
