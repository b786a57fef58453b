//! Data files from strangers: every reader, on bytes that are nearly right, gives rows or an error.

use std::path::Path;

use peftc::library::data::FORMATS;
use peftc::library::tokenizer::{Tokenizer, TokenizerFiles};
use proptest::prelude::*;

fn read_all(bytes: &[u8]) {
    for columns in [&["a"][..], &["a", "label"], &["label", "a"], &["a", "a"]] {
        let columns: Vec<String> = columns.iter().map(|c| (*c).to_owned()).collect();
        for format in FORMATS {
            match (format.read)(bytes, "x", &columns) {
                Ok(table) => assert!(table.rows.iter().all(|row| row.cells.len() == columns.len() && row.line > 0)),
                Err(error) => assert!(!error.message.is_empty()),
            }
        }
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_reader_panics_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read_all(&bytes);
    }

    #[test]
    fn no_reader_panics_on_near_misses(text in "[a{}:,\"\\[\\]\t\n\r0-9.é]{0,60}") {
        for header in ["a\tlabel\n", "a,label\n", "\u{feff}a,label\r\n", "{\"a\": \"x\", \"label\": 1}\n", ""] {
            read_all(format!("{header}{text}").as_bytes());
        }
    }

    #[test]
    fn tokens_are_ids_of_the_vocabulary_and_fit(text in "\\PC{0,120}", pair in proptest::option::of("\\PC{0,60}"), most in 4usize..40) {
        for name in ["bert-tiny", "roberta-tiny", "distilbert-tiny"] {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name);
            let get = |file: &str| std::fs::read(dir.join(file)).ok();
            let tokenizer = Tokenizer::from_files(&TokenizerFiles { dir_name: name.to_owned(), get: &get }).expect("loads");
            let texts: Vec<String> = std::iter::once(text.clone()).chain(pair.clone()).collect();
            let encoded = tokenizer.encode(&texts, most).expect("encodes");
            prop_assert!(encoded.ids.len() <= most && encoded.ids.len() == encoded.segments.len());
            prop_assert!(encoded.ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        }
    }
}
