//! `mimeo verify`: have all copies of an image read again, and perhaps wait for what comes of it.

use mimeo_core::{ProofKind, Timestamp};
use mimeo_engine::status::ImageReport;

use super::{
    Client, Outcome,
    watch::{Wait, watch},
};

pub(super) async fn verify(client: &Client, image: &str, wait: Option<Wait>) -> Outcome {
    let image = client.find(image).await?;
    let asked = client.verify(&image.id).await?;
    match wait {
        Some(wait) => watch(client, &image.id, wait, |report| is_verified(report, asked)).await.map(drop),
        None => Ok(()),
    }
}

/// Copies that only Glance has proven are not Mimeo's to read.
fn is_verified(report: &ImageReport, asked: Timestamp) -> bool {
    let mut own = report.replicas.iter().filter(|replica| replica.wanted && replica.proof != Some(ProofKind::Glance));
    // The ledger keeps milliseconds.
    report.is_registered()
        && own.all(|replica| replica.proven_at.is_some_and(|at| at.as_millisecond() >= asked.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use mimeo_core::{ImageId, ImageState, ReplicaState};
    use mimeo_engine::status::ReplicaReport;

    use super::*;

    #[test]
    fn only_proofs_from_after_the_question_count() {
        let at = |milliseconds| Timestamp::from_millisecond(milliseconds).unwrap();
        let replica = |proof, proven_at: i64| ReplicaReport {
            store: "a".parse().unwrap(),
            state: ReplicaState::Registered,
            wanted: true,
            location: None,
            proof: Some(proof),
            proven_at: Some(at(proven_at)),
            seen_at: None,
            reason: None,
            next_try: None,
            progress: None,
        };
        let verified = |state, replicas| {
            let (id, name, size, owner, rules, reason, observed_at) =
                (ImageId::nil(), None, None, None, vec![], None, None);
            is_verified(&ImageReport { id, name, state, size, owner, rules, reason, observed_at, replicas }, at(10))
        };
        let all = |proven_at| vec![replica(ProofKind::Readback, proven_at), replica(ProofKind::Glance, 1)];
        assert!(verified(ImageState::Registered, all(10)));
        assert!(!verified(ImageState::Registered, all(9)));
        assert!(!verified(ImageState::Degraded, all(11)));
    }
}
