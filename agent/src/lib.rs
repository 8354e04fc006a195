//! The Affiant agent: kernel events in, signed evidence out.
