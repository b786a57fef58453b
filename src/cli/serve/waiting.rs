//! A request from its place in the queue to the end of its answer.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Bytes;
use tokio::sync::mpsc::UnboundedReceiver;

use super::numbers::{Counts, Numbers, add};
use super::openai::Talk;
use super::work::{Said, late};

/// A request whose answer is on its way.
pub(super) struct Waiting {
    pub(super) said: UnboundedReceiver<Said>,
    pub(super) numbers: Arc<Numbers>,
    /// Of its model, if it is about one.
    pub(super) counts: Option<Arc<Counts>>,
    pub(super) began: Instant,
    pub(super) until: Instant,
    /// Whether it was answered.
    pub(super) answered: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.numbers.waiting.fetch_sub(1, Ordering::Relaxed);
        if let Some(counts) = &self.counts {
            counts.took(self.began.elapsed());
            if !self.answered {
                add(&counts.failed, 1);
            }
        }
    }
}

impl Waiting {
    /// What is said next.
    pub(super) async fn next(&mut self) -> Said {
        match tokio::time::timeout_at(self.until.into(), self.said.recv()).await {
            Ok(said) => said.unwrap_or_else(silent),
            Err(_) => late(),
        }
    }

    /// Notes that it was answered, with so many tokens made.
    pub(super) fn done(&mut self, tokens: u64) {
        self.answered = true;
        if let Some(counts) = &self.counts {
            add(&counts.tokens, tokens);
        }
    }
}

fn silent() -> Said {
    Said::Failed(500, "the model gave no answer".to_owned())
}

/// The events of an answer.
pub(super) struct Events {
    pub(super) waiting: Waiting,
    pub(super) talk: Talk,
    pub(super) list: VecDeque<String>,
    pub(super) over: bool,
}

impl futures_core::Stream for Events {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(text) = self.list.pop_front() {
                return Poll::Ready(Some(Ok(Bytes::from(text))));
            }
            if self.over {
                return Poll::Ready(None);
            }
            // The thread that computes looks at the time.
            let said = match self.waiting.said.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(said) => said,
            };
            let said = said.unwrap_or_else(silent);
            let (list, over) = self.talk.events(&said);
            self.list.extend(list);
            self.over = over;
            if over && !matches!(said, Said::Failed(..)) {
                let made = self.talk.made();
                self.waiting.done(made);
            }
        }
    }
}
