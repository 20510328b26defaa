"""The learning rate as a function of the step alone: a linear warm-up, then a cosine (Loshchilov and Hutter 2017, eq. 5, without
restarts) or whatever rate the optimiser has.

A run that is continued, or that goes on with other numbers of processes or micro-batches, makes the same steps and so has the same
rates. Skipped batches (--skip-nan) count as steps.
"""

import math


def count_warmup_steps(config, steps_per_epoch):
    """The number of steps W of the warm-up, `config.warmup` epochs."""
    return round(config.warmup * steps_per_epoch)


def scheduled_rate(step, config, steps_per_epoch):
    """The rate of a step, the first of which is 1 and the last T = `config.epochs` * `steps_per_epoch`; None if it is no function
    of the step, as after the warm-up without a cosine.

    Step s <= W has lr s / W, so that step W is the first with the whole rate. With `config.lr_schedule` "cosine" a later one has
    lr (1 + cos(pi (s - W) / (T - W))) / 2: the last step of the last epoch has 0.
    """
    warmup, steps = count_warmup_steps(config, steps_per_epoch), config.epochs * steps_per_epoch
    if step <= warmup:
        return config.lr * (step / warmup)
    if config.lr_schedule == "cosine":
        return config.lr * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
    return None
