//! Meets files in unusual ways, once each, and makes a program privileged: `act-unusual DIRECTORY`.
//!
//! In this order: opens `DIRECTORY/by-path` with `O_PATH`; fails to open `DIRECTORY/absent`; sends itself a descriptor of
//! `DIRECTORY/passed` over a socket; and gives the file `DIRECTORY/granted` the capability to use raw sockets. Needs root for
//! the last.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

/// `struct vfs_cap_data` (include/uapi/linux/capability.h): revision 2, effective; permitted `CAP_NET_RAW` (13),
/// inheritable none; then the upper halves of both.
const CAPABILITY: [u32; 5] = [0x0200_0001, 1 << 13, 0, 0, 0];

fn main() -> Result<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).context("DIRECTORY?")?);
    let by_path = directory.join("by-path");
    rustix::fs::open(&by_path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context("cannot open with O_PATH")?;
    ensure!(File::open(directory.join("absent")).is_err(), "there is a file that must not be there");

    let passed = File::open(directory.join("passed")).context("cannot open what is to be passed")?;
    let (here, there) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .context("no pair of sockets")?;
    let descriptors = [passed.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut out = SendAncillaryBuffer::new(&mut space);
    ensure!(out.push(SendAncillaryMessage::ScmRights(&descriptors)), "no room for a descriptor");
    rustix::net::sendmsg(&here, &[IoSlice::new(b"x")], &mut out, SendFlags::empty()).context("cannot send")?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut into = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(&there, &mut [IoSliceMut::new(&mut byte)], &mut into, RecvFlags::CMSG_CLOEXEC)
        .context("cannot receive")?;
    let received = into.drain().filter(|message| matches!(message, RecvAncillaryMessage::ScmRights(_))).count();
    ensure!(received == 1, "no descriptor came");

    let granted = directory.join("granted");
    let value: Vec<u8> = CAPABILITY.iter().flat_map(|word| word.to_le_bytes()).collect();
    rustix::fs::setxattr(&granted, "security.capability", &value, XattrFlags::empty()).context("cannot grant")
}
