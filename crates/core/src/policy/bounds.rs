//! How much an expression may hold: it is parsed and answered on the stack, and for every image. Whoever may read may try
//! one.

use super::InvalidWhen;

const BYTES: usize = 2000;
/// Brackets within brackets.
const DEPTH: usize = 16;
/// Each may be a level of the syntax tree.
const OPERATORS: usize = 200;
/// Loops within loops: each multiplies the work.
const LOOPS: usize = 2;
/// A list that is made of another may be longer or have longer texts, and one of that again.
const MAPS: usize = 1;

/// Regular expressions: each is compiled for every image.
const PATTERNS: usize = 8;

/// The macros that go through a list.
const MACROS: [&str; 6] = ["all", "exists", "exists_one", "existsOne", "filter", "map"];

pub(super) fn keep(when: &str) -> Result<(), InvalidWhen> {
    let bound = |holds: bool, what: &str, most: usize| match holds {
        true => Ok(()),
        false => Err(InvalidWhen(format!("too much for one expression: at most {most} {what}"))),
    };
    bound(when.len() <= BYTES, "bytes", BYTES)?;
    let (mut operators, mut maps, mut patterns) = (0, 0, 0);
    let (mut open, mut word, mut last) = (Vec::new(), String::new(), None);
    for letter in code(when).chars() {
        match letter {
            '(' | '[' | '{' => {
                open.push(letter == '(' && MACROS.contains(&word.as_str()));
                maps += usize::from(letter == '(' && word == "map");
                patterns += usize::from(letter == '(' && word == "matches");
                operators += 1;
            }
            ')' | ']' | '}' => drop(open.pop()),
            '+' | '-' | '*' | '/' | '%' | '<' | '>' | '=' | '!' | '&' | '|' | '?' | ':' | '.' => operators += 1,
            _ => {}
        }
        let is_within = |letter: char| letter.is_alphanumeric() || letter == '_';
        if is_within(letter) {
            // Between a name and its bracket there may be room.
            if !last.is_none_or(is_within) {
                word.clear();
            }
            word.push(letter);
        } else if letter.is_whitespace() {
            operators += usize::from(word == "in" && last.is_some_and(is_within));
        } else {
            word.clear();
        }
        last = Some(letter);
        bound(open.len() <= DEPTH, "brackets within brackets", DEPTH)?;
        bound(
            operators <= OPERATORS,
            "operators, dots and brackets; a list, as in `image.name in [\"a\", \"b\"]`, needs few",
            OPERATORS,
        )?;
        bound(open.iter().filter(|is_loop| **is_loop).count() <= LOOPS, "loops within loops", LOOPS)?;
        bound(maps <= MAPS, "`map`", MAPS)?;
        bound(patterns <= PATTERNS, "`matches`", PATTERNS)?;
    }
    Ok(())
}

/// What is neither within quotes nor a comment.
pub(super) fn code(when: &str) -> String {
    let (mut code, mut rest) = (String::new(), when);
    while let Some(letter) = rest.chars().next() {
        rest = match letter {
            '"' | '\'' => after_text(rest, letter, is_raw(&code)),
            '/' if rest.starts_with("//") => rest.find('\n').map_or("", |end| &rest[end..]),
            _ => {
                code.push(letter);
                &rest[letter.len_utf8()..]
            }
        };
    }
    code
}

/// Whether what comes next is a text in which a backslash is one, as in `r"\d"`.
fn is_raw(before: &str) -> bool {
    before.trim_end_matches(['b', 'B']).ends_with(['r', 'R'])
}

/// What is behind the text with which this begins: one within single quotes, or within three.
fn after_text(text: &str, quote: char, is_raw: bool) -> &str {
    let thrice = quote.to_string().repeat(3);
    let end = if text.starts_with(&thrice) { &thrice[..] } else { &thrice[..1] };
    let mut rest = &text[end.len()..];
    while !rest.is_empty() && !rest.starts_with(end) {
        let mut letters = rest.chars();
        if letters.next() == Some('\\') && !is_raw {
            letters.next();
        }
        rest = letters.as_str();
    }
    rest.strip_prefix(end).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refused(when: &str) -> String {
        keep(when).unwrap_err().to_string()
    }

    #[test]
    fn what_rules_need_is_allowed() {
        let names = (0..100).map(|n| format!("\"image-{n}\"")).collect::<Vec<_>>().join(", ");
        for when in [
            "image.visibility == 'public' && image.size < 10 * 1024 * 1024 * 1024",
            &format!("image.name in [{names}]"),
            "image.tags.exists(t, t == 'x') || image.tags.exists(t, t == 'y') || image.tags.exists(t, t == 'z')",
            "image.tags.exists(t, image.tags.exists(u, t + u == 'ab'))",
            "image.tags.map(t, t.size()).exists(length, length > 20)",
            "image.name.matches('^(a|b|(c|d)){1,5}.*[.]{3}\\'((((((((((((((((((((')",
            &(["image.name == 'x'"; 40].join(" || ")),
        ] {
            assert_eq!(keep(when), Ok(()), "{when}");
        }
    }

    #[test]
    fn what_would_take_the_stack_or_the_time_is_refused() {
        let of = |open: &str, times: usize| open.repeat(times);
        assert!(refused(&format!("image.name == '{}'", of("a", 2000))).contains("at most 2000 bytes"));
        for deep in [format!("{}1{}", of("(", 17), of(")", 17)), of("[", 17), of("f(", 17)] {
            assert!(refused(&deep).contains("at most 16 brackets within brackets"), "{deep}");
        }
        let long = ["\"a\"", "1"].map(|term| format!("{}{term} == \"x\"", of(&format!("{term}+"), 201)));
        let chains = [of("!", 201), of("-", 201), of(".a", 201), of("a[0]", 201), of("1 in ", 201)];
        for chain in long.into_iter().chain(chains) {
            assert!(refused(&chain).contains("at most 200 operators"), "{chain}");
        }
        // Nothing hides behind what only looks like the end of a text, or the beginning of one.
        for front in [r"r'\' == ''", r"''' ' ''' == ''", "true // '\n", r#""\"'" == "" "#, r"br'\' == b''"] {
            assert!(refused(&format!("{front} || {}true", of("(", 17))).contains("at most 16 brackets"), "{front}");
        }
        for loops in ["[1].all(a,[1].all(b,[1].all(c,true)))", "[1].map (a, [1].filter( b, [1].exists_one\n(c,true)))"]
        {
            assert!(refused(loops).contains("at most 2 loops within loops"), "{loops}");
        }
        assert!(refused(&["image.name.matches('a')"; 9].join(" || ")).contains("at most 8 `matches`"));
        // Each would double what the one before gave.
        for maps in ["['a'].map(a,a+a).map(a,a+a).exists(a,true)", "[1].map(a,[a,a]) == [1].map (a,[a,a])"] {
            assert!(refused(maps).contains("at most 1 `map`"), "{maps}");
        }
    }
}
