"""What a run reports: a progress bar, JSON lines always, TensorBoard, Weights & Biases on request."""
import json
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

BAR_KEYS = ('loss/critic', 'q_data', 'target', 'disagreement')


class Progress:
    """Sinks of the metrics of one run. Only the first process makes one."""

    def __init__(self, folder: Path, start: int, steps: int, wandb_project: str = '', settings: dict | None = None,
                 quiet: bool = False):
        self.bar = tqdm(initial=start, total=steps, unit=' steps', smoothing=0.05, disable=quiet)
        path = folder / 'metrics.jsonl'
        if path.exists():  # drop what a killed run logged after the state that this one continues from
            kept = [line for line in path.read_text().splitlines(True)
                    if line.endswith('\n') and json.loads(line)['step'] <= start]
            path.write_text(''.join(kept))
        self.lines = path.open('a', buffering=1)
        self.board = SummaryWriter(str(folder / 'tensorboard'), purge_step=start or None)
        self.run = None
        if wandb_project:
            try:
                import wandb
            except ImportError as error:
                raise ImportError("wandb is not installed: pip install 'vgps_training[wandb]'") from error
            self.run = wandb.init(project=wandb_project, dir=str(folder), config=settings, id=folder.name,
                                  resume='allow')

    def advance(self) -> None:
        """Count one update."""
        self.bar.update()

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Record metrics of an update."""
        self.lines.write(json.dumps({'step': step, **metrics}) + '\n')
        for name, value in metrics.items():
            self.board.add_scalar(name, value, step)
        if self.run:
            self.run.log(metrics, step=step)
        self.bar.set_postfix({key.split('/')[-1]: f'{metrics[key]:.3g}' for key in BAR_KEYS if key in metrics})

    def close(self) -> None:
        """Finish all sinks."""
        self.bar.close()
        self.lines.close()
        self.board.close()
        if self.run:
            self.run.finish()
