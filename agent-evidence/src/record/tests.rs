//! What the encoding must keep: one form per record, everything else refused, and the size limit.

use super::*;

/// Deterministic numbers: xorshift64*, Vigna 2016.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

pub(super) fn placement() -> Placement {
    Placement {
        index: EntryIndex(7),
        session_number: Some(SessionNumber(3)),
        control_number: None,
        previous: LeafHash([7; 32]),
        random: [9; 16],
    }
}

pub(super) fn open(path: &[u8]) -> Draft<'_> {
    Draft {
        wall: WallTime(1_700_000_000_000_000_001),
        boot: BootTime(42),
        kernel: Some(KernelNumber { cpu: 1, class: Class::File, seq: 99 }),
        process: Some(ProcessCookie(u64::MAX)),
        workload: Some(EntryIndex(4)),
        session: Some(EntryIndex(5)),
        verdict: None,
        body: Body::Open(Open {
            path: Some(Text::new(path).into()),
            oflags: 0o2_000_000,
            fd: Some(3),
            errno: None,
            ino: Some(u64::MAX),
            dev: Some(Device { major: 8, minor: 1 }),
            mode: Some(0o100_644),
            nlink: Some(1),
            tgid: 100,
            uid: 1000,
            euid: None,
            marks: ActMarks::RACY | ActMarks::CREATED,
            claims: OpenClaims { comm: "cat".into(), asked: None, dir_fd: None },
        }),
    }
}

fn encoded(draft: &Draft<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    draft.encode(&placement(), &mut out);
    out
}

const OPEN: &str = concat!(
    r#"{"v":1,"i":7,"kind":"open","wall":"1700000000000000001","boot":"42","q":[1,3,"99"],"p":"18446744073709551615","#,
    r#""w":4,"s":5,"n":3,"prev":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=","rnd":"CQkJCQkJCQkJCQkJCQkJCQ==","#,
    r#""body":{"path":"/etc/passwd","oflags":524288,"fd":3,"ino":"18446744073709551615","dev":[8,1],"mode":33188,"#,
    r#""nlink":1,"tgid":100,"uid":1000,"marks":["racy","created"],"claims":{"comm":"cat"}}}"#,
);

#[test]
fn an_entry_has_exactly_the_specified_bytes() {
    assert_eq!(String::from_utf8(encoded(&open(b"/etc/passwd"))).unwrap(), OPEN);
}

#[test]
fn what_is_written_reads_back_the_same() {
    let bytes = encoded(&open(b"/etc/passwd"));
    let record = decode(&bytes).unwrap();
    assert_eq!(record.draft, open(b"/etc/passwd"));
    assert_eq!(record.placement, placement());
    let mut again = Vec::new();
    record.encode(&mut again);
    assert_eq!(again, bytes);
}

#[test]
fn random_byte_strings_have_one_form_that_reads_back() {
    let seed = 0x5eed_0001;
    let mut numbers = Numbers(seed);
    for round in 0..3_000 {
        let alphabet: &[&[u8]] = match round % 4 {
            0 => &[b"a", b"/", b"\"", b"\\", b" "],
            1 => &["é".as_bytes(), "\u{a0}".as_bytes(), "😀".as_bytes(), b"x"],
            2 => &[b"a", b"\n", "\u{85}".as_bytes(), b"\x7f"],
            _ => &[b"a", b"\xff", b"\xed\xa0\x80", b"\0"],
        };
        let path: Vec<u8> =
            (0..numbers.below(40)).flat_map(|_| alphabet[numbers.below(alphabet.len())].to_vec()).collect();
        let bytes = encoded(&open(&path));
        let record = decode(&bytes).unwrap_or_else(|error| panic!("seed {seed:#x} round {round}: {error}"));
        assert_eq!(record.draft, open(&path), "seed {seed:#x} round {round}");
    }
}

#[test]
fn no_single_changed_byte_reads_as_the_same_record() {
    let bytes = encoded(&open(b"/etc/pass\"wd"));
    let original = decode(&bytes).unwrap();
    for position in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[position] ^= 1 << bit;
            if let Ok(record) = decode(&changed) {
                assert_ne!(record, original, "byte {position} bit {bit}");
            }
        }
        assert!(decode(&bytes[..position]).is_err(), "cut at {position}");
    }
}

/// Replaces part of the specimen and gives what decoding says.
fn refused(from: &str, to: &str) -> DecodeError {
    assert_eq!(OPEN.matches(from).count(), 1, "{from} must stand once in the specimen");
    decode(OPEN.replace(from, to).as_bytes()).expect_err(&format!("{from} -> {to}"))
}

#[test]
fn a_second_json_reading_of_an_entry_is_refused() {
    let key = |expected| {
        move |error: DecodeError| {
            assert!(matches!(error, DecodeError::Key { expected: e, .. } if e == expected), "{error:?}")
        }
    };
    key("kind")(refused(r#""i":7,"#, r#""i":7,"i":7,"#));
    key("i")(refused(r#""i":7,"kind":"open""#, r#""kind":"open","i":7"#));
    key("prev")(refused(r#""w":4,"#, r#""unknown":4,"#));
    key("wall")(refused(r#""wall":"#, r#""w\u0061ll":"#));
    key("oflags")(refused(r#""path":"/etc/passwd","#, r#""path":"/etc/passwd","path":"/etc/shadow","#));
    for (from, to) in [
        (r#""i":7"#, r#""i": 7"#),
        (r#""i":7"#, r#""i":07"#),
        (r#""i":7"#, r#""i":7.0"#),
        (r#""i":7"#, r#""i":7e0"#),
        (r#""i":7"#, r#""i":-7"#),
        (r#""i":7"#, r#""i":9007199254740992"#),
        (r#""i":7"#, r#""i":99999999999999999999999999999999999999"#),
        (r#""uid":1000"#, r#""uid":4294967296"#),
        (r#""boot":"42""#, r#""boot":"042""#),
        (r#""boot":"42""#, r#""boot":42"#),
        (r#""boot":"42""#, r#""boot":"18446744073709551616""#),
        (r#"[1,3,"99"]"#, r#"[1,5,"99"]"#),
        (r#"[1,3,"99"]"#, r#"[1,3,"99",0]"#),
        (r#"/etc/passwd"#, r#"/etc/p\u0061sswd"#),
        (r#"/etc/passwd"#, r#"\/etc/passwd"#),
        (r#"/etc/passwd"#, "/etc/\tpasswd"),
        (r#"/etc/passwd"#, "/etc/\u{85}passwd"),
        (r#"/etc/passwd"#, r#"\ud800"#),
        (r#""/etc/passwd""#, r#"{"b64":"L2V0Yy9wYXNzd2Q="}"#),
        (r#""/etc/passwd""#, r#"{"b64":"/w"}"#),
        (r#""/etc/passwd""#, r#"{"b64":"/x=="}"#),
        (r#""/etc/passwd""#, r#"{"b64":"/w==","x":1}"#),
        (r#""/etc/passwd""#, "null"),
        (r#""path":"/etc/passwd","#, r#""path":"/etc/passwd","fd":null,"#),
        (r#"CQkJCQkJCQkJCQkJCQkJCQ=="#, r#"CQkJCQkJCQkJCQkJCQkJCR=="#),
        (r#"CQkJCQkJCQkJCQkJCQkJCQ=="#, r#"CQkJCQkJCQkJCQkJCQkJCQ"#),
        (r#"["racy","created"]"#, r#"["created","racy"]"#),
        (r#"["racy","created"]"#, r#"["racy","racy","created"]"#),
        (r#"["racy","created"]"#, r#"["racy","new"]"#),
        (r#","marks":["racy","created"]"#, r#","marks":[]"#),
        (r#"{"comm":"cat"}}}"#, r#"{"comm":"cat"}},"cut":[]}"#),
    ] {
        refused(from, to);
    }
}

#[test]
fn digits_are_read_to_the_last_number_that_fits_and_no_further() {
    let read = |digits: &str, max| Reader::new(digits.as_bytes()).number(max);
    for number in [0, 9, 10, 999_999_999_999_999_999, 9_999_999_999_999_999_999, 10_000_000_000_000_000_000, u64::MAX] {
        assert_eq!(read(&number.to_string(), u64::MAX), Ok(number));
        assert_eq!(read(&format!("{number},"), number), Ok(number), "up to what is no digit");
    }
    let too_large = |max| Err(DecodeError::Number { offset: 0, max });
    assert_eq!(read("255", 254), too_large(254));
    for digits in ["00", "01", "18446744073709551616", "99999999999999999999", "100000000000000000000000"] {
        assert_eq!(read(digits, u64::MAX), too_large(u64::MAX), "{digits}");
    }
    assert!(matches!(read("", 1), Err(DecodeError::Ends { offset: 0, .. })));
    assert!(matches!(read("-1", 1), Err(DecodeError::Unexpected { offset: 0, seen: b'-', .. })));
}

#[test]
fn base64_has_one_form_and_the_length_of_its_field() {
    let read = |text: &str| Reader::new(text.as_bytes()).base64::<16>("base64 of 16 bytes");
    assert_eq!(read(r#""CQkJCQkJCQkJCQkJCQkJCQ==""#), Ok([9; 16]));
    for text in [
        r#""CQkJCQkJCQkJCQkJCQkJCR==""#, // bits of the padding are set
        r#""CQkJCQkJCQkJCQkJCQkJCQ""#,
        r#""CQkJCQkJCQkJCQkJCQkJCQkJ""#, // as long, and two bytes more
        r#""CQkJCQkJCQkJCQkJCQkJ""#,
        r#""CQkJCQkJCQkJCQkJCQkJ-_==""#,
        r#""CQkJCQkJCQkJCQkJCQkJ Q==""#,
        r#""""#,
    ] {
        let wrong = Err(DecodeError::Bytes { offset: 1, expected: "base64 of 16 bytes" });
        assert_eq!(read(text), wrong, "{text}");
    }
    for text in [r#""CQkJCQkJCQkJ\\CQkJCQkJCQ=="#, r#""CQkJCQkJCQkJCQkJCQkJCQ=="#, "CQkJCQkJCQkJCQkJCQkJCQ=="] {
        assert!(matches!(read(text), Err(DecodeError::Unexpected { .. } | DecodeError::Ends { .. })), "{text}");
    }
}

#[test]
fn bytes_around_an_entry_are_refused() {
    assert_eq!(decode(format!("{OPEN}\n").as_bytes()), Err(DecodeError::Trailing { offset: OPEN.len(), count: 1 }));
    let bom = DecodeError::Unexpected { offset: 0, seen: 0xef, expected: "{" };
    assert_eq!(decode(format!("\u{feff}{OPEN}").as_bytes()), Err(bom));
    assert_eq!(decode(b""), Err(DecodeError::Ends { offset: 0, expected: "{" }));
    assert_eq!(decode(&[b'['; 65_536]), Err(DecodeError::TooLong { len: 65_536, max: 65_535 }));
    assert_eq!(decode(&[b'['; 65_535]), Err(DecodeError::Unexpected { offset: 0, seen: b'[', expected: "{" }));
    let version = OPEN.replace("{\"v\":1", "{\"v\":2");
    assert_eq!(decode(version.as_bytes()), Err(DecodeError::Version { seen: 2 }));
}

#[test]
fn addresses_have_one_spelling() {
    let connect = |remote: &str| {
        let mut draft = open(b"");
        draft.body = Body::Connect(Connect {
            proto: Transport::Tcp,
            local: None,
            remote: remote.parse().unwrap(),
            errno: Some(0),
            socket: SocketCookie(1),
            tgid: 1,
            uid: 0,
            euid: None,
            name: None,
            marks: ActMarks::NONE,
            claims: CommClaims { comm: "c".into() },
        });
        encoded(&draft)
    };
    for address in ["10.0.0.255:443", "[::1]:0", "[2001:db8::1:0:0:1]:65535", "[::ffff:1.2.3.4]:80", "[1:0:0:2::]:1"] {
        let bytes = connect(address);
        assert!(String::from_utf8_lossy(&bytes).contains(&format!("\"remote\":\"{address}\"")), "{address}");
        decode(&bytes).unwrap();
    }
    let text = String::from_utf8(connect("[::1]:80")).unwrap();
    for other in ["[0::1]:80", "[::0001]:80", "[::1%2]:80", "[::1]:080", "::1:80"] {
        assert!(decode(text.replace("[::1]:80", other).as_bytes()).is_err(), "{other}");
    }
}

#[test]
fn an_entry_that_would_be_too_long_is_cut_and_says_where() {
    let long = vec![b'\\'; 40_000];
    let bytes = encoded(&open(&long));
    assert!(bytes.len() <= ENTRY_BYTES_MAX);
    let record = decode(&bytes).unwrap();
    assert_eq!(record.cut, [Text::from("path")]);
    let Body::Open(open) = record.body() else { panic!("an open") };
    assert_eq!(open.path.as_ref().unwrap().clear().unwrap().as_bytes(), &long[..16_384]);

    let text = "é".repeat(60_000);
    let record_bytes = encoded(&self::open(text.as_bytes()));
    let record = decode(&record_bytes).unwrap();
    let Body::Open(open) = record.body() else { panic!("an open") };
    assert!(open.path.as_ref().unwrap().clear().unwrap().as_str().is_some(), "text stays text: cut between characters");
}

#[test]
fn every_kind_fits_when_everything_in_it_is_far_too_long() {
    let long = vec![0xff_u8; 17_000];
    let text = || Text::new(&long);
    let hook = Hook { event: text(), hook: text(), program: text(), tag: text(), id: u32::MAX, link: Some(u32::MAX) };
    let hooks = vec![hook; 1_100];
    let missing = vec![NotCovered { what: text(), why: text() }; 1_100];
    let labels = vec![Label { name: text(), value: text().into() }; 1_100];
    let roots = vec![ScopeRoot { cgroup: Some(CgroupId(u64::MAX)), path: text(), classes: 15 }; 1_100];
    let arguments = b"x\xff\0".repeat(30_000);
    let counter = Counter { cpu: u32::MAX, class: Class::File, next: u64::MAX, dropped: u64::MAX, settled: u64::MAX };
    let counters = vec![counter; 5_000];
    let state = SessionState { session: EntryIndex::MAX, number: SessionNumber(1), hash: ChainHash([255; 32]) };
    let sessions = vec![state; 5_000];
    let range = NumberRange { cpu: u32::MAX, class: Class::File, first: u64::MAX, last: u64::MAX };
    let ranges = vec![range; 5_000];
    let digest = Digest([255; 32]);
    let device = Device { major: u32::MAX, minor: u32::MAX };
    let bodies = [
        Body::Genesis(Genesis {
            format: 1,
            origin: text(),
            log_key: text(),
            key_tier: KeyTier::T0,
            boot_id: text(),
            kernel: text(),
            machine: Some(digest),
            predecessor: Some(Predecessor {
                origin: text(),
                size: TreeSize(EntryIndex::MAX.0),
                root: RootHash([255; 32]),
                cause: SuccessionCause::Operator,
            }),
        }),
        Body::Armed(Armed {
            run: Id128([255; 16]),
            boot_id: text(),
            capture_id: Id128([255; 16]),
            resumed: false,
            agent_version: text(),
            agent_digest: digest,
            object_digest: digest,
            offsets_digest: digest,
            config_digest: digest,
            policy_digest: Some(digest),
            kernel: text(),
            kernel_build: Some(text()),
            lockdown: text(),
            secure_boot: SecureBoot::Unknown,
            hook_tier: text(),
            key_tier: KeyTier::T0,
            cadence: Cadence {
                commit_ms: u32::MAX,
                seal_ms: u32::MAX,
                heartbeat_ms: u32::MAX,
                anchor_ms: None,
                counter_ms: None,
            },
            hooks: hooks.into(),
            not_covered: missing.into(),
            scope: text(),
        }),
        Body::Heartbeat(Heartbeat {
            capture_id: Id128([255; 16]),
            counters: counters.clone().into(),
            sessions: sessions.clone().into(),
            hooks_ok: false,
            hooks_digest: digest,
            canaries: vec![Canary { class: Class::File, seen: false }; 1_100].into(),
        }),
        Body::Disarmed(Disarmed {
            cause: DisarmCause::HostStop,
            capture_id: Id128([255; 16]),
            counters: counters.into(),
            sessions: sessions.into(),
        }),
        Body::Gap(Gap {
            cause: GapCause::NotObserved,
            capture_id: Id128([255; 16]),
            ranges: ranges.into(),
            count: u64::MAX,
            shares: vec![LossShare { scope: CgroupId(u64::MAX), count: u64::MAX }; 1_100].into(),
            from: Some(BootTime(u64::MAX)),
            to: Some(BootTime(u64::MAX)),
        }),
        Body::Scope(Scope { text: text(), host_classes: 15, roots: roots.into() }),
        Body::Workload(Workload {
            sort: WorkloadKind::Kubernetes,
            id: text(),
            cgroup: CgroupId(u64::MAX),
            path: text(),
            how: text(),
            labels: labels.clone().into(),
        }),
        Body::Issued(Issued {
            id: text(),
            sort: SessionSort::Container,
            identity: text(),
            rule: Some(text()),
            parent: Some(EntryIndex::MAX),
            cgroup: CgroupId(u64::MAX),
            uid: Some(u32::MAX),
            gid: Some(u32::MAX),
            ttl: Some(Nanoseconds(u64::MAX)),
            by: Some(Requester {
                process: Some(ProcessCookie(u64::MAX)),
                tgid: u32::MAX,
                uid: u32::MAX,
                gid: u32::MAX,
            }),
            claims: IssuedClaims { task: Some(text().into()), labels: labels.into() },
        }),
        Body::Exec(Exec {
            path: Some(text().into()),
            script: Some(Script { path: text().into(), ino: u64::MAX, dev: device, sha256: Some(digest) }),
            argv: ValueList::Nul(&arguments),
            argc: u32::MAX,
            cwd: Some(text().into()),
            tgid: u32::MAX,
            parent: ProcessCookie(u64::MAX),
            uid: u32::MAX,
            gid: u32::MAX,
            euid: u32::MAX,
            egid: u32::MAX,
            suid: u32::MAX,
            sgid: u32::MAX,
            login_uid: Some(u32::MAX),
            caps: Capabilities(u64::MAX),
            caps_permitted: Some(Capabilities(u64::MAX)),
            caps_ambient: Some(Capabilities(u64::MAX)),
            before: Some(ExecBefore { euid: Some(u32::MAX), egid: Some(u32::MAX), caps: Some(Capabilities(u64::MAX)) }),
            ino: u64::MAX,
            dev: device,
            nlink: u32::MAX,
            mode: u32::MAX,
            size: u64::MAX,
            ctime: Some(u64::MAX),
            sha256: Some(digest),
            marks: ActMarks::RACY,
            claims: ExecClaims { comm: text(), invoked: Some(text().into()) },
        }),
    ];
    for body in bodies {
        let kind = body.kind();
        let mut draft = open(b"");
        draft.body = body;
        let bytes = encoded(&draft);
        assert!(bytes.len() <= ENTRY_BYTES_MAX, "{kind:?} takes {} bytes", bytes.len());
        assert!(!decode(&bytes).unwrap().cut.is_empty(), "{kind:?} says that it was cut");
    }
}

#[test]
fn what_the_tables_permit_is_read_and_written_the_same_for_every_kind() {
    let mut specimens = crate::fixture::specimens(40);
    assert!(specimens.len() > Kind::ALL.len() * 20, "{}", specimens.len());
    specimens.extend(crate::fixture::added_specimens(40));
    for (kind, bytes) in specimens {
        let text = String::from_utf8_lossy(&bytes);
        let record = decode(&bytes).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(record.body().kind(), kind);
        let mut again = Vec::new();
        record.encode(&mut again);
        assert_eq!(String::from_utf8_lossy(&again), text);
    }
}

#[test]
fn members_added_after_the_freeze_may_be_absent_and_are_in_the_tables() {
    for (form, key) in crate::fixture::ADDED {
        let schema = FORMS.iter().find(|schema| schema.form == form).unwrap();
        assert!(schema.members.iter().any(|member| member.key == key && member.optional), "{form} {key}");
    }
    // Each is there and is not there in what the vectors hold.
    for key in ["asked", "asked_to", "dir_fd", "to_dir_fd"] {
        let quoted = format!("\"{key}\":");
        let specimens = crate::fixture::added_specimens(26);
        let there = |(_, bytes): &&(Kind, Vec<u8>)| String::from_utf8_lossy(bytes).contains(&quoted);
        let with = specimens.iter().filter(there).count();
        assert!(with > 0 && with < specimens.len(), "{key}: {with}");
    }
}

#[test]
fn a_session_is_its_own_issued_entry() {
    let mut draft = open(b"");
    draft.session = None;
    draft.body = Body::Issued(Issued {
        id: "s1".into(),
        sort: SessionSort::Run,
        identity: "spiffe://h/s1".into(),
        rule: None,
        parent: None,
        cgroup: CgroupId(1),
        uid: Some(0),
        gid: Some(0),
        ttl: None,
        by: Some(Requester { process: None, tgid: 1, uid: 0, gid: 0 }),
        claims: IssuedClaims { task: None, labels: List::default() },
    });
    let mut out = Vec::new();
    draft.encode(&Placement { session_number: Some(SessionNumber(0)), ..placement() }, &mut out);
    let record = decode(&out).unwrap();
    assert_eq!(record.draft.session, Some(EntryIndex(7)));
}

#[test]
fn numbers_of_every_length_are_written_without_leading_zeros() {
    let mut out = Vec::new();
    let mut writer = write::Writer::new(&mut out, Limits::NONE);
    let mut expected = String::new();
    let mut number = 1_u64;
    for _ in 0..20 {
        for value in [number - 1, number, number + 1] {
            writer.number(value);
            expected.push_str(&value.to_string());
        }
        number = number.wrapping_mul(10);
        if number == 0 {
            break;
        }
    }
    writer.number(u64::MAX);
    expected.push_str(&u64::MAX.to_string());
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn tables_know_which_members_are_optional() {
    let open = KINDS.iter().find(|kind| kind.kind == "open").unwrap();
    let optional: Vec<&str> = open.members.iter().filter(|member| member.optional).map(|member| member.key).collect();
    assert_eq!(optional, ["path", "fd", "errno", "ino", "dev", "mode", "nlink", "euid", "marks"]);
}
