//! Damaged bytes are told and never served.
