//! A small HTTP/1.1 server: smoltcp on the e1000e driver, whose model hangs on a TAP of Linux.
//!
//! `cargo run --example http` (as root) serves until Ctrl-C; with `-- --self-test` it is tried
//! by a client of its own in the TAP's namespace, and ends.

mod common;

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;

use common::{ADDRESS, Machine};
use pagewire_drivers::smoltcp::Counters;
use smoltcp::iface::SocketSet;
use smoltcp::socket::tcp;

fn main() -> Result<(), Box<dyn Error>> {
    let mut machine = Machine::start()?;
    let prefix = machine.namespace.prefix();
    println!("http://{ADDRESS}/ in a network namespace. From another shell:");
    println!("  {prefix} curl -i http://{ADDRESS}/");
    let client = common::wants_self_test().then(|| machine.namespace.spawn(client));
    let mut sockets = SocketSet::new(Vec::new());
    // A browser opens several connections at once.
    let handles: Vec<_> = (0..4)
        .map(|_| {
            let buffer = || tcp::SocketBuffer::new(vec![0; 8 << 10]);
            sockets.add(tcp::Socket::new(buffer(), buffer()))
        })
        .collect();
    loop {
        machine.poll(&mut sockets)?;
        for handle in &handles {
            serve(sockets.get_mut(*handle), machine.device.counters())?;
        }
        if client.as_ref().is_some_and(|client| client.is_finished()) {
            break;
        }
    }
    if let Some(client) = client {
        println!("{}", client.join().map_err(|_| "the client panicked")???);
    }
    machine.shut_down()
}

/// Answers a request when all of its header is there, and closes.
fn serve(socket: &mut tcp::Socket<'_>, counters: Counters) -> Result<(), Box<dyn Error>> {
    common::listen(socket, 80)?;
    if !socket.can_recv() || !socket.may_send() {
        if socket.state() == tcp::State::CloseWait {
            socket.close();
        }
        return Ok(());
    }
    let answer = socket.recv(|data| match answer(data, counters) {
        Some(answer) => (data.len(), answer),
        None => (0, Vec::new()),
    })?;
    let is_full = socket.recv_queue() == socket.recv_capacity();
    if !answer.is_empty() || is_full {
        socket.send_slice(&answer)?;
        socket.close();
    }
    Ok(())
}

/// The answer to what has arrived, if that is enough.
fn answer(data: &[u8], counters: Counters) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let (status, body) = match request.parse(data) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => match (request.method, request.path) {
            (Some("GET"), Some("/")) => ("200 OK", format!("{counters:#?}\n")),
            (Some("GET"), _) => ("404 Not Found", "there is only /\n".into()),
            _ => ("405 Method Not Allowed", "GET, please\n".into()),
        },
        Err(error) => ("400 Bad Request", format!("{error}\n")),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\n");
    Some(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into())
}

/// The kernel's TCP at the other end.
fn client() -> std::io::Result<String> {
    let mut answers = String::new();
    for path in ["/", "/nothing"] {
        let mut stream = TcpStream::connect((ADDRESS, 80))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: pagewire\r\n\r\n")?;
        stream.read_to_string(&mut answers)?;
    }
    Ok(answers)
}
