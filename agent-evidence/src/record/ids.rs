//! The identifiers, clocks and hashes that records are made of, each its own type.
//!
//! Owns nothing but meaning: a tree size cannot be passed for an index, nor a boot time for a wall time.
//! Each type says in its document how it looks in an entry; `write.rs` and `read.rs` are what does it.

/// Declares a newtype over an integer or byte array with public contents.
macro_rules! newtypes {
    ($( $(#[$meta:meta])* $name:ident($inner:ty); )*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);
    )*};
}

newtypes! {
    /// Position of an entry in the log, 0-based. A JSON number below 2^53.
    EntryIndex(u64);
    /// How many entries a tree has. A JSON number below 2^53.
    TreeSize(u64);
    /// Position of an entry in the chain of its session; the `issued` entry is 0. A JSON number.
    SessionNumber(u64);
    /// Position of an entry in the control chain; `genesis` is 0. A JSON number.
    ControlNumber(u64);
    /// Number of an epoch of signing keys, 0 for the first of a log. A JSON number.
    EpochNumber(u64);
    /// RFC 6962 leaf hash, `SHA-256(0x00 || entry bytes)`. Base64 with padding.
    LeafHash([u8; 32]);
    /// RFC 6962 tree hash. Base64 with padding.
    RootHash([u8; 32]);
    /// Running hash of a session or of the control chain. Base64 with padding.
    ChainHash([u8; 32]);
    /// SHA-256 of a file or of a described set, as `sha256sum` prints it: 64 lower-case hexadecimal digits.
    Digest([u8; 32]);
    /// A random or kernel-given 128-bit identifier: 32 lower-case hexadecimal digits.
    Id128([u8; 16]);
    /// Ed25519 public key (RFC 8032). Base64 with padding.
    PublicKey([u8; 32]);
    /// Ed25519 signature (RFC 8032). Base64 with padding.
    Signature([u8; 64]);
    /// Nanoseconds since 1970-01-01T00:00:00Z by the host's real-time clock, which root can set: a claim
    /// of the host, not evidence of time. A decimal string.
    WallTime(u64);
    /// Nanoseconds since boot, suspend included (`CLOCK_BOOTTIME`). A decimal string.
    BootTime(u64);
    /// A length of time in nanoseconds. A decimal string.
    Nanoseconds(u64);
    /// Stable name of a process within one boot: `((leader start_boottime >> 22) << 22) | (tgid & 0x3fffff)`.
    /// Unlike a tgid it is not reused. A decimal string.
    ProcessCookie(u64);
    /// The kernel's id of a cgroup of the default hierarchy (the inode number of its directory). A decimal string.
    CgroupId(u64);
    /// The kernel's socket cookie, unique within one boot. A decimal string.
    SocketCookie(u64);
    /// A set of Linux capabilities as the kernel's bit mask: 16 lower-case hexadecimal digits, as
    /// `CapEff` in `/proc/PID/status`.
    Capabilities(u64);
}

impl EntryIndex {
    /// The largest index an entry can carry: JSON numbers above it lose bits in common readers (RFC 8259, section 6).
    pub const MAX: Self = Self((1 << 53) - 1);

    /// The size of the smallest tree that holds this entry.
    #[must_use]
    pub fn size_including(self) -> TreeSize {
        TreeSize(self.0.saturating_add(1))
    }
}

impl Digest {
    /// It as 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The digest of these 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
        if pairs.len() != bytes.len() {
            return None;
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(bytes))
    }
}

impl ProcessCookie {
    /// Derives the cookie from the start time of the thread group leader (`start_boottime`) and its tgid.
    #[must_use]
    pub fn derive(leader_start: BootTime, tgid: u32) -> Self {
        Self(((leader_start.0 >> 22) << 22) | u64::from(tgid & 0x3f_ffff))
    }
}

/// Which counter of the kernel side numbered an event. In an entry: its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// 0: fork, exec, exit and failed exec.
    Process = 0,
    /// 1: cgroup creation, removal and moves.
    Cgroup = 1,
    /// 2: connects, their completion, and other acts on sockets.
    Network = 2,
    /// 3: file opens and changes.
    File = 3,
    /// 4: credentials, other processes' memory, mounts, namespaces, kernel code and keys.
    Privilege = 4,
}

impl Class {
    /// Every class, by number.
    pub const ALL: [Self; 5] = [Self::Process, Self::Cgroup, Self::Network, Self::File, Self::Privilege];

    /// The class with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.number() == number)
    }

    /// Its number in entries and on the kernel wire.
    #[must_use]
    pub fn number(self) -> u32 {
        u32::from(self as u8)
    }

    /// The word people are shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Cgroup => "cgroup",
            Self::Network => "network",
            Self::File => "file",
            Self::Privilege => "privilege",
        }
    }
}

/// The number the kernel side gave an event before it tried to hand the event over, unique within one
/// capture. In an entry: `[cpu,class,"seq"]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelNumber {
    /// The processor whose counter it is.
    pub cpu: u32,
    /// The class whose counter it is.
    pub class: Class,
    /// The number, 0-based.
    pub seq: u64,
}
