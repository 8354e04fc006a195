//! What the kernel side counted: numbers given out, and events lost.
#![forbid(unsafe_code)]

use agent_common::header::class;
use agent_common::stats::{Loss, LossKey};
use aya::maps::{HashMap, MapData, MapError, PerCpuArray};

/// Counters of one (cpu, class).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// The CPU.
    pub cpu: u32,
    /// One of [`class`].
    pub class: u8,
    /// Numbers given out: the next event gets this number.
    pub generated: u64,
    /// Of these, events that found no room.
    pub dropped: u64,
}

/// Every (cpu, class), read one after the other while the programs run: between `generated` and `dropped` of one
/// counter events can happen, so `dropped` is read first and never exceeds what `generated` allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// All of them, by CPU and class.
    pub by_cpu: Vec<Counter>,
}

impl Counters {
    /// Sums over the CPUs: (generated, dropped).
    #[must_use]
    pub fn totals(&self, class: u8) -> (u64, u64) {
        self.by_cpu
            .iter()
            .filter(|counter| counter.class == class)
            .fold((0, 0), |(generated, dropped), counter| (generated + counter.generated, dropped + counter.dropped))
    }

    pub(super) fn read(seq: &PerCpuArray<MapData, u64>, drops: &PerCpuArray<MapData, u64>) -> Result<Self, MapError> {
        let mut by_cpu = Vec::new();
        for class in 0..class::COUNT {
            let dropped = drops.get(&class, 0)?;
            let generated = seq.get(&class, 0)?;
            for (cpu, (generated, dropped)) in generated.iter().zip(dropped.iter()).enumerate() {
                by_cpu.push(Counter {
                    cpu: u32::try_from(cpu).unwrap_or(u32::MAX),
                    class: u8::try_from(class).unwrap_or(u8::MAX),
                    generated: *generated,
                    dropped: *dropped,
                });
            }
        }
        Ok(Self { by_cpu })
    }
}

/// Losses of one class in one scope since the maps were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossEntry {
    /// One of [`class`].
    pub class: u8,
    /// Scope id; 0 for the host outside every scope, and for scopes that found no entry of their own.
    pub scope_id: u64,
    /// Events lost.
    pub count: u64,
    /// First loss, nanoseconds since boot.
    pub first_ns: u64,
    /// Latest loss, nanoseconds since boot, to within microseconds.
    pub last_ns: u64,
}

pub(super) fn losses(loss: &HashMap<MapData, LossKey, Loss>) -> Result<Vec<LossEntry>, MapError> {
    let mut entries = Vec::new();
    for entry in loss.iter() {
        let (key, value) = entry?;
        if value.count > 0 {
            entries.push(LossEntry {
                class: u8::try_from(key.class).unwrap_or(u8::MAX),
                scope_id: key.scope_id,
                count: value.count,
                first_ns: value.first_ns,
                last_ns: value.last_ns,
            });
        }
    }
    entries.sort_by_key(|entry| (entry.class, entry.scope_id));
    Ok(entries)
}
