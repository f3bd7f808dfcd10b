//! How rendering shares the processor with the window: one core less, and behind it in the line.

/// How far threads that render stand behind the window's, in the system's own steps (0..19): a third of
/// its share where both want the same core, so that they still get on beside other programs.
#[cfg(target_os = "linux")]
const BEHIND: i32 = 5;

/// Sets up the threads that kernels share their work over. Called once, before the first work.
///
/// Someone who says how many threads there are (`RAYON_NUM_THREADS`) gets that many.
pub(crate) fn make_room() {
    let said = std::env::var_os("RAYON_NUM_THREADS").is_some();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if said { 0 } else { workers(cores) };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("kernels-{index}"))
        .start_handler(|_| step_back())
        .build_global();
    if let Err(error) = pool {
        tracing::debug!(%error, "the window shares every core with rendering");
    }
}

/// Threads for work that someone waits for: as many as there are cores, not behind the window and not in line with a
/// render. None where they cannot be had; the work is then shared as others' is.
pub(crate) fn every_core(name: &'static str) -> Option<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().thread_name(move |index| format!("{name}-{index}"));
    pool.build().map_err(|error| tracing::debug!(%error, "{name} share the threads of kernels")).ok()
}

/// Threads for kernels on so many cores.
fn workers(cores: usize) -> usize {
    cores.saturating_sub(1).max(1)
}

/// Lets the window's threads go before this one. Elsewhere than on Linux priority belongs to whole
/// processes or asks for rights; there the core that is left free has to do.
pub(crate) fn step_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(BEHIND) {
        tracing::debug!(%error, "a thread that renders keeps its priority");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_left_to_the_window_where_there_are_two() {
        assert_eq!([1, 2, 8].map(workers), [1, 1, 7]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_the_thread_that_asks_steps_back() {
        let nice = || -> i64 {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // The 19th field; the name may hold anything, so fields are counted from its end.
            stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap()
        };
        let before = nice();
        let there = std::thread::spawn(move || {
            step_back();
            nice()
        });
        assert_eq!(there.join().unwrap(), (before + i64::from(BEHIND)).min(19));
        assert_eq!(nice(), before);
    }
}
