//! `merestone gateway` as a process of its own, between a server and an agent
//! that the tests play, byte for byte.

mod agent;
mod ends;
mod models;
mod passing;
mod smuggling;
mod stage;
mod volume;
