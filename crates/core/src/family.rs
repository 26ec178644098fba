//! Which images are likely to be much the same, from their names: today's build of what was built last month.

/// A shorter beginning says nothing.
const LEAST: usize = 3;

/// How much alike two images' names are, where they are of one family: the same name, or one that differs only behind
/// its first digit, such as `ubuntu-22.04-20260101` and `ubuntu-22.04-20260201`.
pub fn likeness(name: &str, other: &str) -> Option<usize> {
    let stem = stem(name);
    let is_family = name == other || (stem.len() >= LEAST && stem == self::stem(other));
    let shared = || name.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    is_family.then(|| if name == other { usize::MAX } else { shared() })
}

/// What stands before the first digit, without what parts it from there.
fn stem(name: &str) -> &str {
    let end = name.find(|c: char| c.is_ascii_digit()).unwrap_or(name.len());
    name[..end].trim_end_matches(|c: char| !c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_shares_what_is_before_the_first_digit() {
        let name = "ubuntu-22.04-20260201";
        let near = likeness(name, "ubuntu-22.04-20260101");
        let far = likeness(name, "ubuntu-24.04-20260101");
        assert!(near > far && far.is_some() && likeness(name, name) > near);
        for other in ["ubuntu", "ubuntu 20"] {
            assert!(likeness(name, other).is_some(), "{other}");
        }
        for (name, other) in
            [("debian-12", "ubuntu-12"), ("a1", "a2"), ("1", "2"), ("", "7"), ("ubuntu-1", "ubuntux-1")]
        {
            assert_eq!(likeness(name, other), None, "{name} {other}");
        }
        assert_eq!(likeness("7", "7"), Some(usize::MAX), "the same name is enough");
    }
}
