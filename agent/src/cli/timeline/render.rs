//! The page of a timeline: head, losses, tree.
#![forbid(unsafe_code)]

use super::fold::{self, Folded};
use super::{Image, Process, Step, Tree, What};
use crate::cli::duration::show_ns;
use crate::cli::exit::Exit;
use crate::cli::output::Lines;

/// Most levels of indentation; deeper processes stand at this one.
const DEPTH_MAX: usize = 24;

/// Longest line of an act or command, in characters, unless everything is shown.
const LINE_MAX: usize = 160;

pub(super) fn page(tree: &Tree, all: bool, out: &mut impl Lines) -> Result<(), Exit> {
    for (name, value) in &tree.head {
        out.line(&format!("{name:<9} {value}"))?;
    }
    match &tree.end {
        Some(end) => out.line(&format!("ended     {end}"))?,
        None => out.line("ended     not yet: this shows what is sealed so far")?,
    }
    if tree.losses.is_empty() {
        let others = match tree.lost_elsewhere {
            0 => String::new(),
            count => format!("; {count} events of others were lost meanwhile"),
        };
        out.line(&format!("losses    none recorded for this session{others}"))?;
    }
    let mut losses = tree.losses.clone();
    losses.sort();
    for (at_ns, loss) in &losses {
        out.line(&format!("!!!!!!!!  {} {loss}", since(tree, *at_ns)))?;
    }
    out.line("")?;
    let roots = (0..tree.processes.len())
        .rev()
        .filter(|&at| tree.processes.get(at).is_some_and(|process| process.parent.is_none()));
    // An explicit stack: a session may nest as deep as it likes.
    let mut stack: Vec<Work> = roots.map(|process| Work { process, step: 0, depth: 0 }).collect();
    let mut page = Page { tree, all, out };
    while let Some(work) = stack.pop() {
        page.work(work, &mut stack)?;
    }
    if tree.processes.is_empty() {
        out.line("no process has joined")?;
    }
    if tree.not_shown > 0 {
        out.line(&format!("!!!!!!!!  {} more entries are in the log and not shown here", tree.not_shown))?;
    }
    Ok(())
}

fn since(tree: &Tree, at_ns: u64) -> String {
    let ns = at_ns.saturating_sub(tree.start_ns);
    let (seconds, ms) = (ns / 1_000_000_000, ns / 1_000_000 % 1000);
    format!("+{seconds}.{ms:03}s")
}

/// Printing that is still to be done: a process from one of its steps on.
#[derive(Clone, Copy)]
struct Work {
    process: usize,
    step: usize,
    depth: usize,
}

struct Page<'t, 'o, L> {
    tree: &'t Tree,
    all: bool,
    out: &'o mut L,
}

impl<L: Lines> Page<'_, '_, L> {
    /// Prints a process up to its next child, and puts the child and the rest on the stack.
    fn work(&mut self, work: Work, stack: &mut Vec<Work>) -> Result<(), Exit> {
        let tree = self.tree;
        let Some(process) = tree.processes.get(work.process) else { return Ok(()) };
        // A fork that does nothing but fork has no line: its children stand in its place.
        let transparent = !self.all && self.is_transparent(process);
        if work.step == 0 && !transparent {
            self.begin(process, work.depth)?;
        }
        let (start, mut folded) = image(process, work.step);
        // Lines of the opens are found by their position among the image's opens.
        let mut opens =
            process.steps.get(start..work.step).unwrap_or_default().iter().filter(|step| is_open(step)).count();
        for (at, step) in process.steps.iter().enumerate().skip(work.step) {
            match &step.what {
                What::Child(child) => {
                    stack.push(Work { step: at + 1, ..work });
                    let depth = if transparent { work.depth } else { (work.depth + 1).min(DEPTH_MAX) };
                    stack.push(Work { process: *child, step: 0, depth });
                    return Ok(());
                }
                What::Image(shown) => {
                    folded = image(process, at + 1).1;
                    opens = 0;
                    self.image(process, at, shown, &folded, work.depth)?;
                }
                What::Open(open) => {
                    if self.all {
                        self.act(step, work.depth, &open.line())?;
                    } else if let Some(line) = folded.lines.get(&opens) {
                        self.act(step, work.depth, line)?;
                    }
                    opens += 1;
                }
                What::Connect { line, result, .. } => {
                    self.act(step, work.depth, &format!("{:<9} {line}  {result}", "connect"))?;
                }
                What::Other(line) => self.act(step, work.depth, line)?,
            }
        }
        Ok(())
    }

    /// Announces a process that does something before it runs a program of its own.
    fn begin(&mut self, process: &Process, depth: usize) -> Result<(), Exit> {
        if self.begins_silently(process) {
            return Ok(());
        }
        let what = match process.parent {
            Some(_) => "(forked, runs its parent's program)",
            None => "(joined with a program that was started before)",
        };
        let end = if has_image(process) { String::new() } else { ended(process) };
        self.row(process.first_ns, process.tgid, depth, what, &end)?;
        self.below(depth, &image(process, 0).1.summary)
    }

    /// Whether nothing that a process does before its program is worth showing: its program's line
    /// says enough.
    fn begins_silently(&self, process: &Process) -> bool {
        let before: Vec<&Step> = process.steps.iter().take_while(|step| !matches!(step.what, What::Image(_))).collect();
        if self.all {
            return before.is_empty() && has_image(process);
        }
        has_image(process) && before.iter().all(|step| is_open(step)) && image(process, 0).1.lines.is_empty()
    }

    /// Whether a process has nothing to show but its children.
    fn is_transparent(&self, process: &Process) -> bool {
        process.parent.is_some()
            && process.steps.iter().all(|step| matches!(step.what, What::Child(_) | What::Open(_)))
            && image(process, 0).1.lines.is_empty()
    }

    fn image(
        &mut self,
        process: &Process,
        at: usize,
        image: &Image,
        folded: &Folded,
        depth: usize,
    ) -> Result<(), Exit> {
        let step_ns = process.steps.get(at).map_or(0, |step| step.at_ns);
        let replaced = process.steps.iter().skip(at + 1).any(|step| matches!(step.what, What::Image(_)));
        let end = if replaced { "   -> becomes another program".to_owned() } else { ended(process) };
        self.row(step_ns, process.tgid, depth, &image.line, &end)?;
        let before = self.context(process, at);
        let mut detail = Vec::new();
        if let Some(cwd) = &image.cwd
            && before.is_none_or(|before| before.cwd.as_ref() != Some(cwd))
        {
            detail.push(format!("in {cwd}"));
        }
        if before.is_none_or(|before| before.uid != image.uid) {
            detail.push(format!("uid {}", image.uid));
        }
        if image.euid != image.uid {
            detail.push(format!("ACTING AS uid {}", image.euid));
        }
        if image.deleted {
            detail.push("ITS FILE HAS NO NAME".to_owned());
        }
        // A program that only hands over to the next one has nothing to tell.
        if !self.all && (!replaced || !folded.lines.is_empty()) {
            detail.extend(folded.summary.iter().cloned());
        }
        self.below(depth, &detail)
    }

    /// The image that a process had before this step: its own, or its parent's at the fork.
    fn context<'p>(&'p self, process: &'p Process, step: usize) -> Option<&'p Image> {
        let own = process.steps.iter().take(step).rev().find_map(as_image);
        own.or_else(|| {
            let parent = self.tree.processes.get(process.parent?)?;
            parent.steps.iter().rev().filter(|step| step.at_ns <= process.first_ns).find_map(as_image)
        })
    }

    fn row(&mut self, at_ns: u64, tgid: u32, depth: usize, line: &str, end: &str) -> Result<(), Exit> {
        let line = self.shortened(line);
        self.out.line(&format!("{:>10} {tgid:>7}  {}{line}{end}", since(self.tree, at_ns), indent(depth)))
    }

    fn act(&mut self, step: &Step, depth: usize, line: &str) -> Result<(), Exit> {
        let line = self.shortened(line);
        self.out.line(&format!("{:>10} {:>7}  {}  {line}", since(self.tree, step.at_ns), "", indent(depth)))
    }

    fn below(&mut self, depth: usize, details: &[String]) -> Result<(), Exit> {
        if details.is_empty() {
            return Ok(());
        }
        self.out.line(&format!("{:>10} {:>7}  {}  ({})", "", "", indent(depth), details.join("; ")))
    }

    fn shortened(&self, line: &str) -> String {
        match line.char_indices().nth(LINE_MAX) {
            Some((end, _)) if !self.all => format!("{} ...", line.get(..end).unwrap_or(line)),
            _ => line.to_owned(),
        }
    }
}

fn indent(depth: usize) -> String {
    "    ".repeat(depth)
}

fn ended(process: &Process) -> String {
    match &process.ended {
        Some((at_ns, how)) => format!("   -> {how} after {}", show_ns(at_ns.saturating_sub(process.first_ns))),
        None => String::new(),
    }
}

fn is_open(step: &Step) -> bool {
    matches!(step.what, What::Open(_))
}

fn as_image(step: &Step) -> Option<&Image> {
    match &step.what {
        What::Image(image) => Some(image),
        _ => None,
    }
}

fn has_image(process: &Process) -> bool {
    process.steps.iter().any(|step| matches!(step.what, What::Image(_)))
}

/// The image that covers a step: where it starts, and its opens folded.
fn image(process: &Process, step: usize) -> (usize, Folded) {
    let is_image = |step: &Step| matches!(step.what, What::Image(_));
    let start = process.steps.iter().take(step).rposition(is_image).map_or(0, |at| at + 1);
    let opens =
        process.steps.iter().skip(start).take_while(|step| !is_image(step)).filter_map(|step| match &step.what {
            What::Open(open) => Some(open),
            _ => None,
        });
    (start, fold::fold(opens))
}
