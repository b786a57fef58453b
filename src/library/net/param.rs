//! Parameters as the network declares them: names, shapes, where their values come from.

use std::sync::Arc;

use super::super::derive::Derivation;
use super::super::derive::components::{Components, Half};
use super::super::derive::places::{Choice, Part};
use super::super::derive::prune::Cut;
use super::super::derive::spread::{Dealt, Spread};
use super::site::{Role, Site};
use super::waves::Waves;
use crate::program::{Class, Format};

/// Whether a path is `end`, or ends with a dot and `end`.
#[must_use]
pub fn ends_with(path: &str, end: &str) -> bool {
    path.strip_suffix(end)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// What kind of tensor a parameter is; decides weight decay and what BitFit trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParamKind {
    /// A matrix of a linear map.
    Weight,
    /// A bias of a linear map.
    Bias,
    /// Scale of a norm.
    NormWeight,
    /// Shift of a norm.
    NormBias,
    /// A table of embeddings.
    Embedding,
    /// A tensor that a method added.
    Adapter,
}

impl ParamKind {
    /// Whether weight decay applies: not on biases and norms.
    #[must_use]
    pub const fn decays(self) -> bool {
        matches!(self, Self::Weight | Self::Embedding | Self::Adapter)
    }

    /// Value of a model's own parameter of this kind that no file holds.
    #[must_use]
    pub const fn fresh(self) -> Init {
        match self {
            Self::Weight | Self::Embedding => Init::Normal(0.02),
            Self::NormWeight => Init::Constant(1.0),
            Self::Bias | Self::NormBias | Self::Adapter => Init::Constant(0.0),
        }
    }
}

/// Whose parameter it is; decides where its value is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The pretrained model: it must be in the checkpoint.
    Base,
    /// The task head: from the checkpoint if it is there, else initialised.
    Head,
    /// An adapter: from the stage it comes from, else initialised.
    Adapter,
}

/// What an attention of the unchanged model has of a text's first tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Cached {
    /// The attention's path.
    pub site: String,
    /// The tokens.
    pub text: Text,
    /// Whether it is values, or keys.
    pub values: bool,
    /// The first of their rows, and the one behind the last.
    pub rows: [u64; 2],
}

/// Tokens that a model reads before a training.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// These.
    Given(Arc<[u32]>),
    /// So many, drawn from the vocabulary by the stage's seed.
    Drawn(u64),
}

/// How a value is made when no file holds it.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// Normal with this standard deviation.
    Normal(f64),
    /// Uniform in `±bound`.
    Uniform(f64),
    /// Uniform in `±bound`, the columns of a matrix in pairs that are alike.
    UniformPairs(f64),
    /// A constant.
    Constant(f64),
    /// The identity, of a square matrix.
    Identity,
    /// Sines and cosines of positions.
    Waves(Waves),
    /// Computed from one of the model's own weights.
    Derived {
        /// What computes it, together with other tensors.
        by: Derivation,
        /// Which of the results it is.
        part: usize,
    },
    /// Rows and columns of a base parameter.
    Pruned(Cut),
    /// Where the numbers of a short list go.
    Spread {
        /// How they are spread.
        by: Spread,
        /// What of it is held.
        part: Dealt,
    },
    /// Components of what enters the linear map, of the first batches of a training.
    Component {
        /// How they are found.
        by: Arc<Components>,
        /// What is held of them.
        half: Half,
    },
    /// Keys or values that an attention has of a text's first tokens.
    Cached(Cached),
    /// Places in the model's matrices.
    Chosen {
        /// How they are chosen.
        by: Arc<Choice>,
        /// What of the choice it is.
        part: Part,
    },
}

impl Init {
    /// Whether the backbone is run before the first step to know it.
    #[must_use]
    pub const fn is_measured(&self) -> bool {
        matches!(self, Self::Component { .. } | Self::Cached(_))
    }
}

/// A parameter of the network. Methods declare theirs as
/// `Param::at(site, "lora_A.weight").shape(&[rank, input]).start(Init::Uniform(bound))`.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Name, as in Hugging Face checkpoints where it exists there.
    pub name: String,
    /// Shape.
    pub shape: Vec<u64>,
    /// Kind.
    pub kind: ParamKind,
    /// Owner.
    pub owner: Owner,
    /// Role of the module it belongs to.
    pub role: Role,
    /// Block, from 0.
    pub layer: Option<u64>,
    /// Value when no file holds it.
    pub init: Init,
    /// Whether methods can train it: not what a method added frozen, nor the model's own buffers.
    pub trains: bool,
    /// Whether it holds places, in u32, and no numbers.
    pub places: bool,
    /// Whether adapters keep it, or files a buffer of the model's own; one that they do not keep is made again.
    pub saved: bool,
    /// Whether adapters also keep the value it started with, as `<name>0`.
    pub keeps_start: bool,
    /// The model's own parameter in whose place it stands.
    pub replaces: Option<String>,
    /// The format that it is stored in while it is frozen, whatever the model's other weights have.
    pub format: Option<Format>,
    /// Whether it is trained in this stage.
    pub trainable: bool,
    /// Factor of the learning rate.
    pub rate: f64,
    /// Whether weight decay leaves it alone, whatever its kind.
    pub undecayed: bool,
}

impl Param {
    /// A parameter of the model's own, outside of the blocks, that starts fresh where no file holds it.
    #[must_use]
    pub fn own(name: impl Into<String>, shape: &[u64], kind: ParamKind, role: Role) -> Self {
        Self {
            name: name.into(),
            shape: shape.to_vec(),
            kind,
            owner: Owner::Base,
            role,
            layer: None,
            init: kind.fresh(),
            trains: true,
            places: false,
            saved: true,
            keeps_start: false,
            replaces: None,
            format: None,
            trainable: false,
            rate: 1.0,
            undecayed: false,
        }
    }

    /// A tensor that a method adds at a site, called `<site's path>.<suffix>`: trained, kept by adapters, of zeros.
    #[must_use]
    pub fn at(site: &Site, suffix: &str) -> Self {
        Self {
            layer: site.layer,
            owner: Owner::Adapter,
            ..Self::own(
                format!("{}.{suffix}", site.path),
                &[],
                ParamKind::Adapter,
                site.role,
            )
        }
    }

    /// A tensor that a method adds once for all sites, or beside the model.
    #[must_use]
    pub fn shared(name: impl Into<String>) -> Self {
        Self {
            owner: Owner::Adapter,
            ..Self::own(name, &[], ParamKind::Adapter, Role::Side)
        }
    }

    /// The same with this shape.
    #[must_use]
    pub fn shape(self, shape: &[u64]) -> Self {
        Self {
            shape: shape.to_vec(),
            ..self
        }
    }

    /// The same with this value where no file holds it.
    #[must_use]
    pub fn start(self, init: Init) -> Self {
        Self { init, ..self }
    }

    /// The same of another kind.
    #[must_use]
    pub fn kind(self, kind: ParamKind) -> Self {
        Self { kind, ..self }
    }

    /// Whether it is the model's own and never trained: what no file holds of such is made.
    #[must_use]
    pub const fn is_buffer(&self) -> bool {
        matches!(self.owner, Owner::Base) && !self.trains
    }

    /// Whether it is such a one that no file holds.
    #[must_use]
    pub const fn is_made(&self) -> bool {
        self.is_buffer() && !self.saved
    }

    /// Whether files of models hold it.
    #[must_use]
    pub const fn in_files(&self) -> bool {
        !matches!(self.owner, Owner::Adapter) && !self.is_made()
    }

    /// The same, not trained.
    #[must_use]
    pub fn frozen(self) -> Self {
        Self {
            trains: false,
            ..self
        }
    }

    /// The same as a list of places: u32, not trained.
    #[must_use]
    pub fn of_places(self) -> Self {
        Self {
            places: true,
            ..self.frozen()
        }
    }

    /// The same, which no adapter keeps: it is made again from the model's own weights.
    #[must_use]
    pub fn unsaved(self) -> Self {
        Self {
            saved: false,
            ..self
        }
    }

    /// The same, of which adapters keep the first value too: exports or unsaved tensors need it.
    #[must_use]
    pub fn keep_start(self) -> Self {
        Self {
            keeps_start: true,
            ..self
        }
    }

    /// The same in place of one of the model's own parameters.
    #[must_use]
    pub fn replacing(self, name: impl Into<String>) -> Self {
        Self {
            replaces: Some(name.into()),
            ..self
        }
    }

    /// The same, stored in this format while it is frozen.
    #[must_use]
    pub fn stored_in(self, format: Option<Format>) -> Self {
        Self { format, ..self }
    }

    /// The same, learned at so many times the stage's learning rate.
    #[must_use]
    pub fn rate(self, rate: f64) -> Self {
        Self { rate, ..self }
    }

    /// The same, which weight decay leaves alone.
    #[must_use]
    pub fn undecayed(self) -> Self {
        Self {
            undecayed: true,
            ..self
        }
    }

    /// Whether weight decay applies to it.
    #[must_use]
    pub const fn decays(&self) -> bool {
        self.kind.decays() && !self.undecayed
    }

    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Whether an adapter holds it: what is trained or is not the model's own, but for what is made again.
    #[must_use]
    pub const fn in_adapter(&self) -> bool {
        (self.trainable || !matches!(self.owner, Owner::Base)) && self.saved
    }

    /// Whether it is computed again from the model's weights where an adapter is loaded.
    #[must_use]
    pub const fn is_remade(&self) -> bool {
        self.replaces.is_some() || (!self.saved && matches!(self.init, Init::Derived { .. }))
    }

    /// Whether it is on the device alone, once it is there: no program changes it and no adapter holds it.
    #[must_use]
    pub const fn only_on_device(&self, class: Class) -> bool {
        matches!(class, Class::Frozen) && !self.in_adapter()
    }

    /// What it is computed by, and which of the results it is, if it is computed from a weight.
    #[must_use]
    pub const fn derivation(&self) -> Option<(&Derivation, usize)> {
        match &self.init {
            Init::Derived { by, part } => Some((by, *part)),
            _ => None,
        }
    }

    /// Path of the module it belongs to.
    #[must_use]
    pub fn module(&self) -> &str {
        self.name.rsplit_once('.').map_or("", |(module, _)| module)
    }

    /// Whether it belongs to a module, or one inside it, whose path is `module` or ends with a dot and `module`.
    #[must_use]
    pub fn is_in(&self, module: &str) -> bool {
        let own = self.module();
        let ends = own.match_indices('.').map(|(at, _)| at);
        ends.chain([own.len()])
            .filter_map(|end| own.get(..end))
            .any(|path| ends_with(path, module))
    }
}
