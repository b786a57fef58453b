//! What a prompt is chosen from (method P3): templates, and for each class several words. A candidate
//! is a template with one word for each class, no two classes having the same.

use super::prompt::Template;

/// Most candidates of one choice.
pub const MOST: u64 = 100_000;

/// A word and its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// As written.
    pub text: String,
    /// Its id in the model's vocabulary.
    pub token: u32,
}

/// Templates and words to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// The templates; each has a mask.
    pub templates: Vec<Template>,
    /// The classes.
    pub classes: Vec<String>,
    /// The words of each class.
    pub words: Vec<Vec<Word>>,
}

/// A template and a word for each class, as texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The template as written.
    pub template: String,
    /// Class and word, for every class.
    pub words: Vec<(String, String)>,
}

impl Candidates {
    /// Every token that is scored, each once.
    #[must_use]
    pub fn tokens(&self) -> Vec<u32> {
        let mut list = Vec::new();
        for word in self.words.iter().flatten() {
            if !list.contains(&word.token) {
                list.push(word.token);
            }
        }
        list
    }

    /// Every way to give each class one of its words, distinct ones: for each class the place of its
    /// word in its list. The last class changes first.
    pub fn assignments(&self) -> impl Iterator<Item = Vec<usize>> + '_ {
        (0..self.products()).filter_map(|number| {
            let mut rest = number;
            let mut places = Vec::with_capacity(self.words.len());
            for list in self.words.iter().rev() {
                let n = list.len().max(1) as u64;
                places.push((rest % n) as usize);
                rest /= n;
            }
            places.reverse();
            let tokens = self.tokens_of(&places)?;
            let distinct = tokens
                .iter()
                .enumerate()
                .all(|(i, t)| tokens.iter().skip(i + 1).all(|other| other != t));
            distinct.then_some(places)
        })
    }

    /// Combinations of words, those with one word for two classes included.
    #[must_use]
    pub fn products(&self) -> u64 {
        self.words
            .iter()
            .fold(1, |n: u64, list| n.saturating_mul(list.len() as u64))
    }

    /// Number of candidates; no more than [`MOST`] combinations are looked at.
    #[must_use]
    pub fn count(&self) -> u64 {
        let words = self.assignments().take(MOST as usize).count() as u64;
        words * self.templates.len() as u64
    }

    /// The tokens of an assignment.
    #[must_use]
    pub fn tokens_of(&self, places: &[usize]) -> Option<Vec<u32>> {
        let pairs = self.words.iter().zip(places);
        pairs.map(|(list, &at)| Some(list.get(at)?.token)).collect()
    }

    /// A candidate as texts.
    #[must_use]
    pub fn chosen(&self, template: usize, places: &[usize]) -> Option<Chosen> {
        let words = self.classes.iter().zip(&self.words).zip(places);
        Some(Chosen {
            template: self.templates.get(template)?.source.clone(),
            words: words
                .map(|((class, list), &at)| Some((class.clone(), list.get(at)?.text.clone())))
                .collect::<Option<_>>()?,
        })
    }

    /// The place of a chosen template, and the token of each class's chosen word; `None` if it is not
    /// among the candidates.
    #[must_use]
    pub fn find(&self, chosen: &Chosen) -> Option<(usize, Vec<u32>)> {
        let of = |t: &Template| t.source == chosen.template;
        let template = self.templates.iter().position(of)?;
        let token = |(class, list): (&String, &Vec<Word>)| {
            let (_, word) = chosen.words.iter().find(|(c, _)| c == class)?;
            Some(list.iter().find(|w| w.text == *word)?.token)
        };
        let tokens = self.classes.iter().zip(&self.words).map(token);
        Some((template, tokens.collect::<Option<_>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str, token: u32) -> Word {
        Word {
            text: text.to_owned(),
            token,
        }
    }

    #[test]
    fn no_two_classes_get_one_word() {
        let candidates = Candidates {
            templates: vec![Template::parse("{a} {mask}").expect("parses")],
            classes: vec!["no".into(), "yes".into()],
            words: vec![
                vec![word("bad", 7), word("so", 9)],
                vec![word("so", 9), word("good", 8)],
            ],
        };
        assert_eq!(candidates.tokens(), [7, 9, 8]);
        let all: Vec<_> = candidates.assignments().collect();
        assert_eq!(all, [[0, 0], [0, 1], [1, 1]]);
        assert_eq!(candidates.count(), 3);
        let chosen = candidates.chosen(0, &[1, 1]).expect("a candidate");
        assert_eq!(chosen.words[0], ("no".to_owned(), "so".to_owned()));
        assert_eq!(candidates.find(&chosen), Some((0, vec![9, 8])));
        let other = Chosen {
            template: "x".into(),
            ..chosen
        };
        assert_eq!(candidates.find(&other), None);
    }
}
