"""Which task's part of a module answers: masks, columns, modules that a method keeps for each task."""

from __future__ import annotations


class TaskChoice:
    """The task that an evaluation tells, or in training the current one, or the one that somebody named.

    Attributes:
        told: Of the evaluation batch that is being answered; ``None``: the stream tells none.
        current: Of the training that is going on; ``None``: there is none.
        named: For predictions outside of both.
    """

    def __init__(self) -> None:
        self.told: int | None = None
        self.current: int | None = None
        self.named: int | None = None

    @property
    def known(self) -> int | None:
        """The task, counted from 0; ``None``: nobody says which."""
        return next((task for task in (self.told, self.current, self.named) if task is not None), None)

    def required(self, who: str) -> int:
        """The task.

        Raises:
            ValueError: If nobody says which.
        """
        if self.known is None:
            raise ValueError(
                f"{who} answers with what it keeps for one task, and none was named; set the task of the samples, "
                "counted from 0, before you predict: `module.continual.task = 3`."
            )
        return self.known

    def name(self, task: int | None, num_tasks: int) -> None:
        """Answer for this task from now on; ``None``: for none.

        Raises:
            ValueError: If there is no such task.
        """
        if task is not None and not 0 <= task < num_tasks:
            raise ValueError(f"`task` is {task}, but the stream has the tasks 0 to {num_tasks - 1}; name one of them.")
        self.told, self.current, self.named = None, None, task
