//! Affiant's kernel side: it observes, numbers and hands over; it judges nothing and names no one.
//!
//! # Building
//! The object is built for `bpfel-unknown-none` with Debian's toolchain, which carries a precompiled `core` for it
//! (packages `rustc-web cargo-web libstd-rust-web-dev-bpf rust-web-llvm`), and `bpf-linker` 0.13 on `PATH`:
//! ```text
//! RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
//! RUSTFLAGS="-C debuginfo=2 -C target-cpu=v3 -C link-arg=--btf -C linker=bpf-linker" \
//! /usr/bin/cargo build --release --target bpfel-unknown-none -p agent-ebpf
//! ```
//! The object is `target/bpfel-unknown-none/release/agent-ebpf`. `v3` is needed for the atomic fetch-and-add that
//! numbers events and the exchange that owns scratch.
//!
//! # Reading order
//! [`maps`] (what there is), [`emit`] (numbers, loss, submission), [`task`] and [`scope`] (who, and whether wanted),
//! [`path`] (names), [`hash`], [`socket`] (what is behind a descriptor), then one file per family of hooks: [`process`],
//! [`cgroup`], [`file`], [`change`], [`connect`], [`send`], [`flow`], [`serve`], [`local`],
//! [`privilege`] (credentials, namespaces, keys, io_uring), [`reach`] (other processes), [`mounts`], [`code`] (eBPF,
//! modules, kexec), [`alive`]. [`allowed`] finds out what a kernel lets programs do.
//!
//! # Rules kept here
//! - An event takes its number before anything that can fail, and every failure after that is counted by class and
//!   by scope ([`emit::lost`]): generated = delivered + dropped, always.
//! - No scratch shared by CPU: programs can be preempted since 6.13. A message is put together in a slot that one
//!   program owns by an atomic mark ([`emit::Scratch`]) until it is submitted.
//! - Whatever is read from user memory is the workload's claim, and named so in the message.
//! - Each program leaves as soon as it knows that the task is out of scope.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(unsafe_code, reason = "kernel programs: pointers are proven by the verifier, not by rustc")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "the verifier bounds every length; a checked conversion would add a path that it must follow too"
)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key passed by value is copied to a stack that has 512 bytes"
)]
#![expect(unreachable_pub, reason = "a program crate has no outside; `pub` between modules reads better")]

mod alive;
mod allowed;
mod cgroup;
mod change;
mod code;
mod connect;
mod emit;
mod file;
mod flow;
mod hash;
mod local;
mod maps;
mod mounts;
mod path;
mod privilege;
mod process;
mod reach;
mod scope;
mod send;
mod serve;
mod socket;
mod task;

/// Never reached: the verifier refuses a program that could get here.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The helpers used are for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
