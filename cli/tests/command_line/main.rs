//! The real binary, as a shell runs it: what it prints, what it leaves on the disk, and what it ends with.

mod consuming;
mod demo;
mod folder;
mod policy;
mod streams;
mod support;
mod traffic;
mod verifying;
