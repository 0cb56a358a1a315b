//! The frames' bytes, without a session around them.

mod every_frame;
mod fields;
mod samples;
