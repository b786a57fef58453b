//! Samples and cases of attention and its gradient.

use super::super::super::types::Real;
use super::super::AttentionGrad;
use super::{Attention, AttentionDropout, Heads, Mask, Precision};
use beside::{beside, cases_beside, kinds_beside};

mod beside;

pub(in super::super) use beside::biased;

pub(in super::super) fn fixtures() -> super::super::fixtures::Fixtures {
    use super::super::fixtures::Fixtures;
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0, 1, 2], vec![0]));
    for [(op, inputs), _] in samples() {
        all.sample(op, inputs);
    }
    all.offsets = Some(3);
    for [(op, inputs), _] in cases() {
        all.case(op, inputs);
    }
    for [(op, inputs), _] in faults() {
        all.fault(op, inputs);
    }
    all
}

/// Forward and backward of one attention; `operands` are the gradient, queries, keys and values.
fn both(
    op: Attention,
    operands: [super::super::Tensor; 4],
    offsets: &[u32],
    tail: &[super::super::Tensor],
) -> [super::super::fixtures::Application; 2] {
    use super::super::fixtures::{eval, ids};
    let [up, queries, keys, values] = operands;
    let tail = [&[ids(offsets)], tail].concat();
    let inputs = [vec![queries, keys, values], tail.clone()].concat();
    let made = eval(&op.clone().into(), &inputs, 1);
    let backward = AttentionGrad(op.clone());
    let back = [vec![up], inputs[..3].to_vec(), made, tail].concat();
    [(op.into(), inputs), (backward.into(), back)]
}

/// The offsets of sequences of these lengths.
fn offsets(lengths: &[usize]) -> Vec<u32> {
    let ends = lengths.iter().scan(0, |end, &n| {
        *end += n as u32;
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}

/// What an application is made of: heads of queries and keys, columns of a head, keys a token and a sequence, lengths,
/// mask, soft cap.
type Made<'a> = (Heads, usize, (usize, usize), &'a [usize], Mask, Option<f64>);

/// Attentions of every kind, with sequences that fill the tiles and do not.
fn kinds() -> Vec<Made<'static>> {
    let on = |queries, keys| Heads { queries, keys };
    vec![
        (on(4, 2), 4, (1, 0), &[5, 1, 3], Mask::FULL, None),
        (on(2, 2), 4, (1, 0), &[4, 1, 4], Mask::CAUSAL, None),
        (on(6, 2), 3, (1, 0), &[5, 2], Mask::CAUSAL, Some(1.5)),
        (on(2, 1), 4, (1, 0), &[9, 1], Mask::window(3), None),
        (on(1, 1), 2, (1, 0), &[100], Mask::window(20), Some(0.7)),
        (on(2, 2), 2, (1, 0), &[40, 7], Mask::near(5), None),
        (on(2, 1), 2, (2, 0), &[20, 3], Mask::CAUSAL, None),
        (on(1, 1), 2, (3, 0), &[35], Mask::window(4), None),
        (on(3, 1), 2, (1, 0), &[70, 2], Mask::CAUSAL, None),
        (on(2, 2), 3, (1, 0), &[6], Mask::FULL, Some(2.0)),
        // Behind a prefix, and with nothing but one.
        (on(4, 2), 3, (1, 3), &[5, 1, 2], Mask::FULL, None),
        (on(2, 1), 3, (1, 18), &[17, 40], Mask::CAUSAL, Some(1.5)),
        (on(2, 2), 2, (1, 4), &[9, 2, 30], Mask::window(6), None),
        (on(1, 1), 2, (1, 2), &[12], Mask::near(3), None),
        (on(4, 2), 3, (0, 5), &[4, 20], Mask::FULL, None),
    ]
}

/// The op and its operands, made by `of` from a seed and a shape.
fn kind(
    (heads, head, (fold, prefix), lengths, mask, softcap): Made<'_>,
    p: Option<f64>,
    of: impl Fn(u64, usize, usize) -> super::super::Tensor,
) -> [super::super::fixtures::Application; 2] {
    use super::super::fixtures::{ids, keys};
    let tokens = lengths.iter().sum::<usize>();
    let op = Attention {
        fold: fold as u32,
        prefix: prefix as u32,
        mask,
        softcap: softcap.map(Real::new),
        dropout: p.map(|p| AttentionDropout {
            p: Real::new(p),
            stream: [7, 9],
        }),
        ..Attention::plain(heads, Real::new(0.6))
    };
    let (d, kd) = (heads.queries as usize * head, heads.keys as usize * head);
    let operands = [
        of(4, tokens, d),
        of(1, tokens, d),
        of(2, fold * tokens + prefix * lengths.len(), kd),
        of(3, fold * tokens + prefix * lengths.len(), kd),
    ];
    let tail = p.map_or(Vec::new(), |_| vec![keys(tokens), ids(&[3])]);
    both(op, operands, &offsets(lengths), &tail)
}

pub(in super::super) fn samples() -> Vec<[super::super::fixtures::Application; 2]> {
    use super::super::fixtures::{ids, keys, random};
    let op = |fold, dropout| Attention {
        fold,
        dropout,
        ..Attention::plain(Heads::each(2), Real::new(0.5))
    };
    let operands = || [22, 19, 20, 21].map(|seed| random(seed, &[9, 8]));
    let dropout = AttentionDropout {
        p: Real::new(0.25),
        stream: [3, 4],
    };
    let mut list = vec![
        both(op(1, None), operands(), &[0, 4, 5, 9], &[]),
        both(
            op(1, Some(dropout)),
            operands(),
            &[0, 4, 5, 9],
            &[keys(9), ids(&[2])],
        ),
    ];
    // Two keys a token, and sequences longer than the tiles of queries.
    for (fold, lengths) in [(2, vec![4, 1, 4]), (1, vec![150, 3]), (3, vec![70])] {
        let tokens: usize = lengths.iter().sum();
        let operands = [(33, 1), (30, 1), (31, fold), (32, fold)]
            .map(|(seed, keys)| random(seed, &[keys * tokens, 4]));
        let op = op(fold as u32, None);
        list.push(both(op, operands, &offsets(&lengths), &[]));
    }
    let of = |seed, rows, columns| random(seed, &[rows, columns]);
    list.extend(kinds().into_iter().map(|made| kind(made, None, of)));
    let dropped = (
        Heads::each(2),
        2,
        (1, 6),
        &[30, 5][..],
        Mask::window(9),
        Some(3.0),
    );
    list.push(kind(dropped, Some(0.2), of));
    list.extend(kinds_beside().into_iter().map(|made| beside(made, random)));
    list
}

/// Heads that fill their columns and do not, sequences that fill their tiles and do not.
pub(in super::super) fn cases() -> Vec<[super::super::fixtures::Application; 2]> {
    use super::super::fixtures::{ids, keys, matrix};
    let all = [
        (1, 64, 1, vec![1], None),
        (2, 64, 1, vec![70, 1, 65, 64], Some(0.2)),
        (3, 33, 2, vec![1, 35, 2], Some(0.1)),
        (1, 8, 3, vec![130], None),
        (2, 100, 1, vec![33, 32, 1], Some(0.5)),
        (1, 128, 2, vec![40], None),
        (1, 200, 1, vec![17, 1], Some(0.1)),
        (1, 256, 3, vec![9, 16], None),
    ];
    let one = |(heads, head, fold, lengths, p): (u32, usize, usize, Vec<usize>, Option<f64>)| {
        let (tokens, d) = (lengths.iter().sum::<usize>(), heads as usize * head);
        let op = Attention {
            fold: fold as u32,
            dropout: p.map(|p| AttentionDropout {
                p: Real::new(p),
                stream: [7, 9],
            }),
            ..Attention::plain(Heads::each(heads), Real::new(0.3))
        };
        let operands = [(4, 1), (1, 1), (2, fold), (3, fold)]
            .map(|(seed, keys)| matrix(seed, keys * tokens, d));
        let tail = p.map_or(Vec::new(), |_| vec![keys(tokens), ids(&[3])]);
        both(op, operands, &offsets(&lengths), &tail)
    };
    let more = [
        (9, 3, 64, (1, 0), vec![70, 130], Mask::CAUSAL, None),
        (4, 1, 33, (1, 0), vec![200, 1], Mask::window(40), Some(0.1)),
        (4, 2, 128, (1, 0), vec![90], Mask::CAUSAL, Some(0.1)),
        (2, 1, 256, (1, 0), vec![40, 5], Mask::window(7), None),
        (2, 2, 16, (1, 0), vec![150], Mask::near(30), None),
        (2, 1, 20, (2, 0), vec![70], Mask::window(33), None),
        (2, 1, 64, (1, 20), vec![70, 3], Mask::FULL, Some(0.1)),
        (2, 2, 128, (1, 70), vec![40], Mask::CAUSAL, None),
        (2, 1, 16, (1, 9), vec![90, 2], Mask::window(30), None),
        (2, 2, 33, (0, 10), vec![65, 1], Mask::FULL, None),
    ];
    let more = more
        .iter()
        .map(|(queries, keys, head, fold, lengths, mask, p)| {
            let heads = Heads {
                queries: *queries,
                keys: *keys,
            };
            let made = (heads, *head, *fold, lengths.as_slice(), *mask, Some(20.0));
            kind(made, *p, matrix)
        });
    all.into_iter()
        .map(one)
        .chain(more)
        .chain(cases_on_cores())
        .chain(cases_beside().into_iter().map(|made| {
            beside(made, |seed, dims| {
                super::super::fixtures::narrow(&super::super::fixtures::random(seed, dims))
            })
        }))
        .collect()
}

/// The same in products of other numbers.
fn in_numbers(
    mut both: [super::super::fixtures::Application; 2],
    numbers: Precision,
) -> [super::super::fixtures::Application; 2] {
    for (op, _) in &mut both {
        if let Some(precision) = op.products_mut() {
            *precision = numbers;
        }
    }
    both
}

/// On tensor cores: heads of whole fragments and odd ones, sequences around a tile, and everything a mask, a prefix, groups
/// and dropout can ask for; one head too wide.
fn cases_on_cores() -> impl Iterator<Item = [super::super::fixtures::Application; 2]> {
    use super::super::fixtures::matrix;
    let on = |queries, keys| Heads { queries, keys };
    let all = [
        ((on(1, 1), 64, (1, 0), vec![1], Mask::FULL, None), None),
        (
            (on(2, 2), 64, (1, 0), vec![70, 1, 0, 64], Mask::FULL, None),
            Some(0.2),
        ),
        (
            (on(8, 2), 64, (1, 0), vec![150, 65], Mask::CAUSAL, None),
            None,
        ),
        (
            (on(2, 1), 128, (1, 0), vec![130, 3], Mask::CAUSAL, None),
            Some(0.1),
        ),
        (
            (on(2, 2), 33, (2, 0), vec![1, 35, 2], Mask::FULL, None),
            Some(0.1),
        ),
        (
            (on(2, 1), 8, (3, 0), vec![50], Mask::CAUSAL, Some(4.0)),
            None,
        ),
        (
            (on(2, 1), 100, (1, 0), vec![33, 80], Mask::FULL, Some(2.0)),
            Some(0.5),
        ),
        (
            (on(3, 1), 17, (1, 0), vec![200, 1], Mask::window(40), None),
            Some(0.1),
        ),
        (
            (on(2, 2), 16, (1, 0), vec![150], Mask::near(30), None),
            None,
        ),
        (
            (on(2, 1), 64, (1, 20), vec![70, 0, 3], Mask::FULL, None),
            Some(0.1),
        ),
        (
            (on(1, 1), 96, (1, 70), vec![40], Mask::CAUSAL, Some(20.0)),
            None,
        ),
        (
            (on(2, 1), 24, (1, 9), vec![90, 2], Mask::window(30), None),
            None,
        ),
        ((on(2, 2), 48, (0, 10), vec![65, 1], Mask::FULL, None), None),
        (
            (on(4, 2), 5, (1, 0), vec![300], Mask::window(5), None),
            None,
        ),
        (
            (on(1, 1), 200, (1, 0), vec![17, 1], Mask::CAUSAL, None),
            None,
        ),
    ];
    all.into_iter()
        .flat_map(|((heads, head, keys, lengths, mask, cap), p)| {
            let own = kind((heads, head, keys, &lengths, mask, cap), p, matrix);
            [Precision::Bf16, Precision::Tf32].map(|numbers| in_numbers(own.clone(), numbers))
        })
}

/// Offsets that go backwards, do not start at 0, and end outside the rows or before their end.
pub(in super::super) fn faults() -> Vec<[super::super::fixtures::Application; 2]> {
    use super::super::fixtures::{ids, matrix};
    let mut list = Vec::new();
    for wrong in [[0, 5, 4], [1, 3, 4], [0, 3, 5], [0, 2, 3]] {
        let op = Attention::plain(Heads::each(1), Real::new(0.3));
        let operands = [4, 1, 2, 3].map(|seed| matrix(seed, 4, 4));
        let mut own = both(op, operands, &[0, 3, 4], &[]);
        own[0].1[3] = ids(&wrong);
        own[1].1[6] = ids(&wrong);
        list.push(own.clone());
        list.push(in_numbers(own.clone(), Precision::Bf16));
        list.push(in_numbers(own, Precision::Tf32));
    }
    // Of sources: the same, and one that is empty.
    for wrong in [[0, 5, 4], [1, 3, 4], [0, 3, 5], [0, 2, 3], [0, 4, 4]] {
        let made = (
            Heads::each(1),
            4,
            &[3, 1][..],
            Mask::FULL,
            None,
            Some(&[3, 1][..]),
        );
        let mut own = beside(made, |seed, dims| matrix(seed, dims[0], dims[1]));
        own[0].1[4] = ids(&wrong);
        own[1].1[7] = ids(&wrong);
        list.push(own);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::super::super::fixtures::{eval, floats, ids, random};
    use super::super::super::{Op, Tensor};
    use super::*;

    #[test]
    fn attention_does_not_depend_on_grouping_and_equals_the_plain_formula() {
        let (q, k, v) = (random(1, &[7, 6]), random(2, &[7, 6]), random(3, &[7, 6]));
        let op: Op = Attention::plain(Heads::each(2), Real::new(0.6)).into();
        let all = floats(&eval(&op, &[q.clone(), k.clone(), v.clone(), ids(&[0, 3, 7])], 1)[0]);
        let rows = |t: &Tensor, a: usize, b: usize| {
            Tensor::new(floats(t)[a * 6..b * 6].to_vec(), &[b - a, 6])
        };
        let alone = floats(
            &eval(
                &op,
                &[rows(&q, 3, 7), rows(&k, 3, 7), rows(&v, 3, 7), ids(&[0, 4])],
                1,
            )[0],
        );
        assert_eq!(&all[18..], &alone[..]);
        let (q, k, v) = (floats(&q), floats(&k), floats(&v));
        for (i, h) in [(0, 0), (2, 1)] {
            let score = |j: usize| {
                (0..3)
                    .map(|c| q[i * 6 + h * 3 + c] * k[j * 6 + h * 3 + c])
                    .sum::<f64>()
                    * 0.6
            };
            let sum: f64 = (0..3).map(|j| score(j).exp()).sum();
            let out: f64 = (0..3)
                .map(|j| score(j).exp() / sum * v[j * 6 + h * 3])
                .sum();
            assert!((out - all[i * 6 + h * 3]).abs() < 1e-12);
        }
    }
    /// The formula, pair by pair: the outputs and log-sum-exps.
    fn plain(op: &Attention, lengths: &[usize], x: &[Tensor]) -> [Vec<f64>; 2] {
        let [q, k, v] = [0, 1, 2].map(|i| floats(&x[i]));
        let (heads, fold) = (op.heads.queries as usize, op.fold as usize);
        let before = op.prefix as usize;
        let (d, kd) = (x[0].dims[1], x[1].dims[1]);
        let w = d / heads;
        let (mut out, mut sums) = (vec![0.0; q.len()], Vec::new());
        let mut start = 0;
        for (s, &length) in lengths.iter().enumerate() {
            for (i, h) in (0..length).flat_map(|i| (0..heads).map(move |h| (i, h))) {
                let group = h / (heads / op.heads.keys as usize);
                let row = (start + i) * d + h * w;
                let key = |j: usize| (start * fold + s * before + j) * kd + group * w;
                let sees = |j: &usize| {
                    let (i, token) = (before + i, j / fold.max(1));
                    let far = |n: Option<u32>| n.map_or(usize::MAX, |n| n as usize);
                    i.saturating_sub(token) <= far(op.mask.behind)
                        && token.saturating_sub(i) <= far(op.mask.ahead)
                };
                let seen: Vec<usize> = (0..before + length * fold).filter(sees).collect();
                let score = |&j: &usize| {
                    let dot: f64 = (0..w).map(|c| q[row + c] * k[key(j) + c]).sum();
                    let s = dot * op.scale.get();
                    op.softcap.map_or(s, |c| c.get() * (s / c.get()).tanh())
                };
                let sum: f64 = seen.iter().map(|j| score(j).exp()).sum();
                sums.push(sum.ln());
                for j in &seen {
                    let p = score(j).exp() / sum;
                    (0..w).for_each(|c| out[row + c] += p * v[key(*j) + c]);
                }
            }
            start += length;
        }
        [out, sums]
    }

    #[test]
    fn every_kind_of_attention_equals_the_plain_formula() {
        let of = |seed, rows, columns| random(seed, &[rows, columns]);
        for made in kinds() {
            let [(op, inputs), _] = kind(made, None, of);
            let Op::Attention(own) = &op else {
                panic!("attention")
            };
            for (want, got) in plain(own, made.3, &inputs)
                .iter()
                .zip(eval(&op, &inputs, 1))
            {
                let far = want.iter().zip(floats(&got)).map(|(a, b)| (a - b).abs());
                assert!(far.fold(0.0, f64::max) < 1e-9, "{op:?}");
            }
        }
    }
}
