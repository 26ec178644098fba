//! Deliberate bugs, at least one for each promise, so that the simulation can show that it finds them.
//!
//! Only with the feature `sabotage`, which nobody but the engine's own tests asks for, and there only on a thread that
//! asked for one. Without it [`is`] is a constant.

#![cfg_attr(not(feature = "sabotage"), allow(dead_code, unreachable_pub, reason = "what only tests need"))]

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    UnprovenIsRegistered,
    UploadIsNotCompared,
    NamesAreNotRead,
    BitsGoWithTheirLocation,
    WhatIsOutOfReachIsBad,
    DrainDoesNotWait,
    LedgerComesLater,
    ForgottenBeforeDeleted,
    DeletedAtOnce,
    SlowHoldsUpAll,
    WindowHasNoEnd,
    AnswerIsBelieved,
    ProofIsRenewedUnread,
    PasswordIsLogged,
    AcknowledgedTooEarly,
    TriedNoMore,
    LocationIsAuthority,
    AbsenceIsDeletion,
    GuardSleeps,
    NoProbeBeforeThePatch,
    UndoneStaysUndone,
}

impl Bug {
    /// Each with the number of the promise that it breaks.
    pub const ALL: [(Self, usize); 21] = [
        (Self::UnprovenIsRegistered, 1),
        (Self::UploadIsNotCompared, 1),
        (Self::NamesAreNotRead, 2),
        (Self::BitsGoWithTheirLocation, 2),
        (Self::WhatIsOutOfReachIsBad, 2),
        (Self::DrainDoesNotWait, 2),
        (Self::LedgerComesLater, 3),
        (Self::ForgottenBeforeDeleted, 3),
        (Self::DeletedAtOnce, 3),
        (Self::SlowHoldsUpAll, 4),
        (Self::WindowHasNoEnd, 5),
        (Self::AnswerIsBelieved, 6),
        (Self::ProofIsRenewedUnread, 6),
        (Self::PasswordIsLogged, 7),
        (Self::AcknowledgedTooEarly, 8),
        (Self::TriedNoMore, 8),
        (Self::LocationIsAuthority, 9),
        (Self::AbsenceIsDeletion, 10),
        (Self::GuardSleeps, 10),
        (Self::NoProbeBeforeThePatch, 11),
        (Self::UndoneStaysUndone, 11),
    ];
}

#[cfg(feature = "sabotage")]
thread_local! {
    static BUG: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// From now on this thread's engines have this bug, or none.
#[cfg(feature = "sabotage")]
pub fn set(bug: Option<Bug>) {
    BUG.set(bug);
}

#[cfg(feature = "sabotage")]
pub(crate) fn is(bug: Bug) -> bool {
    BUG.get() == Some(bug)
}

#[cfg(not(feature = "sabotage"))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}
