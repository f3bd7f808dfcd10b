//! A thread that answers questions in order, and forgets those that no longer matter.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Wake;

struct Shared<Q, A> {
    state: Mutex<State<Q, A>>,
    changed: Condvar,
}

struct State<Q, A> {
    questions: VecDeque<Q>,
    answers: Vec<A>,
    busy: bool,
    closed: bool,
}

impl<Q, A> Shared<Q, A> {
    fn lock(&self) -> MutexGuard<'_, State<Q, A>> {
        // Nothing that runs under the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The window's side of a thread. The thread starts with the first question and ends with this.
pub(crate) struct Worker<Q, A> {
    shared: Arc<Shared<Q, A>>,
    name: &'static str,
    start: Option<Box<dyn FnOnce() -> Work<Q, A> + Send>>,
    wake: Wake,
}

type Work<Q, A> = Box<dyn FnMut(Q) -> A + Send>;

impl<Q, A> std::fmt::Debug for Worker<Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker({})", self.name)
    }
}

impl<Q: Send + 'static, A: Send + 'static> Worker<Q, A> {
    /// A thread called `name`; `start` runs on it and makes what answers the questions.
    pub(crate) fn new(
        name: &'static str,
        wake: Wake,
        start: impl FnOnce() -> Work<Q, A> + Send + 'static,
    ) -> Self {
        let state = State { questions: VecDeque::new(), answers: vec![], busy: false, closed: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        Self { shared, name, start: Some(Box::new(start)), wake }
    }

    /// Asks; questions that wait and that `stale` holds for are dropped first.
    pub(crate) fn ask(&mut self, question: Q, stale: impl Fn(&Q) -> bool) {
        {
            let mut state = self.shared.lock();
            state.questions.retain(|waiting| !stale(waiting));
            state.questions.push_back(question);
        }
        self.shared.changed.notify_one();
        let Some(start) = self.start.take() else { return };
        let (shared, wake) = (Arc::clone(&self.shared), Arc::clone(&self.wake));
        let spawned = std::thread::Builder::new()
            .name(self.name.to_owned())
            .spawn(move || run(&shared, start(), &wake));
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for {}", self.name);
        }
    }

    /// Drops waiting questions.
    pub(crate) fn forget(&mut self, stale: impl Fn(&Q) -> bool) {
        self.shared.lock().questions.retain(|waiting| !stale(waiting));
    }

    /// What was answered since the last time.
    pub(crate) fn answers(&mut self) -> Vec<A> {
        std::mem::take(&mut self.shared.lock().answers)
    }

    /// Questions that are not begun.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.lock().questions.len()
    }

    /// Whether it is at work or will be.
    pub(crate) fn is_busy(&self) -> bool {
        let state = self.shared.lock();
        state.busy || !state.questions.is_empty()
    }
}

impl<Q, A> Drop for Worker<Q, A> {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

fn run<Q, A>(shared: &Shared<Q, A>, mut work: Work<Q, A>, wake: &Wake) {
    loop {
        let question = {
            let mut state = shared.lock();
            loop {
                if state.closed {
                    return;
                }
                if let Some(question) = state.questions.pop_front() {
                    state.busy = true;
                    break question;
                }
                state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        };
        // A fault in one answer must not leave the window without the thread.
        let answer = catch_unwind(AssertUnwindSafe(|| work(question)));
        let mut state = shared.lock();
        state.busy = false;
        if let Ok(answer) = answer {
            state.answers.push(answer);
        }
        drop(state);
        wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    fn wait<T>(mut ready: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(value) = ready() {
                return value;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "no answer");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn stale_questions_are_never_answered_and_a_fault_is_survived() {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let wake: Wake = Arc::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let theirs = Arc::clone(&gate);
        let mut worker = Worker::new("test", wake, move || {
            Box::new(move |n: u32| {
                let mut open = theirs.0.lock().unwrap();
                while !*open {
                    open = theirs.1.wait(open).unwrap();
                }
                drop(open);
                assert!(n != 13, "a fault");
                n * 2
            })
        });
        worker.ask(1, |_| false);
        wait(|| (worker.shared.lock().busy).then_some(()));
        for n in 2..10 {
            worker.ask(n, |&waiting| waiting < 100);
        }
        worker.ask(13, |_| false);
        worker.ask(200, |_| false);
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        let mut answers = vec![];
        wait(|| {
            answers.extend(worker.answers());
            (answers.len() == 3 && !worker.is_busy()).then_some(())
        });
        assert_eq!(answers, [2, 18, 400]);
        assert_eq!(woken.load(Ordering::SeqCst), 4);
        worker.forget(|_| true);
    }
}
