//! What is wrong with rows, one error a cause.

use super::super::DataError;

/// Causes after which reading stops.
const ENOUGH: usize = 10;

/// Rows of a cause that are named.
const NAMED: usize = 4;

/// Rows of one kind that are counted before reading stops.
const COUNTED: u64 = 100_000;

/// Errors, those of one kind together.
#[derive(Debug, Default)]
pub(super) struct Wrongs {
    list: Vec<(DataError, Vec<u64>, u64)>,
}

impl Wrongs {
    /// Adds an error about a file.
    pub(super) fn add(&mut self, error: DataError, file: &str) {
        let known = self
            .list
            .iter_mut()
            .find(|(known, ..)| !error.kind.is_empty() && known.kind == error.kind);
        if let Some((known, lines, count)) = known {
            *count += 1;
            if lines.len() < NAMED && known.file == file {
                lines.extend(error.line);
            }
            return;
        }
        let file = match error.file.as_str() {
            "" => file.to_owned(),
            own => own.to_owned(),
        };
        self.list.push((DataError { file, ..error }, Vec::new(), 0));
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether reading on would say nothing new.
    pub(super) fn is_enough(&self) -> bool {
        self.list.len() >= ENOUGH || self.list.iter().any(|(.., count)| *count >= COUNTED)
    }

    pub(super) fn into_list(self) -> Vec<DataError> {
        let of_kind = |(mut error, lines, count): (DataError, Vec<u64>, u64)| {
            if count == 0 {
                return error;
            }
            let lines: Vec<String> = lines.iter().map(u64::to_string).collect();
            error.message += &match lines.as_slice() {
                [] => format!("; {count} more like it"),
                lines => format!(
                    "; {count} more like it (line {}{})",
                    lines.join(", "),
                    if lines.len() as u64 == count {
                        ""
                    } else {
                        ", …"
                    }
                ),
            };
            error
        };
        self.list.into_iter().map(of_kind).collect()
    }
}
