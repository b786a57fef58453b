//! SQuAD's own files: articles with paragraphs, a context each, and questions about it.
//!
//! ```text
//! {"version": "1.1", "data": [{"title": …, "paragraphs": [{"context": …, "qas": [{"id": …, "question": …,
//!   "answers": [{"text": …, "answer_start": …}]}]}]}]}
//! ```
//!
//! A question is a row with the columns that the hub's data set has: `id`, `title`, `context`, `question`, `answers`. It is told by its number.

use std::fmt;
use std::io::BufRead;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::json::row;
use super::source::Input;
use super::{DataError, Format, RowRec};

/// Questions about paragraphs.
pub static SQUAD: Format = Format {
    name: "squad",
    extensions: &[],
    read,
    columns: |_| {
        Ok(["id", "title", "context", "question", "answers"]
            .map(str::to_owned)
            .to_vec())
    },
    class_names: |_, _| None,
};

#[derive(Deserialize)]
struct Article {
    #[serde(default)]
    title: String,
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    #[serde(default)]
    id: Value,
    question: String,
    #[serde(default)]
    answers: Vec<Answer>,
}

#[derive(Deserialize, Serialize)]
struct Answer {
    text: String,
    answer_start: i64,
}

/// What takes an article; whether it wants more.
type Each<'a> = &'a mut dyn FnMut(Article) -> Result<bool, DataError>;

/// The whole file, read an article at a time; what a row's reader says ends it.
struct File<'a, 'e> {
    each: Each<'a>,
    ended: &'e mut Option<Result<(), DataError>>,
}

struct Articles<'a, 'e>(File<'a, 'e>);

const ENDED: &str = "it is read no further";

impl<'de> DeserializeSeed<'de> for File<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for File<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `data`, as SQuAD's files have it")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let File { each, ended } = self;
        let mut any = false;
        while let Some(key) = map.next_key::<String>()? {
            if key == "data" {
                any = true;
                let (each, ended) = (&mut *each, &mut *ended);
                map.next_value_seed(Articles(File { each, ended }))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        match any {
            true => Ok(()),
            false => Err(serde::de::Error::custom("there is no key `data` in it")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Articles<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Articles<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of articles")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let File { each, ended } = self.0;
        while let Some(article) = list.next_element()? {
            let end = match each(article) {
                Ok(true) => continue,
                Ok(false) => Ok(()),
                Err(why) => Err(why),
            };
            *ended = Some(end);
            return Err(serde::de::Error::custom(ENDED));
        }
        Ok(())
    }
}

fn read(
    input: &Input,
    columns: &[String],
    each: &mut dyn FnMut(RowRec) -> bool,
) -> Result<(), DataError> {
    let mut number = 0;
    let mut ended = None;
    let mut of = |article: Article| -> Result<bool, DataError> {
        for paragraph in article.paragraphs {
            for asked in paragraph.qas {
                number += 1;
                let object = object(&article.title, &paragraph.context, asked);
                if !each(row(input, number, &object, columns)?) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    };
    let mut text = input.text()?;
    if text
        .fill_buf()
        .map_err(|error| input.unread(&error))?
        .is_empty()
    {
        return Err(DataError::empty(&input.file));
    }
    let mut from = serde_json::Deserializer::from_reader(text);
    let file = File {
        each: &mut of,
        ended: &mut ended,
    };
    let made = file.deserialize(&mut from).and_then(|()| from.end());
    match (ended, made) {
        (Some(ended), _) => ended,
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => Err(DataError::new(input.file.as_str(), format!("it is not as SQuAD's files are: {error}")).help(
            "a file of the format `squad` is {\"data\": [{\"paragraphs\": [{\"context\": \"…\", \"qas\": [{\"question\": \"…\", \"answers\": [{\"text\": \"…\", \
             \"answer_start\": 0}]}]}]}]}; rows with `question`, `context` and `answers` are `jsonl` or `json`",
        )),
    }
}

/// A question as the hub's data set has it.
fn object(title: &str, context: &str, asked: Question) -> Map<String, Value> {
    let texts: Vec<&str> = asked.answers.iter().map(|own| own.text.as_str()).collect();
    let starts: Vec<i64> = asked.answers.iter().map(|own| own.answer_start).collect();
    let mut object = Map::new();
    let answers = json!({ "text": texts, "answer_start": starts });
    object.insert("answers".to_owned(), answers);
    for (key, text) in [
        ("title", title),
        ("context", context),
        ("question", &asked.question),
    ] {
        object.insert(key.to_owned(), json!(text));
    }
    object.insert("id".to_owned(), asked.id);
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::data::Cell;

    fn rows(text: &str) -> Result<Vec<(u64, String)>, DataError> {
        let input = Input::memory(text.as_bytes().to_vec(), "q.json");
        let mut list = Vec::new();
        let columns = ["question", "answers.answer_start"].map(str::to_owned);
        (SQUAD.read)(&input, &columns, &mut |row| {
            let [Cell::Text(asked), Cell::List(starts)] = row.cells.as_slice() else {
                panic!("{row:?}")
            };
            list.push((row.line, format!("{asked} {}", starts.length)));
            true
        })?;
        Ok(list)
    }

    #[test]
    fn questions_are_read_one_by_one() {
        let file = r#"{"version": "v2.0", "data": [
            {"title": "A", "paragraphs": [{"qas": [{"question": "q", "id": "1", "answers": [{"text": "x", "answer_start": 3}], "is_impossible": false},
                {"question": "r", "id": "2", "answers": [], "plausible_answers": [{"text": "x", "answer_start": 3}]}], "context": "c"}]},
            {"paragraphs": [{"context": "d", "qas": [{"question": "s"}]}]}]}"#;
        let want = [(1, "q 1"), (2, "r 0"), (3, "s 0")];
        let want = want.map(|(line, text)| (line, text.to_owned()));
        assert_eq!(rows(file).expect("read"), want);
        for wrong in [
            "[]",
            "{}",
            r#"{"data": 1}"#,
            r#"{"data": [{}]}"#,
            r#"{"data": []"#,
            r#"{"data": []} x"#,
        ] {
            let said = rows(wrong).expect_err("refused");
            assert!(said.help.expect("a remedy").contains("squad"), "{wrong}");
        }
        let other = SQUAD.read;
        let input = Input::memory(file.as_bytes().to_vec(), "q.json");
        let said = other(&input, &["quest".to_owned()], &mut |_| true).expect_err("refused");
        assert!(
            said.to_string()
                .contains("q.json:1: there is no column `quest`"),
            "{said}"
        );
    }
}
