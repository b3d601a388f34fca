//! Clients that do not read while they send, or do not read at all.

use super::*;

async fn connect(server: &Running) -> TcpStream {
    TcpStream::connect(server.address).await.unwrap()
}

/// Waits until the only seat of a server is free. The spare ones do not serve this path.
async fn free_seat(server: &Running) {
    let began = Instant::now();
    while status(server.address, "/hello").await != 200 {
        assert!(began.elapsed() < Duration::from_secs(4), "it is held");
    }
}

/// Sends the head of a request with a body of `bytes`, and all of the body before it reads, as many clients do.
async fn send_then_read(server: &Running, head: &str, bytes: usize) -> String {
    let mut peer = connect(server).await;
    peer.write_all(head.as_bytes()).await.unwrap();
    peer.write_all(&vec![b'x'; bytes]).await.unwrap();
    let mut answer = String::new();
    peer.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_response_that_is_known_early_reaches_a_client_that_is_still_sending() {
    let server = start(|_| {});
    let length = 32 << 20;
    for head in [
        format!("POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"),
        format!("POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"),
        // One chunk, longer than what is sent of it.
        "POST /refuse HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nfffffff\r\n"
            .to_owned(),
        // No head at all: hyper responds itself.
        format!("POST /refuse HTTP/1.1\r\nno colon\r\ncontent-length: {length}\r\n\r\n"),
    ] {
        for _ in 0..3 {
            let answer = send_then_read(&server, &head, length).await;
            assert!(answer.starts_with("HTTP/1.1 40"), "{head} {answer}");
        }
    }
    let refused = client(true)
        .post(format!("{}/refuse", server.url))
        .body(vec![7; length])
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 409);
}

#[tokio::test]
async fn a_client_that_is_silent_or_never_stops_sending_does_not_hold_a_refused_connection() {
    let server = start(|options| options.max_connections = 1);
    let head = b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999999\r\n\r\n";
    let mut silent = connect(&server).await;
    silent.write_all(head).await.unwrap();
    free_seat(&server).await;
    let mut sends = connect(&server).await;
    let sending = tokio::spawn(async move {
        sends.write_all(head).await.unwrap();
        while sends.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    });
    timeout(Duration::from_secs(4), sending)
        .await
        .expect("it is cut off")
        .unwrap();
}

#[tokio::test]
async fn an_idle_connection_whose_request_was_read_closes_at_once() {
    let server = start(|_| {});
    let mut peer = connect(&server).await;
    peer.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi")
        .await
        .unwrap();
    let mut answer = [0; 1024];
    while !answer.starts_with(b"HTTP/1.1 200") {
        let _ = peer.read(&mut answer).await.unwrap();
    }
    server.shutdown.token.cancel();
    // The peer keeps its side open.
    let ended = timeout(Duration::from_millis(200), server.served).await;
    ended.expect("no lingering").unwrap();
    drop(peer);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let server = start(|options| {
        options.pause_max = Duration::from_millis(200);
        options.max_connections = 1;
    });
    let mut stalled = connect(&server).await;
    stalled
        .write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    free_seat(&server).await;
    let mut read = Vec::new();
    let _ = stalled.read_to_end(&mut read).await;
    assert!(read.len() < LARGE);
}

#[tokio::test]
async fn a_client_that_reads_with_pauses_gets_all() {
    let server = start(|options| options.pause_max = Duration::from_millis(500));
    for h2 in [false, true] {
        let request = client(h2).get(format!("{}/large", server.url));
        let mut answer = request.send().await.unwrap();
        let (mut read, mut pauses) = (0, 0);
        while let Some(piece) = answer.chunk().await.unwrap() {
            read += piece.len();
            if pauses < 10 && read > pauses << 20 {
                pauses += 1;
                sleep(Duration::from_millis(100)).await;
            }
        }
        assert_eq!((read, pauses), (LARGE, 10), "h2: {h2}");
    }
}

#[tokio::test]
async fn a_stream_of_http2_that_is_not_read_is_reset_and_its_neighbours_go_on() {
    let server = start(|options| options.pause_max = Duration::from_millis(200));
    let client = client(true);
    let large = format!("{}/large", server.url);
    let mut stalled = client.get(&large).send().await.unwrap();
    for _ in 0..8 {
        sleep(Duration::from_millis(50)).await;
        let answer = client.get(format!("{}/hello", server.url)).send().await;
        assert_eq!(answer.unwrap().status(), 200);
    }
    let mut read = 0;
    let end = loop {
        match stalled.chunk().await {
            Ok(Some(piece)) => read += piece.len(),
            end => break end,
        }
    };
    assert!(end.is_err() && read < LARGE, "{read}");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_clients_that_do_not_read() {
    let server = start(|options| {
        options.pause_max = Duration::from_secs(60);
        options.drain_timeout = Duration::from_secs(60);
    });
    let mut stalled = connect(&server).await;
    stalled
        .write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let request = client(true).get(format!("{}/large", server.url));
    let unread = request.send().await.unwrap();
    stalled.read_exact(&mut [0; 100]).await.unwrap();
    server.shutdown.token.cancel();
    let ended = timeout(Duration::from_secs(5), server.served).await;
    ended
        .expect("clients that do not read are cut off")
        .unwrap();
    drop((stalled, unread));
}
