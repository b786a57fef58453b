//! Files out of proportion, damaged ones and such as are none.

use super::*;

#[test]
fn rows_and_packed_files_are_bounded() {
    let long = format!("text\tl\n{}\t1\n", "x".repeat(source::MOST_ROW + 1));
    for (format, bytes) in [
        (&tsv::TSV, long.clone()),
        (&csv::CSV, long.replace('\t', ",")),
        (
            &json::JSONL,
            format!("{{\"text\": \"{}\"}}", "x".repeat(source::MOST_ROW)),
        ),
        (
            &json::JSON,
            format!("[{{\"text\": \"{}\"}}]", "x".repeat(source::MOST_ROW)),
        ),
    ] {
        let error = shown(read(format, bytes.as_bytes(), &["text"]));
        assert!(
            error.contains("longer than 16 MiB"),
            "{}: {error}",
            format.name
        );
    }
    let wide = ",".repeat(1 << 20);
    assert!(shown(read(&csv::CSV, wide.as_bytes(), &["a"])).contains("more than 65536 cells"));
    // 80 MiB of one row again and again.
    let row = format!("{},b\n", "a".repeat(1020));
    let bomb = format!("a,b\n{}", row.repeat(80 << 10)).into_bytes();
    for packed in [
        gzip(&bomb),
        zstd::encode_all(bomb.as_slice(), 1).unwrap_or_default(),
    ] {
        let error = shown(read(&csv::CSV, &packed, &["a"]));
        assert!(error.contains("it unpacks to more than 64 MiB"), "{error}");
        assert!(shown(read(&csv::CSV, &packed[..packed.len() / 2], &["a"])).contains("f:"));
    }
}

/// A Parquet file of one column, packed with Zstandard.
fn packed_column(texts: &[ByteArray], numbers: &[i64]) -> Result<Vec<u8>, ParquetError> {
    use ::parquet::basic::{Compression, ZstdLevel};
    let kind = if numbers.is_empty() {
        "required binary t (UTF8);"
    } else {
        "required int64 t;"
    };
    let schema = Arc::new(parse_message_type(&format!("message m {{ {kind} }}"))?);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(texts.is_empty())
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    if let Some(mut column) = group.next_column()? {
        if numbers.is_empty() {
            let column = column.typed::<ByteArrayType>();
            column.write_batch(texts, None, None)?;
        } else {
            let column = column.typed::<Int64Type>();
            column.write_batch(numbers, None, None)?;
        }
        column.close()?;
    }
    group.close()?;
    writer.into_inner()
}

#[test]
fn parquet_files_out_of_proportion_are_refused() -> Result<(), ParquetError> {
    let of = |bytes: &[u8]| shown(read(&parquet::PARQUET, bytes, &["t"]));
    let good = packed_column(&[ByteArray::from("a text"), ByteArray::from("b")], &[])?;
    assert!(of(&good).starts_with("Table"), "{}", of(&good));
    let long = packed_column(&[ByteArray::from(vec![b'x'; 70 << 20])], &[])?;
    assert!(long.len() < 1 << 20);
    assert!(
        of(&long).contains("says that it unpacks to 70 MiB"),
        "{}",
        of(&long)
    );
    let many = packed_column(&[], &vec![7; 2_000_000])?;
    assert!(
        of(&many).contains("says that it has 2000000 rows"),
        "{} {}",
        many.len(),
        of(&many)
    );
    let row = packed_column(&[ByteArray::from(vec![b'x'; (17 << 20) + 1])], &[])?;
    assert!(of(&row).contains("longer than 16 MiB"), "{}", of(&row));
    Ok(())
}

#[test]
fn a_file_that_shrinks_is_an_error() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("a.tsv");
    std::fs::write(&path, "a\tb\n".repeat(200_000))?;
    let input = Input::open(&path, &crate::cli::world::RealWorld::new(true))?;
    let mut rows = 0;
    let read = (tsv::TSV.read)(&input, &names(&["a"]), &mut |_| {
        rows += 1;
        if rows == 1 {
            let file = std::fs::OpenOptions::new().write(true).open(&path);
            let _ = file.and_then(|file| file.set_len(1000));
        }
        true
    });
    let error = read.err().ok_or("the end of the file was not missed")?;
    assert!(error.message.contains("became shorter"), "{error}");
    Ok(())
}

#[cfg(unix)]
#[test]
fn devices_pipes_and_directories_are_no_files() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let pipe = dir.path().join("pipe.tsv");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status()?;
    assert!(made.success());
    let world = crate::cli::world::RealWorld::new(true);
    for (path, why) in [
        (Path::new("/dev/zero"), "a pipe or a device"),
        (pipe.as_path(), "a pipe or a device"),
        (dir.path(), "this is a directory"),
    ] {
        let error = Input::open(path, &world).err().ok_or("it was opened")?;
        assert!(error.message.contains(why), "{error}");
    }
    Ok(())
}
