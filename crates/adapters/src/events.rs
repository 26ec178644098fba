//! Notifications of the image service.

pub mod rabbitmq;
