//! What is seen of a row once it is tokens: what is learned of it, and what is doubtful about it.

use super::{Each, Read};
use crate::library::counts::to_u32;
use crate::library::data::form::{Form, Learn, Supervision};
use crate::library::data::report::{Sight, Tokens};
use crate::library::data::set::Example;
use crate::library::tokenizer::Encoded;

impl Each<'_> {
    /// What of a row is learned.
    pub(super) fn supervision(&self, reads: &[Read]) -> Supervision {
        if self.want.rows.learn == Learn::Nothing {
            return Supervision::default();
        }
        let empty = reads.iter().any(|read| read.learned.is_empty());
        if empty && self.want.task.skips_empty() {
            return Supervision {
                skipped: 1,
                ..Supervision::default()
            };
        }
        let mut sum = Supervision::default();
        let (mut cut, mut ended) = (false, true);
        for (part, read) in reads.iter().enumerate() {
            let own = self.supervised(read);
            // Nothing is learned of an answer behind another row's prompt.
            if self.want.task.mismatches() && part % 2 == 1 {
                sum.tokens += own.tokens;
                continue;
            }
            cut |= own.cut > 0;
            ended &= own.ended > 0;
            sum.add(&own);
            let other = part > 0 && self.want.rows.form == Form::Preference;
            sum.rejected += if other { own.learned } else { 0 };
        }
        // A row with two answers is one.
        Supervision {
            rows: 1,
            cut: u64::from(cut),
            ended: u64::from(ended),
            ..sum
        }
    }

    /// What of one of its sequences is learned.
    pub(super) fn supervised(&self, read: &Read) -> Supervision {
        let learned = read
            .learned
            .iter()
            .map(|r| u64::from(r.end - r.start))
            .sum();
        let last = read.learned.last().cloned().unwrap_or_default();
        let last = read.encoded.ids.get(last.start as usize..last.end as usize);
        let ended = self
            .tokenizer
            .is_ended(last.unwrap_or_default(), &self.special);
        Supervision {
            rows: 1,
            tokens: read.encoded.ids.len() as u64,
            learned,
            cut: u64::from(read.encoded.uncut > read.encoded.ids.len()),
            lost: u64::from(read.lost),
            ended: u64::from(ended),
            skipped: 0,
            rejected: 0,
        }
    }

    /// What is to be seen of an example and of the tokens it became.
    pub(super) fn sight(&self, example: &Example, encoded: &Encoded) -> Sight {
        let is_special = |id: &u32| self.special.binary_search(id).is_ok();
        let unknown = encoded.ids.iter().filter(|id| Some(**id) == self.unknown);
        let unknown = unknown.count();
        let others = encoded.ids.iter().filter(|id| {
            // The unknown token is a special one, too, and stands for a part of the text.
            !is_special(id) && Some(**id) != self.unknown
        });
        let seen = Sight::of(example);
        // A conversation is JSON here: what it says is seen of its tokens.
        let is_text = self.want.rows.form != Form::Messages && !example.spoken;
        Sight {
            empty: seen.empty && is_text,
            null: seen.null && is_text,
            tokens: Some(Tokens {
                uncut: to_u32(encoded.uncut),
                read: to_u32(others.count() + unknown),
                unknown: to_u32(unknown),
                cut: encoded.uncut > encoded.ids.len(),
            }),
            ..seen
        }
    }
}
