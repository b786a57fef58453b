//! Token files: what goes in comes out, and nothing damaged does.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::base::world::World;
use crate::cli::world::RealWorld;

fn label() -> impl Strategy<Value = Target> {
    prop_oneof![
        Just(Target::None),
        any::<u32>().prop_map(Target::Class),
        (-1e3_f32..1e3).prop_map(Target::Score),
        prop::collection::vec(any::<u32>(), 0..4).prop_map(|list| Target::Classes(list.into())),
    ]
}

fn example() -> impl Strategy<Value = EncodedExample> {
    let tokens = prop::collection::vec((any::<u32>(), 0_u8..2, any::<bool>()), 0..20);
    (tokens, any::<u32>(), label()).prop_map(|(tokens, mask, label)| {
        let marks = tokens
            .iter()
            .map(|(_, _, m)| if *m { example::LEARNED } else { 0 });
        EncodedExample {
            ids: tokens.iter().map(|(id, ..)| *id).collect(),
            segments: tokens.iter().map(|(_, s, _)| *s).collect(),
            mask,
            label,
            learned: example::ranges(&marks.collect::<Vec<u8>>()),
            task: mask,
        }
    })
}

fn notes(names: &[String], seen: bool) -> Notes {
    let survey = Survey {
        findings: Findings {
            rows: 3,
            classes: vec![2, 1],
            lengths: [(4, 2), (9, 1)].into(),
            ..Findings::default()
        },
        texts: vec![1, 7, u64::MAX],
    };
    Notes {
        making: 7,
        classes: names.to_vec(),
        survey: seen.then_some(survey),
        rows_hash: seen.then(|| "5eed".to_owned()),
        supervision: seen.then(|| Supervision {
            rows: 3,
            learned: 5,
            ..Supervision::default()
        }),
    }
}

/// Some row for a place.
const fn row_of(place: u64) -> u32 {
    (place ^ 0x2a) as u32
}

/// Writes the examples in the order of `places`, in pieces, as a file of that name.
fn keep(world: &RealWorld, examples: &[(u64, EncodedExample)], notes: &Notes) -> EncodedSet {
    let file = world.keep("t").expect("a file").expect("a folder");
    let mut made = Maker::in_file(file).expect("it is begun");
    for piece in examples.chunks(3) {
        piece
            .iter()
            .for_each(|(place, e)| made.add(*place, row_of(*place), e));
        made.flush().expect("it is written");
    }
    made.finish(notes).expect("it is kept")
}

fn all(set: &EncodedSet) -> Vec<EncodedExample> {
    let each = (0..set.len() as u32).map(|i| set.get(i).expect("it is read"));
    each.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_set_comes_back_as_it_was(list in prop::collection::vec((any::<u64>(), example()), 1..12), names in prop::collection::vec(".{0,5}", 0..3), seen in any::<bool>()) {
        let dir = tempfile::tempdir().expect("a folder");
        let world = RealWorld::with_cache(true, dir.path().to_owned());
        let mut ordered = list.clone();
        ordered.sort_by_key(|(place, _)| *place);
        prop_assume!(ordered.windows(2).all(|w| w[0].0 != w[1].0));
        let rows: Vec<u32> = ordered.iter().map(|(place, _)| row_of(*place)).collect();
        let wanted: Vec<EncodedExample> = ordered.into_iter().map(|(_, e)| e).collect();
        let in_memory: EncodedSet = wanted.iter().cloned().collect();
        prop_assert_eq!(&all(&in_memory), &wanted);
        let notes = notes(&names, seen);
        prop_assert_eq!(&all(&keep(&world, &list, &notes)), &wanted);
        let (set, read_notes) = EncodedSet::open(world.kept("t").expect("it is there")).expect("it is whole");
        prop_assert_eq!((&all(&set), &read_notes), (&wanted, &notes));
        let numbers: Option<Vec<u32>> = (0..set.len() as u32).map(|i| set.row(i)).collect();
        prop_assert_eq!(numbers, Some(rows));
        prop_assert!(set.heap_bytes() <= in_memory.heap_bytes());
        prop_assert!(set.get(list.len() as u32).is_err());
    }

    #[test]
    fn damage_is_found(list in prop::collection::vec(example(), 1..6), at in any::<prop::sample::Index>(), bit in 0_u32..8, cut in any::<bool>()) {
        let dir = tempfile::tempdir().expect("a folder");
        let world = RealWorld::with_cache(true, dir.path().to_owned());
        let list: Vec<(u64, EncodedExample)> = (0..).zip(list).collect();
        let path = match keep(&world, &list, &notes(&["a".into()], true)).backing {
            Backing::File(kept) => kept.path,
            Backing::Memory(_) => unreachable!("it went into a file"),
        };
        damage(&path, at, bit, cut);
        // What is kept has a checksum beside it; here the file is on its own.
        let file = std::fs::File::open(&path).expect("it is there");
        let Some((set, _)) = EncodedSet::open(Kept { file, path }) else {
            return Ok(());
        };
        let read: Vec<_> = (0..set.len() as u32).map(|i| set.get(i)).collect();
        prop_assert!(read.iter().any(Result::is_err));
        for (got, (_, wanted)) in read.iter().zip(&list) {
            prop_assert!(got.as_ref().map_or(true, |e| e == wanted));
        }
    }
}

/// Turns a bit over, or cuts the file there.
fn damage(path: &Path, at: prop::sample::Index, bit: u32, cut: bool) {
    let mut bytes = std::fs::read(path).expect("it is read");
    let at = at.index(bytes.len());
    if cut {
        bytes.truncate(at);
    } else {
        bytes[at] ^= 1 << bit;
    }
    std::fs::write(path, bytes).expect("it is written");
}
