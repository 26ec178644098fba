//! One seed's story: an engine is served, killed and configured anew while the world changes around it; then the faults
//! stop, and everything must come to rest.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use mimeo_core::ImageId;
use mimeo_engine::Engine;
use mimeo_testkit::{LedgerBackup, sample};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    dice::Dice,
    ending,
    listen::Listener,
    operators,
    ports::events::SimEvents,
    promises::{self, Broken, Step},
    setup::{Configuration, Setup},
    tenants, uploads, weather,
    world::{Life, World},
};

pub(crate) struct Story {
    pub(crate) world: Arc<World>,
    pub(crate) configuration: Configuration,
    pub(crate) serving: Option<Serving>,
    /// Stores that were ever drained: what is wanted there depends on what an operator last said.
    pub(crate) ever_drained: BTreeSet<usize>,
    /// The ledger as it was once.
    pub(crate) backup: LedgerBackup,
    /// The longest pause between two things that happen.
    pause: u64,
}

/// An engine at work.
pub(crate) struct Serving {
    life: Arc<Life>,
    pub(crate) engine: Arc<Engine>,
    /// Who uploads through its gateway.
    pub(crate) clients: JoinSet<()>,
    task: JoinHandle<()>,
    stop: CancellationToken,
    since: Instant,
}

/// What became of a seed.
pub(crate) struct Told {
    pub(crate) broken: Option<Broken>,
    pub(crate) steps: u64,
    pub(crate) trace: Vec<String>,
}

/// The whole story of a seed. With `is_told` every step of it is written down.
pub(crate) async fn run(seed: u64, is_told: bool) -> Told {
    let mut dice = Dice::new(seed);
    let setup = Setup::roll(&mut dice);
    let mut story = Story::begin(setup, dice, is_told);
    // For this thread, which tells nothing but this story.
    let _listening = tracing::subscriber::set_default(Listener(Arc::clone(&story.world)));
    let result = story.tell().await;
    story.halt().await;
    let result = result.and_then(|()| story.unbroken());
    let trace = story.world.take_trace();
    let (broken, steps) = (result.err(), story.world.lock().steps);
    Told { broken, steps, trace }
}

impl Story {
    fn begin(setup: Setup, mut dice: Dice, is_told: bool) -> Self {
        let configuration = Configuration::roll(&setup, &mut dice);
        let pause = dice.pick(&[500, 5000, 60_000]);
        let world = World::new(setup, dice, is_told);
        world.tell(|| format!("{:#?}", world.setup));
        let (ever_drained, backup) = (BTreeSet::new(), LedgerBackup::default());
        Self { world, configuration, serving: None, ever_drained, backup, pause }
    }

    async fn tell(&mut self) -> Result<(), Broken> {
        self.serve();
        if self.world.setup.crowd {
            tenants::crowd(&self.world);
        }
        let scenes = self.dice(|dice| dice.of(6..22));
        for _ in 0..scenes {
            self.scene().await;
            let wait = self.dice(|dice| {
                let longest = dice.pick(&[3, 100, 2000, 60_000]);
                dice.of(1..longest)
            });
            self.pass(Duration::from_millis(wait.min(self.pause))).await;
            self.unbroken()?;
        }
        self.fair_weather().await;
        self.unbroken()?;
        ending::comes_to_rest(self).await
    }

    pub(crate) fn dice<T>(&self, roll: impl FnOnce(&mut Dice) -> T) -> T {
        roll(&mut self.world.lock().dice)
    }

    pub(crate) fn unbroken(&self) -> Result<(), Broken> {
        self.world.lock().broken.clone().map_or(Ok(()), Err)
    }

    /// Something happens.
    async fn scene(&mut self) {
        match self.dice(|dice| dice.of(0..100)) {
            0..55 => tenants::act(&self.world),
            55..59 => uploads::begin(self),
            59..62 => weather::spoil(&self.world),
            62..82 => weather::change(&self.world),
            82..88 => self.restart().await,
            88..91 => self.crash().await,
            91..93 => self.jump(),
            93..97 => self.lull().await,
            _ => operators::act(self).await,
        }
    }

    /// Time goes by; an engine that dies is followed by another.
    pub(crate) async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            let bell = tokio::time::timeout_at(end, self.world.bell.notified()).await;
            if self.unbroken().is_err() {
                return;
            }
            let is_dead = self.serving.as_ref().is_some_and(|serving| serving.life.is_dead());
            if is_dead {
                self.crash().await;
            }
            self.watch();
            if bell.is_err() {
                return;
            }
        }
    }

    fn watch(&self) {
        if let Some(serving) = &self.serving {
            let everywhere = if self.configuration.rule.is_none() { &self.configuration.enabled[..] } else { &[] };
            let narrow = self.configuration.narrow;
            let everywhere: Vec<usize> = everywhere
                .iter()
                .copied()
                .filter(|at| Some(*at) != narrow && !self.ever_drained.contains(at))
                .collect();
            self.world.step(&Step::Passes { since: serving.since, everywhere: &everywhere });
        }
    }

    pub(crate) fn serve(&mut self) {
        let world = &self.world;
        world.tell(|| format!("SERVE {:?}", self.configuration));
        world.ledger.set_down(false);
        world.lock().witness.removals.clear();
        let life = Life::new(world);
        let engine = self.configuration.build(&life);
        let events = SimEvents::new(&life);
        let stop = CancellationToken::new();
        let (served, token) = (Arc::clone(&engine), stop.clone());
        #[allow(clippy::disallowed_methods, reason = "the story waits for it")]
        let task = tokio::task::spawn(async move {
            served.serve(Some(Box::new(events)), token).await.unwrap();
        });
        self.serving = Some(Serving { life, engine, clients: JoinSet::new(), task, stop, since: Instant::now() });
    }

    /// The engine dies, if it is not dead already, and another begins.
    async fn crash(&mut self) {
        self.halt().await;
        self.come_back().await;
    }

    async fn come_back(&mut self) {
        let (away, anew) = self.dice(|dice| (dice.pick(&[0, 0, 10, 3000, 90_000]), dice.falls(3000)));
        tokio::time::sleep(Duration::from_millis(away)).await;
        // What was decided in the end stands.
        if anew && self.configuration.drained.is_empty() {
            let setup = self.world.setup.clone();
            self.configuration = self.dice(|dice| Configuration::roll(&setup, dice));
        }
        self.serve();
    }

    /// As SIGKILL. Nothing of the engine is left when this returns.
    pub(crate) async fn halt(&mut self) {
        let Some(mut serving) = self.serving.take() else { return };
        self.world.tell(|| "KILL".into());
        serving.life.end();
        serving.clients.shutdown().await;
        serving.task.abort();
        let _ = serving.task.await;
        self.is_left_by(&serving.engine).await;
        self.world.lock().witness.dies();
    }

    /// As SIGTERM.
    async fn restart(&mut self) {
        if let Some(mut serving) = self.serving.take() {
            self.world.tell(|| "STOP".into());
            serving.stop.cancel();
            let life = Arc::clone(&serving.life);
            // A store that stalls may hold up the end for its time limit.
            let ended = tokio::time::timeout(Duration::from_mins(2), &mut serving.task).await;
            if ended.is_err() && !life.is_dead() {
                self.broke("the engine does not stop when told to");
            }
            if ended.is_err() {
                serving.task.abort();
                let _ = serving.task.await;
            }
            life.end();
            serving.clients.shutdown().await;
            self.is_left_by(&serving.engine).await;
        }
        self.come_back().await;
    }

    /// Waits until no task holds the engine any more.
    async fn is_left_by(&self, engine: &Arc<Engine>) {
        for _ in 0..50 {
            if Arc::strong_count(engine) == 1 {
                return;
            }
            tokio::task::yield_now().await;
        }
        self.broke("a task is left of the engine");
    }

    fn broke(&self, how: &str) {
        self.world.lock().broken.get_or_insert(Broken { promise: 0, how: how.into() });
    }

    /// The wall clock is set.
    fn jump(&mut self) {
        if self.world.setup.jumps {
            let jumped = self.dice(|dice| dice.pick(&[0, 1, 60, 3600]));
            self.world.tell(|| format!("the clock is {jumped} s off"));
            let mut state = self.world.lock();
            if state.jumped.abs_diff(jumped) >= 3600 {
                // The guard counts by that clock: another hour has begun.
                state.witness.removals.clear();
            }
            state.jumped = jumped;
        }
    }

    /// All is well for long, but for one store.
    async fn lull(&mut self) {
        let stores = self.world.stores.len();
        {
            let mut state = self.world.lock();
            let weather::Weather { deadly, .. } = state.weather;
            state.weather.clear(stores);
            state.weather.deadly = deadly;
            let (at, mood) = {
                let dice = &mut state.dice;
                (dice.below(stores), dice.pick(&[weather::Mood::Stalled, weather::Mood::Stalled, weather::Mood::Slow]))
            };
            state.weather.turn(weather::Part::Store(at), mood);
        }
        self.world.tell(|| "a lull".into());
        tenants::act(&self.world);
        self.pass(promises::SOON + Duration::from_mins(1)).await;
    }

    /// Faults stop.
    async fn fair_weather(&mut self) {
        self.world.tell(|| "FAIR WEATHER".into());
        {
            let mut state = self.world.lock();
            let stores = self.world.stores.len();
            state.weather.clear(stores);
        }
        // Whatever was broken off has had its effect by then.
        while !self.world.has_no_ghosts() && self.unbroken().is_ok() {
            self.pass(Duration::from_secs(1)).await;
        }
        if self.dice(|dice| dice.falls(5000)) {
            self.restart().await;
        }
        while self.are_clients_there() && self.unbroken().is_ok() {
            self.pass(Duration::from_secs(1)).await;
        }
    }

    /// Whether somebody still uploads.
    fn are_clients_there(&mut self) -> bool {
        self.serving.as_mut().is_some_and(|serving| {
            while serving.clients.try_join_next().is_some() {}
            !serving.clients.is_empty()
        })
    }
}

/// Numbered by their ids, so that a trace is read easily.
pub(crate) fn image_id(number: u32) -> ImageId {
    sample::id(number)
}
