//! What an op's file gives the tests that run over the registry: samples for the laws, cases for the
//! launch tests, and what is special about them.

use super::super::format::{FORMATS, Format, Packed, sample};
use super::super::graph::{Def, Program};
use super::super::types::{Bindings, Dim, TensorType};
use super::{AttentionBiasGrad, AttentionGrad, Io, Kernel, Machine, Op, Streams, Tensor};
use crate::base::rng::Stream;

/// Rows and widths at which the launches of most ops are tried: one element, odd sizes, several blocks of rows
/// and of columns.
pub(super) const SHAPES: [(usize, usize); 6] =
    [(1, 1), (3, 65), (65, 33), (130, 300), (2, 1025), (1, 768)];

/// An op and what it is applied to.
pub(super) type Application = (Op, Vec<Tensor>);

/// An application for the laws.
pub(super) struct Sample {
    /// The op over operands in f64.
    pub(super) op: Op,
    /// The op over the same operands in f32.
    pub(super) single: Op,
    /// The operands.
    pub(super) inputs: Vec<Tensor>,
}

/// Everything the tests know about one op.
#[derive(Default)]
pub(super) struct Fixtures {
    /// Applications for the laws. The launch tests run them too.
    pub(super) samples: Vec<Sample>,
    /// Larger applications, for the law that bits do not depend on threads.
    pub(super) large: Vec<Application>,
    /// More applications for the launch tests.
    pub(super) cases: Vec<Application>,
    /// Applications whose indices are outside their tables: the kernels must report them.
    pub(super) faults: Vec<Application>,
    /// Whether the GPU's kernels do the CPU's operations in the CPU's order: the bits are the same.
    pub(super) same_bits: bool,
    /// Which inputs and outputs may be activations, from the op and the number of its inputs.
    pub(super) activations: Option<fn(&Op, usize) -> (Vec<usize>, Vec<usize>)>,
    /// The input that holds the offsets of sequences.
    pub(super) offsets: Option<usize>,
}

/// The sizes of the batch that offsets tell of, which are at this place among an op's inputs.
pub(super) fn sizes(op: &Op, inputs: &[Tensor], offsets: Option<usize>) -> Bindings {
    let Some(at) = offsets else {
        return Bindings::default();
    };
    let lengths = |at: usize| -> Vec<usize> {
        let offsets = inputs[at].slice::<u32>().expect("offsets");
        let each = offsets.windows(2);
        each.map(|w| w[1].saturating_sub(w[0]) as usize).collect()
    };
    let own = lengths(at);
    let streams = match op {
        Op::Attention(op)
        | Op::AttentionGrad(AttentionGrad(op))
        | Op::AttentionBiasGrad(AttentionBiasGrad(op)) => op.streams,
        _ => Streams::Own,
    };
    let sources = match streams {
        Streams::Own => return Bindings::of_lengths(own),
        Streams::Source => own.clone(),
        Streams::Across => lengths(at + 1),
    };
    Bindings::of_pairs(sources.into_iter().zip(own).map(|(a, b)| [a, b]))
}

impl Fixtures {
    /// None yet.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Of an op whose kernels give the CPU's bits.
    pub(super) fn with_same_bits() -> Self {
        Self {
            same_bits: true,
            ..Self::default()
        }
    }

    pub(super) fn sample(&mut self, op: impl Into<Op>, inputs: impl Into<Vec<Tensor>>) {
        let op = op.into();
        self.samples.push(Sample {
            single: op.clone(),
            op,
            inputs: inputs.into(),
        });
    }

    /// A sample of an op that names the type of its result.
    pub(super) fn sample_of(
        &mut self,
        op: impl Into<Op>,
        single: impl Into<Op>,
        inputs: impl Into<Vec<Tensor>>,
    ) {
        self.samples.push(Sample {
            op: op.into(),
            single: single.into(),
            inputs: inputs.into(),
        });
    }

    pub(super) fn large(&mut self, op: impl Into<Op>, inputs: impl Into<Vec<Tensor>>) {
        self.large.push((op.into(), inputs.into()));
    }

    pub(super) fn case(&mut self, op: impl Into<Op>, inputs: impl Into<Vec<Tensor>>) {
        self.cases.push((op.into(), inputs.into()));
    }

    pub(super) fn fault(&mut self, op: impl Into<Op>, inputs: impl Into<Vec<Tensor>>) {
        self.faults.push((op.into(), inputs.into()));
    }
}

/// Normal numbers in f64.
pub(super) fn random(seed: u64, dims: &[usize]) -> Tensor {
    let n = dims.iter().product::<usize>() as u64;
    let stream = Stream::new(seed, "sample");
    Tensor::new((0..n).map(|i| stream.normal(i)).collect::<Vec<f64>>(), dims)
}

/// Numbers of at least a half, in f64: for functions that have no value or no slope at 0.
pub(super) fn random_positive(seed: u64, dims: &[usize]) -> Tensor {
    let mut x = random(seed, dims);
    let all = x.slice_mut::<f64>().expect("f64");
    all.iter_mut().for_each(|x| *x = x.abs() + 0.5);
    x
}

/// The small matrix of most samples.
pub(super) fn small(seed: u64) -> Tensor {
    random(seed, &[6, 5])
}

/// Normal numbers in f32.
pub(super) fn matrix(seed: u64, rows: usize, columns: usize) -> Tensor {
    narrow(&random(seed, &[rows, columns]))
}

/// Normal numbers in f32.
pub(super) fn list(seed: u64, n: usize) -> Tensor {
    narrow(&random(seed, &[n]))
}

pub(super) fn ids(list: &[u32]) -> Tensor {
    Tensor::new(list.to_vec(), &[list.len()])
}

/// Keys of tokens: example and place.
pub(super) fn keys(rows: usize) -> Tensor {
    Tensor::new(
        (0..rows as u32)
            .flat_map(|i| [i / 3, i % 3])
            .collect::<Vec<u32>>(),
        &[rows, 2],
    )
}

pub(super) fn scalar(x: f32) -> Tensor {
    Tensor::new(vec![x], &[1])
}

/// In f32, if it was in f64.
pub(super) fn narrow(t: &Tensor) -> Tensor {
    match t.slice::<f64>() {
        Some(x) => Tensor::new(x.iter().map(|&x| x as f32).collect::<Vec<f32>>(), &t.dims),
        None => t.clone(),
    }
}

pub(super) fn ty(t: &Tensor) -> TensorType {
    TensorType::new(t.dtype(), t.dims.iter().map(|&n| Dim::from(n as u64))).stored_as(t.format())
}

/// A matrix in every format of blocks that can hold it and that has a kernel on a GPU.
pub(super) fn in_blocks(t: &Tensor) -> Vec<Tensor> {
    let width = t.dims.last().copied().unwrap_or(0) as u64;
    let all = FORMATS.iter().filter(|f| f.kernels().is_some());
    let all = all
        .map(|f| Packed::of(*f))
        .filter(|p| Format::Blocks(*p).fits(width));
    all.map(|format| sample(t, format)).collect()
}

/// A tensor's floats as f64; none of other types.
pub(super) fn floats(t: &Tensor) -> Vec<f64> {
    match (t.slice::<f64>(), t.slice::<f32>()) {
        (Some(x), _) => x.to_vec(),
        (_, Some(x)) => x.iter().map(|&x| f64::from(x)).collect(),
        _ => Vec::new(),
    }
}

/// Outputs of an op (and then the updated inputs), from buffers filled with garbage.
pub(super) fn eval(op: &Op, inputs: &[Tensor], threads: usize) -> Vec<Tensor> {
    eval_taking(op, inputs, threads, None)
}

/// The same where output 0 takes over the buffer of an input.
pub(super) fn eval_taking(
    op: &Op,
    inputs: &[Tensor],
    threads: usize,
    taken: Option<usize>,
) -> Vec<Tensor> {
    eval_counting(op, inputs, threads, taken).0
}

/// The same with the bytes of scratch that were used at most.
pub(super) fn eval_counting(
    op: &Op,
    inputs: &[Tensor],
    threads: usize,
    taken: Option<usize>,
) -> (Vec<Tensor>, u64) {
    let types: Vec<TensorType> = inputs.iter().map(ty).collect();
    let outs = op
        .rule()
        .infer(&types.iter().collect::<Vec<_>>())
        .unwrap_or_else(|e| panic!("{op:?}: {e}"));
    let mut outputs: Vec<Tensor> = outs
        .iter()
        .map(|t| Tensor::zeros(t.dtype, &t.dims(&Bindings::default())))
        .collect();
    for out in &mut outputs {
        if let Some(x) = out.slice_mut::<f64>() {
            x.fill(f64::NAN)
        } else if let Some(x) = out.slice_mut::<f32>() {
            x.fill(f32::NAN)
        }
    }
    if let Some(i) = taken {
        outputs[0] = inputs[i].clone();
    }
    let updates = op.rule().updates();
    let mut updated: Vec<Tensor> = updates.iter().map(|&i| inputs[i].clone()).collect();
    let machine = Machine::cpu(threads);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("a pool");
    let peak = pool.install(|| {
        let mut io = Io {
            inputs: inputs
                .iter()
                .enumerate()
                .map(|(i, t)| (!updates.contains(&i) && taken != Some(i)).then(|| t.view()))
                .collect(),
            updates: updated.iter_mut().map(Tensor::view_mut).collect(),
            outputs: outputs.iter_mut().map(Tensor::view_mut).collect(),
            taken,
        };
        let cx = Kernel::new(&machine);
        op.rule()
            .eval(&cx, &mut io)
            .unwrap_or_else(|e| panic!("{op:?}: {e}"));
        cx.take_peak()
    });
    outputs.extend(updated);
    (outputs, peak)
}

/// Runs a small program over given resident tensors.
pub(super) fn interpret(program: &Program, residents: &[Tensor]) -> Vec<Option<Tensor>> {
    let mut slots: Vec<Option<Tensor>> = vec![None; program.values.len()];
    for (i, info) in program.values.iter().enumerate() {
        if let Def::Resident(r) = info.def {
            slots[i] = Some(residents[r as usize].clone());
        }
    }
    for node in &program.nodes {
        let inputs: Vec<Tensor> = node
            .inputs
            .iter()
            .map(|v| slots[v.index()].clone().expect("defined"))
            .collect();
        for (&out, tensor) in node.outputs.iter().zip(eval(&node.op, &inputs, 1)) {
            slots[out.index()] = Some(tensor);
        }
    }
    slots
}
