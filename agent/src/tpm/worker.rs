//! The one thread that waits for the TPM.
//!
//! Owns the [`Device`]. An order goes in, one answer comes out, through whatever the owner handed over; there is never more
//! than one order under way ([`super::schedule`]), so the queue between has room for one. The asking side never waits: an order
//! that cannot be taken is refused. A TPM that hangs hangs this thread alone; when the owner goes away meanwhile, the thread
//! ends with the process.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use zeroize::Zeroizing;

use super::{AkFrom, Certified, Clock, CounterFacts, Device, Identity, Place, Quote, TpmError};

/// What the TPM is asked.
#[derive(Debug)]
pub enum Order {
    /// Open it: find the keys, unseal the log key if that is wanted, read the counter.
    Begin {
        /// Whether the log key is wanted.
        unseal: bool,
        /// The counter's handle, when it is to be used.
        counter: Option<u32>,
    },
    /// Quote.
    Quote {
        /// The 32 bytes to sign.
        qualifying: [u8; 32],
    },
    /// Step the counter to this value and certify it.
    Step {
        /// Its handle.
        index: u32,
        /// The value it is to have.
        to: u64,
        /// The 32 bytes to sign with the value.
        qualifying: [u8; 32],
    },
    /// Certify the counter as it stands.
    Certify {
        /// Its handle.
        index: u32,
        /// The 32 bytes to sign with the value.
        qualifying: [u8; 32],
    },
}

/// The TPM is open.
pub struct Begun {
    /// The AK and what stands above it.
    pub identity: Identity,
    /// The log key's seed, or why there is none; `None` when it was not wanted.
    pub seed: Option<Result<Zeroizing<[u8; 32]>, TpmError>>,
    /// The counter, or why it cannot be used; `None` when it was not wanted.
    pub counter: Option<Result<CounterFacts, TpmError>>,
    /// Its clock.
    pub clock: Clock,
}

impl std::fmt::Debug for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the seed.
        f.debug_struct("Begun")
            .field("identity", &self.identity)
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}

/// What came of an order.
#[derive(Debug)]
pub enum Answer {
    /// To [`Order::Begin`].
    Begun(Box<Begun>),
    /// To [`Order::Quote`].
    Quoted(Quote),
    /// To [`Order::Step`] and [`Order::Certify`].
    Certified(Certified),
}

/// How answers get back. `false` when nobody listens any more.
pub type Tell = Box<dyn FnMut(Result<Answer, TpmError>) -> bool + Send>;

/// The asking side.
pub struct Worker {
    orders: SyncSender<Order>,
}

impl Worker {
    /// Starts the thread. It does nothing before the first order.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub fn start(place: Place, keys: PathBuf, tell: Tell) -> io::Result<Self> {
        let (orders, receiver) = sync_channel(1);
        // Not joined: it may hang as long as the TPM does.
        thread::Builder::new().name("tpm".to_owned()).spawn(move || serve(&place, &keys, &receiver, tell))?;
        Ok(Self { orders })
    }

    /// Gives an order. `false` when one waits already, or the thread is gone.
    #[must_use]
    pub fn order(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }
}

fn serve(place: &Place, keys: &std::path::Path, orders: &Receiver<Order>, mut tell: Tell) {
    let mut device = None;
    for order in orders {
        let outcome = carry_out(&mut device, place, keys, order);
        if outcome.is_err() {
            // Whatever it was: the next order begins anew.
            device = None;
        }
        if !tell(outcome) {
            return;
        }
    }
}

fn carry_out(
    device: &mut Option<Device>,
    place: &Place,
    keys: &std::path::Path,
    order: Order,
) -> Result<Answer, TpmError> {
    match order {
        Order::Begin { unseal, counter } => begin(device.insert(Device::open(place, keys)?), unseal, counter),
        Order::Quote { qualifying } => Ok(Answer::Quoted(opened(device)?.quote(&qualifying)?)),
        Order::Step { index, to, qualifying } => {
            opened(device)?.step_counter(index, to)?;
            Ok(Answer::Certified(opened(device)?.certify_counter(index, &qualifying)?))
        }
        Order::Certify { index, qualifying } => {
            Ok(Answer::Certified(opened(device)?.certify_counter(index, &qualifying)?))
        }
    }
}

/// The open device. Where there is none, it was reset or failed since it was begun, and what was said of its keys and counter
/// may be wrong.
fn opened(device: &Option<Device>) -> Result<&Device, TpmError> {
    device.as_ref().ok_or(TpmError::Reset)
}

fn begin(device: &Device, unseal: bool, counter: Option<u32>) -> Result<Answer, TpmError> {
    let seed = unseal
        .then(|| device.unseal_log_key().and_then(|seed| seed.ok_or(TpmError::KeyLost { why: "its blob is gone" })));
    let counter = counter.map(|index| device.counter(index));
    let clock = device.clock()?;
    let identity = device.identity().clone();
    if identity.ak_from != AkFrom::Blob {
        tracing::info!(tpm = identity.tpm, how = ?identity.ak_from, "made an attestation key");
    }
    Ok(Answer::Begun(Box::new(Begun { identity, seed, counter, clock })))
}
