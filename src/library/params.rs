//! Parameters as the network declares them: names, shapes, where their values come from.

use super::placement::Role;
use super::prune::Cut;
use crate::program::Class;

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

/// Which part of a singular value decomposition `W = U diag(S) V`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SvdPart {
    /// Left vectors `[out, rank]`.
    U,
    /// Singular values `[rank]`.
    S,
    /// Right vectors `[rank, in]`.
    V,
    /// `W` (or its best approximation of rank `keep`) less the top `rank` triplets, `[out, in]`.
    Rest,
}

/// How a value is made when no file holds it.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// Normal with this standard deviation.
    Normal(f64),
    /// Uniform in `±bound`.
    Uniform(f64),
    /// A constant.
    Constant(f64),
    /// Part of the SVD of a base weight.
    Svd {
        /// Checkpoint name of the weight.
        weight: String,
        /// Which part.
        part: SvdPart,
        /// Triplets in U, S, V.
        rank: u64,
        /// Triplets kept in all; `None` is all of them.
        keep: Option<u64>,
    },
    /// Rows and columns of a base parameter.
    Pruned(Cut),
}

/// A parameter of the network.
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
    /// Whether it is trained.
    pub trainable: bool,
}

impl Param {
    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Whether an adapter holds it: what is trained or is not the model's own, but for what is left of a matrix
    /// that is decomposed, which is made again from it.
    #[must_use]
    pub const fn goes_with_adapter(&self) -> bool {
        let rest = matches!(
            self.init,
            Init::Svd {
                part: SvdPart::Rest,
                keep: None,
                ..
            }
        );
        (self.trainable || !matches!(self.owner, Owner::Base)) && !rest
    }

    /// Whether a device holds it alone, once it is there: no program changes it and no adapter holds it.
    #[must_use]
    pub fn stays_away(&self, class: Class) -> bool {
        class == Class::Frozen && !self.goes_with_adapter()
    }

    /// Whether another program, which may leave out the first parts of a path, calls it `name`.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        ends_with(&self.name, name)
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

    /// Whether an adapter tensor is one that trains: decomposition remainders and singular values
    /// stay as they are.
    #[must_use]
    pub const fn trainable_by_init(&self) -> bool {
        !matches!(
            self.init,
            Init::Svd {
                part: SvdPart::Rest | SvdPart::S,
                ..
            }
        )
    }
}
