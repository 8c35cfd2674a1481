//! What can be told to, and asked of, a [`Stream`](super::Stream) by others than its owner.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::Context,
};

use futures::task::AtomicWaker;

/// A handle on a stream. Cloning shares.
#[derive(Debug, Clone, Default)]
pub(crate) struct Control(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    reset: AtomicBool,
    blocked: AtomicBool,
    read: AtomicBool,
    wrote: AtomicBool,
    /// The end is not told to the reader yet.
    withheld: AtomicBool,
    /// The peer ended its direction while that was so.
    ended: AtomicBool,
    finish: AtomicBool,
    /// The task that last waited to read.
    reader: AtomicWaker,
    /// The task that waits for an end that is withheld from the reader.
    listener: AtomicWaker,
}

impl Control {
    /// When the stream is dropped, its peer sees a reset instead of an orderly end.
    pub(crate) fn arm_reset(&self) {
        self.0.reset.store(true, Relaxed);
    }

    /// Whether something was read since [`Control::forget_read`].
    pub(crate) fn was_read(&self) -> bool {
        self.0.read.load(Relaxed)
    }

    /// What was read so far is understood.
    pub(crate) fn forget_read(&self) {
        self.0.read.store(false, Relaxed);
    }

    /// Whether the peer does not take what was last written to it.
    pub(crate) fn is_blocked(&self) -> bool {
        self.0.blocked.load(SeqCst)
    }

    /// From now on whoever reads the stream is not told when its peer ends its direction, but waits.
    pub(crate) fn withhold_end(&self) {
        self.0.withheld.store(true, SeqCst);
    }

    /// The reader is told of the end, too late or not.
    pub(crate) fn tell_end(&self) {
        self.0.withheld.store(false, SeqCst);
        if self.0.ended.load(SeqCst) {
            self.0.reader.wake();
        }
    }

    /// Whether the peer has ended its direction, and the reader was not told at once.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.ended.load(SeqCst)
    }

    /// The same, and has the task woken when it does.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> bool {
        self.0.listener.register(cx.waker());
        self.has_ended()
    }

    /// A message is about to be written.
    pub(crate) fn begin_message(&self) {
        self.0.wrote.store(false, SeqCst);
    }

    /// Ends our direction as soon as the message that was begun is written, while the stream is read on. Its last part is
    /// in the hands of whoever writes to the stream.
    pub(crate) fn finish(&self) {
        if !self.0.finish.swap(true, SeqCst) {
            self.0.reader.wake();
        }
    }

    /// Whether no other message will be written.
    pub(crate) fn is_finishing(&self) -> bool {
        self.0.finish.load(SeqCst)
    }

    pub(super) fn is_to_be_reset(&self) -> bool {
        self.0.reset.load(Relaxed)
    }

    pub(super) fn mark_read(&self) {
        self.0.read.store(true, Relaxed);
    }

    pub(super) fn mark_written(&self, blocked: bool) {
        let is_first = !self.0.wrote.swap(true, SeqCst);
        self.mark_blocked(blocked);
        if is_first && self.is_finishing() {
            self.0.reader.wake();
        }
    }

    pub(super) fn mark_blocked(&self, blocked: bool) {
        let is_over = self.0.blocked.swap(blocked, SeqCst) && !blocked;
        if is_over && (self.has_ended() || self.is_finishing()) {
            self.0.reader.wake();
        }
    }

    /// Whether the end that the peer made, now or before, is to be withheld; in any case until it has taken what was
    /// written to it, which hyper would drop. Has the task woken when the end may be told.
    pub(super) fn withholds_end(&self, ended_now: bool, cx: &mut Context<'_>) -> bool {
        let is_withheld = || self.0.withheld.load(SeqCst) || self.is_blocked();
        if !is_withheld() || !(ended_now || self.has_ended()) {
            return false;
        }
        self.0.reader.register(cx.waker());
        if !self.0.ended.swap(true, SeqCst) {
            self.0.listener.wake();
        }
        // Told between the two: there would be nobody to wake us.
        is_withheld()
    }

    /// Whether our direction is to be ended now. Has the task woken when that changes.
    pub(super) fn is_finished(&self, cx: &mut Context<'_>) -> bool {
        self.0.reader.register(cx.waker());
        self.is_finishing() && self.0.wrote.load(SeqCst) && !self.is_blocked()
    }
}
