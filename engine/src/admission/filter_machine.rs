//! An interpreter for the instructions that our socket filters use, for tests.

use super::filter::{
    AND, IF_ABOVE, IF_AT_LEAST, IF_EQUAL, JUMP, LOAD_BYTE, LOAD_STORED, LOAD_WORD, NETWORK, RETURN,
    SHIFT_RIGHT, STORE,
};
use crate::ring::Instruction;
use std::net::IpAddr;

/// Returns whether a packet passes.
pub fn run_filter(program: &[Instruction], network: &[u8], tcp: &[u8]) -> bool {
    let (mut at, mut accumulator, mut memory) = (0, 0u32, [0u32; 16]);
    for _ in 0..program.len() {
        let Instruction { code, jump_true, jump_false, k } = program[at];
        at += 1;
        let packet = |length: usize| {
            let from_network = k >= NETWORK;
            let offset = if from_network { k - NETWORK } else { k } as usize;
            &(if from_network { network } else { tcp })[offset..offset + length]
        };
        let jump = |holds: bool| usize::from(if holds { jump_true } else { jump_false });
        match code {
            LOAD_WORD => accumulator = u32::from_be_bytes(packet(4).try_into().unwrap()),
            LOAD_BYTE => accumulator = u32::from(packet(1)[0]),
            STORE => memory[k as usize] = accumulator,
            LOAD_STORED => accumulator = memory[k as usize],
            AND => accumulator &= k,
            SHIFT_RIGHT => accumulator >>= k,
            JUMP => at += k as usize,
            IF_EQUAL => at += jump(accumulator == k),
            IF_AT_LEAST => at += jump(accumulator >= k),
            IF_ABOVE => at += jump(accumulator > k),
            RETURN => return k > 0,
            _ => panic!("{code:#x} is not used"),
        }
    }
    panic!("no end");
}

/// The header of a packet from an address, with the fields that a filter reads.
pub fn network_header(source: IpAddr) -> Vec<u8> {
    match source {
        IpAddr::V4(v4) => {
            let mut header = vec![0; 20];
            header[0] = 0x45;
            header[12..16].copy_from_slice(&v4.octets());
            header
        }
        IpAddr::V6(v6) => {
            let mut header = vec![0; 40];
            header[0] = 0x60;
            header[8..24].copy_from_slice(&v6.octets());
            header
        }
    }
}
