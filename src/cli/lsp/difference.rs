//! What of a text is to be replaced to make another one of it.

/// The bytes in which two texts differ, as whole lines, and what stands there in the second.
pub(super) fn difference<'a>(old: &str, new: &'a str) -> (usize, usize, &'a str) {
    let lines = |text: &str| text.split_inclusive('\n').map(str::len).collect::<Vec<_>>();
    let same = old.split_inclusive('\n').zip(new.split_inclusive('\n'));
    let start: usize = same.take_while(|(a, b)| a == b).map(|(a, _)| a.len()).sum();
    let (a, b) = (
        old.get(start..).unwrap_or_default(),
        new.get(start..).unwrap_or_default(),
    );
    let (mut left, mut right) = (a.len(), b.len());
    for (one, other) in lines(a).iter().rev().zip(lines(b).iter().rev()) {
        let (x, y) = (a.get(left - one..left), b.get(right - other..right));
        if x != y {
            break;
        }
        left -= one;
        right -= other;
    }
    (start, start + left, b.get(..right).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_replaced() {
        for (old, new) in [
            ("a\nb\nc\n", "a\nx\nc\n"),
            ("a\nb", "a\nb\n"),
            ("", "a\n"),
            ("a\n", "a\n"),
            ("a\na\na\n", "a\n"),
            ("ü\n\nü\n", "ü\nü\n"),
        ] {
            let (start, end, with) = difference(old, new);
            assert_eq!(format!("{}{with}{}", &old[..start], &old[end..]), new);
        }
        assert_eq!(difference("a\nb\nc\n", "a\nx\nc\n"), (2, 4, "x\n"));
    }
}
