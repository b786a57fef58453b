//! Every reader on good, wrong and hostile bytes.

use std::sync::Arc;

use ::parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use proptest::prelude::*;

use super::*;

fn names(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|name| (*name).to_owned()).collect()
}

/// All that a reader hands on.
#[derive(Debug)]
struct Table {
    rows: Vec<RowRec>,
    class_names: Option<Vec<String>>,
}

fn read(format: &Format, bytes: &[u8], columns: &[&str]) -> Result<Table, DataError> {
    let bytes = Bytes::copy_from_slice(bytes);
    let input = Input { bytes, file: "f" };
    let mut rows = Vec::new();
    (format.read)(&input, &names(columns), &mut |row| {
        rows.push(row);
        true
    })?;
    let class_names = columns.last().and_then(|c| (format.class_names)(&input, c));
    // A reader stops when it is told to.
    let mut seen = 0;
    (format.read)(&input, &names(columns), &mut |_| {
        seen += 1;
        false
    })?;
    assert_eq!(seen, rows.len().min(1));
    Ok(Table { rows, class_names })
}

fn shown(result: Result<Table, DataError>) -> String {
    match result {
        Ok(table) => format!("{table:?}"),
        Err(error) => format!("{error} | {}", error.help.as_deref().unwrap_or("-")),
    }
}

fn words(cells: &[&str]) -> Vec<Cell> {
    cells
        .iter()
        .map(|cell| Cell::Text((*cell).to_owned()))
        .collect()
}

/// A small Parquet file with a text, a `ClassLabel` and a score.
pub(super) fn parquet_bytes() -> Result<Vec<u8>, ParquetError> {
    let schema =
        "message m { optional binary text (UTF8); required int64 label; required double score; }";
    let schema = Arc::new(parse_message_type(schema)?);
    let json = r#"{"info":{"features":{"label":{"names":["neg","pos"],"_type":"ClassLabel"},"text":{"dtype":"string","_type":"Value"}}}}"#;
    let pairs = vec![KeyValue::new("huggingface".to_owned(), json.to_owned())];
    let properties = Arc::new(
        WriterProperties::builder()
            .set_key_value_metadata(Some(pairs))
            .build(),
    );
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties)?;
    let mut group = writer.next_row_group()?;
    if let Some(mut column) = group.next_column()? {
        let values = [ByteArray::from("good"), ByteArray::from("bad")];
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, Some(&[1, 0, 1]), None)?;
        column.close()?;
    }
    if let Some(mut column) = group.next_column()? {
        column
            .typed::<Int64Type>()
            .write_batch(&[1, 1, 0], None, None)?;
        column.close()?;
    }
    if let Some(mut column) = group.next_column()? {
        column
            .typed::<DoubleType>()
            .write_batch(&[0.5, 1.5, -2.0], None, None)?;
        column.close()?;
    }
    group.close()?;
    writer.into_inner()
}

#[test]
fn tsv_splits_at_tabs_alone() -> Result<(), DataError> {
    let table = read(
        &tsv::TSV,
        b"\xEF\xBB\xBFa\tb\tc\r\n\"x\t1\t \r\ny\"\t2\t\n\n",
        &["c", "a"],
    )?;
    assert_eq!(table.rows.len(), 2);
    assert_eq!(
        table.rows[0],
        RowRec {
            line: 2,
            cells: words(&[" ", "\"x"])
        }
    );
    assert_eq!(
        table.rows[1],
        RowRec {
            line: 3,
            cells: words(&["", "y\""])
        }
    );
    assert!(
        shown(read(&tsv::TSV, b"a\tb\n1\t2\n3\n", &["a"]))
            .starts_with("f:3: 1 cells where the header has 2")
    );
    assert!(
        shown(read(&tsv::TSV, b"sentence\tb\n", &["sentnce"])).contains("did you mean `sentence`")
    );
    assert!(shown(read(&tsv::TSV, b"a\ta\n", &["a"])).contains("f:1: two columns are named `a`"));
    assert!(shown(read(&tsv::TSV, b"a\n1\n\xFF\n", &["a"])).starts_with("f:3: this is not UTF-8"));
    Ok(())
}

#[test]
fn csv_takes_quotes_and_counts_lines() -> Result<(), DataError> {
    let table = read(
        &csv::CSV,
        b"a,b\r\n\"x, \"\"y\"\"\nz\",1\r\nw,2\r\n",
        &["b", "a"],
    )?;
    assert_eq!(
        table.rows[0],
        RowRec {
            line: 2,
            cells: words(&["1", "x, \"y\"\nz"])
        }
    );
    assert_eq!(
        table.rows[1],
        RowRec {
            line: 4,
            cells: words(&["2", "w"])
        }
    );
    assert!(
        shown(read(&csv::CSV, b"a,b\n1,2\n1,2,3\n", &["a"]))
            .starts_with("f:3: 3 cells where the header has 2")
    );
    assert!(
        shown(read(&csv::CSV, b"a,b\n1,2\n1,\xFE\n", &["a"])).starts_with("f:3: this is not UTF-8")
    );
    Ok(())
}

#[test]
fn jsonl_keeps_types() -> Result<(), DataError> {
    let text = "{\"a\": \"x\", \"b\": 1}\n\n{\"b\": 0.5, \"a\": null}\n{\"a\": true, \"b\": -3}";
    let table = read(&jsonl::JSONL, text.as_bytes(), &["a", "b"])?;
    let cells: Vec<(u64, Vec<Cell>)> = table
        .rows
        .into_iter()
        .map(|row| (row.line, row.cells))
        .collect();
    assert_eq!(
        cells,
        [
            (1, vec![Cell::Text("x".into()), Cell::Int(1)]),
            (3, vec![Cell::Missing, Cell::Float(0.5)]),
            (4, vec![Cell::Text("true".into()), Cell::Int(-3)]),
        ]
    );
    let wrong = |text: &str| shown(read(&jsonl::JSONL, text.as_bytes(), &["text"]));
    assert!(wrong("{\"text\": \"x\"}\n{\"text\"").starts_with("f:2: this is no JSON object"));
    assert!(wrong("[1]").starts_with("f:1: this is no JSON object"));
    assert!(wrong("{\"texts\": 1}").contains("did you mean `texts`"));
    assert!(wrong("{\"text\": [1]}").starts_with("f:1: `text` is a list or an object"));
    Ok(())
}

#[test]
fn parquet_knows_its_classes() -> Result<(), Box<dyn std::error::Error>> {
    let bytes = parquet_bytes()?;
    let table = read(&parquet::PARQUET, &bytes, &["text", "score", "label"])?;
    assert_eq!(table.class_names, Some(names(&["neg", "pos"])));
    let cells: Vec<Vec<Cell>> = table.rows.into_iter().map(|row| row.cells).collect();
    assert_eq!(
        cells[0],
        [Cell::Text("good".into()), Cell::Float(0.5), Cell::Int(1)]
    );
    assert_eq!(cells[1], [Cell::Missing, Cell::Float(1.5), Cell::Int(1)]);
    assert_eq!(
        cells[2],
        [Cell::Text("bad".into()), Cell::Float(-2.0), Cell::Int(0)]
    );
    assert_eq!(
        read(&parquet::PARQUET, &bytes, &["text"])?.class_names,
        None
    );
    assert!(shown(read(&parquet::PARQUET, &bytes, &["lable"])).contains("did you mean `label`"));
    assert!(
        shown(read(
            &parquet::PARQUET,
            &bytes[..bytes.len() - 9],
            &["text"]
        ))
        .contains("cannot be read")
    );
    Ok(())
}

#[test]
fn an_empty_file_is_an_error() {
    for format in FORMATS {
        assert!(
            shown(read(format, b"", &["a"])).contains("f:1: the file is empty"),
            "{}",
            format.name
        );
    }
}

#[test]
fn formats_are_found_by_extension_and_name() {
    let name = |path: &str| format_of(Path::new(path)).map(|format| format.name);
    assert_eq!(name("a/b.TSV"), Some("tsv"));
    assert_eq!(name("b.parquet"), Some("parquet"));
    assert_eq!((name("b.txt"), name("b")), (None, None));
    assert!(
        FORMATS
            .iter()
            .all(|format| format_named(format.name).is_some())
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_reader_panics_on_noise(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for format in FORMATS {
            let _ = read(format, &bytes, &["a"]);
        }
    }

    #[test]
    fn no_reader_panics_on_near_misses(text in "(a|\"|,|\t|\r|\n|\\{|\\}|:|1|\\[|ü){0,60}") {
        for format in FORMATS {
            let _ = read(format, text.as_bytes(), &["a"]);
            let _ = read(format, format!("a\tb,a\n{text}").as_bytes(), &["a"]);
            let _ = read(format, format!("{{\"a\":{text}}}").as_bytes(), &["a"]);
        }
    }

    #[test]
    fn no_damaged_parquet_panics(at in 0usize..4096, byte in any::<u8>(), cut in 0usize..4096) {
        let Ok(mut bytes) = parquet_bytes() else { return Ok(()) };
        let (at, cut) = (at % bytes.len(), cut % bytes.len());
        bytes[at] ^= byte;
        let _ = read(&parquet::PARQUET, &bytes, &["text", "label"]);
        let _ = read(&parquet::PARQUET, &bytes[cut..], &["text"]);
        let _ = read(&parquet::PARQUET, &bytes[..cut], &["text"]);
    }
}
