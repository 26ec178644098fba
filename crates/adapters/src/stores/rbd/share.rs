use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// So many requests are under way at a store, whatever the number of its readers and writers, unless there are more of
/// them than that: their memory is what each holds that is not gathered.
const IN_FLIGHT: usize = 8;

/// The readers and writers of a store.
#[derive(Clone, Default)]
pub(super) struct Shares(Arc<AtomicUsize>);

/// One of them, until it is dropped.
pub(super) struct Share(Arc<AtomicUsize>);

impl Shares {
    pub(super) fn enter(&self) -> Share {
        self.0.fetch_add(1, Ordering::Relaxed);
        Share(Arc::clone(&self.0))
    }
}

impl Share {
    /// How many requests it may have under way now. No other can keep it from one.
    pub(super) fn requests(&self) -> usize {
        (IN_FLIGHT / self.0.load(Ordering::Relaxed).max(1)).max(1)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_has_all_requests_and_many_have_one_each() {
        let shares = Shares::default();
        let first = shares.enter();
        assert_eq!(first.requests(), IN_FLIGHT);
        let others: Vec<Share> = (1..3 * IN_FLIGHT).map(|_| shares.enter()).collect();
        assert_eq!((first.requests(), others[7].requests()), (1, 1));
        drop(others);
        assert_eq!(first.requests(), IN_FLIGHT);
    }
}
