"""The methods of an experiment that a training calls; what each gets is in `yolox_lt.train.callbacks.callback.Callback`."""

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
