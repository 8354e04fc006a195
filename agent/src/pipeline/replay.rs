//! Captured messages into a log, without a kernel and without root: what benchmarks measure.
//!
//! The same steps as the pipeline takes for each message (decode, number off, translate, append, and commit and seal when
//! due), short of attribution: every event is of the one workload that the log was told of. So the cost of a step can be
//! told from the cost of those before it.

#![forbid(unsafe_code)]

use agent_evidence::record::{Draft, EntryIndex, Kind, LeafHash, Placement, WallTime};

use super::PipelineError;
use super::accounting::{Accounting, Novelty};
use super::clock::Clock;
use super::translate::{self, Paths};
use crate::event;
use crate::log::{Log, Now};

/// How far each message goes; each stage includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Decoded, checked, and numbered off.
    Decode,
    /// Made into a record.
    Translate,
    /// Encoded as canonical bytes.
    Encode,
    /// Hashed, chained and in the log's pending buffer; nothing is written.
    Append,
    /// Durable, and covered by a durable checkpoint, whenever one of the two is due.
    Seal,
}

/// Replays messages up to one stage.
pub struct Replay {
    stage: Stage,
    log: Log,
    clock: Clock,
    accounting: Accounting,
    paths: Paths,
    scratch: Vec<u8>,
    placement: Placement,
    /// Told from the log's first entry on; any entry will do.
    workload: EntryIndex,
    refused: u64,
}

impl Replay {
    /// Replays into `log`, whose first entry stands for the workload of every act.
    #[must_use]
    pub fn new(log: Log, stage: Stage) -> Self {
        let placement = Placement {
            index: EntryIndex(0),
            session_number: None,
            control_number: None,
            previous: LeafHash([0; 32]),
            random: [0; 16],
        };
        Self {
            stage,
            log,
            clock: Clock,
            accounting: Accounting::default(),
            paths: Paths::default(),
            scratch: Vec::new(),
            placement,
            workload: EntryIndex(0),
            refused: 0,
        }
    }

    /// Takes one message as far as the stage says.
    ///
    /// # Errors
    /// What the log answers. A message that cannot be decoded, or was there before, is counted and left out.
    pub fn take(&mut self, message: &[u8]) -> Result<Option<Kind>, PipelineError> {
        let Ok(event) = event::decode(message) else {
            self.refused += 1;
            return Ok(None);
        };
        let header = event.header();
        let number = header.number;
        if self.accounting.note(number) == Novelty::Repeat {
            self.refused += 1;
            return Ok(None);
        }
        if self.stage < Stage::Translate {
            return Ok(None);
        }
        self.paths.turn(&event);
        let body = translate::body(&event, &self.paths);
        let kind = body.kind();
        let draft = Draft {
            wall: WallTime(header.boot.0),
            boot: header.boot,
            kernel: Some(number),
            process: Some(header.cookie()),
            workload: Some(self.workload),
            session: None,
            verdict: None,
            body,
        };
        match self.stage {
            Stage::Decode | Stage::Translate => {
                std::hint::black_box(&draft);
            }
            Stage::Encode => {
                self.scratch.clear();
                draft.encode(&self.placement, &mut self.scratch);
                std::hint::black_box(&self.scratch);
            }
            Stage::Append | Stage::Seal => {
                super::recorder::append(&mut self.log, &draft)?;
            }
        }
        Ok(Some(kind))
    }

    /// Commits and seals when due, as the pipeline does after each batch.
    ///
    /// # Errors
    /// What the log answers.
    pub fn batch_end(&mut self) -> Result<(), PipelineError> {
        if self.stage < Stage::Seal {
            return Ok(());
        }
        let due = self.log.due(self.clock.boot());
        if due.seal {
            self.seal()?;
        } else if due.commit {
            let _committed = self.log.commit()?;
        }
        Ok(())
    }

    /// Makes everything durable and sealed; how many entries the log has, and how many messages were left out.
    ///
    /// # Errors
    /// What the log answers.
    pub fn finish(mut self) -> Result<(u64, u64), PipelineError> {
        if self.stage >= Stage::Seal {
            self.seal()?;
        }
        Ok((self.log.size().0, self.refused))
    }

    fn seal(&mut self) -> Result<(), PipelineError> {
        let now = Now { wall: self.clock.wall(), boot: self.clock.boot() };
        self.log.seal(now)?;
        Ok(())
    }
}
