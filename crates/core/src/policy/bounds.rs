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

/// The macros that go through a list.
const MACROS: [&str; 6] = ["all", "exists", "exists_one", "existsOne", "filter", "map"];

pub(super) fn keep(when: &str) -> Result<(), InvalidWhen> {
    let bound = |holds: bool, what: &str, most: usize| match holds {
        true => Ok(()),
        false => Err(InvalidWhen(format!("too much for one expression: at most {most} {what}"))),
    };
    bound(when.len() <= BYTES, "bytes", BYTES)?;
    let (mut operators, mut open, mut word, mut last) = (0, Vec::new(), String::new(), None);
    for letter in code(when) {
        match letter {
            '(' | '[' | '{' => {
                open.push(letter == '(' && MACROS.contains(&word.as_str()));
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
    }
    Ok(())
}

/// What is not within quotes.
fn code(when: &str) -> impl Iterator<Item = char> {
    let (mut quote, mut is_escaped) = (None, false);
    when.chars().filter(move |letter| {
        let was_within = quote.is_some();
        match quote {
            Some(_) if is_escaped => is_escaped = false,
            Some(_) if *letter == '\\' => is_escaped = true,
            Some(begun) if *letter == begun => quote = None,
            None if matches!(letter, '"' | '\'') => quote = Some(*letter),
            _ => {}
        }
        !was_within && quote.is_none()
    })
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
        for loops in ["[1].all(a,[1].all(b,[1].all(c,true)))", "[1].map (a, [1].filter( b, [1].exists_one\n(c,true)))"]
        {
            assert!(refused(loops).contains("at most 2 loops within loops"), "{loops}");
        }
    }
}
