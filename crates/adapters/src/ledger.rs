//! Durable records.

pub mod sqlite;
