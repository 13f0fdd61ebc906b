//! The server with tokio-tungstenite, as Rust programs use it.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::Server;

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

const PATIENCE: Duration = Duration::from_secs(20);
const SUBSCRIBERS: usize = 60;
const PUBLISHERS: usize = 6;
const PUBLICATIONS: usize = 40;

async fn text(client: &mut Client) -> String {
    let message = timeout(PATIENCE, client.next()).await.expect("in time");
    message.expect("still open").expect("a message").into_text().expect("text").to_string()
}

async fn connect(url: &str) -> Client {
    connect_async(url).await.expect("upgraded").0
}

#[tokio::test]
async fn subscribers_agree_on_the_order() {
    let server = Server::start(&["--shards", "2"]);
    let url = server.url();
    let mut subscribers = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let mut client = connect(&url).await;
        let subscribe = r#"{"action":"subscribe","channel":"news"}"#;
        client.send(Message::text(subscribe)).await.expect("sent");
        let confirmation =
            r#"{"channel":"system","data":{"type":"subscription_confirm","channel":"news"}}"#;
        assert_eq!(text(&mut client).await, confirmation);
        subscribers.push(client);
    }
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let url = url.clone();
        async move {
            let mut client = connect(&url).await;
            for number in 0..PUBLICATIONS {
                let publish = format!(
                    r#"{{"action":"publish","channel":"news","data":[{publisher},{number}]}}"#
                );
                client.send(Message::text(publish)).await.expect("sent");
            }
            client.close(None).await.expect("closed");
        }
    });
    futures_util::future::join_all(publishers).await;
    let mut orders = Vec::new();
    for client in &mut subscribers {
        let mut order = Vec::new();
        for _ in 0..PUBLISHERS * PUBLICATIONS {
            order.push(text(client).await);
        }
        orders.push(order);
    }
    assert!(orders.iter().all(|order| *order == orders[0]));
    for publisher in 0..PUBLISHERS {
        let own = orders[0].iter().filter(|text| text.contains(&format!("[{publisher},")));
        let expected = (0..PUBLICATIONS)
            .map(|number| format!(r#"{{"channel":"news","data":[{publisher},{number}]}}"#));
        assert!(own.cloned().eq(expected), "a publisher's own order is kept");
    }
}

#[tokio::test]
async fn the_subprotocol_is_negotiated() {
    let server = Server::start(&[]);
    let mut request = server.url().into_client_request().expect("a url");
    let header = "stentor.v1.json".parse().expect("a header");
    request.headers_mut().insert("Sec-WebSocket-Protocol", header);
    let (mut client, response) = connect_async(request).await.expect("upgraded");
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "stentor.v1.json");
    assert!(text(&mut client).await.starts_with(r#"{"type":"welcome","#));
    client.send(Message::text(r#"{"type":"ping"}"#)).await.expect("sent");
    assert_eq!(text(&mut client).await, r#"{"type":"pong"}"#);
    client.close(None).await.expect("closed");
}
