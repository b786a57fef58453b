//! Parquet, as the hub stores data sets: text, number and `ClassLabel` columns.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::column::{Step, steps};
use super::source::{Input, MOST_ROW, Stored, most_unpacked, too_long};
use super::{Cell, DataError, Format, List, OF_COLUMN, RowRec, missing};
use crate::base::suggest;
use ::parquet::errors::{ParquetError, Result as Decoded};
use ::parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use ::parquet::record::Field;
use ::parquet::schema::types::Type;

/// The format.
pub static PARQUET: Format = Format {
    name: "parquet",
    extensions: &["parquet"],
    read,
    columns,
    class_names,
};

impl Length for Input {
    fn len(&self) -> u64 {
        self.size()
    }
}

impl ChunkReader for Input {
    type T = std::io::BufReader<Stored>;

    fn get_read(&self, start: u64) -> Decoded<Self::T> {
        Ok(std::io::BufReader::new(self.stored(start)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Decoded<Bytes> {
        Ok(self.part(start, length)?)
    }
}

thread_local! {
    static DECODING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Whether this thread decodes a file, so that a panic is the file's fault and becomes an error that names it.
#[must_use]
pub fn is_decoding() -> bool {
    DECODING.get()
}

/// What the decoder gives. It is not ours: should it panic on a damaged file, that is a damaged file.
fn guarded<T>(file: &str, decode: impl FnOnce() -> T) -> Result<T, DataError> {
    let before = DECODING.replace(true);
    let decoded = catch_unwind(AssertUnwindSafe(decode));
    DECODING.set(before);
    decoded.map_err(|_| DataError::new(file, "the Parquet file is damaged").help("fetch it again"))
}

fn open(input: &Input) -> Result<SerializedFileReader<Input>, DataError> {
    let file = input.file.as_str();
    if input.size() == 0 {
        return Err(DataError::empty(file));
    }
    let reader = guarded(file, || SerializedFileReader::new(input.clone()))?;
    let reader = reader.map_err(|error| wrong(&error, file))?;
    super::pages::check(input, reader.metadata())?;
    Ok(reader)
}

fn columns(input: &Input) -> Result<Vec<String>, DataError> {
    let reader = open(input)?;
    let schema = reader.metadata().file_metadata().schema();
    let names = schema.get_fields().iter();
    Ok(names.map(|field| field.name().to_owned()).collect())
}

fn class_names(input: &Input, column: &str) -> Option<Vec<String>> {
    let reader = open(input).ok()?;
    let pairs = reader.metadata().file_metadata().key_value_metadata()?;
    let own = pairs.iter().find(|pair| pair.key == "huggingface")?;
    let value: serde_json::Value = serde_json::from_str(own.value.as_ref()?).ok()?;
    super::names::of_feature(value.get("info")?.get("features")?, column)
}

/// A column: its field, and the path to the value within it.
fn place(schema: &Type, column: &str, file: &str) -> Result<(Arc<Type>, Vec<Step>), DataError> {
    let fields = schema.get_fields();
    let named = |name: &str| fields.iter().find(|field| field.name() == name);
    if let Some(field) = named(column) {
        return Ok((Arc::clone(field), Vec::new()));
    }
    let mut steps = steps(column);
    if let Some(Step::Field(first)) = steps.first()
        && let Some(field) = named(first)
        && steps.len() > 1
    {
        let field = Arc::clone(field);
        steps.remove(0);
        if let Some(error) = astray(&field, &steps, column, file) {
            return Err(error);
        }
        return Ok((field, steps));
    }
    let error = missing(column, fields.iter().map(|field| field.name()), file);
    Err(
        match fields.iter().find_map(|field| within(field, column)) {
            Some(path) => error.help(format!("did you mean `{path}`?")),
            None => error,
        },
    )
}

/// The error of a path that leaves a group by a field that it does not have.
fn astray(field: &Type, steps: &[Step], column: &str, file: &str) -> Option<DataError> {
    let (mut at, mut done) = (field, field.name().to_owned());
    for step in steps {
        let Step::Field(name) = step else { return None };
        if !is_group(at) {
            return None;
        }
        let inner = at.get_fields();
        let Some(next) = inner.iter().find(|f| f.name() == name) else {
            let error = DataError::new(file, format!("there is no value at `{column}`"));
            let names = inner.iter().map(|f| f.name());
            let near = suggest::nearest(name, names.clone());
            let shown = if near.is_empty() {
                names.take(12).collect()
            } else {
                near
            };
            let paths: Vec<String> = shown.iter().map(|n| format!("`{done}.{n}`")).collect();
            let help = format!("there is {}", paths.join(", "));
            return Some(error.kind(OF_COLUMN).help(help));
        };
        done = format!("{done}.{name}");
        at = next;
    }
    None
}

/// Whether a field holds others by their names, and is no list or map.
fn is_group(field: &Type) -> bool {
    use parquet::basic::ConvertedType;
    let info = field.get_basic_info();
    field.is_group()
        && info.converted_type() == ConvertedType::NONE
        && info.logical_type_ref().is_none()
}

/// The path to a field of that name within another.
fn within(field: &Type, name: &str) -> Option<String> {
    if !is_group(field) {
        return None;
    }
    let own = field.name();
    field.get_fields().iter().find_map(|inner| {
        if inner.name() == name {
            return Some(format!("{own}.{name}"));
        }
        within(inner, name).map(|path| format!("{own}.{path}"))
    })
}

fn read(
    input: &Input,
    columns: &[String],
    each: &mut dyn FnMut(RowRec) -> bool,
) -> Result<(), DataError> {
    let (file, most) = (input.file.as_str(), most_unpacked(input.size()));
    let reader = open(input)?;
    let schema = reader.metadata().file_metadata().schema();
    let places = columns.iter().map(|column| place(schema, column, file));
    let places: Vec<(Arc<Type>, Vec<Step>)> = places.collect::<Result<_, _>>()?;
    let mut fields: Vec<Arc<Type>> = Vec::new();
    for (field, _) in &places {
        if !fields.iter().any(|known| known.name() == field.name()) {
            fields.push(Arc::clone(field));
        }
    }
    let projection = Type::group_type_builder(schema.name())
        .with_fields(fields)
        .build()
        .map_err(|error| wrong(&error, file))?;
    let rows = guarded(file, || reader.get_row_iter(Some(projection)))?;
    let mut rows = rows.map_err(|error| wrong(&error, file))?;
    let (mut given, mut line) = (0_u64, 0_u64);
    while let Some(row) = guarded(file, || rows.next())? {
        line += 1;
        let row = row.map_err(|error| wrong(&error, file).at(line))?;
        let mut cells = Vec::with_capacity(columns.len());
        for (column, (field, steps)) in columns.iter().zip(&places) {
            let value = row
                .get_column_iter()
                .find(|(name, _)| *name == field.name())
                .map(|(_, value)| value);
            let cell = match value {
                Some(value) => inside(value, steps).and_then(cell),
                None => Some(Cell::Missing),
            };
            let cell = cell.ok_or_else(|| {
                DataError::new(file, format!("`{column}` holds neither a text nor a number"))
                    .kind(OF_COLUMN)
                    .at(line)
                    .help("a value within a list or a group is named by its path, as in \"data.text\" or \"answers[0]\"")
            })?;
            let bytes = text_bytes(&cell);
            given += bytes as u64;
            if bytes > MOST_ROW {
                return Err(too_long(file, line));
            }
            cells.push(cell);
        }
        // One long text may stand for millions of rows.
        if given > most {
            let message = format!(
                "its texts take more than {} MiB, out of all proportion to its size",
                most >> 20
            );
            return Err(DataError::new(file, message)
                .at(line)
                .help("it is taken for a trap; write the file again if it is what you meant"));
        }
        if !each(RowRec { line, cells }) {
            break;
        }
    }
    Ok(())
}

/// The value at the end of a path; nothing behind a null.
fn inside<'a>(value: &'a Field, steps: &[Step]) -> Option<&'a Field> {
    let mut value = value;
    for step in steps {
        value = match (step, value) {
            (_, Field::Null) => return Some(&Field::Null),
            (Step::Field(name), Field::Group(group)) => {
                let mut fields = group.get_column_iter();
                fields
                    .find(|(own, _)| *own == name)
                    .map(|(_, field)| field)?
            }
            (Step::Element(at), Field::ListInternal(list)) => list.elements().get(*at)?,
            (Step::Field(name), Field::ListInternal(list)) => {
                list.elements().get(name.parse::<usize>().ok()?)?
            }
            _ => return None,
        };
    }
    Some(value)
}

/// Bytes of the texts in a cell.
fn text_bytes(cell: &Cell) -> usize {
    match cell {
        Cell::Text(text) => text.len(),
        Cell::List(list) => {
            let own: usize = list.cells.iter().flatten().map(text_bytes).sum();
            own + list.nested.as_ref().map_or(0, json_bytes)
        }
        _ => 0,
    }
}

/// Bytes of the texts in a value with others in it.
fn json_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(json_bytes).sum(),
        Value::Object(map) => map.iter().map(|(k, v)| k.len() + json_bytes(v)).sum(),
        _ => size_of::<Value>(),
    }
}

fn cell(field: &Field) -> Option<Cell> {
    Some(match field {
        Field::ListInternal(list) => {
            let elements = list.elements();
            let cells = elements.iter().map(|element| match element {
                Field::ListInternal(_) => None,
                plain => cell(plain),
            });
            let cells: Option<Vec<Cell>> = cells.collect();
            Cell::List(List {
                length: elements.len(),
                nested: cells.is_none().then(|| nested(field)).flatten(),
                cells,
            })
        }
        Field::Null => Cell::Missing,
        Field::Bool(value) => Cell::Bool(*value),
        Field::Byte(value) => Cell::Int((*value).into()),
        Field::Short(value) => Cell::Int((*value).into()),
        Field::Int(value) => Cell::Int((*value).into()),
        Field::Long(value) => Cell::Int(*value),
        Field::UByte(value) => Cell::Int((*value).into()),
        Field::UShort(value) => Cell::Int((*value).into()),
        Field::UInt(value) => Cell::Int((*value).into()),
        Field::ULong(value) => {
            i64::try_from(*value).map_or_else(|_| Cell::Text(value.to_string()), Cell::Int)
        }
        Field::Float16(value) => Cell::Float(value.to_f64()),
        Field::Float(value) => Cell::Float((*value).into()),
        Field::Double(value) => Cell::Float(*value),
        Field::Str(text) => Cell::Text(text.clone()),
        Field::Bytes(bytes) => Cell::Text(std::str::from_utf8(bytes.data()).ok()?.to_owned()),
        _ => return None,
    })
}

/// A value with others in it, as JSON; `None` where a part of it has no place there.
fn nested(field: &Field) -> Option<Value> {
    Some(match field {
        Field::ListInternal(list) => {
            let all = list.elements().iter().map(nested);
            Value::Array(all.collect::<Option<_>>()?)
        }
        Field::Group(group) => {
            let all = group.get_column_iter();
            let all = all.map(|(name, field)| Some((name.clone(), nested(field)?)));
            Value::Object(all.collect::<Option<_>>()?)
        }
        plain => match cell(plain)? {
            Cell::Text(text) => Value::String(text),
            Cell::Int(whole) => whole.into(),
            Cell::Float(number) => number.into(),
            Cell::Bool(truth) => Value::Bool(truth),
            Cell::Missing => Value::Null,
            Cell::List(_) => return None,
        },
    })
}

fn wrong(error: &ParquetError, file: &str) -> DataError {
    DataError::new(file, format!("the Parquet file cannot be read: {error}"))
        .help("the file may be cut short, or compressed with other than Snappy or Zstandard")
}
