//! Writes the tables of kinds and forms of `docs/FORMAT.md` from the schema that the encoder and decoder are made of.
//!
//! `cargo run -p agent-evidence --example format_tables -- docs/FORMAT.md` replaces what stands between the
//! markers; with `--check` it changes nothing and fails when the document is stale.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::process::ExitCode;

use agent_evidence::record::{FORMS, FormSchema, KINDS, KindSchema, Member};
use agent_evidence::verify::FINDINGS;

/// Between lines with these words stands in the document what this program writes.
const TABLES: &str = "tables";
const FINDINGS_TABLE: &str = "findings";

/// The kinds, then the forms they refer to.
fn tables() -> String {
    let mut out = String::new();
    for kind in KINDS {
        kind_table(kind, &mut out);
    }
    for form in FORMS {
        form_table(form, &mut out);
    }
    out
}

/// The names of findings, with the claim that each breaks.
fn findings() -> String {
    let mut out = String::from("| finding | breaks | meaning |\n|---|---|---|\n");
    for (name, claim, meaning) in FINDINGS {
        paragraph(&mut out, format_args!("| `{name}` | {} | {} |", claim.name(), sentence(meaning)));
    }
    out.push('\n');
    out
}

fn kind_table(kind: &KindSchema, out: &mut String) {
    let chain = if kind.control { "Control chain. " } else { "" };
    paragraph(out, format_args!("#### Kind `{}`\n\n{chain}{}\n", kind.kind, sentence(kind.meaning)));
    members(kind.members, out);
}

fn form_table(form: &FormSchema, out: &mut String) {
    let shape = match form.shape {
        "object" => "An object with these members.",
        "row" => "An array with exactly these places.",
        "words" => "One of these words, as a string.",
        _ => "A set: an array of one or more of these words, each at most once, in this order.",
    };
    paragraph(out, format_args!("#### Form *{}*\n\n{} {shape}\n", form.form, sentence(form.meaning)));
    if matches!(form.shape, "words" | "flags") {
        out.push_str("| word | meaning |\n|---|---|\n");
        for word in form.members {
            paragraph(out, format_args!("| `{}` | {} |", word.key, sentence(word.meaning)));
        }
        out.push('\n');
    } else {
        members(form.members, out);
    }
}

fn members(members: &[Member], out: &mut String) {
    out.push_str("| member | form | absent | meaning |\n|---|---|---|---|\n");
    for member in members {
        let list = if member.list { "list of " } else { "" };
        let optional = if member.optional { "may be" } else { "" };
        let meaning = sentence(member.meaning);
        paragraph(out, format_args!("| `{}` | {list}{} | {optional} | {meaning} |", member.key, member.form));
    }
    out.push('\n');
}

/// Writing to a string does not fail.
fn paragraph(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _infallible = out.write_fmt(text);
    out.push('\n');
}

/// A document comment as one line: its lines were joined, each with the space it began with.
fn sentence(doc: &str) -> String {
    doc.trim().replace('|', "\\|")
}

/// The document with its tables made anew; nothing when it lacks the markers.
fn renewed(document: &str) -> Option<String> {
    let document = replaced(document, TABLES, &tables())?;
    replaced(&document, FINDINGS_TABLE, &findings())
}

fn replaced(document: &str, word: &str, with: &str) -> Option<String> {
    let (before, rest) = document.split_once(&format!("<!-- {word}: begin -->\n"))?;
    let (_, after) = rest.split_once(&format!("<!-- {word}: end -->\n"))?;
    Some(format!("{before}<!-- {word}: begin -->\n\n{with}<!-- {word}: end -->\n{after}"))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (check, path) = match arguments.as_slice() {
        [path] => (false, path),
        [flag, path] if flag == "--check" => (true, path),
        _ => return fail("usage: format_tables [--check] docs/FORMAT.md"),
    };
    let Ok(document) = std::fs::read_to_string(path) else {
        return fail(&format!("cannot read {path}"));
    };
    let Some(renewed) = renewed(&document) else {
        return fail(&format!("{path} lacks the marks between which tables stand"));
    };
    if renewed == document {
        return ExitCode::SUCCESS;
    }
    if check {
        return fail(&format!("{path} is stale: run this program without --check"));
    }
    match std::fs::write(path, renewed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot write {path}: {error}")),
    }
}

#[expect(clippy::print_stderr, reason = "a command says what went wrong")]
fn fail(message: &str) -> ExitCode {
    eprintln!("format_tables: {message}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_has_the_tables_of_the_schema() {
        let document = include_str!("../../docs/FORMAT.md");
        assert_eq!(renewed(document).as_deref(), Some(document), "run the example format_tables on docs/FORMAT.md");
    }
}
