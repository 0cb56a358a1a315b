//! Two halves in a box: cuts at every byte, frames out of turn, and peers that lie.

mod pair;
mod serving;
mod streams;
