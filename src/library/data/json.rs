//! JSON: an array of objects, or objects one behind the other; and JSON lines, one object a line.

use std::io::BufRead;

use serde_json::{Map, Value};

use super::source::{Input, Lines, MOST_ROW, no_text, too_long};
use super::{DataError, Format, RowRec, column};

/// Objects, one a line.
pub static JSONL: Format = Format {
    name: "jsonl",
    extensions: &["jsonl", "ndjson"],
    read: read_lines,
    columns: line_columns,
    class_names: |_, _| None,
};

/// An array of objects, or objects one behind the other.
pub static JSON: Format = Format {
    name: "json",
    extensions: &["json"],
    read: read_objects,
    columns: object_columns,
    class_names: |_, _| None,
};

type Each<'a> = &'a mut dyn FnMut(u64, Map<String, Value>) -> Result<bool, DataError>;

fn read_lines(
    input: &Input,
    columns: &[String],
    each: &mut dyn FnMut(RowRec) -> bool,
) -> Result<(), DataError> {
    lines(input, &mut |line, object| {
        Ok(each(row(input, line, &object, columns)?))
    })
}

fn read_objects(
    input: &Input,
    columns: &[String],
    each: &mut dyn FnMut(RowRec) -> bool,
) -> Result<(), DataError> {
    objects(input, &mut |line, object| {
        Ok(each(row(input, line, &object, columns)?))
    })
}

fn line_columns(input: &Input) -> Result<Vec<String>, DataError> {
    first(|each| lines(input, each))
}

fn object_columns(input: &Input) -> Result<Vec<String>, DataError> {
    first(|each| objects(input, each))
}

fn first(read: impl FnOnce(Each<'_>) -> Result<(), DataError>) -> Result<Vec<String>, DataError> {
    let mut keys = Vec::new();
    read(&mut |_, object| {
        keys = object.keys().cloned().collect();
        Ok(false)
    })?;
    Ok(keys)
}

/// The asked cells of an object that begins on a line.
pub(super) fn row(
    input: &Input,
    line: u64,
    object: &Map<String, Value>,
    columns: &[String],
) -> Result<RowRec, DataError> {
    let file = input.file.as_str();
    let cells = columns.iter().map(|name| {
        let value = column::find(object, name, file)?;
        column::cell(value, name, file)
    });
    let cells = cells.collect::<Result<_, DataError>>();
    let nested = |error: DataError| match object
        .get("data")
        .and_then(|data| data.get(0)?.get("paragraphs"))
    {
        Some(_) => error.help("this is a file as SQuAD's own are: write `format = squad`"),
        None => error,
    };
    let cells = cells.map_err(|error| nested(error.at(line)))?;
    Ok(RowRec { line, cells })
}

fn lines(input: &Input, each: Each<'_>) -> Result<(), DataError> {
    let file = input.file.as_str();
    let mut lines = Lines::of(input)?;
    let mut any = false;
    loop {
        let line = lines.number + 1;
        let Some((row, _)) = lines.read()? else { break };
        if row.trim().is_empty() {
            continue;
        }
        let object = serde_json::from_str(row).map_err(|error| {
            let wrong = no_object(&error, file).at(line);
            if !any && row.trim_start().starts_with('[') {
                return wrong.help("an array of objects is the format `json`; name the file `.json`, or write `format = json`");
            }
            wrong.help("JSON lines hold one object a line, such as {\"text\": \"…\", \"label\": 1}")
        })?;
        any = true;
        if !each(line, object)? {
            return Ok(());
        }
    }
    if any {
        Ok(())
    } else {
        Err(DataError::empty(file))
    }
}

/// What stands between two values of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The beginning: an array or an object.
    Start,
    /// Behind `[` or a comma.
    Element,
    /// Behind an element.
    Behind,
    /// Between objects that are in no array.
    Loose,
    /// Behind `]`.
    End,
}

fn objects(input: &Input, each: Each<'_>) -> Result<(), DataError> {
    let file = input.file.as_str();
    let wrong = |what: &str, line: u64| {
        DataError::new(file, what.to_owned())
            .at(line)
            .help("a .json file holds an array of objects, [{\"text\": \"…\", \"label\": 1}, …], or objects one behind the other")
    };
    let mut bytes = Chars::of(input)?;
    let mut place = Place::Start;
    let mut any = false;
    while let Some((byte, line)) = bytes.next()? {
        place = match (place, byte) {
            (_, b' ' | b'\t' | b'\r' | b'\n') => continue,
            (Place::Start, b'[') => Place::Element,
            (Place::Start | Place::Element | Place::Loose, b'{') => {
                let text = bytes.object()?;
                let text = std::str::from_utf8(&text).map_err(|_| no_text(file, line))?;
                let object =
                    serde_json::from_str(text).map_err(|error| no_object(&error, file).at(line))?;
                any = true;
                if !each(line, object)? {
                    return Ok(());
                }
                if place == Place::Element {
                    Place::Behind
                } else {
                    Place::Loose
                }
            }
            (Place::Behind, b',') => Place::Element,
            (Place::Behind, b']') => Place::End,
            (Place::Element, b']') if !any => Place::End,
            (Place::Start, _) => return Err(wrong("this is neither an array nor an object", line)),
            (Place::Element, _) => {
                return Err(wrong("an element of the array is no object", line));
            }
            (Place::Behind, _) => {
                return Err(wrong(
                    "a comma or `]` is missing between elements of the array",
                    line,
                ));
            }
            (Place::Loose, _) => {
                return Err(wrong("what stands between the objects is none", line));
            }
            (Place::End, _) => return Err(wrong("something stands behind the array", line)),
        };
    }
    match place {
        Place::Start => Err(DataError::empty(file)),
        Place::Element | Place::Behind => Err(wrong("the array is not closed", bytes.line)),
        Place::End if !any => Err(wrong("the array is empty", 1)),
        Place::Loose | Place::End => Ok(()),
    }
}

/// The bytes of a file with their lines.
struct Chars<'a> {
    input: &'a Input,
    from: Box<dyn BufRead>,
    line: u64,
}

impl<'a> Chars<'a> {
    fn of(input: &'a Input) -> Result<Self, DataError> {
        Ok(Self {
            input,
            from: input.text()?,
            line: 1,
        })
    }

    fn next(&mut self) -> Result<Option<(u8, u64)>, DataError> {
        let buffer = self.from.fill_buf();
        let buffer = buffer.map_err(|error| self.input.unread(&error))?;
        let Some(&byte) = buffer.first() else {
            return Ok(None);
        };
        self.from.consume(1);
        let line = self.line;
        self.line += u64::from(byte == b'\n');
        Ok(Some((byte, line)))
    }

    /// The rest of an object behind its brace, with the brace.
    fn object(&mut self) -> Result<Vec<u8>, DataError> {
        let (begins, mut text) = (self.line, vec![b'{']);
        let (mut depth, mut quoted, mut escaped) = (1_u32, false, false);
        loop {
            let buffer = self.from.fill_buf();
            let buffer = buffer.map_err(|error| self.input.unread(&error))?;
            if buffer.is_empty() {
                let wrong =
                    DataError::new(self.input.file.as_str(), "the object here is not closed");
                return Err(wrong
                    .at(begins)
                    .help("the file may be cut short, or a quote is missing"));
            }
            let mut used = 0;
            for &byte in buffer {
                used += 1;
                text.push(byte);
                self.line += u64::from(byte == b'\n');
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if quoted => escaped = true,
                    b'"' => quoted = !quoted,
                    b'{' | b'[' if !quoted => depth += 1,
                    b'}' | b']' if !quoted => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
            self.from.consume(used);
            if text.len() > MOST_ROW {
                return Err(too_long(&self.input.file, begins));
            }
            if depth == 0 {
                return Ok(text);
            }
        }
    }
}

fn no_object(error: &serde_json::Error, file: &str) -> DataError {
    DataError::new(file, format!("this is no JSON object: {}", cause(error)))
}

/// The message without its line, which counts within the row.
fn cause(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((cause, _)) => format!("{cause} at column {}", error.column()),
        None => text,
    }
}
