//! The op registry. An op is one file: attributes, `infer`, `eval`, `grad`, `cost`, tests; and one
//! row in the table below.

use super::builder::Builder;
use super::format::Format;
use super::graph::Value;
use super::types::TensorType;

// What ops share.
mod fused;
mod kernel;
pub mod launch;
mod math;
mod places;
mod product;
mod random;
mod sized;
mod tensor;
mod thin_product;
mod tile;

// The ops, one file each; the table below has a row for each.
mod accumulate;
mod activation;
mod activation_grad;
mod adafactor;
mod adamw;
mod adamw_8bit;
mod add;
mod add_at;
mod aged_adamw;
mod arrange;
mod attention;
mod attention_bias_grad;
mod attention_grad;
mod bernoulli;
mod binary_cross_entropy;
mod binary_cross_entropy_grad;
mod block_product;
mod cached_attention;
mod cast;
mod clip;
mod columns;
mod columns_grad;
mod constant;
mod cross_entropy;
mod cross_entropy_grad;
mod detach;
mod disentangled_attention;
mod disentangled_attention_grad;
mod dropout;
mod elementwise;
mod expand;
mod fill;
mod find;
mod gated;
mod gated_grad;
mod gather;
mod grad_norm;
mod hard_concrete;
mod hard_concrete_grad;
mod head_loss;
mod head_loss_grad;
mod hold;
mod identity;
mod indices;
mod inverse;
mod kept_attention;
mod kth_smallest;
mod layer_norm;
mod layer_norm_grad;
mod layer_norm_grad_weight;
mod lion;
mod masked;
mod matmul;
mod mix;
mod mix_grad;
mod move_rows;
mod mul_rows;
mod neighbours;
mod neighbours_grad;
mod noise;
mod nominate;
mod ordinal;
mod ordinal_grad;
mod perturb;
mod place;
mod preference;
mod preference_grad;
mod prepend;
mod prepend_grad;
mod reduce;
mod reshape;
mod rms_norm;
mod rms_norm_grad;
mod rms_norm_grad_weight;
mod rotary;
mod sampled_product;
mod scatter;
mod sgd;
mod sm3;
mod sparse_product;
mod square_accumulate;
mod squared_error;
mod squared_error_grad;
mod sum_rows;
mod sum_rows_product;
mod take_at;
mod top_softmax;
mod unary;
mod unary_grad;
mod unpaired;
mod unpaired_grad;
mod watch;
mod waves;
mod weighted_binary_cross_entropy;
mod weighted_binary_cross_entropy_grad;
mod weighted_cross_entropy;
mod weighted_cross_entropy_grad;
mod window;
mod window_grad;

pub use fused::{added_product, bias_activation, residual_layer_norm};
pub use kernel::{Kernel, Machine, OpError};
pub use preference::PreferenceLoss;
pub use random::fill_normal;
pub use sized::{Cost, Sized, SizedCx};
pub use tensor::{Compute, Element, Io, Storage, Tensor, TensorMut, TensorRef};

macro_rules! ops {
    ($($module:ident :: $op:ident,)+) => {
        $(pub use $module::$op;)+

        /// An op with its attributes. Equality is real equality: common subexpressions are found by it.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "each variant is documented at its struct")]
        pub enum Op { $($op($op),)+ }

        impl Op {
            /// The op's rule.
            #[must_use]
            pub fn rule(&self) -> &dyn OpRule {
                match self { $(Self::$op(op) => op,)+ }
            }

            /// The op's name in printed programs.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(Self::$op(_) => stringify!($module),)+ }
            }
        }

        impl Op {
            /// Name of the kernel, under which its times are kept: the op's own, mostly.
            #[must_use]
            pub fn kernel(&self) -> &'static str {
                self.rule().kernel().unwrap_or_else(|| self.name())
            }
        }

        $(impl From<$op> for Op { fn from(op: $op) -> Self { Self::$op(op) } })+

        /// What the tests know about each op: its file's own.
        #[cfg(test)]
        fn all_fixtures() -> Vec<(&'static str, fixtures::Fixtures)> {
            vec![$((stringify!($module), $module::fixtures())),+]
        }

        /// The kernel sources of all ops; `None` for an op without kernels of its own.
        pub const SOURCES: &[Option<launch::KernelSource>] = &[$($module::SOURCE),+];

        /// Names of all ops.
        pub const NAMES: &[&str] = &[$(stringify!($module)),+];
    };
}

// The op registry: `file::Struct`. Modules are declared above in plain lines, where rustfmt finds them.
ops! {
    accumulate::Accumulate,
    activation::Activation,
    activation_grad::ActivationGrad,
    adafactor::Adafactor,
    adamw::AdamW,
    adamw_8bit::AdamW8bit,
    add::Add,
    arrange::Arrange,
    add_at::AddAt,
    aged_adamw::AgedAdamW,
    attention::Attention,
    attention_bias_grad::AttentionBiasGrad,
    attention_grad::AttentionGrad,
    bernoulli::Bernoulli,
    binary_cross_entropy::BinaryCrossEntropy,
    binary_cross_entropy_grad::BinaryCrossEntropyGrad,
    block_product::BlockProduct,
    cached_attention::CachedAttention,
    cast::Cast,
    clip::ClipFactor,
    columns::Columns,
    columns_grad::ColumnsGrad,
    constant::Constant,
    cross_entropy::CrossEntropy,
    cross_entropy_grad::CrossEntropyGrad,
    detach::Detach,
    disentangled_attention::DisentangledAttention,
    disentangled_attention_grad::DisentangledAttentionGrad,
    dropout::Dropout,
    elementwise::Elementwise,
    expand::Expand,
    fill::Fill,
    find::Find,
    gated::Gated,
    gated_grad::GatedGrad,
    gather::Gather,
    grad_norm::GradNorm,
    hard_concrete::HardConcrete,
    hard_concrete_grad::HardConcreteGrad,
    head_loss::HeadLoss,
    head_loss_grad::HeadLossGrad,
    hold::Hold,
    identity::Identity,
    indices::Indices,
    inverse::Inverse,
    kept_attention::KeptAttention,
    kth_smallest::KthSmallest,
    layer_norm::LayerNorm,
    layer_norm_grad::LayerNormGrad,
    layer_norm_grad_weight::LayerNormGradWeight,
    lion::Lion,
    masked::Masked,
    matmul::MatMul,
    mix::Mix,
    mix_grad::MixGrad,
    move_rows::MoveRows,
    mul_rows::MulRows,
    neighbours::Neighbours,
    neighbours_grad::NeighboursGrad,
    noise::Noise,
    nominate::Nominate,
    ordinal::Ordinal,
    ordinal_grad::OrdinalGrad,
    perturb::Perturb,
    preference::Preference,
    preference_grad::PreferenceGrad,
    place::Place,
    prepend::Prepend,
    prepend_grad::PrependGrad,
    reduce::Reduce,
    reshape::Reshape,
    rms_norm::RmsNorm,
    rms_norm_grad::RmsNormGrad,
    rms_norm_grad_weight::RmsNormGradWeight,
    rotary::Rotary,
    sampled_product::SampledProduct,
    scatter::Scatter,
    sgd::Sgd,
    sm3::Sm3,
    sparse_product::SparseProduct,
    square_accumulate::SquareAccumulate,
    squared_error::SquaredError,
    squared_error_grad::SquaredErrorGrad,
    sum_rows::SumRows,
    sum_rows_product::SumRowsProduct,
    take_at::TakeAt,
    top_softmax::TopSoftmax,
    unary::Unary,
    unary_grad::UnaryGrad,
    unpaired::Unpaired,
    unpaired_grad::UnpairedGrad,
    watch::Watch,
    waves::Waves,
    weighted_binary_cross_entropy::WeightedBinaryCrossEntropy,
    weighted_binary_cross_entropy_grad::WeightedBinaryCrossEntropyGrad,
    weighted_cross_entropy::WeightedCrossEntropy,
    weighted_cross_entropy_grad::WeightedCrossEntropyGrad,
    window::Window,
    window_grad::WindowGrad,
}

pub use activation::ActivationKind;
pub use attention::{AttentionDropout, Heads, Mask, Streams};
pub use block_product::Blocks;
pub use cast::{cast_elements, cast_kernel};
pub use elementwise::{BinaryKind, Broadcast};
pub use head_loss::StatesGradient;
pub use matmul::{Epilogue, Precision};
pub use places::Places;
pub use product::FEW_ROWS;
pub use reduce::{Over, ReduceKind};
pub use rotary::{Beyond, Frequencies};
pub use unary::UnaryKind;
pub use watch::Look;

/// The kernel sources of all ops and formats.
pub fn sources() -> impl Iterator<Item = launch::KernelSource> {
    let formats = super::format::FORMATS.iter();
    let formats = formats
        .filter_map(|f| f.kernels())
        .map(|(source, _)| source);
    let more = [
        attention::IN_BF16,
        attention::IN_TF32,
        attention_grad::IN_BF16,
        attention_grad::IN_TF32,
        thin_product::SOURCE,
    ];
    SOURCES.iter().copied().flatten().chain(more).chain(formats)
}

impl Op {
    /// In what numbers its products are, if it forms some.
    pub fn products_mut(&mut self) -> Option<&mut Precision> {
        match self {
            Self::MatMul(op) => Some(&mut op.precision),
            Self::HeadLoss(op) => Some(&mut op.precision),
            Self::HeadLossGrad(op) => Some(&mut op.of.precision),
            Self::Attention(op) | Self::AttentionGrad(AttentionGrad(op)) if op.narrows() => {
                Some(&mut op.precision)
            }
            _ => None,
        }
    }

    /// The input that its kernel reads in bf16 as well as widened: the weight of its products.
    #[must_use]
    pub fn weight(&self) -> Option<usize> {
        match self {
            Self::MatMul(_) | Self::HeadLoss(_) => Some(1),
            // The gradient by a head is that of one which is trained, in f32.
            Self::HeadLossGrad(op) if !op.head => Some(2),
            _ => None,
        }
    }
}

/// What a gradient rule sees of the node it differentiates.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The node's inputs.
    pub inputs: &'a [Value],
    /// The node's outputs.
    pub outputs: &'a [Value],
    /// Gradient of the loss by each output; `None` where the loss does not depend on it.
    pub up: &'a [Option<Value>],
    /// Whether each input's gradient is wanted. A rule must not build what is not wanted.
    pub needs: &'a [bool],
}

/// Everything about an op.
pub trait OpRule: std::fmt::Debug {
    /// Name of the kernel, where it is not the op's.
    fn kernel(&self) -> Option<&'static str> {
        None
    }

    /// Types of the outputs, or why these inputs are refused.
    fn infer(&self, x: &[&TensorType]) -> Result<Vec<TensorType>, String>;

    /// Computes the outputs. Sizes are right by construction; data may be anything.
    fn eval(&self, cx: &Kernel<'_>, io: &mut Io<'_>) -> Result<(), OpError>;

    /// What is launched on a GPU under concrete sizes; `None` where there is no kernel for these operands.
    fn launches(&self, cx: &SizedCx) -> Option<launch::Launches>;

    /// Gradient by each input, in terms of ops: one entry per input, `None` where not wanted or
    /// where there is none. Reads as little of the forward pass as it can: nothing before outputs
    /// before inputs, since what it reads must be kept.
    fn grad(&self, b: &mut Builder, at: At<'_>) -> Vec<Option<Value>> {
        let _ = b;
        vec![None; at.inputs.len()]
    }

    /// Inputs that can have a gradient at all.
    fn differentiable(&self, input: usize) -> bool {
        let _ = input;
        false
    }

    /// Flops and bytes under concrete sizes. The default counts traffic only.
    fn cost(&self, cx: &SizedCx) -> Cost {
        Cost {
            flops: 0,
            bytes: cx.traffic(),
        }
    }

    /// Inputs whose buffer output 0 may take over when they die here. They must have output 0's
    /// type, and the kernel must allow it ([`Io::taken`]). First match wins.
    fn in_place(&self) -> &'static [usize] {
        &[]
    }

    /// Whether the kernel itself reads input `i` as it is stored, in 16 bits or in blocks. What it does not read so is
    /// widened before it.
    fn reads(&self, i: usize, stored: Format) -> bool {
        let _ = (i, stored);
        false
    }

    /// Whether the kernel itself writes what is stored in 16 bits.
    fn writes_half(&self) -> bool {
        false
    }

    /// Whether an output keeps its type whatever activations are stored in.
    fn is_exact(&self, output: usize) -> bool {
        let _ = output;
        false
    }

    /// Whether a row of a result depends on other rows of an input than its own. What is so made of a batch is no
    /// function of one example, whatever its shape.
    fn mixes_rows(&self) -> bool {
        false
    }

    /// Whether it takes so little time beside a product over the same rows that making its outputs again is
    /// better than keeping them from the forward to the backward.
    fn is_cheap(&self) -> bool {
        false
    }

    /// Inputs that are residents updated in place.
    fn updates(&self) -> &'static [usize] {
        &[]
    }

    /// Scratch bytes the kernel asks for beside its outputs: an upper bound that is met when the
    /// kernel uses all of the machine's threads.
    fn workspace(&self, cx: &SizedCx, machine: &Machine) -> u64 {
        let _ = (cx, machine);
        0
    }
}

#[cfg(test)]
mod compositions;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod launch_tests;
#[cfg(test)]
mod references;
