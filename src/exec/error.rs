//! Codes of what a run finds doubtful.

crate::codes! {
    /// Every prediction of an evaluation is of one class, though the labels are of several. The model tells nothing then,
    /// however good an accuracy looks. Train longer or with another learning rate, and look at how many rows each class has
    /// (`peftc check` shows that).
    ONE_PREDICTION = "exec::one_prediction";
}
