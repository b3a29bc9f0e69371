"""The same with three lines: the arm's optimizer, the budget's steps, a report at each validation."""

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

import geosweep

trial = geosweep.trial(lr=0.05)


class Lit(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(4, 1)

    def training_step(self, batch, index):
        return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def validation_step(self, batch, index):
        loss = torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])
        if not self.trainer.sanity_checking:
            trial.report(self.global_step, val_loss=loss)

    def configure_optimizers(self):
        return trial.optimizer(self)


L.seed_everything(trial.seed)
x = torch.randn(64, 4)
y = x.sum(1, keepdim=True)
loader = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)
trainer = L.Trainer(max_steps=int(trial.budget) if trial.in_sweep else 16, accelerator="cpu", logger=False,
                    enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
                    default_root_dir=trial.folder)  # fmt: skip
trainer.fit(Lit(), loader, DataLoader(TensorDataset(x, y), batch_size=64))
