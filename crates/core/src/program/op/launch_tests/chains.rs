//! Ops that a device applies together, and one by one.

use super::*;

/// What follows a product, or follows nothing.
#[derive(Clone, Copy, Debug)]
struct Chain {
    product: bool,
    activation: Option<ActivationKind>,
    dropout: bool,
    /// Whether the residual is the first operand of the sum.
    turned: bool,
    /// Whether everything between is read later, too.
    kept: bool,
}

/// The chain as a program over rows of `d` numbers, and the numbers of its own values.
fn chain(own: Chain, d: u32, numbers: Numbers) -> crate::program::Verified {
    let mut b = Builder::with_numbers("chain", numbers);
    let feature = |index: u16, width: u32| Feed::Feature {
        index,
        width,
        of: Axis::Tokens,
        stored: numbers.activations,
    };
    let frozen = |b: &mut Builder, name: &str, dims: &[u64]| {
        b.resident(name, TensorType::fixed(DType::F32, dims), Class::Frozen)
    };
    let mut made = Vec::new();
    let mut x = if own.product {
        let (x, n) = (b.feed(feature(0, 24)), u64::from(d));
        let (w, bias) = (frozen(&mut b, "w", &[n, 24]), frozen(&mut b, "bias", &[n]));
        b.push1(
            MatMul::linear(Real::new(1.0), Epilogue::Bias),
            &[x, w, bias],
        )
    } else {
        b.feed(feature(0, d))
    };
    made.extend(own.product.then_some(x));
    if let Some(kind) = own.activation {
        x = b.push1(Activation { kind }, &[x]);
    } else {
        if own.dropout {
            let (keys, step) = (b.feed(Feed::Keys(Axis::Tokens)), b.feed(Feed::Step));
            let dropout = Dropout {
                p: Real::new(0.3),
                stream: [5, 6],
            };
            x = b.push1(dropout, &[x, keys, step]);
            made.push(x);
        }
        let residual = b.feed(feature(1, d));
        let operands = if own.turned {
            [residual, x]
        } else {
            [x, residual]
        };
        x = b.push1(Add, &operands);
        made.push(x);
        let n = u64::from(d);
        let (gamma, beta) = (frozen(&mut b, "gamma", &[n]), frozen(&mut b, "beta", &[n]));
        let all = b.push(
            LayerNorm {
                eps: Real::new(1e-5),
            },
            &[x, gamma, beta],
        );
        b.output("mean", all[1]);
        b.output("rstd", all[2]);
        x = all[0];
    }
    b.output("out", x);
    for (i, &value) in made.iter().enumerate().filter(|_| own.kept) {
        b.output(&format!("between {i}"), value);
    }
    verify(b.finish()).expect("a chain")
}

/// Memory comes in any state.
fn spoil(tensor: &mut Tensor) {
    if let Some(x) = tensor.slice_mut::<f32>() {
        x.fill(f32::NAN);
    } else if let Some(x) = tensor.slice_mut::<f16>() {
        x.fill(f16::NAN);
    } else if let Some(x) = tensor.slice_mut::<bf16>() {
        x.fill(bf16::NAN);
    }
}

/// The same launches over one list of buffers: those of the program's values, one where an output takes an
/// input's; and then its scratch.
fn over_buffers(
    list: &Launches,
    operand: &dyn Fn(Operand) -> usize,
    scratch: usize,
) -> Vec<Launch> {
    let place = |x: &mut Operand| {
        *x = match *x {
            Operand::Scratch(i) => Operand::Scratch(scratch + i),
            Operand::Fault => Operand::Fault,
            own => Operand::In(operand(own)),
        };
    };
    let mut all = list.list.clone();
    let operands = all.iter_mut().flat_map(Launch::operands_mut);
    operands.for_each(place);
    all
}

/// A chain together and one by one, over the same buffers; and the buffers of what it hands back.
fn both_ways(verified: &crate::program::Verified, rows: usize) -> ([Case; 2], Vec<usize>) {
    let (program, schedule) = (verified.program(), verified.schedule());
    let sizes = Bindings::of_lengths([rows]);
    let mut tensors: Vec<Tensor> = Vec::new();
    let mut buffer: Vec<Option<usize>> = vec![None; program.values.len()];
    for (i, info) in program.values.iter().enumerate() {
        let (dims, seed) = (info.ty.dims(&sizes), i as u64);
        let tensor = match info.def {
            Def::Node { .. } => continue,
            Def::Feed(Feed::Keys(Axis::Tokens)) => keys(rows),
            Def::Feed(Feed::Step) => ids(&[3]),
            _ => narrow(&random(seed, &dims)).cast(info.ty.stored.dtype()),
        };
        buffer[i] = Some(tensors.len());
        tensors.push(tensor);
    }
    for (node, step) in program.nodes.iter().zip(&schedule.steps) {
        let mut taken = step.takes.and_then(|i| buffer[node.inputs[i].index()]);
        for out in &node.outputs {
            buffer[out.index()] = taken.take().or_else(|| {
                let mut tensor =
                    Tensor::zeros(program.ty(*out).stored, &program.ty(*out).dims(&sizes));
                spoil(&mut tensor);
                tensors.push(tensor);
                Some(tensors.len() - 1)
            });
        }
    }
    let at = |value: Value| buffer[value.index()].expect("a buffer");
    let in_groups = |groups: &[std::ops::Range<usize>]| {
        let mut made = Launches::default();
        for group in groups {
            let nodes = &program.nodes[group.clone()];
            let inputs: Vec<Value> = nodes.iter().flat_map(|n| n.inputs.clone()).collect();
            let outputs: Vec<Value> = nodes.iter().flat_map(|n| n.outputs.clone()).collect();
            let own = launches(program, &schedule.steps, group.clone(), &sizes).expect("launches");
            let operand = |x: Operand| match x {
                Operand::In(i) => at(inputs[i]),
                Operand::Out(i) => at(outputs[i]),
                other => panic!("{other:?}"),
            };
            made.list
                .extend(over_buffers(&own, &operand, made.scratch.len()));
            made.scratch.extend(own.scratch);
        }
        made
    };
    let fused = in_groups(&schedule.groups);
    let ones: Vec<_> = (0..program.nodes.len()).map(|i| i..i + 1).collect();
    let apart = in_groups(&ones);
    assert!(schedule.groups.len() < ones.len(), "no group");
    let calls = |all: &Launches| {
        let copies = all
            .list
            .iter()
            .filter(|l| !matches!(l, Launch::Copy { .. }));
        copies.count()
    };
    assert!(calls(&fused) < calls(&apart), "nothing is saved");
    let case = |given: Launches| Case {
        given: Some(given),
        ..Case::new(program.nodes[0].op.clone(), tensors.clone())
    };
    let read = program.outputs.iter().map(|(_, v)| at(*v)).collect();
    ([case(fused), case(apart)], read)
}

pub(super) fn chains() -> Vec<(String, [Case; 2], Vec<usize>)> {
    let plain = Chain {
        product: true,
        activation: None,
        dropout: false,
        turned: false,
        kept: false,
    };
    let mut list = Vec::new();
    for kind in ActivationKind::ALL {
        let activation = Some(kind);
        list.push(Chain {
            activation,
            ..plain
        });
        list.push(Chain {
            activation,
            kept: true,
            ..plain
        });
    }
    for (product, dropout) in [(true, true), (true, false), (false, true), (false, false)] {
        for (turned, kept) in [(false, false), (true, false), (true, true)] {
            list.push(Chain {
                product,
                dropout,
                turned,
                kept,
                ..plain
            });
        }
    }
    let all = [
        (DType::F32, Precision::F32),
        (DType::F32, Precision::Bf16),
        (DType::BF16, Precision::Bf16),
    ];
    let mut made = Vec::new();
    for (activations, products) in all {
        for (i, &own) in list.iter().enumerate() {
            let (rows, d) = [(3, 65), (2, 300), (5, 8), (1, 1025)][i % 4];
            let numbers = Numbers {
                products,
                activations,
            };
            let (cases, read) = both_ways(&chain(own, d, numbers), rows);
            made.push((format!("{own:?} of {rows} × {d}, {numbers:?}"), cases, read));
        }
    }
    // Without a product any type will do.
    for &own in list.iter().filter(|own| !own.product) {
        let numbers = Numbers {
            products: Precision::F32,
            activations: DType::F16,
        };
        let (cases, read) = both_ways(&chain(own, 65, numbers), 3);
        made.push((format!("{own:?} in f16"), cases, read));
    }
    made
}

#[test]
fn chains_of_ops_together_have_the_bits_of_each_alone() {
    let chains = chains();
    let mut cases = Vec::new();
    let mut read = Vec::new();
    for (what, both, own) in chains {
        cases.extend(both);
        read.push((what, own));
    }
    let Some(answers) = emulate("chains", &cases) else {
        return;
    };
    for ((what, read), both) in read.iter().zip(answers.chunks_exact(2)) {
        assert!(!read.is_empty());
        for &buffer in read {
            assert!(
                both[0][buffer] == both[1][buffer],
                "{what}: buffer {buffer}"
            );
        }
    }
}

/// `x wᵀ + f(y)` in either order of the sum, whose other operand dies there or does not.
fn added(turned: bool, dies: bool, numbers: Numbers) -> crate::program::Verified {
    let mut b = Builder::with_numbers("added", numbers);
    let feature = |index: u16, width: u32| Feed::Feature {
        index,
        width,
        of: Axis::Tokens,
        stored: numbers.activations,
    };
    let (x, mut y) = (b.feed(feature(0, 24)), b.feed(feature(1, 40)));
    if dies {
        let kind = ActivationKind::Relu;
        y = b.push1(Activation { kind }, &[y]);
    }
    let ty = TensorType::fixed(DType::F32, &[40, 24]);
    let w = b.resident("w", ty, Class::Frozen);
    let product = b.push1(MatMul::linear(Real::new(0.5), Epilogue::None), &[x, w]);
    let operands = if turned { [y, product] } else { [product, y] };
    let sum = b.push1(Add, &operands);
    b.output("sum", sum);
    verify(b.finish()).expect("a sum")
}

#[test]
fn products_are_added_where_their_sum_is_made() {
    let all = [
        (DType::F32, Precision::F32),
        (DType::F32, Precision::Bf16),
        (DType::BF16, Precision::Bf16),
    ];
    let mut cases = Vec::new();
    let mut read = Vec::new();
    for (activations, products) in all {
        for (turned, dies) in [(false, false), (true, false), (false, true), (true, true)] {
            let numbers = Numbers {
                products,
                activations,
            };
            let (both, own) = both_ways(&added(turned, dies, numbers), 7);
            cases.extend(both);
            read.push((activations, own[0]));
        }
    }
    let Some(answers) = emulate("added", &cases) else {
        return;
    };
    for ((kind, buffer), both) in read.iter().zip(answers.chunks_exact(2)) {
        let wide = |bytes: &[u8]| -> Vec<f32> {
            match kind {
                DType::BF16 => bytemuck::pod_collect_to_vec::<u8, bf16>(bytes)
                    .iter()
                    .map(|x| x.to_f32())
                    .collect(),
                _ => bytemuck::pod_collect_to_vec(bytes),
            }
        };
        let (one, other) = (wide(&both[0][*buffer]), wide(&both[1][*buffer]));
        // Rounded once, and twice.
        let near = if *kind == DType::BF16 {
            2.0_f32.powi(-7)
        } else {
            1e-6
        };
        let largest = other.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
        for (a, b) in one.iter().zip(&other) {
            assert!((a - b).abs() <= near * largest, "{a} and {b} in {kind}");
        }
        assert!(largest > 0.1);
    }
}
