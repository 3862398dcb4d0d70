"""The paper's tables: their rows, the trainings behind them, and its numbers beside ours."""
