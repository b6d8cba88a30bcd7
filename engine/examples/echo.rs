//! Every byte back: `cargo run --release --example echo [ADDRESS]`.

use ringwright::{Config, Connection, Engine, Handler, Origin};

struct Echo;

impl Handler for Echo {
    type State = ();

    fn opened(&mut self, _: &mut Connection<'_>, _: Origin) {}

    fn received(&mut self, _: &mut (), connection: &mut Connection<'_>, bytes: &[u8]) -> usize {
        let _ = connection.send(bytes);
        bytes.len()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".into());
    let config = Config { listeners: vec![address.parse()?], ..Config::default() };
    let engine = Engine::start(config, |_| Echo)?;
    println!("listening on {}", engine.addresses()[0]);
    engine.join()?;
    Ok(())
}
