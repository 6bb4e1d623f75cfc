//! The kernel side: one object, one module a hook.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

/// Loops, so that the kernel's verifier refuses a program that could panic.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
