//! Webhooks: what is written into the ledger's history is told to others, in its order, at least once.
//!
//! The history is the queue: a webhook is a place in it, kept in the ledger, that moves on when the other side has taken
//! what comes next. One that takes nothing delays nothing but itself.

mod event;
mod signature;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use mimeo_core::{Backoff, Result, Timestamp, ports::Clock};
use mimeo_engine::{Engine, status::ChangeReport};
use reqwest::{Client, header, redirect};
use tokio_util::sync::CancellationToken;

use self::event::{body, id_of, is_wanted};
use crate::config::WebhookSettings;

/// How often the ledger is asked for what is new.
const PAUSE: Duration = Duration::from_secs(1);
/// Lines that are read at once; so many may be told twice after a crash.
const LINES: usize = 50;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(5);
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_mins(5) };

/// How the webhooks do, for `/metrics`.
#[derive(Clone, Default)]
pub(crate) struct Board(Arc<Mutex<BTreeMap<String, Delivery>>>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub name: String,
    pub delivered: u64,
    pub failed: u64,
    /// Since when nothing is taken, if so.
    pub failing_since: Option<Timestamp>,
}

impl Board {
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn update(&self, name: &str, change: impl FnOnce(&mut Delivery)) {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(
            board.entry(name.to_owned()).or_insert_with(|| Delivery { name: name.to_owned(), ..Delivery::default() }),
        );
    }
}

/// Runs all of them, until `stop`.
pub(crate) async fn run(
    engine: Arc<Engine>,
    clock: Arc<dyn Clock>,
    webhooks: Vec<WebhookSettings>,
    board: Board,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let http = Client::builder()
        .timeout(PATIENCE)
        .connect_timeout(CONNECT)
        // What is signed is for this address alone.
        .redirect(redirect::Policy::none())
        .user_agent(concat!("mimeo/", env!("CARGO_PKG_VERSION")))
        .build()?;
    let webhook = |settings: WebhookSettings| {
        board.update(&settings.name, |_| {});
        let (engine, clock, board) = (Arc::clone(&engine), Arc::clone(&clock), board.clone());
        Webhook { engine, clock, settings, board, http: http.clone() }
    };
    let all: Vec<Webhook> = webhooks.into_iter().map(webhook).collect();
    stop.run_until_cancelled(join_all(all.iter().map(Webhook::run))).await;
    Ok(())
}

struct Webhook {
    engine: Arc<Engine>,
    clock: Arc<dyn Clock>,
    settings: WebhookSettings,
    board: Board,
    http: Client,
}

impl Webhook {
    /// It never ends.
    async fn run(&self) {
        let mut after = self.begin().await;
        let mut failures = 0;
        loop {
            let wait = match self.next(&mut after).await {
                Ok(true) => Duration::ZERO,
                Ok(false) => PAUSE,
                // Others tell that the ledger does not answer.
                Err(_) => {
                    failures += 1;
                    BACKOFF.delay(failures)
                }
            };
            if wait <= PAUSE {
                failures = 0;
            }
            tokio::time::sleep(wait).await;
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
        let newest = self.engine.last_told().await?;
        if let Some(heard) = self.engine.heard(&self.listener()).await? {
            // A ledger that was restored may not know of all that was told.
            return Ok(heard.min(newest));
        }
        self.engine.note_heard(&self.listener(), newest).await?;
        Ok(newest)
    }

    /// Tells the next lines, and notes that they were told. False: there is nothing more.
    async fn next(&self, after: &mut u64) -> Result<bool> {
        let told = self.engine.told(*after, LINES).await?;
        let Some((last, _)) = told.last() else { return Ok(false) };
        let last = *last;
        for (number, change) in &told {
            if is_wanted(change, self.settings.only) {
                self.deliver(*number, change).await;
            }
        }
        // First here: a ledger that takes nothing is no reason to tell it all again.
        *after = last;
        self.engine.note_heard(&self.listener(), last).await?;
        Ok(true)
    }

    /// Tries until it is taken.
    async fn deliver(&self, number: u64, change: &ChangeReport) {
        let (id, body) = (id_of(number, change), body(number, change));
        let name = &self.settings.name;
        for failures in 1.. {
            match self.send(&id, &body).await {
                Ok(()) => break,
                Err(why) => {
                    let now = self.clock.now();
                    self.board.update(name, |delivery| {
                        delivery.failed += 1;
                        delivery.failing_since.get_or_insert(now);
                    });
                    // Once for each time that it begins.
                    if failures == 1 {
                        tracing::warn!(webhook = name, why, "the webhook does not take an event; it is tried again");
                    }
                    tokio::time::sleep(BACKOFF.delay(failures)).await;
                }
            }
        }
        let mut was_failing = false;
        self.board.update(name, |delivery| {
            delivery.delivered += 1;
            was_failing = delivery.failing_since.take().is_some();
        });
        if was_failing {
            tracing::info!(webhook = name, "the webhook takes events again");
        }
    }

    async fn send(&self, id: &str, body: &str) -> Result<(), String> {
        let seconds = self.clock.now().as_second().to_string();
        let signature = signature::sign(&self.settings.secret, id, &seconds, body);
        let request = self
            .http
            .post(self.settings.url.clone())
            .header(header::CONTENT_TYPE, "application/cloudevents+json; charset=utf-8")
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature)
            .body(body.to_owned());
        // The address is left out: it may be a secret.
        let answer = request.send().await.map_err(|error| chain(&error.without_url()))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("it answered {status}")),
        }
    }

    fn listener(&self) -> String {
        format!("webhook {}", self.settings.name)
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
