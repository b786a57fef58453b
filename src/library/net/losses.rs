//! Losses that a language model's own head makes: of tokens, of texts, of answers that are compared.

use super::super::model::LmHead;
use super::Net;

use crate::program::op::{HeadLoss, Preference, Scatter, Unpaired};
use crate::program::{Axis, Feed, Real, TargetKind, Value};

impl Net<'_> {
    /// The summed cross-entropy of the next tokens at the rows that are read, times the step's loss scale, `[1]`, and of
    /// each row its loss and the likeliest token, `[R, 2]`; without logits in memory.
    pub fn head_loss(&mut self, x: Value, head: &LmHead) -> (Value, Value) {
        let targets = self.b.feed(Feed::Targets(TargetKind::Token));
        let scale = self.b.feed(Feed::LossScale);
        let op = HeadLoss {
            softcap: head.cap.map(Real::new),
            bias: head.bias.is_some(),
            ..HeadLoss::plain(Real::new(head.scale))
        };
        let mut operands = vec![x, head.table, targets, scale];
        operands.extend(head.bias);
        let made = self.b.push(op, &operands);
        (made[0], made[2])
    }

    /// The summed loss of each text, `[S, 1]`, from those of its places, `[R, 2]`.
    pub fn losses_of_texts(&mut self, rows: Value) -> Value {
        let owners = self.b.feed(Feed::Owners);
        let own = self.columns(rows, 0, 1);
        let texts = Axis::Sequences.dim();
        self.b.push1(Scatter { rows: texts }, &[owners, own])
    }

    /// The loss of pairs of texts, `[1]`, and of each text its reward and its pair's loss, `[S, 2]`, by the summed losses of their
    /// places.
    pub fn preference(&mut self, op: &Preference, losses: Value, compares: bool) -> (Value, Value) {
        let owners = self.b.feed(Feed::Owners);
        let scale = self.b.feed(Feed::LossScale);
        let mut operands = vec![losses, owners, scale];
        if compares {
            operands.push(self.b.feed(Feed::REFERENCE));
        }
        let made = self.b.push(op.clone(), &operands);
        (made[0], made[1])
    }

    /// The loss of answers of which each is wanted or not, beside mismatched ones, `[1]`, and of each text its reward and its pair's loss,
    /// `[S, 2]`, by the summed losses of their places.
    pub fn unpaired(&mut self, op: &Unpaired, losses: Value) -> (Value, Value) {
        let others = self.detach(losses);
        let labels = self.b.feed(Feed::Targets(TargetKind::Class));
        let scale = self.b.feed(Feed::LossScale);
        let reference = self.b.feed(Feed::REFERENCE);
        let operands = [losses, others, labels, scale, reference];
        let made = self.b.push(op.clone(), &operands);
        (made[0], made[1])
    }
}
