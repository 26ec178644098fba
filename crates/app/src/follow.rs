//! What is written into the ledger's history is told to others, in its order, at least once.
//!
//! The history is the queue: who follows it has a place in it, kept in the ledger, that moves on when the other side has
//! taken what comes next. One that takes nothing delays nothing but itself.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mimeo_core::{Backoff, Result, Timestamp, ports::Clock};
use mimeo_engine::{Engine, status::ChangeReport};
use reqwest::{Client, RequestBuilder, StatusCode, redirect};

/// How often the ledger is asked for what is new.
const PAUSE: Duration = Duration::from_secs(1);
/// Lines that are read at once; so many may be told twice after a crash.
const LINES: usize = 50;
/// How long the other side may refuse one and the same message before it is told the next.
const REFUSED_FOR: Duration = Duration::from_hours(1);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(5);
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_mins(5) };

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Listener {
    Webhook(String),
    Traces,
}

/// As in the log and the ledger.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Webhook(name) => write!(f, "webhook {name}"),
            Self::Traces => f.write_str("traces"),
        }
    }
}

/// How they do, for `/metrics`.
#[derive(Clone, Default)]
pub(crate) struct Board(Arc<Mutex<BTreeMap<Listener, Delivery>>>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub delivered: u64,
    pub failed: u64,
    /// What was refused for [`REFUSED_FOR`].
    pub given_up: u64,
    /// Since when nothing is taken, if so.
    pub failing_since: Option<Timestamp>,
}

impl Board {
    pub(crate) fn deliveries(&self) -> BTreeMap<Listener, Delivery> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update<T>(&self, listener: &Listener, change: impl FnOnce(&mut Delivery) -> T) -> T {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(board.entry(listener.clone()).or_default())
    }
}

/// Makes of a line what is sent, and sends it.
pub(crate) trait Teller {
    type Message;

    /// `None`: nothing is to be told of this line.
    async fn message(&self, engine: &Engine, number: u64, change: &ChangeReport) -> Result<Option<Self::Message>>;

    /// The time is that of this try.
    fn request(&self, message: &Self::Message, now: Timestamp) -> RequestBuilder;
}

/// For all that is sent to others.
pub(crate) fn http_client() -> reqwest::Result<Client> {
    Client::builder()
        .timeout(PATIENCE)
        .connect_timeout(CONNECT)
        // What is sent is for this address alone.
        .redirect(redirect::Policy::none())
        .user_agent(concat!("mimeo/", env!("CARGO_PKG_VERSION")))
        .build()
}

pub(crate) struct Follower<T> {
    engine: Arc<Engine>,
    clock: Arc<dyn Clock>,
    board: Board,
    listener: Listener,
    teller: T,
}

impl<T: Teller> Follower<T> {
    pub(crate) fn new(engine: Arc<Engine>, clock: Arc<dyn Clock>, board: Board, listener: Listener, teller: T) -> Self {
        board.update(&listener, |_| {});
        Self { engine, clock, board, listener, teller }
    }

    /// It never ends.
    pub(crate) async fn run(&self) {
        let mut after = self.begin().await;
        let mut failures = 0;
        loop {
            let told = self.next(&mut after).await;
            // Others tell that the ledger does not answer.
            failures = if told.is_ok() { 0 } else { failures + 1 };
            tokio::time::sleep(match told {
                Ok(true) => Duration::ZERO,
                Ok(false) => PAUSE,
                Err(_) => BACKOFF.delay(failures),
            })
            .await;
        }
    }

    /// Where it goes on. One that is new is told what comes from now on.
    async fn begin(&self) -> u64 {
        for failures in 1.. {
            if let Ok(last) = self.place().await {
                return last;
            }
            tokio::time::sleep(BACKOFF.delay(failures)).await;
        }
        0
    }

    async fn place(&self) -> Result<u64> {
        let (newest, listener) = (self.engine.last_told().await?, self.listener.to_string());
        if let Some(heard) = self.engine.heard(&listener).await? {
            // A ledger that was restored may not know of all that was told.
            return Ok(heard.min(newest));
        }
        self.engine.note_heard(&listener, newest).await?;
        Ok(newest)
    }

    /// Tells the next lines, and notes that they were told. False: there is nothing more.
    async fn next(&self, after: &mut u64) -> Result<bool> {
        let told = self.engine.told(*after, LINES).await?;
        let Some((last, _)) = told.last() else { return Ok(false) };
        let last = *last;
        for (number, change) in &told {
            if let Some(message) = self.teller.message(&self.engine, *number, change).await? {
                self.deliver(&message).await;
            }
        }
        // First here: a ledger that takes nothing is no reason to tell it all again.
        *after = last;
        self.engine.note_heard(&self.listener.to_string(), last).await?;
        Ok(true)
    }

    /// Tries until it is taken, or was refused for so long that it never will be.
    async fn deliver(&self, message: &T::Message) {
        let mut refused_since: Option<Timestamp> = None;
        for failures in 1.. {
            let Err(Untaken { why, is_refusal }) = self.send(message).await else { break };
            let now = self.clock.now();
            self.board.update(&self.listener, |delivery| {
                delivery.failed += 1;
                delivery.failing_since.get_or_insert(now);
            });
            // Once for each time that it begins.
            if failures == 1 {
                tracing::warn!(listener = %self.listener, why, "what happened is not taken; it is tried again");
            }
            refused_since = refused_since.or(Some(now)).filter(|_| is_refusal);
            if refused_since.is_some_and(|since| now >= since.saturating_add(REFUSED_FOR).unwrap_or(Timestamp::MAX)) {
                self.board.update(&self.listener, |delivery| {
                    delivery.given_up += 1;
                    delivery.failing_since = None;
                });
                tracing::error!(listener = %self.listener, why, "this one is refused for good: the next is told");
                return;
            }
            tokio::time::sleep(BACKOFF.delay(failures)).await;
        }
        let was_failing = self.board.update(&self.listener, |delivery| {
            delivery.delivered += 1;
            delivery.failing_since.take().is_some()
        });
        if was_failing {
            tracing::info!(listener = %self.listener, "what happens is taken again");
        }
    }

    async fn send(&self, message: &T::Message) -> Result<(), Untaken> {
        let request = self.teller.request(message, self.clock.now());
        // The address is left out: it may be a secret.
        let why = |error: reqwest::Error| format!("{:#}", anyhow::Error::new(error.without_url()));
        let answer = request.send().await.map_err(|error| Untaken { why: why(error), is_refusal: false })?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(Untaken { why: format!("it answered {status}"), is_refusal: refuses(status) }),
        }
    }
}

struct Untaken {
    why: String,
    /// Of this message, whoever sends it, and whenever.
    is_refusal: bool,
}

fn refuses(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY
    )
}
