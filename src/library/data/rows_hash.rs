//! What rows are known again by: their texts and the names of their labels, whatever the order of the rows and of the
//! classes, and whatever the format of the files.

use super::set::{Example, Label};

/// The hash of some rows, which their order does not change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowsHash {
    sum: [u64; 4],
    rows: u64,
}

impl RowsHash {
    /// The hash of one row, whose class is a place in `classes`.
    #[must_use]
    pub fn of(example: &Example, classes: &[String]) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(&(example.texts.len() as u64).to_le_bytes());
        example.texts.iter().for_each(|text| part(text.as_bytes()));
        match &example.label {
            None => part(b"none"),
            Some(Label::Class(at)) => {
                part(b"class");
                let name = classes.get(*at as usize);
                part(name.map_or(&[][..], |name| name.as_bytes()));
            }
            Some(Label::Classes(list)) => {
                part(b"classes");
                let mut names: Vec<&str> = list
                    .iter()
                    .map(|at| classes.get(*at as usize).map_or("", String::as_str))
                    .collect();
                // In the order of the classes they would be other rows where the classes are in another.
                names.sort_unstable();
                names.iter().for_each(|name| part(name.as_bytes()));
            }
            Some(Label::Each(list)) => {
                part(b"each");
                for at in list {
                    part(
                        classes
                            .get(*at as usize)
                            .map_or(&[][..], |name| name.as_bytes()),
                    );
                }
            }
            Some(Label::Score(score)) => {
                part(b"score");
                part(&score.to_bits().to_le_bytes());
            }
        }
        if example.task > 0 {
            part(b"task");
            part(&example.task.to_le_bytes());
        }
        let hash = hasher.finalize();
        let mut sum = [0; 4];
        for (to, bytes) in sum.iter_mut().zip(hash.as_bytes().as_chunks::<8>().0) {
            *to = u64::from_le_bytes(*bytes);
        }
        Self { sum, rows: 1 }
    }

    /// Takes in other rows.
    pub fn add(&mut self, other: &Self) {
        for (to, from) in self.sum.iter_mut().zip(other.sum) {
            *to = to.wrapping_add(from);
        }
        self.rows += other.rows;
    }

    /// The hash in hexadecimal.
    #[must_use]
    pub fn hex(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.rows.to_le_bytes());
        for part in self.sum {
            hasher.update(&part.to_le_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(texts: &[&str], label: Option<Label>) -> Example {
        Example {
            spoken: false,
            texts: texts.iter().map(|t| (*t).to_owned()).collect(),
            label,
            task: 0,
            row: 0,
        }
    }

    fn all(rows: &[(&[&str], u32)], classes: &[&str]) -> String {
        let classes: Vec<String> = classes.iter().map(|c| (*c).to_owned()).collect();
        let mut sum = RowsHash::default();
        for (texts, class) in rows {
            sum.add(&RowsHash::of(
                &row(texts, Some(Label::Class(*class))),
                &classes,
            ));
        }
        sum.hex()
    }

    #[test]
    fn neither_the_order_of_rows_nor_that_of_classes_counts() {
        let own = all(&[(&["a"], 0), (&["b"], 1), (&["b"], 1)], &["x", "y"]);
        assert_eq!(
            own,
            all(&[(&["b"], 0), (&["a"], 1), (&["b"], 0)], &["y", "x"])
        );
        for other in [
            all(&[(&["a"], 0), (&["b"], 1)], &["x", "y"]),
            all(&[(&["a"], 1), (&["b"], 1), (&["b"], 1)], &["x", "y"]),
            all(&[(&["a"], 0), (&["b"], 1), (&["c"], 1)], &["x", "y"]),
            all(&[(&["a"], 0), (&["b"], 1), (&["b"], 1)], &["x", "z"]),
            all(&[(&["a", ""], 0), (&["b"], 1), (&["b"], 1)], &["x", "y"]),
        ] {
            assert_ne!(own, other);
        }
        let hash = |label| RowsHash::of(&row(&["a"], label), &[]).hex();
        assert_ne!(hash(None), hash(Some(Label::Score(0.0))));
        assert_ne!(hash(Some(Label::Score(1.0))), hash(Some(Label::Score(0.0))));
    }
}
