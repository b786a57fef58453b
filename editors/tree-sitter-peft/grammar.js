// Recipes of peftc, for highlighting, folding and motions in editors. The reference is `grammar/recipe.pest`; a test holds this
// file to its words and rules (`tests/suite/editors.rs`). It is a little more permissive where the reference counts blanks.

const separated = ($, rule) => seq(rule, repeat(seq($._separator, rule)), optional($._separator));
// `true` is a value where it stands alone, and a word like any other elsewhere.
const word = $ => choice($.word, alias('true', $.word), alias('false', $.word));
const listed = (rule) => seq(rule, repeat(seq(',', rule)), optional(','));

module.exports = grammar({
  name: 'peft',

  // A line break is no blank: it separates.
  extras: $ => [/[ \t\r\uFEFF]/, $.comment],

  word: $ => $.word,

  conflicts: $ => [[$.key, $.segment]],

  rules: {
    source_file: $ => seq(
      optional($._breaks),
      optional(seq($._item, repeat(seq($._breaks, $._item)), optional($._breaks))),
    ),
    _item: $ => choice($.header, $.import, $.binding, $.declaration),

    header: $ => seq('peftc', $.version),
    version: $ => /[0-9]+/,
    import: $ => seq('import', $.string),
    binding: $ => seq('let', $.name, '=', $._value),
    declaration: $ => seq(
      field('keyword', $.keyword),
      field('name', $.name),
      choice(seq('=', $.constructor), $.block),
    ),
    keyword: $ => word($),
    constructor: $ => seq($.name, optional(choice($.string, $.texts)), optional($.block)),
    texts: $ => seq('[', listed($.string), ']'),

    block: $ => seq('{', optional($._breaks), optional(separated($, $.entry)), '}'),
    entry: $ => seq(field('key', $.key), '=', field('value', $._value)),
    key: $ => seq(word($), repeat(seq('.', word($)))),

    _value: $ => choice(
      $.string, $.boolean, $.number, $.list, $.map, $.settings, $.path_set, $.call, $.path,
    ),
    call: $ => seq($.name, choice(seq($.string, optional($.block)), $.block)),
    string: $ => seq('"', repeat(choice($.escape, token.immediate(prec(1, /[^"\\\n]+/)))), token.immediate('"')),
    escape: $ => token.immediate(/\\(u\{[0-9A-Fa-f]+\}|[^\n])/),
    boolean: $ => prec(1, choice('true', 'false')),
    number: $ => seq($.numeral, optional($.unit)),
    numeral: $ => /-?[0-9](_?[0-9])*(\.[0-9](_?[0-9])*)?([eE][+-]?[0-9](_?[0-9])*)?/,
    unit: $ => choice('%', word($)),
    list: $ => seq('[', optional($._breaks), optional(separated($, $._value)), ']'),
    map: $ => seq('{', optional($._breaks), optional(separated($, $.pair)), '}'),
    pair: $ => seq(field('key', choice($.string, $.numeral, $.name)), ':', field('value', $._value)),
    settings: $ => seq('{', optional($._breaks), separated($, $.entry), '}'),
    path_set: $ => seq('{', optional($._breaks), separated($, $.path), '}'),

    path: $ => seq(choice($.star, $.segment), repeat(seq('.', choice($.star, $.segment, $.alternatives)))),
    segment: $ => seq(word($), optional($.index)),
    star: $ => '*',
    alternatives: $ => seq('{', listed($.path), '}'),
    index: $ => seq('[', choice($.range, $.integer), ']'),
    range: $ => seq(optional($.integer), '..', optional($.integer)),
    integer: $ => /-?[0-9](_?[0-9])*/,

    name: $ => word($),
    word: $ => /[A-Za-z_][A-Za-z0-9_]*/,
    comment: $ => token(seq('#', /[^\n]*/)),

    _separator: $ => repeat1(choice(',', '\n')),
    _breaks: $ => repeat1('\n'),
  },
});
