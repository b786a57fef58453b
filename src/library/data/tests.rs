//! Every reader on good, wrong and hostile bytes.

mod bounds;

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
    let input = Input::memory(bytes.to_vec(), "f");
    let mut rows = Vec::new();
    (format.read)(&input, &names(columns), &mut |row| {
        rows.push(row);
        true
    })?;
    let class_names = columns.last().and_then(|c| (format.class_names)(&input, c));
    // A reader stops when asked to.
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
    let table = read(&json::JSONL, text.as_bytes(), &["a", "b"])?;
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
            (4, vec![Cell::Bool(true), Cell::Int(-3)]),
        ]
    );
    let wrong = |text: &str| shown(read(&json::JSONL, text.as_bytes(), &["text"]));
    assert!(wrong("{\"text\": \"x\"}\n{\"text\"").starts_with("f:2: this is no JSON object"));
    assert!(wrong("[1]").starts_with("f:1: this is no JSON object"));
    assert!(wrong("{\"texts\": 1}").contains("did you mean `texts`"));
    assert!(wrong("{\"text\": {\"a\": 1}}").starts_with("f:1: `text` is a list or an object"));
    let list = read(&json::JSONL, br#"{"text": [1, "b"]}"#, &["text"])?;
    let cells = Some(vec![Cell::Int(1), Cell::Text("b".into())]);
    let list_of_two = Cell::List(List {
        length: 2,
        cells,
        nested: None,
    });
    assert_eq!(list.rows[0].cells, [list_of_two]);
    Ok(())
}

#[test]
fn parquet_and_json_hold_the_same_conversations() -> Result<(), Box<dyn std::error::Error>> {
    let bytes = include_bytes!("../../../tests/reference/nested.parquet");
    let table = read(&parquet::PARQUET, bytes, &["messages", "tools"])?;
    let text = concat!(
        r#"{"messages": [{"role": "user", "content": "a", "tool_calls": null}, {"role": "assistant", "content": "b", "tool_calls": null}], "tools": null}"#,
        "\n",
        r#"{"messages": [{"role": "assistant", "content": null, "tool_calls": [{"name": "f", "arguments": {"x": 1, "y": 0.5, "z": true}}]}], "tools": [{"name": "f"}]}"#,
    );
    let same = read(&json::JSONL, text.as_bytes(), &["messages", "tools"])?;
    let cells = |table: Table| table.rows.into_iter().map(|r| r.cells).collect::<Vec<_>>();
    assert_eq!(cells(table), cells(same));
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

    /// Every row that was written is read, in order, or the file is an error.
    #[test]
    fn no_row_is_lost_or_made_up(
        rows in proptest::collection::vec(("[a-zäß,\"\t ]{0,12}(\n|\r\n)?[a-z]{0,3}", -5i64..5), 1..40),
        packing in 0..3,
    ) {
        let pack = |bytes: Vec<u8>| match packing {
            0 => bytes,
            1 => gzip(&bytes),
            _ => zstd::encode_all(bytes.as_slice(), 3).unwrap_or_default(),
        };
        let wanted = |number: fn(i64) -> Cell, clean: bool| -> Vec<Vec<Cell>> {
            let text = |text: &String| {
                if clean { text.replace(['\t', '\n', '\r'], " ") } else { text.clone() }
            };
            rows.iter().map(|(t, n)| vec![Cell::Text(text(t)), number(*n)]).collect()
        };
        let cells = |format, bytes| -> Result<Vec<Vec<Cell>>, DataError> {
            Ok(read(format, &pack(bytes), &["t", "n"])?.rows.into_iter().map(|row| row.cells).collect())
        };
        let as_text = |n: i64| Cell::Text(n.to_string());
        let mut writer = ::csv::Writer::from_writer(Vec::new());
        writer.write_record(["n", "t"])?;
        for (text, number) in &rows {
            writer.write_record([&number.to_string(), text])?;
        }
        let bytes = writer.into_inner().map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(cells(&csv::CSV, bytes), Ok(wanted(as_text, false)));
        let mut tsv = "t\tn\n".to_owned();
        for (text, number) in &rows {
            tsv.push_str(&format!("{}\t{number}\r\n", text.replace(['\t', '\n', '\r'], " ")));
        }
        prop_assert_eq!(cells(&tsv::TSV, tsv.into_bytes()), Ok(wanted(as_text, true)));
        let objects = rows.iter().map(|(t, n)| serde_json::json!({ "n": n, "t": t }));
        let objects: Vec<_> = objects.collect();
        let lines: Vec<String> = objects.iter().map(ToString::to_string).collect();
        for (format, text) in [
            (&json::JSONL, lines.join("\n")),
            (&json::JSON, lines.join("\n")),
            (&json::JSON, serde_json::Value::Array(objects.clone()).to_string()),
            (&json::JSON, serde_json::to_string_pretty(&objects)?),
        ] {
            prop_assert_eq!(cells(format, text.into_bytes()), Ok(wanted(Cell::Int, false)));
        }
    }

    /// What RFC 4180 allows is read as the `csv` crate reads it.
    #[test]
    fn csv_is_what_the_crate_reads(text in "((a|b|\"[ab,\n]{0,3}\"|\"\"\"\"),){1,2}(a|)(\n|\r\n|\r)") {
        let text = format!("x,y,z\n{text}a,b,c\n");
        let mut reader = ::csv::Reader::from_reader(text.as_bytes());
        let records: Result<Vec<_>, _> = reader.records().collect();
        let ours = read(&csv::CSV, text.as_bytes(), &["x", "y", "z"]);
        match records {
            Ok(records) => {
                let theirs: Vec<Vec<Cell>> =
                    records.iter().map(|r| r.iter().map(|c| Cell::Text(c.to_owned())).collect()).collect();
                let ours: Vec<_> = ours.map_err(|e| TestCaseError::fail(e.to_string()))?.rows.into_iter().map(|r| r.cells).collect();
                prop_assert_eq!(ours, theirs);
            }
            Err(_) => prop_assert!(ours.is_err()),
        }
    }

    /// A quote that is opened and not closed before the end of its cell is an error at its line, wherever it stands.
    #[test]
    fn an_open_quote_is_an_error_at_its_line(before in 0usize..30, after in 0usize..30, later in any::<bool>()) {
        let mut text = "label,text\n".to_owned();
        text.push_str(&"a,\"one, two\"\n".repeat(before));
        text.push_str("b,\"open\n");
        text.push_str(&"a,plain\n".repeat(after));
        if later {
            text.push_str("a,\"closed, and on\"\n");
        }
        let error = read(&csv::CSV, text.as_bytes(), &["text"]).map_err(|e| e.line);
        prop_assert_eq!(error.err(), Some(Some(before as u64 + 2)));
    }
}

/// Bytes packed with gzip.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let written = packed.write_all(bytes).and_then(|()| packed.finish());
    written.unwrap_or_default()
}

#[test]
fn a_single_column_keeps_its_empty_rows() -> Result<(), DataError> {
    for format in [&tsv::TSV, &csv::CSV] {
        let table = read(format, b"text\nA\n\nB\n\n\nC\n", &["text"])?;
        let cells: Vec<_> = table.rows.iter().map(|row| row.cells[0].clone()).collect();
        assert_eq!(
            cells,
            words(&["A", "", "B", "", "", "C"]),
            "{}",
            format.name
        );
        let lines: Vec<u64> = table.rows.iter().map(|row| row.line).collect();
        assert_eq!(lines, [2, 3, 4, 5, 6, 7]);
    }
    // Of two columns a blank line has none.
    let table = read(&csv::CSV, b"a,b\n\n1,2\n\n", &["a"])?;
    assert_eq!(table.rows.len(), 1);
    assert_eq!(table.rows[0].line, 3);
    Ok(())
}

#[test]
fn values_are_found_by_their_path() -> Result<(), DataError> {
    let text = r#"{"data": {"text": "x", "a.b": 1}, "list": [{"l": "p"}, "q"], "data.flat": "f", "none": null}"#;
    let columns = [
        "data.text",
        "list[0].l",
        "list.0.l",
        "list[1]",
        "data.flat",
        "none.deep",
    ];
    let table = read(&json::JSONL, text.as_bytes(), &columns)?;
    let mut wanted = words(&["x", "p", "p", "q", "f"]);
    wanted.push(Cell::Missing);
    assert_eq!(table.rows[0].cells, wanted);
    let wrong = |column: &str| shown(read(&json::JSONL, text.as_bytes(), &[column]));
    assert!(
        wrong("data.txt").contains("did you mean `data.text`"),
        "{}",
        wrong("data.txt")
    );
    assert!(wrong("list[7]").contains("the list has 2 elements"));
    assert!(wrong("data").contains("\"data.text\""));
    let nested = Cell::List(List {
        length: 2,
        cells: None,
        nested: serde_json::from_str::<serde_json::Value>(text)
            .ok()
            .and_then(|row| row.get("list").cloned()),
    });
    let own = read(&json::JSONL, text.as_bytes(), &["list"])?;
    assert_eq!(own.rows[0].cells, [nested]);
    assert!(wrong("data.text.more").contains("leads into a text"));
    assert_eq!(
        (json::JSONL.columns)(&Input::memory(text.as_bytes().to_vec(), "f"))?.len(),
        4
    );
    Ok(())
}

#[test]
fn a_json_file_is_an_array_or_objects() {
    let read = |text: &str| shown(read(&json::JSON, text.as_bytes(), &["a"]));
    for good in [
        "[{\"a\": \"}]\\\"\"}]",
        "\u{FEFF}[\n{\"a\": 1},\n{\"a\": [1][0]}\n]"
            .replace("[1][0]", "2")
            .as_str(),
        "{\"a\": 1}\n{\"a\": 2}",
        "{\n\"a\": 1\n}\n",
    ] {
        assert!(read(good).starts_with("Table"), "{good}: {}", read(good));
    }
    for (bad, why) in [
        ("[{\"a\": 1}, {\"a\": 2}", "the array is not closed"),
        ("[{\"a\": 1} {\"a\": 2}]", "a comma or `]` is missing"),
        ("[{\"a\": 1},]", "an element of the array is no object"),
        ("[1]", "an element of the array is no object"),
        ("[]", "the array is empty"),
        ("[{\"a\": 1}] x", "something stands behind the array"),
        ("\n{\"a\": 1", "f:2: the object here is not closed"),
        ("{\"a\": 1}, {\"a\": 2}", "what stands between the objects"),
        ("text", "neither an array nor an object"),
    ] {
        assert!(read(bad).contains(why), "{bad}: {}", read(bad));
    }
}
