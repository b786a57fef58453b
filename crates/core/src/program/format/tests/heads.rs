//! Heads and products whose programs read blocks.

use super::*;

/// The head of a language model: the bits of a decoded one, and no copy of it.
#[test]
fn heads_in_blocks_give_the_bits_of_decoded_ones() {
    for packed in formats() {
        let (rows, d, vocabulary) = (5, LONGEST, 4500);
        let (own, wide) = both(packed, 40_503, &[vocabulary, d]);
        let states = floats(65_537, &[rows, d]);
        let targets = Tensor::new(vec![3_u32, 0, 4499, 2048, 9], &[rows]);
        let scale = Tensor::new(vec![0.2_f32], &[1]);
        for precision in [Precision::F32, Precision::Bf16] {
            let of = HeadLoss {
                precision,
                ..HeadLoss::plain(Real::new(0.3))
            };
            let with = |head: &Tensor| {
                let inputs = [states.clone(), head.clone(), targets.clone(), scale.clone()];
                all_made(&of.clone().into(), &inputs)
            };
            let ((got, scratch), (want, without)) = (with(&own), with(&wide));
            assert_eq!(scratch, without, "{packed:?}: no copy of the head is made");
            for (got, want) in got.iter().zip(&want) {
                assert!(bits(got) == bits(want), "{packed:?} {precision:?}");
            }
            let with_gradient = |head: &Tensor| {
                let gradient = StatesGradient::Loss;
                let op = HeadLoss {
                    gradient,
                    ..of.clone()
                };
                let inputs = [states.clone(), head.clone(), targets.clone(), scale.clone()];
                all_made(&op.into(), &inputs)
            };
            let ((made, scratch), (same, without)) = (with_gradient(&own), with_gradient(&wide));
            assert_eq!(scratch, without, "{packed:?}: no copy of the head is made");
            assert!(bits(&made[3]) == bits(&same[3]), "{packed:?} {precision:?}");
            let up = Tensor::new(vec![0.7_f32], &[1]);
            let back = |head: &Tensor| {
                let op = HeadLossGrad {
                    of: of.clone(),
                    input: true,
                    head: false,
                };
                let inputs = [&up, &states, head, &targets, &scale, &want[1]];
                all_made(&op.into(), &inputs.map(Clone::clone))
            };
            let ((got, scratch), (want, without)) = (back(&own), back(&wide));
            assert_eq!(scratch, without, "{packed:?}: no copy of the head is made");
            assert!(bits(&got[0]) == bits(&want[0]), "{packed:?} {precision:?}");
        }
    }
}

fn ty_of(t: &Tensor) -> TensorType {
    let dims: Vec<u64> = t.dims.iter().map(|&n| n as u64).collect();
    TensorType::fixed(t.dtype(), &dims).stored_as(t.format())
}

/// All that an op makes, and its scratch.
fn all_made(op: &Op, inputs: &[Tensor]) -> (Vec<Tensor>, u64) {
    let machine = Machine::cpu(2);
    let types: Vec<TensorType> = inputs.iter().map(ty_of).collect();
    let out = op.rule().infer(&types.iter().collect::<Vec<_>>());
    let zeros = |ty: &TensorType| Tensor::zeros(ty.dtype, &ty.dims(&Bindings::default()));
    let mut outputs: Vec<Tensor> = out.expect("fits").iter().map(zeros).collect();
    let cx = Kernel::new(&machine);
    let io = Io {
        inputs: inputs.iter().map(|t| Some(t.view())).collect(),
        updates: Vec::new(),
        outputs: outputs.iter_mut().map(Tensor::view_mut).collect(),
        taken: None,
    };
    stored::eval(op, &cx, io).expect("no index is wrong");
    (outputs, cx.take_peak())
}

/// Blocks and numbers by implementations that are not ours: gguf, ggml and bitsandbytes (`make_format_vectors.py`).
#[test]
fn blocks_are_those_of_their_own_programs() {
    let text = include_str!("../../../../../../tests/reference/format_blocks.json");
    let all: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let list = |case: &serde_json::Value, key: &str| -> Vec<f64> {
        let list = case[key].as_array().expect("a list").iter();
        list.map(|x| x.as_f64().expect("a number")).collect()
    };
    for format in FORMATS {
        let packed = Packed::of(*format);
        let cases = all[format.name()].as_array().expect("cases");
        assert!(cases.len() > 2, "{packed:?}");
        for case in cases {
            let what = format!("{packed:?} {}", case["name"]);
            let floats =
                |key: &str| -> Vec<f32> { list(case, key).iter().map(|&x| x as f32).collect() };
            let want = floats("decoded");
            let blocks: Vec<u8> = list(case, "blocks").iter().map(|&x| x as u8).collect();
            let mut read = vec![0.0; want.len()];
            packed.decode_all(&blocks, &mut read);
            for (read, want) in read.iter().zip(&want) {
                let most = 1e-6 * want.abs().max(case["step"].as_f64().unwrap_or(0.0) as f32);
                assert!((read - want).abs() <= most, "{what}: {read}, {want}");
            }
            if case["numbers"].is_null() {
                continue;
            }
            let numbers = floats("numbers");
            let made = packed.encode_all(&numbers).expect("finite");
            // Means are summed in another order.
            let head = packed.rule().group().head;
            for (a, b) in made[..head].chunks(4).zip(blocks[..head].chunks(4)) {
                let [a, b] = [a, b].map(|x| f32::from_le_bytes(x.try_into().expect("four")));
                assert!((a - b).abs() <= 1e-6 * b.abs(), "{what}: {a}, {b}");
            }
            if format.name() == "q4_k" {
                // ggml leaves any codes in parts whose scale is 0.
                packed.decode_all(&made, &mut read);
                let alike = read.iter().zip(&want).filter(|(a, b)| a == b).count();
                assert!(alike * 100 >= 98 * want.len(), "{what}: {alike}");
            } else {
                assert!(made[head..] == blocks[head..], "{what}");
            }
        }
    }
}
