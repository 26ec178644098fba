use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::StreamExt;
use lapin::{
    Acker, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::FieldTable,
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo},
};
use mimeo_core::{
    Backoff, Error, Reason, Result,
    ports::{Acknowledge, Delivery, Events, EventsHealth},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    RabbitConfig,
    config::Broker,
    message::{Message, parse},
};
use crate::Live;

/// Messages that the broker hands over before the first of them is acknowledged.
const PREFETCH: u16 = 256;

/// A message may have any number of frames. The library keeps two buffers of 32 frames for each connection: of the broker's
/// own 128 KiB these would be 8 MiB.
const FRAME: u32 = 16 << 10;

/// Glance sends at these priorities; the routing key is `<topic>.<priority>`.
const PRIORITIES: [&str; 3] = ["info", "warn", "error"];

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(30) };

/// For a connection with all that is declared on it.
const SETUP_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that lasted so long counts as one that worked.
const STABLE: Duration = Duration::from_secs(5);

/// Notifications from RabbitMQ. A task of its own keeps the connection, so that [`Events::next`] may be dropped at
/// any point; the task ends with this value.
pub struct RabbitEvents {
    deliveries: mpsc::Receiver<Delivery>,
    health: Arc<EventsHealth>,
    config: Live<RabbitConfig>,
    _supervisor: JoinSet<()>,
}

impl RabbitEvents {
    /// Starts to connect, within a tokio runtime.
    pub fn new(config: RabbitConfig) -> Self {
        let (sender, deliveries) = mpsc::channel(usize::from(PREFETCH));
        let health = Arc::new(EventsHealth::default());
        let mut supervisor = JoinSet::new();
        let config = Live::new(config);
        supervisor.spawn(supervise(config.clone(), health.clone(), sender));
        Self { deliveries, health, config, _supervisor: supervisor }
    }

    /// What the next connection is made by.
    pub fn config(&self) -> Live<RabbitConfig> {
        self.config.clone()
    }
}

#[async_trait]
impl Events for RabbitEvents {
    async fn next(&mut self) -> Option<Delivery> {
        self.deliveries.recv().await
    }

    fn health(&self) -> Arc<EventsHealth> {
        self.health.clone()
    }
}

/// Connects, consumes, and on any error builds all of it anew, for as long as somebody listens.
async fn supervise(config: Live<RabbitConfig>, health: Arc<EventsHealth>, deliveries: mpsc::Sender<Delivery>) {
    let mut failures = 0;
    while !deliveries.is_closed() {
        let config = config.get();
        let error = match connect(&config).await {
            Ok((connection, consumer, broker)) => {
                let began = Instant::now();
                tracing::info!(%broker, queue = config.queue, "notifications: connected");
                health.update(|state| (state.connected, state.last_error) = (true, None));
                let error = consume(consumer, &health, &deliveries).await;
                drop(connection);
                // A subscription that ends as soon as it begins is no success.
                if began.elapsed() > STABLE {
                    failures = 0;
                }
                error
            }
            Err(error) => error,
        };
        failures += 1;
        // Said once for as long as it lasts; each later attempt is of interest to nobody but a developer.
        if failures == 1 {
            tracing::warn!(error = error.chain(), "notifications: no connection; the scan goes on without them");
        } else {
            tracing::debug!(error = error.chain(), failures, "notifications: still no connection");
        }
        health.update(|state| (state.connected, state.last_error) = (false, Some(error.chain())));
        sleep(BACKOFF.delay(failures)).await;
    }
}

/// The first broker that answers.
async fn connect(config: &RabbitConfig) -> Result<(Connection, Consumer, &Broker)> {
    let mut last = None;
    for broker in &config.transport_url.brokers {
        let failed = || Error::new(Reason::Events, format!("RabbitMQ at {broker} cannot be used"));
        match timeout(SETUP_TIMEOUT, set_up(config, broker)).await {
            Ok(Ok((connection, consumer))) => return Ok((connection, consumer, broker)),
            Ok(Err(cause)) => last = Some(failed().caused_by(cause)),
            Err(elapsed) => last = Some(failed().caused_by(elapsed)),
        }
    }
    Err(last.unwrap_or_else(|| Error::new(Reason::Events, "no broker is configured")))
}

async fn set_up(config: &RabbitConfig, broker: &Broker) -> lapin::Result<(Connection, Consumer)> {
    let properties = ConnectionProperties::default().with_connection_name("mimeo".into());
    let connection = Connection::connect_uri(uri(config, broker), properties).await?;
    let channel = declare_exchange(&connection, &config.exchange).await?;
    let channel = declare_queue(&connection, channel, config).await?;
    for (topic, priority) in config.topics.iter().flat_map(|topic| PRIORITIES.map(|priority| (topic, priority))) {
        let key = format!("{topic}.{priority}");
        let (queue, exchange) = (config.queue.as_str().into(), config.exchange.as_str().into());
        channel.queue_bind(queue, exchange, key.into(), QueueBindOptions::default(), FieldTable::default()).await?;
    }
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let (queue, options) = (config.queue.as_str().into(), BasicConsumeOptions::default());
    let consumer = channel.basic_consume(queue, "".into(), options, FieldTable::default()).await?;
    Ok((connection, consumer))
}

/// Declares the exchange as Glance does by default, or takes it as it is: whoever declares it first decides whether
/// it is durable, and the broker closes the channel of one who asks for another kind (406).
async fn declare_exchange(connection: &Connection, exchange: &str) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    let as_glance_does = ExchangeDeclareOptions::default();
    let topic = || ExchangeKind::Topic;
    match channel.exchange_declare(exchange.into(), topic(), as_glance_does, FieldTable::default()).await {
        Err(error) if is_precondition_failed(&error) => {
            let channel = connection.create_channel().await?;
            let as_it_is = ExchangeDeclareOptions { passive: true, ..Default::default() };
            channel.exchange_declare(exchange.into(), topic(), as_it_is, FieldTable::default()).await?;
            Ok(channel)
        }
        other => other.map(|()| channel),
    }
}

/// Durable: what happens while Mimeo is down waits there. A queue that an operator made otherwise is taken as it is.
async fn declare_queue(connection: &Connection, channel: Channel, config: &RabbitConfig) -> lapin::Result<Channel> {
    let temporary = config.temporary;
    let options =
        QueueDeclareOptions { durable: !temporary, exclusive: temporary, auto_delete: temporary, ..Default::default() };
    match channel.queue_declare(config.queue.as_str().into(), options, FieldTable::default()).await {
        Err(error) if is_precondition_failed(&error) => {
            let channel = connection.create_channel().await?;
            let as_it_is = QueueDeclareOptions { passive: true, ..Default::default() };
            channel.queue_declare(config.queue.as_str().into(), as_it_is, FieldTable::default()).await?;
            Ok(channel)
        }
        other => other.map(|_| channel),
    }
}

fn is_precondition_failed(error: &lapin::Error) -> bool {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => {
            *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
        }
        _ => false,
    }
}

fn uri(config: &RabbitConfig, broker: &Broker) -> AMQPUri {
    let tls = config.transport_url.tls;
    AMQPUri {
        scheme: if tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: broker.user.clone(), password: broker.password.clone() },
            host: broker.host.clone(),
            port: broker.port,
        },
        vhost: config.transport_url.vhost.clone(),
        query: AMQPQueryString {
            heartbeat: Some(u16::try_from(config.heartbeat.as_secs()).unwrap_or(u16::MAX)),
            connection_timeout: u64::try_from(SETUP_TIMEOUT.as_millis()).ok(),
            frame_max: Some(FRAME),
            ..Default::default()
        },
    }
}

/// Hands messages over until the connection fails, and says why it did.
async fn consume(mut consumer: Consumer, health: &EventsHealth, deliveries: &mpsc::Sender<Delivery>) -> Error {
    while let Some(message) = consumer.next().await {
        let message = match message {
            Ok(message) => message,
            Err(cause) => return Error::new(Reason::Events, "the connection to RabbitMQ broke").caused_by(cause),
        };
        health.update(|state| state.received += 1);
        let ack = Box::new(RabbitAck(message.acker));
        match parse(&message.data) {
            Ok(Message::Image(event)) => {
                if deliveries.send(Delivery { event, ack }).await.is_err() {
                    return Error::new(Reason::Cancelled, "nobody listens any more");
                }
            }
            Ok(Message::Foreign) => ack.acknowledge().await,
            Err(bad) => {
                health.update(|state| state.bad += 1);
                let (id, size) = (bad.id.as_deref().unwrap_or("unknown"), message.data.len());
                tracing::warn!(message_id = ?id, size, "notifications: a message was passed over: {}", bad.why);
                ack.acknowledge().await;
            }
        }
    }
    Error::new(Reason::Events, "RabbitMQ ended the subscription: the queue was deleted, most likely")
}

struct RabbitAck(Acker);

#[async_trait]
impl Acknowledge for RabbitAck {
    /// On a connection that is gone this has no effect, and the message comes again.
    async fn acknowledge(self: Box<Self>) {
        if let Err(error) = self.0.ack(BasicAckOptions::default()).await {
            tracing::debug!(%error, "notifications: an acknowledgement was lost; the message comes again");
        }
    }
}
