//! The page of a timeline: head, tree, losses, end.
#![forbid(unsafe_code)]

use super::fold::{self, Folded};
use super::{Process, Step, Tree, What};
use crate::cli::duration::show_ns;
use crate::cli::exit::Exit;
use crate::cli::output::Lines;

/// Most levels of indentation; deeper processes stand at this one.
const DEPTH_MAX: usize = 24;

pub(super) fn page(tree: &Tree, all: bool, out: &mut impl Lines) -> Result<(), Exit> {
    for (name, value) in &tree.head {
        out.line(&format!("{name:<9} {value}"))?;
    }
    match &tree.end {
        Some(end) => out.line(&format!("ended     {end}"))?,
        None => out.line("ended     not yet: this shows what is sealed so far")?,
    }
    if tree.losses.is_empty() {
        out.line("losses    none recorded in this time")?;
    }
    let mut losses = tree.losses.clone();
    losses.sort();
    for (at_ns, loss) in &losses {
        out.line(&format!("!!!!!!!!  {} {loss}; some acts of this session may be missing here", since(tree, *at_ns)))?;
    }
    out.line("")?;
    let mut page = Page { tree, all, out };
    // An explicit stack: a session may nest as deep as it likes.
    let roots: Vec<usize> =
        tree.processes.iter().enumerate().filter(|(_, process)| process.parent.is_none()).map(|(at, _)| at).collect();
    let mut stack: Vec<Work> = roots.into_iter().rev().map(|process| Work { process, step: 0, depth: 0 }).collect();
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
        if work.step == 0 && !self.begin(process, work.depth)? {
            return Ok(());
        }
        // Lines of the opens are placed by their position among the image's opens.
        let (image_start, folded) = image(process, work.step);
        let mut opens_before =
            process.steps.get(image_start..work.step).unwrap_or_default().iter().filter(|step| is_open(step)).count();
        let mut folded = folded;
        for (at, step) in process.steps.iter().enumerate().skip(work.step) {
            match &step.what {
                What::Child(child) => {
                    stack.push(Work { process: work.process, step: at + 1, depth: work.depth });
                    stack.push(Work { process: *child, step: 0, depth: (work.depth + 1).min(DEPTH_MAX) });
                    return Ok(());
                }
                What::Image { line, detail } => {
                    folded = image(process, at + 1).1;
                    opens_before = 0;
                    self.image(process, at, line, detail, &folded, work.depth)?;
                }
                What::Open(open) => {
                    if self.all {
                        self.act(step, work.depth, &open.line())?;
                    } else if let Some(line) = folded.lines.get(&opens_before) {
                        self.act(step, work.depth, line)?;
                    }
                    opens_before += 1;
                }
                What::Connect { line, result, .. } => {
                    self.act(step, work.depth, &format!("{:<9} {line}  {result}", "connect"))?;
                }
                What::Other(line) => self.act(step, work.depth, line)?,
            }
        }
        Ok(())
    }

    /// Announces a process that begins without a program of its own. False: nothing of it is worth
    /// showing (a fork that only ended).
    fn begin(&mut self, process: &Process, depth: usize) -> Result<bool, Exit> {
        let Some(first) = process.steps.first() else {
            if self.all || process.parent.is_none() {
                let end = ended(process);
                self.out.line(&self.row(process.first_ns, process.tgid, depth, &format!("(forked){end}")))?;
            }
            return Ok(self.all);
        };
        if !matches!(first.what, What::Image { .. }) && !self.begins_silently(process) {
            let what = if process.parent.is_some() {
                "(forked: runs its parent's program)"
            } else {
                "(its program was started before)"
            };
            let end = if has_image(process) { String::new() } else { ended(process) };
            self.out.line(&self.row(process.first_ns, process.tgid, depth, &format!("{what}{end}")))?;
            let (_, folded) = image(process, 0);
            self.summaries(&folded, depth)?;
        }
        Ok(true)
    }

    /// Whether nothing that a process does before its program is worth showing: its program's line
    /// says enough.
    fn begins_silently(&self, process: &Process) -> bool {
        let before = process.steps.iter().take_while(|step| !matches!(step.what, What::Image { .. }));
        has_image(process)
            && before.clone().all(is_open)
            && if self.all { before.count() == 0 } else { image(process, 0).1.lines.is_empty() }
    }

    fn image(
        &mut self,
        process: &Process,
        at: usize,
        line: &str,
        detail: &str,
        folded: &Folded,
        depth: usize,
    ) -> Result<(), Exit> {
        let step_ns = process.steps.get(at).map_or(0, |step| step.at_ns);
        let replaced = process.steps.iter().skip(at + 1).any(|step| matches!(step.what, What::Image { .. }));
        let end = if replaced { "   -> replaced by another program".to_owned() } else { ended(process) };
        self.out.line(&self.row(step_ns, process.tgid, depth, &format!("{line}{end}")))?;
        self.below(depth, detail)?;
        self.summaries(folded, depth)
    }

    fn summaries(&mut self, folded: &Folded, depth: usize) -> Result<(), Exit> {
        if !self.all {
            for summary in &folded.summaries {
                self.below(depth, summary)?;
            }
        }
        Ok(())
    }

    fn act(&mut self, step: &Step, depth: usize, line: &str) -> Result<(), Exit> {
        self.out.line(&format!("{:>10} {:>7}  {}    {line}", since(self.tree, step.at_ns), "", indent(depth)))
    }

    fn below(&mut self, depth: usize, line: &str) -> Result<(), Exit> {
        self.out.line(&format!("{:>10} {:>7}  {}  . {line}", "", "", indent(depth)))
    }

    fn row(&self, at_ns: u64, tgid: u32, depth: usize, line: &str) -> String {
        format!("{:>10} {tgid:>7}  {}{line}", since(self.tree, at_ns), indent(depth))
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

fn has_image(process: &Process) -> bool {
    process.steps.iter().any(|step| matches!(step.what, What::Image { .. }))
}

/// The image that covers a step: where it starts, and its opens folded.
fn image(process: &Process, step: usize) -> (usize, Folded) {
    let is_image = |step: &Step| matches!(step.what, What::Image { .. });
    let start = process.steps.iter().take(step).rposition(is_image).map_or(0, |at| at + 1);
    let opens =
        process.steps.iter().skip(start).take_while(|step| !is_image(step)).filter_map(|step| match &step.what {
            What::Open(open) => Some(open),
            _ => None,
        });
    (start, fold::fold(opens))
}
