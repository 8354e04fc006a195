//! aya's marker for map values: the only `unsafe` of this crate, because only a type's own crate can write it.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe trait and its impls must live beside the types")]

use crate::globals::Offsets;
use crate::privilege::Credentials;
use crate::stats::{Call, Loss, LossKey, Meta, Pending, Scope, SendKey, Settings, TaskScope};

macro_rules! pod {
    ($($t:ty),*) => { $(
        // SAFETY: repr(C), Copy, no padding and valid for any bit pattern: zerocopy's `IntoBytes` and `FromBytes`
        // derives on the type prove both.
        unsafe impl aya::Pod for $t {}
    )* };
}
pod!(Offsets, Loss, LossKey, Meta, Scope, Settings, TaskScope, Call, Pending, SendKey, Credentials);
