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
            for line in BufReader::new(file).lines().take(lines as usize) {
                kept.extend(line.map_err(|e| failed(first, "read", &e))?.into_bytes());
                kept.push(b'\n');
            }
        }
        for (path, writer) in &mut self.places {
            write_bytes(path, false, &kept)?;
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
        for (path, writer) in &mut self.places {
            if let Some(writer) = writer {
                writeln!(writer, "{value}").map_err(|e| failed(path, "write", &e))?;
            }
        }
        Ok(())
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
