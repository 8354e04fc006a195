//! Reads the running kernel's own description of its types (BTF), to find where struct members lie.
//!
//! The bytes come from `/sys/kernel/btf/vmlinux`, written by the kernel: trusted as much as the kernel is, and read
//! as if they were not. Any input gives a value or an error; nothing panics, loops without bound or recurses.
//! Format: <https://docs.kernel.org/bpf/btf.html>.
#![forbid(unsafe_code)]

use std::collections::HashMap;

/// Steps through typedefs and qualifiers before the chain is called endless; real ones take at most 6.
const STRIP_STEPS_MAX: u32 = 32;
/// Anonymous structs and unions visited inside one struct; `task_struct` has fewer than 20.
const NESTED_MAX: usize = 256;
/// Types in one BTF; kernels have about 150,000.
const TYPES_MAX: usize = 4_000_000;

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_FLOAT: u32 = 16;
const KIND_ENUM64: u32 = 19;

/// Why a type description could not be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// Not BTF, or of the other byte order.
    #[error("not BTF of this machine: magic {magic:#06x}, expected 0xeb9f")]
    Magic {
        /// What stood there.
        magic: u16,
    },
    /// A version this reader does not know.
    #[error("BTF version {version}, expected 1")]
    Version {
        /// What stood there.
        version: u8,
    },
    /// The data ends inside something.
    #[error("BTF ends at byte {len}, inside {what} at byte {at}")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where it starts.
        at: usize,
        /// Bytes there are.
        len: usize,
    },
    /// A kind of type this reader does not know, so the rest cannot be found.
    #[error("BTF type {id} has unknown kind {kind}")]
    UnknownKind {
        /// Which type.
        id: usize,
        /// Its kind.
        kind: u32,
    },
    /// More types than any kernel has.
    #[error("BTF has more than {max} types")]
    TooManyTypes {
        /// The limit.
        max: usize,
    },
    /// A reference to a type that is not there.
    #[error("BTF refers to type {id} of {count}")]
    NoType {
        /// The reference.
        id: u32,
        /// Types there are.
        count: usize,
    },
    /// Typedefs that refer to each other, or nesting without end.
    #[error("BTF type {id} does not end within {steps} steps")]
    Endless {
        /// Where it began.
        id: u32,
        /// The limit.
        steps: usize,
    },
    /// The kernel has no such struct.
    #[error("the kernel has no struct {name}")]
    NoStruct {
        /// Its name.
        name: String,
    },
    /// The struct has no such member.
    #[error("struct {within} has no member {member}")]
    NoMember {
        /// The struct.
        within: String,
        /// The member, dotted where nested.
        member: String,
    },
    /// The member is a bit field or does not begin on a byte.
    #[error("struct {within}: member {member} at bit {bit} is not a whole number of bytes")]
    BitField {
        /// The struct.
        within: String,
        /// The member.
        member: String,
        /// Its offset in bits.
        bit: u32,
    },
    /// The member is not what the programs read.
    #[error("struct {within}: member {member} is {found}, expected {expected}")]
    WrongType {
        /// The struct.
        within: String,
        /// The member.
        member: String,
        /// What BTF says.
        found: String,
        /// What the programs read.
        expected: &'static str,
    },
}

/// What a member must be for the programs to read it as they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// A pointer.
    Pointer,
    /// A number (integer, enumeration or a struct around one) of this many bytes.
    Number(u32),
    /// An array or union of at least this many bytes.
    Bytes(u32),
    /// A struct or union, wherever its members are.
    Aggregate,
}

impl Expect {
    fn words(self) -> &'static str {
        match self {
            Self::Pointer => "a pointer",
            Self::Number(1) => "a number of 1 byte",
            Self::Number(2) => "a number of 2 bytes",
            Self::Number(4) => "a number of 4 bytes",
            Self::Number(8) => "a number of 8 bytes",
            Self::Number(_) => "a number of another size",
            Self::Bytes(_) => "an array or union long enough",
            Self::Aggregate => "a struct or union",
        }
    }
}

/// A parsed BTF section.
pub struct Btf {
    data: Vec<u8>,
    /// Byte offset of each type; index 0 is `void` and unused.
    types: Vec<usize>,
    strings: std::ops::Range<usize>,
    /// First definition of each struct.
    structs: HashMap<Vec<u8>, u32>,
    /// First definition of each typedef.
    typedefs: HashMap<Vec<u8>, u32>,
}

/// One type's fixed part.
#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    kind: u32,
    vlen: u32,
    kind_flag: bool,
    size_or_type: u32,
}

impl Btf {
    /// Reads the whole of a BTF section.
    ///
    /// # Errors
    /// Any [`BtfError`] about the form of the data.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        let magic = u16_at(&data, 0, "header")?;
        if magic != 0xeb9f {
            return Err(BtfError::Magic { magic });
        }
        let version = *data.get(2).ok_or(BtfError::Truncated { what: "header", at: 2, len: data.len() })?;
        if version != 1 {
            return Err(BtfError::Version { version });
        }
        let header_len = u32_at(&data, 4, "header")?;
        let section = |offset_at: usize, what: &'static str| -> Result<std::ops::Range<usize>, BtfError> {
            let start = u64::from(header_len) + u64::from(u32_at(&data, offset_at, "header")?);
            let end = start + u64::from(u32_at(&data, offset_at + 4, "header")?);
            let truncated = BtfError::Truncated { what, at: offset_at, len: data.len() };
            match (usize::try_from(start), usize::try_from(end)) {
                (Ok(start), Ok(end)) if end <= data.len() => Ok(start..end),
                _ => Err(truncated),
            }
        };
        let type_section = section(8, "type section")?;
        let strings = section(16, "string section")?;
        let mut btf = Self { types: vec![0], strings, structs: HashMap::new(), typedefs: HashMap::new(), data };
        let mut at = type_section.start;
        while at < type_section.end {
            let id = btf.types.len();
            if id > TYPES_MAX {
                return Err(BtfError::TooManyTypes { max: TYPES_MAX });
            }
            let ty = btf.type_at(at)?;
            let vlen = ty.vlen as usize;
            let tail = match ty.kind {
                KIND_INT | 14 | 17 => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | 15 | KIND_ENUM64 => 12 * vlen,
                KIND_ENUM | KIND_FUNC_PROTO => 8 * vlen,
                KIND_PTR | 7 | KIND_TYPEDEF | 9..=11 | KIND_FUNC | KIND_FLOAT | 18 => 0,
                kind => return Err(BtfError::UnknownKind { id, kind }),
            };
            let end = at + 12 + tail;
            if end > type_section.end {
                return Err(BtfError::Truncated { what: "type", at, len: type_section.end });
            }
            if matches!(ty.kind, KIND_STRUCT | KIND_TYPEDEF) && ty.name != 0 {
                let name = btf.string(ty.name)?.to_vec();
                let id = u32::try_from(id).unwrap_or(u32::MAX);
                let names = if ty.kind == KIND_STRUCT { &mut btf.structs } else { &mut btf.typedefs };
                names.entry(name).or_insert(id);
            }
            btf.types.push(at);
            at = end;
        }
        Ok(btf)
    }

    /// Byte offset of `member` (dotted for a member of a member) in the struct named `within`.
    ///
    /// # Errors
    /// When the struct or member is missing, is a bit field, or is not as `expect` says.
    pub fn offset(&self, within: &str, member: &str, expect: Expect) -> Result<u32, BtfError> {
        let mut id = self.structure(within)?;
        let mut bits: u32 = 0;
        for part in member.split('.') {
            let no_member = || BtfError::NoMember { within: within.to_owned(), member: member.to_owned() };
            let (bit, ty) = self.find(id, part.as_bytes())?.ok_or_else(no_member)?;
            bits = bits.checked_add(bit).ok_or_else(no_member)?;
            id = ty;
        }
        if !bits.is_multiple_of(8) {
            return Err(BtfError::BitField { within: within.to_owned(), member: member.to_owned(), bit: bits });
        }
        let found = self.strip(id)?;
        let size = self.size(id)?;
        let good = match expect {
            Expect::Pointer => found.kind == KIND_PTR,
            Expect::Number(bytes) => {
                matches!(found.kind, KIND_INT | KIND_ENUM | KIND_ENUM64 | KIND_STRUCT) && size == u64::from(bytes)
            }
            Expect::Bytes(bytes) => {
                matches!(found.kind, KIND_ARRAY | KIND_UNION | KIND_STRUCT) && size >= u64::from(bytes)
            }
            Expect::Aggregate => matches!(found.kind, KIND_STRUCT | KIND_UNION),
        };
        if !good {
            return Err(BtfError::WrongType {
                within: within.to_owned(),
                member: member.to_owned(),
                found: format!("of kind {} and {size} bytes", found.kind),
                expected: expect.words(),
            });
        }
        Ok(bits / 8)
    }

    /// The first of several members that the kernel has, because names changed between versions.
    ///
    /// # Errors
    /// As [`Self::offset`]; the error of the last name when none exists.
    pub fn offset_of_first(&self, within: &str, members: &[&str], expect: Expect) -> Result<u32, BtfError> {
        let mut last = Err(BtfError::NoMember { within: within.to_owned(), member: String::new() });
        for member in members {
            last = self.offset(within, member, expect);
            match last {
                Err(BtfError::NoMember { .. }) => {}
                _ => return last,
            }
        }
        last
    }

    /// Bytes of the struct named `within`.
    ///
    /// # Errors
    /// When the kernel has no such struct.
    pub fn size_of(&self, within: &str) -> Result<u32, BtfError> {
        Ok(self.by_id(self.structure(within)?)?.size_or_type)
    }

    /// How many arguments the tracepoint `name` gives its programs, or `None` when the kernel has no such tracepoint.
    ///
    /// # Errors
    /// When the data is malformed.
    pub fn tracepoint_args(&self, name: &str) -> Result<Option<u32>, BtfError> {
        let Some(id) = self.typedefs.get(format!("btf_trace_{name}").as_bytes()) else { return Ok(None) };
        let pointer = self.strip(*id)?;
        if pointer.kind != KIND_PTR {
            return Ok(None);
        }
        let proto = self.strip(pointer.size_or_type)?;
        // The first parameter is the tracepoint's own data, which programs do not see.
        Ok((proto.kind == KIND_FUNC_PROTO).then(|| proto.vlen.saturating_sub(1)))
    }

    /// Whether the kernel describes a function of this name, to which programs can be attached then.
    ///
    /// # Errors
    /// When the data is malformed.
    pub fn has_function(&self, name: &str) -> Result<bool, BtfError> {
        for at in self.types.iter().skip(1) {
            let ty = self.type_at(*at)?;
            if ty.kind == KIND_FUNC && self.string(ty.name)? == name.as_bytes() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn structure(&self, name: &str) -> Result<u32, BtfError> {
        self.structs.get(name.as_bytes()).copied().ok_or_else(|| BtfError::NoStruct { name: name.to_owned() })
    }

    /// Bit offset and type of a member, looked for inside anonymous structs and unions too.
    fn find(&self, id: u32, name: &[u8]) -> Result<Option<(u32, u32)>, BtfError> {
        let mut open = vec![(id, 0u32)];
        let mut visited = 0;
        while let Some((id, base)) = open.pop() {
            visited += 1;
            if visited > NESTED_MAX {
                return Err(BtfError::Endless { id, steps: NESTED_MAX });
            }
            let ty = self.strip(id)?;
            if !matches!(ty.kind, KIND_STRUCT | KIND_UNION) {
                continue;
            }
            for n in 0..ty.vlen as usize {
                let at = ty.at + 12 + 12 * n;
                let member_name = u32_at(&self.data, at, "member")?;
                let member_type = u32_at(&self.data, at + 4, "member")?;
                let offset = u32_at(&self.data, at + 8, "member")?;
                // With the kind flag the top byte is the size of a bit field, and 0 for an ordinary member.
                let (bits, width) = if ty.kind_flag { (offset & 0x00ff_ffff, offset >> 24) } else { (offset, 0) };
                let Some(bits) = base.checked_add(bits) else { continue };
                if member_name == 0 {
                    open.push((member_type, bits));
                } else if self.string(member_name)? == name {
                    // A bit field never begins a byte as far as the caller is concerned.
                    return Ok(Some((if width == 0 { bits } else { bits | 1 }, member_type)));
                }
            }
        }
        Ok(None)
    }

    /// The type behind typedefs, qualifiers and tags.
    fn strip(&self, id: u32) -> Result<Type, BtfError> {
        let mut next = id;
        for _ in 0..STRIP_STEPS_MAX {
            let ty = self.by_id(next)?;
            match ty.kind {
                KIND_TYPEDEF | 9..=11 | 18 => next = ty.size_or_type,
                _ => return Ok(ty),
            }
        }
        Err(BtfError::Endless { id, steps: STRIP_STEPS_MAX as usize })
    }

    fn size(&self, id: u32) -> Result<u64, BtfError> {
        let mut count: u64 = 1;
        let mut next = id;
        for _ in 0..STRIP_STEPS_MAX {
            let ty = self.strip(next)?;
            match ty.kind {
                KIND_PTR => return Ok(count.saturating_mul(8)),
                KIND_ARRAY => {
                    next = u32_at(&self.data, ty.at + 12, "array")?;
                    count = count.saturating_mul(u64::from(u32_at(&self.data, ty.at + 20, "array")?));
                }
                KIND_INT | KIND_STRUCT | KIND_UNION | KIND_ENUM | KIND_ENUM64 | KIND_FLOAT => {
                    return Ok(count.saturating_mul(u64::from(ty.size_or_type)));
                }
                _ => return Ok(0),
            }
        }
        Err(BtfError::Endless { id, steps: STRIP_STEPS_MAX as usize })
    }

    fn by_id(&self, id: u32) -> Result<Type, BtfError> {
        let no_type = BtfError::NoType { id, count: self.types.len() };
        if id == 0 {
            // `void`: a type without size that is none of the kinds looked for.
            return Ok(Type { at: 0, name: 0, kind: 0, vlen: 0, kind_flag: false, size_or_type: 0 });
        }
        match usize::try_from(id).ok().and_then(|id| self.types.get(id)) {
            Some(at) => self.type_at(*at),
            None => Err(no_type),
        }
    }

    fn type_at(&self, at: usize) -> Result<Type, BtfError> {
        let info = u32_at(&self.data, at + 4, "type")?;
        Ok(Type {
            at,
            name: u32_at(&self.data, at, "type")?,
            kind: info >> 24 & 0x1f,
            vlen: info & 0xffff,
            kind_flag: info >> 31 == 1,
            size_or_type: u32_at(&self.data, at + 8, "type")?,
        })
    }

    fn string(&self, offset: u32) -> Result<&[u8], BtfError> {
        let truncated = BtfError::Truncated { what: "string", at: offset as usize, len: self.strings.len() };
        let strings = self.data.get(self.strings.clone()).unwrap_or_default();
        let tail = strings.get(offset as usize..);
        let end = tail.and_then(|tail| tail.iter().position(|byte| *byte == 0));
        match (tail, end) {
            (Some(tail), Some(end)) => tail.get(..end).ok_or(truncated),
            _ => Err(truncated),
        }
    }
}

fn u16_at(data: &[u8], at: usize, what: &'static str) -> Result<u16, BtfError> {
    match data.get(at..).and_then(|tail| tail.first_chunk()) {
        Some(bytes) => Ok(u16::from_ne_bytes(*bytes)),
        None => Err(BtfError::Truncated { what, at, len: data.len() }),
    }
}

fn u32_at(data: &[u8], at: usize, what: &'static str) -> Result<u32, BtfError> {
    match data.get(at..).and_then(|tail| tail.first_chunk()) {
        Some(bytes) => Ok(u32::from_ne_bytes(*bytes)),
        None => Err(BtfError::Truncated { what, at, len: data.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BTF section written by hand.
    #[derive(Default)]
    struct Writer {
        types: Vec<u8>,
        strings: Vec<u8>,
        count: u32,
    }

    impl Writer {
        fn new() -> Self {
            Self { strings: vec![0], ..Self::default() }
        }

        fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = self.strings.len();
            self.strings.extend_from_slice(name.as_bytes());
            self.strings.push(0);
            u32::try_from(at).unwrap()
        }

        /// Appends a type; its id is given back.
        fn push(&mut self, name: &str, kind: u32, vlen: u32, size_or_type: u32, tail: &[u32]) -> u32 {
            let name = self.name(name);
            for word in [name, kind << 24 | vlen, size_or_type].iter().chain(tail) {
                self.types.extend_from_slice(&word.to_ne_bytes());
            }
            self.count += 1;
            self.count
        }

        /// Appends a struct of (name, type, bit offset).
        fn structure(&mut self, name: &str, kind: u32, size: u32, members: &[(&str, u32, u32)]) -> u32 {
            let tail: Vec<u32> = members.iter().flat_map(|(name, ty, bits)| [self.name(name), *ty, *bits]).collect();
            self.push(name, kind, u32::try_from(members.len()).unwrap(), size, &tail)
        }

        fn bytes(&self) -> Vec<u8> {
            let mut out = Vec::new();
            out.extend_from_slice(&0xeb9fu16.to_ne_bytes());
            out.extend_from_slice(&[1, 0]);
            let types = u32::try_from(self.types.len()).unwrap();
            let strings = u32::try_from(self.strings.len()).unwrap();
            for word in [24, 0, types, types, strings] {
                out.extend_from_slice(&u32::to_ne_bytes(word));
            }
            [out, self.types.clone(), self.strings.clone()].concat()
        }
    }

    /// `struct file { union { struct path { void *mnt; void *dentry; } f_path; }; unsigned f_mode; char comm[16]; }`
    fn sample() -> Vec<u8> {
        let mut btf = Writer::new();
        let int = btf.push("unsigned int", KIND_INT, 0, 4, &[32]);
        let pointer = btf.push("", KIND_PTR, 0, 0, &[]);
        let path = btf.structure("path", KIND_STRUCT, 16, &[("mnt", pointer, 0), ("dentry", pointer, 64)]);
        let path_const = btf.push("", 10, 0, path, &[]);
        let union = btf.structure("", KIND_UNION, 16, &[("f_path", path_const, 0), ("__f_path", path, 0)]);
        let mode = btf.push("fmode_t", KIND_TYPEDEF, 0, int, &[]);
        let array = btf.push("", KIND_ARRAY, 0, 0, &[int, int, 4]);
        btf.structure("file", KIND_STRUCT, 40, &[("f_mode", mode, 0), ("", union, 64), ("comm", array, 192)]);
        btf.bytes()
    }

    #[test]
    fn members_are_found_in_anonymous_unions_and_behind_typedefs() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.offset("file", "f_mode", Expect::Number(4)), Ok(0));
        assert_eq!(btf.offset("file", "f_path.dentry", Expect::Pointer), Ok(16));
        assert_eq!(btf.offset("file", "comm", Expect::Bytes(16)), Ok(24));
        assert_eq!(btf.offset_of_first("file", &["nope", "f_mode"], Expect::Number(4)), Ok(0));
    }

    #[test]
    fn a_function_is_told_from_other_names() {
        let mut writer = Writer::new();
        writer.push("security_file_open", KIND_FUNC, 0, 0, &[]);
        writer.push("not_a_function", KIND_INT, 0, 4, &[32]);
        let btf = Btf::parse(writer.bytes()).unwrap();
        assert_eq!(btf.has_function("security_file_open"), Ok(true));
        assert_eq!(btf.has_function("not_a_function"), Ok(false));
    }

    #[test]
    fn another_size_or_type_is_refused_by_name() {
        let btf = Btf::parse(sample()).unwrap();
        let refused = |member: &str, expect: Expect| match btf.offset("file", member, expect) {
            Err(BtfError::WrongType { within, member: named, .. }) => {
                assert_eq!((within.as_str(), named.as_str()), ("file", member))
            }
            other => panic!("{member}: {other:?}"),
        };
        refused("f_mode", Expect::Number(8));
        refused("f_mode", Expect::Pointer);
        refused("f_path.mnt", Expect::Number(8));
        refused("comm", Expect::Bytes(17));
        let none = BtfError::NoMember { within: "file".into(), member: "f_inode".into() };
        assert_eq!(btf.offset("file", "f_inode", Expect::Pointer), Err(none));
        assert_eq!(btf.offset("inode", "i_ino", Expect::Number(8)), Err(BtfError::NoStruct { name: "inode".into() }));
    }

    #[test]
    fn a_bit_field_has_no_offset() {
        let mut writer = Writer::new();
        let int = writer.push("int", KIND_INT, 0, 4, &[32]);
        // With the kind flag, the top byte of the offset is the width in bits.
        let name = writer.name("flag");
        writer.push("task", KIND_STRUCT | 0x80, 1, 4, &[name, int, 1 << 24]);
        let btf = Btf::parse(writer.bytes()).unwrap();
        assert!(matches!(btf.offset("task", "flag", Expect::Number(4)), Err(BtfError::BitField { .. })));
    }

    #[test]
    fn types_that_refer_to_themselves_end_in_an_error() {
        let mut writer = Writer::new();
        writer.push("loop", KIND_TYPEDEF, 0, 1, &[]);
        writer.structure("task", KIND_STRUCT, 8, &[("member", 1, 0), ("", 3, 0)]);
        // An anonymous struct that contains itself.
        writer.structure("", KIND_STRUCT, 8, &[("", 3, 0)]);
        let btf = Btf::parse(writer.bytes()).unwrap();
        let endless = |member| matches!(btf.offset("task", member, Expect::Pointer), Err(BtfError::Endless { .. }));
        assert!(endless("member") && endless("absent"));
    }

    #[test]
    fn every_truncation_gives_an_error_or_a_smaller_answer() {
        let whole = sample();
        for len in 0..whole.len() {
            match Btf::parse(whole[..len].to_vec()) {
                Err(BtfError::Truncated { .. }) => {}
                other => panic!("{len} bytes: {:?}", other.err()),
            }
        }
    }

    #[test]
    fn no_changed_byte_makes_it_panic() {
        let whole = sample();
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                if let Ok(btf) = Btf::parse(bytes) {
                    for member in ["f_mode", "f_path.dentry", "comm", "absent"] {
                        drop(btf.offset("file", member, Expect::Pointer));
                    }
                }
            }
        }
    }

    #[test]
    fn other_data_is_not_taken_for_btf() {
        assert_eq!(Btf::parse(vec![0x7f, b'E', b'L', b'F']).err(), Some(BtfError::Magic { magic: 0x457f }));
        let mut bytes = sample();
        bytes[2] = 2;
        assert_eq!(Btf::parse(bytes).err(), Some(BtfError::Version { version: 2 }));
    }
}
