//! Splits a command line into words and joins words into a command line.

/// Splits at white space. `'…'` and `"…"` quote text, and outside `'…'` a `\` quotes the next
/// character.
///
/// # Errors
/// A quote is not closed, or the line ends in a backslash.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => {
                let next = letters.next().ok_or("the command line ends in a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (_, Some(open)) if letter == open => quote = None,
            (_, Some(_)) => word.get_or_insert_default().push(letter),
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (_, None) if letter.is_whitespace() => words.extend(word.take()),
            (_, None) => word.get_or_insert_default().push(letter),
        }
    }
    match quote {
        Some(open) => Err(format!("the quote {open} is not closed")),
        None => {
            words.extend(word);
            Ok(words)
        }
    }
}

/// Joins words into a line that a shell, or [`split`], splits into the same words.
pub fn join<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.into_iter().map(quoted).collect();
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,+@%".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_told_apart_as_a_shell_does() {
        for (line, words) in [
            ("", &[][..]),
            ("  http  http://a/ \t-c 5 ", &["http", "http://a/", "-c", "5"]),
            (r#"-H 'A: b c' -H "D: e\"f""#, &["-H", "A: b c", "-H", "D: e\"f"]),
            (r"a\ b 'c\d' ''", &["a b", r"c\d", ""]),
        ] {
            assert_eq!(
                split(line).as_deref(),
                Ok(&*words.iter().map(ToString::to_string).collect::<Vec<_>>()),
                "{line}"
            );
        }
        for line in ["'a", "\"a\\\"", "a\\"] {
            assert!(split(line).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn what_is_put_together_comes_apart_again(words: Vec<String>) {
            let line = join(words.iter().map(String::as_str));
            prop_assert_eq!(split(&line), Ok(words));
        }

        #[test]
        fn no_line_is_too_odd(line: String) {
            let _ = split(&line);
        }
    }
}
