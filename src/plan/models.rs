//! Models of a recipe bound: config, tokenizer, and what their files hold. Weights are not read, but for
//! the names and shapes of their tensors.

use std::sync::Arc;

use serde_json::Value as Json;

use super::bind::{Binder, BoundModel};
use super::error::{
    ASSUMED_MODEL, BAD_MODEL, BAD_TOKENIZER, CASED_VOCABULARY, NO_TF32, TOKENIZER_DIFFERS,
    UNKNOWN_IDENTITY, UNREAD_KEY,
};
use super::holds::Stored;
use super::model_files::Files;
use super::modules;
use crate::base::world::Location;
use crate::base::world::RepoKind;
use crate::base::{Diag, Diags, Span};
use crate::files::near;
use crate::files::weights::sharded::Layout;
use crate::library::decl;
use crate::library::generate::{self, Rules};
use crate::library::model::{self, Facts, Model};
use crate::library::tokenizer::{Beyond, Tokenizer, TokenizerFiles, Topic};
use crate::program::device::Device;
use crate::program::format::Storing;
use crate::program::op::Precision;
use crate::program::{DType, Format, Numbers};
use crate::resolve::Declared;

/// The error of a model whose files cannot be read.
fn unreadable(at: Span, message: String, help: &str) -> Diag {
    let diag = Diag::error(&BAD_MODEL, at, message).label("this model");
    match help {
        "" => diag,
        help => diag.help(help),
    }
}

/// Warns of keys of a config that no architecture here reads.
fn unread_keys(declared: &Declared, config: &Json, diags: &mut Diags) {
    let unknown = model::unknown_keys(config);
    let Some(arg) = declared.arg.as_ref().filter(|_| !unknown.is_empty()) else {
        return;
    };
    let message = format!(
        "the config.json of `{}` has `{}`, which is not known here and not followed",
        declared.name.value,
        unknown.join("`, `")
    );
    let help = "if it changes what the model computes, results differ from those of the program that knows it";
    diags.push(Diag::warning(&UNREAD_KEY, arg.span, message).help(help));
}

/// The word on a model of which nothing tells one state from another.
fn unidentified(declared: &Declared, at: Span) -> Diag {
    let message = format!("the revision of `{}` could not be had", declared.name.value);
    Diag::warning(&UNKNOWN_IDENTITY, at, message).label("so stages that use it have no fingerprint")
}

/// The error of a format in blocks that none of the model's matrices has.
fn no_blocks(declared: &Declared, stored: Option<&Stored>, asked: Format) -> Option<Diag> {
    let (stored, packed) = (stored?, asked.blocks()?);
    let fits = |shape: &[u64]| matches!(shape, [_, width] if asked.fits(*width));
    if stored.shapes().any(fits) {
        return None;
    }
    let at = decl::DTYPE.span(&declared.filled.values);
    let message = format!(
        "no matrix of `{}` has rows of whole blocks of {} numbers, so none would be stored as {asked}",
        declared.name.value,
        packed.rule().numbers()
    );
    Some(
        Diag::error(&BAD_MODEL, at, message)
            .help("write `dtype = q4_0` or `q8_0`, whose blocks have 32 numbers"),
    )
}

impl Binder<'_> {
    pub(super) fn bind_model(
        &mut self,
        declared: &Declared,
        diags: &mut Diags,
    ) -> Option<BoundModel> {
        let arg = declared.arg.as_ref()?;
        let values = &declared.filled.values;
        let place = match declared.filled.name.as_str() {
            "hub" if decl::FILE.is_written(values) => self.hub_file(declared, diags)?,
            "hub" => Location::Hub {
                repo: arg.value.clone(),
                revision: decl::REVISION.get(values).map(str::to_owned),
            },
            _ => Location::Local(declared.base.join(&arg.value)),
        };
        let names = self.listing(&place);
        let gguf = self.gguf(declared, &place, diags)?;
        let mut files = Files {
            world: self.world,
            place: &place,
            names,
            gguf,
        };
        let entered = modules::entered(declared, &files, diags)?;
        if let Some(inside) = &entered.inside {
            files.place = inside;
        }
        let place = files.place;
        let (bytes, config, architecture) = self.config(declared, &files, diags)?;
        let random = (decl::INIT.find(values) == Some("random")).then(|| decl::SEED.get(values));
        let refused = |(message, help): (String, _)| unreadable(arg.span, message, help);
        let stored = self.stored(&files, random).map_err(refused);
        let stored = stored.map_err(|diag| diags.push(diag)).ok()?;
        unread_keys(declared, &config, diags);
        let tokenizer = self.tokenizer(declared, place, (&config, architecture.facts()), diags);
        let chat = self.chat(declared, place, tokenizer.as_deref(), diags);
        let said = said(
            &files,
            &config,
            (architecture.as_ref(), tokenizer.as_deref()),
        );
        let (ends, rules) = match said {
            Ok(said) => said,
            Err(why) => {
                diags.push(Diag::error(&BAD_MODEL, arg.span, why).label("this model"));
                return None;
            }
        };
        let identity = files.identity(&bytes, random, tokenizer.as_deref());
        if identity.is_none() {
            diags.push(unidentified(declared, arg.span));
        }
        let asked = format(decl::DTYPE.find(values));
        if let Some(diag) = no_blocks(declared, stored.as_deref(), asked) {
            diags.push(diag);
            return None;
        }
        let storage = match (decl::DTYPE.is_written(values), &stored) {
            (false, Some(stored)) if files.gguf.is_some() => Storing::own(stored.formats()),
            _ => asked.into(),
        };
        Some(BoundModel {
            name: declared.name.value.clone(),
            config,
            place: place.clone(),
            random,
            storage,
            numbers: self.numbers(declared, diags),
            tokenizer,
            chat,
            ends,
            rules,
            identity,
            stored,
            modules: entered.modules.map(|own| (own, arg.span)),
        })
    }

    /// A model's config.json, or the one that the recipe plans from while it is not at hand.
    fn config(
        &self,
        declared: &Declared,
        files: &Files<'_>,
        diags: &mut Diags,
    ) -> Option<(Vec<u8>, Json, Box<dyn Model>)> {
        let (arg, name) = (declared.arg.as_ref()?, &declared.name.value);
        let values = &declared.filled.values;
        let vendored = || {
            decl::CONFIG
                .get(values)
                .map(|file| declared.base.join(file))
        };
        let mut bytes = files.read("config.json");
        if let (Err(why), Some(Ok(own))) = (&bytes, vendored().map(|file| self.world.read(&file))) {
            let message = format!("`{}` is not at hand: {why}", arg.value);
            let file = decl::CONFIG.get(values).unwrap_or_default();
            diags.push(
                Diag::warning(&ASSUMED_MODEL, arg.span, message)
                    .label(format!("planned from `{file}`")),
            );
            bytes = Ok(own);
        }
        let read = bytes
            .map_err(|why| format!("cannot read the config.json of `{name}`: {why}"))
            .and_then(|bytes| {
                let config: Json = serde_json::from_slice(&bytes).map_err(|why| {
                    format!("the config.json of `{name}` is not valid JSON: {why}")
                })?;
                let architecture = model::parse(&config)?;
                Ok((bytes, config, architecture))
            });
        read.map_err(|why| {
            diags.push(Diag::error(&BAD_MODEL, arg.span, why).label("this model"));
        })
        .ok()
    }

    /// In what numbers a model's products are formed and its activations are held.
    fn numbers(&self, declared: &Declared, diags: &mut Diags) -> Numbers {
        let values = &declared.filled.values;
        let products = match decl::PRECISION.find(values) {
            Some("bf16") => Precision::Bf16,
            Some("tf32") => {
                self.without_tf32(declared, diags);
                Precision::Tf32
            }
            _ => Precision::F32,
        };
        Numbers {
            products,
            activations: float_type(decl::ACTIVATIONS.find(values)),
        }
    }

    /// The names of a repository's files, where they can be had; asked for once.
    pub(super) fn listing(&mut self, place: &Location) -> Option<Arc<[String]>> {
        let Location::Hub { repo, revision } = place else {
            return None;
        };
        let key = format!("{repo}@{revision:?}");
        if let Some(known) = self.listings.get(&key) {
            return known.clone();
        }
        let list = self
            .world
            .hub_list(repo, RepoKind::Model, revision.as_deref());
        let names: Option<Arc<[String]>> = list.ok().map(Arc::from);
        self.listings.insert(key, names.clone());
        names
    }

    /// The headers of a model's weights, where they are at hand; an error with its remedy where there are
    /// none that can be read.
    fn stored(
        &self,
        files: &Files<'_>,
        random: Option<u64>,
    ) -> Result<Option<Arc<Stored>>, (String, &'static str)> {
        if random.is_some() {
            return Ok(None);
        }
        let convert =
            "load it in transformers and call save_pretrained, which writes model.safetensors";
        let dir = match files.place {
            Location::Local(file) if files.gguf.is_some() => {
                let read = Stored::read(self.world, file);
                return match read {
                    Ok(stored) => Ok(Some(Arc::new(stored))),
                    Err(why) => Err((format!("`{}` cannot be read: {why}", file.display()), "")),
                };
            }
            Location::Local(dir) => dir.clone(),
            Location::Hub { repo, .. } => {
                if files.layout() == Layout::Pickle {
                    return Err((
                        format!(
                            "`{repo}` has its weights as pytorch_model.bin only, a pickle, which can run code and is never read"
                        ),
                        "name a `revision` that has model.safetensors: the hub's bot offers one as a pull request, \
                         `revision = \"refs/pr/N\"`; or convert a copy with save_pretrained of transformers",
                    ));
                }
                // Only what lies in the cache already.
                let Some(dir) = files.cached() else {
                    return Ok(None);
                };
                if Layout::of(|name| self.world.exists(&dir.join(name))) == Layout::None {
                    return Ok(None);
                }
                dir
            }
        };
        match Layout::of(|name| self.world.exists(&dir.join(name))) {
            Layout::Pickle => Err((
                format!(
                    "`{}` has its weights as pytorch_model.bin only, a pickle, which can run code and is never read",
                    dir.display()
                ),
                convert,
            )),
            Layout::None => Err((
                format!("there are no weights in `{}`", dir.display()),
                "put model.safetensors there, or write `init = random` to try speed and memory without weights",
            )),
            Layout::Single | Layout::Sharded => match Stored::read(self.world, &dir) {
                Ok(stored) => Ok(Some(Arc::new(stored))),
                // A shard of the hub's that is not in the cache yet.
                Err(_) if matches!(files.place, Location::Hub { .. }) => Ok(None),
                Err(why) => Err((
                    format!("the weights in `{}` cannot be read: {why}", dir.display()),
                    "",
                )),
            },
        }
    }

    /// Says so where products in TF32 are asked for and cannot be had.
    fn without_tf32(&self, declared: &Declared, diags: &mut Diags) {
        let place = match self.device {
            Device::Cpu => "the processor has no TF32".to_owned(),
            Device::Cuda(Some(card)) if card.tf32 == 0 => {
                format!("`{}` has no TF32: it came with Ampere", card.name)
            }
            Device::Cuda(_) => return,
        };
        let at = decl::PRECISION.span(&declared.filled.values);
        diags.push(
            Diag::warning(
                &NO_TF32,
                at,
                format!("{place}, and products are taken in f32"),
            )
            .label("more exact than asked for, and as slow as `f32`")
            .help("plan for a GPU (`--device cuda`, `--device a100-80gb`), or write `precision = bf16`"),
        );
    }

    fn tokenizer(
        &mut self,
        declared: &Declared,
        place: &Location,
        (config, facts): (&Json, &Facts),
        diags: &mut Diags,
    ) -> Option<Arc<Tokenizer>> {
        let own = decl::TOKENIZER
            .get(&declared.filled.values)
            .map(|dir| Location::Local(declared.base.join(dir)));
        let place = own.as_ref().unwrap_or(place);
        let at = decl::TOKENIZER
            .is_written(&declared.filled.values)
            .then(|| decl::TOKENIZER.span(&declared.filled.values));
        let at = at
            .or(declared.arg.as_ref().map(|a| a.span))
            .unwrap_or_default();
        // A folder with nothing but a tokenizer is read as the model's class would.
        let model_type = config.get("model_type").and_then(Json::as_str);
        let key = format!("{} {model_type:?} {place:?}", facts.vocab);
        let tokenizer = match self.tokenizers.get(&key) {
            Some(known) => known.clone(),
            None => {
                let names = self.listing(place);
                let read =
                    self.read_tokenizer(declared, (place, names), (config, facts), at, diags)?;
                let tokenizer = Arc::new(read);
                self.tokenizers.insert(key, tokenizer.clone());
                tokenizer
            }
        };
        for note in tokenizer.notes() {
            let code = match note.topic {
                Topic::Unread => &UNREAD_KEY,
                Topic::Differs => &TOKENIZER_DIFFERS,
                Topic::Cased => &CASED_VOCABULARY,
            };
            diags.push(Diag::warning(code, at, note.message.clone()).help(note.help.clone()));
        }
        Some(tokenizer)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what is planned, what it stands on, and where complaints go"
    )]
    fn read_tokenizer(
        &self,
        declared: &Declared,
        (place, names): (&Location, Option<Arc<[String]>>),
        (config, facts): (&Json, &Facts),
        at: Span,
        diags: &mut Diags,
    ) -> Option<Tokenizer> {
        let files = Files {
            world: self.world,
            place,
            names,
            gguf: self.own_gguf(place),
        };
        let get = |name: &str| match files.optional(name) {
            None if name == "config.json" => serde_json::to_vec(config).ok(),
            found => found,
        };
        let dir_name = match place {
            Location::Local(dir) => dir.display().to_string(),
            Location::Hub { repo, .. } => repo.clone(),
        };
        let name = &declared.name.value;
        if let Some(Err(why)) = files.gguf.as_ref().map(|g| g.side("tokenizer.json")) {
            let message = format!("the tokenizer of `{name}` cannot be read: {why}");
            diags.push(Diag::error(&BAD_TOKENIZER, at, message));
            return None;
        }
        let read = Tokenizer::from_files(&TokenizerFiles {
            dir_name,
            get: &get,
        });
        let vocab = facts.vocab;
        match read.map(|t| t.with_rows(vocab)) {
            Ok(tokenizer) => match tokenizer.beyond(vocab) {
                Beyond::Nothing => Some(tokenizer),
                Beyond::Added(list) => {
                    let message = format!(
                        "the model has embeddings for {vocab} tokens, and none for the added `{}`",
                        list.join("`, `")
                    );
                    let help = "a text that holds one of them is refused";
                    diags.push(Diag::warning(&TOKENIZER_DIFFERS, at, message).help(help));
                    Some(tokenizer)
                }
                Beyond::Vocabulary => {
                    let message = format!(
                        "the tokenizer knows {} tokens, the model has embeddings for {vocab}",
                        tokenizer.all_tokens()
                    );
                    let help =
                        "name the directory of the model's own tokenizer: `tokenizer = \"…\"`";
                    diags.push(Diag::error(&BAD_TOKENIZER, at, message).help(help));
                    None
                }
            },
            Err(why) if matches!(place, Location::Hub { .. }) && !files.explain_themselves() => {
                let message = format!("the tokenizer of `{name}` cannot be had: {why}");
                diags.push(Diag::warning(&BAD_TOKENIZER, at, message));
                None
            }
            Err(why) => {
                let message = format!("the tokenizer of `{name}` cannot be read: {why}");
                let mut diag = Diag::error(&BAD_TOKENIZER, at, message);
                let written = decl::TOKENIZER.get(&declared.filled.values);
                let folder = written.map(|folder| declared.base.join(folder));
                diag.help = folder.filter(|f| !self.world.exists(f)).map(|folder| {
                    let missing = "there is no such folder; check the path, which is relative to the recipe's";
                    near::did_you_mean(&folder).unwrap_or_else(|| missing.to_owned())
                });
                diags.push(diag);
                None
            }
        }
    }
}

/// How frozen weights are stored, as a recipe writes it; the resolver has checked the name.
fn format(written: Option<&str>) -> Format {
    written
        .and_then(Format::named)
        .unwrap_or(Format::Plain(DType::F32))
}

/// A float type as a recipe writes it.
fn float_type(written: Option<&str>) -> DType {
    match written {
        Some("f16") => DType::F16,
        Some("bf16") => DType::BF16,
        _ => DType::F32,
    }
}

/// What a model's files say of the tokens that it makes: those that end a text, and what is said of others where targets are made of
/// sources.
fn said(
    files: &Files<'_>,
    config: &Json,
    (model, tokenizer): (&dyn Model, Option<&Tokenizer>),
) -> Result<(Vec<u32>, Option<Rules>), String> {
    let pair = model.seq2seq();
    if model.causal_lm().is_none() && pair.is_none() {
        return Ok((Vec::new(), None));
    }
    let bytes = files.optional(generate::FILE);
    let generation = bytes.map(|bytes| serde_json::from_slice::<Json>(&bytes));
    let generation = generation
        .transpose()
        .map_err(|why| format!("its {} is not valid JSON: {why}", generate::FILE))?;
    let ends = generate::end_tokens(generation.as_ref(), config, tokenizer)?;
    let Some(pair) = pair else {
        return Ok((ends, None));
    };
    let own = (pair.rules(), ends.as_slice(), pair.sides().rows[1]);
    let rules = Rules::of(generation.as_ref(), config, own)?;
    Ok((ends, Some(rules)))
}
