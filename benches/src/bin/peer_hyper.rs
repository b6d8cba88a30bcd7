//! `ringwright-peer-hyper`: an HTTP/1.1 server on hyper and tokio with the body in memory.

use std::convert::Infallible;
use std::io;
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT_RANGES, CONTENT_TYPE, ETAG, HeaderValue, LAST_MODIFIED};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ringwright_benches::peer;
use tokio::net::TcpListener;

/// The options of this server.
#[derive(Args)]
struct Options {
    /// Size of the body in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(..=1 << 30))]
    size: u32,
    /// Flush the replies to pipelined requests together instead of one by one, hyper's default.
    #[arg(long)]
    pipeline_flush: bool,
}

fn main() -> ExitCode {
    let about = "HTTP server on hyper and tokio, for comparison: one thread, one task per \
                 connection. Answers every request with 200, a body from memory, and the header \
                 fields of a file server";
    peer::main("ringwright-peer-hyper", about, "http", run)
}

fn run(listener: std::net::TcpListener, options: &Options) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let body = Bytes::from(vec![b'x'; options.size as usize]);
    let mut http = http1::Builder::new();
    http.pipeline_flush(options.pipeline_flush);
    // Without half_close, hyper may close before the last reply when the client sends its FIN.
    http.half_close(true);
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let body = body.clone();
            let service = service_fn(move |_: Request<Incoming>| reply(body.clone()));
            let connection = http.serve_connection(TokioIo::new(stream), service);
            // Errors are caused by the client: a reset or an invalid request.
            tokio::spawn(async { connection.await.is_ok() });
        }
    })
}

async fn reply(body: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(body));
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    fields.insert(ETAG, HeaderValue::from_static("\"000000006b013823150b9390-0000000000002ba2\""));
    fields.insert(LAST_MODIFIED, HeaderValue::from_static("Sat, 21 Nov 2026 06:20:19 GMT"));
    Ok(response)
}
