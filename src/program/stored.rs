//! Operands that are held in 16 bits. What an op does not read or write so by itself is widened to f32 before it
//! and rounded behind it, in scratch: on the processor around its kernel, on a GPU by launches around its own.
//!
//! **Invariant:** every op computes in f32 whatever its operands are held in, and a result is rounded once.

use super::op::launch::{Arg, Launch, Launches, Operand};
use super::op::{
    Io, Kernel, Machine, Op, OpError, SizedCx, Tensor, TensorMut, cast_elements, cast_kernel,
};
use super::types::DType;

/// Whether input `i`, held in `dtype`, is widened before the op.
fn is_widened(op: &Op, i: usize, dtype: DType) -> bool {
    dtype.is_half() && !op.rule().reads_half(i, dtype)
}

/// Whether an output held in `dtype` is rounded behind the op.
fn is_rounded(op: &Op, dtype: DType) -> bool {
    dtype.is_half() && !op.rule().writes_half()
}

/// Scratch bytes of an op on the processor: its kernel's own, and its operands in f32. `takes` is the input
/// whose buffer output 0 takes over.
#[must_use]
pub fn workspace(op: &Op, cx: &SizedCx, takes: Option<usize>, machine: &Machine) -> u64 {
    let inputs = cx.inputs.iter().enumerate();
    let inputs = inputs.filter(|(i, x)| Some(*i) != takes && is_widened(op, *i, x.dtype));
    let outputs = cx.outputs.iter().filter(|x| is_rounded(op, x.dtype));
    let each = inputs.map(|(_, x)| x).chain(outputs);
    let wide = each.map(|x| 4 * x.elements()).sum::<u64>();
    let own = if wide > 0 {
        op.rule().workspace(&cx.widened(), machine)
    } else {
        op.rule().workspace(cx, machine)
    };
    own + wide
}

/// Evaluates an op on the processor, whatever its operands are held in.
///
/// # Errors
/// What its kernel met.
pub fn eval(op: &Op, cx: &Kernel<'_>, mut io: Io<'_>) -> Result<(), OpError> {
    let widened: Vec<bool> = io
        .inputs
        .iter()
        .enumerate()
        .map(|(i, x)| x.is_some_and(|x| is_widened(op, i, x.dtype())))
        .collect();
    let outputs = io.outputs.iter();
    let rounded: Vec<bool> = outputs.map(|x| is_rounded(op, x.dtype())).collect();
    if !widened.contains(&true) && !rounded.contains(&true) {
        return op.rule().eval(cx, &mut io);
    }
    let wide = |dims: &[usize]| Tensor::zeros(DType::F32, dims);
    let inputs: Vec<Option<Tensor>> = io
        .inputs
        .iter()
        .zip(&widened)
        .map(|(x, &w)| {
            x.filter(|_| w).map(|x| {
                let mut own = wide(x.dims);
                cast_elements(x, own.view_mut());
                own
            })
        })
        .collect();
    let mut outputs: Vec<Option<Tensor>> = Vec::with_capacity(rounded.len());
    for (i, (x, &rounds)) in io.outputs.iter().zip(&rounded).enumerate() {
        let mut own = rounds.then(|| wide(x.dims));
        if let (0, Some(_), Some(own)) = (i, io.taken, &mut own) {
            cast_elements(x.view(), own.view_mut());
        }
        outputs.push(own);
    }
    let owned = inputs.iter().chain(&outputs).flatten();
    let bytes = owned.map(Tensor::bytes).sum();
    cx.scratch(bytes, || {
        let narrow = io.outputs.iter_mut().map(|x| TensorMut {
            storage: &mut *x.storage,
            dims: x.dims,
        });
        let mut own = Io {
            inputs: io
                .inputs
                .iter()
                .zip(&inputs)
                .map(|(x, wide)| wide.as_ref().map(Tensor::view).or(*x))
                .collect(),
            updates: std::mem::take(&mut io.updates),
            outputs: narrow
                .zip(&mut outputs)
                .map(|(x, wide)| wide.as_mut().map_or(x, Tensor::view_mut))
                .collect(),
            taken: io.taken,
        };
        op.rule().eval(cx, &mut own)
    })?;
    for (to, from) in io.outputs.iter_mut().zip(&outputs) {
        if let Some(from) = from {
            let to = TensorMut {
                storage: &mut *to.storage,
                dims: to.dims,
            };
            cast_elements(from.view(), to);
        }
    }
    Ok(())
}

/// What an op launches on a GPU: its own kernels where they take these operands, else those for f32 between
/// launches that widen and round. `None` if there is no kernel.
#[must_use]
pub fn launches(op: &Op, cx: &SizedCx) -> Option<Launches> {
    let rule = op.rule();
    let is_narrow = cx.inputs.iter().chain(&cx.outputs).any(|x| x.is_narrow());
    if let Some(own) = rule.launches(cx) {
        return Some(own);
    }
    if !is_narrow {
        return None;
    }
    let own = rule.launches(&cx.widened())?;
    let mut list = Launches {
        scratch: own.scratch,
        ..Launches::default()
    };
    let mut wide: Vec<(Operand, Operand)> = Vec::new();
    for (i, x) in cx.inputs.iter().enumerate().filter(|(_, x)| x.is_narrow()) {
        let (n, to) = (x.elements(), list.scratch(4 * x.elements()));
        list.cast(cast_kernel(x.dtype, DType::F32)?, Operand::In(i), to, n);
        wide.push((Operand::In(i), to));
    }
    let mut behind = Launches::default();
    for (i, x) in cx.outputs.iter().enumerate().filter(|(_, x)| x.is_narrow()) {
        let (n, from) = (x.elements(), list.scratch(4 * x.elements()));
        behind.cast(cast_kernel(DType::F32, x.dtype)?, from, Operand::Out(i), n);
        wide.push((Operand::Out(i), from));
    }
    let place = |operand: &mut Operand| {
        if let Some((_, own)) = wide.iter().find(|(narrow, _)| narrow == operand) {
            *operand = *own;
        }
    };
    list.list.extend(own.list.into_iter().map(|mut launch| {
        let in_args = |args: &mut Vec<Arg>| {
            for arg in args {
                if let Arg::At(operand) = arg {
                    place(operand);
                }
            }
        };
        match &mut launch {
            Launch::Call(call) => in_args(&mut call.args),
            Launch::Product(p) => [&mut p.a, &mut p.b, &mut p.c].into_iter().for_each(place),
            Launch::Copy { from, to } => [from, to].into_iter().for_each(place),
            Launch::Upload { to, .. } => place(to),
            Launch::Table { to, words } => {
                place(to);
                in_args(words);
            }
        }
        launch
    }));
    list.list.extend(behind.list);
    Some(list)
}
