//! The op graph: an append-only list of nodes, so list order is an execution order.
//!
//! A value is a resident (a parameter or state that lives for the whole stage), an input of the
//! step, or an output of a node. Nodes may have several outputs; an op may also update residents
//! in place ([`super::op::OpRule::updates`]), in list order.

use super::distances::Distances;
use super::op::Op;
use super::signal::Signal;
use super::types::{DType, Dim, Sym, TensorType};

/// A value of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub u32);

impl Value {
    /// Its index in [`Program::values`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a resident is stored for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A weight that gets no update.
    Frozen,
    /// A weight that is trained.
    Trainable,
    /// An accumulator of a gradient over micro-batches.
    Gradient,
    /// Optimizer state.
    Optimizer,
    /// Keys and values of tokens that a generation has read.
    Cache,
    /// Places that a method chose before the first step, or chooses while training: checkpoints keep them.
    Chosen,
}

/// A tensor that lives for the whole stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    /// Its only name, in printing, checkpoints and reports.
    pub name: String,
    /// Constant shape.
    pub ty: TensorType,
    /// What it is stored for.
    pub class: Class,
}

/// What the rows of a matrix stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Axis {
    /// A row a token.
    Tokens,
    /// A row a sequence.
    Sequences,
    /// A row a place that the head reads, where those are any number of tokens of a sequence.
    Read,
    /// A row a token of the sources.
    Source,
}

impl Axis {
    /// How many rows there are.
    #[must_use]
    pub const fn dim(self) -> Dim {
        Dim::sym(match self {
            Self::Tokens => Sym::Tokens,
            Self::Sequences => Sym::Sequences,
            Self::Read => Sym::Read,
            Self::Source => Sym::SourceTokens,
        })
    }

    /// What the rows of a matrix of this type stand for, if it has as many as one of the axes.
    #[must_use]
    pub fn of(ty: &TensorType) -> Option<Self> {
        let rows = ty.shape.first()?;
        [Self::Tokens, Self::Sequences, Self::Read, Self::Source]
            .into_iter()
            .find(|axis| axis.dim() == *rows)
    }
}

/// The tokens whose states a head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pick {
    /// Each sequence's first.
    First,
    /// Each sequence's last.
    Last,
    /// Each sequence's mask, put there by a prompt.
    Mask,
    /// Any number of places in each sequence, as the batch says: masked ones, or those whose next token is learned.
    Places,
}

impl Pick {
    /// What the rows that are read stand for.
    #[must_use]
    pub const fn axis(self) -> Axis {
        match self {
            Self::First | Self::Last | Self::Mask => Axis::Sequences,
            Self::Places => Axis::Read,
        }
    }
}

/// What is to be told of the rows that a head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TargetKind {
    /// The class of each sequence: `u32[S]`.
    Class,
    /// A number for each sequence: `f32[S]`.
    Number,
    /// Which of several classes each sequence is of, 1 or 0: `f32[S, classes]`.
    ClassSet {
        /// How many classes there are.
        classes: u32,
    },
    /// A token at each place that is read: `u32[R]`.
    Token,
}

/// What the tokens are whose rows are marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mark {
    /// Tokens that are of no text: rows that a method trains stand for them, each for its own.
    Virtual,
    /// The same with rows of each task's own, where there are so many for each: those of a task follow those of the one before.
    OfTask {
        /// Rows of a task.
        rows: u32,
    },
    /// The special tokens of a text, such as `[CLS]` and `[SEP]`, in their order, up to so many.
    Special {
        /// How many are marked at most.
        most: u32,
    },
}

/// What a step is fed with. All are made on the host from the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Feed {
    /// Token ids, `u32[T]`.
    TokenIds,
    /// Position ids, `u32[T]`.
    Positions,
    /// For each token, how many positions the text has that it is of: one more than the last of them, `u32[T]`.
    Lengths,
    /// Segment ids, `u32[T]`.
    Segments,
    /// Which tokens are marked: 0 for the others, and from 1 on which of its sequence each is, `u32[T]`.
    Marks(Mark),
    /// Start of each sequence in the packed tokens, and the end: `u32[S+1]`.
    Offsets,
    /// Token ids of the sources, `u32[U]`.
    SourceIds,
    /// Position ids of the sources, `u32[U]`.
    SourcePositions,
    /// Start of each sequence's source in the packed sources, and the end: `u32[S+1]`.
    SourceOffsets,
    /// The buckets of all distances between two tokens of a sequence, or of a source: `u32[2L+1]` or `u32[2M+1]`.
    Distances(Distances),
    /// The numbers below a count, from 0 on, once for each sequence: `u32[count·S]`.
    Cycle {
        /// How many numbers.
        count: u32,
    },
    /// Where each sequence begins in a cache, and how many tokens of it are there: `u32[S, 2]`.
    Cached,
    /// Where what is kept of each sequence's source begins, and how many tokens the source has: `u32[S, 2]`.
    Kept,
    /// Tokens whose keys and values are moved: from where, to where, how many; a row for each move: `u32[S, 3]`.
    Moves,
    /// Rows of the packed tokens that a head reads: `u32[S]` or `u32[R]`.
    Rows(Pick),
    /// Example index and position of each row, the identity that dropout is keyed by; a sequence's position is 0:
    /// `u32[N, 2]`.
    Keys(Axis),
    /// The sequence of each place that is read: `u32[R]`.
    Owners,
    /// The sequence of each token: `u32[T]`.
    Texts,
    /// The task of each sequence, where examples are of several: `u32[S]`.
    Tasks,
    /// What is to be told.
    Targets(TargetKind),
    /// Weight of each class in the loss of a training: `f32[classes]`.
    ClassWeights {
        /// How many classes there are.
        classes: u32,
    },
    /// One over the weight of the examples, or the number of places that are read, in the whole optimizer step: `f32[1]`.
    LossScale,
    /// Number of the step, from 0: `u32[1]`.
    Step,
    /// Learning rate of this step: `f32[1]`.
    LearningRate,
    /// Factors of a perturbation: `f32[3]`.
    Perturbation,
    /// Step and sample a perturbation is drawn for: `u32[2]`.
    Draw,
    /// Numbers that are a function of the step.
    Signal(Signal),
    /// A kept value of the frozen prefix: `[T or S, width]`.
    Feature {
        /// Which of them.
        index: u16,
        /// Numbers of a row.
        width: u32,
        /// Whose rows.
        of: Axis,
        /// In what type they are stored.
        stored: DType,
    },
}

impl Feed {
    /// A number of each sequence under a model that is compared with, computed beforehand.
    pub const REFERENCE: Self = Self::Feature {
        index: u16::MAX,
        width: 1,
        of: Axis::Sequences,
        stored: DType::F32,
    };

    /// Name in printed programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TokenIds => "token_ids",
            Self::Positions => "positions",
            Self::Lengths => "lengths",
            Self::Segments => "segments",
            Self::Marks(Mark::Virtual) => "virtual_tokens",
            Self::Marks(Mark::OfTask { .. }) => "task_tokens",
            Self::Marks(Mark::Special { .. }) => "special_tokens",
            Self::Offsets => "offsets",
            Self::SourceIds => "source_ids",
            Self::SourcePositions => "source_positions",
            Self::SourceOffsets => "source_offsets",
            Self::Distances(Distances { of_source, .. }) => match of_source {
                true => "source_distances",
                false => "distances",
            },
            Self::Cycle { .. } => "cycle",
            Self::Cached => "cached",
            Self::Kept => "kept",
            Self::Moves => "moves",
            Self::Rows(Pick::First) => "first_tokens",
            Self::Rows(Pick::Last) => "last_tokens",
            Self::Rows(Pick::Mask) => "mask_tokens",
            Self::Rows(Pick::Places) => "read_places",
            Self::Keys(Axis::Tokens) => "token_keys",
            Self::Keys(Axis::Sequences) => "sequence_keys",
            Self::Keys(Axis::Read) => "read_keys",
            Self::Keys(Axis::Source) => "source_keys",
            Self::Owners => "owners",
            Self::Texts => "texts",
            Self::Tasks => "tasks",
            Self::Targets(TargetKind::Class) => "labels",
            Self::Targets(TargetKind::Number) => "targets",
            Self::Targets(TargetKind::ClassSet { .. }) => "class_sets",
            Self::Targets(TargetKind::Token) => "read_tokens",
            Self::ClassWeights { .. } => "class_weights",
            Self::LossScale => "loss_scale",
            Self::Step => "step",
            Self::LearningRate => "learning_rate",
            Self::Perturbation => "perturbation",
            Self::Draw => "draw",
            Self::Signal(_) => "signal",
            Self::Feature { .. } => "feature",
        }
    }

    /// Whether it is of the sources, which sequences are made of.
    #[must_use]
    pub const fn is_of_source(self) -> bool {
        matches!(
            self,
            Self::SourceIds
                | Self::SourcePositions
                | Self::SourceOffsets
                | Self::Keys(Axis::Source)
        )
    }

    /// Whether it is a function of the example alone, up to its place in the batch, and its rows are of its tokens.
    #[must_use]
    pub const fn is_example(self) -> bool {
        matches!(
            self,
            Self::TokenIds
                | Self::Positions
                | Self::Lengths
                | Self::Segments
                | Self::Marks(_)
                | Self::Offsets
                | Self::Cycle { .. }
                | Self::Rows(Pick::First | Pick::Last | Pick::Mask)
        )
    }

    /// Its type.
    #[must_use]
    pub fn ty(self) -> TensorType {
        use DType::{F32, U32};
        let (s, t) = (Axis::Sequences.dim(), Axis::Tokens.dim());
        match self {
            Self::TokenIds
            | Self::Positions
            | Self::Lengths
            | Self::Segments
            | Self::Marks(_)
            | Self::Texts => TensorType::new(U32, [t]),
            Self::Tasks => TensorType::new(U32, [s]),
            Self::Offsets => TensorType::new(U32, [s.plus(1)]),
            Self::SourceIds | Self::SourcePositions => TensorType::new(U32, [Axis::Source.dim()]),
            Self::SourceOffsets => TensorType::new(U32, [s.plus(1)]),
            Self::Distances(distances) => TensorType::new(U32, [distances.rows()]),
            Self::Cycle { count } => TensorType::new(U32, [s.times(count.into())]),
            Self::Cached | Self::Kept => TensorType::new(U32, [s, Dim::from(2)]),
            Self::Moves => TensorType::new(U32, [s, Dim::from(3)]),
            Self::Rows(pick) => TensorType::new(U32, [pick.axis().dim()]),
            Self::Keys(axis) => TensorType::new(U32, [axis.dim(), Dim::from(2)]),
            Self::Targets(TargetKind::Class) => TensorType::new(U32, [s]),
            Self::Targets(TargetKind::Number) => TensorType::new(F32, [s]),
            Self::Targets(TargetKind::ClassSet { classes }) => {
                TensorType::new(F32, [s, Dim::from(u64::from(classes))])
            }
            Self::Targets(TargetKind::Token) | Self::Owners => {
                TensorType::new(U32, [Axis::Read.dim()])
            }
            Self::ClassWeights { classes } => TensorType::fixed(F32, &[u64::from(classes)]),
            Self::LossScale | Self::LearningRate => TensorType::scalar(F32),
            Self::Step => TensorType::scalar(U32),
            Self::Perturbation => TensorType::fixed(F32, &[3]),
            Self::Draw => TensorType::fixed(U32, &[2]),
            Self::Signal(signal) => TensorType::fixed(F32, &[signal.len()]),
            Self::Feature {
                width, of, stored, ..
            } => TensorType::new(F32, [of.dim(), Dim::from(u64::from(width))]).stored_as(stored),
        }
    }
}

/// How a value comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Def {
    /// Index into [`Program::residents`].
    Resident(u32),
    /// An input of the step.
    Feed(Feed),
    /// Output `output` of node `node`.
    Node {
        /// Index into [`Program::nodes`].
        node: u32,
        /// Which of its outputs.
        output: u32,
    },
}

/// The part of a step a node belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// From the batch to the loss or the scores.
    Forward,
    /// From the loss to the gradients.
    Backward,
    /// From the gradients to new weights.
    Update,
}

/// A value's type and definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueInfo {
    /// Its type.
    pub ty: TensorType,
    /// Where it comes from.
    pub def: Def,
}

/// A block of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    /// The stack it is of: the model's own, or one beside it.
    pub stack: &'static str,
    /// Its number there, from 0.
    pub number: u64,
}

/// One op application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The op with its attributes.
    pub op: Op,
    /// What it reads (and, for updates, writes in place).
    pub inputs: Vec<Value>,
    /// What it makes.
    pub outputs: Vec<Value>,
    /// Index into [`Program::labels`]: the site it was built for.
    pub label: u32,
    /// The block it was built for, or whose gradient it is.
    pub block: Option<Block>,
    /// Part of the step.
    pub phase: Phase,
}

/// A straight-line program over symbolic sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// What it is for: `step`, `evaluate`, …
    pub name: String,
    /// All values.
    pub values: Vec<ValueInfo>,
    /// All nodes, in execution order.
    pub nodes: Vec<Node>,
    /// Residents that occur.
    pub residents: Vec<Resident>,
    /// Site names nodes refer to.
    pub labels: Vec<String>,
    /// Values handed back to the caller after a run, by name; they stay alive to the end.
    pub outputs: Vec<(String, Value)>,
    /// Gradients of residents, `(resident, gradient)`: for accounting and for the audit that every
    /// trainable tensor gets one.
    pub gradients: Vec<(Value, Value)>,
}

impl Program {
    /// A value's type.
    ///
    /// # Panics
    /// If the value is of another program (a bug).
    #[must_use]
    pub fn ty(&self, value: Value) -> &TensorType {
        &self.values[value.index()].ty
    }

    /// Types of values as ops compute them, whatever they are stored as.
    ///
    /// # Panics
    /// If one is of another program (a bug).
    #[must_use]
    pub fn computed(&self, values: &[Value]) -> Vec<TensorType> {
        values.iter().map(|&v| self.ty(v).computed()).collect()
    }

    /// A value's definition.
    ///
    /// # Panics
    /// If the value is of another program (a bug).
    #[must_use]
    pub fn def(&self, value: Value) -> Def {
        self.values[value.index()].def
    }

    /// The resident behind a value, if it is one.
    #[must_use]
    pub fn resident(&self, value: Value) -> Option<&Resident> {
        match self.def(value) {
            Def::Resident(i) => self.residents.get(i as usize),
            Def::Feed(_) | Def::Node { .. } => None,
        }
    }

    /// The inputs the program asks for.
    pub fn feeds(&self) -> impl Iterator<Item = (Feed, Value)> {
        self.values
            .iter()
            .enumerate()
            .filter_map(|(i, v)| match v.def {
                Def::Feed(feed) => Some((feed, Value(i as u32))),
                Def::Resident(_) | Def::Node { .. } => None,
            })
    }

    /// A handed-back value by name.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<Value> {
        self.outputs
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| *v)
    }
}
