//! A web server for one test.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use axum::Router;
use tokio::{net::TcpListener, task::JoinSet};

pub(crate) struct Server {
    pub(crate) url: String,
    _task: JoinSet<()>,
}

/// Serves on a free port until dropped.
pub(crate) async fn serve(router: Router) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut task = JoinSet::new();
    task.spawn(async move { axum::serve(listener, router).await.unwrap() });
    Server { url, _task: task }
}

/// What is seen once it no longer changes.
pub(crate) async fn settled<T: PartialEq>(look: impl Fn() -> T) -> T {
    let mut last = look();
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let now = look();
        if now == last {
            return now;
        }
        last = now;
    }
}
