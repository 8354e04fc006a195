//! Sessions as users meet them: the control socket, its protocol, and who may ask for what.
//!
//! The state of a session belongs to the pipeline, behind [`protocol::SessionService`]; this
//! module owns the words spoken over the socket, the decision who may speak them, and the client.

pub mod authorization;
pub mod client;
pub mod control;
pub mod peer;
pub mod protocol;
