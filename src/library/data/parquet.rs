//! Parquet, as the hub stores data sets: text, number and `ClassLabel` columns.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Cell, DataError, Format, Input, RowRec, missing};
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::Field;
use ::parquet::schema::types::Type;

/// The format.
pub static PARQUET: Format = Format {
    name: "parquet",
    extensions: &["parquet"],
    read,
    class_names,
};

fn read(
    input: &Input<'_>,
    columns: &[String],
    each: &mut dyn FnMut(RowRec) -> bool,
) -> Result<(), DataError> {
    let file = input.file;
    if input.bytes.is_empty() {
        return Err(DataError::empty(file));
    }
    // The decoder is not ours: should it panic on a damaged file, that is a damaged file.
    catch_unwind(AssertUnwindSafe(|| decode(input, columns, each))).unwrap_or_else(|_| {
        Err(DataError::new(file, "the Parquet file is damaged").help("fetch it again"))
    })
}

fn class_names(input: &Input<'_>, column: &str) -> Option<Vec<String>> {
    let metadata = || {
        let reader = SerializedFileReader::new(input.bytes.clone()).ok()?;
        let pairs = reader.metadata().file_metadata().key_value_metadata()?;
        let own = pairs.iter().find(|pair| pair.key == "huggingface")?;
        own.value.clone()
    };
    let text = catch_unwind(AssertUnwindSafe(metadata)).ok()??;
    names_in(&text, column)
}

fn decode(
    input: &Input<'_>,
    columns: &[String],
    each: &mut dyn FnMut(RowRec) -> bool,
) -> Result<(), DataError> {
    let file = input.file;
    let reader =
        SerializedFileReader::new(input.bytes.clone()).map_err(|error| wrong(&error, file))?;
    let metadata = reader.metadata().file_metadata();
    let schema = metadata.schema();
    let mut fields: Vec<Arc<Type>> = Vec::new();
    for column in columns {
        let names = schema.get_fields().iter().map(|field| field.name());
        let Some(field) = schema
            .get_fields()
            .iter()
            .find(|field| field.name() == column)
        else {
            return Err(missing(column, names, file));
        };
        if !fields.iter().any(|known| known.name() == column) {
            fields.push(Arc::clone(field));
        }
    }
    let projection = Type::group_type_builder(schema.name())
        .with_fields(fields)
        .build()
        .map_err(|error| wrong(&error, file))?;
    let rows = reader
        .get_row_iter(Some(projection))
        .map_err(|error| wrong(&error, file))?;
    for (row, line) in rows.zip(1u64..) {
        let row = row.map_err(|error| wrong(&error, file).at(line))?;
        let mut cells = Vec::with_capacity(columns.len());
        for column in columns {
            let field = row
                .get_column_iter()
                .find(|(name, _)| *name == column)
                .map(|(_, field)| field);
            cells.push(field.map_or(Some(Cell::Missing), cell).ok_or_else(|| {
                DataError::new(
                    file,
                    format!("column `{column}` holds neither text nor numbers"),
                )
                .at(line)
            })?);
        }
        if !each(RowRec { line, cells }) {
            break;
        }
    }
    Ok(())
}

fn cell(field: &Field) -> Option<Cell> {
    Some(match field {
        Field::Null => Cell::Missing,
        Field::Bool(value) => Cell::Text(value.to_string()),
        Field::Byte(value) => Cell::Int((*value).into()),
        Field::Short(value) => Cell::Int((*value).into()),
        Field::Int(value) => Cell::Int((*value).into()),
        Field::Long(value) => Cell::Int(*value),
        Field::UByte(value) => Cell::Int((*value).into()),
        Field::UShort(value) => Cell::Int((*value).into()),
        Field::UInt(value) => Cell::Int((*value).into()),
        Field::ULong(value) => i64::try_from(*value).map_or(Cell::Float(*value as f64), Cell::Int),
        Field::Float16(value) => Cell::Float(value.to_f64()),
        Field::Float(value) => Cell::Float((*value).into()),
        Field::Double(value) => Cell::Float(*value),
        Field::Str(text) => Cell::Text(text.clone()),
        Field::Bytes(bytes) => Cell::Text(std::str::from_utf8(bytes.data()).ok()?.to_owned()),
        _ => return None,
    })
}

/// The names of a `ClassLabel` column in the metadata the `datasets` library writes.
fn names_in(metadata: &str, column: &str) -> Option<Vec<String>> {
    let value: serde_json::Value = serde_json::from_str(metadata).ok()?;
    let feature = value.get("info")?.get("features")?.get(column)?;
    if feature.get("_type")?.as_str()? != "ClassLabel" {
        return None;
    }
    feature
        .get("names")?
        .as_array()?
        .iter()
        .map(|name| name.as_str().map(str::to_owned))
        .collect()
}

fn wrong(error: &ParquetError, file: &str) -> DataError {
    DataError::new(file, format!("the Parquet file cannot be read: {error}"))
        .help("the file may be cut short, or compressed with other than Snappy or Zstandard")
}
