//! Packed batches.

use super::*;
use crate::library::task::{Masking, Reads};

#[test]
fn packing_has_no_padding_and_keeps_identities() {
    let example = |n: u32, class| EncodedExample {
        ids: (10..10 + n).collect(),
        segments: vec![0; n as usize],
        mask: n - 1,
        label: Target::Class(class),
        learned: Vec::new(),
        task: class,
    };
    let set: EncodedSet = [example(3, 0), example(5, 1), example(2, 1)]
        .into_iter()
        .collect();
    let pack = |indices: &[u32], first, masks, want: &[Feed]| {
        let positions = Positions {
            first,
            skips: Some(13),
            ..Positions::default()
        };
        pack(&set, indices, positions, masks, want).expect("it is in memory")
    };
    let packed = pack(
        &[2, 0],
        2,
        None,
        &[
            Feed::TokenIds,
            Feed::Positions,
            Feed::Offsets,
            Feed::Keys(Axis::Tokens),
            Feed::Targets(TargetKind::Class),
            Feed::Rows(Pick::Mask),
        ],
    );
    assert_eq!(
        (
            packed.sizes.get(Sym::Tokens),
            packed.sizes.get(Sym::Pairs),
            packed.sizes.get(Sym::Longest)
        ),
        (5, 13, 3)
    );
    let feed = |i: usize| packed.feeds[i].1.slice::<u32>().expect("u32").to_vec();
    assert_eq!(feed(0), [10, 11, 10, 11, 12]);
    assert_eq!(feed(1), [2, 3, 2, 3, 4]);
    let lengths = pack(&[2, 0, 1], 0, None, &[Feed::Lengths]);
    let lengths = lengths.feeds[0].1.slice::<u32>().expect("u32");
    assert_eq!(lengths[..5], [2, 2, 3, 3, 3]);
    let padded = pack(&[1], 2, None, &[Feed::Positions]);
    let places = padded.feeds[0].1.slice::<u32>().expect("u32");
    assert_eq!(
        places,
        [2, 3, 4, 13, 5],
        "the padding token has its own position and is not counted"
    );
    assert_eq!(feed(2), [0, 2, 5]);
    assert_eq!(feed(3), [2, 0, 2, 1, 0, 0, 0, 1, 0, 2]);
    assert_eq!(feed(4), [1, 0]);
    assert_eq!(feed(5), [1, 4]);
    let masking = Reads::Masked(Masking {
        rate: 0.5,
        added: 1,
        special: vec![10],
        mask: 99,
        vocabulary: 20,
    });
    let feeds = [
        Feed::TokenIds,
        Feed::Rows(Pick::Places),
        Feed::Targets(TargetKind::Token),
    ];
    let alone = pack(&[1], 0, Some(masking.epoch(1, 0)), &feeds);
    let last = pack(&[0, 2, 1], 0, Some(masking.epoch(1, 0)), &feeds);
    assert_eq!(alone.sizes.get(Sym::Read), 2);
    assert_eq!(last.sizes.get(Sym::Read), 1 + 1 + 2);
    let list = |p: &Packed, i: usize| p.feeds[i].1.slice::<u32>().expect("u32").to_vec();
    assert_eq!(list(&alone, 0), list(&last, 0)[5..]);
    assert_eq!(list(&alone, 2), list(&last, 2)[2..]);
    let rows: Vec<u32> = list(&alone, 1).iter().map(|row| row + 5).collect();
    assert_eq!(rows, list(&last, 1)[2..]);
    assert_ne!(order(100, 1, 0, true), order(100, 1, 1, true));
    assert_eq!(order(3, 1, 0, false), [0, 1, 2]);
}
