//! Files that are mapped while others may write to them: reading beyond the end of one that was cut ends a process
//! with SIGBUS, and one that changes gives a result of no file at all.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::durable::failed;
use super::error::RunError;

/// A file, with the size and the time it had when it was opened.
#[derive(Debug)]
pub struct Watched {
    file: File,
    was: (u64, Option<SystemTime>),
}

impl Watched {
    /// Watches a file from now on.
    ///
    /// # Errors
    /// What the file system says.
    pub fn new(path: &Path, file: File) -> Result<Self, RunError> {
        let was = look(&file).map_err(|e| failed(path, "look at", &e))?;
        Ok(Self { file, was })
    }

    /// Whether it is as it was: to be asked before its map is read.
    ///
    /// # Errors
    /// It was changed or cut.
    pub fn unchanged(&self, path: &Path) -> Result<(), RunError> {
        let now = look(&self.file).map_err(|e| failed(path, "look at", &e))?;
        if now == self.was {
            return Ok(());
        }
        Err(RunError::file(
            path,
            format!(
                "it was changed while it was read ({} bytes, {} before); leave it alone and run again",
                now.0, self.was.0
            ),
        ))
    }
}

fn look(file: &File) -> io::Result<(u64, Option<SystemTime>)> {
    let meta = file.metadata()?;
    Ok((meta.len(), meta.modified().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tensorfile::{TensorSpec, bytes_of, write_tensors};
    use crate::files::weights::TensorFile;
    use crate::program::op::Tensor;

    #[test]
    fn a_mapped_file_that_is_cut_or_changed_is_an_error_and_no_signal() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let path = dir.path().join("x.safetensors");
        let tensor = Tensor::new(vec![1.0_f32; 1 << 16], &[1 << 16]);
        let spec = [TensorSpec::of("x", &tensor)];
        let write = || {
            write_tensors(&path, &spec, None, &mut |_, out| {
                out.write_all(bytes_of(&tensor))
                    .map_err(|e| failed(&path, "write", &e))
            })
            .expect("written");
        };
        write();
        let file = TensorFile::open(&path).expect("opened");
        assert_eq!(file.tensor("x").expect("read").dims, tensor.dims);
        // A whole new file under the name is another file: the one that is open stays.
        write();
        file.tensor("x").expect("read");
        let file = TensorFile::open(&path).expect("opened");
        let handle = File::options().write(true).open(&path).expect("opened");
        handle.set_len(5000).expect("cut");
        let why = file.tensor("x").expect_err("it was cut").to_string();
        assert!(
            why.contains("changed while it was read (5000 bytes"),
            "{why}"
        );
    }
}
