//! Operands that are stored in 16 bits or in blocks. What an op does not read or write so by itself is widened to f32
//! before it and rounded behind it, in scratch: on the processor around its kernel, on a GPU by launches around its own.
//!
//! **Invariant:** every op computes in f32 whatever its operands are stored in, and a result is rounded once; only a
//! product with a bias that cuBLAS makes in bf16 is rounded before and after the bias.

use super::format::Format;
use super::op::launch::{Launches, Operand};
use super::op::{
    Io, Kernel, Machine, Op, OpError, SizedCx, Tensor, TensorMut, cast_elements, cast_kernel,
};
use super::types::DType;

/// Whether input `i`, stored so, is widened before the op.
fn is_widened(op: &Op, i: usize, stored: Format) -> bool {
    (stored.is_half() || stored.blocks().is_some()) && !op.rule().reads(i, stored)
}

/// Whether an output stored so is rounded behind the op.
fn is_rounded(op: &Op, stored: Format) -> bool {
    stored.is_half() && !op.rule().writes_half()
}

/// Scratch bytes of an op on the processor: its kernel's own, and its operands in f32. `takes` is the input
/// whose buffer output 0 takes over.
#[must_use]
pub fn workspace(op: &Op, cx: &SizedCx, takes: Option<usize>, machine: &Machine) -> u64 {
    let inputs = cx.inputs.iter().enumerate();
    let inputs = inputs.filter(|(i, x)| Some(*i) != takes && is_widened(op, *i, x.stored));
    let outputs = cx.outputs.iter().filter(|x| is_rounded(op, x.stored));
    let each = inputs.map(|(_, x)| x).chain(outputs);
    let wide = each.map(|x| 4 * x.elements()).sum::<u64>();
    let own = if wide > 0 {
        op.rule().workspace(&cx.widened(), machine)
    } else {
        op.rule().workspace(cx, machine)
    };
    own + wide
}

/// Evaluates an op on the processor, whatever its operands are stored in.
///
/// # Errors
/// What its kernel met.
pub fn eval(op: &Op, cx: &Kernel<'_>, mut io: Io<'_>) -> Result<(), OpError> {
    let widened: Vec<bool> = io
        .inputs
        .iter()
        .enumerate()
        .map(|(i, x)| x.is_some_and(|x| is_widened(op, i, x.format())))
        .collect();
    let outputs = io.outputs.iter();
    let rounded: Vec<bool> = outputs.map(|x| is_rounded(op, x.format())).collect();
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
        let narrow = io.outputs.iter_mut().map(TensorMut::view_mut);
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
            cast_elements(from.view(), to.view_mut());
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
        list.widen(x.stored, Operand::In(i), to, n)?;
        wide.push((Operand::In(i), to));
    }
    let mut behind = Launches::default();
    for (i, x) in cx.outputs.iter().enumerate().filter(|(_, x)| x.is_narrow()) {
        let (n, from) = (x.elements(), list.scratch(4 * x.elements()));
        let rounds = cast_kernel(DType::F32, x.stored.plain()?)?;
        behind.cast(rounds, from, Operand::Out(i), n);
        wide.push((Operand::Out(i), from));
    }
    let place = |operand: &mut Operand| {
        if let Some((_, own)) = wide.iter().find(|(narrow, _)| narrow == operand) {
            *operand = *own;
        }
    };
    list.list.extend(own.list.into_iter().map(|mut launch| {
        launch.operands_mut().into_iter().for_each(place);
        launch
    }));
    list.list.extend(behind.list);
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::super::op::{Add, Epilogue, LayerNorm, MatMul, Precision, TensorRef};
    use super::super::types::Real;
    use super::*;

    const MACHINE: Machine = Machine::cpu(1);

    fn floats(n: u32, dims: &[usize]) -> Tensor {
        let count = dims.iter().product::<usize>() as u32;
        let all = (0..count).map(|i| (i.wrapping_mul(n) >> 9 & 1023) as f32 * 1.7e-3 - 0.8);
        Tensor::new(all.collect::<Vec<f32>>(), dims)
    }

    fn bits(t: &Tensor) -> Vec<u32> {
        match (
            t.slice::<f32>(),
            t.slice::<half::f16>(),
            t.slice::<half::bf16>(),
        ) {
            (Some(x), ..) => x.iter().map(|x| x.to_bits()).collect(),
            (_, Some(x), _) => x.iter().map(|x| x.to_bits().into()).collect(),
            (.., Some(x)) => x.iter().map(|x| x.to_bits().into()).collect(),
            _ => panic!("floats"),
        }
    }

    /// Evaluates over these outputs; input `taken` is in the first of them.
    fn run(op: &Op, inputs: &[Tensor], outputs: &mut [Tensor], taken: Option<usize>) {
        let cx = Kernel::new(&MACHINE);
        let inputs: Vec<Option<TensorRef<'_>>> = inputs
            .iter()
            .enumerate()
            .map(|(i, t)| (taken != Some(i)).then(|| t.view()))
            .collect();
        let io = Io {
            inputs,
            updates: Vec::new(),
            outputs: outputs.iter_mut().map(Tensor::view_mut).collect(),
            taken,
        };
        eval(op, &cx, io).expect("no index is wrong");
    }

    #[test]
    fn operands_in_16_bits_give_what_their_widened_copies_give_rounded_once() {
        let mut list: Vec<(Op, Vec<Tensor>, Vec<Vec<usize>>)> = Vec::new();
        for (precision, epilogue) in [
            (Precision::F32, Epilogue::None),
            (Precision::Bf16, Epilogue::Accumulate),
            (Precision::Bf16, Epilogue::Bias),
        ] {
            for (a_t, b_t) in [(false, true), (true, false)] {
                let product = MatMul {
                    precision,
                    epilogue,
                    ..MatMul::plain(a_t, b_t, Real::new(0.5))
                };
                let of = |t: bool, rows, columns| if t { [columns, rows] } else { [rows, columns] };
                let mut inputs = vec![
                    floats(77_777, &of(a_t, 33, 70)),
                    floats(91_381, &of(b_t, 70, 40)),
                ];
                match epilogue {
                    Epilogue::None => {}
                    Epilogue::Bias => inputs.push(floats(3_571, &[40])),
                    Epilogue::Accumulate => inputs.push(floats(3_571, &[33, 40])),
                }
                list.push((product.into(), inputs, vec![vec![33, 40]]));
            }
        }
        let norm = vec![floats(51_511, &[5, 64]), floats(3, &[64]), floats(5, &[64])];
        let eps = Real::new(1e-5);
        list.push((
            LayerNorm { eps }.into(),
            norm,
            vec![vec![5, 64], vec![5], vec![5]],
        ));
        let sum = vec![floats(51_511, &[5, 64]), floats(77_777, &[5, 64])];
        list.push((Add.into(), sum, vec![vec![5, 64]]));
        for (op, inputs, dims) in &list {
            for stored_in in [DType::F16, DType::BF16] {
                // Each matrix by itself, all of them, and the result.
                for mask in 1..16_usize {
                    let is_stored_in =
                        |i: usize, t: &Tensor| mask >> i & 1 == 1 && t.dims.len() == 2;
                    let own = inputs
                        .iter()
                        .enumerate()
                        .map(|(i, t)| match is_stored_in(i, t) {
                            true => t.cast(stored_in),
                            false => t.clone(),
                        });
                    let own: Vec<Tensor> = own.collect();
                    let wide: Vec<Tensor> = own.iter().map(|t| t.cast(DType::F32)).collect();
                    let zeros = |first: DType| -> Vec<Tensor> {
                        let types = std::iter::once(first).chain([DType::F32; 2]);
                        types.zip(dims).map(|(t, d)| Tensor::zeros(t, d)).collect()
                    };
                    let to = if mask >> 3 == 1 {
                        stored_in
                    } else {
                        DType::F32
                    };
                    let (mut a, mut b) = (zeros(to), zeros(DType::F32));
                    run(op, &own, &mut a, None);
                    run(op, &wide, &mut b, None);
                    for (a, b) in a.iter().zip(&b) {
                        let same = bits(a) == bits(&b.cast(a.dtype()));
                        assert!(same, "{op:?} held in {stored_in}: {mask:b}");
                    }
                    // In the place of an input of the result's own type.
                    for &taken in op.rule().in_place() {
                        let mut over = vec![own[taken].clone()];
                        if over[0].dims == a[0].dims && over[0].dtype() == to {
                            run(op, &own, &mut over, Some(taken));
                            let same = bits(&over[0]) == bits(&a[0]);
                            assert!(same, "{op:?} held in {stored_in}, over {taken}: {mask:b}");
                        }
                    }
                }
            }
        }
    }
}
