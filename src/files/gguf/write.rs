//! GGUF files written: metadata, the list of tensors, then each tensor as it comes.
//!
//! **Invariant:** the same metadata and data give the same bytes, and a path is whole or untouched.

use std::io::{self, Write};
use std::path::Path;

use super::header::{ALIGNED, ALIGNMENT, MAGIC};
use super::types;
use crate::files::RunError;
use crate::files::durable::{failed, write_atomically};
use crate::files::in_memory;
use crate::program::Format;

/// A value of the metadata, in the type that llama.cpp wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Meta {
    /// A count.
    U32(u32),
    /// A number.
    F32(f32),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Text(String),
    /// Several of them.
    Texts(Vec<String>),
    /// Several small numbers.
    Ints(Vec<i32>),
    /// Several numbers.
    Floats(Vec<f32>),
}

/// Metadata by key, in order.
pub type Metadata = Vec<(String, Meta)>;

/// A tensor to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its name in llama.cpp.
    pub name: String,
    /// How its numbers are stored.
    pub format: Format,
    /// Its shape, the longest stride first.
    pub shape: Vec<u64>,
}

impl Planned {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.format.bytes(self.shape.iter().product())
    }
}

impl Meta {
    fn kind(&self) -> u32 {
        match self {
            Self::U32(_) => 4,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::Text(_) => 8,
            Self::Texts(_) | Self::Ints(_) | Self::Floats(_) => 9,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        fn list<T>(
            out: &mut Vec<u8>,
            kind: u32,
            all: &[T],
            mut each: impl FnMut(&mut Vec<u8>, &T),
        ) {
            out.extend(kind.to_le_bytes());
            out.extend((all.len() as u64).to_le_bytes());
            all.iter().for_each(|x| each(out, x));
        }
        match self {
            Self::U32(x) => out.extend(x.to_le_bytes()),
            Self::F32(x) => out.extend(x.to_le_bytes()),
            Self::Bool(x) => out.push((*x).into()),
            Self::Text(text) => put_text(out, text),
            Self::Texts(all) => list(out, 8, all, |out, x| put_text(out, x)),
            Self::Ints(all) => list(out, 5, all, |out, x| out.extend(x.to_le_bytes())),
            Self::Floats(all) => list(out, 6, all, |out, x| out.extend(x.to_le_bytes())),
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Writes a file: `fill` writes the tensors one by one, in the order of the list.
///
/// # Errors
/// What the file system or `fill` says; a format that GGUF does not have and a wrong number of bytes are bugs.
pub fn write(
    path: &Path,
    metadata: &Metadata,
    tensors: &[Planned],
    fill: &mut dyn FnMut(usize, &mut dyn Write) -> Result<(), RunError>,
) -> Result<(), RunError> {
    let front = front(metadata, tensors)?;
    write_atomically(path, &mut |out| {
        let io = |e: io::Error| failed(path, "write", &e);
        out.write_all(&front).map_err(io)?;
        for (i, tensor) in tensors.iter().enumerate() {
            let mut counted = Counted { out, written: 0 };
            fill(i, &mut counted)?;
            let written = counted.written;
            if written != tensor.bytes() {
                let what = format!(
                    "`{}` came as {written} bytes of {}",
                    tensor.name,
                    tensor.bytes()
                );
                return Err(RunError::bug(what));
            }
            let rest = written.next_multiple_of(ALIGNMENT) - written;
            out.write_all(&[0; ALIGNED][..in_memory(rest)])
                .map_err(io)?;
        }
        Ok(())
    })
}

/// All in front of the data.
fn front(metadata: &Metadata, tensors: &[Planned]) -> Result<Vec<u8>, RunError> {
    let mut out = MAGIC.to_vec();
    out.extend(3_u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        put_text(&mut out, key);
        out.extend(value.kind().to_le_bytes());
        value.put(&mut out);
    }
    let mut offset = 0_u64;
    for tensor in tensors {
        let bug = || RunError::bug(format!("GGUF has no {}", tensor.format));
        put_text(&mut out, &tensor.name);
        out.extend(
            u32::try_from(tensor.shape.len())
                .unwrap_or(u32::MAX)
                .to_le_bytes(),
        );
        for dim in tensor.shape.iter().rev() {
            out.extend(dim.to_le_bytes());
        }
        out.extend(types::number(tensor.format).ok_or_else(bug)?.to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    out.resize(out.len().next_multiple_of(ALIGNED), 0);
    Ok(out)
}

/// Counts what goes through.
struct Counted<'a, W> {
    out: &'a mut W,
    written: u64,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
