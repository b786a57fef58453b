//! The tokenizer `13a` of WMT's `mteval-v13a`, as sacrebleu has it.

/// Characters that are words of their own wherever they are.
const fn alone(c: char) -> bool {
    matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/')
}

/// Puts spaces around what `found` finds: a character, and the one behind it. It says what to write for both.
fn pass(text: &[char], found: impl Fn(char, char) -> Option<[&'static str; 3]>) -> Vec<char> {
    let (mut out, mut i) = (Vec::with_capacity(text.len() * 2), 0);
    while let Some(&a) = text.get(i) {
        match text.get(i + 1).and_then(|&b| Some((b, found(a, b)?))) {
            Some((b, [before, between, behind])) => {
                out.extend(before.chars());
                out.push(a);
                out.extend(between.chars());
                out.push(b);
                out.extend(behind.chars());
                i += 2;
            }
            None => {
                out.push(a);
                i += 1;
            }
        }
    }
    out
}

/// The words of a text: punctuation apart, but for points and commas between digits.
pub(in super::super) fn thirteen_a(text: &str) -> Vec<String> {
    let line = text.trim_end().replace("<skipped>", "").replace("-\n", "");
    let line = line.replace('\n', " ");
    let line = line
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">");
    let mut spaced = vec![' '];
    for c in line.chars() {
        if alone(c) {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    spaced.push(' ');
    let (digit, point) = (|c: char| c.is_ascii_digit(), |c| matches!(c, '.' | ','));
    let spaced = pass(&spaced, |a, b| {
        (!digit(a) && point(b)).then_some(["", " ", " "])
    });
    let spaced = pass(&spaced, |a, b| {
        (point(a) && !digit(b)).then_some([" ", " ", ""])
    });
    let spaced = pass(&spaced, |a, b| {
        (digit(a) && b == '-').then_some(["", " ", " "])
    });
    let spaced: String = spaced.into_iter().collect();
    super::words(&spaced)
        .into_iter()
        .map(str::to_owned)
        .collect()
}
