//! Where an example is in a set of tokens, as 40 bytes of the file.

/// Bytes of an example's place.
pub(super) const PLACE: usize = 40;

/// A label as it is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Label {
    None,
    Class(u32),
    Score(f32),
    /// Place of a list's length among the lists.
    List(u32),
    /// The same of a list with a class for each place that is read.
    Each(u32),
}

/// Where an example is, and what is known without its tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) at: u64,
    pub(super) length: u32,
    pub(super) mask: u32,
    pub(super) label: Label,
    pub(super) check: u32,
    pub(super) row: u32,
    pub(super) learned: u32,
    pub(super) task: u32,
}

impl Row {
    pub(super) fn write(self) -> [u8; PLACE] {
        let (kind, bits) = match self.label {
            Label::None => (0, 0),
            Label::Class(class) => (1, class),
            Label::Score(score) => (2, score.to_bits()),
            Label::List(at) => (3, at),
            Label::Each(at) => (4, at),
        };
        let mut bytes = [0; PLACE];
        let (at, rest) = bytes.split_at_mut(8);
        at.copy_from_slice(&self.at.to_le_bytes());
        for (to, n) in rest.as_chunks_mut::<4>().0.iter_mut().zip([
            self.length,
            self.mask,
            kind,
            bits,
            self.check,
            self.row,
            self.learned,
            self.task,
        ]) {
            *to = n.to_le_bytes();
        }
        bytes
    }

    pub(super) fn read(bytes: &[u8; PLACE]) -> Option<Self> {
        let (at, rest) = bytes.split_first_chunk::<8>()?;
        let [length, mask, kind, bits, check, row, learned, task] = *rest.as_chunks::<4>().0 else {
            return None;
        };
        let bits = u32::from_le_bytes(bits);
        Some(Self {
            at: u64::from_le_bytes(*at),
            length: u32::from_le_bytes(length),
            mask: u32::from_le_bytes(mask),
            label: match u32::from_le_bytes(kind) {
                0 => Label::None,
                1 => Label::Class(bits),
                2 => Label::Score(f32::from_bits(bits)),
                3 => Label::List(bits),
                4 => Label::Each(bits),
                _ => return None,
            },
            check: u32::from_le_bytes(check),
            row: u32::from_le_bytes(row),
            learned: u32::from_le_bytes(learned),
            task: u32::from_le_bytes(task),
        })
    }
}
