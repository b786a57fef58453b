//! What a Parquet file says it unpacks to, looked at before anything is unpacked.
//!
//! The head of a page is a Thrift struct in the compact encoding; its first fields are the page's kind and its sizes.

use ::parquet::basic::Compression;
use ::parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

use super::DataError;
use super::source::{Input, most_unpacked};

/// Rows that any file may have.
const ALWAYS_ROWS: i64 = 1 << 20;

/// Rows that a file may have for each of its bytes beyond that.
const ROWS_A_BYTE: u64 = 64;

/// The largest head of a page that is read.
const MOST_HEAD: usize = 16 << 20;

/// Refuses a file whose rows or pages are out of all proportion to its size.
pub(super) fn check(input: &Input, metadata: &ParquetMetaData) -> Result<(), DataError> {
    let bomb = |what: String| {
        DataError::new(input.file.as_str(), what)
            .help("it is taken for a trap; write the file again if it is what you meant")
    };
    let mut rows = 0_i64;
    for group in metadata.row_groups() {
        rows = rows.saturating_add(group.num_rows().max(0));
        for column in group.columns() {
            if column.compression() == Compression::UNCOMPRESSED {
                continue;
            }
            if let Some((packed, unpacked)) = swollen(input, column) {
                return Err(bomb(format!(
                    "a page of {packed} bytes says that it unpacks to {} MiB",
                    unpacked >> 20
                )));
            }
        }
    }
    let most = input.size().saturating_mul(ROWS_A_BYTE);
    if rows > ALWAYS_ROWS && rows.cast_unsigned() > most {
        return Err(bomb(format!(
            "a file of {} bytes says that it has {rows} rows",
            input.size()
        )));
    }
    Ok(())
}

/// The sizes of a page of a column that would unpack to too much.
fn swollen(input: &Input, column: &ColumnChunkMetaData) -> Option<(u64, u64)> {
    let first = column.dictionary_page_offset();
    let start = u64::try_from(first.unwrap_or(column.data_page_offset())).ok()?;
    let length = u64::try_from(column.compressed_size()).ok()?;
    let end = start.saturating_add(length).min(input.size());
    let mut at = start;
    while at < end {
        let head = Head::read(input, at, end)?;
        if head.unpacked > most_unpacked(head.packed) {
            return Some((head.packed, head.unpacked));
        }
        at = at.checked_add(head.length + head.packed)?;
    }
    None
}

/// The head of a page.
struct Head {
    /// Bytes it takes itself.
    length: u64,
    packed: u64,
    unpacked: u64,
}

impl Head {
    /// Reads the head at a place; `None` where there is none, which the decoder will say.
    fn read(input: &Input, at: u64, end: u64) -> Option<Self> {
        let mut size = 1 << 12;
        loop {
            let all = usize::try_from(end - at).unwrap_or(usize::MAX).min(size);
            let bytes = input.part(at, all).ok()?;
            let mut thrift = Thrift { rest: &bytes };
            match thrift.head() {
                Some((unpacked, packed)) => {
                    return Some(Self {
                        length: (bytes.len() - thrift.rest.len()) as u64,
                        packed: u64::try_from(packed).ok()?,
                        unpacked: u64::try_from(unpacked).ok()?,
                    });
                }
                None if all == size && size < MOST_HEAD => size *= 16,
                None => return None,
            }
        }
    }
}

/// A reader of Thrift's compact encoding.
struct Thrift<'a> {
    rest: &'a [u8],
}

impl Thrift<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn skip(&mut self, n: u64) -> Option<()> {
        self.rest = self.rest.get(usize::try_from(n).ok()?..)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn int(&mut self) -> Option<i64> {
        let coded = self.varint()?;
        Some((coded >> 1).cast_signed() ^ -((coded & 1).cast_signed()))
    }

    /// The sizes of a page, unpacked and packed: fields 2 and 3 of its head.
    fn head(&mut self) -> Option<(i64, i64)> {
        let (mut field, mut unpacked, mut packed) = (0, None, None);
        loop {
            let (next, kind) = self.field(field)?;
            if kind == 0 {
                return Some((unpacked?, packed?));
            }
            field = next;
            match (field, kind) {
                (2, 5) => unpacked = Some(self.int()?),
                (3, 5) => packed = Some(self.int()?),
                (_, kind) => self.value(kind, 0)?,
            }
        }
    }

    /// The number and the type of the next field; type 0 at the end of the struct.
    fn field(&mut self, last: i64) -> Option<(i64, u8)> {
        let byte = self.byte()?;
        let (step, kind) = (i64::from(byte >> 4), byte & 0x0f);
        let number = match (kind, step) {
            (0, _) => 0,
            (_, 0) => self.int()?,
            (_, step) => last.checked_add(step)?,
        };
        Some((number, kind))
    }

    /// Passes over a value of a type.
    fn value(&mut self, kind: u8, depth: u8) -> Option<()> {
        if depth > 8 {
            return None;
        }
        match kind {
            1 | 2 => Some(()),
            3 => self.skip(1),
            4..=6 => self.varint().map(drop),
            7 => self.skip(8),
            8 => {
                let length = self.varint()?;
                self.skip(length)
            }
            9 | 10 => {
                let byte = self.byte()?;
                let count = match byte >> 4 {
                    15 => self.varint()?,
                    short => u64::from(short),
                };
                (0..count).try_for_each(|_| match byte & 0x0f {
                    // In a list a truth value takes a byte.
                    1 | 2 => self.skip(1),
                    kind => self.value(kind, depth + 1),
                })
            }
            12 => {
                let mut field = 0;
                loop {
                    let (next, kind) = self.field(field)?;
                    if kind == 0 {
                        return Some(());
                    }
                    field = next;
                    self.value(kind, depth + 1)?;
                }
            }
            _ => None,
        }
    }
}
