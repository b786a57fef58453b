//! Data files that would cost much or never end.

use super::*;

/// Files that would take all memory or all time are refused, and soon.
#[test]
fn hostile_files_are_refused_soon() {
    let case = Case::new();
    let zeros = vec![0_u8; 80 << 20];
    let text = b"text,label\n".repeat(8 << 20);
    case.file("zeros.csv.gz", gzip(&zeros))
        .file(
            "bomb.csv.zst",
            zstd::encode_all(text.as_slice(), 1).expect("packed"),
        )
        .file(
            "line.tsv",
            format!("text\tlabel\n{}\t1\n", "x ".repeat(9 << 20)),
        )
        .file(
            "deep.json",
            "[{\"text\": ".to_owned() + &"[".repeat(1 << 20),
        )
        .file("commas.csv", ",".repeat(4 << 20))
        .file("noise.parquet", b"PAR1\xFF\xFF\xFF\x7FPAR1");
    let mut names = vec![
        "zeros.csv.gz",
        "bomb.csv.zst",
        "line.tsv",
        "deep.json",
        "commas.csv",
        "noise.parquet",
    ];
    if cfg!(unix) {
        let made = Command::new("mkfifo")
            .arg(case.path("pipe.csv"))
            .status()
            .expect("starts");
        assert!(made.success());
        names.extend(["pipe.csv", "/dev/zero"]);
    }
    for name in names {
        let format = if name == "/dev/zero" {
            ", format = csv"
        } else {
            ""
        };
        let begun = Instant::now();
        let (code, errors) = case.check(
            &format!("data d = local \"{name}\" {{ text = text, label = label{format} }}"),
            TRAIN,
        );
        assert_eq!((code, errors.len()), (2, 1), "{name}: {errors:#?}");
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{name} takes {:?}",
            begun.elapsed()
        );
        let message = errors[0]["message"].as_str().expect("a message");
        assert!(message.contains(name), "{message}");
    }
}
