//! Small programs, by hand: what is compared with, and nothing else.

use crate::bpf::Insn;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// A program as it grows.
#[derive(Debug, Default)]
pub(crate) struct Program(pub(crate) Vec<Insn>);

/// `bpf_map_lookup_elem`
const LOOKUP: i32 = 1;
/// `bpf_get_prandom_u32`
const RANDOM: i32 = 7;
/// `bpf_skb_load_bytes`
const LOAD_BYTES: i32 = 26;

impl Program {
    fn push(mut self, code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Self {
        self.0.push(Insn {
            code,
            registers: dst | src << 4,
            offset,
            immediate,
        });
        self
    }

    /// `dst = value`
    pub(crate) fn set(self, dst: u8, value: i32) -> Self {
        self.push(0xb7, dst, 0, 0, value)
    }

    /// The low 32 bits of `dst = value`, the high ones 0.
    pub(crate) fn set_short(self, dst: u8, value: i32) -> Self {
        self.push(0xb4, dst, 0, 0, value)
    }

    /// `dst = src`
    pub(crate) fn copy(self, dst: u8, src: u8) -> Self {
        self.push(0xbf, dst, src, 0, 0)
    }

    /// `dst += value`
    pub(crate) fn add(self, dst: u8, value: i32) -> Self {
        self.push(0x07, dst, 0, 0, value)
    }

    /// `dst &= value`
    pub(crate) fn and(self, dst: u8, value: i32) -> Self {
        self.push(0x57, dst, 0, 0, value)
    }

    /// `dst |= value`
    pub(crate) fn or(self, dst: u8, value: i32) -> Self {
        self.push(0x47, dst, 0, 0, value)
    }

    /// The low 32 bits of `dst |= value`, the high ones 0.
    pub(crate) fn or_short(self, dst: u8, value: i32) -> Self {
        self.push(0x44, dst, 0, 0, value)
    }

    /// `dst <<= value`
    pub(crate) fn shift_left(self, dst: u8, value: i32) -> Self {
        self.push(0x67, dst, 0, 0, value)
    }

    /// The low 32 bits, swapped to network order.
    pub(crate) fn network_order(self, dst: u8) -> Self {
        self.push(0xdc, dst, 0, 0, 32)
    }

    /// `stack[offset] = value`, 32 bits.
    pub(crate) fn store(self, offset: i16, value: i32) -> Self {
        self.push(0x62, 10, 0, offset, value)
    }

    /// `dst[0] = value`, 32 bits.
    pub(crate) fn store_at(self, dst: u8, value: i32) -> Self {
        self.push(0x62, dst, 0, 0, value)
    }

    /// `stack[offset] = src`, 32 bits.
    pub(crate) fn store_register(self, offset: i16, src: u8) -> Self {
        self.push(0x63, 10, src, offset, 0)
    }

    /// `dst = stack[offset]`, 32 bits.
    pub(crate) fn load(self, dst: u8, src: u8, offset: i16) -> Self {
        self.push(0x61, dst, src, offset, 0)
    }

    /// Skips `count` instructions if `dst == value`.
    pub(crate) fn skip_if(self, dst: u8, value: i32, count: i16) -> Self {
        self.push(0x15, dst, 0, count, value)
    }

    /// Skips `count` instructions unless `dst == value`.
    pub(crate) fn skip_unless(self, dst: u8, value: i32, count: i16) -> Self {
        self.push(0x55, dst, 0, count, value)
    }

    /// `r0` = a random number.
    pub(crate) fn random(self) -> Self {
        self.push(0x85, 0, 0, 0, RANDOM)
    }

    /// `r0` = the element of `map` whose key is on the stack, 3 instructions
    /// and a call.
    pub(crate) fn look_up(self, map: &OwnedFd, key: i16) -> Self {
        self.push(0x18, 1, 1, 0, map.as_raw_fd())
            .push(0, 0, 0, 0, 0)
            .copy(2, 10)
            .add(2, i32::from(key))
            .push(0x85, 0, 0, 0, LOOKUP)
    }

    /// `add_lookup_instructions` of systemd: unless the packet in `r6`, of the
    /// protocol in `r7`, is of this one, nothing; else the bit in `r8` if the
    /// address `from` there, of so many bytes, is in `map`.
    pub(crate) fn ask(self, protocol: u16, from: i32, size: i16, map: &OwnedFd, bit: i32) -> Self {
        self.skip_unless(7, i32::from(protocol.to_be()), 14)
            .copy(1, 6)
            .set_short(2, from)
            .copy(3, 10)
            .add(3, -i32::from(size))
            .set_short(4, size.into())
            .push(0x85, 0, 0, 0, LOAD_BYTES)
            .push(0x18, 1, 1, 0, map.as_raw_fd())
            .push(0, 0, 0, 0, 0)
            .copy(2, 10)
            .add(2, -i32::from(size) - 4)
            .store_at(2, i32::from(size) * 8)
            .push(0x85, 0, 0, 0, LOOKUP)
            .skip_if(0, 0, 1)
            .or_short(8, bit)
    }

    /// Ends with `r0`.
    pub(crate) fn exit(self) -> Self {
        self.push(0x95, 0, 0, 0, 0)
    }
}

/// Lets everything pass: the floor.
pub(crate) fn pass() -> Program {
    Program::default().set(0, 1).exit()
}
