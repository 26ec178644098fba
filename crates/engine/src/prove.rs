//! Proof: a closed object is read again, from where Glance will read it, and must be what the source was.

use std::time::Duration;

use futures::StreamExt;
use mimeo_core::{ContentHash, Digest, Error, ObjectName, Reason, Result, without_credentials};

use crate::{
    StorePart,
    digester::Digester,
    pace::Paces,
    progress::Line,
    transfer::{Chunk, ContentHasher, within},
};

/// What an object is to read back as.
pub(crate) struct Expected<'a> {
    pub(crate) object: &'a ObjectName,
    pub(crate) size: u64,
    pub(crate) bytes: Known<'a>,
}

/// By what its bytes are known.
#[derive(Clone, Copy)]
pub(crate) enum Known<'a> {
    Digest(&'a Digest),
    /// The image's own hash: of a copy that this ledger has not seen written.
    Content(&'a ContentHash),
}

/// How fast an object is read back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    Normal,
    /// As fast as scrubbing may be.
    Scrub,
}

/// Reads the whole object, compares it, and gives its BLAKE3 digest.
pub(crate) async fn read_back(
    part: &StorePart,
    Expected { object, size, bytes: expected }: &Expected<'_>,
    line: &Line,
    paces: &Paces,
    haste: Haste,
) -> Result<Digest> {
    let (size, expected) = (*size, *expected);
    let mut stream = within(part.timeout, part, "opening the copy to read it back", part.store.read(object, 0)).await?;
    // In place, as a chunk takes no longer to hash than to receive.
    let mut digester = Digester::default();
    let mut content = match expected {
        Known::Content(hash) => Some((hash, ContentHasher::new(hash.algorithm))),
        Known::Digest(_) => None,
    };
    let mut seen = 0_u64;
    while let Some(chunk) = within(part.timeout, part, "reading the copy back", next(&mut stream)).await? {
        seen += chunk.len() as u64;
        line.advance(chunk.len());
        digester.update(&chunk);
        if let Some((_, content)) = &mut content {
            content.update(&chunk);
        }
        if haste == Haste::Scrub {
            paces.take_for_scrub(part.store.name(), chunk.len()).await;
        }
        paces.take(part.store.name(), chunk.len()).await;
        paces.take_of_all(chunk.len()).await;
        if seen > size {
            break;
        }
    }
    let store = part.store.name();
    if seen != size {
        let message = format!("{store}: the copy reads back as {seen} bytes or more; it is to have {size}");
        return Err(Error::new(Reason::ProofMismatch, message));
    }
    let found = digester.finish();
    let other = |what: String| {
        Err(Error::new(Reason::ProofMismatch, format!("{store}: the copy reads back with other bytes ({what})")))
    };
    match (expected, content) {
        (Known::Digest(expected), _) if found != *expected => other(format!("BLAKE3 {found}, sent {expected}")),
        (_, Some((hash, content))) => match content.finish() {
            content if content == hash.value => Ok(found),
            content => other(format!("{:?} {content}, the image's is {}", hash.algorithm, hash.value)),
        },
        _ => Ok(found),
    }
}

/// How much of an object that was never closed can be gone on with: its chunks are read again, from the first on, as far
/// as each is what the source had there. Where they cannot be read, all of them: the proof of the whole will tell.
pub(crate) async fn kept(
    part: &StorePart,
    object: &ObjectName,
    size: u64,
    (digests, length): (&[Digest], u64),
    paces: &Paces,
) -> Result<u64> {
    let there = within(part.timeout, part, "asking what is kept of a copy", part.store.kept(object)).await?;
    let there = there.min(size).min(digests.len() as u64 * length);
    let mut right = 0;
    if there < length.min(size) {
        return Ok(right);
    }
    let reading = part.store.read_kept(object);
    let Some(mut stream) = within(part.timeout, part, "opening what is kept of a copy", reading).await? else {
        return Ok(there);
    };
    let (mut chunk, mut done, mut seen) = (Chunk::new(length), Vec::new(), 0);
    let mut expected = digests.iter();
    while seen < there {
        let Some(bytes) = within(part.timeout, part, "reading what is kept of a copy", next(&mut stream)).await? else {
            break;
        };
        paces.take(part.store.name(), bytes.len()).await;
        paces.take_of_all(bytes.len()).await;
        let wanted = bytes.len().min(usize::try_from(there - seen).unwrap_or(usize::MAX));
        seen += wanted as u64;
        chunk.update(&bytes[..wanted], &mut done);
        if seen == size && !size.is_multiple_of(length) {
            done.push(chunk.digest());
        }
        for digest in done.drain(..) {
            if expected.next() != Some(&digest) {
                return Ok(right);
            }
            right = (right + length).min(size);
        }
    }
    Ok(right)
}

async fn next(stream: &mut mimeo_core::ports::ByteStream) -> Result<Option<bytes::Bytes>> {
    stream.next().await.transpose()
}

/// Asks for the object as Glance will, right before its location is registered.
pub(crate) async fn probe(part: &StorePart, object: &ObjectName, size: u64, limit: Duration) -> Result<()> {
    let store = part.store.name();
    let unreachable = |why: String| {
        let url = without_credentials(&part.store.location(object));
        Error::new(Reason::LocationUnreachable, format!("{store}: {url} {why}; it is registered once it answers"))
    };
    let answer = tokio::time::timeout(limit, part.store.probe(object)).await;
    match answer.map_err(|_| unreachable(format!("did not answer within {limit:?}")))? {
        Ok(Some(found)) if found == size => Ok(()),
        Ok(Some(found)) => {
            let message = format!("{store}: the object has {found} bytes; {size} were proven");
            Err(Error::new(Reason::ProofMismatch, message))
        }
        Ok(None) => Err(Error::new(Reason::ObjectMissing, format!("{store}: the proven object is no longer there"))),
        Err(error) => Err(unreachable("does not answer".into()).caused_by(error)),
    }
}
