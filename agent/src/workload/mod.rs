//! Placeholder: replaced before this lands.
