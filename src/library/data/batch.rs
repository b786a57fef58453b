//! The order splits are walked in, and packed batches.

use super::super::model::Positions;
use super::super::task::{MaskDraw, MaskedToken};
use super::tokens::{EncodedExample, EncodedSet, Target, Unread};
use crate::base::rng::Stream;
use crate::program::op::Tensor;
use crate::program::{Axis, Bindings, Feed, Pick, TargetKind};

/// The inputs of one program run.
#[derive(Debug)]
pub struct Packed {
    /// Its sizes.
    pub sizes: Bindings,
    /// Its tensors.
    pub feeds: Vec<(Feed, Tensor)>,
    /// Its masked places, each with the index of its example.
    pub masked: Vec<(u32, MaskedToken)>,
}

/// The order in which an epoch walks over `n` examples.
#[must_use]
pub fn order(n: usize, seed: u64, epoch: u64, shuffle: bool) -> Vec<u32> {
    if shuffle {
        Stream::new(seed, &format!("shuffle/{epoch}")).permutation(n)
    } else {
        (0..n as u32).collect()
    }
}

/// Packs examples without padding, masked where there are masks, making the wanted inputs. Scalars
/// (loss scale, step, rate), weights of classes and kept values of the frozen prefix are the caller's.
///
/// # Errors
/// Tokens cannot be read back.
pub fn pack(
    set: &EncodedSet,
    indices: &[u32],
    positions: Positions,
    masks: Option<MaskDraw<'_>>,
    want: &[Feed],
) -> Result<Packed, Unread> {
    let chosen: Result<Vec<(u32, EncodedExample)>, Unread> =
        indices.iter().map(|&i| Ok((i, set.get(i)?))).collect();
    let chosen = chosen?;
    let tokens: usize = chosen.iter().map(|(_, e)| e.ids.len()).sum();
    let starts: Vec<u32> = chosen
        .iter()
        .scan(0_u32, |at, (_, e)| {
            let start = *at;
            *at += e.ids.len() as u32;
            Some(start)
        })
        .collect();
    // Each masked place with its row in the packed tokens.
    let mut masked = Vec::new();
    if let Some(masks) = masks {
        for (&start, (index, example)) in starts.iter().zip(&chosen) {
            let places = masks.places(*index, &example.ids);
            masked.extend(places.into_iter().map(|p| (start + p.position, *index, p)));
        }
    }
    let sizes =
        Bindings::of_lengths(chosen.iter().map(|(_, e)| e.ids.len())).reading(masked.len() as u64);
    let per_place = |f: &dyn Fn(u32, u32, &MaskedToken) -> u32| {
        let mut list = Vec::with_capacity(masked.len());
        list.extend(
            masked
                .iter()
                .map(|(row, index, place)| f(*row, *index, place)),
        );
        Tensor::new(list, &[masked.len()])
    };
    // Token ids as the model reads them.
    let shown = || {
        let mut list = Vec::with_capacity(tokens);
        chosen
            .iter()
            .for_each(|(_, e)| list.extend_from_slice(&e.ids));
        for (row, _, place) in &masked {
            if let Some(id) = list.get_mut(*row as usize) {
                *id = place.shown;
            }
        }
        list
    };
    let feeds = want
        .iter()
        .filter_map(|&feed| {
            let per_token = |f: &dyn Fn(u32, &EncodedExample, usize) -> u32| {
                let mut list = Vec::with_capacity(tokens);
                for (index, example) in &chosen {
                    list.extend((0..example.ids.len()).map(|place| f(*index, example, place)));
                }
                Tensor::new(list, &[tokens])
            };
            let tensor = match feed {
                Feed::TokenIds => Tensor::new(shown(), &[tokens]),
                Feed::Positions => {
                    let ids = shown();
                    let mut list = Vec::with_capacity(tokens);
                    let mut rest = ids.as_slice();
                    for (_, example) in &chosen {
                        let (own, others) = rest.split_at(example.ids.len().min(rest.len()));
                        list.extend(positions.of(own.iter().copied()));
                        rest = others;
                    }
                    Tensor::new(list, &[tokens])
                }
                Feed::Segments => {
                    per_token(&|_, e, place| e.segments.get(place).copied().unwrap_or(0).into())
                }
                Feed::Offsets => {
                    let mut list = Vec::with_capacity(starts.len() + 1);
                    list.extend_from_slice(&starts);
                    list.push(tokens as u32);
                    Tensor::new(list, &[starts.len() + 1])
                }
                Feed::Rows(Pick::First) => Tensor::new(starts.clone(), &[starts.len()]),
                Feed::Rows(Pick::Last) => {
                    let ends = starts.iter().zip(&chosen);
                    let ends = ends.map(|(start, (_, e))| start + (e.ids.len() as u32).max(1) - 1);
                    let mut list = Vec::with_capacity(starts.len());
                    list.extend(ends);
                    Tensor::new(list, &[starts.len()])
                }
                Feed::Rows(Pick::Mask) => {
                    let masks = starts
                        .iter()
                        .zip(&chosen)
                        .map(|(start, (_, e))| start + e.mask);
                    let mut list = Vec::with_capacity(starts.len());
                    list.extend(masks);
                    Tensor::new(list, &[starts.len()])
                }
                Feed::Keys(Axis::Tokens) => {
                    let mut list = Vec::with_capacity(2 * tokens);
                    for (index, example) in &chosen {
                        list.extend(
                            (0..example.ids.len() as u32).flat_map(|place| [*index, place]),
                        );
                    }
                    Tensor::new(list, &[tokens, 2])
                }
                Feed::Keys(Axis::Sequences) => {
                    let mut list = Vec::with_capacity(2 * chosen.len());
                    list.extend(chosen.iter().flat_map(|(index, _)| [*index, 0]));
                    Tensor::new(list, &[chosen.len(), 2])
                }
                Feed::Rows(Pick::Places) => per_place(&|row, _, _| row),
                Feed::Targets(TargetKind::Token) => per_place(&|_, _, place| place.token),
                Feed::Keys(Axis::Read) => {
                    let mut list = Vec::with_capacity(2 * masked.len());
                    list.extend(
                        masked
                            .iter()
                            .flat_map(|(_, index, place)| [*index, place.position]),
                    );
                    Tensor::new(list, &[masked.len(), 2])
                }
                Feed::Targets(TargetKind::Class) => {
                    let class =
                        |e: &EncodedExample| if let Target::Class(c) = e.label { c } else { 0 };
                    let mut list = Vec::with_capacity(chosen.len());
                    list.extend(chosen.iter().map(|(_, e)| class(e)));
                    Tensor::new(list, &[chosen.len()])
                }
                Feed::Targets(TargetKind::Number) => {
                    let score = |e: &EncodedExample| {
                        if let Target::Score(x) = e.label {
                            x
                        } else {
                            0.0
                        }
                    };
                    let mut list = Vec::with_capacity(chosen.len());
                    list.extend(chosen.iter().map(|(_, e)| score(e)));
                    Tensor::new(list, &[chosen.len()])
                }
                Feed::Targets(TargetKind::ClassSet { classes }) => {
                    let classes = classes as usize;
                    let mut list = vec![0.0_f32; chosen.len() * classes];
                    for (row, (_, e)) in list.chunks_mut(classes.max(1)).zip(&chosen) {
                        let Target::Classes(own) = &e.label else {
                            continue;
                        };
                        for class in own.iter() {
                            if let Some(place) = row.get_mut(*class as usize) {
                                *place = 1.0;
                            }
                        }
                    }
                    Tensor::new(list, &[chosen.len(), classes])
                }
                Feed::ClassWeights { .. }
                | Feed::LossScale
                | Feed::Step
                | Feed::LearningRate
                | Feed::Perturbation
                | Feed::Draw
                | Feed::Feature { .. } => {
                    return None;
                }
            };
            Some((feed, tensor))
        })
        .collect();
    Ok(Packed {
        sizes,
        feeds,
        masked: masked.into_iter().map(|(_, i, place)| (i, place)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::task::Masking;
    use crate::program::Sym;

    #[test]
    fn packing_has_no_padding_and_keeps_identities() {
        let example = |n: u32, class| EncodedExample {
            ids: (10..10 + n).collect(),
            segments: vec![0; n as usize],
            mask: n - 1,
            label: Target::Class(class),
        };
        let set: EncodedSet = [example(3, 0), example(5, 1), example(2, 1)]
            .into_iter()
            .collect();
        let pack = |indices: &[u32], first, masks, want: &[Feed]| {
            let positions = Positions {
                first,
                skips: Some(13),
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
        let masking = Masking {
            rate: 0.5,
            added: 1,
            special: vec![10],
            mask: 99,
            vocabulary: 20,
        };
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
}
