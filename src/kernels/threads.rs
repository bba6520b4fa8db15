//! candle's threads beside ours.

/// Turns candle's own thread pool off. It is as large as the machine whatever `--threads` says, and waits by spinning:
/// beside our threads it took a fifth of a training step. To be called first in `main`; candle reads the setting once.
pub fn keep_candle_on_the_calling_thread() {
    // SAFETY: no other thread runs yet that could read the environment
    unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
}
