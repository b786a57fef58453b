//! Samples and cases of disentangled attention and its gradient.

use super::super::super::Distances;
use super::super::super::types::Real;
use super::super::fixtures::{Application, Fixtures, eval, ids, keys, narrow, random};
use super::super::{AttentionDropout, DisentangledAttentionGrad, Tensor};
use super::DisentangledAttention;

pub(in super::super) fn fixtures() -> Fixtures {
    let mut all = Fixtures::new();
    all.activations = Some(|_, _| (vec![0, 1, 2], vec![0]));
    all.offsets = Some(3);
    for [(op, inputs), _] in samples() {
        all.sample(op, inputs);
    }
    for [(op, inputs), _] in cases() {
        all.case(op, inputs);
    }
    for [(op, inputs), _] in faults() {
        all.fault(op, inputs);
    }
    all
}

/// What an application is made of: heads, columns of a head, lengths, distances, which tables there are, the rate of dropout.
type Made<'a> = (u32, usize, &'a [usize], Distances, [bool; 2], Option<f64>);

/// Distances of so many buckets on each side, up to so far.
const fn centred(side: u32, furthest: u32) -> Distances {
    Distances::centred(side, furthest)
}

/// Sequences that fill the tiles and do not, of every kind.
fn kinds() -> Vec<Made<'static>> {
    vec![
        (2, 3, &[5, 1, 3], centred(4, 16), [true, true], None),
        (1, 2, &[40, 7], centred(4, 30), [true, true], None),
        (3, 2, &[6, 2], centred(8, 0), [true, false], None),
        (2, 4, &[4, 9], centred(3, 0), [false, true], None),
        (2, 3, &[7], centred(4, 16), [false, false], None),
        (2, 2, &[20, 3], centred(6, 24), [true, true], Some(0.2)),
        (1, 2, &[70], centred(8, 40), [true, false], Some(0.1)),
    ]
}

/// Those for a GPU alone.
fn wide() -> Vec<Made<'static>> {
    vec![
        (
            2,
            64,
            &[130, 1, 40],
            centred(32, 100),
            [true, true],
            Some(0.1),
        ),
        (1, 200, &[17, 1], centred(4, 16), [true, true], None),
        (3, 33, &[35, 2], centred(64, 0), [true, false], None),
        (2, 16, &[150], centred(16, 64), [false, true], Some(0.3)),
    ]
}

/// Forward and backward of one attention.
fn both(
    (heads, head, lengths, distances, [by_queries, by_keys], p): Made<'_>,
    of: impl Fn(&Tensor) -> Tensor,
) -> [Application; 2] {
    let tokens = lengths.iter().sum::<usize>();
    let longest = lengths.iter().max().copied().unwrap_or(0);
    let op = DisentangledAttention {
        heads,
        scale: Real::new(0.6),
        by_queries,
        by_keys,
        dropout: p.map(|p| AttentionDropout {
            p: Real::new(p),
            stream: [7, 9],
        }),
    };
    let d = heads as usize * head;
    let matrix = |seed: u64, rows: usize| of(&random(seed, &[rows, d]));
    let ends = lengths.iter().scan(0, |end, &n| {
        *end += n as u32;
        Some(*end)
    });
    let offsets: Vec<u32> = std::iter::once(0).chain(ends).collect();
    let mut tail = vec![ids(&offsets), ids(&distances.list(longest as u64))];
    let rows = distances.buckets as usize;
    tail.extend(by_queries.then(|| matrix(5, rows)));
    tail.extend(by_keys.then(|| matrix(6, rows)));
    if p.is_some() {
        tail.extend([keys(tokens), ids(&[3])]);
    }
    let inputs = [
        [1, 2, 3].map(|seed| matrix(seed, tokens)).to_vec(),
        tail.clone(),
    ]
    .concat();
    let made = eval(&op.clone().into(), &inputs, 1);
    let backward = DisentangledAttentionGrad {
        of: op.clone(),
        tables: by_queries || by_keys,
    };
    let back = [vec![matrix(4, tokens)], inputs[..3].to_vec(), made, tail].concat();
    [(op.into(), inputs), (backward.into(), back)]
}

pub(in super::super) fn samples() -> Vec<[Application; 2]> {
    let of = |x: &Tensor| x.clone();
    kinds().into_iter().map(|made| both(made, of)).collect()
}

pub(in super::super) fn cases() -> Vec<[Application; 2]> {
    let mut all: Vec<[Application; 2]> =
        wide().into_iter().map(|made| both(made, narrow)).collect();
    // Where tables are frozen.
    let [forward, (_, back)] = both(kinds()[0], narrow);
    if let super::super::Op::DisentangledAttention(op) = &forward.0 {
        let alone = DisentangledAttentionGrad {
            of: op.clone(),
            tables: false,
        };
        all.push([forward.clone(), (alone.into(), back)]);
    }
    all
}

/// A distance whose row is outside the tables.
pub(in super::super) fn faults() -> Vec<[Application; 2]> {
    let mut own = both(kinds()[0], narrow);
    for ((_, inputs), at) in own.iter_mut().zip([4, 7]) {
        let mut list = inputs[at].slice::<u32>().expect("distances").to_vec();
        let middle = list.len() / 2;
        list[middle] = 100;
        inputs[at] = ids(&list);
    }
    vec![own]
}
