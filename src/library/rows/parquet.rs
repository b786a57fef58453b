//! Parquet: rows out of all columns, columns copied as they are, and new files.

use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::column::writer::ColumnCloseResult;
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::ParquetMetaData;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::record::reader::RowIter;
use ::parquet::record::{Field, Row};
use ::parquet::schema::types::{Type, TypePtr};
use serde_json::{Map, Value as Json, json};

use super::{Added, Record, Rows, Sink, Unwritten, columns_of, only, taken, wrong};
use crate::library::data::DataError;
use holds::{Holds, holds};

mod holds;

/// Rows of a group that is written.
const GROUP: usize = 1 << 14;

type Output<'a> = Box<dyn Write + Send + 'a>;

fn damaged(error: &ParquetError, file: &str) -> DataError {
    DataError::new(file, format!("the Parquet file cannot be read: {error}"))
        .help("the file may be cut short, or compressed with other than Snappy or Zstandard")
}

/// The decoder is not ours: should it panic on a damaged file, that is a damaged file.
fn guarded<T>(file: &str, f: impl FnOnce() -> T) -> Result<T, DataError> {
    catch_unwind(AssertUnwindSafe(f))
        .map_err(|_| DataError::new(file, "the Parquet file is damaged").help("fetch it again"))
}

/// Reads rows.
pub(super) struct Reader {
    rows: RowIter<'static>,
    columns: Vec<String>,
    file: String,
    row: u64,
}

impl Reader {
    pub(super) fn open(
        input: File,
        file: &str,
        only: Option<&[String]>,
    ) -> Result<Self, DataError> {
        guarded(file, || {
            let bad = |error: ParquetError| damaged(&error, file);
            let reader = SerializedFileReader::new(input).map_err(bad)?;
            let schema = reader.metadata().file_metadata().schema().clone();
            let fields = schema.get_fields();
            let columns: Vec<String> = fields.iter().map(|f| f.name().to_owned()).collect();
            let asked = |name: &str| {
                only.is_none_or(|list| {
                    list.iter()
                        .any(|c| c == name || c.split('.').next() == Some(name))
                })
            };
            let chosen: Vec<TypePtr> = fields.iter().filter(|f| asked(f.name())).cloned().collect();
            let projection = Type::group_type_builder(schema.name())
                .with_fields(chosen)
                .build()
                .map_err(bad)?;
            let rows = RowIter::from_file_into(Box::new(reader))
                .project(Some(projection))
                .map_err(bad)?;
            Ok(Self {
                rows,
                columns,
                file: file.to_owned(),
                row: 0,
            })
        })?
    }
}

impl Rows for Reader {
    fn columns(&self) -> Option<&[String]> {
        Some(&self.columns)
    }

    fn next(&mut self) -> Option<Result<Record, DataError>> {
        self.row += 1;
        let (rows, file, row) = (&mut self.rows, &self.file, self.row);
        match guarded(file, || rows.next()) {
            Err(error) => Some(Err(error)),
            Ok(None) => None,
            Ok(Some(Err(error))) => Some(Err(damaged(&error, file))),
            Ok(Some(Ok(own))) => Some(match object(&own) {
                Ok(fields) => Ok(Record {
                    row,
                    fields,
                    raw: None,
                }),
                Err(column) => Err(wrong(
                    file,
                    row,
                    format!("`{column}` holds bytes that are no text"),
                )),
            }),
        }
    }
}

/// A row as an object, or the column that is none.
fn object(row: &Row) -> Result<Map<String, Json>, String> {
    row.get_column_iter()
        .map(|(name, field)| Ok((name.clone(), value(field).ok_or_else(|| name.clone())?)))
        .collect()
}

fn value(field: &Field) -> Option<Json> {
    Some(match field {
        Field::Null => Json::Null,
        Field::Bool(value) => json!(value),
        Field::Byte(n) => json!(n),
        Field::Short(n) => json!(n),
        Field::Int(n) => json!(n),
        Field::Long(n) => json!(n),
        Field::UByte(n) => json!(n),
        Field::UShort(n) => json!(n),
        Field::UInt(n) => json!(n),
        Field::ULong(n) => json!(n),
        // As few digits as tell the number.
        Field::Float16(x) => number(&x.to_string()),
        Field::Float(x) => number(&x.to_string()),
        Field::Double(x) => json!(x),
        Field::Str(text) => json!(text),
        Field::Bytes(bytes) => json!(std::str::from_utf8(bytes.data()).ok()?),
        Field::Group(row) => Json::Object(object(row).ok()?),
        Field::ListInternal(list) => {
            Json::Array(list.elements().iter().map(value).collect::<Option<_>>()?)
        }
        Field::MapInternal(map) => {
            let pair = |(key, own): &(Field, Field)| Some((plain(&value(key)?), value(own)?));
            Json::Object(map.entries().iter().map(pair).collect::<Option<_>>()?)
        }
        other => json!(other.to_string()),
    })
}

fn number(digits: &str) -> Json {
    digits.parse::<f64>().map_or(Json::Null, |x| json!(x))
}

fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn failed(error: ParquetError) -> Unwritten {
    match error {
        ParquetError::External(why) => match why.downcast::<std::io::Error>() {
            Ok(why) => Unwritten::Output(*why),
            Err(why) => Unwritten::Output(std::io::Error::other(why)),
        },
        other => Unwritten::Output(std::io::Error::other(other)),
    }
}

fn properties() -> Arc<WriterProperties> {
    let builder = WriterProperties::builder().set_compression(Compression::SNAPPY);
    Arc::new(builder.build())
}

/// Writes rows of other formats: each column holds what it does in the first rows.
pub(super) struct Out<'a> {
    /// Until the columns are known.
    out: Option<Output<'a>>,
    writer: Option<SerializedFileWriter<Output<'a>>>,
    columns: Option<Vec<String>>,
    kinds: Vec<Holds>,
    added: Vec<Added>,
    records: Vec<Record>,
    values: Vec<Vec<Json>>,
    file: String,
}

impl<'a> Out<'a> {
    pub(super) fn new(
        out: Output<'a>,
        columns: Option<Vec<String>>,
        added: Vec<Added>,
        file: &str,
    ) -> Self {
        Self {
            out: Some(out),
            writer: None,
            columns,
            kinds: Vec::new(),
            added,
            records: Vec::new(),
            values: Vec::new(),
            file: file.to_owned(),
        }
    }

    /// Says what the columns are.
    fn begin(&mut self) -> Result<(), Unwritten> {
        let columns = self
            .columns
            .clone()
            .unwrap_or_else(|| columns_of(&self.records));
        taken(&columns, &self.added, &self.file)?;
        let of = |name: &String| Holds::all(self.records.iter().filter_map(|r| r.fields.get(name)));
        self.kinds = columns.iter().map(of).collect();
        let own = columns
            .iter()
            .zip(&self.kinds)
            .map(|(name, kind)| kind.field(name));
        let added = self.added.iter().map(|a| holds(a).field(&a.name));
        let fields: Vec<TypePtr> = own.chain(added).collect::<Result<_, _>>().map_err(failed)?;
        let schema = Type::group_type_builder("schema")
            .with_fields(fields)
            .build()
            .map_err(failed)?;
        if let Some(out) = self.out.take() {
            let writer = SerializedFileWriter::new(out, Arc::new(schema), properties());
            self.writer = Some(writer.map_err(failed)?);
        }
        self.columns = Some(columns);
        Ok(())
    }

    fn group(&mut self) -> Result<(), Unwritten> {
        if self.writer.is_none() {
            self.begin()?;
        }
        let columns = self.columns.clone().unwrap_or_default();
        for record in &self.records {
            only(record, &columns, &self.file)?;
            for (name, kind) in columns.iter().zip(&self.kinds) {
                let value = record.fields.get(name).unwrap_or(&Json::Null);
                if !kind.takes(value) {
                    return Err(wrong(
                        &self.file,
                        record.row,
                        format!("`{name}` is of another type than in the rows before"),
                    )
                    .help("`--format jsonl` writes each row as it is")
                    .into());
                }
            }
        }
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        if !self.records.is_empty() {
            let mut group = writer.next_row_group().map_err(failed)?;
            for (name, kind) in columns.iter().zip(&self.kinds) {
                let own = self.records.iter();
                let values: Vec<&Json> = own
                    .map(|r| r.fields.get(name).unwrap_or(&Json::Null))
                    .collect();
                kind.column(&mut group, &values).map_err(failed)?;
            }
            write_added(&mut group, &self.added, &self.values).map_err(failed)?;
            group.close().map_err(failed)?;
        }
        self.records.clear();
        self.values.clear();
        Ok(())
    }
}

/// Writes the added columns of a group.
fn write_added<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    added: &[Added],
    values: &[Vec<Json>],
) -> Result<(), ParquetError> {
    for (i, own) in added.iter().enumerate() {
        let column: Vec<&Json> = values
            .iter()
            .map(|v| v.get(i).unwrap_or(&Json::Null))
            .collect();
        holds(own).column(group, &column)?;
    }
    Ok(())
}

impl Sink for Out<'_> {
    fn write(&mut self, records: &[Record], added: Vec<Vec<Json>>) -> Result<(), Unwritten> {
        self.records.extend_from_slice(records);
        self.values.extend(added);
        if self.records.len() >= GROUP {
            self.group()?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), Unwritten> {
        self.group()?;
        if let Some(mut writer) = self.writer.take() {
            writer.finish().map_err(failed)?;
            writer.inner_mut().flush()?;
        }
        Ok(())
    }
}

/// Writes the columns of a Parquet file as they are, with columns added, group by group.
pub(super) struct Copy<'a> {
    writer: SerializedFileWriter<Output<'a>>,
    source: File,
    metadata: Arc<ParquetMetaData>,
    group: usize,
    added: Vec<Added>,
    values: Vec<Vec<Json>>,
}

impl<'a> Copy<'a> {
    pub(super) fn new(
        out: Output<'a>,
        source: File,
        added: Vec<Added>,
        file: &str,
    ) -> Result<Self, Unwritten> {
        let bad = |error: ParquetError| Unwritten::Row(damaged(&error, file));
        let own = source.try_clone()?;
        let reader = SerializedFileReader::new(own).map_err(bad)?;
        let metadata = Arc::new(reader.metadata().clone());
        let schema = metadata.file_metadata().schema();
        let mut fields = schema.get_fields().to_vec();
        for own in &added {
            fields.push(holds(own).field(&own.name).map_err(failed)?);
        }
        let schema = Type::group_type_builder(schema.name())
            .with_fields(fields)
            .build()
            .map_err(failed)?;
        let writer = SerializedFileWriter::new(out, Arc::new(schema), properties());
        Ok(Self {
            writer: writer.map_err(failed)?,
            source,
            metadata,
            group: 0,
            added,
            values: Vec::new(),
        })
    }

    /// Writes the groups whose rows all have their values.
    fn groups(&mut self) -> Result<(), Unwritten> {
        while let Some(from) = self.metadata.row_groups().get(self.group) {
            let rows = usize::try_from(from.num_rows()).unwrap_or(usize::MAX);
            if self.values.len() < rows {
                return Ok(());
            }
            let values: Vec<Vec<Json>> = self.values.drain(..rows).collect();
            let mut group = self.writer.next_row_group().map_err(failed)?;
            for column in from.columns() {
                let close = ColumnCloseResult {
                    bytes_written: column.compressed_size().max(0) as u64,
                    rows_written: rows as u64,
                    metadata: column.clone(),
                    bloom_filter: None,
                    column_index: None,
                    offset_index: None,
                };
                group.append_column(&self.source, close).map_err(failed)?;
            }
            write_added(&mut group, &self.added, &values).map_err(failed)?;
            group.close().map_err(failed)?;
            self.group += 1;
        }
        Ok(())
    }
}

impl Sink for Copy<'_> {
    fn write(&mut self, _: &[Record], added: Vec<Vec<Json>>) -> Result<(), Unwritten> {
        self.values.extend(added);
        self.groups()
    }

    fn finish(mut self: Box<Self>) -> Result<(), Unwritten> {
        self.groups()?;
        self.writer.finish().map_err(failed)?;
        Ok(self.writer.inner_mut().flush()?)
    }
}
