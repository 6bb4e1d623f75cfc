//! The agent, the TPM and the verifier together; everything is in `tests/`, and
//! the process that plays the workload in `src/bin`.
