//! The window: driven without a worker by events and clicks, and once for real on a virtual display.

mod film;
mod film_states;
mod support;
mod training;
mod window;
