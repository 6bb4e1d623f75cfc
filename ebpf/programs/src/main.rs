//! The kernel side: one object, one module a hook.
//!
//! Every hook that judges asks [`decide`], the one verdict function; hooks
//! differ only in what they read. Fails closed: what cannot be parsed, looked
//! up or recorded is refused. It never lets a packet pass because reporting it
//! failed, and never refuses one because a counter did.
//!
//! Built with `cargo build -p merestone-programs --profile bpf --target
//! bpfel-unknown-none` (the linker and its flags are in `.cargo/config.toml`),
//! with a compiler that has a BPF core; `cargo xtask build` picks one. The
//! result is `target/bpfel-unknown-none/bpf/merestone-bpf`.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        unsafe_code,
        reason = "context fields, maps and helpers are raw reads that the kernel's verifier checks"
    )
)]

#[cfg(target_arch = "bpf")]
mod address;
#[cfg(target_arch = "bpf")]
mod clear;
#[cfg(target_arch = "bpf")]
mod create;
#[cfg(target_arch = "bpf")]
mod decide;
#[cfg(target_arch = "bpf")]
mod deputy;
#[cfg(target_arch = "bpf")]
mod device;
#[cfg(target_arch = "bpf")]
mod dns;
#[cfg(target_arch = "bpf")]
mod egress;
#[cfg(target_arch = "bpf")]
mod emit;
#[cfg(target_arch = "bpf")]
mod files;
#[cfg(target_arch = "bpf")]
mod grants;
#[cfg(target_arch = "bpf")]
mod guarded;
#[cfg(target_arch = "bpf")]
mod ingress;
#[cfg(target_arch = "bpf")]
mod kill;
#[cfg(target_arch = "bpf")]
mod layout;
#[cfg(target_arch = "bpf")]
mod lineage;
#[cfg(target_arch = "bpf")]
mod link;
#[cfg(target_arch = "bpf")]
mod listener;
#[cfg(target_arch = "bpf")]
mod lsm;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod names;
#[cfg(target_arch = "bpf")]
mod options;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod power;
#[cfg(target_arch = "bpf")]
mod probe;
#[cfg(target_arch = "bpf")]
mod protocols;
#[cfg(target_arch = "bpf")]
mod reach;
#[cfg(target_arch = "bpf")]
mod selected;
#[cfg(target_arch = "bpf")]
mod sockets;
#[cfg(target_arch = "bpf")]
mod stance;
#[cfg(target_arch = "bpf")]
mod streams;
#[cfg(target_arch = "bpf")]
mod sysctl;
#[cfg(target_arch = "bpf")]
mod tamper;
#[cfg(target_arch = "bpf")]
mod turns;
#[cfg(target_arch = "bpf")]
mod unix;
#[cfg(target_arch = "bpf")]
mod verdicts;

/// The kernel offers some helpers (`bpf_probe_read_kernel`, `bpf_send_signal`)
/// only to programs whose licence is compatible with its own.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Loops, so that the kernel's verifier refuses a program that could panic.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
