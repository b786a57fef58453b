//! Samples and cases of attention over a cache.

use super::super::super::types::Real;
use super::super::fixtures::{Application, Fixtures, ids, matrix, random};
use super::super::{Heads, Mask, Op, Tensor};
use super::CachedAttention;

/// Heads of queries and keys, columns of a head, keys a token, mask, soft cap, and of each sequence its new tokens and
/// those in the cache.
type Made<'a> = (Heads, usize, usize, Mask, Option<f64>, &'a [(usize, usize)]);

/// The op and its operands; sequences lie in the cache in the reverse of their order, with a token between them.
fn made(
    (heads, head, fold, mask, softcap, list): Made<'_>,
    of: impl Fn(u64, usize, usize) -> Tensor,
) -> Application {
    let op = CachedAttention {
        heads,
        fold: fold as u32,
        scale: Real::new(0.6),
        mask,
        softcap: softcap.map(Real::new),
        bias: false,
    };
    let tokens: usize = list.iter().map(|(new, _)| new).sum();
    let mut capacity = 1;
    let mut places: Vec<u32> = Vec::new();
    for (new, before) in list.iter().rev() {
        places.splice(0..0, [capacity as u32, *before as u32]);
        capacity += new + before + 1;
    }
    let ends = list.iter().scan(0, |end, (new, _)| {
        *end += *new as u32;
        Some(*end)
    });
    let offsets: Vec<u32> = std::iter::once(0).chain(ends).collect();
    let (d, kd) = (heads.queries as usize * head, heads.keys as usize * head);
    let inputs = vec![
        of(1, tokens, d),
        of(2, fold * tokens, kd),
        of(3, fold * tokens, kd),
        of(4, fold * capacity, kd),
        of(5, fold * capacity, kd),
        ids(&offsets),
        Tensor::new(places, &[list.len(), 2]),
    ];
    (op.into(), inputs)
}

/// The same with a bias by distance that has a row to spare.
fn biased(
    (op, mut inputs): Application,
    list: &[(usize, usize)],
    of: impl Fn(u64, usize, usize) -> Tensor,
) -> Application {
    let Op::CachedAttention(op) = op else {
        panic!("attention")
    };
    let longest = list.iter().map(|(new, before)| new + before).max();
    let rows = longest.unwrap_or(0) + 1;
    inputs.push(of(9, rows, op.heads.queries as usize));
    (CachedAttention { bias: true, ..op }.into(), inputs)
}

const fn on(queries: u32, keys: u32) -> Heads {
    Heads { queries, keys }
}

/// Prompts, single tokens behind what is cached, and both together.
fn kinds() -> Vec<Made<'static>> {
    vec![
        (
            on(4, 2),
            4,
            1,
            Mask::CAUSAL,
            None,
            &[(5, 0), (1, 3), (2, 7)],
        ),
        (
            on(2, 2),
            18,
            1,
            Mask::CAUSAL,
            Some(1.5),
            &[(1, 0), (1, 200), (1, 127)],
        ),
        (
            on(6, 2),
            3,
            1,
            Mask::window(3),
            None,
            &[(40, 0), (1, 9), (3, 140)],
        ),
        (
            on(2, 1),
            2,
            1,
            Mask::window(130),
            Some(0.7),
            &[(1, 300), (70, 200)],
        ),
        (
            on(2, 1),
            4,
            3,
            Mask::CAUSAL,
            None,
            &[(3, 50), (1, 60), (1, 0)],
        ),
        (on(1, 1), 2, 1, Mask::CAUSAL, None, &[(0, 4), (150, 0)]),
    ]
}

pub(in super::super) fn fixtures() -> Fixtures {
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0, 1, 2], vec![0]));
    all.offsets = Some(5);
    let wide = |seed, rows, columns| random(seed, &[rows, columns]);
    for kind in kinds() {
        let (op, inputs) = made(kind, wide);
        all.sample(op.clone(), inputs.clone());
        if kind.2 == 1 && kind.4.is_none() {
            let (op, inputs) = biased((op, inputs), kind.5, wide);
            all.sample(op, inputs);
        }
    }
    let large: [Made<'_>; 2] = [
        (on(9, 3), 64, 1, Mask::CAUSAL, None, &[(1, 500), (300, 100)]),
        (
            on(4, 2),
            32,
            1,
            Mask::CAUSAL,
            Some(20.0),
            &[(1, 900), (1, 3), (1, 64)],
        ),
    ];
    for kind in large {
        let (op, inputs) = made(kind, matrix);
        all.large(op, inputs);
    }
    let cases: [Made<'_>; 6] = [
        (
            on(9, 3),
            64,
            1,
            Mask::CAUSAL,
            None,
            &[(70, 0), (1, 130), (1, 0)],
        ),
        (
            on(4, 1),
            33,
            1,
            Mask::window(40),
            Some(20.0),
            &[(1, 200), (50, 60)],
        ),
        (on(2, 2), 100, 2, Mask::CAUSAL, None, &[(3, 20), (1, 33)]),
        (on(4, 2), 128, 1, Mask::CAUSAL, None, &[(40, 10)]),
        (on(2, 1), 256, 1, Mask::window(7), None, &[(20, 5), (1, 30)]),
        (
            on(1, 1),
            200,
            3,
            Mask::CAUSAL,
            Some(5.0),
            &[(1, 0), (17, 2)],
        ),
    ];
    for kind in cases {
        let (op, inputs) = made(kind, matrix);
        all.case(op.clone(), inputs.clone());
        if kind.2 == 1 && kind.4.is_none() {
            let (op, inputs) = biased((op, inputs), kind.5, matrix);
            all.case(op, inputs);
        }
    }
    // Ends that go backwards, and a sequence that reaches beyond the cache.
    let plain: Made<'_> = (on(1, 1), 4, 1, Mask::CAUSAL, None, &[(3, 1), (1, 2)]);
    let (op, mut inputs) = made(plain, matrix);
    inputs[5] = ids(&[0, 5, 4]);
    all.fault(op, inputs);
    let (op, mut inputs) = made(plain, matrix);
    inputs[6] = Tensor::new(vec![7, 1, 1, 2], &[2, 2]);
    all.fault(op, inputs);
    // A sequence that is longer than the bias.
    let (op, mut inputs) = biased(made(plain, matrix), plain.5, matrix);
    inputs[7] = matrix(9, 3, 1);
    all.fault(op, inputs);
    all
}

#[cfg(test)]
mod tests {
    use super::super::super::Attention;
    use super::super::super::fixtures::{eval, floats};
    use super::*;

    /// Attention of one whole sequence.
    fn whole(
        op: &CachedAttention,
        x: [Vec<f64>; 3],
        tokens: usize,
        d: usize,
        kd: usize,
    ) -> Vec<f64> {
        let plain: Op = Attention {
            mask: op.mask,
            softcap: op.softcap,
            fold: op.fold,
            ..Attention::plain(op.heads, op.scale)
        }
        .into();
        let fold = op.fold as usize;
        let [q, k, v] = x;
        let inputs = [
            Tensor::new(q, &[tokens, d]),
            Tensor::new(k, &[fold * tokens, kd]),
            Tensor::new(v, &[fold * tokens, kd]),
            ids(&[0, tokens as u32]),
        ];
        floats(&eval(&plain, &inputs, 1)[0])
    }

    #[test]
    fn new_tokens_attend_as_if_all_of_their_sequence_were_new() {
        for kind in kinds() {
            let (op, inputs) = made(kind, |seed, rows, columns| random(seed, &[rows, columns]));
            let Op::CachedAttention(own) = &op else {
                panic!("attention")
            };
            let made = eval(&op, &inputs, 2);
            let x: Vec<Vec<f64>> = inputs.iter().map(floats).collect();
            let (keys, values) = (floats(&made[1]), floats(&made[2]));
            let (d, kd) = (inputs[0].dims[1], inputs[1].dims[1]);
            let wide = kd * own.fold as usize;
            let places = inputs[6].slice::<u32>().expect("places");
            let mut row = 0;
            for (i, (new, before)) in kind.5.iter().enumerate() {
                let first = places[2 * i] as usize;
                let tokens = new + before;
                // Those in the cache had some queries once, which change nothing of the others.
                let mut q = vec![0.0; before * d];
                q.extend(&x[0][row * d..(row + new) * d]);
                let part = |from: &[f64]| from[first * wide..(first + tokens) * wide].to_vec();
                let new_keys = &x[1][row * wide..(row + new) * wide];
                assert_eq!(
                    &part(&keys)[before * wide..],
                    new_keys,
                    "they are put behind the others"
                );
                assert_eq!(
                    part(&keys)[..before * wide],
                    x[3][first * wide..(first + before) * wide]
                );
                let want = whole(own, [q, part(&keys), part(&values)], tokens, d, kd);
                let got = &floats(&made[0])[row * d..(row + new) * d];
                for (a, b) in want[before * d..].iter().zip(got) {
                    assert!((a - b).abs() < 1e-12, "{own:?}: {a} {b}");
                }
                row += new;
            }
        }
    }

    #[test]
    fn a_bias_is_added_by_distance_as_attention_does() {
        let (heads, list) = (on(3, 3), [(4_usize, 0_usize)]);
        let kind: Made<'_> = (heads, 2, 1, Mask::CAUSAL, None, &list);
        let wide = |seed, rows, columns| random(seed, &[rows, columns]);
        let (op, inputs) = biased(made(kind, wide), &list, wide);
        let made = floats(&eval(&op, &inputs, 1)[0]);
        // Attention's has rows for keys ahead, too, which the mask hides.
        let own = floats(&inputs[7]);
        let rows: Vec<f64> = own.iter().copied().chain([0.0; 12]).collect();
        let plain: Op = Attention {
            mask: Mask::CAUSAL,
            bias: true,
            ..Attention::plain(heads, Real::new(0.6))
        }
        .into();
        let operands = [
            inputs[0].clone(),
            inputs[1].clone(),
            inputs[2].clone(),
            ids(&[0, 4]),
            Tensor::new(rows, &[9, 3]),
        ];
        let want = floats(&eval(&plain, &operands, 1)[0]);
        for (a, b) in want.iter().zip(&made) {
            assert!((a - b).abs() < 1e-12, "{a} {b}");
        }
    }

    #[test]
    fn the_bits_of_a_token_do_not_depend_on_those_it_comes_with() {
        let heads = on(4, 2);
        let whole = made((heads, 24, 1, Mask::CAUSAL, None, &[(150, 0)]), matrix);
        let all = floats(&eval(&whole.0, &whole.1, 1)[0]);
        let rows = |t: &Tensor, a: usize, b: usize| {
            let width = t.dims[1];
            let own = t.slice::<f32>().expect("f32")[a * width..b * width].to_vec();
            Tensor::new(own, &[b - a, width])
        };
        let mut inputs = whole.1.clone();
        let mut got = Vec::new();
        for (a, b) in [(0, 70), (70, 72), (72, 150)] {
            let part = [
                rows(&whole.1[0], a, b),
                rows(&whole.1[1], a, b),
                rows(&whole.1[2], a, b),
                inputs[3].clone(),
                inputs[4].clone(),
                ids(&[0, (b - a) as u32]),
                Tensor::new(vec![1, a as u32], &[1, 2]),
            ];
            let made = eval(&whole.0, &part, 2);
            got.extend(floats(&made[0]));
            inputs[3] = made[1].clone();
            inputs[4] = made[2].clone();
        }
        assert!(got == all, "other bits in parts");
    }
}
