//! Where the grammar stopped, in words for people.

use pest::error::{ErrorVariant, InputLocation};

use super::super::blame::Stop;
use super::generated::Rule;

/// What the grammar says about where it stopped while it read a text as `whole`, in words.
pub(super) fn stop_of(error: &pest::error::Error<Rule>, whole: Rule) -> Stop {
    let at = match error.location {
        InputLocation::Pos(at) | InputLocation::Span((at, _)) => at,
    };
    let rules = match &error.variant {
        ErrorVariant::ParsingError { positives, .. } => positives.as_slice(),
        ErrorVariant::CustomError { .. } => &[],
    };
    // Where `true` may stand, any value may; the kinds of values would be a long list.
    let value = rules.contains(&Rule::boolean);
    let names = rules
        .iter()
        .filter(|rule| !(value && starts_value(**rule)))
        .filter_map(|rule| human_name(*rule));
    let ended = whole == Rule::lone_entry && rules.contains(&Rule::EOI);
    Stop {
        at,
        expected: names.chain(value.then_some("a value")).collect(),
        equals: rules.contains(&Rule::equals),
        separator: ended
            || rules
                .iter()
                .any(|rule| matches!(rule, Rule::separator | Rule::slot_end)),
    }
}

const fn starts_value(rule: Rule) -> bool {
    matches!(
        rule,
        Rule::string
            | Rule::boolean
            | Rule::number
            | Rule::numeral
            | Rule::list
            | Rule::map
            | Rule::path_set
            | Rule::settings
            | Rule::call
            | Rule::constructor
            | Rule::name
            | Rule::path
            | Rule::segment
            | Rule::star
    )
}

/// What people call a rule; `None` for rules that say nothing to them.
const fn human_name(rule: Rule) -> Option<&'static str> {
    Some(match rule {
        Rule::file | Rule::lone_item | Rule::item | Rule::keyword => {
            "an item such as `stage NAME = train { … }`"
        }
        Rule::lone_value | Rule::value | Rule::call => "a value",
        Rule::header | Rule::kw_peftc => "`peftc 1`",
        Rule::version => "the number of a version",
        Rule::import | Rule::kw_import => "`import`",
        Rule::binding | Rule::kw_let => "`let`",
        Rule::declaration => "a declaration",
        Rule::name | Rule::word | Rule::segment_name => "a name",
        Rule::constructor => "a constructor such as `train { … }`",
        Rule::block => "`{`",
        Rule::lone_entry | Rule::slot | Rule::entry => "an entry `key = value`",
        Rule::key => "a key",
        Rule::string | Rule::string_body => "a string",
        Rule::boolean => "`true` or `false`",
        Rule::number | Rule::numeral | Rule::digits => "a number",
        Rule::list => "a list",
        Rule::map => "a map",
        Rule::pair => "a pair `key: value`",
        Rule::map_key => "the key of a pair",
        Rule::path_set => "a set of paths",
        Rule::settings => "a block `{ key = value }`",
        Rule::texts => "a list of strings",
        Rule::path | Rule::segment => "a path",
        Rule::star => "`*`",
        Rule::alternatives => "`{`",
        Rule::index => "`[`",
        Rule::range => "a range",
        Rule::first | Rule::last | Rule::integer => "a whole number",
        Rule::equals => "`=`",
        Rule::colon => "`:`",
        Rule::close_brace => "`}`",
        Rule::close_bracket => "`]`",
        Rule::separator | Rule::slot_end => "`,` or a new line",
        Rule::line_end | Rule::EOI => "the end of the line",
        // A unit may follow any number, so saying so helps nobody.
        Rule::unit
        | Rule::inner_break
        | Rule::WHITESPACE
        | Rule::COMMENT
        | Rule::reserved
        | Rule::word_char
        | Rule::blank
        | Rule::junk_entry
        | Rule::junk_item
        | Rule::group
        | Rule::inside
        | Rule::quoted
        | Rule::remark
        | Rule::item_head
        | Rule::sure_head => return None,
    })
}
