//! agent-evidence
