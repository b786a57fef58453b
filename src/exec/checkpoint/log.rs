//! The step log: one JSON object a line, in the store and, as a copy, where the user looks.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::files::RunError;
use crate::files::durable::{create_dirs, failed, write_bytes};

/// An append-only log kept in several places at once.
#[derive(Debug)]
pub struct Log {
    places: Vec<(PathBuf, Option<BufWriter<File>>)>,
    hasher: blake3::Hasher,
}

/// The checksum of the first lines of a log; `None` if there are fewer, or it cannot be read.
#[must_use]
pub fn sum_of(path: &Path, lines: u64) -> Option<String> {
    let mut hasher = blake3::Hasher::new();
    if lines > 0 {
        let mut reader = BufReader::new(File::open(path).ok()?);
        let mut line = Vec::new();
        for _ in 0..lines {
            line.clear();
            reader.read_until(b'\n', &mut line).ok()?;
            if line.last() != Some(&b'\n') {
                return None;
            }
            hasher.update(&line);
        }
    }
    Some(hasher.finalize().to_hex().to_string())
}

impl Log {
    /// A log at these paths; the first is the one that is resumed from.
    ///
    /// # Errors
    /// A directory cannot be made.
    pub fn open(paths: &[&Path]) -> Result<Self, RunError> {
        for dir in paths.iter().filter_map(|p| p.parent()) {
            create_dirs(dir)?;
        }
        Ok(Self {
            places: paths.iter().map(|p| (p.to_path_buf(), None)).collect(),
            hasher: blake3::Hasher::new(),
        })
    }

    /// Cuts the log back to its first `lines` lines, everywhere, and opens it for appending.
    ///
    /// # Errors
    /// What the file system says.
    pub fn cut_to(&mut self, lines: u64) -> Result<(), RunError> {
        let mut kept = Vec::new();
        if let Some((first, _)) = self.places.first().filter(|(p, _)| lines > 0 && p.exists()) {
            let file = File::open(first).map_err(|e| failed(first, "open", &e))?;
            let mut reader = BufReader::new(file);
            for _ in 0..lines {
                let read = reader.read_until(b'\n', &mut kept);
                read.map_err(|e| failed(first, "read", &e))?;
            }
        }
        self.hasher.reset();
        self.hasher.update(&kept);
        for (path, writer) in &mut self.places {
            write_bytes(path, &kept)?;
            let file = OpenOptions::new()
                .append(true)
                .open(&*path)
                .map_err(|e| failed(path, "open", &e))?;
            *writer = Some(BufWriter::new(file));
        }
        Ok(())
    }

    /// Appends an object.
    ///
    /// # Errors
    /// What the file system says.
    pub fn line(&mut self, value: &Json) -> Result<(), RunError> {
        let line = format!("{value}\n");
        self.hasher.update(line.as_bytes());
        for (path, writer) in &mut self.places {
            if let Some(writer) = writer {
                let written = writer.write_all(line.as_bytes());
                written.map_err(|e| failed(path, "write", &e))?;
            }
        }
        Ok(())
    }

    /// The checksum of all its lines.
    #[must_use]
    pub fn sum(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    /// Brings everything to disk.
    ///
    /// # Errors
    /// What the file system says.
    pub fn sync(&mut self) -> Result<(), RunError> {
        for (path, writer) in &mut self.places {
            if let Some(writer) = writer {
                writer
                    .flush()
                    .and_then(|()| writer.get_ref().sync_data())
                    .map_err(|e| failed(path, "write", &e))?;
            }
        }
        Ok(())
    }
}
