//! The order of a list, total always, so that no page skips or repeats an image.

use std::cmp::Ordering;

use super::{
    super::{fault::Fault, image::Image},
    Pairs,
};

#[derive(Debug)]
pub(super) struct Order(Vec<(Key, Direction)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Name,
    Status,
    ContainerFormat,
    DiskFormat,
    Size,
    Id,
    CreatedAt,
    UpdatedAt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ascending,
    Descending,
}

impl Order {
    /// `sort=name:asc,size:desc`, or `sort_key` and `sort_dir` repeated. Ends with the keys that Glance adds.
    pub(super) fn parse(pairs: &Pairs) -> Result<Self, Fault> {
        let all = |wanted: &'static str| {
            pairs.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value.as_str())
        };
        let mut order = match all("sort").next() {
            Some(_) if all("sort_key").chain(all("sort_dir")).next().is_some() => {
                return Err(Fault::bad_request("Old and new sorting syntax cannot be combined"));
            }
            Some(sort) => sort
                .split(',')
                .map(|part| {
                    let (key, direction) = part.split_once(':').unwrap_or((part, ""));
                    Ok((Key::parse(key)?, Direction::parse(direction)?))
                })
                .collect::<Result<_, Fault>>()?,
            None => classic_order(
                all("sort_key").map(Key::parse).collect::<Result<_, _>>()?,
                &all("sort_dir").map(Direction::parse).collect::<Result<Vec<_>, _>>()?,
            )?,
        };
        let direction = order.first().map_or(Direction::Descending, |first| first.1);
        for key in [Key::CreatedAt, Key::Id] {
            if !order.iter().any(|(known, _)| *known == key) {
                order.push((key, direction));
            }
        }
        Ok(Self(order))
    }

    pub(super) fn compare(&self, a: &Image, b: &Image) -> Ordering {
        let by_key = self.0.iter().map(|(key, direction)| {
            let ascending = key.compare(a, b);
            match direction {
                Direction::Ascending => ascending,
                Direction::Descending => ascending.reverse(),
            }
        });
        by_key.fold(Ordering::Equal, Ordering::then)
    }
}

impl Key {
    fn parse(name: &str) -> Result<Self, Fault> {
        Ok(match name.trim() {
            "name" => Self::Name,
            "status" => Self::Status,
            "container_format" => Self::ContainerFormat,
            "disk_format" => Self::DiskFormat,
            "size" => Self::Size,
            "id" => Self::Id,
            "created_at" => Self::CreatedAt,
            "updated_at" => Self::UpdatedAt,
            other => {
                return Err(Fault::bad_request(format!(
                    "Invalid sort key: {other}. It must be one of the following: name, status, \
                     container_format, disk_format, size, id, created_at, updated_at."
                )));
            }
        })
    }

    fn compare(self, a: &Image, b: &Image) -> Ordering {
        match self {
            Self::Name => a.name.cmp(&b.name),
            Self::Status => a.status.as_str().cmp(b.status.as_str()),
            Self::ContainerFormat => a.container_format.cmp(&b.container_format),
            Self::DiskFormat => a.disk_format.cmp(&b.disk_format),
            Self::Size => a.size.cmp(&b.size),
            Self::Id => a.id.cmp(&b.id),
            Self::CreatedAt => a.created_at.cmp(&b.created_at),
            Self::UpdatedAt => a.updated_at.cmp(&b.updated_at),
        }
    }
}

impl Direction {
    fn parse(name: &str) -> Result<Self, Fault> {
        match name.trim() {
            "asc" => Ok(Self::Ascending),
            "desc" | "" => Ok(Self::Descending),
            other => Err(Fault::bad_request(format!("Invalid sort direction: {other}"))),
        }
    }
}

/// One direction for all keys, or one for each.
fn classic_order(mut keys: Vec<Key>, directions: &[Direction]) -> Result<Vec<(Key, Direction)>, Fault> {
    if keys.is_empty() {
        keys.push(Key::CreatedAt);
    }
    let directions = match directions {
        [] => vec![Direction::Descending; keys.len()],
        [one] => vec![*one; keys.len()],
        several if several.len() == keys.len() => several.to_vec(),
        _ => {
            return Err(Fault::bad_request("Number of sort dirs does not match the number of sort keys"));
        }
    };
    Ok(keys.into_iter().zip(directions).collect())
}
