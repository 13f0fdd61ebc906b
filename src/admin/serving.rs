//! Connections of the sidecar: accepted as far as there is room, cut off when they dawdle, ended in
//! order.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::{Context, Stage, routes};
use crate::mesh::AdminInbox;

/// Without descriptors: until accepting is tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For responses under way when all shards have ended.
const LEAVE: Duration = Duration::from_millis(500);

/// Serves until [`Stage::Ending`].
pub async fn serve(
    listener: TcpListener,
    context: Arc<Context>,
    inbox: AdminInbox,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    let mut ending = context.stage.clone();
    let served = tokio::select! {
        served = accept(&listener, &context, &mut connections) => served,
        () = context.shards.keep_flushing() => Ok(()),
        answered = context.shards.keep_answering(inbox) => answered,
        () = ended(&mut ending) => Ok(()),
    };
    drop(listener);
    context.shards.give_up();
    let leave = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(LEAVE, leave).await.is_err() {
        tracing::warn!("the server API drops connections that do not read their answers");
    }
    served
}

/// Takes connections, for ever.
async fn accept(
    listener: &TcpListener,
    context: &Arc<Context>,
    connections: &mut JoinSet<()>,
) -> io::Result<()> {
    let router = routes::router(Arc::clone(context));
    let room = Arc::new(Semaphore::new(context.config.admin.max_connections));
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "the server API cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let (router, stage) = (router.clone(), context.stage.clone());
        let timeout = context.config.admin.timeout;
        connections.spawn(async move {
            converse(stream, router, timeout, stage).await;
            drop(place);
        });
    }
}

/// One connection, from request to request.
async fn converse(
    stream: TcpStream,
    router: Router,
    timeout: Duration,
    mut stage: watch::Receiver<Stage>,
) {
    let socket = SockRef::from(&stream);
    // Both fail only on a socket that is no TCP socket. The second ends a peer that takes no bytes.
    drop(socket.set_tcp_nodelay(true));
    drop(socket.set_tcp_user_timeout(Some(timeout)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(timeout);
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = ended(&mut stage) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection of the server API ended early");
    }
}

/// Comes back when all shards have ended.
async fn ended(stage: &mut watch::Receiver<Stage>) {
    // Without a sender the server is gone.
    drop(stage.wait_for(|stage| *stage == Stage::Ending).await);
}
