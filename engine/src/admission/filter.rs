//! Socket filters for listeners (classic BPF, socket(7) `SO_ATTACH_FILTER`). A dropped SYN gets no
//! SYN-ACK.
//!
//! IPv4 ranges are searched by halves, IPv6 prefixes one after the other. Accepted sockets inherit
//! the filter of their listener, and the shard takes it off.

use super::Bans;
use crate::ring::Instruction;

/// The limit on instructions of a filter (`BPF_MAXINSNS`).
const INSTRUCTIONS_MAX: usize = 4096;
/// Up to this number of ranges are compared one after the other. More are searched by halves.
const LEAF: usize = 4;
/// Offsets from here on count from the network header (`SKF_NET_OFF`).
pub(super) const NETWORK: u32 = -0x10_0000i32 as u32;
const SOURCE_V4: u32 = NETWORK + 12;
const SOURCE_V6: u32 = NETWORK + 8;
/// The offset of the flags in the TCP header. A filter on a TCP socket counts from that header.
const TCP_FLAGS: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;

pub(super) const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
pub(super) const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
pub(super) const LOAD_STORED: u16 = (libc::BPF_LD | libc::BPF_MEM) as u16;
pub(super) const STORE: u16 = libc::BPF_ST as u16;
pub(super) const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
pub(super) const SHIFT_RIGHT: u16 = (libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K) as u16;
pub(super) const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
pub(super) const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
pub(super) const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
pub(super) const IF_ABOVE: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
pub(super) const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const ACCEPT: Instruction = plain(RETURN, u32::MAX);
const DROP: Instruction = plain(RETURN, 0);

const fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, k }
}

/// A conditional jump over `jump_true` or `jump_false` instructions.
const fn branch(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, k }
}

/// The program that drops packets from banned addresses. `None` if it would be too long for the
/// kernel.
pub fn program(bans: &Bans) -> Option<Vec<Instruction>> {
    let mut v4 = vec![plain(LOAD_WORD, SOURCE_V4)];
    search_v4(bans.ranges_v4(), &mut v4);
    // A load from the packet is a call inside the kernel. A load from scratch memory is not.
    let mut v6 = Vec::new();
    for word in 0..4 {
        v6.push(plain(LOAD_WORD, SOURCE_V6 + 4 * word));
        v6.push(plain(STORE, word));
    }
    for (first, last) in bans.ranges_v6() {
        prefixes_v6(*first, *last, |first, bits| compare_v6(first, bits, &mut v6));
    }
    v6.push(ACCEPT);
    // IPv4 clients of an IPv6 listener come with an IPv4 header, too.
    let mut program = vec![
        plain(LOAD_BYTE, NETWORK),
        plain(SHIFT_RIGHT, 4),
        branch(IF_EQUAL, 6, 0, 1),
        plain(JUMP, v4.len() as u32),
    ];
    program.append(&mut v4);
    program.append(&mut v6);
    (program.len() <= INSTRUCTIONS_MAX).then_some(program)
}

/// The program that drops the first packet of every handshake. No new handshake begins; those in
/// progress can complete.
pub fn no_new_handshakes() -> Vec<Instruction> {
    vec![
        plain(LOAD_BYTE, TCP_FLAGS),
        plain(AND, SYN | ACK),
        branch(IF_EQUAL, SYN, 0, 1),
        DROP,
        ACCEPT,
    ]
}

/// Appends instructions that drop if the loaded address is in one of the sorted ranges.
fn search_v4(ranges: &[(u32, u32)], program: &mut Vec<Instruction>) {
    if ranges.len() > LEAF {
        let (below, above) = ranges.split_at(ranges.len() / 2);
        let mut left = Vec::new();
        search_v4(below, &mut left);
        program.push(branch(IF_AT_LEAST, above[0].0, 0, 1));
        program.push(plain(JUMP, left.len() as u32));
        program.append(&mut left);
        return search_v4(above, program);
    }
    for (first, last) in ranges {
        program.push(branch(IF_AT_LEAST, *first, 0, 2));
        program.push(branch(IF_ABOVE, *last, 1, 0));
        program.push(DROP);
    }
    program.push(ACCEPT);
}

/// Appends instructions that drop if the source address has the prefix.
fn compare_v6(first: u128, bits: u32, program: &mut Vec<Instruction>) {
    let mut words = Vec::new();
    for word in 0..bits.div_ceil(32) {
        let value = (first >> (96 - 32 * word)) as u32;
        words.push(plain(LOAD_STORED, word));
        let partial = bits - 32 * word;
        if partial < 32 {
            words.push(plain(AND, u32::MAX << (32 - partial)));
        }
        words.push(branch(IF_EQUAL, value, 0, 0));
    }
    words.push(DROP);
    let end = words.len();
    for (at, instruction) in words.iter_mut().enumerate() {
        if instruction.code == IF_EQUAL {
            instruction.jump_false = (end - at - 1) as u8;
        }
    }
    program.append(&mut words);
}

/// Calls `each` with the prefixes that make up a range.
fn prefixes_v6(first: u128, last: u128, mut each: impl FnMut(u128, u32)) {
    let mut next = Some(first);
    while let Some(first) = next
        && first <= last
    {
        let aligned = first.trailing_zeros();
        let fits = (last - first).checked_add(1).map_or(128, |count| count.ilog2());
        let block = aligned.min(fits);
        each(first, 128 - block);
        next = 1u128.checked_shl(block).and_then(|length| first.checked_add(length));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Prefix;
    use crate::admission::filter_machine::{network_header, run_filter};
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn address() -> impl Strategy<Value = IpAddr> {
        let v6 = (0..16u128, 0..16u128).prop_map(|(high, low)| {
            Ipv6Addr::from(0x2001 << 112 | high << 62 | low << 30 | high).into()
        });
        prop_oneof![
            (0..256u32).prop_map(|low| Ipv4Addr::from(0x0a00_0000 | low << 3).into()),
            any::<u32>().prop_map(|all| Ipv4Addr::from(all).into()),
            v6,
            any::<u128>().prop_map(|all| Ipv6Addr::from(all | 1 << 127).into()),
        ]
    }

    fn prefix() -> impl Strategy<Value = Prefix> {
        (address(), 0..=128u8).prop_map(|(address, bits)| {
            let bits = if address.is_ipv4() { 32 - bits % 8 } else { bits };
            Prefix::new(address, bits).unwrap()
        })
    }

    proptest! {
        #[test]
        fn the_filter_drops_what_the_list_contains(
            prefixes in prop::collection::vec(prefix(), 0..60),
            addresses in prop::collection::vec(address(), 1..30),
        ) {
            let bans = Bans::new(&prefixes);
            let program = program(&bans).expect("short enough");
            for address in addresses {
                let dropped = !run_filter(&program, &network_header(address), &[]);
                prop_assert_eq!(dropped, bans.contains(address), "{}", address);
            }
        }
    }

    #[test]
    fn a_thousand_scattered_addresses_fit_and_two_thousand_do_not() {
        let list = |count: u32| {
            let scattered = |at| Prefix::from(IpAddr::from(Ipv4Addr::from(at * 0x1_0001 + 7)));
            Bans::new(&(0..count).map(scattered).collect::<Vec<_>>())
        };
        let bans = list(1000);
        let program = program(&bans).expect("fits");
        for (first, _) in bans.ranges_v4() {
            assert!(!run_filter(&program, &network_header(Ipv4Addr::from(*first).into()), &[]));
            assert!(run_filter(&program, &network_header(Ipv4Addr::from(first + 1).into()), &[]));
        }
        assert!(super::program(&list(2000)).is_none());
    }

    #[test]
    fn only_first_packets_of_handshakes_are_dropped() {
        let program = no_new_handshakes();
        let (fin, rst) = (0x01, 0x04);
        for (flags, expected) in
            [(SYN, false), (SYN | ACK, true), (ACK, true), (ACK | fin, true), (rst, true)]
        {
            let mut tcp = [0; 20];
            tcp[13] = flags as u8;
            assert_eq!(run_filter(&program, &[], &tcp), expected, "flags {flags:#x}");
        }
    }
}
