//! Rows come back as they were, in every pair of formats.

use std::io::{Cursor, Write};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;

/// A place to write to that can be looked at.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("whole").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn rows_of(
    bytes: &[u8],
    format: Format,
    only: Option<&[String]>,
) -> Result<Vec<Record>, DataError> {
    let opened = if format == Format::Parquet {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        Opened {
            format,
            guessed: false,
            input: Input::File(file),
        }
    } else {
        open_stream(
            Box::new(Cursor::new(bytes.to_vec())),
            Some(format),
            Format::Tsv,
            "f",
        )?
    };
    let mut rows = opened.rows("f", only)?;
    let mut list = Vec::new();
    while let Some(row) = rows.next() {
        list.push(row?);
    }
    Ok(list)
}

fn added() -> Vec<Added> {
    vec![
        Added {
            name: "prediction".to_owned(),
            number: false,
        },
        Added {
            name: "probability".to_owned(),
            number: true,
        },
    ]
}

/// What a table becomes when a prediction is added to each row, in parts of `part` rows.
fn labelled(bytes: &[u8], from: Format, to: Format, part: usize) -> Result<Vec<u8>, String> {
    let page = Page::default();
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("written");
    let source = (from == to && from == Format::Parquet).then_some(file);
    let records = rows_of(bytes, from, None).map_err(|e| e.to_string())?;
    let columns: Option<Vec<String>> = match from {
        Format::Jsonl => None,
        _ => Some(columns_of(&records)),
    };
    let said = |e: Unwritten| match e {
        Unwritten::Row(e) => e.to_string(),
        Unwritten::Output(e) => e.to_string(),
    };
    let out = Box::new(page.clone());
    let mut sink = sink(to, out, columns.as_deref(), added(), source, "f").map_err(said)?;
    for part in records.chunks(part) {
        let values = part
            .iter()
            .map(|r| vec![Json::from(format!("class, {}", r.row)), Json::from(0.5)])
            .collect();
        sink.write(part, values).map_err(said)?;
    }
    sink.finish().map_err(said)?;
    let bytes = page.0.lock().expect("whole").clone();
    Ok(bytes)
}

const ALL: [Format; 4] = [Format::Csv, Format::Tsv, Format::Jsonl, Format::Parquet];

#[test]
fn rows_come_back_in_every_pair_of_formats() {
    let jsonl = "{\"text\":\"a, \\\"b\\\"\",\"n\":12345678901234567,\"x\":1.10,\"ok\":true,\"none\":null}\n\
                 {\"text\":\"\",\"n\":-1,\"x\":2.5,\"ok\":false,\"none\":null}\n\
                 {\"text\":\"ünï\",\"n\":0,\"x\":-3.25,\"ok\":true,\"none\":null}\n";
    for from in ALL {
        let start = labelled(jsonl.as_bytes(), Format::Jsonl, from, 2).expect("written");
        let start = String::from_utf8_lossy(&start)
            .replace("prediction", "before")
            .replace("probability", "at");
        let bytes = if from == Format::Parquet {
            let renamed = jsonl.to_owned();
            parquet_of(&renamed)
        } else {
            start.into_bytes()
        };
        for to in ALL {
            let made = labelled(&bytes, from, to, 2).expect("written");
            let rows = rows_of(&made, to, None).expect("read");
            assert_eq!(rows.len(), 3, "{from:?} {to:?}");
            for (row, text) in rows.iter().zip(["a, \"b\"", "", "ünï"]) {
                assert_eq!(row.fields["text"], text, "{from:?} {to:?}");
                assert_eq!(row.fields["prediction"], format!("class, {}", row.row));
            }
            if matches!(
                (from, to),
                (
                    Format::Jsonl | Format::Parquet,
                    Format::Jsonl | Format::Parquet
                )
            ) {
                assert_eq!(rows[0].fields["n"], 12345678901234567_i64);
                assert_eq!(rows[0].fields["ok"], true);
                assert_eq!(rows[2].fields["x"], -3.25);
            }
        }
    }
    // The bytes of an object stay as they are.
    let same = labelled(jsonl.as_bytes(), Format::Jsonl, Format::Jsonl, 1).expect("written");
    let same = String::from_utf8(same).expect("text");
    assert!(same.starts_with("{\"text\":\"a, \\\"b\\\"\",\"n\":12345678901234567,\"x\":1.10,"));
}

fn parquet_of(jsonl: &str) -> Vec<u8> {
    let page = Page::default();
    let records = rows_of(jsonl.as_bytes(), Format::Jsonl, None).expect("read");
    let mut sink = sink(
        Format::Parquet,
        Box::new(page.clone()),
        None,
        Vec::new(),
        None,
        "f",
    )
    .expect("begun");
    for part in records.chunks(2) {
        assert!(sink.write(part, vec![Vec::new(); part.len()]).is_ok());
    }
    assert!(sink.finish().is_ok());
    page.0.lock().expect("whole").clone()
}

#[test]
fn blank_lines_are_rows_where_there_is_one_column() {
    for format in [Format::Tsv, Format::Csv] {
        for end in ["\n", "\r\n"] {
            let text = [
                "text",
                "A splendid film.",
                "",
                "Dull.",
                "",
                "",
                "Great fun.",
                "",
            ]
            .join(end);
            let rows = rows_of(text.as_bytes(), format, None).expect("read");
            assert_eq!(rows.len(), 6, "{format:?} {end:?}");
            let empty = rows.iter().filter(|r| r.fields["text"] == "").count();
            assert_eq!(empty, 3);
        }
    }
    let rows = rows_of(b"text\tid\na\t1\n\t2\n\nc\t3\n", Format::Tsv, None).expect("read");
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[1].fields["text"], "");
}

#[test]
fn what_cannot_be_read_has_its_place() {
    for (text, format, said) in [
        ("text,n\na,1\n\"b,2\nc,3\n", Format::Csv, "line 3"),
        ("text,n\na,1\nb\n", Format::Csv, "row 2: 1 cells"),
        ("text\tn\na\t1\nb\n", Format::Tsv, "f:3: 1 cells"),
        (
            "{\"a\": 1}\n[1]\n",
            Format::Jsonl,
            "f:2: this is no JSON object",
        ),
        ("a,a\n1,2\n", Format::Csv, "two columns are named `a`"),
        ("", Format::Csv, "empty"),
        ("", Format::Tsv, "empty"),
    ] {
        let error = rows_of(text.as_bytes(), format, None).expect_err(text);
        assert!(error.to_string().contains(said), "{text:?}: {error}");
    }
    let tsv = "text\tn\na\t1\nb\t2\n".as_bytes();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(tsv).expect("packed");
    let gzip = packer.finish().expect("packed");
    let zstd = zstd::encode_all(tsv, 3).expect("packed");
    for packed in [gzip, zstd] {
        assert_eq!(rows_of(&packed, Format::Tsv, None).expect("read").len(), 2);
        let cut = packed.get(..packed.len() - 6).unwrap_or_default();
        assert!(rows_of(cut, Format::Tsv, None).is_err(), "cut short");
    }
    assert_eq!(Format::of(Path::new("a.csv.gz")), Some(Format::Csv));
    assert_eq!(Format::of(Path::new("a.gz")), None);
    let list = Box::new(Cursor::new("[{\"a\": 1}]"));
    let error = open_stream(list, None, Format::Tsv, "f").expect_err("a list");
    assert!(error.to_string().contains("JSON list"), "{error}");
    let error = rows_of(b"text\n\xFF\n", Format::Tsv, None).expect_err("no text");
    assert!(
        error.to_string().contains("f:2: this is not UTF-8"),
        "{error}"
    );
    assert!(rows_of(b"PAR1 and no more", Format::Parquet, None).is_err());
}

#[test]
fn what_cannot_be_written_is_refused() {
    let tab = "{\"text\": \"a\\tb\"}\n";
    let error = labelled(tab.as_bytes(), Format::Jsonl, Format::Tsv, 9).expect_err("a tab");
    assert!(error.contains("row 1") && error.contains("tab"), "{error}");
    for to in ALL {
        let error = labelled(b"{\"prediction\": 1}\n", Format::Jsonl, to, 9).expect_err("taken");
        assert!(error.contains("`prediction` already"), "{to:?}: {error}");
    }
    let late = "{\"text\": \"a\"}\n{\"text\": \"b\", \"more\": 1}\n";
    let error = labelled(late.as_bytes(), Format::Jsonl, Format::Csv, 1).expect_err("late");
    assert!(error.contains("row 2: it has `more`"), "{error}");
    assert!(labelled(late.as_bytes(), Format::Jsonl, Format::Jsonl, 1).is_ok());
}

#[test]
fn formats_are_told_by_their_first_bytes() {
    for (head, format) in [
        ("{\"a\": 1}\n", Some(Format::Jsonl)),
        ("a\tb\n", Some(Format::Tsv)),
        ("a,b\n", Some(Format::Csv)),
        ("a b\n1,2\n", None),
        ("PAR1", Some(Format::Parquet)),
        ("", None),
    ] {
        assert_eq!(Format::guess(head.as_bytes()), format, "{head:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// As many rows as were written, with their cells, through any format that can say them.
    #[test]
    fn no_row_is_lost_or_made(
        cells in prop::collection::vec(("[ -~\n\r\t\"',;äß]{0,12}", "[a-z\"\n,]{0,4}"), 0..40),
        to in prop::sample::select(ALL.to_vec()),
        one in any::<bool>(),
    ) {
        let mut jsonl = String::new();
        for (a, b) in &cells {
            let fields = if one { serde_json::json!({ "a": a }) } else { serde_json::json!({ "a": a, "b": b }) };
            jsonl.push_str(&format!("{fields}\n"));
        }
        let sayable = |text: &str| !text.contains(['\t', '\n', '\r']);
        match labelled(jsonl.as_bytes(), Format::Jsonl, to, 7) {
            Ok(bytes) => {
                let rows = rows_of(&bytes, to, None).unwrap_or_default();
                prop_assert_eq!(rows.len(), cells.len());
                for (row, (a, b)) in rows.iter().zip(&cells) {
                    prop_assert_eq!(&row.fields["a"], a);
                    prop_assert!(one || row.fields["b"] == *b);
                }
            }
            Err(why) => {
                let all = cells.iter().all(|(a, b)| sayable(a) && (one || sayable(b)));
                prop_assert!(to == Format::Tsv && !all, "{}", why);
            }
        }
    }

    /// Whatever the bytes are, there are rows or an error.
    #[test]
    fn any_bytes_give_rows_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), format in prop::sample::select(ALL.to_vec())) {
        let _ = rows_of(&bytes, format, None);
    }
}
