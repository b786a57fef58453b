//! How prompts are cut into program runs, which the planner has to know as well as the executor.

use std::ops::Range;

/// Most tokens of a run that reads prompts, unless a single token of each sequence is more.
pub const CHUNK: usize = 512;

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which prompt it is of.
    pub of: usize,
    /// Its tokens.
    pub tokens: Range<usize>,
}

/// The runs that read prompts of these lengths. A prompt is cut at multiples of [`CHUNK`], so that how it is cut does not
/// depend on the others; pieces go together while there is room.
#[must_use]
pub fn prefill(lengths: &[usize]) -> Vec<Vec<Piece>> {
    let mut runs: Vec<Vec<Piece>> = Vec::new();
    let mut free = 0;
    for (of, &length) in lengths.iter().enumerate() {
        for from in (0..length).step_by(CHUNK) {
            let tokens = from..length.min(from + CHUNK);
            // A piece needs what the one before it put into the cache.
            let follows = from > 0;
            let piece = Piece { of, tokens };
            match runs.last_mut() {
                Some(run) if !follows && piece.tokens.len() <= free => {
                    free -= piece.tokens.len();
                    run.push(piece);
                }
                _ => {
                    free = CHUNK - piece.tokens.len();
                    runs.push(vec![piece]);
                }
            }
        }
    }
    runs
}

/// The runs that read sources of these lengths, each as a whole: which ones, and how many tokens each has. They go together
/// while there is room.
#[must_use]
pub fn whole(lengths: &[usize]) -> Vec<Vec<(usize, usize)>> {
    let mut runs: Vec<Vec<(usize, usize)>> = Vec::new();
    let mut tokens = 0;
    for (of, &length) in lengths.iter().enumerate() {
        tokens += length;
        match runs.last_mut() {
            Some(run) if tokens <= CHUNK => run.push((of, length)),
            _ => {
                tokens = length;
                runs.push(vec![(of, length)]);
            }
        }
    }
    runs
}

/// The runs that read texts again which come to have so many tokens: prompts of these lengths, behind which at most so many
/// tokens are made. Texts of equal prompts come to it together.
#[must_use]
pub fn rereads(prompts: &[usize], length: usize, most: u64) -> Vec<Vec<Piece>> {
    // The last token that is made is not read.
    let comes = |n: &usize| *n < length && ((length - n) as u64) < most;
    let mut prompts: Vec<usize> = prompts.iter().copied().filter(comes).collect();
    prompts.sort_unstable();
    let alike = prompts.chunk_by(|a, b| a == b);
    alike
        .flat_map(|alike| prefill(&vec![length; alike.len()]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_cut_alike_whatever_they_come_with() {
        let cuts = |lengths: &[usize]| -> Vec<Vec<(usize, Range<usize>)>> {
            let runs = prefill(lengths).into_iter();
            runs.map(|run| run.into_iter().map(|p| (p.of, p.tokens)).collect())
                .collect()
        };
        assert_eq!(cuts(&[5, 7]), [vec![(0, 0..5), (1, 0..7)]]);
        assert_eq!(
            cuts(&[500, 13, 1]),
            [vec![(0, 0..500)], vec![(1, 0..13), (2, 0..1)]]
        );
        assert_eq!(
            cuts(&[1100, 3]),
            [
                vec![(0, 0..512)],
                vec![(0, 512..1024)],
                vec![(0, 1024..1100), (1, 0..3)]
            ]
        );
        assert_eq!(cuts(&[]), Vec::<Vec<_>>::new());
    }

    #[test]
    fn sources_are_read_as_a_whole() {
        assert_eq!(
            whole(&[500, 12, 1, 900, 3]),
            [
                vec![(0, 500), (1, 12)],
                vec![(2, 1)],
                vec![(3, 900)],
                vec![(4, 3)]
            ]
        );
    }

    #[test]
    fn texts_are_read_again_where_they_come_to_a_length() {
        let sizes = |prompts: &[usize], most: u64| -> Vec<usize> {
            let runs = rereads(prompts, 9, most).into_iter();
            runs.map(|run| run.iter().map(|p| p.tokens.len()).sum())
                .collect()
        };
        // A prompt of 9 is long from the start; of 5 and four tokens the last is not read.
        assert_eq!(sizes(&[9, 12, 5], 4), Vec::<usize>::new());
        assert_eq!(sizes(&[5, 8, 5], 5), [18, 9]);
    }
}
