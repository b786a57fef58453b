//! Laws of formats of blocks, over all that are registered and two of the tests' own: short blocks and long ones.

mod heads;

use super::*;
use crate::program::op::{
    BinaryKind, Broadcast, Elementwise, Epilogue, Gather, HeadLoss, HeadLossGrad, Io, Kernel,
    Machine, MatMul, Op, Precision, StatesGradient, Storage, Tensor,
};
use crate::program::stored;
use crate::program::types::{Bindings, Real, TensorType};
use crate::program::{Builder, Class, op::SizedCx, verify};

/// Sixteenths of the largest number, which stands in front.
#[derive(Debug)]
struct Sixteenths<const N: usize>;

impl<const N: usize> Blocks for Sixteenths<N> {
    const NAME: &'static str = if N < 10 { "short" } else { "long" };
    const NUMBERS: usize = N;
    const BYTES: usize = N + 4;
    const HALVES: &'static [usize] = &[];
    const ENCODE: Option<fn(&[f32], &mut [u8]) -> Result<(), f32>> = Some(encode);

    #[inline(always)]
    fn decode(_: &[u8], block: &[u8], out: &mut [f32]) {
        let (scale, own) = block.split_at(4);
        let scale = f32::from_le_bytes(scale.try_into().expect("four")) / 16.0;
        for (out, &x) in out.iter_mut().zip(own) {
            *out = f32::from(x.cast_signed()) * scale;
        }
    }
}

fn encode(numbers: &[f32], block: &mut [u8]) -> Result<(), f32> {
    if let Some(&bad) = numbers.iter().find(|x| !x.is_finite()) {
        return Err(bad);
    }
    let most = numbers.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    block[..4].copy_from_slice(&most.to_le_bytes());
    for (to, x) in block[4..].iter_mut().zip(numbers) {
        *to = ((x / most * 16.0).round() as i8).cast_unsigned();
    }
    Ok(())
}

fn formats() -> Vec<Packed> {
    let own: [&dyn BlockFormat; 2] = [&Sixteenths::<4>, &Sixteenths::<256>];
    let all = FORMATS.iter().copied().chain(own);
    all.map(Packed::of).collect()
}

fn chosen() -> Vec<Packed> {
    formats().into_iter().filter(|f| f.is_made()).collect()
}

fn floats(seed: u32, dims: &[usize]) -> Tensor {
    let count = dims.iter().product::<usize>() as u32;
    let all = (0..count).map(|i| (i.wrapping_mul(seed) >> 9 & 1023) as f32 * 1.7e-3 - 0.8);
    Tensor::new(all.collect::<Vec<f32>>(), dims)
}

/// Numbers in blocks, and what they stand for.
fn both(packed: Packed, seed: u32, dims: &[usize]) -> (Tensor, Tensor) {
    let own = sample(&floats(seed, dims), packed);
    let wide = own.cast(DType::F32);
    (own, wide)
}

/// What an op makes, whatever its operands are stored in, and its scratch; `taken` is in the place of its result.
fn made(op: &Op, inputs: &[Tensor], taken: Option<usize>) -> (Tensor, u64) {
    let machine = Machine::cpu(2);
    let types: Vec<TensorType> = inputs
        .iter()
        .map(|t| {
            TensorType::fixed(
                t.dtype(),
                &t.dims.iter().map(|&n| n as u64).collect::<Vec<_>>(),
            )
        })
        .collect();
    let out = op
        .rule()
        .infer(&types.iter().collect::<Vec<_>>())
        .expect("fits");
    let mut out = match taken {
        Some(i) => inputs[i].clone(),
        None => Tensor::zeros(out[0].dtype, &out[0].dims(&Bindings::default())),
    };
    let cx = Kernel::new(&machine);
    let io = Io {
        inputs: inputs
            .iter()
            .enumerate()
            .map(|(i, t)| (taken != Some(i)).then(|| t.view()))
            .collect(),
        updates: Vec::new(),
        outputs: vec![out.view_mut()],
        taken,
    };
    stored::eval(op, &cx, io).expect("no index is wrong");
    (out, cx.take_peak())
}

fn bits(t: &Tensor) -> Vec<u32> {
    t.slice::<f32>()
        .expect("f32")
        .iter()
        .map(|x| x.to_bits())
        .collect()
}

#[test]
fn names_are_those_of_the_table_and_of_recipes() {
    for (name, format) in NAMES.iter().skip(3).zip(FORMATS) {
        assert_eq!(*name, format.name());
        assert!(format.encode().is_some() && DOC.contains(&format!("`{name}` ")));
    }
    for (i, format) in FORMATS.iter().enumerate() {
        assert!(format.numbers() <= LONGEST && format.numbers().is_power_of_two());
        assert_eq!(format.encode().is_some(), i + 3 < NAMES.len());
        // Halves are looked for in blocks that lie side by side.
        assert!(format.halves().is_empty() || format.group().head == 0);
    }
    for name in NAMES
        .iter()
        .copied()
        .chain(FORMATS.iter().map(|f| f.name()))
    {
        assert_eq!(Format::named(name).map(Format::name), Some(name));
    }
    assert_eq!(Format::named("f64"), None);
}

#[test]
fn parts_of_rows_are_parts_of_the_whole() {
    for packed in formats() {
        let width = 2 * LONGEST;
        let (own, wide) = both(packed, 77_777, &[5, width]);
        let Storage::Blocks(_, data) = &own.storage else {
            panic!("{packed:?} is in blocks")
        };
        assert_eq!(own.bytes(), packed.bytes(5 * width as u64));
        for columns in [
            0..width,
            0..1,
            3..7,
            31..33,
            32..64,
            250..300,
            511..512,
            9..9,
        ] {
            let ranges = Ranges {
                data,
                width,
                rows: 1..4,
                columns: columns.clone(),
            };
            let mut out = vec![0.0; 3 * columns.len()];
            packed.rule().decode(&ranges, &mut out);
            let all = wide
                .slice::<f32>()
                .expect("f32")
                .chunks(width)
                .skip(1)
                .take(3);
            let want: Vec<f32> = all.flat_map(|row| &row[columns.clone()]).copied().collect();
            assert_eq!(out, want, "{packed:?} {columns:?}");
        }
    }
}

#[test]
fn what_was_decoded_is_stored_without_another_error() {
    for packed in chosen() {
        let zeros = Tensor::zeros(DType::F32, &[2, LONGEST]);
        let stored = zeros.clone().stored_as(packed).expect("finite");
        let read = stored.cast(DType::F32);
        let mut read = read.slice::<f32>().expect("f32").iter();
        assert!(read.all(|&x| x == 0.0), "{packed:?}");
        // Those that fit or quantise their scales do not find the same ones again.
        if matches!(packed.rule().name(), "nf4" | "q4_k") {
            continue;
        }
        let (own, wide) = both(packed, 91_381, &[3, 2 * LONGEST]);
        let again = wide.stored_as(packed).expect("finite");
        assert!(own.storage.bytes() == again.storage.bytes(), "{packed:?}");
    }
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    for packed in formats() {
        let (own, _) = both(packed, 40_503, &[300, LONGEST]);
        let Storage::Blocks(_, mut data) = own.storage else {
            panic!("{packed:?} is in blocks")
        };
        assert!(packed.is_finite(&data));
        for &at in packed.rule().halves() {
            let at = data.len() - packed.rule().bytes() + at;
            let kept: Vec<u8> = data.splice(at..at + 2, [0, 0x7c]).collect();
            assert!(!packed.is_finite(&data), "{packed:?} {at}");
            data.splice(at..at + 2, kept);
        }
    }
    for packed in chosen() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = floats(3_571, &[2, LONGEST]);
            x.slice_mut::<f32>().expect("f32")[LONGEST + 9] = bad;
            let found = x.stored_as(packed).expect_err("refused");
            assert_eq!(found.to_bits(), bad.to_bits(), "{packed:?}");
        }
    }
}

#[test]
fn products_have_the_bits_of_those_of_decoded_matrices() {
    for packed in formats() {
        for (m, n, k) in [
            (1, 256, 256),
            (33, 512, 768),
            (14, 2304, 256),
            (130, 256, 512),
        ] {
            for (a_t, b_t) in [(false, true), (false, false), (true, true)] {
                let of = |t: bool, rows, columns| if t { [columns, rows] } else { [rows, columns] };
                let (own, wide) = both(packed, 40_503, &of(b_t, k, n));
                for (precision, epilogue) in [
                    (Precision::F32, Epilogue::Bias),
                    (Precision::F32, Epilogue::Accumulate),
                    (Precision::Bf16, Epilogue::None),
                ] {
                    let op = MatMul {
                        precision,
                        epilogue,
                        ..MatMul::plain(a_t, b_t, Real::new(0.5))
                    };
                    let added = match epilogue {
                        Epilogue::None => None,
                        Epilogue::Bias => Some(floats(3, &[n])),
                        Epilogue::Accumulate => Some(floats(5, &[m, n])),
                    };
                    for left in [DType::F32, DType::BF16] {
                        let left = floats(65_537, &of(a_t, m, k)).cast(left);
                        let with = |b: &Tensor| -> Vec<Tensor> {
                            [&left, b].into_iter().chain(&added).cloned().collect()
                        };
                        let op = Op::from(op.clone());
                        let (got, scratch) = made_wide(&op, &with(&own));
                        let (want, without) = made_wide(&op, &with(&wide));
                        let what = format!(
                            "{packed:?} {m}×{n}×{k} {a_t} {b_t} {precision:?} {epilogue:?}"
                        );
                        assert!(bits(&got) == bits(&want), "{what}");
                        assert_eq!(scratch, without, "{what}: no copy of the matrix is made");
                    }
                }
            }
        }
    }
}

/// As [`made`] where the left operand may be stored in bf16.
fn made_wide(op: &Op, inputs: &[Tensor]) -> (Tensor, u64) {
    let machine = Machine::cpu(2);
    let Op::MatMul(product) = op else {
        panic!("a product")
    };
    let rows = inputs[0].dims[usize::from(product.a_t)];
    let columns = inputs[1].dims[usize::from(!product.b_t)];
    let mut out = Tensor::zeros(DType::F32, &[rows, columns]);
    let cx = Kernel::new(&machine);
    let io = Io {
        inputs: inputs.iter().map(|t| Some(t.view())).collect(),
        updates: Vec::new(),
        outputs: vec![out.view_mut()],
        taken: None,
    };
    stored::eval(op, &cx, io).expect("no index is wrong");
    (out, cx.take_peak())
}

#[test]
fn rows_are_gathered_and_other_ops_read_decoded_copies() {
    for packed in formats() {
        let (own, wide) = both(packed, 51_511, &[9, 2 * LONGEST]);
        let ids = Tensor::new(vec![8_u32, 0, 3, 3, 7], &[5]);
        let gather = Op::from(Gather { out: DType::F32 });
        let (got, scratch) = made(&gather, &[own.clone(), ids.clone()], None);
        assert_eq!(
            bits(&got),
            bits(&made(&gather, &[wide.clone(), ids], None).0)
        );
        assert_eq!(scratch, 0, "the other rows are not decoded");
        let other = floats(7, &[9, 2 * LONGEST]);
        let sum = Op::from(Elementwise {
            kind: BinaryKind::Add,
            broadcast: Broadcast::Full,
        });
        for (i, taken) in [(0, None), (1, None), (1, Some(0))] {
            let with = |x: &Tensor| {
                let mut list = vec![other.clone(), other.clone()];
                list[i] = x.clone();
                list
            };
            let (got, scratch) = made(&sum, &with(&own), taken);
            assert_eq!(bits(&got), bits(&made(&sum, &with(&wide), taken).0));
            let ty = |x: &Tensor| {
                TensorType::fixed(DType::F32, &[9, 2 * LONGEST as u64]).stored_as(x.format())
            };
            let (types, out) = (with(&own), ty(&other));
            let types: Vec<TensorType> = types.iter().map(ty).collect();
            let cx = SizedCx::new(
                &types.iter().collect::<Vec<_>>(),
                &[&out],
                &Bindings::default(),
            );
            let counted = stored::workspace(&sum, &cx, taken, &Machine::cpu(2));
            assert_eq!((scratch, counted), (4 * 9 * 2 * LONGEST as u64, scratch));
        }
    }
}

/// Gradient of `Σ r ∘ (x Wᵀ)` by `x` in f64 against central differences, `W` in blocks.
#[test]
fn gradients_of_products_are_those_of_the_decoded_matrix() {
    for packed in formats() {
        let (m, n, k) = (3, LONGEST, 2 * LONGEST);
        let (own, _) = both(packed, 40_503, &[n, k]);
        let double = |t: Tensor| {
            let all = t.slice::<f32>().expect("f32").iter().map(|&x| f64::from(x));
            Tensor::new(all.collect::<Vec<f64>>(), &t.dims)
        };
        let (x, r) = (
            double(floats(65_537, &[m, k])),
            double(floats(9_973, &[m, n])),
        );
        let product = |op: MatMul, left: &Tensor, columns: usize| {
            let machine = Machine::cpu(1);
            let mut out = Tensor::zeros(DType::F64, &[m, columns]);
            let mut io = Io {
                inputs: vec![Some(left.view()), Some(own.view())],
                updates: Vec::new(),
                outputs: vec![out.view_mut()],
                taken: None,
            };
            let op = Op::from(op);
            op.rule()
                .eval(&Kernel::new(&machine), &mut io)
                .expect("a product");
            out.into_vec::<f64>().expect("f64")
        };
        let forward = |x: &Tensor| -> f64 {
            let y = product(MatMul::plain(false, true, Real::new(0.7)), x, n);
            y.iter()
                .zip(r.slice::<f64>().expect("f64"))
                .map(|(y, r)| y * r)
                .sum()
        };
        // As the gradient rule builds it.
        let gradient = product(MatMul::plain(false, false, Real::new(0.7)), &r, k);
        for at in [0, 1, 33, k - 1, k, 2 * k + 5, m * k - 1] {
            let step = 1e-3;
            let moved = |by: f64| {
                let mut x = x.clone();
                x.slice_mut::<f64>().expect("f64")[at] += by;
                forward(&x)
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            let off = (slope - gradient[at]).abs();
            assert!(
                off <= 1e-9 * (1.0 + slope.abs()),
                "{packed:?} [{at}]: {slope}, {}",
                gradient[at]
            );
        }
    }
}

#[test]
fn only_frozen_matrices_of_whole_blocks_are_in_blocks() {
    for packed in formats() {
        let fits = packed.rule().numbers() as u64;
        for (dims, class, good) in [
            (vec![3, fits], Class::Frozen, true),
            (vec![3, fits + 1], Class::Frozen, false),
            (vec![fits], Class::Frozen, false),
            (vec![3, fits], Class::Trainable, false),
        ] {
            let mut b = Builder::new("p");
            let ty = TensorType::fixed(DType::F32, &dims).stored_as(packed);
            assert_eq!(ty.stored.holds(&ty.shape), dims == [3, fits]);
            let x = b.resident("x", ty, class);
            b.output("y", x);
            assert_eq!(
                verify(b.finish()).is_ok(),
                good,
                "{packed:?} {dims:?} {class:?}"
            );
        }
    }
}
