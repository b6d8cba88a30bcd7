//! The table of host names, hosts(5).

use crate::literal;
use std::net::SocketAddr;

/// The addresses of all lines that have the name.
pub fn addresses(table: &str, name: &str, port: u16) -> Vec<SocketAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let lines = table.lines().filter_map(|line| {
        let mut fields = line.split('#').next()?.split_whitespace();
        let address = fields.next()?;
        fields.any(|alias| alias.eq_ignore_ascii_case(name)).then_some(address)
    });
    lines.filter_map(|address| literal::address(address, port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_comments_and_aliases_are_read() {
        let table = "# 192.0.2.1 commented\n192.0.2.2\tfirst second # third\n\n::1 first\n\
                     bad first\n192.0.2.3";
        let found = |name| {
            let found = addresses(table, name, 80).into_iter().map(|address| address.to_string());
            found.collect::<Vec<_>>()
        };
        assert_eq!(found("first"), ["192.0.2.2:80", "[::1]:80"]);
        assert_eq!(found("SECOND"), ["192.0.2.2:80"]);
        for absent in ["third", "commented", "192.0.2.2", "#", ""] {
            assert_eq!(found(absent), [""; 0], "{absent}");
        }
    }
}
