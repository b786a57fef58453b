//! GGUF: a front of metadata with the list of tensors, then the data. Tensors go by the names of Hugging Face's files.

use std::fs::File;

use super::{Change, Container, Entry};
use crate::files::gguf::header::Header;
use crate::files::gguf::names::{FACTORS, Family};

/// The container.
#[derive(Debug)]
pub(super) struct Gguf;

impl Container for Gguf {
    fn extension(&self) -> &'static str {
        crate::files::gguf::EXTENSION
    }

    fn entries(&self, file: &File, size: u64) -> Result<Vec<Entry>, String> {
        let header = Header::read(file, size)?;
        let name = header.text("general.architecture")?.unwrap_or_default();
        let family = Family::of(name)?;
        let heads = |key: &str| header.size(&format!("{name}.attention.{key}"));
        let queries = heads("head_count")?.unwrap_or(1);
        let keys = heads("head_count_kv")?.unwrap_or(queries);
        let own = header.tensors.iter();
        let own = own.filter(|t| !FACTORS.contains(&t.name.as_str()));
        let made = own.map(|tensor| {
            let change = match family.order(&tensor.name, (queries, keys)) {
                Some(order) => Change::Rows(order),
                None if family.adds_one(&tensor.name) => Change::LessOne,
                None => Change::None,
            };
            if let Change::Rows(order) = change {
                let rows = tensor.shape.first().copied().unwrap_or(0);
                let (parts, heads) = order.parts();
                let each = parts.saturating_mul(heads);
                if each == 0 || !rows.is_multiple_of(each) {
                    return Err(format!(
                        "`{}` has {rows} rows, which {heads} heads cannot share in {parts} parts each: it is no valid GGUF file",
                        tensor.name
                    ));
                }
            }
            Ok(Entry {
                name: family.here(&tensor.name).unwrap_or_else(|| tensor.name.clone()),
                kind: tensor.kind.clone(),
                shape: tensor.shape.clone(),
                start: tensor.start,
                end: tensor.end,
                change,
                straight: true,
            })
        });
        made.collect()
    }
}
