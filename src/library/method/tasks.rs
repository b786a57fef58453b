//! What methods share that train several tasks with tensors of each task's own.

use super::{Complaint, Values};
use crate::library::error::{BAD_METHOD_VALUES, IDLE_KEY};
use crate::library::schema::{Given, kind};

pub(super) const TASKS: Given<u64> = Given::<u64>::new(
    "tasks",
    kind::int(1, 1 << 16),
    (1, "1"),
    "how many tasks have numbers of their own",
);
pub(super) const TASK: Given<u64> = Given::<u64>::new(
    "task",
    kind::int(0, 1 << 16),
    (0, "0"),
    "whose numbers are used and trained, counted from 0",
);
pub(super) const MIXED: Given<bool> = Given::<bool>::tacit(
    "mixed",
    kind::BOOL,
    (false, "false"),
    "whether each example is of a task of its own, which the data name (`task = COLUMN`), and not all of `task`",
);

/// A complaint about a task that is not there, or that examples name themselves.
pub(super) fn check(values: &Values) -> Option<Complaint> {
    let (tasks, task) = (TASKS.get(values), TASK.get(values));
    if MIXED.get(values) && TASK.is_written(values) {
        return Some(Complaint {
            key: TASK.name(),
            code: &IDLE_KEY,
            message: "with `mixed = true` each example names its task".to_owned(),
            help: Some("remove one of the two".to_owned()),
        });
    }
    (task >= tasks).then(|| Complaint {
        key: TASK.name(),
        code: &BAD_METHOD_VALUES,
        message: format!("`task` is {task}, and there are {tasks}, counted from 0"),
        help: Some(format!("write at most `task = {}`", tasks - 1)),
    })
}

/// How many tasks there are, where examples name theirs.
pub(super) fn named_by_examples(values: &Values) -> Option<u64> {
    MIXED.get(values).then(|| TASKS.get(values))
}
