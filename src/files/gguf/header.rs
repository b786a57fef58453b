//! The front of a GGUF file: versions 2 and 3, metadata and the list of tensors. The data are not read.
//!
//! **Invariant:** what is asked for in memory is bounded by the file's own size, whatever its counts say.

use std::collections::BTreeMap;
use std::fs::File;

use super::types;
use crate::files::in_memory;
use crate::files::weights::Kind;
use crate::library::data::positioned::read_at;

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Int(i128),
    /// A number, at the width that it has in the file.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Text(String),
    /// Several of one type.
    List(Vec<Self>),
}

/// A tensor as the file lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    /// Its name in llama.cpp.
    pub name: String,
    /// How its numbers are stored.
    pub kind: Kind,
    /// Its shape, the longest stride first.
    pub shape: Vec<u64>,
    /// Where its bytes begin in the file.
    pub start: u64,
    /// Where they end.
    pub end: u64,
}

/// What the front of a file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// The metadata by key.
    pub metadata: BTreeMap<String, Value>,
    /// The tensors in the order of the list.
    pub tensors: Vec<Info>,
}

/// The first bytes of each file.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";

/// Where tensors begin at multiples of, if the file says no other.
pub(super) const ALIGNMENT: u64 = ALIGNED as u64;
/// The same as a length in memory.
pub(super) const ALIGNED: usize = 32;

/// The key of that.
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";

/// The longest shape.
const MOST_DIMS: u32 = 4;

/// Lists in lists.
const MOST_DEPTH: u32 = 4;

/// Most values of all lists together, most bytes of a text, and most tensors: several times what the largest models have.
const MOST_VALUES: u64 = 1 << 23;
const MOST_TEXT: u64 = 1 << 26;
const MOST_TENSORS: u64 = 1 << 20;

/// Bytes read at a time.
const PIECE: u64 = 1 << 16;

/// What is wrong with a file that is none.
fn damaged(why: impl std::fmt::Display) -> String {
    format!("it is no valid GGUF file: {why}; download or convert it again")
}

/// Reads a file from its beginning, a piece at a time.
struct Cursor<'a> {
    file: &'a File,
    size: u64,
    at: u64,
    buffer: Vec<u8>,
    /// Where the buffer begins in the file.
    from: u64,
    /// Values of lists so far.
    values: u64,
}

impl Cursor<'_> {
    fn left(&self) -> u64 {
        self.size - self.at
    }

    /// The next bytes.
    fn take(&mut self, count: u64) -> Result<&[u8], String> {
        if count > self.left() {
            return Err(damaged(format!(
                "it ends after {} bytes, in the middle of its header",
                self.size
            )));
        }
        let inside =
            self.at >= self.from && self.at - self.from + count <= self.buffer.len() as u64;
        if !inside {
            let length = count.max(PIECE).min(self.left());
            self.buffer.resize(in_memory(length), 0);
            self.from = self.at;
            read_at(self.file, &mut self.buffer, self.at).map_err(|e| e.to_string())?;
        }
        let begin = in_memory(self.at - self.from);
        self.at += count;
        Ok(&self.buffer[begin..begin + in_memory(count)])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N as u64)?;
        bytes.try_into().map_err(|_| damaged("it is cut"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of things that take at least so many bytes each.
    fn count(&mut self, what: &str, least: u64) -> Result<u64, String> {
        let count = self.u64()?;
        if count > self.left() / least.max(1) {
            return Err(damaged(format!(
                "it announces {count} {what}, more than its {} bytes can hold",
                self.size
            )));
        }
        Ok(count)
    }

    fn text(&mut self, what: &str) -> Result<String, String> {
        let length = self.count(&format!("bytes of {what}"), 1)?;
        if length > MOST_TEXT {
            return Err(damaged(format!("{what} has {length} bytes")));
        }
        let bytes = self.take(length)?.to_vec();
        String::from_utf8(bytes).map_err(|_| damaged(format!("{what} is not UTF-8 text")))
    }

    /// A value of a type, by its number in files.
    fn value(&mut self, kind: u32, key: &str, depth: u32) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Int(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Int(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Int(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Int(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Int(self.u32()?.into()),
            5 => Value::Int(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => Value::Bool(self.array::<1>()? != [0]),
            8 => Value::Text(self.text(&format!("the value of `{key}`"))?),
            9 if depth < MOST_DEPTH => {
                let kind = self.u32()?;
                let least = match kind {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    8 | 10..=12 => 8,
                    _ => 12,
                };
                let count = self.count(&format!("values of `{key}`"), least)?;
                self.values = self.values.saturating_add(count);
                if self.values > MOST_VALUES {
                    return Err(damaged(format!("`{key}` has {count} values")));
                }
                let mut list = Vec::new();
                for _ in 0..count {
                    list.push(self.value(kind, key, depth + 1)?);
                }
                Value::List(list)
            }
            10 => Value::Int(self.u64()?.into()),
            11 => Value::Int(i64::from_le_bytes(self.array()?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => {
                let why = format!("`{key}` has a value of type {other}, which there is none");
                return Err(damaged(why));
            }
        })
    }
}

impl Header {
    /// Reads the front of a file of so many bytes.
    ///
    /// # Errors
    /// What is wrong with it, and the remedy.
    pub fn read(file: &File, size: u64) -> Result<Self, String> {
        let mut at = Cursor {
            file,
            size,
            at: 0,
            buffer: Vec::new(),
            from: 0,
            values: 0,
        };
        let first = at.take(size.min(24))?.to_vec();
        if first.starts_with(b"version https://git-lfs") {
            return Err("it is a Git LFS pointer, not the weights; run `git lfs pull`".to_owned());
        }
        at.at = 0;
        if at.take(size.min(4))? != MAGIC {
            return Err(damaged("it does not begin with `GGUF`"));
        }
        let version = at.u32()?;
        match version {
            2 | 3 => {}
            1 => return Err(
                "it is of GGUF's version 1, which is not read; convert it with a newer llama.cpp"
                    .to_owned(),
            ),
            v if v.swap_bytes() == 2 || v.swap_bytes() == 3 => {
                return Err("it is a GGUF file for big-endian machines, which is not read; convert it with \
                            llama.cpp's gguf_convert_endian.py"
                    .to_owned());
            }
            other => {
                return Err(format!(
                    "it is of GGUF's version {other}; versions 2 and 3 are read"
                ));
            }
        }
        let tensors = at.count("tensors", 24)?;
        if tensors > MOST_TENSORS {
            return Err(damaged(format!("it announces {tensors} tensors")));
        }
        let keys = at.count("keys", 13)?;
        let mut header = Self::default();
        for _ in 0..keys {
            let key = at.text("a key")?;
            let kind = at.u32()?;
            let value = at.value(kind, &key, 0)?;
            if header.metadata.insert(key.clone(), value).is_some() {
                return Err(damaged(format!("it has the key `{key}` twice")));
            }
        }
        let mut listed = Vec::new();
        for _ in 0..tensors {
            listed.push(Listed::read(&mut at)?);
        }
        let alignment = match header.metadata.get(ALIGNMENT_KEY) {
            None => ALIGNMENT,
            Some(value) => {
                let whole = match value {
                    Value::Int(n) => u64::try_from(*n).ok(),
                    _ => None,
                };
                let whole = whole.filter(|n| *n <= 1 << 30 && n.is_power_of_two());
                whole.ok_or_else(|| damaged(format!("its alignment is {value:?}")))?
            }
        };
        let begin = at.at.next_multiple_of(alignment);
        header.tensors = placed(listed, begin, (alignment, size))?;
        Ok(header)
    }

    /// A whole number of the metadata.
    ///
    /// # Errors
    /// It is another value.
    pub fn size(&self, key: &str) -> Result<Option<u64>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Int(n)) => u64::try_from(*n)
                .map(Some)
                .map_err(|_| format!("its `{key}` is {n}; a count is wanted")),
            Some(_) => Err(format!("its `{key}` is no whole number")),
        }
    }

    /// A number of the metadata.
    ///
    /// # Errors
    /// It is another value.
    pub fn number(&self, key: &str) -> Result<Option<f64>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Float(x)) if x.is_finite() => Ok(Some(*x)),
            Some(Value::Int(n)) => Ok(Some(*n as f64)),
            Some(_) => Err(format!("its `{key}` is no number")),
        }
    }

    /// A text of the metadata.
    ///
    /// # Errors
    /// It is another value.
    pub fn text(&self, key: &str) -> Result<Option<&str>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(format!("its `{key}` is no text")),
        }
    }

    /// Yes or no of the metadata.
    ///
    /// # Errors
    /// It is another value.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(format!("its `{key}` is neither true nor false")),
        }
    }

    /// A list of the metadata.
    ///
    /// # Errors
    /// It is another value.
    pub fn list(&self, key: &str) -> Result<Option<&[Value]>, String> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::List(list)) => Ok(Some(list)),
            Some(_) => Err(format!("its `{key}` is no list")),
        }
    }

    /// A tensor by its name in llama.cpp.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&Info> {
        self.tensors.iter().find(|t| t.name == name)
    }
}

/// A row of the list of tensors.
struct Listed {
    name: String,
    shape: Vec<u64>,
    kind: u32,
    offset: u64,
}

impl Listed {
    fn read(at: &mut Cursor<'_>) -> Result<Self, String> {
        let name = at.text("a tensor's name")?;
        let dims = at.u32()?;
        if dims > MOST_DIMS {
            return Err(damaged(format!("`{name}` has {dims} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dims {
            shape.push(at.u64()?);
        }
        shape.reverse();
        Ok(Self {
            name,
            shape,
            kind: at.u32()?,
            offset: at.u64()?,
        })
    }
}

/// The tensors at their places.
fn placed(
    listed: Vec<Listed>,
    begin: u64,
    (alignment, size): (u64, u64),
) -> Result<Vec<Info>, String> {
    let mut starts: Vec<u64> = listed
        .iter()
        .map(|t| begin.saturating_add(t.offset))
        .collect();
    starts.sort_unstable();
    let mut names = std::collections::BTreeSet::new();
    let mut made = Vec::new();
    for tensor in listed {
        let name = tensor.name;
        let start = begin.saturating_add(tensor.offset);
        if !tensor.offset.is_multiple_of(alignment) {
            return Err(damaged(format!(
                "`{name}` does not begin at a multiple of {alignment} bytes"
            )));
        }
        let behind = starts.partition_point(|&s| s <= start);
        let next = starts.get(behind).copied().unwrap_or(size);
        let elements = tensor
            .shape
            .iter()
            .try_fold(1_u64, |n, &d| n.checked_mul(d));
        let kind = types::kind(tensor.kind);
        let end = match &kind {
            Kind::Stored(format) => {
                let width = tensor.shape.last().copied().unwrap_or(1);
                if !format.fits(width) {
                    return Err(damaged(format!(
                        "the rows of `{name}` have {width} numbers, which are no whole blocks of {format}"
                    )));
                }
                let bytes = elements
                    .filter(|&n| n <= size.saturating_mul(8))
                    .map(|n| format.bytes(n));
                bytes.and_then(|n| start.checked_add(n))
            }
            // How long such blocks are is not known here.
            Kind::Other(_) => Some(next),
        };
        let Some(end) = end.filter(|&end| end <= size) else {
            return Err(damaged(format!(
                "`{name}` reaches beyond its end: the file is cut, or its shape {:?} is wrong",
                tensor.shape
            )));
        };
        if end > next && next != start {
            return Err(damaged(format!(
                "`{name}` reaches into the tensor behind it"
            )));
        }
        if !names.insert(name.clone()) {
            return Err(damaged(format!("it has two tensors `{name}`")));
        }
        made.push(Info {
            name,
            kind,
            shape: tensor.shape,
            start,
            end,
        });
    }
    Ok(made)
}
