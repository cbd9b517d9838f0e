"""The methods of an experiment that a training calls; `yolox_lt.train.callbacks.callback` says what each gets."""

HOOKS = (
    "on_train_start",
    "on_batch",
    "on_iteration_end",
    "on_log",
    "on_evaluation_start",
    "on_evaluation_end",
    "on_epoch_record",
    "on_epoch_end",
    "on_stop",
    "on_train_end",
)
