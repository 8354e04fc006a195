//! Pages of small sessions, whole.

use agent_evidence::record::{ActMarks, Body, ProcessCookie, decode};

use super::*;
use crate::export::ocsf::tests as records;

fn page(log: &records::Writer, issued: u64, all: bool) -> String {
    let mut tree = Tree::default();
    for bytes in &log.entries {
        tree.take(&decode(bytes).unwrap(), issued);
    }
    tree.grow();
    let mut lines = Vec::new();
    render::page(&tree, all, &mut lines).unwrap();
    String::from_utf8(lines).unwrap()
}

fn session(bodies: Vec<(ProcessCookie, Body<'_>)>) -> (records::Writer, u64) {
    let mut log = records::Writer::default();
    let issued = log.push(None, records::issued());
    for (process, body) in bodies {
        log.push_in(Some(process), None, Some(issued), body);
    }
    (log, issued)
}

const CHILD: ProcessCookie = ProcessCookie(78);

#[test]
fn a_child_stands_below_its_parent_with_its_acts_and_its_end() {
    let (log, issued) = session(vec![
        (records::SHELL, records::exec(b"/bin/sh", b"sh\0-c\0x y\0")),
        (records::SHELL, records::fork()),
        (CHILD, records::exec(b"/usr/bin/wc", b"wc\0-l\0")),
        (CHILD, records::open(Some(b"/data/in.csv"), None, ActMarks::NONE)),
        (CHILD, records::exit(Some(0), None)),
        (records::SHELL, records::connect("127.0.0.1:8080", Some(115))),
        (records::SHELL, records::connect_done("127.0.0.1:8080", Some(111))),
        (records::SHELL, records::exit(None, Some(9))),
    ]);
    let page = page(&log, issued, false);
    let tree: Vec<&str> = page.lines().skip_while(|line| !line.is_empty()).skip(1).collect();
    assert_eq!(
        tree,
        [
            "   +0.001s    4242  sh -c 'x y'   -> was ended by signal 9 (KILL) after 0.007s",
            "                      (in /home/user; uid 1000; ACTING AS uid 0)",
            "   +0.003s    4243      wc -l   -> exited with 0 after 0.003s",
            "                          (ACTING AS uid 0)",
            "   +0.004s                write     /data/in.csv",
            "   +0.006s            connect   127.0.0.1:8080 tcp  REFUSED",
        ]
    );
}

#[test]
fn what_happens_on_sockets_has_a_line_each() {
    let (log, issued) = session(vec![
        (records::SHELL, records::exec(b"/bin/sh", b"sh\0")),
        (records::SHELL, records::send("1.2.3.4:53", ActMarks::FIRST_OF_MANY)),
        (records::SHELL, records::flow("1.2.3.4:443", 10, 20)),
        (records::SHELL, records::listen("[::]:8080", 98)),
        (records::SHELL, records::accept("10.0.0.5:8080", "10.0.0.9:40000")),
        (records::SHELL, records::connect_unix(Some(b"/run/docker.sock"), None, 0)),
        (records::SHELL, records::connect_unix(None, Some(b"x\n"), 0)),
        (records::SHELL, records::connect_unix(None, None, 2)),
        (records::SHELL, records::connect_vsock(2, 7)),
        (records::SHELL, records::socket_made(17, 0)),
    ]);
    let page = page(&log, issued, false);
    let lines: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("   +"))
        .skip(1)
        .map(|line| line.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).trim_start_matches("s "))
        .map(str::trim_start)
        .collect();
    assert_eq!(
        lines,
        [
            "sends     to 1.2.3.4:53 (udp) without connecting  (more than once)",
            "ends      1.2.3.4:443 (tcp): 10 bytes sent, 20 received in 2.000s",
            "listens   on [::]:8080 (tcp)  FAILED EADDRINUSE",
            "accepts   10.0.0.9:40000 on 10.0.0.5:8080 (tcp)",
            "connects  to /run/docker.sock (unix) connected, served by 60 of uid 0",
            "connects  to @x\\n (unix) connected, served by 60 of uid 0",
            "connects  to a socket not known (unix) FAILED ENOENT",
            "connects  to vsock:2:7 FAILED ENODEV",
            "makes     a socket: AF_PACKET SOCK_RAW protocol 768",
        ]
    );
}

#[test]
fn every_privileged_act_and_failed_exec_stands_with_its_process() {
    let mut bodies = vec![(records::SHELL, records::exec(b"/bin/sh", b"sh\0-c\0x y\0"))];
    bodies.extend(records::privileged().into_iter().map(|body| (records::SHELL, body)));
    let acts = bodies.len() - 1;
    let (log, issued) = session(bodies);
    let page = page(&log, issued, true);
    for words in [
        "FAILED to run \"./tool\": EACCES",
        "changed its credentials: uid 0 -> 1000",
        "attached to 99 in scope 17  AGAINST THE AGENT",
        "sent signal 9 (KILL) to 99: FAILED EPERM",
        "moved the mount",
        "made itself new namespaces (user)",
        "called bpf PROG_LOAD of 77 \"prog\"",
        "loaded a kernel module dummy from /lib/modules/dummy.ko",
        "added a key, key 5",
        "made an io_uring of 8 entries",
    ] {
        assert!(page.contains(words), "{words} is not in\n{page}");
    }
    assert_eq!(page.lines().filter(|line| line.contains("4242 ") && !line.contains("sh -c")).count(), acts, "{page}");
}

#[test]
fn acts_stand_in_the_order_of_their_time_and_not_of_the_log() {
    let (mut log, issued) = session(vec![
        (CHILD, records::open(Some(b"/data/in.csv"), None, ActMarks::NONE)),
        (records::SHELL, records::exec(b"/bin/sh", b"sh\0")),
        (records::SHELL, records::fork()),
    ]);
    // The open came through the other ring: earlier in the log, later in time.
    let late = String::from_utf8(log.entries[1].clone()).unwrap().replace("5000001000000", "5000009000000");
    log.entries[1] = late.into_bytes();
    let page = page(&log, issued, false);
    let tree: Vec<&str> = page.lines().skip_while(|line| !line.is_empty()).skip(1).collect();
    assert!(tree[0].contains("4242  sh"), "{page}");
    assert!(tree[2].contains("4243      (forked, runs its parent's program)"), "{page}");
    assert!(tree[3].contains("write     /data/in.csv"), "{page}");
}

#[test]
fn reads_of_the_system_are_counted_and_shown_on_demand() {
    let mut log = records::Writer::default();
    let issued = log.push(None, records::issued());
    log.push_in(Some(records::SHELL), None, Some(issued), records::exec(b"/bin/sh", b"sh\0"));
    for n in 0..5 {
        let path = format!("/usr/lib/lib{n}.so");
        log.push_in(Some(records::SHELL), None, Some(issued), read(path.as_bytes()));
    }
    log.push_in(Some(records::SHELL), None, Some(issued), records::open(None, Some(2), ActMarks::NONE));
    log.push_in(Some(records::SHELL), None, Some(issued), read(b"/etc/shadow"));
    log.push_in(Some(records::SHELL), None, Some(issued), read(b"/srv/data.csv"));
    log.push_in(Some(records::SHELL), None, Some(issued), read(b"/srv/data.csv"));
    let folded = page(&log, issued, false);
    assert!(
        folded.contains("read 5 files of the system and of packages; looked for 1 file in vain (\"secret.txt\")"),
        "{folded}"
    );
    assert!(folded.contains("read      /etc/shadow\n"), "{folded}");
    assert!(folded.contains("read      /srv/data.csv  x2\n"), "{folded}");
    assert!(!folded.contains("lib3.so"), "{folded}");
    let whole = page(&log, issued, true);
    assert!(whole.contains("/usr/lib/lib3.so") && whole.contains("ENOENT"), "{whole}");
}

#[test]
fn reads_that_the_log_itself_counts_are_counted_with_the_others() {
    use agent_evidence::record::{BootTime, Class, Digest, FileFolded, NumberRange};
    let folded = Body::FileFolded(FileFolded {
        directory: Some("/opt/models/lib".into()),
        ranges: vec![NumberRange { cpu: 0, class: Class::File, first: 1, last: 40 }].into(),
        count: 40,
        names: Digest([1; 32]),
        from: BootTime(5_000_001_500_000),
        to: BootTime(5_000_001_600_000),
    });
    let (log, issued) = session(vec![
        (records::SHELL, records::exec(b"/bin/sh", b"sh\0")),
        (records::SHELL, folded),
        (records::SHELL, read(b"/usr/lib/a.so")),
    ]);
    let counted = page(&log, issued, false);
    assert!(counted.contains("read 41 files of the system and of packages"), "{counted}");
    let whole = page(&log, issued, true);
    assert!(whole.contains("read      40 files in /opt/models/lib  (only counted)"), "{whole}");
}

fn read(path: &[u8]) -> Body<'_> {
    let Body::Open(mut open) = records::open(Some(path), None, ActMarks::NONE) else { panic!() };
    open.oflags = 0;
    Body::Open(open)
}

#[test]
fn racy_reads_of_the_system_are_counted_and_a_path_that_differs_is_shown() {
    let marked = |path: &'static [u8], marks| {
        let Body::Open(mut open) = records::open(Some(path), None, marks) else { panic!() };
        open.oflags = 0;
        (records::SHELL, Body::Open(open))
    };
    let (log, issued) = session(vec![
        marked(b"/usr/lib/a.so", ActMarks::RACY),
        marked(b"/usr/lib/b.so", ActMarks::NONE),
        marked(b"/usr/lib/c.so", ActMarks::RACY | ActMarks::DIFFERS),
        marked(b"/srv/d.csv", ActMarks::RACY),
    ]);
    let page = page(&log, issued, false);
    assert!(page.contains("read 2 files of the system and of packages, 1 of them racy"), "{page}");
    assert!(page.contains("read      /usr/lib/c.so  (racy, not what was asked for)"), "{page}");
    assert!(page.contains("read      /srv/d.csv  (racy)"), "{page}");
}

#[test]
fn many_files_of_one_directory_are_one_line_unless_they_look_secret() {
    let paths: Vec<String> = (0..12).map(|n| format!("/srv/parts/{n}.csv")).collect();
    let mut bodies: Vec<_> = paths.iter().map(|path| (records::SHELL, read(path.as_bytes()))).collect();
    bodies.push((records::SHELL, read(b"/srv/parts/api-token.txt")));
    let (log, issued) = session(bodies);
    let page = page(&log, issued, false);
    assert!(page.contains("read      12 files in /srv/parts/ (0.csv, 1.csv, 2.csv, ...)"), "{page}");
    assert!(page.contains("read      /srv/parts/api-token.txt"), "{page}");
}

#[test]
fn hostile_names_cannot_act_on_the_terminal() {
    let (log, issued) = session(vec![
        (records::SHELL, records::exec(b"/tmp/\x1b[2Jx", b"\x1b]0;owned\x07\0a\nb\0")),
        (records::SHELL, read(b"/tmp/\xe2\x80\xaegnp.sh")),
    ]);
    let page = page(&log, issued, false);
    assert!(!page.contains('\u{1b}') && !page.contains('\u{7}') && !page.contains('\u{202e}'), "{page:?}");
    assert!(page.contains("\\u{202e}gnp.sh"), "{page}");
}

/// A gap of seven file events within the session's time, of which the kernel side counted these
/// shares per cgroup.
fn page_with_gap(shares: &[(u64, u64)]) -> String {
    use agent_evidence::record::{BootTime, CgroupId, Class, Gap, GapCause, Id128, LossShare, NumberRange};
    let (mut log, issued) = session(vec![(records::SHELL, records::exec(b"/bin/sh", b"sh\0"))]);
    let shares: Vec<LossShare> =
        shares.iter().map(|&(scope, count)| LossShare { scope: CgroupId(scope), count }).collect();
    log.push(
        None,
        Body::Gap(Gap {
            cause: GapCause::RingFull,
            capture_id: Id128([1; 16]),
            ranges: vec![NumberRange { cpu: 0, class: Class::File, first: 3, last: 9 }].into(),
            count: 7,
            shares: shares.into(),
            from: Some(BootTime(5_000_000_000_000)),
            to: Some(BootTime(5_000_500_000_000)),
        }),
    );
    page(&log, issued, false)
}

#[test]
fn a_loss_that_can_be_the_sessions_is_loud() {
    const LOSS: &str = "!!!!!!!!  +0.500s LOST 7 events (file): the ring was full, within 0.500s; ";
    let unsure = page_with_gap(&[]);
    assert!(unsure.contains(&format!("{LOSS}acts of this session may be among them")), "{unsure}");
    assert!(!unsure.contains("none recorded"), "{unsure}");
    let ours = page_with_gap(&[(9, 3), (0, 4)]);
    assert!(ours.contains(&format!("{LOSS}3 of this session")), "{ours}");
}

#[test]
fn a_loss_that_was_all_of_others_is_said_quietly() {
    let page = page_with_gap(&[(0, 7)]);
    assert!(
        page.contains("losses    none recorded for this session; 7 events of others were lost meanwhile"),
        "{page}"
    );
    assert!(!page.contains("LOST"), "{page}");
}

#[test]
fn the_kind_of_an_entry_is_found_without_decoding() {
    let (log, _) = session(vec![(records::SHELL, records::exec(b"/bin/sh", b"sh\0"))]);
    assert!(has_kind(&log.entries[0], b"issued"));
    assert!(!has_kind(&log.entries[0], b"issue"));
    assert!(has_kind(&log.entries[1], b"exec"));
}
