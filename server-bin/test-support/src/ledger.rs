//! The ledger as the daemon tells it: one JSON object of nested objects, numbers and one boolean.

/// A ledger's text.
#[derive(Debug)]
pub struct Ledger(pub String);

impl Ledger {
    /// The number at a path such as `permits.free`.
    #[track_caller]
    pub fn number(&self, path: &str) -> u64 {
        let text = self.value(path);
        text.parse().unwrap_or_else(|_| panic!("{path} is {text:?}, no number, in {}", self.0))
    }

    /// The string at a path such as `ring.kind`.
    #[track_caller]
    pub fn text(&self, path: &str) -> &str {
        self.value(path).trim_matches('"')
    }

    /// The number in use of a `total`/`free` pair.
    #[track_caller]
    pub fn in_use(&self, pair: &str) -> u64 {
        self.number(&format!("{pair}.total")) - self.number(&format!("{pair}.free"))
    }

    pub fn is_balanced(&self) -> bool {
        self.value("balanced") == "true"
    }

    /// The names and numbers of an object that are not zero.
    #[track_caller]
    pub fn nonzero(&self, path: &str) -> Vec<(&str, u64)> {
        let inner = self.value(path).trim_start_matches('{').trim_end_matches('}');
        let member = |member: &'_ str| -> Option<(usize, u64)> {
            let (name, number) = member.split_once(':')?;
            Some((name.len(), number.parse().ok()?))
        };
        let members = inner.split(',').filter_map(|text| {
            let (length, number) = member(text)?;
            Some((text[..length].trim_matches('"'), number))
        });
        members.filter(|(_, number)| *number != 0).collect()
    }

    #[track_caller]
    fn value(&self, path: &str) -> &str {
        path.split('.').fold(self.0.trim(), |object, name| {
            member(object, name).unwrap_or_else(|| panic!("no {path} in the ledger {}", self.0))
        })
    }
}

/// The value of a member of an object, which holds no strings but names.
fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let mut depth = 0;
    let mut begin = None;
    for (at, c) in object.char_indices() {
        match c {
            '{' => depth += 1,
            '"' if depth == 1 && begin.is_none() => {
                let rest = &object[at + 1..];
                begin = rest
                    .strip_prefix(name)
                    .and_then(|rest| rest.strip_prefix("\":"))
                    .map(|rest| object.len() - rest.len());
            }
            ',' | '}' if depth == 1 && begin.is_some_and(|begin| begin < at) => {
                return Some(&object[begin?..at]);
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[test]
fn a_ledger_is_read() {
    let ledger = Ledger(
        "{\"a\":{\"free\":1,\"total\":5},\"free\":7,\"by\":{\"x\":0,\"y\":3},\"balanced\":true}"
            .into(),
    );
    assert_eq!((ledger.number("free"), ledger.number("a.free"), ledger.in_use("a")), (7, 1, 4));
    assert_eq!(ledger.nonzero("by"), [("y", 3)]);
    assert!(ledger.is_balanced());
}
