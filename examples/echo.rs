//! A TCP echo server: smoltcp on the e1000e driver, whose model hangs on a TAP of Linux.
//!
//! `cargo run --example echo` (as root) serves until Ctrl-C; with `-- --self-test` it is tried
//! by a client of its own in the TAP's namespace, and ends.

mod common;

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use common::{ADDRESS, Machine};
use smoltcp::iface::SocketSet;
use smoltcp::socket::tcp;

const PORT: u16 = 7;

fn main() -> Result<(), Box<dyn Error>> {
    let mut machine = Machine::start()?;
    let prefix = machine.namespace.prefix();
    println!("echo on {ADDRESS} port {PORT}, in a network namespace. From another shell:");
    println!("  {prefix} ping -c 3 {ADDRESS}");
    println!("  {prefix} curl telnet://{ADDRESS}:{PORT}");
    let client = common::wants_self_test().then(|| machine.namespace.spawn(client));
    let buffer = || tcp::SocketBuffer::new(vec![0; 64 << 10]);
    let mut sockets = SocketSet::new(Vec::new());
    let handle = sockets.add(tcp::Socket::new(buffer(), buffer()));
    loop {
        machine.poll(&mut sockets)?;
        serve(sockets.get_mut(handle))?;
        if client.as_ref().is_some_and(|client| client.is_finished()) {
            break;
        }
    }
    if let Some(client) = client {
        println!("{}", client.join().map_err(|_| "the client panicked")???);
    }
    println!("{:#?}", machine.device.counters());
    machine.shut_down()
}

/// Sends back what has arrived, and closes when the peer has.
fn serve(socket: &mut tcp::Socket<'_>) -> Result<(), Box<dyn Error>> {
    common::listen(socket, PORT)?;
    while socket.can_recv() && socket.can_send() {
        let room = socket.send_capacity() - socket.send_queue();
        let data = socket.recv(|data| {
            let len = data.len().min(room);
            (len, data[..len].to_vec())
        })?;
        socket.send_slice(&data)?;
    }
    if !socket.may_recv() && socket.may_send() && !socket.can_recv() {
        socket.close();
    }
    Ok(())
}

/// The kernel's TCP at the other end: sends a megabyte and compares what comes back.
fn client() -> std::io::Result<String> {
    let sent: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
    let mut stream = TcpStream::connect((ADDRESS, PORT))?;
    let mut writer = stream.try_clone()?;
    let bytes = sent.clone();
    let sender = std::thread::spawn(move || {
        writer.write_all(&bytes)?;
        writer.shutdown(Shutdown::Write)
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    sender
        .join()
        .map_err(|_| std::io::Error::other("the sender panicked"))??;
    if received == sent {
        Ok(format!("echoed {} bytes, all equal", received.len()))
    } else {
        Err(std::io::Error::other("what came back is not what was sent"))
    }
}
