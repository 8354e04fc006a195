//! agent-common
